"""Raise one durable alert for each cause, and notify listeners when it is raised and when it has grown.

Everything is found by polling the ledger. Work that a process does not finish is done at its next poll, or by the next
process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import structlog

from flowhooks.background.alerts.causes import OTHERS_SUBJECT, CauseFinder, merge_causes
from flowhooks.background.alerts.growth import has_grown
from flowhooks.background.alerts.notifier import AlertNotification
from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import alert_queries
from flowhooks.ledger.alert_queries import OpenAlert
from flowhooks.model.alert import Alert, AlertCause
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.background.alerts.cause import Cause
    from flowhooks.background.alerts.engine_causes import EngineCauseFinder
    from flowhooks.background.alerts.routing_causes import RoutingCauseFinder
    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import AlertsSettings

MAX_OPEN_PER_CAUSE: Final = 100
"""Maximum open alerts of one cause. One more alert stands for all others, so that nobody gets thousands of mails."""
# A mail server that is down must not get a request per second, and the log must not fill up.
RETRY_DELAYS: Final = (30, 60, 120, 300, 600)
"""Seconds until a listener that raised is called again; the last delay repeats."""
FIRST_POLL_DELAY: Final = 1.0
"""Seconds from the start to the first poll, so that it does not slow down the start."""
MAX_DUTY_CYCLE: Final = 0.1
"""Maximum share of the time that polls take."""
MAX_ERROR_CHARS: Final = 500
"""Maximum characters of the last error that an alert stores. Mails and chats truncate it further."""
NOTIFY_TIME_BUDGET: Final = 20.0
"""Seconds that one poll may notify listeners. The next poll continues, so that new alerts are logged meanwhile."""

_FAILURES: Final = frozenset({AlertCause.CIRCUIT_OPEN, AlertCause.QUARANTINED})
"""Causes whose reason is an error of a handler or a plugin."""

log = structlog.get_logger(__name__)

_Key: TypeAlias = tuple[AlertCause, str]


class _Backoff(NamedTuple):
    """The back-off of a listener that raised.

    Attributes:
        failures: number of consecutive failures.
        until: end of the back-off, in microseconds since 1970.
    """

    failures: int
    until: int


class AlertMonitor:
    """Raises and closes alerts, and calls the hook `alert_raised`.

    Args:
        ledger: contains the causes and stores the alerts.
        plugins: the listeners and the quarantined plugins.
        clock: time and ids.
        settings: the poll interval, and the times after which parked events and waiting deliveries are causes.
        routing: finds the causes in routing.
        engines: finds the causes in engines and sources.
        timeout: seconds after which an attempt of a handler id is overdue; default: never.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        clock: Clock,
        settings: AlertsSettings,
        routing: RoutingCauseFinder,
        engines: EngineCauseFinder,
        timeout: Callable[[str], float] = lambda _handler: inf,
    ) -> None:
        self._timeout = timeout
        self._routing = routing
        self._engines = engines
        self._ledger = ledger
        self._plugins = plugins
        self._clock = clock
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self.reconfigure(settings)
        self._wakeup.clear()
        self._thread = threading.Thread(target=self._loop, name="alerts", daemon=True)
        # A poll compares with the one before, so two polls must not overlap.
        self._poll_lock = threading.Lock()
        self._missing_once: set[str] = set()
        self._accepted: dict[str, OpenAlert] = {}
        self._backoffs: dict[str, _Backoff] = {}
        self._late_notifications: dict[str, AlertNotification] = {}
        self._failures: dict[str, int] = {}
        self._last_error: str | None = None

    def reconfigure(self, settings: AlertsSettings) -> None:
        """Use new settings from now on, and poll at once."""
        self._poll_interval = settings.poll_interval
        self._causes = CauseFinder(settings, self._plugins.infos, self._timeout, self._routing, self._engines)
        self._wakeup.set()

    def start(self) -> None:
        """Start the thread that polls for causes at each interval."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; a listener that is being notified gets `timeout` seconds.

        The next process sends the notifications that no listener has accepted.
        """
        self._stopping.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def poll(self) -> None:
        """Raise alerts of new causes, close alerts whose causes are gone, and notify listeners of open alerts.

        Raises:
            FlowhooksError: the database cannot be read or written; a later poll repeats the work.
        """
        self._notify(self._update_alerts())

    def _loop(self) -> None:
        pause = min(FIRST_POLL_DELAY, self._poll_interval)
        while not self._wait(pause):
            pause, started = self._poll_interval, time.monotonic()
            try:
                alerts = self._update_alerts()
                pause = max(pause, (time.monotonic() - started) * (1 / MAX_DUTY_CYCLE - 1))
                self._notify(alerts)
                self._last_error = None
            except FlowhooksError as error:
                if self._last_error is None and not self._stopping.is_set():
                    log.error("alert_poll_failed", why=str(error))  # noqa: TRY400 (one line until it changes)
                self._last_error = str(error)
            except Exception as error:
                # A defect in flowhooks must not end the polling: no alert would ever be raised again.
                if self._last_error is None:
                    log.exception("alert_poll_failed")
                self._last_error = type(error).__name__

    def _wait(self, seconds: float) -> bool:
        """Wait until `seconds` have passed or something changes; return whether the monitor is stopping."""
        self._wakeup.wait(seconds)
        self._wakeup.clear()
        return self._stopping.is_set()

    def _update_alerts(self) -> list[OpenAlert]:
        """Store opened, changed and closed alerts; return those that listeners have to be notified of."""
        with self._poll_lock:
            return self._update_alerts_locked()

    def _update_alerts_locked(self) -> list[OpenAlert]:
        if not self._ledger.is_leader():
            return []  # the leader polls for all processes on the ledger, so that no listener is notified twice
        now = self._clock.now()
        with self._ledger.connection() as connection:
            # Acceptances that could not be stored are known to this process only.
            stored = {alert.id: self._with_accepted(alert) for alert in alert_queries.open_alerts(connection)}
            self._collect_late(stored)
            before = {(alert.cause, alert.subject): alert for alert in stored.values()}
            causes, complete = self._causes.find(connection, now)
            causes = _limit_per_cause(causes, before)
            new = [self._new(connection, cause, now) for key, cause in causes.items() if key not in before]
            open_alerts = [
                (alert, _update(connection, alert, causes[key], now)) for key, alert in before.items() if key in causes
            ]
        missing = {
            alert.id: alert
            for key, alert in before.items()
            if key not in causes and (complete or alert.cause is not AlertCause.PARKED)
        }
        # A cause has ended only if two consecutive polls do not find it: a dead delivery is not dead during a retry.
        closing = [alert for alert in missing.values() if alert.id in self._missing_once]
        opened = self._write(new, closing, [after for alert, after in open_alerts if after != alert])
        for alert, after in open_alerts:
            if after.notifications != alert.notifications:
                log.warning("alert_grown", new=after.count - after.grown_from, **_log_fields(after))
        self._missing_once = missing.keys() - {alert.id for alert in closing}
        return [*(after for _, after in open_alerts if self._pending_listeners(after, now)), *opened]

    def _with_accepted(self, alert: OpenAlert) -> OpenAlert:
        """Add the acceptances of an alert that could not be stored yet."""
        accepted = self._accepted.get(alert.id)
        return (
            replace(alert, notified_plugins=accepted.notified_plugins)
            if accepted and accepted.notifications == alert.notifications
            else alert
        )

    def _new(self, connection: Connection, cause: Cause, now: int) -> OpenAlert:
        new = OpenAlert(
            id=self._clock.new_id(),
            cause=cause.cause,
            subject=cause.subject,
            message="",
            started_at=cause.since,
            count=0,
            event_id="",
            last_at=now,
            notified_at=now,
        )
        counted = _with_count(connection, new, cause, now)
        return replace(counted, notified_count=counted.count)

    def _write(
        self, new: Sequence[OpenAlert], closing: Sequence[OpenAlert], changed: Sequence[OpenAlert] = ()
    ) -> list[OpenAlert]:
        """Store the changes, then log them; return the alerts of `new` that are open now."""
        accepted = dict(self._accepted)
        if not (new or closing or changed or accepted):
            return []

        def write(transaction: WriteTransaction) -> set[str]:
            now = self._clock.now()
            for alert in accepted.values():
                alert_queries.mark_notified(transaction, alert)
            for alert in changed:
                alert_queries.update_alert(transaction, alert)
            alert_queries.close_alerts(transaction, [alert.id for alert in closing], now)
            return alert_queries.insert_alerts(transaction, new, now)

        ids = self._ledger.write(write)
        self._accepted.clear()
        opened = [alert for alert in new if alert.id in ids]
        for alert in opened:
            log.warning("alert_raised", **_log_fields(alert))
        for alert in closing:
            self._failures.pop(alert.id, None)
            log.info("alert_closed", **_log_identity(alert))
        return opened

    def _pending_listeners(self, alert: OpenAlert, now: int) -> list[str]:
        return [
            name
            for name in self._plugins.alert_listeners
            if name not in alert.notified_plugins
            and name not in self._late_notifications
            and not (name in self._backoffs and self._backoffs[name].until > now)
        ]

    def _notify(self, alerts: Sequence[OpenAlert]) -> None:
        until = time.monotonic() + NOTIFY_TIME_BUDGET
        # Alerts that a listener failed to accept come last, so that they do not delay the other alerts.
        for alert in sorted(alerts, key=lambda waiting: (self._failures.get(waiting.id, 0), waiting.id)):
            current = alert
            for name in self._pending_listeners(alert, self._clock.now()):
                if self._stopping.is_set():
                    return
                notification = AlertNotification(self._plugins, name, _alert(alert))
                if notification.wait():
                    current = self._on_notified(
                        current, name, notification=alert.notifications, accepted=notification.accepted
                    )
                    if notification.accepted:
                        self._write([], [])
                else:
                    self._late_notifications[name] = notification
                if time.monotonic() > until:
                    return

    def _collect_late(self, stored: dict[str, OpenAlert]) -> None:
        """Record the listeners that returned after their timeout; updates `stored`."""
        for name, notification in list(self._late_notifications.items()):
            if notification.is_done:
                del self._late_notifications[name]
                if alert := stored.get(notification.alert.id):
                    stored[alert.id] = self._on_notified(
                        alert, name, notification=notification.alert.notification, accepted=notification.accepted
                    )

    def _on_notified(self, alert: OpenAlert, name: str, *, notification: int, accepted: bool) -> OpenAlert:
        """Return the alert after a listener returned: accepted by it, or to be sent to it again."""
        if accepted:
            self._backoffs.pop(name, None)
            if notification != alert.notifications:
                return alert  # the alert has grown meanwhile, so the listener is notified again
            accepted_alert = self._accepted[alert.id] = replace(alert, notified_plugins=(*alert.notified_plugins, name))
            return accepted_alert
        self._failures[alert.id] = self._failures.get(alert.id, 0) + 1
        failures = self._backoffs[name].failures if name in self._backoffs else 0
        seconds = RETRY_DELAYS[min(failures, len(RETRY_DELAYS) - 1)]
        self._backoffs[name] = _Backoff(failures + 1, self._clock.now() + seconds * SECOND)
        return alert


def _limit_per_cause(causes: Mapping[_Key, Cause], before: Mapping[_Key, OpenAlert]) -> dict[_Key, Cause]:
    """Keep at most the allowed number of alerts per kind; one alert stands for the others."""
    bounded = dict(causes)
    for kind in AlertCause:
        free_places = MAX_OPEN_PER_CAUSE - sum(cause is kind and subject != OTHERS_SUBJECT for cause, subject in before)
        new = [new_cause for key, new_cause in causes.items() if new_cause.cause is kind and key not in before]
        left_out = new[max(0, free_places) :]
        for omitted in left_out:
            del bounded[omitted.key]
        if left_out:
            merged = merge_causes(kind, left_out)
            bounded[merged.key] = merged
    return bounded


def _update(connection: Connection, alert: OpenAlert, cause: Cause, now: int) -> OpenAlert:
    """Return the alert with its current count; add a notification if it has grown."""
    after = _with_count(connection, alert, cause, now)
    if not has_grown(alert, after.count, after.last_at, now):
        return replace(after, notified_count=min(after.count, alert.notified_count))
    return replace(
        after,
        notified_plugins=(),
        notifications=alert.notifications + 1,
        notified_at=now,
        notified_count=after.count,
        grown_from=alert.notified_count,
    )


def _with_count(connection: Connection, alert: OpenAlert, cause: Cause, now: int) -> OpenAlert:
    count, latest = cause.count(connection), cause.latest(connection)
    return replace(
        alert,
        count=count,
        message=cause.sentence(count, alert.started_at),
        event_id=cause.event_id,
        last_at=latest.at if latest else now if count > alert.count else alert.last_at,
        last_error=escape_control(
            latest.error if latest else cause.why if cause.cause in _FAILURES else "", MAX_ERROR_CHARS
        ),
    )


def _alert(alert: OpenAlert) -> Alert:
    new = alert.count - alert.grown_from if alert.notifications > 1 else 0
    return Alert(
        id=alert.id,
        cause=alert.cause,
        subject=alert.subject,
        message=f"{alert.message} {new:,} of them are new since the last notification." if new else alert.message,
        started_at=to_datetime(alert.started_at),
        count=alert.count,
        event_id=alert.event_id,
        notification=alert.notifications,
        new_count=new,
        last_at=to_datetime(alert.last_at),
        last_error=alert.last_error,
    )


def _log_fields(alert: OpenAlert) -> dict[str, Any]:
    error = {"error": alert.last_error} if alert.last_error else {}
    return {"count": alert.count, "event_id": alert.event_id, "why": alert.message, **error, **_log_identity(alert)}


def _log_identity(alert: OpenAlert) -> dict[str, str]:
    return {"alert": alert.id, "cause": alert.cause.value, "subject": alert.subject}
