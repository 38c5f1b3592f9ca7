"""Parse CloudEvents 1.0 (HTTP protocol binding): in the structured, the binary and the batch mode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from flowhooks.errors import InvalidCallback, MalformedRequest
from flowhooks.schema.strict_json import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_BATCH: Final = 100
"""Maximum number of events in one batch."""
REQUIRED: Final = ("specversion", "id", "source", "type")
"""Attributes that each event must have; texts that are not empty."""

_HEADER: Final = re.compile(r"HTTP_CE_([A-Z0-9]{1,100})")
"""A header of the binary mode, as WSGI names it. Attribute names have only letters and digits."""


def is_binary(headers: Mapping[str, Any]) -> bool:
    """Return whether a request has an event in the binary mode: its attributes are headers."""
    return "HTTP_CE_SPECVERSION" in headers


def parse_structured(body: bytes) -> dict[str, Any]:
    """Parse an event in the structured mode.

    Returns:
        The event: its attributes, and its data under `data` or `data_base64`.

    Raises:
        MalformedRequest: the body is not a JSON object.
        InvalidCallback: a required attribute is missing or invalid.
    """
    event = parse(body)
    _check_attributes(event)
    return event


def parse_batch(body: bytes) -> list[dict[str, Any]]:
    """Parse a batch of at most `MAX_BATCH` events.

    Raises:
        MalformedRequest: the body is not a JSON array of objects.
        InvalidCallback: the batch has too many events or none, or a required attribute is missing or invalid.
    """
    events = parse(body, kind=list)
    if not events or len(events) > MAX_BATCH:
        raise InvalidCallback("batch_size", count=len(events), limit=MAX_BATCH)
    if not all(isinstance(event, dict) for event in events):
        raise MalformedRequest("batch_not_objects")
    for event in events:
        _check_attributes(event)
    return events


def parse_binary(headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Parse an event in the binary mode, as `parse_structured` would return it.

    Args:
        headers: the request's headers, as WSGI names them.
        body: the event's data: a JSON object, or empty.

    Raises:
        MalformedRequest: the body is not a JSON object, or a header is not percent-encoded UTF-8.
        InvalidCallback: a required attribute is missing or invalid.
    """
    event: dict[str, Any] = {
        match[1].lower(): _decode_header(str(value))
        for name, value in headers.items()
        if (match := _HEADER.fullmatch(name))
    }
    event.pop("data", None)  # no attribute: the body is the data
    if content_type := headers.get("CONTENT_TYPE"):
        event["datacontenttype"] = str(content_type)
    if body.strip(b" \t\r\n"):
        event["data"] = parse(body)
    _check_attributes(event)
    return event


def _decode_header(value: str) -> str:
    try:
        text = unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise MalformedRequest("cloudevent_header") from None
    if "\x00" in text:
        raise MalformedRequest("cloudevent_header")
    return text


def _check_attributes(event: Mapping[str, Any]) -> None:
    for name in REQUIRED:
        value = event.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidCallback("cloudevent_attribute", name=name)
    if not event["specversion"].startswith("1."):
        raise InvalidCallback("cloudevent_version")
