"""Call the receivers: the plugins that authenticate and read the requests to the fixed URLs of sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flowhooks import schema
from flowhooks.errors import MalformedRequest
from flowhooks.model.receiver import DEFAULT_RULE, MAX_RULE_CHARS, ReceivedCallback, ReceiverResponse
from flowhooks.schema import strict_json
from flowhooks.text import printable_line, truncate

if TYPE_CHECKING:
    from pluggy import HookCaller

    from flowhooks.model.receiver import ReceivedRequest

SUCCESS_STATUSES: Final = range(200, 300)
ERROR_STATUSES: Final = frozenset({400, 401, 403, 413, 415, 422, 429, 503})
"""Statuses of errors that a receiver may respond with."""
BODILESS_STATUSES: Final = frozenset({204, 205})
"""Statuses whose response has no body (RFC 9110)."""


class Receivers:
    """The loaded plugins that implement `receive_request`.

    Args:
        callers: the caller of each plugin's implementation only, by the plugin's name.

    Attributes:
        names: the names of these plugins.
    """

    def __init__(self, callers: Mapping[str, HookCaller]) -> None:
        self._callers = callers
        self.names = frozenset(callers)

    def call(self, plugin: str, source: str, request: ReceivedRequest) -> ReceivedCallback | ReceiverResponse | None:
        """Call the receiver and check its result.

        Args:
            plugin: the name of a plugin; one of `names`.
            source: the name of the source.
            request: the request.

        Returns:
            The result of the plugin. The data of a callback is a copy that every database can store, without members
            that are null, as that of a callback's body. The name of a rule is one printable line of at most 100
            characters. None: the credential is missing or invalid.

        Raises:
            MalformedRequest: the data of the callback has what no body of a callback may have, such as the character
                NUL, a number that is not finite, or 65 levels of nesting. The sender wrote it, so it is an error of
                the request.
            TypeError: the result, or a value in it, has a wrong type.
            ValueError: a response has a status or a media type that is not allowed, or a callback was made of a GET.
            BaseException: raised by the plugin.
        """
        result = self._callers[plugin](source=source, request=request)
        if result is None:
            return None
        if isinstance(result, ReceiverResponse):
            return _checked_response(result)
        if not isinstance(result, ReceivedCallback):
            allowed = "a ReceivedCallback, a ReceiverResponse or None"
            raise _wrong_type("receive_request() returned a value", result, allowed)
        if request.method == "GET":
            raise ValueError("receive_request() returned a ReceivedCallback for a GET, which stores nothing")
        _expect(result.flow_instance_id, str, "flow_instance_id is", "a str")
        _expect(result.kind, str, "kind is", "a str")
        _expect(result.data, Mapping, "data is", "a mapping")
        if result.response is not None:
            _expect(result.response, ReceiverResponse, "response is", "a ReceiverResponse or None")
            _checked_response(result.response)
            if result.response.status not in SUCCESS_STATUSES:
                raise ValueError(f"the response to a callback that is stored has the status {result.response.status}")
        return replace(result, data=_storable(result.data))


def _expect(value: Any, expected: type, what: str, allowed: str) -> None:
    if not isinstance(value, expected) or isinstance(value, bool):
        raise _wrong_type(what, value, allowed)


def _wrong_type(what: str, value: object, allowed: str) -> TypeError:
    # The type only: the value may contain what the sender wrote.
    return TypeError(f"{what} of the type {type(value).__name__}, not {allowed}")


def _checked_response(response: ReceiverResponse) -> ReceiverResponse:
    _expect(response.status, int, "status is", "an int")
    _expect(response.body, bytes, "body is", "bytes")
    _expect(response.media_type, str, "media_type is", "a str")
    _expect(response.rule, str, "rule is", "a str")
    if response.status not in SUCCESS_STATUSES and response.status not in ERROR_STATUSES:
        errors = ", ".join(map(str, sorted(ERROR_STATUSES)))
        raise ValueError(f"the status is {response.status}; a receiver may respond with 200 to 299, {errors}")
    if response.status in BODILESS_STATUSES and response.body:
        raise ValueError(f"a response with the status {response.status} has no body")
    if not (response.media_type.isascii() and response.media_type.isprintable() and response.media_type.strip()):
        raise ValueError("media_type is no value of Content-Type")
    rule = truncate(printable_line(response.rule), MAX_RULE_CHARS) or DEFAULT_RULE
    return replace(response, rule=rule)


def _storable(data: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(data))
    except RecursionError:
        raise MalformedRequest("body_too_deep", limit=strict_json.MAX_DEPTH) from None
    return schema.parse_callback(text.encode())
