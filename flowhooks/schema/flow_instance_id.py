"""Decode the flowInstanceId of a path, and check the rules that no schema file can change.

These rules keep an id on one line of a log, and make it readable, searchable and storable in each database.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from flowhooks.errors import InvalidCallback

MAX_BYTES: Final = 512
"""Maximum length of an id in UTF-8."""
_MALFORMED_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_FORBIDDEN: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters
    "\u2028\u2029"  # line separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks: one id could look like another one
    "\ud800-\udfff"  # surrogates, which UTF-8 cannot encode
    "]"
)


def decode(segment: str) -> str:
    """Decode a percent-encoded path segment once, as strict UTF-8. A plus sign is a plus sign.

    Raises:
        InvalidCallback: the segment is not percent-encoded UTF-8.
    """
    if _MALFORMED_ESCAPE.search(segment):
        raise InvalidCallback("path_id_encoding")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidCallback("path_id_encoding") from None


def find_violations(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the message key and the params of each rule that a decoded id breaks."""
    if match := _FORBIDDEN.search(text):
        return [("schema.id_character", {"code": f"U+{ord(match[0]):04X}"})]
    broken_rules: list[tuple[str, dict[str, Any]]] = []
    if text != text.strip():
        broken_rules.append(("schema.id_edges", {}))
    if len(text.encode()) > MAX_BYTES:
        broken_rules.append(("schema.id_bytes", {"limit": MAX_BYTES}))
    return broken_rules
