# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What the modules of systemd_app ask of podman, and what a change of the runtime leaves behind."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

# In a program's folder, such as /opt/loki: the images that were put on the host for it, the current one first.
RECORD = "images"


class PodmanError(Exception):
    """Says what podman refuses."""


def podman(*arguments: str) -> str:
    """Run podman and return what it prints; raise PodmanError with its last words if it fails."""
    command = ["podman", *arguments]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PodmanError("podman isn't installed.") from error
    if result.returncode != 0:
        told = result.stderr.strip().splitlines()
        raise PodmanError(told[-1].removeprefix("Error: ") if told else f"podman ends with {result.returncode}")
    return result.stdout


def has_image(image: str) -> bool:
    """Tell whether podman has an image, with the digest that its name may carry."""
    if not shutil.which("podman"):
        return False
    return subprocess.run(["podman", "image", "exists", image], capture_output=True, check=False).returncode == 0


def images_of(home: Path) -> list[str]:
    """Return the images that were put on the host for the program with this folder, the current one first."""
    try:
        return (home / RECORD).read_text().split()
    except FileNotFoundError:
        return []


def command_in(image: str, command: str, *folders: Path) -> list[str]:
    """Return the command line that runs another one once in an image, which sees nothing but these folders."""
    program, *arguments = command.split()
    volumes = [f"--volume={folder}:{folder}:ro" for folder in folders if folder.is_dir()]
    # Some programs listen for a moment, at an address of the host.
    sandbox = ["--network=host", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    sandbox += ["--security-opt=label=disable", "--image-volume=ignore", "--log-driver=none"]
    attached = ["--attach=stdout", "--attach=stderr"]
    return [
        *("podman", "run", "--rm", "--pull=never", *sandbox, *attached, *volumes),
        *(f"--entrypoint={program}", image, *arguments),
    ]


def has_leftovers(home: Path, image: str | None) -> bool:
    """Tell whether a program's other runtime has left something: `image` is what it runs from now, if it is one."""
    return (home / "current").is_symlink() if image else bool(images_of(home))


def remove_leftovers(home: Path, image: str | None) -> None:
    """Remove what a program's other runtime has left."""
    if image:
        for path in home.iterdir():
            if path.is_symlink():
                path.unlink()
            elif path.is_dir() and not (path / "current").is_symlink():  # that would be a tool with releases of its own
                shutil.rmtree(path)
    else:
        remove_images(home)


def remove_image(image: str) -> bool:
    """Remove an image, and tell whether it is gone: it isn't while a container uses it."""
    with contextlib.suppress(PodmanError):
        podman("image", "rm", image)
    return not has_image(image)


def remove_images(home: Path) -> None:
    """Remove a program's container and its images; others' containers keep what they use."""
    podman("rm", "--force", "--ignore", home.name)
    for image in images_of(home):
        remove_image(image)
    (home / RECORD).unlink()
