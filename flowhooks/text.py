"""Functions that escape or shorten untrusted text for a line, a page, a database or a shell."""

from __future__ import annotations

import json
import re
import shlex
from typing import Final

MAX_LINE_CHARS: Final = 600
"""Maximum length of a line in a listing or an alert, in characters."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_INVISIBLE: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters other than tab and line feed
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u3164\ufe00-\ufe0f\uffa0"  # zero width
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"  # line separators; marks that change the direction of writing
    "\ud800-\udfff"  # surrogates, which UTF-8 cannot encode
    "\U000e0000-\U000e0fff"  # tags
    "]"
)


def one_line(text: str) -> str:
    """Return the text on one line, with each run of white space replaced by one space."""
    return " ".join(text.split())


def truncate(text: str, max_chars: int, *, count_ellipsis: bool = True) -> str:
    """Return the text, cut and marked with an ellipsis if it is longer than `max_chars` characters.

    Args:
        text: any text.
        max_chars: the maximum number of characters.
        count_ellipsis: whether the ellipsis counts towards the maximum.
    """
    return text if len(text) <= max_chars else text[: max_chars - count_ellipsis] + "…"


def truncate_middle(text: str, max_chars: int, mark: str = " … ") -> str:
    """Return the text or, if it is longer than `max_chars` characters, its start and its end around `mark`."""
    half = max_chars // 2
    return text if len(text) <= max_chars else f"{text[:half]}{mark}{text[-half:]}"


def escape_control(text: str, max_chars: int | None = None, *, replacement: str | None = None) -> str:
    """Return the text on one line, without control characters that a terminal would execute and without invisible ones.

    Args:
        text: untrusted text, such as the name of a member or the value of a header.
        max_chars: the maximum length of the result; None: no limit.
        replacement: replaces each character that is not printable; None: its JSON escape is used.

    Returns:
        The text with all characters that are not printable (controls, lone surrogates, marks that change the direction
        of writing) escaped or replaced. A text longer than `max_chars` is cut and ends with an ellipsis.
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
    """Return the text on one line for a terminal or a log, with unprintable characters replaced.

    The line has at most `MAX_LINE_CHARS` characters.
    """
    return escape_control(one_line(text), MAX_LINE_CHARS, replacement=_REPLACEMENT)


def escape_invisible(text: str) -> str:
    """Return the text for a page, with every invisible character replaced by its escape.

    The reader sees all characters of the text. None of them can reverse the line, hide text, or reach a terminal into
    which the text is copied. Line feeds, tabs and wide spaces are kept.
    """
    return _INVISIBLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 (the largest number of four digits)


def to_storable(text: str, max_chars: int) -> str:
    """Return the text as every database can store it: no NUL, no lone surrogates, shortened to `max_chars`."""
    text = truncate_middle(text, max_chars)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


shell_quote = shlex.quote
"""Quote one value for a shell, whatever characters it contains."""


def command_line(*words: str) -> str:
    """Return the command `flowhooks` with these words, quoted for a shell. `--key=VALUE` is one word."""
    return shlex.join(("flowhooks", *words))
