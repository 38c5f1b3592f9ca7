"""Text that may come from anywhere, made fit to be looked at.

A character that cannot be seen is shown as its escape: whoever looks is to see what is there, and what is there is not
to turn the line round, to hide, or to reach a terminal into which it is copied.
"""

from __future__ import annotations

import re
from typing import Final

_INVISIBLE: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, other than tab and line end
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u3164\ufe00-\ufe0f\uffa0"  # without a width
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"  # ends of lines; marks that turn the direction of writing
    "\ud800-\udfff"  # halves of characters, which UTF-8 does not have
    "\U000e0000-\U000e0fff"  # tags
    "]"
)
MAX_VALUE_CHARS: Final = 120
"""Characters of a value that a listing shows."""
MAX_TEXT_CHARS: Final = 65_536
"""Characters of a text that a page shows."""


def escape_invisible(text: str) -> str:
    """The text with every character that cannot be seen in place of its escape; line ends and tabs stay.

    Args:
        text: anything.
    """
    return _INVISIBLE.sub(_escape, text)


def shorten(text: str | None, max_chars: int = MAX_VALUE_CHARS) -> str:
    """The text on one line, cut with an ellipsis where it is longer than `max_chars` characters; `""` for None."""
    if not text:
        return ""
    line = text[: max_chars + 1].replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 (what four digits hold)
