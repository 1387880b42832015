"""Jinja filter for Grafana's settings file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def to_ini(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of an INI file for settings by section and name; booleans are written in lower case."""

    def written(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return "\n".join(
        f"[{section}]\n" + "".join(f"{name} = {written(value)}\n" for name, value in settings.items())
        for section, settings in sections.items()
    )


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"to_ini": to_ini}
