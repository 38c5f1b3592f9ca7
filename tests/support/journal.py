"""Files to which the handlers of other processes append lines, as a test reads them meanwhile. No tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def whole_lines(file: Path) -> list[str]:
    """The complete lines of a file; none if there is no file.

    A line that crosses a page of the file (4096 bytes) is written in two parts, and the last line may lack the second
    one.
    """
    text = file.read_text() if file.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
