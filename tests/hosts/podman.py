"""Podman with the settings that systemd hosts need, whatever this machine's own are."""

import os
import resource
import subprocess

from tests.hosts.cache import CACHE

CONFIG = CACHE / "containers.conf"


def write_config() -> None:
    """Write the settings for every podman command here: runc, since crun fails on hybrid cgroups."""
    # Limits above the machine's own would keep every container from starting.
    nofile, nproc = (
        wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        for wanted, hard in (
            (20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            (32768, resource.getrlimit(resource.RLIMIT_NPROC)[1]),
        )
    )
    text = f"""\
[containers]
default_ulimits = ["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"

[network]
network_backend = "netavark"
"""
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    temporary = CONFIG.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(CONFIG)


def podman(*arguments: str, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run podman and return what it said; a failure shows podman's own words."""
    environment = {**os.environ, "CONTAINERS_CONF": str(CONFIG)}
    result = subprocess.run(
        ["podman", *arguments], check=False, capture_output=True, text=True, env=environment, timeout=timeout
    )
    if check and result.returncode:
        raise RuntimeError(f"podman {' '.join(arguments)}: {result.stderr.strip() or result.returncode}")
    return result


def output(*command: str) -> str:
    """Run a command of the machine and return what it printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
