"""Arguments and results of a receiver: the plugin of a source whose requests the settings cannot map."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_RULE_CHARS: Final = 100
"""Maximum length of the name of an ignore rule. A longer one is cut."""
DEFAULT_RULE: Final = "answered by the receiver"
"""Name of the rule of a response that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request to the fixed URL of a source, before it is authenticated.

    Attributes:
        method: `"GET"` or `"POST"`.
        query: the parameters of the query, each with all its values, percent-decoded.
        headers: the headers, by their names in lower case. Values of repeated headers are joined by a comma.
        body: the body as received, at most as long as the settings allow; empty for GET.
        received_at: the server's time; an aware time in UTC.
    """

    method: str
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverResponse:
    """A response of a receiver.

    As the result of the hook it means: nothing is stored. A status below 300 is counted as ignored, under `rule`.

    Attributes:
        status: 200 to 299, 400, 401, 403, 413, 415, 422, 429 or 503. The sender may send the request again after 429
            and 503.
        body: the body, in UTF-8 if it is text.
        media_type: the value of `Content-Type`.
        rule: the name of the rule by which nothing is stored, such as `"challenge"` or `"status PENDING"`, for the
            counts that operators see. At most 100 characters. A receiver should have few different names.
    """

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json; charset=utf-8"
    rule: str = DEFAULT_RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCallback:
    """A callback that a receiver has authenticated and read.

    Attributes:
        flow_instance_id: the process instance id, as in the path of a callback.
        data: the callback's data, as in the body of a callback; JSON values. Members that are None are absent. It is
            checked against the schema of its kind.
        kind: the kind of callback, such as `"complete"`.
        response: the response, with a status below 300, once the callback is stored; None: the `answer` of the source's
            settings.
    """

    flow_instance_id: str
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    kind: str = "complete"
    response: ReceiverResponse | None = None
