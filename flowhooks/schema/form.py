"""Parse a form (application/x-www-form-urlencoded) into an object that every database can store."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from flowhooks.errors import MalformedRequest

MAX_FIELDS: Final = 1000
"""Maximum number of fields of a form."""


def parse_form(body: bytes) -> dict[str, Any]:
    """Parse a form by the URL Standard of WHATWG, as strict UTF-8.

    Args:
        body: the bytes as received.

    Returns:
        The fields by their names. A field that occurs once is a string, one that is repeated is a list of strings.

    Raises:
        MalformedRequest: the body is empty, not UTF-8, has more than 1,000 fields, or has NUL.
    """
    if not body.strip(b" \t\r\n"):
        raise MalformedRequest("body_empty")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("body_not_utf8", byte=error.start + 1) from None
    try:
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise MalformedRequest("form_not_utf8") from None
    except ValueError:
        raise MalformedRequest("form_too_long", limit=MAX_FIELDS) from None
    if any("\x00" in part for field in fields for part in field):
        raise MalformedRequest("form_nul")
    parsed: dict[str, list[str]] = {}
    for name, value in fields:
        parsed.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in parsed.items()}
