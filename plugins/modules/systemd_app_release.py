#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: put one release of a program below /opt, whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import (
    ORIGIN,
    current_release,
    point,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_download import (
    ARCHITECTURES,
    HEX_DIGEST,
    ReleaseError,
    digest_of,
    download,
    expected_checksum,
    open_remote,
    remove_if_empty,
)

DOCUMENTATION = r"""
module: systemd_app_release
version_added: 1.0.0
short_description: Install a release of a program below /opt, completely or not at all
description:
  - Downloads an archive, verifies its SHA-256, unpacks it into C(ROOT/NAME/VERSION) and points the symbolic link
    C(ROOT/NAME/current) to it.
  - Nothing on the host changes until the archive is verified. C(VERSION) is moved into place by a rename, so it is
    never incomplete.
  - The single top-level directory of an archive is stripped. The single file of an archive is renamed to C(NAME).
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: Check mode verifies that the checksum and the archive can be downloaded, and downloads only the checksum.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  name:
    description: Name of the program and of its directory below O(root).
    type: str
    required: true
  version:
    description: Version, which is the name of the release's directory.
    type: str
    required: true
  url:
    description:
      - URL of the C(.zip) or C(.tar.gz). C({arch}) is replaced by the architecture of the host, C(amd64) or C(arm64).
    type: str
    required: true
  checksum:
    description:
      - SHA-256 of the archive as 64 hexadecimal digits, or the URL of a file that lists it (C(SHA256SUMS) or
        C(.sha256)). C({arch}) is replaced as in O(url).
    type: str
    required: true
  state:
    description:
      - V(fetched) only downloads the archive into O(cache) and verifies it.
      - V(installed) also unpacks it and makes it current.
    type: str
    choices: [fetched, installed]
    default: installed
  keep:
    description: How many earlier releases are kept for a rollback.
    type: int
    default: 1
  root:
    description: Directory of all releases.
    type: path
    default: /opt
  cache:
    description: Directory for verified archives that aren't unpacked yet.
    type: path
    default: /var/cache/logstead
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Install a release whose checksum is published beside it
  logstead.platform.systemd_app_release:
    name: prometheus
    version: 3.9.1
    url: https://mirror.example.org/prometheus-3.9.1.linux-{arch}.tar.gz
    checksum: https://mirror.example.org/sha256sums.txt

- name: Only download and verify an archive with a pinned checksum
  logstead.platform.systemd_app_release:
    name: loki
    version: 3.7.8
    url: https://mirror.example.org/loki-linux-{arch}.zip
    checksum: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
    state: fetched
"""

RETURN = r"""
path:
  description: Directory of the release.
  type: str
  returned: success
  sample: /opt/loki/3.7.8
sha256:
  description: SHA-256 of the archive that the release was unpacked from.
  type: str
  returned: if the release is unpacked
"""


def require_contained(folder: Path) -> None:
    """Check what an archive was unpacked to: files, folders, and links that lead nowhere else.

    tar and zipfile keep `..` and absolute names within the folder; links and devices are as the archive has them.

    Raises:
        ReleaseError: Something else is there.
    """
    inside = folder.resolve()
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                is_fine = Path(os.path.realpath(path)).is_relative_to(inside)
            else:
                is_fine = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
            if not is_fine:
                raise ReleaseError(
                    f"the archive has {path.relative_to(folder)}, which leads out of it or is no plain file: don't use "
                    "it, and see whether its publisher is the one you mean. Nothing was changed."
                )


def unpack(archive: Path, name: str, folder: Path) -> Path:
    """Unpack into `folder` and return the path that is to become the release: the archive's one folder, or `folder`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = Path(content.extract(member, folder))
                mode = member.external_attr >> 16 & 0o111
                path.chmod(0o755 if path.is_dir() or mode else 0o644)
    else:
        subprocess.run(
            ["tar", "-xf", str(archive), "-C", str(folder), "--no-same-owner", "--no-same-permissions"],
            check=True,
            capture_output=True,
        )
    require_contained(folder)
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    if len(entries) == 1:
        entries[0].chmod(0o755)
        entries[0].rename(folder / name)
    return folder


class Release:
    """One release of one program on this host."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        machine = platform.machine()
        if machine not in ARCHITECTURES:
            raise ReleaseError(f"there are no releases for {machine}, only for {', '.join(ARCHITECTURES)}.")
        self.name: str = parameters["name"]
        self.version: str = parameters["version"]
        self.url: str = parameters["url"].replace("{arch}", ARCHITECTURES[machine])
        self.checksum: str = parameters["checksum"].replace("{arch}", ARCHITECTURES[machine])
        self.keep: int = parameters["keep"]
        self.filename = self.url.rsplit("/", 1)[-1]
        self.home = Path(parameters["root"], self.name)
        self.path = self.home / self.version
        self.current = self.home / "current"
        self.archive = Path(parameters["cache"], f"{self.name}-{self.version}-{self.filename}")

    def is_unpacked(self) -> bool:
        """Tell whether the release is there, from the archive that is asked for."""
        try:
            origin = (self.path / ORIGIN).read_text().strip()
        except OSError:
            return False
        pinned = self.checksum.strip().lower().removeprefix("sha256:")
        return not HEX_DIGEST.fullmatch(pinned) or pinned == origin

    def is_current(self) -> bool:
        """Tell whether `current` points to the release, as it is there now."""
        found = current_release(self.home)
        return found.get("version") == self.version and "sha256" in found

    def probe(self) -> None:
        """Raise ReleaseError if the archive can't be had, without downloading it."""
        expected_checksum(self.checksum, self.filename)
        open_remote(self.url, "HEAD").close()

    def fetch(self) -> bool:
        """Have the verified archive in the cache; return whether it was downloaded."""
        expected = expected_checksum(self.checksum, self.filename)
        if self.archive.is_file() and digest_of(self.archive) == expected:
            return False
        download(self.url, expected, self.archive)
        return True

    def install(self) -> None:
        """Unpack the archive beside its place and move it in; an interrupted run leaves only a hidden folder behind."""
        self.fetch()
        try:
            self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
            for leftover in self.home.glob(".unpack-*"):
                shutil.rmtree(leftover)
            folder = Path(tempfile.mkdtemp(dir=self.home, prefix=".unpack-"))
            release = unpack(self.archive, self.name, folder)
            release.chmod(0o755)
            (release / ORIGIN).write_text(digest_of(self.archive) + "\n")
            if self.path.exists():
                self.path.rename(folder.with_name(folder.name + "-old"))
            release.rename(self.path)
        except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
            problem = str(error)
            if isinstance(error, subprocess.CalledProcessError):
                problem = "; ".join(error.stderr.decode(errors="replace").splitlines()) or problem
            raise ReleaseError(f"{self.filename} could not be unpacked: {problem}. Nothing was changed.") from error
        finally:
            for leftover in self.home.glob(".unpack-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        self.archive.unlink()
        remove_if_empty(self.archive.parent)  # others may still have archives there

    def switch(self) -> None:
        """Point `current` to the release, in one step, and forget releases that are too old."""
        previous = os.readlink(self.current) if self.current.is_symlink() else ""
        point(self.current, self.version)
        others = [path for path in self.home.iterdir() if (path / ORIGIN).is_file() and path != self.path]
        others = [path for path in others if not path.is_symlink()]
        # What ran until now is what one would go back to, even if it isn't the newest of them.
        others.sort(key=lambda path: (path.name == previous, path.stat().st_ctime_ns), reverse=True)
        for path in others[self.keep :]:
            shutil.rmtree(path)


def converge(release: Release, state: str, check_mode: bool) -> dict[str, Any]:
    """Bring the release into the wanted state; return the module's result."""
    if state == "fetched":
        wanted = not release.is_unpacked()
        changed = wanted and not release.archive.is_file() if check_mode else wanted and release.fetch()
        if check_mode and changed:
            release.probe()
    else:
        changed = not (release.is_unpacked() and release.is_current())
        if not release.is_unpacked() and check_mode:
            release.probe()
        elif not release.is_unpacked():
            release.install()
        if not release.is_current() and not check_mode:
            release.switch()
    origin = release.path / ORIGIN
    return {
        "changed": changed,
        "path": str(release.path),
        **({"sha256": origin.read_text().strip()} if origin.is_file() else {}),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "checksum": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["fetched", "installed"], "default": "installed"},
            "keep": {"type": "int", "default": 1},
            "root": {"type": "path", "default": "/opt"},
            "cache": {"type": "path", "default": "/var/cache/logstead"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # a hardened host's 027 would hide the release from the program's own user
    try:
        result = converge(Release(module.params), module.params["state"], module.check_mode)
    except ReleaseError as error:
        module.fail_json(msg=f"{module.params['name']} {module.params['version']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{module.params['name']} {module.params['version']} could not be put in place: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
