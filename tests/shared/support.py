"""What the tests of all scenarios share: asking a test host, and waiting until it answers as it should."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import testinfra

Answer = TypeVar("Answer")

REPOSITORY = Path(__file__).parents[2]
LOKI = "http://127.0.0.1:3101"
PROMETHEUS = "http://127.0.0.1:9090"


def eventually(ask: Callable[[], Answer], *, seconds: float = 30, otherwise: Callable[[], str] = str) -> Answer:
    """Ask until the answer is truthy, and return it; fail with the last answer and what `otherwise` tells."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {seconds} s. {otherwise()}")
        time.sleep(0.2)
    return answer


def unique(word: str) -> str:
    """Return a text that no other test writes."""
    return f"{word}-{uuid.uuid4().hex}"


def journal(host: Any, *units: str) -> str:
    """Return the end of the units' journals, for a failing test to print."""
    wanted = " ".join(f"--unit {unit}" for unit in units)
    return str(host.run(f"journalctl --no-pager --lines 40 {wanted}").stdout)


def fetch(host: Any, url: str, *options: str) -> tuple[int, str]:
    """Ask an HTTP address from the host itself; return the status (0: no answer) and the body."""
    words = " ".join(shlex.quote(option) for option in options)
    result = host.run(f"curl --silent --max-time 20 --write-out '\\n%{{http_code}}' {words} {shlex.quote(url)}")
    body, _, status = result.stdout.rpartition("\n")
    return int(status or 0), body


@dataclass(frozen=True)
class Line:
    """A line that Loki returns, with its labels (structured metadata are among them)."""

    labels: dict[str, str]
    text: str

    @property
    def record(self) -> dict[str, Any]:
        """The line as a JSON record."""
        record: dict[str, Any] = json.loads(self.text)
        return record


def ask_loki(host: Any, path: str, url: str = LOKI, **parameters: str) -> Any:
    """Ask Loki's API from the host; return what it calls `data`."""
    encoded = [word for name, value in parameters.items() for word in ("--data-urlencode", f"{name}={value}")]
    status, body = fetch(host, f"{url}/loki/api/v1/{path}", "--get", *encoded)
    assert status == 200, f"Loki answers {status} for {path} {parameters}: {body}"
    return json.loads(body)["data"]


def find_lines(host: Any, query: str, url: str = LOKI) -> list[Line]:
    """Return the lines of the last hour that match a LogQL query."""
    data = ask_loki(host, "query_range", url, query=query, limit="1000", since="1h")
    return [Line(stream["stream"], text) for stream in data["result"] for _, text in stream["values"]]


def find_sample(host: Any, query: str, url: str = LOKI) -> float:
    """Return the one value of a LogQL metric query, now; 0 if there is none."""
    result = ask_loki(host, "query", url, query=query)["result"]
    assert len(result) <= 1, result
    return float(result[0]["value"][1]) if result else 0.0


def ask_prometheus(host: Any, path: str, url: str = PROMETHEUS, **parameters: str) -> Any:
    """Ask Prometheus' API from the host; return what it calls `data`."""
    encoded = [word for name, value in parameters.items() for word in ("--data-urlencode", f"{name}={value}")]
    status, body = fetch(host, f"{url}/api/v1/{path}", "--get", *encoded)
    assert status == 200, f"Prometheus answers {status} for {path} {parameters}: {body}"
    return json.loads(body)["data"]


def samples(host: Any, query: str, url: str = PROMETHEUS) -> list[tuple[dict[str, str], float]]:
    """Return labels and value of each series of a PromQL query, now."""
    result = ask_prometheus(host, "query", url, query=query)["result"]
    return [(series["metric"], float(series["value"][1])) for series in result]


def exposure(host: Any, unit: str) -> float:
    """Return how exposed systemd thinks a unit is: 0 (least) to 10."""
    report = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    return float(report.rsplit("exposure level for", 1)[1].split()[1])


def check_service(host: Any, name: str) -> None:
    """Assert that a service runs as its own user, comes back at boot, and is shut off from the rest of the host."""
    unit = host.service(name)
    assert unit.is_running, journal(host, name)
    # `static` and `linked` make systemctl succeed as well, so the word counts.
    assert host.check_output(f"systemctl is-enabled {name}.service") == "enabled"
    process = process_of(host, name)
    if is_container(host, name):
        check_container(host, name, process)
    else:
        assert exposure(host, name) <= 2.0
    assert host.check_output(f"stat --format %U /proc/{process}") == name


def is_container(host: Any, name: str) -> bool:
    """Tell whether a part of the platform runs in a container."""
    return bool(host.run(f"podman container exists {name}").rc == 0)


def process_of(host: Any, name: str) -> str:
    """Return the number of a part's process: in a container, not podman's, which is the unit's."""
    if is_container(host, name):
        return str(host.check_output(f"podman inspect --format '{{{{.State.Pid}}}}' {name}"))
    return str(host.check_output(f"systemctl show --property MainPID --value {name}.service"))


def check_container(host: Any, name: str, process: str) -> None:
    """Assert that a container's process can do no more than it must, as the kernel and podman tell."""
    status = dict(line.split(":\t", 1) for line in host.file(f"/proc/{process}/status").content_string.splitlines())
    assert (status["CapBnd"].strip("0"), status["NoNewPrivs"], status["Seccomp"]) == ("", "1", "2")
    (container,) = json.loads(host.run(f"podman inspect {name}").stdout)
    settings = container["HostConfig"]
    assert settings["ReadonlyRootfs"]
    assert not settings["Privileged"]
    assert 0 < settings["PidsLimit"] <= 4096
    # It is the unit's own control group that is limited, and the container is in it.
    assert f"/{name}.service/" in host.file(f"/proc/{process}/cgroup").content_string
    assert host.check_output(f"systemctl show --property MemoryMax --value {name}.service") != "infinity"
    named = "\n".join(container["Config"]["Env"])
    assert not re.search("password|secret|token", named, re.IGNORECASE), "secrets don't belong into the environment"


def check_no_secret_is_readable(host: Any, secret: str, *folders: str) -> None:
    """Assert that no file that everybody may read holds a secret."""
    found = host.run(f"grep -rlF {shlex.quote(secret)} {' '.join(folders)}").stdout.split()
    readable = [path for path in found if host.file(path).mode & 0o007]
    assert not readable, f"{readable} hold a secret and are open to everybody"


def run_playbook(playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run a playbook on all of the scenario's hosts, as a user would; return the exit code and all that it printed."""
    command = ["ansible-playbook", playbook, "--extra-vars", json.dumps(variables), *arguments]
    result = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
    )
    return result.returncode, result.stdout


class Hosts:
    """All hosts of the scenario, for tests that run a playbook: one run serves them all."""

    def __init__(self, *patterns: str) -> None:
        key = f"{os.environ['LOGSTEAD_CACHE']}/ssh/id_ed25519"
        self.hosts = testinfra.get_hosts(
            [f"ansible://{pattern}" for pattern in patterns or ["all"]], ssh_identity_file=key
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self.hosts)

    def ask(self, question: Callable[[Any], Answer]) -> list[Answer]:
        """Return each host's answer."""
        return [question(host) for host in self.hosts]

    def check_output(self, command: str) -> list[str]:
        """Run a command on each host, and return what each prints."""
        return [str(host.check_output(command)) for host in self.hosts]


def answers(host: Any) -> bool:
    """Tell whether a host can be logged in to."""
    try:
        return bool(host.run("true").rc == 0)
    except RuntimeError:  # what testinfra raises when ssh gets no connection
        return False


def podman(*words: str) -> str:
    """Run podman on the hosts of the tests; return what it prints."""
    environment = {**os.environ, "CONTAINERS_CONF": f"{os.environ['LOGSTEAD_CACHE']}/containers.conf"}
    return subprocess.run(["podman", *words], check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


def power_cycle(host: Any) -> None:
    """Cut a host's power, start it again, and wait until it can be logged in to."""
    name = host.check_output("hostname")
    for action in ("kill", "start"):
        podman(action, name)
    eventually(lambda: answers(host), seconds=60)


def cut_off(host: Any, port: int = 3101) -> Callable[[], None]:
    """Have packets from and to a port of a host get lost; return what ends that."""
    process = podman("inspect", "--format", "{{.State.Pid}}", host.check_output("hostname")).strip()
    drop = "; ".join(f"add rule inet cut off tcp {end} {port} drop" for end in ("dport", "sport"))

    def nft(script: str) -> None:
        subprocess.run(["nsenter", "-t", process, "-n", "nft", "-f", "-"], input=script, text=True, check=True)

    nft(f"add table inet cut; add chain inet cut off {{ type filter hook output priority 0; }}; {drop}")
    return lambda: nft("delete table inet cut")
