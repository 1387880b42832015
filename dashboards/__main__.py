"""Write all dashboards to the folder from which the role grafana takes them, or to the one that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import fastapi, overview, platform_health, system, trace

FOLDER = Path(__file__).parents[1] / "roles/grafana/files/dashboards"
DASHBOARDS = {
    "overview": overview.dashboard,
    "fastapi": fastapi.dashboard,
    "system": system.dashboard,
    "platform-health": platform_health.dashboard,
    "trace": trace.dashboard,
}


def write(folder: Path) -> None:
    """Write each dashboard as classic JSON, which names nothing of one Grafana."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in DASHBOARDS.items():
        built = make().build()
        for number, panel in enumerate(built.panels or [], start=1):
            panel.id_val = number
        text = JSONEncoder(sort_keys=True, indent=2).encode(built)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
