"""The parser of forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    import falcon

MAX_FORM_BYTES: Final = 65_536
MAX_FIELDS: Final = 100


def parse_form(request: falcon.Request) -> dict[str, str]:
    """Return the fields of a form by name; `{}` if the body is not a form. The last field of a name counts.

    Raises:
        SettingsError: the form is too long or has too many fields.
    """
    return {name: values[-1] for name, values in parse_fields(request).items()}


def parse_fields(request: falcon.Request) -> dict[str, list[str]]:
    """Return all values of each field of a form by name; `{}` if the body is not a form.

    Raises:
        SettingsError: the form is too long or has too many fields.
    """
    if (request.content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    body = request.bounded_stream.read(MAX_FORM_BYTES + 1)
    if len(body) > MAX_FORM_BYTES:
        raise SettingsError("the form is too long")
    try:
        given = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:
        raise SettingsError("the form has too many fields") from None
    fields: dict[str, list[str]] = {}
    for name, value in given:
        fields.setdefault(name, []).append(value)
    return fields
