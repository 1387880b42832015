"""Jinja filter that names a tree of files after its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def tree_digest(folder: str, names: Iterable[str]) -> str:
    """Return 16 hex digits that change with the paths and the bytes of the named files and folders below `folder`."""
    root = Path(folder)
    found = (path for name in names for path in (root / name, *(root / name).rglob("*")))
    files = sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"tree_digest": tree_digest}
