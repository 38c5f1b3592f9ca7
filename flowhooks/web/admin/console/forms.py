"""What a page's form sends; it must not know what is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

LARGEST: Final = 65_536
MOST_FIELDS: Final = 200


def fields(request: falcon.Request) -> Mapping[str, str]:
    """The fields of a form by name, of several of one name the last; empty if the body is no form, or too large."""
    if (request.content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    body = request.bounded_stream.read(LARGEST + 1)
    if len(body) > LARGEST:
        return {}
    try:
        found = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, encoding="utf-8", errors="replace"
        )
    except ValueError:
        return {}
    return dict(found)
