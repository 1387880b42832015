"""The platform in containers: the same to its users, and the way there, back and out of it loses nothing."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any

import pytest
from support import (
    REPOSITORY,
    Hosts,
    check_service,
    eventually,
    fetch,
    find_lines,
    is_container,
    journal,
    power_cycle,
    run_playbook,
    samples,
    unique,
)

ADDRESSES = {"containers-debian12": "10.89.77.173", "containers-debian13": "10.89.77.174"}
LOKI = f"http://{ADDRESSES['containers-debian12']}:3101"
PROMETHEUS = f"http://{ADDRESSES['containers-debian13']}:9090"
APP = f"http://{ADDRESSES['containers-debian12']}:8000"
PARTS = {
    "containers-debian12": ("loki", "promtail", "demo-app", "node-exporter"),
    "containers-debian13": ("grafana", "prometheus", "alertmanager", "promtail", "node-exporter"),
}
DELIVERY = REPOSITORY / "molecule/delivery/tests"
LINES_PER_SECOND = 50


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    """Both hosts."""
    return Hosts()


@pytest.fixture(scope="module")
def old() -> Any:
    """The host with podman 4.3: Loki, the app and its collector."""
    (host,) = Hosts("containers-debian12")
    return host


@pytest.fixture(scope="module")
def new() -> Any:
    """The host with podman 5.4: Grafana, Prometheus and Alertmanager."""
    (host,) = Hosts("containers-debian13")
    return host


def parts_of(host: Any) -> tuple[str, ...]:
    """Return what the platform runs on a host."""
    return PARTS[host.check_output("hostname")]


def container(host: Any, name: str) -> str:
    """Return the id of a part's container."""
    return str(host.check_output(f"podman inspect --format '{{{{.Id}}}}' {name}"))


def converge(*arguments: str, **variables: Any) -> tuple[int, str]:
    """Run the platform's playbook; return the exit code and what it printed, without its line breaks."""
    code, output = run_playbook("site.yml", *arguments, **variables)
    return code, re.sub(r"\s+", " ", output)


def wait_for_request(host: Any) -> None:
    """Send the app a request, and wait until its lines are in Loki."""
    trace_id = secrets.token_hex(16)
    header = f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01"
    eventually(lambda: fetch(host, f"{APP}/trace/42", "--header", header)[0] == 200, seconds=60)
    eventually(
        lambda: find_lines(host, f'{{job="fastapi"}} | trace_id="{trace_id}"', LOKI),
        seconds=60,
        otherwise=lambda: journal(host, "promtail", "loki", "demo-app"),
    )


# --- In containers ----------------------------------------------------------------------------------------------------


def test_every_part_runs_in_a_container_that_can_do_no_more_than_it_must(hosts: Hosts) -> None:
    for host in hosts:
        for name in parts_of(host):
            assert is_container(host, name), name
            check_service(host, name)
        assert host.run("ls -d /opt/*/current").stdout == "", "a release lies there unused"


def test_a_request_is_found_and_so_are_both_journals(old: Any) -> None:
    wait_for_request(old)
    eventually(
        lambda: {line.labels["host"] for line in find_lines(old, '{job="systemd-journal"}', LOKI)} == set(ADDRESSES),
        otherwise=lambda: journal(old, "promtail"),
    )
    # What a container writes is its unit's, as without one.
    eventually(lambda: find_lines(old, '{job="systemd-journal", unit="grafana.service"}', LOKI))


def test_grafana_asks_loki_and_prometheus_scrapes_all(new: Any) -> None:
    log_in = "--user", "admin:admin123"
    status, body = fetch(new, "http://127.0.0.1:3100/api/datasources/uid/loki/health", *log_in)
    assert (status, json.loads(body)["status"]) == (200, "OK"), body
    jobs = {name.replace("-", "_").replace("node_exporter", "node") for names in PARTS.values() for name in names}
    eventually(
        lambda: {labels["job"] for labels, _ in samples(new, "up == 1", PROMETHEUS)} == jobs,
        seconds=60,
        otherwise=lambda: fetch(new, f"{PROMETHEUS}/api/v1/targets")[1],
    )


def test_the_metrics_are_those_of_the_host_and_not_of_the_container(new: Any) -> None:
    _, metrics = fetch(new, "http://127.0.0.1:9100/metrics")
    assert 'mountpoint="/var/lib/containers"' in metrics
    assert 'name="promtail.service",state="active"' in metrics
    assert not [path for path in re.findall('mountpoint="([^"]*)"', metrics) if f"{path}/".startswith("/host/")]


def test_the_administrators_password_can_be_changed(new: Any) -> None:
    password = unique("password")
    try:
        code, output = converge("--tags", "grafana", "-vv", grafana_admin_password=password)
        assert code == 0, output
        assert password not in output
        assert fetch(new, "http://127.0.0.1:3100/api/org", "--user", f"admin:{password}")[0] == 200
    finally:
        converge("--tags", "grafana")
    assert fetch(new, "http://127.0.0.1:3100/api/org", "--user", "admin:admin123")[0] == 200


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_killed_container_is_started_again(old: Any) -> None:
    names = ("loki", "promtail", "demo-app")
    before = {name: container(old, name) for name in names}
    for name in names:
        old.check_output(f"kill -KILL $(podman inspect --format '{{{{.State.Pid}}}}' {name})")

    def is_back(name: str) -> bool:
        shown = old.run(f"podman inspect --format '{{{{.State.Running}}}} {{{{.Id}}}}' {name}").stdout.split()
        return bool(shown[:1] == ["true"] and shown[1] != before[name])

    for name in names:
        eventually(lambda: is_back(name), otherwise=lambda: journal(old, name))
    wait_for_request(old)


WRONG = {
    "no such image": (
        {"alertmanager": "docker.io/prom/alertmanager:v9.9.9"},
        {},
        "docker.io/prom/alertmanager/v9.9.9-amd64.tar.sha256 answers 404",
    ),
    "no registry": (
        {},
        {"platform_image_registry": "localhost:9"},
        "localhost:9/prom/alertmanager:v0.35.0 can't be pulled",
    ),
    "another digest": (
        {"alertmanager": f"docker.io/prom/alertmanager:v0.35.0@sha256:{'0' * 64}"},
        {},
        "and not docker.io/prom/alertmanager:v0.35.0@sha256:0000",
    ),
    "no program in it": ({"alertmanager": "docker.io/prom/node-exporter:v1.12.1"}, {}, "/bin/amtool"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_image_that_cannot_be_had_leaves_the_old_container_running(new: Any, case: str) -> None:
    images, variables, words = WRONG[case]
    before = container(new, "alertmanager")
    code, output = converge(
        "--limit", "containers-debian13", "--tags", "alertmanager", platform_images=images, **variables
    )
    assert code == 2, output
    assert words in output, output
    assert container(new, "alertmanager") == before
    assert fetch(new, f"http://{ADDRESSES['containers-debian13']}:9093/-/ready")[0] == 200


def test_a_container_that_does_not_get_ready_gives_way_to_the_old_one(old: Any) -> None:
    # It has no Python to run the app with.
    images = {"demo_app": "docker.io/prom/node-exporter:v1.12.1"}
    code, output = converge("--limit", "containers-debian12", "--tags", "demo_app", platform_images=images)
    assert code == 2, output
    assert "demo-app.service keeps ending" in output, output
    assert "What ran before was put back and runs again" in output, output
    wait_for_request(old)


def test_after_a_power_cut_the_containers_come_back(hosts: Hosts, old: Any) -> None:
    for host in hosts:
        power_cycle(host)
    for host in hosts:
        units = parts_of(host)
        eventually(
            lambda: all(is_container(host, name) for name in units),
            seconds=60,
            otherwise=lambda: journal(host, *units),
        )
        assert host.check_output("systemctl --failed --no-legend") == ""
    wait_for_request(old)


# --- Other containers of the host -------------------------------------------------------------------------------------


def test_another_containers_lines_are_found_by_its_name_and_image(old: Any) -> None:
    word = unique("shop")
    logged = "--log-driver=journald --log-opt tag={{.ImageName}}"
    run = f"podman run --rm --name shop {logged} --network=none --entrypoint=/opt/demo-app/bin/python"
    old.check_output(f"{run} docker.io/logstead/demo-app:0.1.0 -c 'print(\"ERROR {word}\")'")
    (line,) = eventually(
        lambda: find_lines(old, f'{{job="systemd-journal"}} | container_name="shop" |= "{word}"', LOKI),
        otherwise=lambda: journal(old, "promtail"),
    )
    assert line.labels["image_name"] == "docker.io/logstead/demo-app:0.1.0"


# --- From one runtime to the other ------------------------------------------------------------------------------------


def test_a_change_of_the_runtime_and_back_under_load_loses_nothing(old: Any) -> None:
    for name in ("writer.py", "tally.py"):
        script = base64.b64encode((DELIVERY / name).read_bytes()).decode()
        old.check_output(f"echo {script} | base64 -d > /root/{name}")
    case, since = unique("runtime"), int(old.check_output("date +%s%N"))
    old.check_output(
        "systemd-run --quiet --collect --unit=writer --property=UMask=0027 --property=Group=adm "
        f"--property=RuntimeMaxSec=30min python3 /root/writer.py {case} 0 {LINES_PER_SECOND}"
    )
    arguments = "--limit", "containers-debian12"
    try:
        for runtime in ("systemd", "podman"):
            code, output = converge(*arguments, platform_runtime=runtime)
            assert code == 0, output
            for name in parts_of(old):
                assert is_container(old, name) == (runtime == "podman"), name
                check_service(old, name)
            assert bool(old.run("ls -d /opt/*/current").stdout) == (runtime == "systemd")
            assert bool(old.check_output("podman images --quiet")) == (runtime == "podman"), "leftovers"
            wait_for_request(old)
    finally:
        old.check_output("systemctl stop writer")
    tally = old.run(f"python3 /root/tally.py compare {case} {since} 120 {LOKI}")
    assert tally.rc == 0, f"{tally.stderr}{journal(old, 'promtail', 'loki')}"
    found = json.loads(tally.stdout)
    assert found["written"] > LINES_PER_SECOND, found
    assert (found["lost"], found["twice"], found["foreign"]) == (0, 0, 0), f"{found} {journal(old, 'promtail')}"


# --- Last -------------------------------------------------------------------------------------------------------------


def test_after_a_removal_nothing_of_ours_is_left_but_the_data(hosts: Hosts) -> None:
    code, output = run_playbook("playbooks/clean.yml", clean_confirmed=True)
    assert code == 0, output
    for host in hosts:
        for what in ("ps --all", "images --all", "volume ls", "secret ls"):
            assert host.check_output(f"podman {what} --quiet") == "", what
        for name in parts_of(host):
            assert host.run(f"ls -d /etc/systemd/system/{name}.service /opt/{name} /etc/{name}").stdout == "", name
        assert host.run("ls -d /var/lib/promtail/positions.yaml").rc == 0
