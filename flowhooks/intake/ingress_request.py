"""Decode a request to the fixed URL of a source into the objects that the mapping of its settings reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import UnsupportedMedia
from flowhooks.schema import cloud_events, strict_json
from flowhooks.schema.form import parse_form
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import IngressSettings

MAX_SHOWN_CHARS: Final = 100
"""Maximum number of characters of a `Content-Type` in an error message."""
FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = re.compile(r"application/(?:json|[!#$%&'*+\-.^_`|~0-9a-z]+\+json)", re.ASCII)
_EXPECTED: Final = {
    "json": "application/json",
    "form": FORM,
    "cloudevent": f"{cloud_events.STRUCTURED}, {cloud_events.BATCH}, or application/json with ce- headers",
}
"""The media types of each format, for error messages."""


def is_batch(ingress: IngressSettings, content_type: str | None) -> bool:
    """Return whether a request is a batch of CloudEvents.

    Args:
        ingress: the mapping; one without a receiver.
        content_type: the `Content-Type` header, or None.
    """
    return ingress.format == "cloudevent" and _media_type(content_type) == cloud_events.BATCH


def is_binary(ingress: IngressSettings, content_type: str | None) -> bool:
    """Return whether a request with an allowed media type is a CloudEvent whose attributes are headers.

    Args:
        ingress: the mapping; one without a receiver.
        content_type: the `Content-Type` header, or None.
    """
    modes_in_body = {cloud_events.STRUCTURED, cloud_events.BATCH}
    return ingress.format == "cloudevent" and _media_type(content_type) not in modes_in_body


def check_media_type(ingress: IngressSettings, content_type: str | None, headers: Mapping[str, Any]) -> None:
    """Check that a body has, by its headers, the format of the source, in UTF-8. A missing type is that format.

    Args:
        ingress: the mapping; one without a receiver.
        content_type: the `Content-Type` header, or None.
        headers: the request's headers, as WSGI names them.

    Raises:
        UnsupportedMedia: the headers state another type or charset.
    """
    if not (_has_format(ingress, _media_type(content_type), headers) and _is_utf8(content_type)):
        raise UnsupportedMedia(
            "ingress_media_type",
            given=escape_control(content_type or "(none)", MAX_SHOWN_CHARS),
            expected=_EXPECTED[ingress.format or "json"],
        )


def decode(
    ingress: IngressSettings, *, body: bytes, content_type: str | None, headers: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Decode a request that `check_media_type` has accepted.

    Args:
        ingress: the mapping; one without a receiver.
        body: the body as received.
        content_type: the `Content-Type` header, or None.
        headers: the request's headers, as WSGI names them.

    Returns:
        The objects of a batch, or the one object of any other request: without nulls, and as every database can store
        them. A CloudEvent has its attributes, and its data under `data`.

    Raises:
        MalformedRequest: the body does not have the format that the headers state.
        InvalidCallback: a CloudEvent lacks a required attribute, or a batch has none or too many events.
    """
    if ingress.format == "form":
        return [parse_form(body)]
    if ingress.format == "json":
        return [strict_json.parse(body)]
    media_type = _media_type(content_type)
    if media_type == cloud_events.BATCH:
        return cloud_events.parse_batch(body)
    if media_type == cloud_events.STRUCTURED:
        return [cloud_events.parse_structured(body)]
    return [cloud_events.parse_binary(headers, body)]


def _has_format(ingress: IngressSettings, media_type: str, headers: Mapping[str, Any]) -> bool:
    if ingress.format == "form":
        return media_type in {"", FORM}
    is_json = not media_type or _JSON.fullmatch(media_type) is not None
    if ingress.format == "json":
        return is_json
    if media_type in {cloud_events.STRUCTURED, cloud_events.BATCH}:
        return True
    return is_json and cloud_events.is_binary(headers)


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _is_utf8(content_type: str | None) -> bool:
    parameters = (part.strip().lower().partition("=") for part in (content_type or "").split(";")[1:])
    charsets = [value.strip().strip('"') for name, _, value in parameters if name.strip() == "charset"]
    return all(charset in {"utf-8", "utf8"} for charset in charsets)
