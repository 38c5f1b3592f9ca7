"""Callbacks, as they are handed to the intake, and the answers that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flowhooks.model.event import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.event import ParkedBy


class AnswerStatus(StrEnum):
    """The status of an answer, the most severe first."""

    DEAD = "dead"
    PARKED = "parked"
    PENDING = "pending"
    DONE = "done"


class Callback(NamedTuple):
    """A validated callback, or a finished instance as the callback that it becomes.

    Attributes:
        source: the engine that sent it.
        kind: the kind of callback.
        flow_instance_id: the process instance id from the path.
        body: the JSON object without nulls.
        text: the body as received; of a request to a fixed URL: `body` as JSON.
        webhook_id: the webhook id of a signed callback; None if it is not signed.
        origin: `"callback"`, `"ingress"` for a request to the fixed URL of a source, or `"reconciled"` for an instance
            from the engine's history.
        started_at: when that instance started, in microseconds since 1970 by our clock: the engine's time, corrected by
            its skew; None: not known.
        ended_at: when it ended, likewise.
        end_undecided: whether the history does not tell how that instance ended, so that its event is parked.
        raw_body: the body as received, of a request to a fixed URL; otherwise None.
        media_type: the `Content-Type` of `raw_body`, or None.
        webhook_digest: as of `NewEvent`.
        traceparent: the `traceparent` of W3C Trace Context, already validated; None: none.
    """

    source: str
    kind: str
    flow_instance_id: str
    body: Mapping[str, Any]
    text: str
    webhook_id: str | None = None
    origin: str = Origin.CALLBACK.value
    started_at: int | None = None
    ended_at: int | None = None
    end_undecided: bool = False
    raw_body: str | None = None
    media_type: str | None = None
    webhook_digest: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """The result of taking in a finished instance.

    Attributes:
        event_id: the event of the instance: the stored one, an earlier one, or the purged one.
        disposition: `"has_event"`, or `"purged"` if only the identity of its event is left.
        new: whether the event was stored now.
        reused_id: whether the event was stored although an earlier instance with the same id has an event.
    """

    event_id: str
    disposition: Literal["has_event", "purged"]
    new: bool
    reused_id: bool


class Answer(NamedTuple):
    """The answer for the engine.

    Attributes:
        event_id: the stored event.
        status: dead if any delivery is dead; otherwise parked if the event is; otherwise pending if any delivery is
            unfinished; otherwise done.
        delivery_statuses: the status of each delivery.
        parked_by: why the event is parked; None if it is not.
        undecided: the member that an undecided condition reads, if the event is parked because of it; otherwise `""`.
    """

    event_id: str
    status: AnswerStatus
    delivery_statuses: tuple[DeliveryStatus, ...]
    parked_by: ParkedBy | None = None
    undecided: str = ""
