"""Locations in the settings file, for error messages that name the file and the line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flowhooks.settings.types import format_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ANY_HEADER: Final = re.compile(r"\s*\[\s*[\w\"']+[\w\"'. -]*\]\s*(#|$)")


def line_of(lines: Sequence[str], section: Sequence[str], key: str = "") -> int | None:
    """Return the number of the line with the header of a section, or of a key in it; None: not found.

    Args:
        lines: the lines of the settings file.
        section: the names of the section, such as `("alerts", "routes", "oncall")`.
        key: the key in it; `""`: the header.
    """
    dotted = r"\s*\.\s*".join(rf"([\"']?){re.escape(name)}\{place}" for place, name in enumerate(section, start=1))
    header = re.compile(rf"\s*\[\s*{dotted}\s*\]")
    start = next((number for number, line in enumerate(lines, start=1) if header.match(line)), None)
    if start is None or not key:
        return start
    for number, line in enumerate(lines[start:], start=start + 1):
        if _ANY_HEADER.match(line):
            break
        if re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return start


def at_line(path: Path, section: Sequence[str], key: str = "") -> str:
    """Return the file and the line of a section or of a key in it, to precede an error message."""
    line = line_of(path.read_text("utf-8-sig").splitlines(), section, key)
    return f"{format_line(path)}: " if line is None else f"{format_line(path)}:{line}: "
