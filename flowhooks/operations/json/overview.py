"""Encode what the overview names as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.operations.json.encoding import TimestampJson


class LastingConditionJson(TypedDict):
    """An open alert about a condition that lasts, such as a silent source or a full disk.

    Attributes:
        alert: the id of the alert.
        cause: the cause of the alert.
        subject: the subject of the alert, such as the name of the source.
        message: one sentence.
        since: the time since which the condition has existed.
        acknowledged_by: the operator who acknowledged the alert; null: nobody has acknowledged it.
    """

    alert: str
    cause: str
    subject: str
    message: str
    since: TimestampJson
    acknowledged_by: str | None


def condition_to_json(alert: OpenAlert) -> LastingConditionJson:
    """Return an open alert about a condition that lasts."""
    return {
        "alert": alert.id,
        "cause": alert.cause.value,
        "subject": alert.subject,
        "message": alert.message,
        "since": to_text(alert.started_at),
        "acknowledged_by": None if alert.acknowledged_at is None else alert.acknowledged_by,
    }
