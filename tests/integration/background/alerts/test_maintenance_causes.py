"""Alerts about the installation: disk, size of the ledger, backups, the clock, and expiring credentials."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from flowhooks import AlertCause
from flowhooks.background.alerts.maintenance_causes import MIB, SAMPLE_INTERVAL
from flowhooks.background.clock_trust import ClockTrust
from flowhooks.clock import SECOND, to_datetime
from flowhooks.ledger import alert_queries, maintenance
from flowhooks.operations.context import Actor
from flowhooks.operations.record_backup import record_backup
from flowhooks.settings import Secret, Source

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600


@pytest.fixture
def opened(harness):
    """A function that opens an app with these settings of alerts."""

    def open_app(sources=None, **alerts):
        return harness.open(start=False, alerts=alerts, sources=sources or {})

    return open_app


def found(flow):
    """The open alerts after a check, by cause and subject."""
    flow.app.alerts.poll()
    with flow.app.ledger.connection() as connection:
        return {(alert.cause, alert.subject): alert for alert in alert_queries.open_alerts(connection)}


@pytest.mark.either
def test_the_disk_is_nearly_full(opened, monkeypatch):
    """Too little free space is an alert, which closes when there is more; an unknown free space is none."""
    free = [600 * MIB]
    monkeypatch.setattr("flowhooks.composition.free_disk_bytes", lambda _url: free[0])
    flow = opened(disk_free_mib=1000)
    alert = found(flow)[AlertCause.DISK_NEARLY_FULL, "ledger"]
    assert alert.count == 1
    assert alert.message.startswith("The disk of the ledger has only 0.6 GiB free, less than alerts.disk_free_mib")
    for value in (1001 * MIB, None):
        free[0] = value
        found(flow)
        assert found(flow) == {}


def test_the_ledger_is_too_large(opened):
    """A ledger above its maximum size is an alert with its size in MiB."""
    flow = opened(ledger_max_mib=1)
    with flow.app.ledger.connection() as connection:
        size = maintenance.ledger_size(connection)
    assert size > 0
    assert (AlertCause.LEDGER_GROWTH, "ledger") in found(flow) or size <= MIB
    for number in range(12):
        flow.take(str(number), key="nobody", wait=0, text=os.urandom(100_000).hex())
    alert = found(flow)[AlertCause.LEDGER_GROWTH, "ledger"]
    assert alert.count >= 1
    assert "more than alerts.ledger_max_mib allows" in alert.message


def test_the_ledger_grows_fast(opened):
    """A ledger that has grown too much since a record of the last 24 hours is an alert, until that record is older."""
    flow = opened(ledger_growth_mib=1)
    assert found(flow) == {}
    for number in range(12):
        flow.take(str(number), key="nobody", wait=0, text=os.urandom(100_000).hex())
    flow.clock.advance(SAMPLE_INTERVAL / SECOND)
    alert = found(flow)[AlertCause.LEDGER_GROWTH, "ledger"]
    assert alert.count >= 1
    assert "has grown by" in alert.message
    flow.clock.advance(DAY_SECONDS)
    found(flow)
    found(flow)
    assert (AlertCause.LEDGER_GROWTH, "ledger") not in found(flow)
    assert len(flow.sql("SELECT 1 FROM maintenance WHERE kind = 'size'")) <= 2


def test_the_backup_is_too_old(opened):
    """Without a backup, and when the last one is too old, there is an alert; recording a backup closes it."""
    flow = opened(backup_max_age=float(DAY_SECONDS))
    assert found(flow) == {}
    flow.clock.advance(DAY_SECONDS + 1)
    alert = found(flow)[AlertCause.BACKUP_TOO_OLD, "ledger"]
    assert alert.message.startswith("No backup of the ledger is recorded, which is in use since 2026-01-01T00:00:00")
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    done = record_backup(context, name="flowhooks-1.db", size=4096)
    assert done.at == flow.clock.now()
    found(flow)
    assert found(flow) == {}
    assert flow.sql("SELECT action, detail FROM audit_log") == [
        ("record_backup", '{"name": "flowhooks-1.db", "size": 4096}')
    ]
    flow.clock.advance(DAY_SECONDS + 1)
    alert = found(flow)[AlertCause.BACKUP_TOO_OLD, "ledger"]
    assert alert.message.startswith("The last backup of the ledger was recorded at 2026-01-02T00:00:01")
    record_backup(context)
    assert flow.sql("SELECT count(*) FROM maintenance WHERE kind = 'backup'") == [(1,)]


@pytest.mark.either
def test_a_backup_from_the_future_does_not_count(opened):
    """A backup that was recorded while the clock was ahead hides no alert, and the next one replaces it."""
    flow = opened(backup_max_age=float(DAY_SECONDS))
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    flow.clock.time += 366 * DAY_SECONDS * SECOND
    record_backup(context)
    flow.clock.time -= 366 * DAY_SECONDS * SECOND
    flow.clock.advance(DAY_SECONDS + 1)
    assert (AlertCause.BACKUP_TOO_OLD, "ledger") in found(flow)
    recorded = record_backup(context)
    found(flow)
    assert (AlertCause.BACKUP_TOO_OLD, "ledger") not in found(flow)
    assert flow.sql("SELECT at FROM maintenance WHERE kind = 'backup'") == [(recorded.at,)]


@pytest.mark.either
def test_the_clock_has_jumped(opened, monkeypatch):
    """Each jump that the watch of the clock finds is counted for its host, for 24 hours."""
    # The monotonic clock stands still: a jump is not shorter by the time that the test takes.
    monkeypatch.setattr("flowhooks.composition.ClockTrust", partial(ClockTrust, monotonic=lambda: 0.0))
    flow = opened()
    watch = flow.app.clock_watch
    watch._check_clock()
    assert found(flow) == {}
    flow.clock.advance(HOUR_SECONDS)
    watch._check_clock()
    flow.clock.advance(120)
    watch._check_clock()
    alert = found(flow)[AlertCause.CLOCK_JUMP, socket.gethostname()]
    assert alert.count == 2
    assert "has jumped 2 times in the last 24 hours" in alert.message
    assert "the last time by +120 s" in alert.message
    flow.clock.advance(DAY_SECONDS + HOUR_SECONDS)
    found(flow)
    assert found(flow) == {}


@pytest.mark.either
def test_a_credential_expires(opened, clock):
    """A source whose secrets all expire soon is an alert; a rotation, a token and a late expiry are none."""
    soon = to_datetime(clock.now()) + timedelta(days=13)
    late = soon + timedelta(days=10)

    def source(*ends, **more):
        return Source(secrets=tuple(Secret(env="X", not_after=end) for end in ends), **more)

    flow = opened(
        sources={
            "oa": source(soon, soon - timedelta(days=1)),
            "rotated": source(soon, None),
            "later": source(soon, late),
            "token": source(soon, token_sha256=("0" * 64,)),
            "expired": source(soon - timedelta(days=14)),
        }
    )
    alerts = found(flow)
    assert set(alerts) == {(AlertCause.KEY_EXPIRING, "oa"), (AlertCause.KEY_EXPIRING, "expired")}
    message = alerts[AlertCause.KEY_EXPIRING, "oa"].message
    assert message.startswith("The last credential of source oa expires at 2026-01-14T00:00:00.000Z")
    assert "`flowhooks sources rotate oa`" in message
