"""Find the causes of alerts in the ledger, with their messages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import Cause, MessageTemplate
from flowhooks.background.alerts.routing_causes import RoutingCauseFinder, describe_names
from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, circuit_state, undecided_ends
from flowhooks.ledger.alert_queries import LatestOccurrence
from flowhooks.model.alert import AlertCause
from flowhooks.model.delivery import State
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.background.alerts.engine_causes import EngineCauseFinder
    from flowhooks.background.alerts.maintenance_causes import MaintenanceCauseFinder
    from flowhooks.ledger.alert_queries import HandlerIssue, ParkedBacklog
    from flowhooks.ledger.undecided_ends import UndecidedEnds
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.settings import AlertsSettings

MAX_PARKED_GROUPS: Final = 1_000
"""Maximum number of classes and keys of parked events that one poll reads, because clients can send any number."""
OTHERS_SUBJECT: Final = "(others)"
"""Subject of the alert that stands for those above the maximum."""

UNDECIDED_ENDS: Final = MessageTemplate(
    "{many} of {subject} {are} parked until an operator decides, the first since {since}: the engine's history does "
    "not tell how the instance ended, or an earlier instance had its id. `flowhooks events show {why}` shows the last "
    "one. Find out in the engine, then run `flowhooks events reroute ID` if the instance completed, or "
    "`flowhooks events dismiss ID`.",
    ("event", "events"),
)
"""Advice about parked events that no installed handler can take."""
MESSAGES: Final[Mapping[AlertCause, MessageTemplate]] = {
    AlertCause.DEAD: MessageTemplate(
        "{many} of handler {subject} {are} dead, the first since {since}. Fix the cause, "
        "then run `flowhooks events replay --handler {quoted}`."
    ),
    AlertCause.UNKNOWN: MessageTemplate(
        "{many} of handler {subject} {are} unknown, the first since {since}. Find out whether each of them did its "
        "work, then run `flowhooks events resolve`."
    ),
    AlertCause.WAITING: MessageTemplate(
        "{many} of handler {subject} {have} not started, the first was due at {since}. "
        "`flowhooks events list --state running` shows which deliveries occupy the threads. On PostgreSQL, "
        "`flowhooks check` shows whether a running process has loaded the handler."
    ),
    AlertCause.PARKED: MessageTemplate(
        "{many} {are} parked because no handler matches {subject}, the first since {since}. "
        "Install a plugin that listens to it, or add the key to routing.ignore_process_keys.",
        ("event", "events"),
    ),
    AlertCause.CIRCUIT_OPEN: MessageTemplate(
        "The circuit breaker of handler {subject} is open since {since} because its last attempts failed ({why}), and "
        "{many} {have} to wait. Fix the cause. One delivery is tried periodically. The circuit breaker closes when it "
        "succeeds, or when you run `flowhooks handlers resume {quoted}`."
    ),
    AlertCause.OVERDUE: MessageTemplate(
        "{many} of handler {subject} {have} been running for longer than the timeout, the first since {since}. A "
        "thread cannot be stopped. Find out what the handler waits for. In a process of its own "
        '(isolation = "process"), an attempt is ended at its timeout.'
    ),
    AlertCause.QUARANTINED: MessageTemplate(
        "Plugin {subject} cannot be used since {since}, and deliveries to its handlers wait: {why}. "
        "Fix the plugin, then restart the server."
    ),
}
"""The message of each cause. Causes in routing have theirs in `routing_causes`, those in engines in `engine_causes`."""
SUSPENDED: Final = MessageTemplate(
    "{many} of handler {subject} {are} waiting for its plugin, which is not loaded, the first since {since}. "
    "Fix or reinstall the plugin, then restart the server. `flowhooks check` shows what is wrong."
)
OTHERS: Final = MessageTemplate(
    "{count:,} more alerts of the cause {cause} exceed the maximum number and were not raised, the first since "
    "{since}. Run `flowhooks check`."
)


class CauseFinder:
    """Finds the causes of alerts.

    Args:
        settings: the times after which parked events and waiting deliveries are causes.
        plugins: the state of each plugin.
        timeout: seconds after which an attempt of a handler id is overdue.
        routing: finds the causes in routing.
        engines: finds the causes in engines and sources.
        maintenance: finds the causes in the installation.
    """

    def __init__(
        self,
        settings: AlertsSettings,
        plugins: Sequence[PluginInfo],
        timeout: Callable[[str], float],
        *,
        routing: RoutingCauseFinder,
        engines: EngineCauseFinder,
        maintenance: MaintenanceCauseFinder,
    ) -> None:
        self._maintenance = maintenance
        self._timeout = timeout
        self._routing = routing
        self._engines = engines
        self._parked_after = int(settings.parked_after * SECOND)
        self._waiting_after = int(settings.waiting_after * SECOND)
        self._quarantined = [info for info in plugins if info.state == "quarantined"]

    def find(self, connection: Connection, now: int) -> tuple[dict[tuple[AlertCause, str], Cause], bool]:
        """Return every cause by its key, and whether all classes and keys of parked events were read.

        Args:
            connection: reads a consistent snapshot.
            now: microseconds since 1970.
        """
        causes: dict[tuple[AlertCause, str], Cause] = {}
        before = now - self._parked_after
        groups, complete = alert_queries.parked_backlogs(connection, before, limit=MAX_PARKED_GROUPS)
        for cause in (
            *self._routing.find(connection, now),
            *self._engines.find(connection, now),
            *self._maintenance.find(connection, now),
            *_failed(connection),
            *_waiting(connection, now - self._waiting_after, self._routing.loaded),
            *_open_circuits(connection),
            *self._overdue(connection, now),
            *(_parked(group, before) for group in groups),
            *(_undecided_ends(ends, before) for ends in undecided_ends.find_undecided_ends(connection, before)),
            *(_quarantined(info, now) for info in self._quarantined),
        ):
            causes.setdefault(cause.key, cause)
        return causes, complete

    def _overdue(self, connection: Connection, now: int) -> Iterator[Cause]:
        overdue: dict[str, list[HandlerIssue]] = {}
        for attempt in alert_queries.running(connection):
            if attempt.since + int(self._timeout(attempt.handler) * SECOND) < now:
                overdue.setdefault(attempt.handler, []).append(attempt)
        for attempts in overdue.values():
            first = min(attempts, key=lambda attempt: attempt.since)
            yield _of_handler(
                AlertCause.OVERDUE, first, partial(_count_attempts, attempts), MESSAGES[AlertCause.OVERDUE]
            )


def _count_attempts(attempts: Sequence[HandlerIssue], _connection: Connection) -> int:
    return len(attempts)


def _open_circuits(connection: Connection) -> Iterator[Cause]:
    for handler, circuit in circuit_state.open_circuits(connection).items():
        yield Cause(
            cause=AlertCause.CIRCUIT_OPEN,
            subject=handler,
            since=circuit.opened_at,
            count=partial(alert_queries.count_waiting, handler=handler),
            template=MESSAGES[AlertCause.CIRCUIT_OPEN],
            why=printable_line(circuit.reason),
        )


def merge_causes(cause: AlertCause, merged: Sequence[Cause]) -> Cause:
    """Return one cause that stands for several causes of the same kind."""
    return Cause(
        cause=cause,
        subject=OTHERS_SUBJECT,
        since=min(single.since for single in merged),
        count=lambda _: len(merged),
        event_id=merged[0].event_id,
        template=OTHERS,
    )


def _failed(connection: Connection) -> Iterator[Cause]:
    for cause, state in ((AlertCause.DEAD, State.DEAD), (AlertCause.UNKNOWN, State.UNKNOWN)):
        for issue in alert_queries.failed(connection, state):
            count = partial(alert_queries.count_failed, state=state, handler=issue.handler)
            latest = partial(alert_queries.latest_failed, state=state, handler=issue.handler)
            yield replace(_of_handler(cause, issue, count, MESSAGES[cause]), latest=latest)


def _waiting(connection: Connection, before: int, loaded: Collection[str]) -> Iterator[Cause]:
    for issue in alert_queries.missing_handlers(connection, before):
        if issue.handler in loaded:
            continue  # its condition is undecided, which `RoutingCauseFinder` reports at once
        count = partial(alert_queries.count_missing_handler, handler=issue.handler)
        yield _of_handler(AlertCause.WAITING, issue, count, SUSPENDED)
    for issue in alert_queries.overdue(connection, before):
        count = partial(alert_queries.count_overdue, before=before, handler=issue.handler)
        yield _of_handler(AlertCause.WAITING, issue, count, MESSAGES[AlertCause.WAITING])


def _of_handler(
    cause: AlertCause, issue: HandlerIssue, count: Callable[[Connection], int], template: MessageTemplate
) -> Cause:
    return Cause(
        cause=cause, subject=issue.handler, since=issue.since, count=count, event_id=issue.event_id, template=template
    )


def _parked(group: ParkedBacklog, before: int) -> Cause:
    key = group.process_key
    return Cause(
        cause=AlertCause.PARKED,
        subject=describe_names(group.callback_class, group.process_key),
        since=group.since,
        count=partial(alert_queries.count_parked, before=before, callback_class=group.callback_class, process_key=key),
        latest=partial(
            alert_queries.latest_parked, before=before, callback_class=group.callback_class, process_key=key
        ),
        event_id=group.event_id,
        template=MESSAGES[AlertCause.PARKED],
    )


def _undecided_ends(ends: UndecidedEnds, before: int) -> Cause:
    return Cause(
        cause=AlertCause.PARKED,
        subject=f"source {ends.source}",
        since=ends.since,
        count=partial(undecided_ends.count_undecided_ends, before=before, source=ends.source),
        latest=lambda _: LatestOccurrence(ends.last_at),
        event_id=ends.event_id,
        template=UNDECIDED_ENDS,
        why=ends.event_id,
    )


def _quarantined(info: PluginInfo, now: int) -> Cause:
    return Cause(
        cause=AlertCause.QUARANTINED,
        subject=printable_line(info.name),
        since=now,
        count=lambda _: 1,
        template=MESSAGES[AlertCause.QUARANTINED],
        why=printable_line(info.error),
    )
