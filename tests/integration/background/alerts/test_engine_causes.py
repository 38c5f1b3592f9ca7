"""Alerts about engines and sources: each is raised with its count, its last error and the command that helps."""

from __future__ import annotations

import re
import shlex

import pytest

from flowhooks import AlertCause
from flowhooks.background.alerts.engine_causes import MIN_FAILURES, MIN_REJECTED
from flowhooks.clock import DAY, SECOND
from flowhooks.errors import IdentityConflict
from flowhooks.ledger import alert_queries, rejected_requests
from flowhooks.ledger.tables import history_gaps
from flowhooks.settings import Source
from flowhooks.settings.engine import EngineSettings
from support import engine_ledger, ingress
from support.engine_fakes import engine_plugin

pytestmark = pytest.mark.either

MINUTE = 60 * SECOND
HASH = "0" * 64


@pytest.fixture
def flow(harness):
    """An app with an engine that calls, an engine that is only asked, and a source that must not be silent."""
    engine = EngineSettings(client="fake", url="http://engine")
    harness.check_at_end = False
    return harness.open(
        plugins={"p": engine_plugin()},
        start=False,
        sources={
            "oa": Source(token_sha256=(HASH,), engine=engine),
            "pulled": Source(engine=engine, silent_after=60.0),
            "erp": Source(token_sha256=("1" * 64,), silent_after=3600.0),
        },
    )


def found(flow):
    """The open alerts after a check, by cause and subject."""
    flow.app.alerts.poll()
    with flow.app.ledger.connection() as connection:
        return {(alert.cause, alert.subject): alert for alert in alert_queries.open_alerts(connection)}


def test_no_alert_without_a_cause(flow):
    """Without any problem there is no alert about engines and sources."""
    engine_ledger.position(flow, "oa", skew=29 * SECOND, failures=MIN_FAILURES - 1, failed_since=flow.clock.now())
    assert found(flow) == {}


def test_an_engine_is_unreachable(flow):
    """Three failed reconciliations raise an alert with their number, the last error and the command to try again."""
    since = flow.clock.now() - 15 * MINUTE
    engine_ledger.position(
        flow, "oa", failed_since=since, failures=3, reason="refused", error="HTTP 401 for /history.\nIt says no."
    )
    alert = found(flow)[AlertCause.ENGINE_UNREACHABLE, "oa"]
    assert (alert.count, alert.started_at, alert.last_error) == (3, since, "HTTP 401 for /history. It says no.")
    assert "3 reconciliations failed: HTTP 401" in alert.message
    assert "`flowhooks engines reconcile --source oa`" in alert.message
    engine_ledger.position(flow, "oa")
    assert found(flow)
    assert found(flow) == {}


def test_no_reconciliation_succeeds(flow):
    """Without a success for an hour and three rounds an alert is raised, although no error was recorded."""
    start = flow.clock.now()
    engine_ledger.position(flow, "oa", succeeded_at=start)
    assert found(flow) == {}
    flow.clock.advance(3590)
    engine_ledger.position(flow, "pulled")
    assert found(flow) == {}
    flow.clock.advance(20)
    alert = found(flow)[AlertCause.ENGINE_UNREACHABLE, "oa"]
    assert (alert.count, alert.started_at) == (1, start)
    assert "`flowhooks engines reconcile --source oa`" in alert.message
    flow.clock.advance(3600)
    assert found(flow)[AlertCause.ENGINE_UNREACHABLE, "pulled"].started_at == start + 3530 * SECOND
    engine_ledger.position(flow, "oa", failed_since=start, failures=3, error="HTTP 500")
    assert "HTTP 500" in found(flow)[AlertCause.ENGINE_UNREACHABLE, "oa"].message
    engine_ledger.position(flow, "oa")
    found(flow)
    assert (AlertCause.ENGINE_UNREACHABLE, "oa") not in found(flow)


def test_a_first_reconciliation_that_never_ends(flow):
    """An engine without any finished reconciliation raises the alert, too."""
    start = flow.clock.now()
    assert found(flow) == {}
    flow.clock.advance(3601)
    alerts = found(flow)
    assert {subject for cause, subject in alerts if cause is AlertCause.ENGINE_UNREACHABLE} == {"oa", "pulled"}
    assert alerts[AlertCause.ENGINE_UNREACHABLE, "oa"].started_at == start


def test_the_history_is_read_under_another_name(flow):
    """If a rename was taken back, no round of the source ends; the alert has the name that the settings lack."""
    engine_ledger.position(flow, "oa2", former_names='["erp", "oa"]')
    engine_ledger.position(flow, "oa3", former_names='["oa4"]')
    assert found(flow) == {}
    flow.clock.advance(3601)
    alert = found(flow)[AlertCause.ENGINE_UNREACHABLE, "oa"]
    assert alert.message.endswith(
        ": it is read as oa2. Add that name to former_names of oa, unless a server still uses it."
    )
    assert "is read as" not in found(flow)[AlertCause.ENGINE_UNREACHABLE, "pulled"].message


def test_servers_that_were_stopped_for_long(flow):
    """After a start, the first rounds have time to end before the old success raises an alert."""
    for name in ("oa", "pulled"):
        engine_ledger.position(flow, name, succeeded_at=flow.clock.now() - DAY)
    assert found(flow) == {}
    flow.clock.advance(890)
    assert found(flow) == {}
    flow.clock.advance(20)
    assert (AlertCause.ENGINE_UNREACHABLE, "oa") in found(flow)


def test_the_engine_of_waiting_instances_was_removed(flow):
    """Instances that no round takes in, because their source has no engine any more, raise an alert."""
    ended = flow.clock.now() - DAY
    for number in range(3):
        engine_ledger.instance(flow, "gone", f"i{number}", disposition="in_grace", ended_at=ended + number)
    engine_ledger.instance(flow, "oa", "i1", disposition="in_grace")
    engine_ledger.instance(flow, "gone", "i9")
    alerts = found(flow)
    assert set(alerts) == {(AlertCause.RECONCILIATION_UNCONFIRMED, "gone")}
    alert = alerts[AlertCause.RECONCILIATION_UNCONFIRMED, "gone"]
    assert (alert.count, alert.started_at) == (3, ended)
    assert "[sources.gone.engine]" in alert.message


def test_callbacks_are_missed(flow):
    """Events taken in for which no callback came raise an alert; a late callback, or a day, ends it."""
    late, missed, _ = (engine_ledger.taken_in(flow, "oa", instance) for instance in ("late", "missed", "also"))
    engine_ledger.late_callback(flow, late)
    engine_ledger.taken_in(flow, "pulled", "never called")
    alerts = found(flow)
    assert set(alerts) == {(AlertCause.CALLBACKS_MISSED, "oa")}
    alert = alerts[AlertCause.CALLBACKS_MISSED, "oa"]
    assert (alert.count, alert.event_id) == (2, missed)
    assert f"`flowhooks events show {missed}`" in alert.message
    flow.clock.advance(DAY // SECOND + 1)
    found(flow)
    assert (AlertCause.CALLBACKS_MISSED, "oa") not in found(flow)


def test_a_conflicting_callback_is_not_missed(flow):
    """An engine that calls late and is answered 409 has called: its callback is stored as a conflict."""
    engine_ledger.taken_in(flow, "oa", "called", conclusion="approved")
    with pytest.raises(IdentityConflict):
        flow.take("called", source="oa", wait=0, conclusion="rejected")
    assert set(found(flow)) == {(AlertCause.CONFLICT, "oa")}


def test_the_history_has_a_gap(flow):
    """Open gaps raise an alert with their number and interval; a gap of deleted history lasts a week."""
    start = flow.clock.now() - 5 * 3600 * SECOND
    engine_ledger.gap(flow, "oa", start, start + MINUTE, "deleted", detail="history time to live")
    engine_ledger.gap(flow, "oa", start + 2 * MINUTE, start + 3 * MINUTE, "unreachable", closed=True)
    alert = found(flow)[AlertCause.HISTORY_GAP, "oa"]
    assert (alert.count, alert.started_at, alert.last_error) == (1, start, "deleted, history time to live")
    assert "from 2025-12-31T19:00:00.000Z to 2025-12-31T19:01:00.000Z, deleted" in alert.message
    assert "`flowhooks engines reconcile --source oa --since 2025-12-31T19:00:00.000Z`" in alert.message
    flow.clock.advance(8 * DAY // SECOND)
    found(flow)
    assert (AlertCause.HISTORY_GAP, "oa") not in found(flow)


def test_an_instance_id_is_reused(flow):
    """An instance whose id an earlier one had raises an alert that names it and its event."""
    engine_ledger.taken_in(flow, "pulled", "4710")
    event_id = engine_ledger.taken_in(flow, "pulled", "4711", reused=True)
    alert = found(flow)[AlertCause.INSTANCE_ID_REUSED, "pulled"]
    assert (alert.count, alert.event_id) == (1, event_id)
    assert "`flowhooks engines show 4711`" in alert.message


def test_a_new_gap_beside_many_old_ones(flow):
    """Gaps that raise no alert any more do not hide a new one."""
    now = flow.clock.now()
    flow.app.ledger.write(
        lambda transaction: transaction.connection.execute(
            history_gaps.insert(),
            [
                {
                    "source": "oa",
                    "since": number,
                    "until": number + 1,
                    "reason": "deleted",
                    "detail": "",
                    "found_at": now - 8 * DAY,
                }
                for number in range(1000)
            ],
        )
    )
    engine_ledger.gap(flow, "oa", now - MINUTE, now, "refused", detail="HTTP 401")
    assert found(flow)[AlertCause.HISTORY_GAP, "oa"].count == 1


@pytest.mark.parametrize("instance_id", ["1; touch x #", "$(touch x)", "it's", "-h"])
def test_the_id_of_an_instance_is_one_word_of_the_command(flow, instance_id):
    """An engine chooses the ids of its instances: a copied command must not run them."""
    engine_ledger.taken_in(flow, "pulled", instance_id, reused=True)
    message = found(flow)[AlertCause.INSTANCE_ID_REUSED, "pulled"].message
    words = shlex.split(re.findall(r"`([^`]+)`", message)[0])
    assert [word for word in words if word != "--"] == ["flowhooks", "engines", "show", instance_id]
    assert ("--" in words) == instance_id.startswith("-")


def test_a_source_is_silent(flow):
    """A source that calls is not silent; without a callback for `silent_after` it is, also if it never called."""
    assert found(flow) == {}
    flow.clock.advance(1800)
    flow.take("i1", source="erp", wait=0)
    flow.clock.advance(3000)
    assert (AlertCause.SOURCE_SILENT, "erp") not in found(flow)
    called = flow.clock.now() - 3000 * SECOND
    flow.clock.advance(700)
    alert = found(flow)[AlertCause.SOURCE_SILENT, "erp"]
    assert (alert.count, alert.started_at) == (1, called)
    assert "`flowhooks sources test erp` shows whether its credential is accepted" in alert.message
    flow.take("i2", source="erp", wait=0)
    found(flow)
    assert (AlertCause.SOURCE_SILENT, "erp") not in found(flow)


def test_a_restart_resolves_no_alert_about_missing_success(flow, harness):
    """After a restart, alerts about a missing success or callback stay open: nothing tells that they have ended."""
    found(flow)
    flow.clock.advance(3700)
    keys = {
        (AlertCause.ENGINE_UNREACHABLE, "oa"),
        (AlertCause.ENGINE_UNREACHABLE, "pulled"),
        (AlertCause.SOURCE_SILENT, "erp"),
    }
    before = {key: found(flow)[key].id for key in keys}
    settings = flow.app.settings
    flow.close()
    flow = harness.open(plugins={"p": engine_plugin()}, start=False, sources=settings.sources)
    for _ in range(3):
        assert {key: alert.id for key, alert in found(flow).items()} == before
        flow.clock.advance(60)
    engine_ledger.position(flow, "oa", succeeded_at=flow.clock.now())
    flow.take("i1", source="erp", wait=0)
    found(flow)
    assert found(flow).keys() == {(AlertCause.ENGINE_UNREACHABLE, "pulled")}


def test_a_source_was_silent_before_the_first_check(flow):
    """Without a callback among the newest events, the trends tell until when the source had an answer."""
    hour = 3600 * SECOND
    answered_at = (flow.clock.now() // hour - 100) * hour
    for started_at, status in ((answered_at - hour, 202), (answered_at, 200), (answered_at + hour, 401)):
        flow.sql("INSERT INTO trends VALUES ('source', 'erp', 3600, ?, ?, 5, 3)", started_at, str(status))
    assert found(flow)[AlertCause.SOURCE_SILENT, "erp"].started_at == answered_at + hour


@pytest.mark.parametrize("restarted", [False, True])
def test_a_callback_from_the_future_does_not_end_source_inactivity(flow, restarted):
    """A callback that was received while the clock was ahead does not count after the clock was corrected."""
    year = 366 * 86_400 * SECOND
    start = flow.clock.now()
    if not restarted:
        found(flow)
    flow.clock.time += year
    flow.take("i1", source="erp", wait=0)
    ingress.ignore(flow, "/status = 1", source="erp")
    if not restarted:
        found(flow)
    flow.clock.time -= year
    assert (AlertCause.SOURCE_SILENT, "erp") not in found(flow)
    flow.clock.advance(3700)
    alert = found(flow)[AlertCause.SOURCE_SILENT, "erp"]
    assert start <= alert.started_at <= start + SECOND


def test_requests_to_a_fixed_url_count_as_source_activity(flow):
    """A source is not silent as long as its requests are stored or ignored."""
    found(flow)
    flow.clock.advance(3000)
    ingress.take(flow, "i1", source="erp", wait=0)
    flow.clock.advance(3000)
    assert (AlertCause.SOURCE_SILENT, "erp") not in found(flow)
    ingress.ignore(flow, "/status = 1", source="erp")
    flow.clock.advance(3000)
    assert (AlertCause.SOURCE_SILENT, "erp") not in found(flow)
    ignored_at = flow.clock.now() - 3000 * SECOND
    flow.clock.advance(700)
    assert found(flow)[AlertCause.SOURCE_SILENT, "erp"].started_at == ignored_at


def test_a_reconciled_event_does_not_count_as_source_activity(flow):
    """An event that was taken in from the history is not a callback."""
    found(flow)
    flow.clock.advance(3700)
    engine_ledger.taken_in(flow, "erp", "i1")
    assert (AlertCause.SOURCE_SILENT, "erp") in found(flow)


def reject(flow, number, status=422, *, first=0, source="erp"):
    """Store rejected requests of a source, the first one `first` seconds ago."""
    now = flow.clock.now()
    row = rejected_requests.RejectedRequest(
        id=flow.clock.new_id(),
        rejected_at=now,
        first_rejected_at=now - first * SECOND,
        count=number,
        source=source,
        path="/flow/1/call-back/complete",
        address="10.0.0.1",
        status=status,
        reason_en="conclusion must be a string",
        reason_zh="conclusion 必须是字符串",
    )
    flow.app.ledger.write(lambda transaction: rejected_requests.store(transaction, [row]))


def test_a_source_is_rejected(flow):
    """Ten callbacks rejected with 4xx in an hour raise an alert with the last reason, if fewer were accepted."""
    reject(flow, MIN_REJECTED - 1)
    reject(flow, 100, status=503)
    assert found(flow) == {}
    reject(flow, 1)
    alert = found(flow)[AlertCause.SOURCE_REJECTED, "erp"]
    assert (alert.count, alert.last_error) == (MIN_REJECTED, "422: conclusion must be a string")
    assert "10 callbacks of source erp have been rejected" in alert.message
    for number in range(MIN_REJECTED):
        flow.take(f"i{number}", source="erp", wait=0)
    found(flow)
    assert (AlertCause.SOURCE_REJECTED, "erp") not in found(flow)


def test_old_rejections_do_not_count(flow):
    """Of equal requests that began long ago, only the estimated number of the last hour counts."""
    reject(flow, 18, first=7200)
    assert found(flow) == {}
    reject(flow, 1000, status=400, first=7200)
    assert found(flow)[AlertCause.SOURCE_REJECTED, "erp"].count == 9 + 500


def test_an_operator_must_confirm(flow):
    """A reconciliation that waits for an operator raises an alert with the number and both commands."""
    ended = flow.clock.now() - DAY
    engine_ledger.instance(flow, "oa", "4711", disposition="in_grace", ended_at=ended)
    engine_ledger.position(flow, "oa", to_confirm=1200)
    alert = found(flow)[AlertCause.RECONCILIATION_UNCONFIRMED, "oa"]
    assert (alert.count, alert.started_at) == (1200, ended)
    assert "`flowhooks engines reconcile --source oa --confirm`" in alert.message
    engine_ledger.position(flow, "oa", to_confirm=1200, confirmed_at=flow.clock.now())
    found(flow)
    assert found(flow) == {}


def test_instances_that_cannot_become_events(flow):
    """Instances that are skipped because of their data raise an alert by rule, with the last reason, for a day."""
    now = flow.clock.now()
    for number, rule in enumerate(("too_large", "too_large", "invalid", "invalid_id", "rejected", "child", "purged")):
        engine_ledger.instance(
            flow,
            "oa",
            f"i{number}",
            disposition="skipped",
            rule=rule,
            detail=f"reason {number}",
            ended_at=now - (10 - number) * MINUTE,
            changed_at=now - (3 - number if number < 3 else number) * SECOND,
        )
    alert = found(flow)[AlertCause.INSTANCES_INVALID, "oa"]
    assert (alert.count, alert.started_at, alert.last_error) == (5, now - 10 * MINUTE, "i2: reason 2")
    assert "2 too_large, 1 invalid, 1 invalid_id, 1 rejected; the last one is i2: reason 2" in alert.message
    assert "`flowhooks engines reconcile --source oa --since 2025-12-31T23:50:00.000Z`" in alert.message
    engine_ledger.instance(
        flow, "oa", "earlier", disposition="skipped", rule="invalid", ended_at=now - DAY, changed_at=now
    )
    later = found(flow)[AlertCause.INSTANCES_INVALID, "oa"]
    assert (later.id, later.count, later.started_at) == (alert.id, 6, alert.started_at)
    assert "`flowhooks engines reconcile --source oa --since 2025-12-31T00:00:00.000Z`" in later.message
    flow.clock.advance(DAY // SECOND + 1)
    found(flow)
    assert (AlertCause.INSTANCES_INVALID, "oa") not in found(flow)


def test_the_clocks_differ(flow):
    """A difference of more than 30 s raises an alert with the difference."""
    engine_ledger.position(flow, "pulled", skew=-31 * SECOND)
    assert "by -31.0 s" in found(flow)[AlertCause.CLOCK_SKEW, "pulled"].message


def test_a_source_that_was_removed_has_no_alerts(flow):
    """Rows of a source that the settings no longer have raise nothing."""
    engine_ledger.position(flow, "gone", failed_since=flow.clock.now(), failures=9, to_confirm=5, skew=60 * SECOND)
    reject(flow, 50, source="gone")
    assert found(flow) == {}
