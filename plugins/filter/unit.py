"""Jinja filter that writes systemd's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def to_unit(unit: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a unit with its settings by section and name; a list gives a line for each element."""
    lines = []
    for section, settings in unit.items():
        lines += ["", f"[{section}]"]
        for name, value in settings.items():
            for single in value if isinstance(value, (list, tuple)) else [value]:
                lines.append(f"{name}={str(single).lower() if isinstance(single, bool) else single}")
    return "\n".join([*lines, ""])


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"to_unit": to_unit}
