"""Acknowledge: an operator handles an alert, which stays open until its cause is gone and is still notified."""

from __future__ import annotations

import pytest

from flowhooks.ledger import alert_queries
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.overview import overview


def fails(event):
    """Fail."""
    raise ValueError("broken")


def still_open(flow):
    """The open alerts."""
    with flow.app.ledger.connection() as connection:
        return alert_queries.open_alerts(connection)


def unacknowledged(flow):
    """The number of alerts that the overview shows."""
    return overview(flow.app.ledger, flow.clock.now()).alerts


@pytest.fixture
def flow(harness, listens):
    """A ledger with an alert for each of two handlers, none of which has been notified."""
    flow = harness.open(listens(fails, name="a"), listens(fails, name="b"), start=False)
    flow.take(wait=0)
    flow.sql("UPDATE deliveries SET state = 'dead'")
    flow.app.alerts.poll()
    return flow


def test_an_alert_is_acknowledged(flow, context_of, audit_entries):
    """The operator and the time are stored; the alert stays listed, but no longer counts as open work."""
    first, second = still_open(flow)
    flow.clock.advance(5)
    assert unacknowledged(flow) == 2
    done = acknowledge(context_of(flow), [first.id], note="ringing the archive")
    assert (done.alerts, done.skipped, done.dry_run) == ((first.id,), (), False)
    found = {alert.id: alert for alert in still_open(flow)}
    assert (found[first.id].acknowledged_at, found[first.id].acknowledged_by) == (flow.clock.now(), "ann")
    assert (found[second.id].acknowledged_at, found[second.id].acknowledged_by) == (None, "")
    assert unacknowledged(flow) == 1
    (entry,) = audit_entries(flow, target=first.id)
    assert (entry.actor, entry.action) == ("ann", "acknowledge")
    assert entry.detail == {"alerts": [first.id], "about": [f"dead {first.subject}"], "note": "ringing the archive"}


def test_acknowledged_closed_and_unknown_alerts_are_skipped(flow, context_of, audit_entries):
    """The first acknowledgement stays; unknown and closed alerts are skipped."""
    first, second = still_open(flow)
    acknowledge(context_of(flow), [first.id])
    flow.sql("UPDATE alerts SET closed_at = 1 WHERE id = ?", second.id)
    flow.clock.advance(5)
    done = acknowledge(context_of(flow), [first.id, second.id, "none", "none"])
    assert (done.alerts, done.skipped) == ((), (first.id, second.id, "none"))
    assert still_open(flow)[0].acknowledged_at == flow.clock.now() - 5_000_000
    assert len(audit_entries(flow)) == 1


def test_a_dry_run_changes_nothing(flow, context_of, audit_entries):
    """A dry run returns the alerts that would be acknowledged."""
    _, second = still_open(flow)
    done = acknowledge(context_of(flow), [second.id, "none"], dry_run=True)
    assert (done.alerts, done.skipped, done.dry_run) == ((second.id,), ("none",), True)
    assert unacknowledged(flow) == 2
    assert audit_entries(flow) == []


def test_a_cause_that_recurs_opens_a_new_alert(flow, context_of):
    """A new alert of the same cause is not acknowledged."""
    first, _ = still_open(flow)
    acknowledge(context_of(flow), [first.id])
    flow.sql("UPDATE deliveries SET state = 'closed' WHERE handler = ?", first.subject)
    flow.app.alerts.poll()
    flow.app.alerts.poll()
    assert first.subject not in {alert.subject for alert in still_open(flow)}
    flow.sql("UPDATE deliveries SET state = 'dead' WHERE handler = ?", first.subject)
    flow.app.alerts.poll()
    (again,) = [alert for alert in still_open(flow) if alert.subject == first.subject]
    assert again.id != first.id
    assert again.acknowledged_at is None


def test_pending_notifications_of_an_acknowledged_alert_are_sent(harness, listens, context_of, make_plugin):
    """A mail server that was down at the acknowledgement still gets its mail, for other people."""
    told, mute = [], [True]

    def alert_raised(alert):
        if mute[0]:
            raise OSError("the mail server is down")
        told.append(alert.id)

    # Not started, because its own check would notify the listener, too.
    plugin = make_plugin(listens(fails, name="a"), alert_raised=alert_raised)
    flow = harness.open(plugins={"p": plugin}, start=False)
    flow.take("i1", wait=0)
    flow.sql("UPDATE deliveries SET state = 'dead'")
    flow.app.alerts.poll()
    (alert,) = still_open(flow)
    acknowledge(context_of(flow), [alert.id])
    mute[0] = False
    flow.clock.advance(60)
    flow.app.alerts.poll()
    assert told == [alert.id]
    (after,) = still_open(flow)
    assert (after.notified_plugins, after.acknowledged_by) == (("p",), "ann")
