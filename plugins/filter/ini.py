"""Jinja filter for Grafana's settings file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any


def to_ini(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of an INI file for settings by section and name, as the library that Grafana uses reads it."""

    def written(value: object) -> str:
        if value is None:
            return ""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        # What the library would take for a comment, a quote, or a line that goes on is kept by its triple quotes.
        is_plain = not re.search(r"[#;\n]|^[\s`'\"]|[\s\\]$", text)
        return text if is_plain else f'"""{text}"""'

    return "\n".join(
        f"[{section}]\n" + "".join(f"{name} = {written(value)}\n" for name, value in settings.items())
        for section, settings in sections.items()
    )


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"to_ini": to_ini}
