"""The folder outside the repository that holds everything slow to make, shared by every run on this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LOGSTEAD_CACHE") or Path.home() / ".cache" / "logstead").absolute()


@contextmanager
def locked(name: str) -> Iterator[int]:
    """Let one run at a time do what `name` says; a killed run's lock goes with it.

    Yields the lock's file descriptor: a child that inherits it keeps the lock for as long as it lives.
    """
    path = CACHE / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run ({name})", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()
