"""Parsers for request headers that negotiate language, wait and media type."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from flowhooks.errors import UnsupportedMedia
from flowhooks.text import escape_control

MAX_HEADER_CHARS: Final = 1000
"""Number of characters of a header that are parsed. The rest is ignored, so that the work is bounded under any server.
"""
CACHED_HEADERS: Final = 64
"""Number of different values of a header whose meaning is kept."""
MAX_SHOWN_CHARS: Final = 100
"""Maximum number of characters of a header in an error message."""
MAX_WAIT_SECONDS: Final = 60
"""Maximum number of seconds that `Prefer: wait=N` may request."""

_RANGE: Final = re.compile(
    r"(?P<tag>\*|[a-z]{1,8}(?:[-_][a-z0-9]{1,8})*)(?:\s*;\s*q=(?P<q>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.IGNORECASE | re.ASCII,
)
"""One language range with its weight (RFC 9110 §12.5.4). `zh_CN`, as Java writes a locale, is accepted, too."""
_ITEM: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")+')
"""One item of a list. A comma between quotation marks does not separate items."""
_NUMBER: Final = re.compile(r"[0-9]+")
_JSON: Final = re.compile(r"application/(?:json|[!#$%&'*+\-.^_`|~0-9a-z]+\+json)", re.IGNORECASE | re.ASCII)


def parse_accept_language(accept_language: str | None) -> str:
    """Return the language to answer in.

    Args:
        accept_language: the `Accept-Language` header (RFC 9110 §12.5.4), or None.

    Returns:
        `"zh"` if the caller prefers Chinese, of any script or country; otherwise `"en"`.
    """
    return _preferred_language(accept_language[:MAX_HEADER_CHARS]) if accept_language else "en"


# An engine sends the same headers with each callback.
@lru_cache(maxsize=CACHED_HEADERS)
def _preferred_language(accept_language: str) -> str:
    best, liked = 0.0, "en"
    for item in accept_language.split(","):
        if not (match := _RANGE.fullmatch(item.strip())):
            continue
        primary = match["tag"].lower().replace("_", "-").partition("-")[0]
        weight = float(match["q"] or 1)
        # Of two languages with the same weight the first one is chosen, as by most servers.
        if primary in {"zh", "en", "*"} and weight > best:
            best, liked = weight, "zh" if primary == "zh" else "en"
    return liked


def parse_prefer_wait(prefer: str | None, default: float) -> tuple[float, str | None]:
    """Return how long the response is to wait for the handlers.

    `respond-async` alone requests an immediate response; together with `wait=N` it requests a response within N seconds
    (RFC 7240 §4.3). If a preference is repeated, the first one counts. Malformed ones are ignored.

    Args:
        prefer: the `Prefer` headers, joined with commas, or None.
        default: seconds to wait if the caller states no preference.

    Returns:
        The seconds, at most `MAX_WAIT_SECONDS` if the caller stated them, and the value of `Preference-Applied`, or
        None.
    """
    seconds, applied = _parse_prefer(prefer[:MAX_HEADER_CHARS]) if prefer else (None, None)
    return (default if seconds is None else seconds), applied


@lru_cache(maxsize=CACHED_HEADERS)
def _parse_prefer(prefer: str) -> tuple[float | None, str | None]:
    seconds: int | None = None
    at_once = False
    for item in _ITEM.findall(prefer):
        name, _, value = (part.strip() for part in item.partition(";")[0].partition("="))
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if name.lower() == "respond-async":
            at_once = at_once or not value
        elif name.lower() == "wait" and seconds is None and _NUMBER.fullmatch(value):
            seconds = min(int(value), MAX_WAIT_SECONDS)
    if seconds is None:
        return (0.0, "respond-async") if at_once else (None, None)
    return float(seconds), f"respond-async, wait={seconds}" if at_once else f"wait={seconds}"


def check_content_encoding(content_encoding: str | None) -> None:
    """Check that a body has, by its header, no content coding.

    Raises:
        UnsupportedMedia: the header states a coding.
    """
    if content_encoding and any(coding.strip().lower() != "identity" for coding in content_encoding.split(",")):
        raise UnsupportedMedia("content_encoding", given=escape_control(content_encoding, MAX_SHOWN_CHARS))


def check_media_type(content_type: str | None, content_encoding: str | None) -> None:
    """Check that a body is, by its headers, JSON in UTF-8 without a content coding.

    Args:
        content_type: the `Content-Type` header; None is treated as JSON.
        content_encoding: the `Content-Encoding` header, or None.

    Raises:
        UnsupportedMedia: the headers state another type, charset or coding.
    """
    check_content_encoding(content_encoding)
    if not content_type or content_type == "application/json":
        return
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    pairs = (parameter.lower().partition("=") for parameter in parameters)
    charsets = [value.strip().strip('"') for name, _, value in pairs if name.strip() == "charset"]
    if not _JSON.fullmatch(kind) or any(charset not in {"utf-8", "utf8"} for charset in charsets):
        raise UnsupportedMedia("media_type", given=escape_control(content_type, MAX_SHOWN_CHARS))
