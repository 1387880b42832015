#!/usr/bin/env python3
"""`make bench`: how long a run takes that changes nothing, ours beside a peer's. It measures, it doesn't judge.

Ours is the whole site.yml: Loki, Promtail, Grafana and the demo app. The peer is the collection `grafana.grafana`,
which installs Loki and Promtail alone, the same programs from Debian packages. Both have a Debian 12 host of their own
on this machine, and the same ansible-core, Python and ansible.cfg. Runs alternate, so that whatever else the machine
does disturbs both.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts.cache import CACHE, REPO, locked
from tests.hosts.podman import podman, write_config
from tests.mirror.mirror import ARCH, MIRROR, grafana_kind, program_zip, release_folder, versions

HERE = Path(__file__).resolve().parent
REQUIREMENTS = REPO / "requirements" / "bench.txt"
TARGET = 0.4
FACTS = "facts only"
# What the peer's host needs besides: its packages' index is empty, since it reaches none, and there are logs to read.
PREPARE = """\
set -e
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
mkdir -p /var/log/demo-app
touch /var/log/demo-app/app.log /var/log/demo-app/access.log
"""
UNIT = """\
[Unit]
Description={name}
After=network.target

[Service]
User={name}
ExecStart=/usr/bin/{name} -config.file /etc/{name}/config.yml
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
POSTINST = """\
#!/bin/sh
set -e
getent passwd {name} > /dev/null || useradd --system --user-group --shell /bin/false --home-dir /nonexistent {name}
systemctl daemon-reload
"""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    what: str
    playbook: str

    @property
    def inventory(self) -> str:
        """Its inventory, whose one host is its own."""
        return f"tests/bench/{self.name}"


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    seconds: float
    tasks: int
    changed: int


OURS = Side("ours", f"site.yml: Loki, Promtail, Grafana ({grafana_kind()}), demo app", "site.yml")
PEER = Side("peer", "grafana.grafana: Loki, Promtail", "tests/bench/peer.playbook")


def environment(bench: Path) -> dict[str, str]:
    """Return the environment of every command: the same settings for both sides."""
    return {
        **os.environ,
        "PATH": f"{bench / 'bin'}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
        "ANSIBLE_PRIVATE_KEY_FILE": str(CACHE / "ssh" / "id_ed25519"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(CACHE / "ssh" / "cp" / "bench"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }


def ensure_venv() -> Path:
    """Return the Python environment that both are run from, made once for each list of requirements."""
    with locked("venv-bench"):
        source = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
        venv = CACHE / f"venv-bench-{source}"
        if not (venv / "ready").exists():
            print("Installing the peer's collection (once; takes minutes)", flush=True)
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            pip = [str(venv / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run([*pip, "--require-hashes", "-r", str(REQUIREMENTS)], check=True)
            (venv / "ready").touch()
        return venv


def make_package(name: str, version: str, folder: Path) -> None:
    """Make a Debian package of the mirror's program, as upstream's are made; it is kept for its very content."""
    recipe = hashlib.sha256((UNIT + POSTINST).encode()).hexdigest()[:8]
    kept, made = folder.parent / f"{name}_{version}_{recipe}.deb", folder / f"{name}.deb"
    if not kept.exists():
        root = folder / name
        for part in ("DEBIAN", "usr/bin", f"etc/{name}", "etc/systemd/system"):
            (root / part).mkdir(parents=True)
        with zipfile.ZipFile(MIRROR / release_folder(version) / program_zip(name)) as archive:
            program = Path(archive.extract(archive.namelist()[0], root / "usr" / "bin"))
        program.rename(program.with_name(name)).chmod(0o755)
        (root / "etc" / name / "config.yml").touch()
        (root / f"etc/systemd/system/{name}.service").write_text(UNIT.format(name=name), encoding="utf-8")
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {ARCH}\nMaintainer: tests\nDescription: {name}\n"
        (root / "DEBIAN" / "control").write_text(control, encoding="utf-8")
        postinst = root / "DEBIAN" / "postinst"
        postinst.write_text(POSTINST.format(name=name), encoding="utf-8")
        postinst.chmod(0o755)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(made)], check=True)
        made.rename(kept)
        shutil.rmtree(root)
    made.hardlink_to(kept)


def prepare_peer() -> None:
    """Lay out on the peer's host what it would have got from the internet."""
    with locked("bench-packages"):
        folder = CACHE / "bench" / "packages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("loki", "promtail"):
            make_package(name, versions()[f"{name}_version"], folder)
        podman("cp", str(folder), "bench-peer:/opt/packages")
    podman("exec", "bench-peer", "sh", "-c", PREPARE)


def hosts(command: str, side: Side, env: dict[str, str]) -> None:
    """Boot or remove a side's host."""
    subprocess.run([sys.executable, "tests/hosts/hosts.py", command, side.inventory], check=True, cwd=REPO, env=env)


def timed(command: list[str], env: dict[str, str]) -> tuple[float, str]:
    """Run a command and return its wall time and its output."""
    started = time.monotonic()
    result = subprocess.run(
        command, check=False, cwd=REPO, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    seconds = time.monotonic() - started
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout[-5000:]}")
    return seconds, result.stdout


def play(side: Side, env: dict[str, str]) -> Run:
    """Run a side's playbook."""
    command = ["ansible-playbook", "-i", "tests/hosts/inventory", "-i", side.inventory, side.playbook]
    if side is PEER:  # installs the same versions
        command += [
            "-e",
            f"loki_version={versions()['loki_version']} promtail_version={versions()['promtail_version']}",
        ]
    seconds, output = timed(command, env)
    recap = re.search(r"^bench-\w+ +: ok=(\d+) +changed=(\d+)", output, re.MULTILINE)
    if not recap:
        raise RuntimeError(f"no recap:\n{output[-5000:]}")
    return Run(seconds, int(recap[1]), int(recap[2]))


def unchanged(side: Side, env: dict[str, str]) -> Run:
    """Run a side's playbook where there is nothing to do; for ours, that is a promise."""
    run = play(side, env)
    if side is OURS and run.changed:
        raise RuntimeError(f"ours changed {run.changed} things, so this is no run without changes")
    return run


def facts(env: dict[str, str]) -> float:
    """Return what one module costs with everything around it: the facts of our host."""
    command = ["ansible", "-i", "tests/hosts/inventory", "-i", OURS.inventory, "all", "-m", "ansible.builtin.setup"]
    return timed(command, env)[0]


def table(first: dict[str, Run], runs: dict[str, list[Run]], baseline: list[float]) -> str:
    """Return the results as a table for the documentation."""
    lines = [
        "| | first run | no-change run: median (least-most) | tasks run | changed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for side in (OURS, PEER):
        times = [run.seconds for run in runs[side.name]]
        spread = f"{statistics.median(times):.1f} s ({min(times):.1f}-{max(times):.1f})"
        changed = max(run.changed for run in runs[side.name])
        lines.append(
            f"| {side.what} | {first[side.name].seconds:.1f} s | {spread} | {runs[side.name][-1].tasks} | {changed} |"
        )
    spread = f"{statistics.median(baseline):.1f} s ({min(baseline):.1f}-{max(baseline):.1f})"
    lines.append(f"| {FACTS}: `ansible -m setup` | | {spread} | 1 | 0 |")
    return "\n".join(lines)


def measure(pairs: int, env: dict[str, str]) -> None:
    """Run everything and print what came out."""
    for side in (OURS, PEER):
        hosts("up", side, env)
    prepare_peer()
    first = {side.name: play(side, env) for side in (OURS, PEER)}
    warm = {side.name: unchanged(side, env) for side in (OURS, PEER)}
    print(f"warm-up: ours {warm['ours'].seconds:.1f} s, peer {warm['peer'].seconds:.1f} s", flush=True)
    runs: dict[str, list[Run]] = {"ours": [], "peer": []}
    baseline, ratios = [], []
    for number in range(1, pairs + 1):
        for side in (OURS, PEER):
            runs[side.name].append(unchanged(side, env))
        baseline.append(facts(env))
        ours, peer = runs["ours"][-1], runs["peer"][-1]
        ratios.append(ours.seconds / peer.seconds)
        print(
            f"pair {number}: ours {ours.seconds:.2f} s, peer {peer.seconds:.2f} s (changed {peer.changed}), "
            f"ratio {ratios[-1]:.2f}, {FACTS} {baseline[-1]:.2f} s, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    core = timed(["ansible", "--version"], env)[1]
    version = re.search(r"core ([\d.]+)", core)
    collection = timed(["ansible-galaxy", "collection", "list", "grafana.grafana"], env)[1]
    release = re.search(r"^grafana\.grafana +(\S+)", collection, re.MULTILINE)
    print(
        f"\nRuns that change nothing, on a Debian 12 host each; {pairs} pairs in turn; {os.cpu_count()} cores.\n"
        f"ansible-core {version[1] if version else '?'} for both, over SSH with pipelining; "
        f"grafana.grafana {release[1] if release else '?'} with its defaults, its .debs already on the host.\n"
        f"\n{table(first, runs, baseline)}\n"
        f"\nOurs / peer, median of the pairs: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}); the target is {TARGET} or less."
    )


def run(description: str, sides: tuple[Side, ...], measure: Callable[[int, dict[str, str]], None]) -> None:
    """Read the command line, measure, and leave no side's host behind."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-n", dest="pairs", type=int, default=5, help="pairs of runs (default: 5)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    write_config()
    env = environment(ensure_venv())
    try:
        measure(options.pairs, env)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        for side in sides:
            hosts("down", side, env)


if __name__ == "__main__":
    run("Compare runs that change nothing: ours and grafana.grafana's.", (OURS, PEER), measure)
