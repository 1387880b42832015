"""Filter: the lines of a password file, as nginx's auth_basic_user_file takes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping

SALT_BYTES = 8


def ssha(password: str, salt: bytes) -> str:
    """Return a password's salted SHA-1.

    A hash that is meant to be slow would cost the gateway a processor: it is worked out anew for each request. Against
    guessing, the passwords are long and random; `preflight` refuses others.
    """
    digest = hashlib.sha1(password.encode() + salt).digest()  # noqa: S324 - of random passwords, and quick on purpose
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def htpasswd(credentials: Mapping[str, Mapping[str, str]], purpose: str, place: str) -> str:
    """Return a line for each tenant's user `TENANT-PURPOSE`; the same for the same passwords at the same place."""
    lines = []
    for tenant, passwords in credentials.items():
        user = f"{tenant}-{purpose}"
        salt = hashlib.sha256(f"{place} {user}".encode()).digest()[:SALT_BYTES]
        lines.append(f"{user}:{ssha(passwords[purpose], salt)}\n")
    return "".join(lines)


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filter by its name."""
        return {"htpasswd": htpasswd}
