"""Encode error groups as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from flowhooks.clock import to_text
from flowhooks.operations.json.events import attempts_to_json

if TYPE_CHECKING:
    from flowhooks.operations.error_groups import ErrorGroupPage, ErrorGroupStatus, SampleAttempt
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.json.events import AttemptJson


class OpenDeliveriesJson(TypedDict):
    """Deliveries whose last attempt has the error, and that have not ended well.

    Attributes:
        dead: number of dead deliveries.
        waiting: number of deliveries that wait for another attempt.
        unknown: number of unknown deliveries.
    """

    dead: int
    waiting: int
    unknown: int


class ErrorGroupJson(TypedDict):
    """Failed attempts of one handler with the same error.

    Attributes:
        id: id of the group.
        handler: id of the handler.
        type: type of the exception; `Reject`, `Lost`, `Failed` (the handler was not entered), or `other` for the group
            of all further errors of a handler that has the maximum number of groups.
        message: message; ids, numbers, times, quoted values and addresses are replaced by `#`.
        frame: innermost frame of the plugin, FILE:FUNCTION; empty if there is none.
        first_seen_at: when the first of its attempts ended.
        last_seen_at: when the last of its attempts ended.
        count: number of its stored attempts.
        versions: versions of the plugin with which the error was seen.
        hours: number of attempts in each of the last 24 hours, the oldest hour first.
        open: deliveries that are still open.
        counted: number of the newest attempts from which hours and open were counted.
        complete: whether these are all attempts; otherwise the numbers of hours and open may be larger.
        damaged: which values are damaged in the database, so that others stand for them; empty: none.
    """

    id: str
    handler: str
    type: str
    message: str
    frame: str
    first_seen_at: TimestampJson
    last_seen_at: TimestampJson
    count: int
    versions: list[str]
    hours: list[int]
    open: OpenDeliveriesJson
    counted: int
    complete: bool
    damaged: str


class ErrorGroupsJson(TypedDict):
    """Error groups, the one seen last first.

    Attributes:
        errors: the groups.
        next: the value of `after` for the groups that follow; empty if there are none.
    """

    errors: list[ErrorGroupJson]
    next: str


class SampleAttemptJson(TypedDict):
    """The newest stored attempt of an error group.

    Attributes:
        event_id: id of its event.
        delivery_id: id of its delivery.
        attempt: the attempt.
    """

    event_id: str
    delivery_id: str
    attempt: AttemptJson


class WholeErrorGroupJson(ErrorGroupJson):
    """An error group with its newest attempt.

    Attributes:
        newest: its newest attempt with the traceback; null if none is stored any more.
    """

    newest: SampleAttemptJson | None


def error_group_to_json(status: ErrorGroupStatus) -> ErrorGroupJson:
    """Return an error group."""
    group, activity = status
    return {
        "id": group.fingerprint,
        "handler": group.handler,
        "type": group.error_type,
        "message": group.message,
        "frame": group.frame,
        "first_seen_at": to_text(group.first_seen_at),
        "last_seen_at": to_text(group.last_seen_at),
        "count": group.count,
        "versions": list(group.versions),
        "hours": list(activity.hours),
        "open": {"dead": activity.dead, "waiting": activity.waiting, "unknown": activity.unknown},
        "counted": activity.counted,
        "complete": activity.is_complete,
        "damaged": group.damage,
    }


def error_groups_to_json(page: ErrorGroupPage, skip: int) -> ErrorGroupsJson:
    """Return a page of error groups.

    Args:
        page: the page.
        skip: number of groups before it.
    """
    return {
        "errors": [error_group_to_json(status) for status in page.groups],
        "next": str(skip + len(page.groups)) if page.has_more else "",
    }


def whole_error_group_to_json(status: ErrorGroupStatus, newest: SampleAttempt | None) -> WholeErrorGroupJson:
    """Return an error group with its newest attempt."""
    return {
        **error_group_to_json(status),
        "newest": None
        if newest is None
        else {
            "event_id": newest.event_id,
            "delivery_id": newest.delivery_id,
            "attempt": attempts_to_json([newest.attempt])[0],
        },
    }
