"""What a page's form sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

MAX_FORM_BYTES: Final = 65_536
MAX_FIELDS: Final = 200


def parse_form(request: falcon.Request) -> Mapping[str, str]:
    """The fields of a form by name, of several of one name the last; empty if the body is no form, or too large."""
    if (request.content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    body = request.bounded_stream.read(MAX_FORM_BYTES + 1)
    if len(body) > MAX_FORM_BYTES:
        return {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, encoding="utf-8", errors="replace"
        )
    except ValueError:
        return {}
    return dict(pairs)
