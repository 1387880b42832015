# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Known noise: harmless lines at an error level that would hide real errors, such as what sshd logs for each probe.

`platform_known_noise` has texts by name, in which `*` stands for any characters. A line that contains one of them is
stored like any other, and left out where errors are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Fewer characters would mute too much.
SHORTEST_TEXT = 8
# In both RE2, which Loki uses, and Python. re.escape would also escape what needs no escape.
SPECIAL = re.compile(r"[\\.+?()|\[\]{}^$]")


def noise_problems(noise: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with `platform_known_noise`: sentences that say what to do."""
    for name, text in noise.items():
        where = f"platform_known_noise['{name}']"
        if text in (None, ""):  # disables an entry of the defaults
            continue
        if not isinstance(text, str):
            yield f"{where} is {text!r}; write the text that the lines contain, or an empty one to disable the entry."
        elif not text.isprintable():
            yield f"{where} is {text!r}; the text of a line has no line breaks or control characters."
        elif len(text.replace("*", "").strip()) < SHORTEST_TEXT:
            yield (
                f"{where} is {text!r}, which would mute too many lines; write at least {SHORTEST_TEXT} characters "
                "besides *."
            )


def noise_regex(text: str) -> str:
    """Return the regular expression of a text in which `*` stands for any characters."""
    return ".*".join(SPECIAL.sub(r"\\\g<0>", part) for part in re.split(r"\*+", text.strip("*")))


def noise_filter(noise: Mapping[str, Any]) -> str:
    """Return the LogQL stage that leaves known noise out; empty if there is none."""
    regex = "|".join(sorted({noise_regex(text) for text in noise.values() if text}))
    # LogQL's strings between double quotes have the escapes of JSON that can occur here: of " and of the backslash.
    return f"!~ {json.dumps(regex, ensure_ascii=False)}" if regex else ""
