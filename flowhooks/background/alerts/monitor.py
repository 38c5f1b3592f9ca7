"""Raises an alert once for each cause, durably, and tells whoever listens, again when it has grown.

All of it is found by looking: what one process did not come to, its next look does, or the next process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import structlog

from flowhooks.background.alerts.causes import OTHERS, Causes, others
from flowhooks.background.alerts.growth import has_grown
from flowhooks.background.alerts.notifier import Telling
from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import alert_queries
from flowhooks.ledger.alert_queries import OpenAlert
from flowhooks.messages import shown
from flowhooks.model.alert import Alert, AlertCause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.background.alerts.cause import Cause
    from flowhooks.background.alerts.routing_causes import RoutingCauses
    from flowhooks.clock import Clock
    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import AlertsSettings

MOST_OPEN: Final = 100
"""Open alerts of one cause at the most; one more stands for all others, so that nobody gets ten thousand mails."""
AGAIN_AFTER: Final = (30, 60, 120, 300, 600)
"""Seconds for which a listener that raised is left alone, the last one again and again: a mail server that is down is
not to be hammered, nor the log filled."""
FIRST_LOOK: Final = 1.0
"""Seconds after the start: a look is not to make the start slower."""
NOT_MORE_THAN: Final = 0.1
"""The part of the time that looking may take, however much there is to look at."""
LONGEST_ERROR: Final = 500
"""Characters of the last error that an alert keeps: mails and chats cut it shorter still."""
TELL_FOR: Final = 20.0
"""Seconds of one look for telling; the next look goes on with it, so that what is new is logged meanwhile."""

_FAILURES: Final = frozenset({AlertCause.HELD, AlertCause.QUARANTINED})
"""Causes whose reason is an error: of a handler, or of a plugin."""

log = structlog.get_logger(__name__)

_Key: TypeAlias = tuple[AlertCause, str]


class _Rest(NamedTuple):
    """How long a listener that raised is left alone.

    Attributes:
        failures: how often running it has raised.
        until: microseconds since 1970.
    """

    failures: int
    until: int


class Alerts:
    """The hook `alert_raised`, called once for each cause.

    Args:
        ledger: where causes are found, and alerts written down.
        plugins: who listens, and who is quarantined.
        clock: time and ids.
        settings: how often to look, and how long is too long.
        routing: finds the causes that routing has.
        timeout: seconds for which an attempt of a handler may run, by the handler's id.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        clock: Clock,
        settings: AlertsSettings,
        routing: RoutingCauses,
        timeout: Callable[[str], float] = lambda _handler: inf,
    ) -> None:
        self._timeout = timeout
        self._routing = routing
        self._ledger = ledger
        self._plugins = plugins
        self._clock = clock
        self._over = threading.Event()
        self._nudged = threading.Event()
        self.go_by(settings)
        self._nudged.clear()
        self._thread = threading.Thread(target=self._loop, name="alerts", daemon=True)
        self._missed: set[str] = set()
        self._taken: dict[str, OpenAlert] = {}
        self._rests: dict[str, _Rest] = {}
        self._late: dict[str, Telling] = {}
        self._refused: dict[str, int] = {}
        self._trouble: str | None = None

    def go_by(self, settings: AlertsSettings) -> None:
        """Look by other settings from now on, the first time at once."""
        self._look_every = settings.look_every
        self._causes = Causes(settings, self._plugins.infos, self._timeout, self._routing)
        self._nudged.set()

    def start(self) -> None:
        """Start looking: a moment later, then again and again."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End it; a listener that is being told gets `timeout` seconds. The next process tells what was not taken."""
        self._over.set()
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def look(self) -> None:
        """Raise what is new, close what has gone, and tell whoever has not taken what is open.

        Raises:
            FlowhooksError: the database cannot be read or written just now; a later look does it all.
        """
        self._tell(self._raise())

    def _loop(self) -> None:
        rest = min(FIRST_LOOK, self._look_every)
        while not self._is_over(rest):
            rest, started = self._look_every, time.monotonic()
            try:
                untold = self._raise()
                rest = max(rest, (time.monotonic() - started) * (1 / NOT_MORE_THAN - 1))
                self._tell(untold)
                self._trouble = None
            except FlowhooksError as error:
                if self._trouble is None and not self._over.is_set():
                    log.error("cannot_look_for_alerts", why=str(error))  # noqa: TRY400 (one line until it changes)
                self._trouble = str(error)
            except Exception as error:
                # A fault of ours must not end the looking: nobody would ever be told of anything again.
                if self._trouble is None:
                    log.exception("cannot_look_for_alerts")
                self._trouble = type(error).__name__

    def _is_over(self, rest: float) -> bool:
        """Wait for `rest` seconds, or until something has changed; whether it has all come to its end."""
        self._nudged.wait(rest)
        self._nudged.clear()
        return self._over.is_set()

    def _raise(self) -> list[OpenAlert]:
        """Write down what is new and what has gone; what somebody is to be told of now."""
        if not self._ledger.is_leader():
            return []  # another process looks for all that share the ledger, so that nobody is told twice
        now = self._clock.now()
        with self._ledger.connection() as connection:
            # What was taken but could not be written down is known here only.
            stored = {one.id: self._with_taken(one) for one in alert_queries.open_alerts(connection)}
            self._come_back(stored)
            before = {(one.cause, one.subject): one for one in stored.values()}
            causes, complete = self._causes.find(connection, now)
            causes = _bounded(causes, before)
            new = [self._new(connection, cause, now) for key, cause in causes.items() if key not in before]
            still = [(one, _updated(connection, one, causes[key], now)) for key, one in before.items() if key in causes]
        gone = {
            one.id: one
            for key, one in before.items()
            if key not in causes and (complete or one.cause is not AlertCause.PARKED)
        }
        # Gone is what two looks running do not find: a delivery that is tried again is not dead for a moment.
        closing = [one for one in gone.values() if one.id in self._missed]
        opened = self._write(new, closing, [after for one, after in still if after != one])
        for one, after in still:
            if after.notifications != one.notifications:
                log.warning("alert_grown", new=after.count - after.grown_from, **_facts(after))
        self._missed = gone.keys() - {one.id for one in closing}
        return [*(after for _, after in still if self._to_tell(after, now)), *opened]

    def _with_taken(self, alert: OpenAlert) -> OpenAlert:
        """The alert with what was taken but could not be written down, which is known here only."""
        taken = self._taken.get(alert.id)
        return replace(alert, told=taken.told) if taken and taken.notifications == alert.notifications else alert

    def _new(self, connection: Connection, cause: Cause, now: int) -> OpenAlert:
        new = OpenAlert(
            id=self._clock.new_id(),
            cause=cause.cause,
            subject=cause.subject,
            message="",
            since=cause.since,
            count=0,
            event_id="",
            last_at=now,
            notified_at=now,
        )
        counted = _counted(connection, new, cause, now)
        return replace(counted, notified_count=counted.count)

    def _write(
        self, new: Sequence[OpenAlert], closing: Sequence[OpenAlert], changed: Sequence[OpenAlert] = ()
    ) -> list[OpenAlert]:
        """Make it durable, then log it; those of `new` that are alerts now."""
        taken = dict(self._taken)
        if not (new or closing or changed or taken):
            return []

        def write(transaction: WriteTransaction) -> set[str]:
            now = self._clock.now()
            for one in taken.values():
                alert_queries.mark_notified(transaction, one)
            for one in changed:
                alert_queries.update_alert(transaction, one)
            alert_queries.close_alerts(transaction, [one.id for one in closing], now)
            return alert_queries.insert_alerts(transaction, new, now)

        ids = self._ledger.write(write)
        self._taken.clear()
        opened = [one for one in new if one.id in ids]
        for one in opened:
            log.warning("alert_raised", **_facts(one))
        for one in closing:
            self._refused.pop(one.id, None)
            log.info("alert_over", **_named(one))
        return opened

    def _to_tell(self, alert: OpenAlert, now: int) -> list[str]:
        """Who is to be told of an alert now."""
        return [
            name
            for name in self._plugins.alert_listeners
            if name not in alert.told
            and name not in self._late
            and not (name in self._rests and self._rests[name].until > now)
        ]

    def _tell(self, untold: Sequence[OpenAlert]) -> None:
        until = time.monotonic() + TELL_FOR
        # What a listener could not take before comes last, so that it does not keep the others from being told.
        for alert in sorted(untold, key=lambda one: (self._refused.get(one.id, 0), one.id)):
            told = alert
            for name in self._to_tell(alert, self._clock.now()):
                if self._over.is_set():
                    return
                telling = Telling(self._plugins, name, _alert(alert))
                if telling.wait():
                    told = self._told(told, name, notification=alert.notifications, taken=telling.taken)
                    if telling.taken:
                        self._write([], [])
                else:
                    self._late[name] = telling
                if time.monotonic() > until:
                    return

    def _come_back(self, stored: dict[str, OpenAlert]) -> None:
        """See to the listeners that were not waited for any longer and have come back; `stored` is changed by it."""
        for name, telling in list(self._late.items()):
            if telling.over:
                del self._late[name]
                if one := stored.get(telling.alert.id):
                    stored[one.id] = self._told(one, name, notification=telling.alert.notification, taken=telling.taken)

    def _told(self, alert: OpenAlert, name: str, *, notification: int, taken: bool) -> OpenAlert:
        """The alert after a listener has come back, which is to be written down, or is told again later."""
        if taken:
            self._rests.pop(name, None)
            if notification != alert.notifications:
                return alert  # it has grown meanwhile: the listener is told of that too
            told = self._taken[alert.id] = replace(alert, told=(*alert.told, name))
            return told
        self._refused[alert.id] = self._refused.get(alert.id, 0) + 1
        failures = self._rests[name].failures if name in self._rests else 0
        seconds = AGAIN_AFTER[min(failures, len(AGAIN_AFTER) - 1)]
        self._rests[name] = _Rest(failures + 1, self._clock.now() + seconds * SECOND)
        return alert


def _bounded(causes: Mapping[_Key, Cause], before: Mapping[_Key, OpenAlert]) -> dict[_Key, Cause]:
    """The same causes, but no more of a kind than may be open: one then stands for those that are left out."""
    bounded = dict(causes)
    for kind in AlertCause:
        room = MOST_OPEN - sum(cause is kind and subject != OTHERS for cause, subject in before)
        new = [one for key, one in causes.items() if one.cause is kind and key not in before]
        left_out = new[max(0, room) :]
        for one in left_out:
            del bounded[one.key]
        if left_out:
            one = others(kind, left_out)
            bounded[one.key] = one
    return bounded


def _updated(connection: Connection, alert: OpenAlert, cause: Cause, now: int) -> OpenAlert:
    """The alert as it is now; with one more notification, which nobody has taken yet, if it has grown."""
    after = _counted(connection, alert, cause, now)
    if not has_grown(alert, after.count, after.last_at, now):
        return replace(after, notified_count=min(after.count, alert.notified_count))
    return replace(
        after,
        told=(),
        notifications=alert.notifications + 1,
        notified_at=now,
        notified_count=after.count,
        grown_from=alert.notified_count,
    )


def _counted(connection: Connection, alert: OpenAlert, cause: Cause, now: int) -> OpenAlert:
    """An alert that says how many share it now, and what is known of the newest of them."""
    count, latest = cause.count(connection), cause.latest(connection)
    return replace(
        alert,
        count=count,
        message=cause.sentence(count, alert.since),
        event_id=cause.event_id,
        last_at=latest.at if latest else now if count > alert.count else alert.last_at,
        last_error=shown(latest.error if latest else cause.why if cause.cause in _FAILURES else "", LONGEST_ERROR),
    )


def _alert(alert: OpenAlert) -> Alert:
    new = alert.count - alert.grown_from if alert.notifications > 1 else 0
    return Alert(
        id=alert.id,
        cause=alert.cause,
        subject=alert.subject,
        message=f"{alert.message} {new:,} of them are new since the last notification." if new else alert.message,
        since=to_datetime(alert.since),
        count=alert.count,
        event_id=alert.event_id,
        notification=alert.notifications,
        new_count=new,
        last_at=to_datetime(alert.last_at),
        last_error=alert.last_error,
    )


def _facts(alert: OpenAlert) -> dict[str, Any]:
    """What the log says of an alert."""
    error = {"error": alert.last_error} if alert.last_error else {}
    return {"count": alert.count, "event_id": alert.event_id, "why": alert.message, **error, **_named(alert)}


def _named(alert: OpenAlert) -> dict[str, str]:
    return {"alert": alert.id, "cause": alert.cause.value, "subject": alert.subject}
