"""Raise one durable alert for each cause, and notify listeners when it is raised, has grown and is closed.

Everything is found by polling the ledger. Work that a process does not finish is done at its next poll, or by the next
process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from flowhooks.background.alerts.backoffs import Backoffs
from flowhooks.background.alerts.causes import OTHERS_SUBJECT, CauseFinder, merge_causes
from flowhooks.background.alerts.growth import has_grown
from flowhooks.background.alerts.notifier import LATE_ERROR, AlertNotification
from flowhooks.clock import DAY
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import alert_queries, alert_resolutions
from flowhooks.ledger.alert_queries import OpenAlert
from flowhooks.model.alert import AlertCause
from flowhooks.settings import routed_notifiers
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.background.alerts.cause import Cause
    from flowhooks.background.alerts.composer import AlertComposer
    from flowhooks.background.alerts.engine_causes import EngineCauseFinder
    from flowhooks.background.alerts.maintenance_causes import MaintenanceCauseFinder
    from flowhooks.background.alerts.routing_causes import RoutingCauseFinder
    from flowhooks.clock import Clock
    from flowhooks.ledger.alert_resolutions import DueResolution
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import AlertsSettings

MAX_OPEN_PER_CAUSE: Final = 100
"""Maximum open alerts of one cause. One more alert stands for all others, so that nobody gets thousands of mails."""
FIRST_POLL_DELAY: Final = 1.0
"""Seconds from the start to the first poll, so that it does not slow down the start."""
MAX_DUTY_CYCLE: Final = 0.1
"""Maximum share of the time that polls take."""
MAX_ERROR_CHARS: Final = 500
"""Maximum characters of the last error that an alert stores. Mails and chats truncate it further."""
NOTIFY_TIME_BUDGET: Final = 20.0
"""Seconds that one poll may notify listeners. The next poll continues, so that new alerts are logged meanwhile."""

RESOLUTION_PERIOD: Final = DAY
"""Microseconds after which a plugin that does not accept it is no longer notified that an alert is closed."""

_FAILURES: Final = frozenset({AlertCause.CIRCUIT_OPEN, AlertCause.QUARANTINED})
"""Causes whose reason is an error of a handler or a plugin."""
_NEED_PLUGINS: Final = frozenset({AlertCause.QUARANTINED, AlertCause.CONCLUSION, AlertCause.CONDITION})
"""Causes that are found only with the plugins loaded. Safe mode loads none, so it cannot tell that they have ended."""

log = structlog.get_logger(__name__)

_Key: TypeAlias = tuple[AlertCause, str]


class AlertMonitor:
    """Raises and closes alerts, and calls the hooks `alert_raised` and `alert_resolved`.

    Args:
        ledger: contains the causes and stores the alerts.
        plugins: the listeners and the quarantined plugins.
        composer: makes the alerts that listeners receive.
        clock: time and ids.
        settings: the poll interval, and the times after which parked events and waiting deliveries are causes.
        routing: finds the causes in routing.
        engines: finds the causes in engines and sources.
        maintenance: finds the causes in the installation.
        timeout: seconds after which an attempt of a handler id is overdue; default: never.
        safe_mode: whether no plugin is loaded.
        on_notified: called with the name of a plugin after each notification, and whether the plugin accepted it.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        composer: AlertComposer,
        clock: Clock,
        settings: AlertsSettings,
        routing: RoutingCauseFinder,
        engines: EngineCauseFinder,
        maintenance: MaintenanceCauseFinder,
        timeout: Callable[[str], float] = lambda _handler: inf,
        safe_mode: bool = False,
        on_notified: Callable[[str, bool], None] = lambda _plugin, _accepted: None,
    ) -> None:
        self._timeout, self._safe_mode = timeout, safe_mode
        self._routing = routing
        self._engines, self._maintenance = engines, maintenance
        self._ledger = ledger
        self._plugins = plugins
        self._composer = composer
        self._on_notified = on_notified
        self._clock = clock
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self.reconfigure(settings)
        self._wakeup.clear()
        self._thread = threading.Thread(target=self._loop, name="alerts", daemon=True)
        # A poll compares with the one before, so two polls must not overlap.
        self._poll_lock = threading.Lock()
        self._missing_once: set[str] = set()
        self._unstored: dict[str, OpenAlert] = {}
        self._unstored_resolutions: dict[str, DueResolution] = {}
        self._returned_late: set[tuple[str, str]] = set()
        self._backoffs = Backoffs()
        self._late_notifications: dict[str, AlertNotification] = {}

    def reconfigure(self, settings: AlertsSettings) -> None:
        """Use new settings from now on, and poll at once."""
        self._poll_interval, self._routes = settings.poll_interval, settings.routes
        self._causes = CauseFinder(
            settings,
            self._plugins.infos,
            self._timeout,
            routing=self._routing,
            engines=self._engines,
            maintenance=self._maintenance,
        )
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
        self._notify(*self._update_alerts())

    def _loop(self) -> None:
        pause, last_error = min(FIRST_POLL_DELAY, self._poll_interval), ""
        while not self._wait(pause):
            pause, started = self._poll_interval, time.monotonic()
            try:
                alerts, resolutions = self._update_alerts()
                pause = max(pause, (time.monotonic() - started) * (1 / MAX_DUTY_CYCLE - 1))
                self._notify(alerts, resolutions)
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error and not self._stopping.is_set():
                    log.error("alert_poll_failed", why=str(error))  # noqa: TRY400 (one line until it changes)
                last_error = str(error)
            except Exception as error:
                # A defect in flowhooks must not end the polling: no alert would ever be raised again.
                if repr(error) != last_error:
                    log.exception("alert_poll_failed")
                last_error = repr(error)

    def _wait(self, seconds: float) -> bool:
        """Wait until `seconds` have passed or something changes; return whether the monitor is stopping."""
        self._wakeup.wait(seconds)
        self._wakeup.clear()
        return self._stopping.is_set()

    def _update_alerts(self) -> tuple[list[OpenAlert], list[DueResolution]]:
        """Store opened, changed and closed alerts; return the open and the closed ones to notify listeners of."""
        with self._poll_lock:
            return self._update_alerts_locked()

    def _update_alerts_locked(self) -> tuple[list[OpenAlert], list[DueResolution]]:
        if not self._ledger.is_leader():
            self._missing_once = set()  # its next poll, if it leads again, does not follow its last one
            return [], []  # the leader polls for all processes on the ledger, so that no listener is notified twice
        now = self._clock.now()
        self._maintenance.record_size(self._ledger, now)
        with self._ledger.connection() as connection:
            # Results that could not be stored are known to this process only.
            stored = {alert.id: self._with_results(alert) for alert in alert_queries.open_alerts(connection)}
            resolutions = {
                due.alert.id: self._unstored_resolutions.get(due.alert.id, due)
                for due in alert_resolutions.due_resolutions(connection)
            }
            self._collect_late(stored, resolutions)
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
            if key not in causes
            and key not in self._engines.undecided
            and (complete or alert.cause is not AlertCause.PARKED)
            and not (self._safe_mode and alert.cause in _NEED_PLUGINS)
        }
        # A cause has ended only if two consecutive polls do not find it: a dead delivery is not dead during a retry.
        closing = [alert for alert in missing.values() if alert.id in self._missing_once]
        self._backoffs.retain((stored.keys() - {alert.id for alert in closing}) | resolutions.keys())
        self._drop_old(resolutions, now)
        opened = self._write(new, closing, [after for alert, after in open_alerts if after != alert])
        for alert, after in open_alerts:
            if after.notifications != alert.notifications:
                log.warning("alert_grown", new=after.count - after.grown_from, **_log_fields(after))
        self._missing_once = missing.keys() - {alert.id for alert in closing}
        to_notify = [*(after for _, after in open_alerts if self._pending(after, now)), *opened]
        return to_notify, self._pending_resolutions(resolutions, closing)

    def _with_results(self, alert: OpenAlert) -> OpenAlert:
        """Add the results of notifications of an alert that could not be stored yet."""
        result = self._unstored.get(alert.id)
        if result is None:
            return alert
        # Another process may have notified other plugins, and stored that, while it was the leader.
        result = replace(result, accepted_plugins=_union(alert.accepted_plugins, result.accepted_plugins))
        if result.notifications == alert.notifications:
            notified = _union(alert.notified_plugins, result.notified_plugins)
            result = replace(result, notified_plugins=notified)
            alert = replace(alert, notified_plugins=notified, notification_errors=result.notification_errors)
        self._unstored[alert.id] = result
        return replace(alert, accepted_plugins=result.accepted_plugins)

    def _pending_resolutions(
        self, resolutions: Mapping[str, DueResolution], closing: Sequence[OpenAlert]
    ) -> list[DueResolution]:
        """Return the closed alerts of which listeners have to be notified, also those that were just closed."""
        pending = [due for due in resolutions.values() if due.plugins]
        if closing:
            ids = {alert.id for alert in closing}
            with self._ledger.connection() as connection:
                pending += [due for due in alert_resolutions.due_resolutions(connection) if due.alert.id in ids]
        return pending

    def _drop_old(self, resolutions: dict[str, DueResolution], now: int) -> None:
        """Give up notifications of closed alerts that were not accepted for long."""
        for due in resolutions.values():
            if now - due.closed_at > RESOLUTION_PERIOD and due.plugins:
                log.warning("alert_resolution_dropped", plugins=list(due.plugins), **_log_identity(due.alert))
                self._keep_resolution(replace(due, plugins=(), alert=replace(due.alert, notification_errors={})))
        resolutions.update(
            {alert_id: due for alert_id, due in self._unstored_resolutions.items() if alert_id in resolutions}
        )

    def _keep_resolution(self, due: DueResolution) -> DueResolution:
        self._unstored_resolutions[due.alert.id] = due
        return due

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
        """Store changes and results of notifications, then log them; return the alerts of `new` that are open now."""
        results, resolutions = dict(self._unstored), dict(self._unstored_resolutions)
        late = set(self._returned_late)
        if not (new or closing or changed or results or resolutions or late):
            return []

        def write(transaction: WriteTransaction) -> set[str]:
            now = self._clock.now()
            for alert in results.values():
                alert_queries.mark_notified(transaction, alert)
            for alert in changed:
                alert_queries.update_alert(transaction, alert)
            alert_resolutions.close_alerts(transaction, {alert.id: self._told_of_end(alert) for alert in closing}, now)
            for due in resolutions.values():
                alert_resolutions.store_resolution(transaction, due)
            for alert_id, name in late:
                alert_resolutions.add_resolution(transaction, alert_id, name)
            return alert_queries.insert_alerts(transaction, new, now)

        ids = self._ledger.write(write)
        self._unstored.clear()
        self._unstored_resolutions.clear()
        self._returned_late.clear()
        opened = [alert for alert in new if alert.id in ids]
        for alert in opened:
            log.warning("alert_raised", **_log_fields(alert))
        for alert in closing:
            log.info("alert_closed", **_log_identity(alert))
        return opened

    def _told_of_end(self, alert: OpenAlert) -> list[str]:
        """Return the plugins to be notified that an alert is closed; a plugin that is not loaded now may be later."""
        deaf = set(self._plugins.alert_listeners) - set(self._plugins.resolution_listeners)
        # A plugin that raised may have reached some of its receivers.
        called = dict.fromkeys((*alert.accepted_plugins, *alert.notification_errors))
        return [name for name in called if name not in deaf]

    def _pending(self, item: OpenAlert | DueResolution, now: int) -> list[str]:
        """Return the plugins to notify now that an alert is open, or that it is closed."""
        if isinstance(item, OpenAlert):
            listeners = routed_notifiers(self._routes, item.cause, item.subject, self._plugins.alert_listeners)
            names = [name for name in listeners if name not in item.notified_plugins]
        else:
            names = [name for name in item.plugins if name in self._plugins.resolution_listeners]
        return [name for name in names if self._is_ready(name, _id_of(item), now)]

    def _is_ready(self, name: str, alert_id: str, now: int) -> bool:
        return name not in self._late_notifications and self._backoffs.is_due(name, alert_id, now)

    def _notify(self, alerts: Sequence[OpenAlert], resolutions: Sequence[DueResolution]) -> None:
        until = time.monotonic() + NOTIFY_TIME_BUDGET
        waiting: list[OpenAlert | DueResolution] = [*alerts, *resolutions]
        items = {_id_of(item): item for item in waiting}
        for name, alert_id in self._calls(waiting):
            item = items[alert_id]
            if self._stopping.is_set():
                return
            if not self._is_ready(name, alert_id, self._clock.now()):
                continue
            composed = self._composer.raised(item) if isinstance(item, OpenAlert) else self._composer.resolved(item)
            notification = AlertNotification(self._plugins, name, composed)
            if not notification.wait():
                self._late_notifications[name] = notification
                items[alert_id] = self._record_late(item, name)
            elif isinstance(item, OpenAlert):
                items[alert_id] = self._record_result(item, name, notification)
            else:
                items[alert_id] = self._record_resolution(item, name, notification)
            self._write([], [])
            if time.monotonic() > until:
                return

    def _calls(self, items: Sequence[OpenAlert | DueResolution]) -> list[tuple[str, str]]:
        """Return the plugin and the alert id of each notification to send now, in order.

        A closed alert comes before the open one that replaces it, because it is older.
        """
        now = self._clock.now()
        calls = [(name, _id_of(item)) for item in items for name in self._pending(item, now)]
        return sorted(calls, key=lambda call: (self._backoffs.rank(*call), call[1]))

    def _collect_late(self, stored: dict[str, OpenAlert], resolutions: dict[str, DueResolution]) -> None:
        """Record the listeners that returned after their timeout; updates `stored` and `resolutions`."""
        for name, notification in list(self._late_notifications.items()):
            if not notification.is_done:
                continue
            del self._late_notifications[name]
            alert_id, is_raised = notification.alert.id, notification.alert.resolved_at is None
            if is_raised and alert_id in stored:
                stored[alert_id] = self._record_result(stored[alert_id], name, notification)
            elif not is_raised and alert_id in resolutions:
                resolutions[alert_id] = self._record_resolution(resolutions[alert_id], name, notification)
            elif is_raised and name in self._plugins.resolution_listeners:
                self._returned_late.add((alert_id, name))  # it was closed meanwhile

    def _record_late(self, item: OpenAlert | DueResolution, name: str) -> OpenAlert | DueResolution:
        """Return the alert with the error that a listener hangs. Its result replaces the error when it returns."""
        if isinstance(item, OpenAlert):
            after = replace(item, notification_errors=_with_error(item, name, LATE_ERROR))
            self._unstored[item.id] = after
            return after
        errors = _with_error(item.alert, name, LATE_ERROR)
        return self._keep_resolution(replace(item, alert=replace(item.alert, notification_errors=errors)))

    def _record_result(self, alert: OpenAlert, name: str, notification: AlertNotification) -> OpenAlert:
        """Return the alert after a listener returned: accepted by it, or to be sent to it again."""
        error = notification.error
        self._count_result(alert.id, name, error)
        after = alert
        if error is None:
            after = replace(after, accepted_plugins=_union(alert.accepted_plugins, (name,)))
        if notification.alert.notification == alert.notifications:  # otherwise it has grown and is sent again
            accepted = (*alert.notified_plugins, name) if error is None else alert.notified_plugins
            after = replace(after, notified_plugins=accepted, notification_errors=_with_error(alert, name, error))
        self._unstored[alert.id] = after
        return after

    def _record_resolution(self, due: DueResolution, name: str, notification: AlertNotification) -> DueResolution:
        """Return the closed alert after a listener returned: accepted by it, or to be sent to it again."""
        error = notification.error
        self._count_result(due.alert.id, name, error)
        alert = replace(due.alert, notification_errors=_with_error(due.alert, name, error))
        plugins = due.plugins if error else tuple(plugin for plugin in due.plugins if plugin != name)
        return self._keep_resolution(replace(due, alert=alert, plugins=plugins))

    def _count_result(self, alert_id: str, name: str, error: str | None) -> None:
        self._on_notified(name, error is None)
        self._backoffs.record(name, alert_id, self._clock.now(), accepted=error is None)


def _with_error(alert: OpenAlert, name: str, error: str | None) -> dict[str, str]:
    others = {plugin: text for plugin, text in alert.notification_errors.items() if plugin != name}
    return others if error is None else {**others, name: error}


def _union(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *others)))


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
        # The cause may begin earlier than at first, and a command in the message needs that time.
        message=cause.sentence(count, min(alert.started_at, cause.since)),
        event_id=cause.event_id,
        last_at=latest.at if latest else now if count > alert.count else alert.last_at,
        last_error=escape_control(
            latest.error if latest else cause.why if cause.cause in _FAILURES else "", MAX_ERROR_CHARS
        ),
    )


def _id_of(item: OpenAlert | DueResolution) -> str:
    return item.id if isinstance(item, OpenAlert) else item.alert.id


def _log_fields(alert: OpenAlert) -> dict[str, Any]:
    error = {"error": alert.last_error} if alert.last_error else {}
    return {"count": alert.count, "event_id": alert.event_id, "why": alert.message, **error, **_log_identity(alert)}


def _log_identity(alert: OpenAlert) -> dict[str, str]:
    return {"alert": alert.id, "cause": alert.cause.value, "subject": alert.subject}
