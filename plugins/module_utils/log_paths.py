# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Whether two paths of logs, which may be patterns, can be those of one file."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache


def elements_of(pattern: str) -> tuple[str, ...]:
    """Split one name's pattern into what matches one character each, and stars."""
    return tuple(re.findall(r"\[[!^]?\]?[^\]]*\]|.", pattern))


@cache
def names_meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether some name matches both patterns."""
    if not one or not other:
        return all(element == "*" for element in one + other)
    if one[0] == "*":
        return names_meet(one[1:], other) or names_meet(one, other[1:])
    if other[0] == "*":
        return names_meet(other, one)
    return characters_meet(one[0], other[0]) and names_meet(one[1:], other[1:])


def characters_meet(one: str, other: str) -> bool:
    """Tell whether some character matches both; two classes are taken to."""
    if len(one) > 1 and len(other) > 1:
        return True
    if len(other) > 1 or other == "?":
        one, other = other, one
    return one == "?" or fnmatchcase(other, one.replace("[^", "[!"))


def paths_meet(one: str, other: str) -> bool:
    """Tell whether some path matches both patterns: only `**` matches a slash."""
    return folders_meet(tuple(one.split("/")), tuple(other.split("/")))


def folders_meet(parts: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Tell whether some path's parts match both patterns'."""
    if not parts or not others:
        return all(part == "**" for part in parts + others)
    if parts[0] == "**":
        return folders_meet(parts[1:], others) or folders_meet(parts, others[1:])
    if others[0] == "**":
        return folders_meet(others, parts)
    return names_meet(elements_of(parts[0]), elements_of(others[0])) and folders_meet(parts[1:], others[1:])
