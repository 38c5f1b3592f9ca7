"""An app whose alerts a test polls, and plugins that are notified of them. No tests."""

from __future__ import annotations

import threading

from flowhooks import State
from flowhooks.ledger import alert_queries
from flowhooks.model.ready_delivery import ReadyDelivery
from support.waiting import WAIT_TIMEOUT


class Listener:
    """A plugin that records the alerts that it accepts.

    Attributes:
        alerts: its notifications in order, including notifications that it did not accept.
        error: the exception that it raises instead of accepting.
    """

    def __init__(self):
        self.alerts = []
        self.error = None

    def hook(self, alert):
        """The hook `alert_raised`."""
        self.alerts.append(alert)
        if self.error:
            raise self.error

    @property
    def notified(self):
        """Cause and subject of each notification."""
        return [(alert.cause, alert.subject) for alert in self.alerts]


class EndListener(Listener):
    """A listener that also records the ends of alerts.

    Attributes:
        ended: its notifications of closed alerts in order, including notifications that it did not accept.
        end_error: the exception that it raises instead of accepting a notification.
    """

    def __init__(self):
        super().__init__()
        self.ended = []
        self.end_error = None

    def end_hook(self, alert):
        """The hook `alert_resolved`."""
        self.ended.append(alert)
        if self.end_error:
            raise self.end_error


class HangingListener(Listener):
    """A listener that hangs until the test releases it.

    Attributes:
        release: the event that it waits for.
    """

    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def hook(self, alert):
        """The hook `alert_raised`."""
        self.alerts.append(alert)
        assert self.release.wait(WAIT_TIMEOUT)
        if self.error:
            raise self.error


class WatchedApp:
    """An app without a running runner: the test makes deliveries fail and triggers each poll."""

    def __init__(self, flow, eventually):
        self.flow = flow
        self.eventually = eventually
        self.clock = flow.clock

    def dead(self, instance, **members):
        """Store a callback whose delivery fails finally."""
        event_id = self.flow.take(instance, wait=0, **members).event_id
        self.run(event_id)
        self.eventually(lambda: {delivery.state for delivery in self.flow.delivery_statuses(event_id)} == {State.DEAD})
        return event_id

    def put_dead(self, count):
        """Make `count` deliveries of the only handler dead; missing deliveries are added and fail."""
        for number in range(self.flow.sql("SELECT count(*) FROM deliveries")[0][0], count):
            self.flow.take(f"n{number}", wait=0)
        self.flow.sql(
            "UPDATE deliveries SET state = 'dead', due_at = NULL, changed_at = ? WHERE state = 'waiting'",
            self.clock.now(),
        )

    def run(self, event_id):
        """Make an attempt of each waiting delivery of an event."""
        for delivery in self.flow.delivery_statuses(event_id):
            self.flow.app.dispatcher.execute(ReadyDelivery(delivery.delivery_id, delivery.handler, delivery.attempt))

    def close_dead(self):
        """Close every dead delivery, as an operator does."""
        self.flow.sql("UPDATE deliveries SET state = 'closed' WHERE state = 'dead'")

    def poll(self, times=1):
        """Check all causes, and notify the listeners."""
        for _ in range(times):
            self.flow.app.alerts.poll()

    def open(self):
        """The open alerts as stored."""
        with self.flow.app.ledger.connection() as connection:
            return alert_queries.open_alerts(connection)

    def rows(self):
        """Every alert that was raised: cause, subject, count, notified, and whether it is closed."""
        return self.flow.sql(
            "SELECT cause, subject, count, notified, closed_at IS NOT NULL FROM alerts ORDER BY opened_at, id"
        )


def fail(event):
    """Fail finally."""
    raise ValueError("no")


def names(entries, *events):
    """The logged events of these names with their subjects, in order."""
    return [(entry["event"], entry["subject"]) for entry in entries if entry["event"] in events]
