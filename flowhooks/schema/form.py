"""Parse a form (application/x-www-form-urlencoded) into an object that every database can store."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from flowhooks.errors import MalformedRequest

MAX_FIELDS: Final = 1000
"""Maximum number of fields of a form."""


def parse_form(body: bytes) -> dict[str, Any]:
    """Parse a form by the URL Standard of WHATWG, and refuse what is not UTF-8 instead of replacing it.

    Args:
        body: the bytes as received.

    Returns:
        The values of the fields by their names: a string, or a list of strings if the field is repeated. A field
        without `=` is empty.

    Raises:
        MalformedRequest: the body is empty or not UTF-8, starts with a byte order mark, or has more than 1,000 fields,
            or a field is not percent-encoded UTF-8 or contains NUL.
    """
    if not body.strip(b" \t\r\n"):
        raise MalformedRequest("form_empty")
    if body.startswith(b"\xef\xbb\xbf"):
        raise MalformedRequest("body_bom")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("body_not_utf8", byte=error.start + 1) from None
    fields = [field for field in body.split(b"&") if field]
    if len(fields) > MAX_FIELDS:
        raise MalformedRequest("form_too_long", limit=MAX_FIELDS)
    values: dict[str, list[str]] = {}
    for field in fields:
        name, _, value = field.partition(b"=")
        values.setdefault(_decode(name), []).append(_decode(value))
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in values.items()}


def _decode(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise MalformedRequest("form_not_utf8") from None
    if "\x00" in text:
        raise MalformedRequest("form_nul")
    return text
