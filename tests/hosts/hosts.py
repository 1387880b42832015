#!/usr/bin/env python3
"""Boot and remove an inventory's test hosts: Debian with systemd as PID 1, in podman containers on their own network.

What is read of a host's variables: `ansible_host` (its fixed address), `test_host_image` (debian12 or debian13),
`test_host_publish` (ports that the machine's loopback gets too), `test_host_podman` (whether podman works in it; by
default if the environment says RUNTIME=podman), `test_network` (name, subnet, internal) and
`test_mirror` (false: no mirror).
"""

import argparse
import concurrent.futures
import ipaddress
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts.cache import CACHE, REPO, locked
from tests.hosts.images import SUITES, ensure_image, tag
from tests.hosts.podman import output, podman, write_config

KEY = CACHE / "ssh" / "id_ed25519"
# Ansible's ControlMaster sockets. Each scenario has its own folder, so that the end of one doesn't cut off another.
SOCKETS = Path(os.environ.get("ANSIBLE_SSH_CONTROL_PATH_DIR", CACHE / "ssh" / "cp"))
BOOT_SECONDS = 120
MIRROR_IMAGE = "debian12"
LABEL = "logstead-test"
# The volume is on this machine's disk: on an overlay, podman's own storage can't be one.
FOR_PODMAN = ("--cap-add=NET_RAW", "--security-opt=unmask=/proc/sys", "--volume=/var/lib/containers")
DEMO_LABEL = "logstead-demo"  # the demo is its user's: cleaning up after tests leaves it alone


@dataclass(frozen=True)
class Network:
    """A network of hosts; an internal one reaches nothing outside itself."""

    name: str = "logstead-test"
    subnet: str = "10.89.77.0/24"
    internal: bool = True

    @property
    def label(self) -> str:
        """The label of everything on it."""
        return DEMO_LABEL if self.name == DEMO_LABEL else LABEL

    @property
    def mirror_name(self) -> str:
        """The name of its mirror's container."""
        return f"{self.name}-mirror"

    @property
    def mirror_ip(self) -> str:
        """The address of its mirror: the second one, the first being the machine's own."""
        return str(ipaddress.ip_network(self.subnet)[2])


@dataclass(frozen=True)
class Host:
    """One host of the inventory."""

    name: str
    ip: str
    image: str
    network: Network
    publish: tuple[int, ...] = ()
    podman: bool = False
    mirror: bool = True


def hosts_of(inventory: dict[str, Any]) -> list[Host]:
    """Return the hosts of what `ansible-inventory --list` printed."""
    hosts = []
    for name, variables in sorted(inventory["_meta"]["hostvars"].items()):
        image = variables.get("test_host_image")
        if image not in SUITES:
            raise RuntimeError(f"{name}: test_host_image is {image!r}, not one of {', '.join(SUITES)}")
        host = Host(
            name=name,
            ip=variables["ansible_host"],
            image=image,
            network=Network(**variables.get("test_network", {})),
            publish=tuple(variables.get("test_host_publish", ())),
            podman=variables.get("test_host_podman", os.environ.get("RUNTIME") == "podman"),
            mirror=variables.get("test_mirror", True),
        )
        if ipaddress.ip_address(host.ip) not in ipaddress.ip_network(host.network.subnet):
            raise RuntimeError(f"{name}: {host.ip} is not in {host.network.subnet}")
        hosts.append(host)
    if not hosts:
        raise RuntimeError("the inventory has no hosts")
    if len({host.network for host in hosts}) != 1:
        raise RuntimeError("the inventory's hosts must share one test_network")
    return hosts


def read_inventory(inventory: Path) -> list[Host]:
    """Return the inventory's hosts, as Ansible understands it."""
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(inventory.resolve()), "--list"]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPO).stdout
    return hosts_of(json.loads(listing))


def mac(ip: str) -> str:
    """Return the address's own MAC: with a new one, a recreated host can't be reached until the old is forgotten."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(ip).packed)


def common_arguments(name: str, ip: str, network: Network) -> list[str]:
    """Return the `podman run` arguments of every container here."""
    return [
        *("run", "--detach", f"--name={name}", f"--hostname={name}", f"--label={network.label}=1"),
        f"--network={network.name}:ip={ip},mac={mac(ip)}",
    ]


def host_arguments(host: Host) -> list[str]:
    """Return the `podman run` arguments of a host."""
    return [
        *common_arguments(host.name, host.ip, host.network),
        # podman's own systemd mode shares this machine's systemd hierarchy with the host; host-init does better.
        *("--systemd=false", "--cgroupns=private"),
        # Without SYS_ADMIN, systemd silently ignores much of a unit's hardening, and a test of it would prove nothing.
        # With NET_ADMIN, nftables works.
        "--cap-add=SYS_ADMIN,NET_ADMIN",
        *("--tmpfs=/run:rw,mode=755,size=256m", "--tmpfs=/run/lock", "--tmpfs=/tmp:rw,exec,mode=1777"),
        *(FOR_PODMAN if host.podman else ()),
        f"--volume={KEY}.pub:/root/.ssh/authorized_keys:ro",
        *(f"--publish=127.0.0.1:{port}:{port}" for port in host.publish),
        tag(host.image),
    ]


def grafana_for(network: Network) -> str:
    """Tell which Grafana the network gets: the stand-in is for tests alone."""
    kind = output(sys.executable, str(REPO / "tests" / "mirror" / "mirror.py"), "grafana-kind").strip()
    return "none" if kind == "stand-in" and network.label == DEMO_LABEL else kind


def mirror_arguments(network: Network, grafana: str) -> list[str]:
    """Return the `podman run` arguments of the network's mirror."""
    trees = {
        "github.com": CACHE / "mirror" / "github.com",
        "dl.grafana.com": CACHE / ("standin" if grafana == "stand-in" else "mirror") / "dl.grafana.com",
        "wheels": CACHE / "mirror" / "wheels",
    }
    if network.label == LABEL:
        trees |= {"faulty": CACHE / "faulty", "images": CACHE / "images"}
    for tree in trees.values():
        tree.mkdir(parents=True, exist_ok=True)
    return [
        *common_arguments(network.mirror_name, network.mirror_ip, network),
        *(f"--volume={tree}:/srv/{name}:ro" for name, tree in trees.items()),
        *(tag(MIRROR_IMAGE), "python3", "-m", "http.server", "80", "--directory", "/srv"),
    ]


def ensure_key() -> None:
    """Make the key for the hosts' root once."""
    SOCKETS.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked("ssh-key"):
        if KEY.exists():
            return
        new = KEY.with_suffix(".new")
        for leftover in (new, Path(f"{new}.pub")):
            leftover.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", LABEL, "-f", str(new)], check=True)
        Path(f"{new}.pub").replace(f"{KEY}.pub")
        new.replace(KEY)


def answers_ssh(ip: str) -> bool:
    """Tell whether root can log in."""
    options = ("BatchMode=yes", "ConnectTimeout=2", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    command = ["ssh", "-q", "-F", "none", "-i", str(KEY), *(f"-o{option}" for option in options), f"root@{ip}", "true"]
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def await_host(host: Host, deadline: float) -> str:
    """Wait until the host is up and root can log in; return what is wrong, or nothing."""
    wait = "until [ -S /run/systemd/private ]; do sleep .1; done; systemctl is-system-running --wait"
    try:
        state = podman("exec", host.name, "sh", "-c", wait, check=False, timeout=deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        return "systemd didn't finish booting"
    if state.stdout.strip() != "running":
        return f"systemd is {state.stdout.strip() or state.stderr.strip()}"
    while not answers_ssh(host.ip):
        if time.monotonic() > deadline:
            return f"no SSH on {host.ip}"
        time.sleep(0.1)
    return ""


def boot(host: Host) -> bool:
    """Boot one host; say how long it took, or all that is known about why it failed."""
    start = time.monotonic()
    try:
        podman(*host_arguments(host))
        problem = await_host(host, start + BOOT_SECONDS)
    except RuntimeError as error:
        problem = str(error)
    if not problem:
        print(f"{host.name}: {host.image}, {host.ip}, {time.monotonic() - start:.1f} s", flush=True)
        return True
    inside = "systemctl --failed --no-legend --plain; journalctl --no-pager --lines=50"
    reports = (
        podman("logs", "--tail=50", host.name, check=False),
        podman("exec", host.name, "sh", "-c", inside, check=False),
    )
    told = "\n".join(text.strip() for report in reports for text in (report.stdout, report.stderr) if text.strip())
    print(f"{host.name}: {problem}\n{told}", file=sys.stderr, flush=True)
    return False


def await_started(label: str) -> None:
    """Wait for what is only just being started: a killed `up` leaves its `podman run` behind."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        commands = output("ps", "-e", "-o", "args=").splitlines()
        if not any(c.startswith("podman run ") and f"--label={label}=1" in c.split() for c in commands):
            break
        time.sleep(0.1)


def listed(label: str, *filters: str) -> list[str]:
    """Return the names of the containers with this label."""
    arguments = [f"--filter={wanted}" for wanted in (f"label={label}=1", *filters)]
    return podman("ps", "--all", "--format={{.Names}}", *arguments).stdout.split()


def remove(names: list[str]) -> None:
    """Remove containers with their anonymous volumes, without giving them time: nothing in them is kept."""
    if names:
        podman("rm", "--force", "--volumes", "--time=0", *names)


def start_mirror(network: Network) -> None:
    """Start the network's mirror, anew unless other hosts are using the very same."""
    grafana = grafana_for(network)
    wanted = mirror_arguments(network, grafana)
    inspected = podman("inspect", "--format={{json .Config.CreateCommand}}", network.mirror_name, check=False).stdout
    running = listed(network.label, f"network={network.name}", "status=running")
    if not (network.mirror_name in running and len(running) > 1 and json.loads(inspected) == ["podman", *wanted]):
        remove(sorted({network.mirror_name} & set(listed(network.label))))
        podman(*wanted)
    print(f"{network.mirror_name}: http://{network.mirror_ip}, Grafana: {grafana}", flush=True)


def up(inventory: Path) -> None:
    """Boot the inventory's hosts, anew where they exist, and their mirror."""
    hosts = read_inventory(inventory)
    network = hosts[0].network
    mirror = any(host.mirror for host in hosts)
    for image in sorted({host.image for host in hosts} | ({MIRROR_IMAGE} if mirror else set())):
        ensure_image(image)
    with locked(f"network-{network.name}"):
        ensure_key()
        await_started(network.label)
        remove(sorted({host.name for host in hosts} & set(listed(network.label))))
        if podman("network", "exists", network.name, check=False).returncode:
            options = [f"--label={network.label}=1", f"--subnet={network.subnet}"]
            podman("network", "create", *options, *(["--internal"] if network.internal else []), network.name)
        if mirror:
            start_mirror(network)
        with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
            booted = list(pool.map(boot, hosts))
    if not all(booted):
        raise RuntimeError("not every host came up; `down` removes them all")


def close_ssh(pattern: str = "*") -> None:
    """End Ansible's connections, which would otherwise wait for hosts that are gone: ours, not those below."""
    for socket in filter(Path.is_socket, SOCKETS.glob(pattern)):
        command = ["ssh", "-F", "none", f"-oControlPath={socket}", "-O", "exit", "host"]
        subprocess.run(command, check=False, capture_output=True)
        socket.unlink(missing_ok=True)


def down(inventory: Path) -> None:
    """Remove the inventory's hosts, and with the last of a network's hosts its mirror and the network."""
    hosts = read_inventory(inventory)
    network = hosts[0].network
    with locked(f"network-{network.name}"):
        close_ssh()
        await_started(network.label)
        remove(sorted({host.name for host in hosts} & set(listed(network.label))))
        if set(listed(network.label, f"network={network.name}")) <= {network.mirror_name}:
            remove(listed(network.label, f"network={network.name}"))
            podman("network", "rm", "--force", network.name, check=False)


def down_all(label: str) -> None:
    """Remove all that carries the label, also what an aborted run left."""
    close_ssh("**/*")
    await_started(label)
    remove(listed(label))
    for network in podman("network", "ls", "--quiet", f"--filter=label={label}=1").stdout.split():
        podman("network", "rm", "--force", network)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description="Boot and remove test hosts: Debian with systemd, in podman containers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    upper = commands.add_parser("up", help="boot an inventory's hosts, anew where they exist, and their mirror")
    upper.add_argument("inventory", type=Path)
    downer = commands.add_parser("down", help="remove an inventory's hosts")
    what = downer.add_mutually_exclusive_group(required=True)
    what.add_argument("inventory", type=Path, nargs="?")
    what.add_argument("--all", action="store_true", help="every test host on this machine, also of aborted runs")
    downer.add_argument("--demo", action="store_true", help="with --all: the demo's too")
    imager = commands.add_parser("image", help="build an image unless it is there, and print its name")
    imager.add_argument("name", choices=sorted(SUITES))
    options = parser.parse_args()

    write_config()
    try:
        if options.command == "up":
            up(options.inventory)
        elif options.command == "image":
            print(ensure_image(options.name))
        elif options.all:
            for label in (LABEL, DEMO_LABEL) if options.demo else (LABEL,):
                down_all(label)
        else:
            down(options.inventory)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
