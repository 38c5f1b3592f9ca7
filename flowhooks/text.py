"""Text from any origin, escaped or shortened for a line, a page, a database or a shell."""

from __future__ import annotations

import json
import re
import shlex
from typing import Final

MAX_LINE_CHARS: Final = 600
"""Characters of a line in a listing or an alert, so that it stays one."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_INVISIBLE: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, other than tab and line end
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u3164\ufe00-\ufe0f\uffa0"  # without a width
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"  # ends of lines; marks that turn the direction of writing
    "\ud800-\udfff"  # halves of characters, which UTF-8 does not have
    "\U000e0000-\U000e0fff"  # tags
    "]"
)


def one_line(text: str) -> str:
    """The text on one line: each run of white space is one blank."""
    return " ".join(text.split())


def truncate(text: str, max_chars: int, *, count_ellipsis: bool = True) -> str:
    """The text, cut with an ellipsis where it is longer than `max_chars` characters.

    Args:
        text: any text.
        max_chars: the most characters.
        count_ellipsis: whether the ellipsis is one of them.
    """
    return text if len(text) <= max_chars else text[: max_chars - count_ellipsis] + "…"


def truncate_middle(text: str, max_chars: int, mark: str = " … ") -> str:
    """The text, or where it is longer than `max_chars` characters its beginning and its end, with `mark` between."""
    half = max_chars // 2
    return text if len(text) <= max_chars else f"{text[:half]}{mark}{text[-half:]}"


def escape_control(text: str, max_chars: int | None = None, *, replacement: str | None = None) -> str:
    """The text on one line, without characters that a terminal would obey or that cannot be seen.

    Args:
        text: such as the name of a member, or a header's value.
        max_chars: the most characters that are returned; None: all of them.
        replacement: what stands for a character that is not printable; None: its escape, as JSON has it.

    Returns:
        The text with what is not printable (controls, lone surrogates, marks that turn the direction of writing)
        escaped or replaced; cut, with an ellipsis, where it is longer than `max_chars`.
    """
    start = text[:max_chars]
    if not start.isprintable():
        start = "".join(
            char if char.isprintable() else json.dumps(char)[1:-1] if replacement is None else replacement
            for char in start
        )
    if max_chars is None or (len(text) <= max_chars and len(start) <= max_chars):
        return start
    return start[: max_chars - 1] + "…"


def printable_line(text: str) -> str:
    """The text on one line of bounded length, what is not printable replaced: it may go to a terminal or a log."""
    return escape_control(one_line(text), MAX_LINE_CHARS, replacement=_REPLACEMENT)


def escape_invisible(text: str) -> str:
    """The text for a page, every character that cannot be seen in place of its escape.

    Whoever looks is to see what is there, and what is there is not to turn the line round, to hide, or to reach a
    terminal into which it is copied. Line ends, tabs and wide spaces stay.
    """
    return _INVISIBLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 (what four digits hold)


def to_storable(text: str, max_chars: int) -> str:
    """What a database can keep of a text: no NUL, no lone surrogate, not without end."""
    text = truncate_middle(text, max_chars)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


shell_quote = shlex.quote
"""Quote one value for a shell, whatever is in it."""


def command_line(*words: str) -> str:
    """Return the command `flowhooks` with these words, quoted for a shell; `--key=VALUE` is one word."""
    return shlex.join(("flowhooks", *words))
