"""A podman that only pretends."""

from __future__ import annotations

from pathlib import Path

# An image is a file whose name is the image's, with + for /. What else is asked of it is written down.
PODMAN = """#!/bin/sh
cd "$(dirname "$0")/images" || exit 125
echo "$*" >> ../asked-of-podman
for name; do :; done
file=$(echo "$name" | tr / +)
case "$1 $2" in
  "image exists") [ -e "$file" ] ;;
  "image inspect") echo "sha256:$(sha256sum "$file" | cut -c1-64)" ;;
  "image rm") if [ -e "../used-$file" ]; then echo "Error: it is in use by a container" >&2; exit 2; fi; rm "$file" ;;
  "pull "*) if [ -e ../no-registry ]; then echo "Error: $(cat ../no-registry)" >&2; exit 125; fi; touch "$file" ;;
  "load "*) loaded=$(cat "$name"); touch "$(echo "$loaded" | tr / +)"; echo "Loaded image: $loaded" ;;
esac
"""


class Podman:
    """Its images, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        (folder / "podman").write_text(PODMAN)
        (folder / "podman").chmod(0o755)

    def has(self, *images: str) -> None:
        """Let it have images."""
        for image in images:
            (self.folder / "images" / image.replace("/", "+")).touch()

    def images(self) -> set[str]:
        """Return the images that it has."""
        return {path.name.replace("+", "/") for path in (self.folder / "images").iterdir()}

    def uses(self, image: str) -> None:
        """Let a container use an image."""
        (self.folder / f"used-{image.replace('/', '+')}").touch()

    def refuses_to_pull(self, reason: str) -> None:
        """Let every pull fail."""
        (self.folder / "no-registry").write_text(reason)

    def asked(self) -> list[str]:
        """Return what was asked of it."""
        path = self.folder / "asked-of-podman"
        return path.read_text().splitlines() if path.exists() else []
