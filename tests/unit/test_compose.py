"""The compose file of the demo app: taken by the tools that there are, and true to the platform's own paths."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = REPOSITORY / "demo_app/compose.yml"
TOOLS = (["docker", "compose"], ["docker-compose"], ["podman-compose"])


def works(tool: list[str]) -> bool:
    """Tell whether a compose tool is there; docker may lack the one that it is told to run."""
    return (
        bool(shutil.which(tool[0]))
        and subprocess.run([*tool, "version"], capture_output=True, check=False).returncode == 0
    )


def test_a_compose_tool_takes_the_file() -> None:
    tools = [tool for tool in TOOLS if works(tool)]
    assert ["podman-compose"] in tools
    for tool in tools:
        result = subprocess.run([*tool, "-f", str(COMPOSE), "config"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        (service,) = yaml.safe_load(result.stdout)["services"].values()
        assert str(service["user"]) == "10001", "a user of the host may be named in DEMO_APP_UID, and needn't"


def test_the_app_writes_where_promtail_of_the_host_reads() -> None:
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    folder = yaml.safe_load((REPOSITORY / "roles/demo_app/defaults/main.yml").read_text())["demo_app_log_folder"]
    assert f"{folder}:{folder}" in service["volumes"]
    assert f"-g adm {folder}" in (REPOSITORY / "docs/containers.md").read_text()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
