"""Ask the engine about callbacks whose instance its history does not have."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from flowhooks.clock import id_lower_bound
from flowhooks.errors import EngineError
from flowhooks.ledger import engine_book
from flowhooks.model.engine import FinishedInstance, InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.background.reconciliation.context import Lease, SourceContext

MAX_ASKED: Final = 100
"""Maximum number of callbacks of a round about which the engine is asked, because its history does not have them."""
MAX_READS: Final = 20
"""Maximum number of reads of a round that search for such callbacks; the next round continues."""
MAX_UNANSWERED: Final = 3
"""Maximum number of errors of the engine about such callbacks; then the next round asks again."""
MAX_REMEMBERED: Final = 1000
"""Maximum number of callbacks for running instances that are asked about again."""

log = structlog.get_logger(__name__)


class UnknownCallback(NamedTuple):
    """A callback whose instance the history does not have.

    Attributes:
        event_id: its event.
        instance_id: its process instance.
        received_at: when it was received, in microseconds since 1970.
    """

    event_id: str
    instance_id: str
    received_at: int


class CallbackAnswers(NamedTuple):
    """The answers of an engine about callbacks.

    Attributes:
        found: the instances that have ended.
        absent: the callbacks whose instance the engine does not know.
        until: an event id: the engine was asked about callbacks up to it.
    """

    found: Sequence[FinishedInstance]
    absent: Sequence[UnknownCallback]
    until: str


def ask_about_callbacks(context: SourceContext, lease: Lease, *, since: int, until: int) -> CallbackAnswers:
    """Ask the engine about callbacks that were received in an interval, and again about instances that were running.

    Args:
        context: the source; it remembers callbacks of running instances.
        lease: its lease, which slow answers must not outlast.
        since: microseconds since 1970.
        until: microseconds since 1970.
    """
    if context.asked_until > id_lower_bound(context.clock.now()):
        context.asked_until = ""  # by a clock that was ahead
    new, asked_until = _find_unknown(context, since=since, until=until)
    again = [UnknownCallback(event_id, *of) for event_id, of in islice(context.running.items(), MAX_ASKED - len(new))]
    found: list[FinishedInstance] = []
    absent: list[UnknownCallback] = []
    errors = 0
    for place, callback in enumerate((*new, *again), start=1):
        lease.renew_if_old()
        try:
            instance = context.client.instance(callback.instance_id)
        except EngineError as error:
            _report_unanswered(context, callback, error)
            instance = InstanceStatus.RUNNING  # so that it is asked about again
            errors += 1
        context.running.pop(callback.event_id, None)
        if instance is InstanceStatus.ABSENT:
            absent.append(callback)
        elif isinstance(instance, FinishedInstance):
            found.append(instance)
        elif len(context.running) < MAX_REMEMBERED:
            context.running[callback.event_id] = callback.instance_id, callback.received_at
        if errors == MAX_UNANSWERED:
            asked_until = callback.event_id if place < len(new) else asked_until
            break
    return CallbackAnswers(found, absent, asked_until)


def _find_unknown(context: SourceContext, *, since: int, until: int) -> tuple[list[UnknownCallback], str]:
    """Return callbacks whose instance the history does not have, and up to which event id they were searched."""
    found: list[UnknownCallback] = []
    after, end = max(context.asked_until, id_lower_bound(since)), id_lower_bound(until)
    for _ in range(MAX_READS):
        with context.ledger.connection() as connection:
            rows, last = engine_book.callbacks_without_row(
                connection, context.name, after=after, until=until, limit=MAX_ASKED - len(found)
            )
        found += [UnknownCallback(*row) for row in rows]
        after = last or max(after, end)
        if not last or len(found) == MAX_ASKED:
            break
    return found, after


def _report_unanswered(context: SourceContext, callback: UnknownCallback, error: EngineError) -> None:
    log.warning(
        "instance_not_read",
        source=context.name,
        flow_instance_id=callback.instance_id,
        why=error.why,
        next="a later round asks again whether the history has this instance",
    )
