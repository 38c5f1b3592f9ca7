"""Parse CloudEvents 1.0 (HTTP protocol binding) in the structured, the binary and the batch mode."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from flowhooks.errors import InvalidCallback, MalformedRequest
from flowhooks.schema.strict_json import MAX_DEPTH, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STRUCTURED: Final = "application/cloudevents+json"
"""Media type of an event in the structured mode."""
BATCH: Final = "application/cloudevents-batch+json"
"""Media type of a batch."""
MAX_BATCH: Final = 100
"""Maximum number of events in one batch."""
REQUIRED: Final = ("specversion", "id", "source", "type")
"""Attributes that each event must have. Each is a text that is not empty."""

_Violation: TypeAlias = tuple[str, str, dict[str, Any]]
_HEADER: Final = re.compile(r"HTTP_CE_([A-Z0-9]{1,100})")
"""A header of the binary mode, as WSGI names it. Names of attributes have only letters and digits."""
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
"""A quoted string (RFC 9110, section 5.6.4), as earlier versions of the binding allowed."""
_JSON: Final = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def is_binary(headers: Mapping[str, Any]) -> bool:
    """Return whether a request has an event in the binary mode, in which headers are the event's attributes."""
    return "HTTP_CE_SPECVERSION" in headers


def parse_structured(body: bytes) -> dict[str, Any]:
    """Parse an event in the structured mode.

    Returns:
        The event without nulls: its attributes, and its data under `data`. Data under `data_base64` is decoded if
        `datacontenttype` says that it is JSON; otherwise it stays as it is.

    Raises:
        MalformedRequest: the body, or the decoded data, is not strict JSON, or the body is not an object.
        InvalidCallback: a required attribute is missing or invalid, the data is not Base64, or there are two data.
    """
    event = parse(body)
    _complete(event, "")
    return event


def parse_batch(body: bytes) -> list[dict[str, Any]]:
    """Parse a batch of 1 to `MAX_BATCH` events.

    Returns:
        The events, each as `parse_structured` returns it.

    Raises:
        MalformedRequest: the body is not an array of objects, or as for `parse_structured`.
        InvalidCallback: the batch is empty or has too many events, or as for `parse_structured`. The pointers of the
            violations start with the index of the event.
    """
    events = parse(body, kind=list)
    if not 0 < len(events) <= MAX_BATCH:
        raise InvalidCallback("batch_size", count=len(events), limit=MAX_BATCH)
    if not all(isinstance(event, dict) for event in events):
        raise MalformedRequest("batch_not_objects")
    for index, event in enumerate(events):
        _complete(event, f"/{index}")
    return events


def parse_binary(headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Parse an event in the binary mode, whose data is JSON.

    Args:
        headers: the request's headers, as WSGI names them.
        body: the event's data as JSON; empty: the event has no data.

    Returns:
        The event, as `parse_structured` returns it. Its attributes are texts, and `datacontenttype` is the request's
        `Content-Type`.

    Raises:
        MalformedRequest: the body is not strict JSON, or a header is not percent-encoded UTF-8 or contains NUL.
        InvalidCallback: a required attribute is missing or empty.
    """
    event: dict[str, Any] = {
        match[1].lower(): _decode_header(str(value))
        for name, value in headers.items()
        if (match := _HEADER.fullmatch(name))
    }
    event.pop("data", None)  # no attribute may have this name: the body is the data
    if content_type := headers.get("CONTENT_TYPE"):
        event["datacontenttype"] = str(content_type)
    _add_data(event, body)
    _complete(event, "")
    return event


def _add_data(event: dict[str, Any], body: bytes) -> None:
    # The event around the data is a level, too.
    if body.strip(b" \t\r\n") and (data := parse(body, kind=object, max_depth=MAX_DEPTH - 1)) is not None:
        event["data"] = data


def _decode_header(value: str) -> str:
    if match := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", match[1])
    try:
        text = unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise MalformedRequest("cloudevent_header") from None
    if "\x00" in text:
        raise MalformedRequest("cloudevent_header")
    return text


def _complete(event: dict[str, Any], pointer: str) -> None:
    """Check an event at a pointer of the body, and decode its data if it is JSON in Base64."""
    if violations := list(_find_violations(event, pointer)):
        raise InvalidCallback("cloudevent_refused", violations)
    if "data_base64" not in event or not _is_json(event.get("datacontenttype")):
        return
    try:
        body = base64.b64decode(event["data_base64"], validate=True)
    except (TypeError, ValueError):  # not a string, not ASCII, or not Base64
        raise InvalidCallback("cloudevent_refused", [(f"{pointer}/data_base64", "cloudevent.not_base64", {})]) from None
    del event["data_base64"]
    _add_data(event, body)


def _find_violations(event: Mapping[str, Any], pointer: str) -> Iterator[_Violation]:
    for name in REQUIRED:
        value = event.get(name)
        if not isinstance(value, str) or not value:
            yield f"{pointer}/{name}", "cloudevent.no_text", {}
        elif name == "specversion" and value != "1.0":
            yield f"{pointer}/{name}", "cloudevent.version", {}
    if "data" in event and "data_base64" in event:
        yield f"{pointer}/data_base64", "cloudevent.two_data", {}


def _is_json(media_type: Any) -> bool:
    return isinstance(media_type, str) and _JSON.fullmatch(media_type) is not None
