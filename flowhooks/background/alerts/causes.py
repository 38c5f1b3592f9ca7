"""What a person should look at just now, and the sentence that says so; it must not know what was raised or told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import Cause
from flowhooks.background.alerts.routing_causes import RoutingCauses, names_of
from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, circuit_breaker
from flowhooks.model.alert import AlertCause
from flowhooks.model.delivery import State
from flowhooks.plugins.error_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import HandlerIssue, ParkedBacklog
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.settings import AlertsSettings

MOST_GROUPS: Final = 1_000
"""Classes and keys of parked events that are looked at: whoever calls back can make up as many as they like."""
OTHERS: Final = "(others)"
"""The subject of the one alert for all that would be too many."""

_TEXTS: Final[Mapping[AlertCause, str]] = {
    AlertCause.DEAD: (
        "{many} of handler {subject} {are} dead, the first since {since}: mend the cause, "
        "then run `flowhooks events replay --handler {quoted}`."
    ),
    AlertCause.UNKNOWN: (
        "{many} of handler {subject} {are} unknown, the first since {since}: find out what each of them did, "
        "then run `flowhooks events resolve`."
    ),
    AlertCause.WAITING: (
        "{many} of handler {subject} {have} not begun, and the first could have at {since}: "
        "`flowhooks events list --state running` shows what holds the threads."
    ),
    AlertCause.PARKED: (
        "{many} {are} parked for want of a handler for {subject}, the first since {since}: "
        "install a plugin that listens to it, or name the key in ignore.process_key."
    ),
    AlertCause.HELD: (
        "Handler {subject} is held since {since}, for it failed again and again ({why}), and {many} {have} to wait: "
        "mend the cause. It is tried now and then, and runs again when that succeeds, or by "
        "`flowhooks handlers resume {quoted}`."
    ),
    AlertCause.OVERDUE: (
        "{many} of handler {subject} {have} been running for too long, the first since {since}: a thread "
        "cannot be ended from outside. Find out what it waits for; what is run in a process of its own "
        '(isolation = "process") is ended in time.'
    ),
    AlertCause.QUARANTINED: (
        "Plugin {subject} cannot be used since {since}, and what its handlers would do waits: {why}. "
        "Mend it, and start the server again."
    ),
}
_SHELVED: Final = (
    "{many} of handler {subject} {are} kept for its plugin, which is not loaded, the first since {since}: "
    "mend the plugin or bring it back, and start the server again; `flowhooks check` says what is wrong."
)
_OTHERS: Final = (
    "{count:,} more alerts of the cause {cause} would be too many, and were not raised, since {since}: "
    "run `flowhooks check`."
)


class Causes:
    """Finds them.

    Args:
        settings: how long is too long.
        plugins: what is known of each plugin.
        timeout: seconds for which an attempt of a handler may run, by the handler's id.
        routing: finds the causes that routing has.
    """

    def __init__(
        self,
        settings: AlertsSettings,
        plugins: Sequence[PluginInfo],
        timeout: Callable[[str], float],
        routing: RoutingCauses,
    ) -> None:
        self._timeout = timeout
        self._routing = routing
        self._parked_after = int(settings.parked_after * SECOND)
        self._waiting_after = int(settings.waiting_after * SECOND)
        self._quarantined = [info for info in plugins if info.state == "quarantined"]

    def find(self, connection: Connection, now: int) -> tuple[dict[tuple[AlertCause, str], Cause], bool]:
        """Every cause that there is, by its key; and whether all classes and keys of parked events were looked at.

        Args:
            connection: reads one moment's state.
            now: microseconds since 1970.
        """
        found: dict[tuple[AlertCause, str], Cause] = {}
        groups, complete = alert_queries.parked_backlogs(connection, now - self._parked_after, limit=MOST_GROUPS)
        for one in (
            *self._routing.find(connection, now),
            *_failed(connection),
            *_waiting(connection, now - self._waiting_after, self._routing.loaded),
            *_held(connection),
            *self._overdue(connection, now),
            *(_parked(group, now - self._parked_after) for group in groups),
            *(_quarantined(info, now) for info in self._quarantined),
        ):
            found.setdefault(one.key, one)
        return found, complete

    def _overdue(self, connection: Connection, now: int) -> Iterator[Cause]:
        late: dict[str, list[HandlerIssue]] = {}
        for one in alert_queries.running(connection):
            if one.since + int(self._timeout(one.handler) * SECOND) < now:
                late.setdefault(one.handler, []).append(one)
        for several in late.values():
            first = min(several, key=lambda one: one.since)
            yield _of_handler(AlertCause.OVERDUE, first, partial(_so_many, several), _TEXTS[AlertCause.OVERDUE])


def _so_many(several: Sequence[HandlerIssue], _connection: Connection) -> int:
    return len(several)


def _held(connection: Connection) -> Iterator[Cause]:
    for handler, one in circuit_breaker.open_circuits(connection).items():
        yield Cause(
            cause=AlertCause.HELD,
            subject=handler,
            since=one.since,
            count=partial(alert_queries.count_waiting, handler=handler),
            text=_TEXTS[AlertCause.HELD],
            why=printable(one.why),
        )


def others(cause: AlertCause, several: Sequence[Cause]) -> Cause:
    """The one cause that stands for several of the same kind."""
    return Cause(
        cause=cause,
        subject=OTHERS,
        since=min(one.since for one in several),
        count=lambda _: len(several),
        event_id=several[0].event_id,
        text=_OTHERS,
    )


def _failed(connection: Connection) -> Iterator[Cause]:
    for cause, state in ((AlertCause.DEAD, State.DEAD), (AlertCause.UNKNOWN, State.UNKNOWN)):
        for one in alert_queries.failed(connection, state):
            count = partial(alert_queries.count_failed, state=state, handler=one.handler)
            latest = partial(alert_queries.latest_failed, state=state, handler=one.handler)
            yield replace(_of_handler(cause, one, count, _TEXTS[cause]), latest=latest)


def _waiting(connection: Connection, before: int, loaded: Collection[str]) -> Iterator[Cause]:
    for one in alert_queries.missing_handlers(connection, before):
        if one.handler in loaded:
            continue  # it waits for a decision, of which `RoutingCauses` tells at once
        count = partial(alert_queries.count_missing_handler, handler=one.handler)
        yield _of_handler(AlertCause.WAITING, one, count, _SHELVED)
    for one in alert_queries.overdue(connection, before):
        count = partial(alert_queries.count_overdue, before=before, handler=one.handler)
        yield _of_handler(AlertCause.WAITING, one, count, _TEXTS[AlertCause.WAITING])


def _of_handler(cause: AlertCause, one: HandlerIssue, count: Callable[[Connection], int], text: str) -> Cause:
    return Cause(cause=cause, subject=one.handler, since=one.since, count=count, event_id=one.event_id, text=text)


def _parked(group: ParkedBacklog, before: int) -> Cause:
    key = group.process_key
    return Cause(
        cause=AlertCause.PARKED,
        subject=names_of(group.callback_class, group.process_key),
        since=group.since,
        count=partial(alert_queries.count_parked, before=before, callback_class=group.callback_class, process_key=key),
        latest=partial(
            alert_queries.latest_parked, before=before, callback_class=group.callback_class, process_key=key
        ),
        event_id=group.event_id,
        nouns=("event", "events"),
        text=_TEXTS[AlertCause.PARKED],
    )


def _quarantined(info: PluginInfo, now: int) -> Cause:
    return Cause(
        cause=AlertCause.QUARANTINED,
        subject=printable(info.name),
        since=now,
        count=lambda _: 1,
        text=_TEXTS[AlertCause.QUARANTINED],
        why=printable(info.error),
    )
