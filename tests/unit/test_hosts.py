"""The test hosts' pure logic: what is read of an inventory, and what podman is told."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts import cache, hosts, images

NETWORK = {"name": "logstead-demo", "subnet": "10.89.78.0/24", "internal": False}


def inventory(**hostvars: dict[str, Any]) -> dict[str, Any]:
    return {"_meta": {"hostvars": hostvars}}


def one(**variables: Any) -> hosts.Host:
    given = {"ansible_host": "10.89.77.11", "test_host_image": "debian12", **variables}
    return hosts.hosts_of(inventory(log1=given))[0]


def test_a_mac_follows_from_the_address() -> None:
    assert hosts.mac("10.89.77.60") == "02:00:0a:59:4d:3c"


def test_hosts_have_defaults_for_all_but_address_and_image() -> None:
    host = one()
    assert host == hosts.Host("log1", "10.89.77.11", "debian12", hosts.Network("logstead-test", "10.89.77.0/24", True))
    assert host.network.mirror_ip == "10.89.77.2"


def test_a_hosts_variables_reach_podman() -> None:
    host = one(ansible_host="10.89.78.11", test_host_publish=[3100, 9090], test_network=NETWORK)
    arguments = hosts.host_arguments(host)
    assert "--network=logstead-demo:ip=10.89.78.11,mac=02:00:0a:59:4e:0b" in arguments
    assert [a for a in arguments if a.startswith("--publish")] == [
        "--publish=127.0.0.1:3100:3100",
        "--publish=127.0.0.1:9090:9090",
    ]
    assert arguments[-1] == images.tag("debian12")


def test_the_demo_does_not_carry_the_tests_label() -> None:
    demo = hosts.host_arguments(one(ansible_host="10.89.78.11", test_network=NETWORK))
    assert "--label=logstead-demo=1" in demo
    assert "--label=logstead-test=1" not in demo
    assert "--label=logstead-test=1" in hosts.host_arguments(one())


@pytest.mark.parametrize("image", [None, "debian11"])
def test_an_inventory_of_other_hosts_is_refused(image: str | None) -> None:
    with pytest.raises(RuntimeError, match="log1: test_host_image"):
        one(test_host_image=image)


def test_an_address_outside_the_network_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not in"):
        one(ansible_host="10.89.78.11")


def test_hosts_on_two_networks_are_refused() -> None:
    with pytest.raises(RuntimeError, match="share one"):
        hosts.hosts_of(
            inventory(
                a={"ansible_host": "10.89.77.11", "test_host_image": "debian12"},
                b={"ansible_host": "10.89.78.11", "test_host_image": "debian12", "test_network": NETWORK},
            )
        )


def test_an_empty_inventory_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no hosts"):
        hosts.hosts_of(inventory())


@pytest.mark.parametrize(("kind", "tree"), [("stand-in", "standin"), ("genuine", "mirror"), ("none", "mirror")])
def test_the_stand_in_is_served_only_where_there_is_no_genuine_grafana(
    kind: str, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "CACHE", tmp_path)
    arguments = hosts.mirror_arguments(hosts.Network(), kind)
    assert f"--volume={tmp_path}/{tree}/dl.grafana.com:/srv/dl.grafana.com:ro" in arguments
    assert f"--volume={tmp_path}/faulty:/srv/faulty:ro" in arguments


def test_the_demo_never_gets_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "output", lambda *_: "stand-in\n")
    assert hosts.grafana_for(hosts.Network(name="logstead-demo")) == "none"
    assert hosts.grafana_for(hosts.Network()) == "stand-in"


def test_an_image_is_built_from_the_mirror_that_this_machine_uses() -> None:
    targets = """\
http://mirror.example/debian/ bookworm
http://mirror.example/debian/ bookworm
http://mirror.example/debian-security/ bookworm-security
http://other.example/ bookworm-pgdg
http://other.example/ nodistro
"""
    signed = f"deb [signed-by={images.KEYRING}]"
    assert images.sources(targets, "bookworm", "trixie") == [
        f"{signed} http://mirror.example/debian-security/ trixie-security main",
        f"{signed} http://mirror.example/debian/ trixie main",
    ]


def test_a_changed_recipe_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = images.tag("debian13")
    assert before != images.tag("debian12").replace("debian12", "debian13")
    monkeypatch.setattr(images, "PACKAGES", f"{images.PACKAGES} less")
    assert images.tag("debian13") != before


def test_a_second_run_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    with cache.locked("x"):
        taken = subprocess.run(["flock", "--nonblock", tmp_path / "locks" / "x", "true"], check=False)
        assert taken.returncode == 1
    free = subprocess.run(["flock", "--nonblock", tmp_path / "locks" / "x", "true"], check=False)
    assert free.returncode == 0


@pytest.mark.parametrize(("everything", "left"), [(False, ["scenario/other"]), (True, [])])
def test_the_end_of_some_hosts_leaves_others_their_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool, left: list[str]
) -> None:
    (tmp_path / "scenario").mkdir()
    for name in ("own", "scenario/other"):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / name))
    monkeypatch.setattr(hosts, "SOCKETS", tmp_path)
    hosts.close_ssh(*(["**/*"] if everything else []))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_socket()] == left
