#!/usr/bin/python3
# Managed by logstead: changes made here are overwritten.
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Load an nftables table with `flags owner`, and keep it for as long as this program runs.

The kernel lets no other process change or remove such a table, and removes it when its owner ends. So what reloads the
host's firewall, which on Debian begins with `flush ruleset`, leaves it alone, and the unit is active as long as the
table is there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys


def load(path: str) -> ctypes.c_void_p:
    """Load a file of nftables, and return the context that owns its table; exit with the library's words on stderr."""
    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    if library.nft_run_cmd_from_filename(context, path.encode()) != 0:
        sys.exit(f"{path} can't be loaded. Without nftables in the kernel, set platform_local_access to everyone.")
    return context


def notify(state: str) -> None:
    """Send systemd a state, as sd_notify(3) does; nothing outside of systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), address.replace("@", "\0", 1))


def main() -> None:
    """Load the table, and wait until systemd ends the program."""
    _context = load(sys.argv[1])
    notify("READY=1")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
