"""Packs the stand-in as an archive laid out as Grafana's release: build.py DEST_TARBALL VERSION."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PAGE = "A stand-in for Grafana, for tests.\n"


def contents(version: str) -> dict[str, bytes]:
    """Return every file of the archive: its name below the top folder, and its content."""
    files = {
        "VERSION": f"{version}\n".encode(),
        "bin/grafana": (HERE / "grafana_standin.py").read_bytes(),
        "conf/defaults.ini": (HERE / "defaults.ini").read_bytes(),
        "public/stand-in.txt": PAGE.encode(),
    }
    for module in Path(yaml.__file__).parent.glob("*.py"):  # the hosts have Python, but not PyYAML
        files[f"lib/yaml/{module.name}"] = module.read_bytes()
    return files


def build(destination: Path, version: str) -> None:
    """Write the archive; the same input gives the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(contents(version).items()):
            entry = tarfile.TarInfo(f"grafana-{version}/{name}")
            entry.size = len(content)
            entry.mode = 0o755 if name == "bin/grafana" else 0o644
            archive.addfile(entry, io.BytesIO(content))
    destination.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2])
