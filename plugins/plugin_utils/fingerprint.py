# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The fingerprint of what a run asks of a module: equal fingerprints ask for the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

COLLECTION = Path(__file__).resolve().parents[2]


@cache
def collection_version(root: Path = COLLECTION) -> str:
    """Return the collection's version: a checkout has galaxy.yml, an installed one MANIFEST.json."""
    manifest = root / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text())["collection_info"]["version"])
    return str(yaml_load((root / "galaxy.yml").read_text())["version"])


def fingerprint_of(arguments: Mapping[str, Any]) -> str:
    """Return the digest of a module's arguments, and of the collection's version."""
    text = json.dumps([collection_version(), arguments], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
