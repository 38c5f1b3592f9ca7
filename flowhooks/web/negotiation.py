"""What a caller asks for in its headers: language, wait, media type."""

from __future__ import annotations

import re
from typing import Final

from flowhooks.errors import UnsupportedMedia
from flowhooks.text import escape_control

MAX_HEADER_CHARS: Final = 1000
"""Characters of a header that are looked at. What follows is ignored, so that work is bounded under any server."""
MAX_SHOWN_CHARS: Final = 100
"""Characters of a header that a refusal repeats."""
MAX_WAIT_SECONDS: Final = 60
"""Seconds that `Prefer: wait=N` may ask for at most."""

_RANGE: Final = re.compile(
    r"(?P<tag>\*|[a-z]{1,8}(?:[-_][a-z0-9]{1,8})*)(?:\s*;\s*q=(?P<q>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.IGNORECASE | re.ASCII,
)
"""One language range with its weight (RFC 9110 §12.5.4). `zh_CN`, as Java writes a locale, is taken too."""
_ITEM: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")+')
"""One item of a list, in which a comma between quotation marks does not separate."""
_NUMBER: Final = re.compile(r"[0-9]+")
_JSON: Final = re.compile(r"application/(?:json|[!#$%&'*+\-.^_`|~0-9a-z]+\+json)", re.IGNORECASE | re.ASCII)


def parse_accept_language(accept_language: str | None) -> str:
    """The language to answer in.

    Args:
        accept_language: the `Accept-Language` header (RFC 9110 §12.5.4), or None.

    Returns:
        `"zh"` if Chinese, in whatever script or country, is what the caller likes better; else `"en"`.
    """
    best, liked = 0.0, "en"
    for item in (accept_language or "")[:MAX_HEADER_CHARS].split(","):
        if not (match := _RANGE.fullmatch(item.strip())):
            continue
        primary = match["tag"].lower().replace("_", "-").partition("-")[0]
        weight = float(match["q"] or 1)
        # Of two that are liked equally the first one counts, as most servers have it.
        if primary in {"zh", "en", "*"} and weight > best:
            best, liked = weight, "zh" if primary == "zh" else "en"
    return liked


def parse_prefer_wait(prefer: str | None, default: float) -> tuple[float, str | None]:
    """How long the caller wants its answer to wait for the handlers.

    `respond-async` alone asks for an answer at once; together with `wait=N` for one within N seconds
    (RFC 7240 §4.3). Of a preference that comes twice the first one counts; malformed ones do not count.

    Args:
        prefer: the `Prefer` headers, joined with commas, or None.
        default: seconds to wait when the caller does not say.

    Returns:
        Seconds, at most `MAX_WAIT_SECONDS` if the caller said them, and what to answer as `Preference-Applied`, or
        None.
    """
    seconds: int | None = None
    at_once = False
    for item in _ITEM.findall((prefer or "")[:MAX_HEADER_CHARS]):
        name, _, value = (part.strip() for part in item.partition(";")[0].partition("="))
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if name.lower() == "respond-async":
            at_once = at_once or not value
        elif name.lower() == "wait" and seconds is None and _NUMBER.fullmatch(value):
            seconds = min(int(value), MAX_WAIT_SECONDS)
    if seconds is None:
        return (0.0, "respond-async") if at_once else (default, None)
    return float(seconds), f"respond-async, wait={seconds}" if at_once else f"wait={seconds}"


def check_media_type(content_type: str | None, content_encoding: str | None) -> None:
    """See that a body is, by its own headers, JSON in UTF-8 that nothing was done to.

    Args:
        content_type: the `Content-Type` header, or None, which is taken for JSON.
        content_encoding: the `Content-Encoding` header, or None.

    Raises:
        UnsupportedMedia: it says otherwise.
    """
    if content_encoding and any(coding.strip().lower() != "identity" for coding in content_encoding.split(",")):
        raise UnsupportedMedia("content_encoding", given=escape_control(content_encoding, MAX_SHOWN_CHARS))
    if not content_type or content_type == "application/json":
        return
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    pairs = (parameter.lower().partition("=") for parameter in parameters)
    charsets = [value.strip().strip('"') for name, _, value in pairs if name.strip() == "charset"]
    if not _JSON.fullmatch(kind) or any(charset not in {"utf-8", "utf8"} for charset in charsets):
        raise UnsupportedMedia("media_type", given=escape_control(content_type, MAX_SHOWN_CHARS))
