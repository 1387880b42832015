"""Container images of the platform's programs, made out of the mirror's archives and laid out as upstream's own.

Each is an OCI archive with one layer, where the platform looks for it below a mirror: images/REPOSITORY/TAG-ARCH.tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.hosts.images import ensure_image
from tests.hosts.podman import podman

HUB = "docker.io"
# A base with Python and the libraries of Debian 12, on which the programs of the mirror were built.
BASE = (
    "bin lib lib64 etc/ld.so.cache etc/ssl/certs/ca-certificates.crt usr/bin/env usr/bin/python3 usr/bin/python3.11 "
    "usr/lib/python3 usr/lib/python3.11 usr/lib64 usr/lib/*-linux-gnu"
)


@dataclass(frozen=True)
class Image:
    """One image: where upstream publishes it, and which programs of the mirror's archive it holds at which paths."""

    repository: str
    release: str  # whose version it has: <release>_version
    programs: tuple[str, ...]
    needs_base: bool = False


IMAGES = (
    Image("grafana/loki", "loki", ("/usr/bin/loki",)),
    # It reads the journal through libsystemd.
    Image("grafana/promtail", "promtail", ("/usr/bin/promtail",), needs_base=True),
    Image("prom/prometheus", "prometheus", ("/bin/prometheus", "/bin/promtool")),
    Image("prom/alertmanager", "alertmanager", ("/bin/alertmanager", "/bin/amtool")),
    Image("prom/node-exporter", "node_exporter", ("/bin/node_exporter",)),
)


def archive_path(repository: str, tag: str, architecture: str) -> str:
    """Return where the platform looks for an image below a mirror."""
    return f"{repository}/{tag}-{architecture}.tar"


def programs_of(archive: Path, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Return the programs of a release's archive by the path that each gets; a zip holds one."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            return {paths[0]: packed.read(packed.namelist()[0])}
    found = {}
    with tarfile.open(archive) as packed:
        for member in packed:
            for path in paths:
                file = packed.extractfile(member) if Path(member.name).name == Path(path).name else None
                if file:
                    found[path] = file.read()
    return found


def layer_of_files(files: Mapping[str, bytes]) -> bytes:
    """Return a layer with programs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as packed:
        for path, content in sorted(files.items()):
            add_file(packed, path, content)
    return layer.getvalue()


def add_file(layer: tarfile.TarFile, path: str, content: bytes, mode: int = 0o755) -> None:
    """Add one file; the same content gives the same bytes."""
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.size, entry.mode = len(content), mode
    layer.addfile(entry, io.BytesIO(content))


def layer_of_host(command: str, work: Path, *volumes: str) -> bytes:
    """Return the layer that a command makes in a bare test host without a network, as /out/layer.tar."""
    mounts = [f"--volume={volume}" for volume in (f"{work}:/out", *volumes)]
    podman("run", "--rm", "--network=none", *mounts, ensure_image("debian12"), "sh", "-ec", command)
    layer = (work / "layer.tar").read_bytes()
    (work / "layer.tar").unlink()
    return layer


def base_layer(work: Path) -> bytes:
    """Return the layer with Python and Debian's libraries."""
    return layer_of_host(f"cd / && tar --create --file /out/layer.tar {BASE}", work)


def demo_app_layer(source: Path, wheels: Path, work: Path) -> bytes:
    """Return the layer with the demo app in an environment of its own, made as its Containerfile says."""
    wheel = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*wheel, "--no-build-isolation", f"--wheel-dir={work}", str(source)], check=True)
    pip = "/opt/demo-app/bin/python -m pip --disable-pip-version-check install --quiet --no-cache-dir --no-index"
    commands = (
        "python3 -m venv /opt/demo-app",
        f"{pip} --find-links /wheels --require-hashes -r /source/requirements.txt",
        f"{pip} --no-deps /out/demo_app-*.whl",
        "tar --create --file /out/layer.tar --directory / opt/demo-app",
    )
    return layer_of_host("\n".join(commands), work, f"{source}:/source:ro", f"{wheels}:/wheels:ro")


def grafana_layer(tarball: Path) -> bytes:
    """Return the layer with a release of Grafana, where upstream's image has it."""
    layer = io.BytesIO()
    with tarfile.open(tarball) as release, tarfile.open(fileobj=layer, mode="w") as packed:
        for member in release:
            file = release.extractfile(member) if member.isfile() else None
            member.name = f"usr/share/grafana/{member.name.partition('/')[2]}"
            member.pax_headers = {}
            packed.addfile(member, file)
    return layer.getvalue()


def sha256(content: bytes) -> str:
    """Return the digest of a blob, as manifests name it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write_archive(name: str, layers: list[bytes], settings: Mapping[str, object], architecture: str, out: Path) -> None:
    """Write the OCI archive of an image called `name`."""
    blobs: dict[str, bytes] = {sha256(layer): layer for layer in layers}

    def blob(kind: str, content: bytes) -> dict[str, object]:
        blobs[sha256(content)] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(content), "size": len(content)}

    config = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [blob("layer.v1.tar", layer) for layer in layers],
    }
    named = blob("manifest.v1+json", json.dumps(manifest).encode())
    named["annotations"] = {"org.opencontainers.image.ref.name": name}
    with tarfile.open(out, "w") as archive:
        add_file(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode(), 0o644)
        add_file(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(), 0o644)
        for digest, content in blobs.items():
            add_file(archive, f"blobs/{digest.replace(':', '/')}", content, 0o644)
