# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""How the modules of systemd_app download: what has another SHA-256 than expected never appears on the host."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
TIMEOUT_SECONDS = 30


class ReleaseError(Exception):
    """Says what is wrong and what to do; nothing on the host has changed."""


def open_remote(url: str, method: str = "GET") -> Any:
    """Open a URL for reading, or say why it can't be and what to do."""
    try:
        return open_url(url, method=method, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        problem = f"{url} answers {error.code} ({error.reason})"
        advice = "Check that this version exists there"
    except (OSError, ValueError) as error:
        problem = f"{url} can't be reached: {error}"
        advice = "Check the host's network, or set platform_mirror_url to a mirror that the host reaches"
    raise ReleaseError(f"{problem}. {advice}. Nothing was changed.")


def listed_checksum(listing: str, filename: str, url: str) -> str:
    """Return the digest of `filename` in the text of a SHA256SUMS file, or of a file that holds one digest alone."""
    names = []
    for line in listing.splitlines():
        digest, *rest = line.split(maxsplit=1)[:2] or [""]
        name = "".join(rest).strip().lstrip("*").removeprefix("./")
        if HEX_DIGEST.fullmatch(digest.lower()):
            if name.lower() in ("", filename.lower()):
                return digest.lower()
            names.append(name)
    raise ReleaseError(
        f"{url} lists no checksum for {filename} (it lists: {', '.join(filter(None, names)) or 'nothing'}). "
        "Choose a version that has one, or pin the checksum by hand. Nothing was changed."
    )


def expected_checksum(checksum: str, filename: str) -> str:
    """Return the 64 hex digits that `checksum` says or points to."""
    digest = checksum.strip().lower().removeprefix("sha256:")
    if HEX_DIGEST.fullmatch(digest):
        return digest
    url = checksum.strip().removeprefix("sha256:")
    if not re.match(r"(https?|file)://", url):
        raise ReleaseError(
            f"checksum {checksum!r} is neither 64 hex digits nor the address of a SHA256SUMS file. Nothing was changed."
        )
    with open_remote(url) as response:
        return listed_checksum(response.read().decode(errors="replace"), filename, url)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, expected: str, destination: Path) -> None:
    """Download `url` to `destination`, which appears only if its SHA-256 is `expected`."""
    folder = destination.parent
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        prefix = f".download-{destination.name}-"
        for leftover in folder.glob(prefix + "*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as private:
            partial = Path(private, destination.name)
            with open_remote(url) as response, partial.open("wb") as file:
                shutil.copyfileobj(response, file, 1 << 20)
            found = digest_of(partial)
            if found != expected:
                raise ReleaseError(
                    f"{url} has the SHA-256 {found}, but {expected} is expected. The archive is damaged, was "
                    "exchanged, or the checksum is that of another version. Nothing was changed."
                )
            partial.replace(destination)
    except (OSError, HTTPException) as error:
        raise ReleaseError(f"{url} could not be stored in {folder}: {error}. Nothing was changed.") from error
    finally:
        remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, unless something is in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()
