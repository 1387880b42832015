"""The table of nftables that keeps other local users from the components' ports, and who is in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pytest
from ansible_collections.logstead.platform.plugins.plugin_utils.components import load_components
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import Topology

ROLE = Path(__file__).resolve().parents[2] / "roles/local_access"
COMPONENTS = load_components()


def access(*groups: str, **variables: object) -> dict[str, list[str]]:
    """Return the local access of a host in these groups."""
    return Topology("a", {"all": ["a"], **{group: ["a"] for group in groups}}, {"a": variables}).local_access()


def table(ports: Sequence[str], clients: Sequence[str], servers: Sequence[str]) -> str:
    """Return the role's table as Ansible renders it."""
    template = jinja2.Environment(trim_blocks=True, autoescape=False).from_string(  # noqa: S701 - no HTML
        (ROLE / "templates/table.nft.j2").read_text()
    )
    return template.render(
        __local_access_host={"ports": ports}, __local_access_clients=clients, __local_access_servers=servers
    )


def test_every_port_without_a_login_is_closed_to_other_users() -> None:
    found = access(*(component.group for component in COMPONENTS))
    assert found["ports"] == ["9100", "9093", "9090", "3101", "9096", "9080"]
    assert found["servers"] == [component.name for component in COMPONENTS]
    assert found["clients"] == ["prometheus", "loki", "gateway", "promtail", "grafana"]


def test_the_ports_are_those_that_the_inventory_sets() -> None:
    assert access("loki", loki_http_port=3200, loki_grpc_port=9200)["ports"] == ["3200", "9200"]


@pytest.mark.parametrize("group", ["grafana", "gateway", "demo_app"])
def test_what_has_a_login_or_is_an_app_stays_open(group: str) -> None:
    assert access(group)["ports"] == []


@pytest.mark.skipif(not shutil.which("nft"), reason="this machine has no nftables")
def test_nftables_accepts_the_table() -> None:
    command = ["unshare", "--net", "nft", "--check", "--file", "-"]
    good = table(["3101", "9096"], ["root", "nobody"], ["root"])
    bad = good.replace("nobody", "nobody-has-this-name")
    checked, refused = (
        subprocess.run(command, input=text, capture_output=True, text=True, check=False) for text in (good, bad)
    )
    if "Operation not permitted" in checked.stderr:
        pytest.skip("needs root")
    assert checked.returncode == 0, checked.stderr
    assert "User does not exist" in refused.stderr


def test_the_program_refuses_a_table_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "table.nft").write_text("table inet {")
    command = [sys.executable, str(ROLE / "files/local_access.py"), str(tmp_path / "table.nft")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 1
    assert "table.nft can't be loaded" in ended.stderr or "libnftables" in ended.stderr
