"""Show the host's folders of logs to Promtail in a view of which no symbolic link is followed.

Promtail opens logs by their names, and may read what their owners may not. So whoever may write to a log's folder could
have it send any file that it may read, by a link. The kernel prevents that for a mount with the flag `nosymfollow`,
whenever the link is made: docs/security.md.

Usage: log_view.py show FOLDER...    mount each folder below /run/logstead/promtail, where Promtail's unit gets it from
       log_view.py hide              unmount them; what Promtail has got stays as it is
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

VIEW = Path("/run/logstead/promtail")
# From <linux/mount.h> and <asm-generic/unistd.h>: Python has no function for it, and mount(8) sets no flags on what is
# mounted below a folder before util-linux 2.39.
SYS_MOUNT_SETATTR, AT_RECURSIVE = 442, 0x8000
RDONLY, NOSUID, NODEV, NOEXEC, NOSYMFOLLOW = 0x1, 0x2, 0x4, 0x8, 0x200000


def mount(folder: Path) -> None:
    """Mount a folder in the view, with all that is mounted below it.

    Raises:
        OSError: The kernel has no such flag.
        subprocess.CalledProcessError: It can't be mounted.
    """
    place = VIEW / folder.relative_to("/")
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    # What is mounted on the host later is to be seen as well, and nothing is to come back from here.
    subprocess.run(["mount", "--rbind", "--make-rslave", str(folder), str(place)], check=True)
    attributes = struct.pack("=QQQQ", RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_MOUNT_SETATTR, -1, os.fsencode(place), AT_RECURSIVE, attributes, len(attributes)) != 0:
        raise OSError(ctypes.get_errno(), "mounts without symbolic links need Linux 5.14 or newer", str(folder))


def unescape(place: str) -> str:
    """Return a path of /proc/self/mountinfo, where spaces and the like are octal numbers."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), place)


def hide() -> None:
    """Unmount the view, as often as there is one."""
    while True:
        mounts = [unescape(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        ours = [place for place in mounts if Path(place).is_relative_to(VIEW)]
        if not ours:
            return
        subprocess.run(["umount", "--lazy", "--recursive", "--no-mtab", ours[0]], check=True)


def show(folders: list[str]) -> None:
    """Mount folders in the view, and tell of those that aren't there."""
    hide()
    for folder in folders:
        if Path(folder).is_dir():
            mount(Path(folder))
        else:
            print(f"{folder} isn't there: once it is, restart promtail.service, which protects it from links")


def main() -> int:
    """Run one command; return the exit code."""
    command, *folders = sys.argv[1:]
    os.umask(0o022)
    try:
        show(folders) if command == "show" else hide()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"Promtail is not started, as it would follow links in folders of logs: {error}", file=sys.stderr)
        hide()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
