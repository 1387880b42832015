#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have the container image of a program on the host, as it was asked for or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import (
    RECORD,
    PodmanError,
    has_image,
    images_of,
    podman,
    remove_image,
    remove_images,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_download import (
    ARCHITECTURES,
    ReleaseError,
    digest_of,
    download,
    expected_checksum,
    open_remote,
    remove_if_empty,
)

DOCUMENTATION = r"""
module: systemd_app_image
version_added: 1.0.0
short_description: Install the container image of a program
description:
  - Pulls the image from its registry, or loads it from an archive on a mirror after its SHA-256 has been verified. A
    running container isn't touched by either.
  - Records in C(ROOT/NAME/images) which images it has installed, so that it never removes any other.
requirements: [podman]
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: With O(mirror), check mode verifies that the archive is there. A registry isn't asked.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  name:
    description: Name of the program and of its container.
    type: str
    required: true
  image:
    description:
      - Full name of the image with a tag, a digest or both, such as C(docker.io/grafana/loki:3.7.8). Required unless
        O(state=absent).
    type: str
  mirror:
    description:
      - URL of a web server that has images as OCI archives at C(MIRROR/images/REPOSITORY/TAG-ARCH.tar), and their
        SHA-256 at C(….tar.sha256). Without a tag, the hexadecimal digits of the digest take its place.
      - If empty, the image is pulled.
    type: str
    default: ""
  state:
    description:
      - V(fetched) only pulls or loads the image.
      - V(current) also records it as the image that the program runs, and removes earlier ones beyond O(keep).
      - V(absent) removes the container and all recorded images of the program.
    type: str
    choices: [fetched, current, absent]
    default: current
  keep:
    description: How many earlier images are kept for a rollback.
    type: int
    default: 1
  root:
    description: Directory of all programs.
    type: path
    default: /opt
  cache:
    description: Directory for archives while they are loaded.
    type: path
    default: /var/cache/logstead
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Pull Loki's image
  logstead.platform.systemd_app_image:
    name: loki
    image: docker.io/grafana/loki:3.7.8

- name: Load it from a mirror, but don't run it yet
  logstead.platform.systemd_app_image:
    name: loki
    image: docker.io/grafana/loki:3.7.8
    mirror: https://mirror.example.org
    state: fetched

- name: Remove its container and images
  logstead.platform.systemd_app_image:
    name: loki
    state: absent
"""

RETURN = r"""
changed:
  description: Whether an image was pulled, loaded, made current or removed.
  type: bool
  returned: success
"""

NAME = re.compile(r"(?P<repository>[^@\s]+?)(:(?P<tag>[\w.-]+))?(@sha256:(?P<digest>[0-9a-f]{64}))?")


def archive_url(image: str, mirror: str) -> str:
    """Return the address of an image's archive on a mirror."""
    found = NAME.fullmatch(image)
    if not found or not (found["tag"] or found["digest"]):
        raise ReleaseError(
            f"{image!r} is no full name of an image: it has a tag or a digest, such as docker.io/grafana/loki:3.7.8. "
            "Nothing was changed."
        )
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    return f"{mirror}/images/{found['repository']}/{found['tag'] or found['digest']}-{architecture}.tar"


def digest_in(archive: Path) -> str | None:
    """Return the digits of the digest of the image in an OCI archive; None if the archive keeps none.

    Loading an archive gives its image the name that another one may have, so this is looked at before.
    """
    try:
        with tarfile.open(archive) as packed:
            index = packed.extractfile("index.json")
            manifests = json.loads(index.read())["manifests"] if index else []
    except (KeyError, ValueError, tarfile.TarError):
        return None
    return str(manifests[0]["digest"]).removeprefix("sha256:") if len(manifests) == 1 else None


def load(image: str, mirror: str, cache: Path) -> None:
    """Load an image from a mirror's archive."""
    url = archive_url(image, mirror)
    archive = cache / re.sub(r"\W+", "-", image)
    expected = expected_checksum(f"{url}.sha256", url.rpartition("/")[2])
    if not (archive.is_file() and digest_of(archive) == expected):
        download(url, expected, archive)
    try:
        wanted, found = NAME.fullmatch(image)["digest"], digest_in(archive)  # type: ignore[index]
        if wanted not in (None, found):
            raise ReleaseError(
                f"{url} holds an image with the digest sha256:{found or '?'}, and not {image}. Save it anew with "
                "--format oci-archive, which keeps digests, or pin the one that it has. Nothing was changed."
            )
        loaded = podman("load", "--quiet", "--input", str(archive)).split()[-1]
        if not has_image(image):
            remove_image(loaded)
            raise ReleaseError(f"{url} holds {loaded}, and not {image}. Nothing was changed.")
    except PodmanError as error:
        raise ReleaseError(f"{url} could not be loaded: {error}. Nothing was changed.") from error
    finally:
        archive.unlink(missing_ok=True)
        remove_if_empty(cache)


def pull(image: str) -> None:
    """Pull an image from its registry."""
    try:
        podman("pull", "--quiet", image)
    except PodmanError as error:
        raise ReleaseError(
            f"{image} can't be pulled: {error}. Check its name, and that the host reaches the registry; or set "
            "platform_image_registry, or platform_mirror_url to a mirror with archives of images. Nothing was changed."
        ) from error


def fetch(parameters: dict[str, Any], check_mode: bool) -> bool:
    """Have the image on the host; return whether it had to be got."""
    image, mirror = parameters["image"], parameters["mirror"]
    if has_image(image):
        return False
    if check_mode and mirror:
        open_remote(archive_url(image, mirror), "HEAD").close()
    elif check_mode:
        archive_url(image, mirror)
    elif mirror:
        load(image, mirror, Path(parameters["cache"]))
    else:
        pull(image)
    return True


def make_current(home: Path, image: str, keep: int) -> None:
    """Remember the image as the one that is run, and remove those that are too old."""
    earlier = [other for other in images_of(home) if other != image]
    kept = earlier[:keep] + [old for old in earlier[keep:] if not remove_image(old)]
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    record = home / f".{RECORD}"
    record.write_text("".join(f"{name}\n" for name in [image, *kept]))
    record.replace(home / RECORD)


def converge(parameters: dict[str, Any], check_mode: bool) -> bool:
    """Bring the image into the wanted state; return whether anything had to be done."""
    home = Path(parameters["root"], parameters["name"])
    if parameters["state"] == "absent":
        changed = bool(images_of(home))
        if changed and not check_mode:
            remove_images(home)
        return changed
    changed = fetch(parameters, check_mode)
    if parameters["state"] == "current" and images_of(home)[:1] != [parameters["image"]]:
        if not check_mode:
            make_current(home, parameters["image"], parameters["keep"])
        changed = True
    return changed


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "image": {"type": "str"},
            "mirror": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["fetched", "current", "absent"], "default": "current"},
            "keep": {"type": "int", "default": 1},
            "root": {"type": "path", "default": "/opt"},
            "cache": {"type": "path", "default": "/var/cache/logstead"},
        },
        required_if=[("state", "fetched", ["image"]), ("state", "current", ["image"])],
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        changed = converge(module.params, module.check_mode)
    except (ReleaseError, PodmanError, OSError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
