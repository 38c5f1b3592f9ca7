"""Files to which handlers in other processes append lines while a test reads them. No tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def whole_lines(file: Path) -> list[str]:
    """The complete lines of a file; none if there is no file.

    A line that crosses a page of the file (4096 bytes) is written in two parts, so the second part of the last line
    may be missing.
    """
    text = file.read_text() if file.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
