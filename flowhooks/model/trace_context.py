"""The `traceparent` of W3C Trace Context, which links the trace of the sender with those of the handlers."""

from __future__ import annotations

import re
from typing import Final

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
"""A trace id: the characters of a `traceparent` after the version."""


def parse_traceparent(text: str | None) -> str | None:
    """Return the first 55 characters of a valid `traceparent`; None for a missing or invalid one.

    The format is that of W3C Trace Context, section 3.2. A later version than 00 may have further fields after a dash,
    which are left out. An invalid one is no error, because traces must not decide what is accepted.
    """
    if not text:
        return None
    match = _TRACEPARENT.match(text)
    if match is None or (len(text) > match.end() and (text.startswith("00") or text[match.end()] != "-")):
        return None
    return match[0]
