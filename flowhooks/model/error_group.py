"""Errors of attempts that have the same cause, without the values that differ each time."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, NamedTuple

MAX_MESSAGE_CHARS: Final = 200
"""Maximum characters of a group's message."""
MAX_NORMALIZED_CHARS: Final = 2_000
"""Maximum characters of an error line that are looked at. The rest of a longer line does not tell two errors apart."""
MAX_NAME_CHARS: Final = 200
"""Maximum characters of a group's error type, and of its frame."""
PLACEHOLDER: Final = "#"
"""Stands in a group's message for an id, a number, a time, a quoted value or an address."""
LOST: Final = "Lost"
"""Error type of attempts whose process ended, or was ended, while the handler ran."""
REJECTED: Final = "Reject"
"""Error type of attempts that a handler, or the schema of its plugin, rejected."""
FAILED: Final = "Failed"
"""Error type of failed attempts whose handler raised no exception, because it was not entered."""
OTHER: Final = "other"
"""Error type of the group for all errors of a handler that already has its maximum number of groups."""

# One pattern, because what begins first decides: a URL in quotation marks does not end with the closing mark.
# A quotation mark that is not closed, as in a line that was cut, quotes the rest.
_VALUE: Final = re.compile(
    r"""(?<!\w)(?:'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z))|[“”„][^“”„]*[“”]?|"""
    r"\u2018[^\u2018\u2019]*\u2019?|「[^「」]*」?|«[^«»]*»?|"
    r"[A-Za-z][A-Za-z0-9+.-]{0,15}://\S*|"
    r"[\w.+-]{1,64}@[\w.-]{1,255}"
)
_IPV6: Final = re.compile(r"(?<![\w:])(?=[:A-Fa-f]*\d)[\dA-Fa-f]{0,4}(?::[\dA-Fa-f]{0,4}){2,7}(?![\w:])")
_WORD: Final = re.compile(r"[A-Za-z_\d]+(?:-[A-Za-z_\d]+)*")
_HAS_DIGIT: Final = re.compile(r"\d")
_HEXADECIMAL: Final = re.compile(r"[0-9A-Fa-f-]{8,}")
_MONTH: Final = (
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|January|February|March|April|June|July|August|September"
    r"|October|November|December)"
)
_WEEKDAY: Final = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_NAMED_DATE: Final = re.compile(rf"\b(?:{_WEEKDAY},? )?(?:{_MONTH}(?= #)|(?<=# ){_MONTH}\b|(?<=#-){_MONTH}\b)")
_WEEKDAY_BEFORE: Final = re.compile(rf"\b{_WEEKDAY},? (?=#)")
_SIGN: Final = re.compile(r"(?<![\w#])[-+](?=#)")
# Numbers in a row are one: an address, a version, a time, a list of ids.
_ROW: Final = re.compile(r"#(?:[-.:+/,; %_]{0,3}#)+")


class ErrorIdentity(NamedTuple):
    """The properties that the failed attempts of one group have in common.

    Attributes:
        handler: the handler's id.
        error_type: the type of the exception, or how the attempt ended.
        message: the message without ids, numbers, times, quoted values and addresses.
        frame: the innermost frame of the plugin, as `FILE:FUNCTION` relative to its package; `""` if there is none.
    """

    handler: str
    error_type: str
    message: str
    frame: str = ""

    @property
    def fingerprint(self) -> str:
        """The id of the group."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


def identify(handler: str, error_type: str, message: str, frame: str = "") -> ErrorIdentity:
    """Return the identity of an error.

    Args:
        handler: the handler's id.
        error_type: the type of the exception, or how the attempt ended.
        message: the message as it is stored.
        frame: the innermost frame of the plugin; default: none.
    """
    return ErrorIdentity(handler, error_type[:MAX_NAME_CHARS], normalize_message(message), frame[-MAX_NAME_CHARS:])


def other_errors(handler: str) -> ErrorIdentity:
    """Return the identity of the group for all errors of a handler that already has its maximum number of groups."""
    return ErrorIdentity(handler, OTHER, "")


def normalize_message(text: str) -> str:
    """Return a message without the values that differ between two occurrences of one error.

    Ids, numbers, times, quoted values and addresses are replaced by `PLACEHOLDER`. Each pattern reads the text once.
    The result has at most `MAX_MESSAGE_CHARS` characters.
    """
    text = " ".join(text[:MAX_NORMALIZED_CHARS].split())
    text = _VALUE.sub(PLACEHOLDER, text)
    text = _IPV6.sub(PLACEHOLDER, text)
    text = _WORD.sub(_without_id, text)
    text = _WEEKDAY_BEFORE.sub("", _NAMED_DATE.sub(PLACEHOLDER, text))
    text = _ROW.sub(PLACEHOLDER, _SIGN.sub("", text))
    return text[:MAX_MESSAGE_CHARS]


def _without_id(match: re.Match[str]) -> str:
    word = match[0]
    return PLACEHOLDER if _HAS_DIGIT.search(word) or _HEXADECIMAL.fullmatch(word) else word
