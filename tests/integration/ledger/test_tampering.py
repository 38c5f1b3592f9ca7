"""`flowhooks verify` reports each kind of change outside flowhooks and names the row, on both databases."""

from __future__ import annotations

import uuid
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from flowhooks import State
from flowhooks.ledger import database
from flowhooks.ledger.consistency import verify
from flowhooks.ledger.upgrade import upgrade
from flowhooks.testing import ManualClock
from support.app_harness import LedgerHarness
from support.rich_ledger import fill

DAY = 86_400 * 1_000_000
YEARS = 30 * 365 * DAY


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def rich(request, tmp_path_factory, ledger_steps_of):
    """Such a ledger on either database, and an engine that writes to it."""
    folder, url = tmp_path_factory.mktemp("rich"), ""
    if request.param == "postgresql":
        server, name = request.getfixturevalue("postgresql_server"), f"rich_{uuid.uuid4().hex}"
        url = server.make(name)
        upgrade(url)
    harness = LedgerHarness(folder, ManualClock(), url)
    fill(harness, ledger_steps_of)
    engine = database.open_engine(harness.address, writing=True)
    yield engine
    engine.dispose()
    if url:
        server.drop(name)


EVENT = "(SELECT id FROM events WHERE flow_instance_id = '{}')"
DELIVERY = "(SELECT min(id) FROM deliveries WHERE handler = '{}')"
DONE = EVENT.format("done")
RAN = DELIVERY.format("p:ordered")


def of_event(instance, change):
    """A case that changes an event."""
    return EVENT.format(instance), [f"UPDATE events SET {change} WHERE flow_instance_id = '{instance}'"]


def of_delivery(handler_id, change):
    """A case that changes a delivery."""
    return DELIVERY.format(handler_id), [f"UPDATE deliveries SET {change} WHERE handler = '{handler_id}'"]


def of_attempt(handler_id, change):
    """A case that changes a delivery's only attempt."""
    delivery = DELIVERY.format(handler_id)
    return delivery, [f"UPDATE attempts SET {change} WHERE delivery_id = {delivery}"]


def of_conflict(change):
    """A case that changes a conflicting body."""
    return DONE, [f"UPDATE conflicts SET {change}"]


def of_pulled(change):
    """A case that changes the reconciled event whose instance id an earlier event has."""
    reused = "(SELECT id FROM events WHERE instance_started_at IS NOT NULL)"
    return reused, [f"UPDATE events SET {change} WHERE instance_started_at IS NOT NULL"]


def of_late(change):
    """A case that changes a late callback."""
    return "(SELECT event_id FROM late_callbacks)", [f"UPDATE late_callbacks SET {change}"]


def of_instance(instance, change):
    """A case that changes what is recorded of an engine's instance."""
    return f"'{instance}'", [f"UPDATE engine_instances SET {change} WHERE flow_instance_id = '{instance}'"]


def of_position(change):
    """A case that changes what is recorded of an engine."""
    return "'oa'", [f"UPDATE engine_positions SET {change}"]


def of_ignored(change):
    """A case that changes the count of ignored requests."""
    return "'/status = 1'", [f"UPDATE ignored_requests SET {change}"]


def of_trend(change):
    """A case that changes the counts of a trend."""
    return "'p:counted'", [f"UPDATE trends SET {change} WHERE subject = 'p:counted'"]


def of_handler(change):
    """A case that changes a handler's row."""
    return "'p:ordered'", [f"UPDATE handlers SET {change} WHERE id = 'p:ordered'"]


TAMPERING = {
    # Events: received data.
    "a body is altered": of_event("done", "body = replace(body, 'k1', 'k9')"),
    "a body is no JSON": of_event("done", "body = 'no JSON'"),
    "a body is empty": of_event("parked", "body = ''"),
    "white space in a body is altered": of_event("done", "body = body || ' '"),
    "a digest is altered": of_event("done", "digest = 'x'"),
    "the checksum of a body is altered": of_event("done", "body_sha256 = 'x'"),
    "the checksum of a body is removed": of_event("done", "body_sha256 = NULL"),
    "the checksum of a row is altered": of_event("done", "row_sha256 = 'x'"),
    "the checksum of a row is removed": of_event("done", "row_sha256 = NULL"),
    "a business key is altered": of_event("done", "business_key = 'k9'"),
    "a business key is removed": of_event("done", "business_key = NULL"),
    "a flow instance id is altered": of_event("parked", "flow_instance_id = 'other'"),
    "a source is altered": of_event("done", "source = 'other'"),
    "a kind is altered": of_event("done", "kind = 'cancel'"),
    "a class is altered": of_event("failed", "callback_class = 'com.example.Other'"),
    "a process key is altered": of_event("parked", "process_definition_key = 'other'"),
    "a process version is altered": of_event("done", "process_definition_version = 4"),
    "a process id is altered": of_event("done", "process_definition_id = 'leave:4:1'"),
    "a conclusion is altered": of_event("done", "conclusion = 'rejected'"),
    "a conclusion is removed": of_event("done", "conclusion = NULL"),
    "a trace is added to an event": of_event("done", "traceparent = 'x'"),
    "a trace of an event is altered": of_event("ingress", "traceparent = replace(traceparent, '4736', '4737')"),
    "a trace of an event is removed": of_event("ingress", "traceparent = NULL"),
    "a received body is altered": of_event("ingress", "raw_body = replace(raw_body, 'ingress', 'other')"),
    "a received body is removed": of_event("ingress", "raw_body = NULL"),
    "a received body is added to an event": of_event("done", "raw_body = body"),
    "the media type of a received body is altered": of_event("ingress", "media_type = 'text/plain'"),
    "the media type of a received body is removed": of_event("ingress", "media_type = NULL"),
    "an event is said to be that of a fixed URL": of_event("done", "origin = 'ingress'"),
    "an event of a fixed URL is said to be that of a callback": of_event("ingress", "origin = 'callback'"),
    "the time of an event is altered": of_event("done", "received_at = received_at + 1"),
    "an event is said to be taken in": of_event("done", "origin = 'reconciled'"),
    "a reconciled event is said to be that of a callback": of_pulled("origin = 'callback'"),
    "an event has an origin that there is not": of_event("done", "origin = 'x'"),
    "the start of a reconciled instance is altered": of_pulled("instance_started_at = instance_started_at + 1"),
    "the start of a reconciled instance is removed": of_pulled("instance_started_at = NULL"),
    # Events: routes.
    "an event is in no state": of_event("parked", "state = 'gone'"),
    "a routed event is dismissed": of_event("done", "state = 'dismissed'"),
    "a routed event is dismissed for a reason": of_event("done", "state = 'dismissed', dismissed_by = 'operator'"),
    "a routed event is parked": of_event("done", "state = 'parked'"),
    "a routed event is parked for a reason": of_event("done", "state = 'parked', parked_by = 'handler'"),
    "a parked event is routed": of_event("parked", "state = 'routed'"),
    "a parked event is dismissed": of_event("parked", "state = 'dismissed'"),
    "a dismissed event is parked": of_event("ignored", "state = 'parked'"),
    "a dismissed event is routed": of_event("ignored", "state = 'routed'"),
    "a reason for parking is none": of_event("parked", "parked_by = 'x'"),
    "a reason for parking is removed": of_event("parked", "parked_by = NULL"),
    "a reason for dismissing is none": of_event("ignored", "dismissed_by = 'x'"),
    "a routed event has a reason for dismissing": of_event("done", "dismissed_by = 'kind'"),
    "reasons for not matching are no JSON": of_event("parked", "no_match = '{'"),
    "reasons for not matching have another name": of_event("parked", """no_match = '{"reasonz": {}, "total": 1}'"""),
    "a route is emptied": of_event("done", "route = '{}'"),
    "a route is emptied, with its size": of_event("done", "route = '{}', route_size = 0"),
    "a route is emptied, with its size, and dismissed": of_event(
        "done", "route = '{}', route_size = 0, state = 'dismissed', dismissed_by = 'setting'"
    ),
    "a route is no JSON": of_event("done", "route = '{'"),
    "a route is a list": of_event("done", "route = '[]'"),
    "a route names another handler": of_event("done", "route = replace(route, 'p:ordered', 'p:other')"),
    "a route asks for more": of_event("done", "route_size = 3"),
    "a route asks for less": of_event("two", "route_size = 1"),
    "repeats are negative": of_event("done", "repeats = -1"),
    "an event is deleted": (
        "'events were accepted'",
        [
            "DELETE FROM deliveries WHERE event_id = " + EVENT.format("parked"),
            "DELETE FROM events WHERE flow_instance_id = 'parked'",
        ],
    ),
    "an event is deleted, and its delivery is left": (
        DELIVERY.format("q:waiting"),
        ["DELETE FROM events WHERE flow_instance_id = 'i-waiting'"],
    ),
    # Conflicts.
    "a conflicting body is altered": of_conflict("body = 'x'"),
    "the digest of a conflicting body is altered": of_conflict("digest = 'x'"),
    "the checksum of a conflicting body is altered": of_conflict("body_sha256 = 'x'"),
    "the time of a conflicting body is altered": of_conflict("received_at = 1"),
    "a conflicting body has the event's digest": of_conflict(
        "digest = (SELECT digest FROM events WHERE id = event_id)"
    ),
    "a conflicting body is of no event": ("'nothing'", ["UPDATE conflicts SET event_id = 'nothing'"]),
    # Late callbacks, and the book of the instances of an engine.
    "a late callback is altered": of_late("body = 'x'"),
    "the digest of a late callback is altered": of_late("digest = 'x'"),
    "the checksum of a late callback is altered": of_late("body_sha256 = 'x'"),
    "the time of a late callback is altered": of_late("received_at = received_at + 1"),
    "a late callback is repeated less than never": of_late("repeats = -1"),
    "a late callback has the event's digest": of_late("digest = (SELECT digest FROM events WHERE id = event_id)"),
    "a late callback is moved to the event of a callback": (DONE, [f"UPDATE late_callbacks SET event_id = {DONE}"]),
    "a late callback is of no event": ("'nothing'", ["UPDATE late_callbacks SET event_id = 'nothing'"]),
    "an instance with an event has none": of_instance("pulled", "event_id = NULL"),
    "an instance has an event that does not exist": of_instance(
        "pulled", "event_id = '019b76da-a800-7000-8000-00000000ffff'"
    ),
    "an instance has the event of another one": of_instance("pulled", f"event_id = {DONE}"),
    "an instance with an event waits": of_instance("pulled", "disposition = 'in_grace'"),
    "an instance with an event is skipped": of_instance("pulled", "disposition = 'skipped'"),
    "an instance that waits has an event": of_instance("waits", "disposition = 'has_event'"),
    "an instance that waits has no body": of_instance("waits", "body = NULL"),
    "an instance that waits has a body that is no JSON": of_instance("waits", "body = '{'"),
    "an instance that waits is skipped": of_instance("waits", "disposition = 'skipped', body = NULL"),
    "a skipped instance waits": of_instance("child", "disposition = 'in_grace'"),
    "a skipped instance has no rule": of_instance("child", "rule = ''"),
    "an instance is in no disposition": of_instance("child", "disposition = 'x'"),
    "an instance ended in no way": of_instance("child", "end_state = 'x'"),
    "an instance ended long before 1970": of_instance("child", f"ended_at = -{YEARS}"),
    "an instance changed in the future": of_instance("child", f"changed_at = changed_at + {YEARS}"),
    "an instance changed before it was seen": of_instance("child", f"changed_at = changed_at - {YEARS}"),
    "a history was read until before 1970": of_position("position = -1"),
    "the errors of a history are not counted": of_position("failures = 0"),
    "a history has errors for no reason": of_position("reason = ''"),
    "a history has errors since never": of_position("failed_since = NULL"),
    "the start of a decline is removed": of_position("declining_after = NULL"),
    "the note of a decline is removed": of_position("declining_note = NULL"),
    "a decline ends before it starts": of_position("declining_until = declining_after - 1"),
    "the definitions of an engine are no JSON": of_position("definitions = '{'"),
    "a gap ends before it begins": ("'oa'", ["UPDATE history_gaps SET until = since - 1"]),
    "a gap is for no reason": ("'oa'", ["UPDATE history_gaps SET reason = 'x'"]),
    "a gap was found in the future": ("'oa'", [f"UPDATE history_gaps SET found_at = found_at + {YEARS}"]),
    # Deliveries.
    "a delivery is deleted": (
        EVENT.format("i-waiting"),
        ["DELETE FROM deliveries WHERE handler = 'q:waiting'"],
    ),
    "one of two deliveries is deleted": (EVENT.format("two"), ["DELETE FROM deliveries WHERE handler = 'q:y'"]),
    "a delivery is added": (
        EVENT.format("two"),
        [
            (
                "INSERT INTO deliveries SELECT 'new', event_id, 'q:new', 'waiting', 0, 0, due_at, '', created_at, "
                "changed_at, NULL, 0, NULL, NULL, NULL FROM deliveries WHERE handler = 'q:x'"
            )
        ],
    ),
    "a delivery is moved to another event": (
        EVENT.format("two"),
        ["UPDATE deliveries SET event_id = " + EVENT.format("i-dead") + " WHERE handler = 'q:x'"],
    ),
    "a delivery is to another handler": (
        EVENT.format("done"),
        ["UPDATE deliveries SET handler = 'p:z' WHERE id = " + RAN],
    ),
    "a delivery is in no state": of_delivery("q:waiting", "state = 'gone'"),
    "an attempt is counted that was not made": of_delivery("q:dead", "attempt = 2"),
    "an attempt is not counted": of_delivery("q:retried", "attempt = 0"),
    "a retry schedule is from a later attempt": of_delivery("q:retried", "retry_base = 5"),
    "a retry schedule is from a negative attempt": of_delivery("q:retried", "retry_base = -1"),
    "a delivery is due forever": of_delivery("q:waiting", "due_at = 9000000000000000000"),
    "a delivery is due in thirty years": of_delivery("q:waiting", f"due_at = due_at + {YEARS}"),
    "a delivery is due before 1970": of_delivery("q:waiting", "due_at = -1"),
    "a delivery that ended is due": of_delivery("q:succeeded", "due_at = changed_at"),
    "a delivery that runs is due": of_delivery("q:running", "due_at = changed_at"),
    "a delivery was made years ago": of_delivery("q:waiting", f"created_at = created_at - {YEARS}"),
    "a delivery changed before it was made": of_delivery("q:waiting", f"changed_at = changed_at - {YEARS}"),
    "a delivery changed in the future": of_delivery("q:waiting", f"changed_at = changed_at + {YEARS}"),
    "a delivery is ordered by another key": of_delivery("p:ordered", "order_key = 'other'"),
    "a delivery that is not ordered has a position": of_delivery("q:waiting", "order_position = 3"),
    "a delivery that was never begun has begun": of_delivery("q:waiting", "order_position = -1"),
    "a delivery has a position that there is not": of_delivery("q:waiting", "order_position = -7"),
    # Attempts.
    "an attempt is deleted": (RAN, ["DELETE FROM attempts WHERE delivery_id = " + RAN]),
    "an earlier attempt is deleted": (
        DELIVERY.format("q:retried"),
        ["DELETE FROM attempts WHERE delivery_id = " + DELIVERY.format("q:retried")],
    ),
    "an attempt is added": (
        DELIVERY.format("q:dead"),
        [
            "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback) "
            "SELECT delivery_id, 2, process, started_at, finished_at, 'failed', '', '' "
            "FROM attempts WHERE delivery_id = " + DELIVERY.format("q:dead")
        ],
    ),
    "an attempt is of no delivery": (
        "'nothing'",
        [
            "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback) "
            "SELECT 'nothing', 1, process, started_at, finished_at, outcome, error, traceback "
            "FROM attempts WHERE delivery_id = " + RAN
        ],
    ),
    "an attempt is renumbered": of_attempt("q:dead", "number = 2"),
    "an attempt is number 0": of_attempt("q:dead", "number = 0"),
    "an attempt that runs has ended": of_attempt("q:running", "outcome = 'succeeded'"),
    "an attempt that ended runs": of_attempt("q:dead", "outcome = NULL"),
    "an attempt that ended has no end": of_attempt("q:dead", "finished_at = NULL"),
    "an attempt has an outcome that there is not": of_attempt("q:retried", "outcome = 'bogus'"),
    "an attempt has another outcome": of_attempt("q:succeeded", "outcome = 'failed'"),
    "an attempt was made by nobody": of_attempt("q:dead", "process = 'nobody'"),
    "an attempt began in the future": of_attempt("q:dead", f"started_at = started_at + {YEARS}"),
    "an attempt began years before its delivery": of_attempt("q:dead", f"started_at = started_at - {YEARS}"),
    "an attempt ended in the future": of_attempt("q:dead", f"finished_at = finished_at + {YEARS}"),
    "an attempt ended before it began": of_attempt("q:dead", f"finished_at = finished_at - {YEARS}"),
    "a result is no JSON": (RAN, ["UPDATE attempts SET result = '{' WHERE delivery_id = " + RAN]),
    # More kinds of tampering.
    "the count of accepted events is raised": (
        "'events were accepted'",
        ["UPDATE counters SET value = value + 1 WHERE name = 'accepted'"],
    ),
    "the count of accepted events is deleted": ("'events were accepted'", ["DELETE FROM counters"]),
    "events are said to be purged": ("'were purged'", ["UPDATE counters SET value = 7 WHERE name = 'purged'"]),
    "a counter is negative": (
        "'accepted of process nobody'",
        ["INSERT INTO counters VALUES ('accepted', 'nobody', -1)"],
    ),
    "a counter is none": ("'bogus of process nobody'", ["INSERT INTO counters VALUES ('bogus', 'nobody', 1)"]),
    "a field is indexed of no event": ("'nothing'", ["UPDATE event_fields SET event_id = 'nothing'"]),
    "another number is indexed": (EVENT.format("order"), ["UPDATE event_fields SET number = number + 1"]),
    "another text is indexed": (EVENT.format("order"), ["UPDATE event_fields SET value = 'x'"]),
    "another field is indexed": (EVENT.format("order"), ["UPDATE event_fields SET field = '/x'"]),
    "ignored requests are counted less than once": of_ignored("count = 0"),
    "ignored requests are of no source": ("'ignored_requests'", ["UPDATE ignored_requests SET source = ''"]),
    "ignored requests are of no rule": ("'ignored_requests'", ["UPDATE ignored_requests SET rule = ''"]),
    "the last ignored request was received before the first": of_ignored(f"last_at = last_at - {DAY}"),
    "one ignored request was received at two times": of_ignored("count = 1"),
    "an ignored request was received in the future": of_ignored(f"last_at = last_at + {YEARS}"),
    "the counts of a trend are of no kind": of_trend("kind = 'bogus'"),
    "the counts of a trend are of nothing": ("'trends'", of_trend("subject = ''")[1]),
    "the counts of a trend are of no minute": of_trend("started_at = started_at + 1"),
    "the counts of a trend are of the future": of_trend(f"started_at = started_at + {YEARS}"),
    "the counts of a trend have another resolution": of_trend("resolution = 61"),
    "the counts of a trend have no outcome": of_trend("outcome = ''"),
    "the counts of a trend have an outcome that there is not": of_trend("outcome = 'bogus'"),
    "the counts of a trend have a bucket that there is not": of_trend("bucket = 3"),
    "the counts of a trend are negative": of_trend("count = -1"),
    "identities of purged events are added": (
        "'the identities of 2 are kept'",
        [
            (
                "INSERT INTO purged_identities SELECT 'x', 'x', digest, received_at, instance_sha256, origin "
                "FROM purged_identities"
            )
        ],
    ),
    "an event is kept under another identity": of_event("parked", "identity_sha256 = 'x'"),
    "the identity of a stored event is that of a purged one": (
        DONE,
        [f"UPDATE purged_identities SET event_id = {DONE}"],
    ),
    "selectors are no JSON": of_handler("selectors = '{'"),
    "selectors are a list": of_handler("selectors = '[]'"),
    "a retry schedule is no JSON": of_handler("retry = 'x'"),
    "a rate is no rate": of_handler("rate = '99'"),
    "a rate is removed, and its last start is not": of_handler("rate = NULL"),
    "a handler runs less than one at a time": of_handler("concurrency = 0"),
    "a handler is ordered by nothing that there is": of_handler("order_by = 'x'"),
    "a handler has an open circuit but is not paused": of_handler("circuit_opened_at = 1"),
    "a handler is tried but its circuit is closed": of_handler("circuit_retry_at = 1"),
    "a handler is tried in thirty years": of_handler(
        f"circuit_opened_at = 1, paused_at = 1, circuit_retry_at = last_seen_at + {YEARS}"
    ),
    "a process ended before it began": (
        "(SELECT min(id) FROM processes)",
        [f"UPDATE processes SET stopped_at = started_at - {YEARS} WHERE id = (SELECT min(id) FROM processes)"],
    ),
    "the handlers of a process are no JSON": (
        "(SELECT min(id) FROM processes)",
        ["UPDATE processes SET handlers = 'x' WHERE id = (SELECT min(id) FROM processes)"],
    ),
    "the audit log has no JSON": ("(SELECT min(id) FROM audit_log)", ["UPDATE audit_log SET detail = 'x'"]),
    "an alert has no JSON": ("(SELECT min(id) FROM alerts)", ["UPDATE alerts SET notified = 'x'"]),
    "an alert has no JSON of who accepted it": ("(SELECT min(id) FROM alerts)", ["UPDATE alerts SET accepted = 'x'"]),
    "an alert has no JSON of whom to notify of its end": (
        "(SELECT min(id) FROM alerts)",
        ["UPDATE alerts SET resolution_due = 'x'"],
    ),
    "an alert has no JSON of errors": (
        "(SELECT min(id) FROM alerts)",
        ["UPDATE alerts SET notification_errors = '[]'"],
    ),
    **{
        f"what is {was} is said to be {said}": of_delivery(f"q:{was}", f"state = '{said}'")
        for was, all_said in {
            "waiting": ["running", "succeeded", "unknown"],
            "running": ["waiting", "succeeded", "dead", "unknown", "closed"],
            "succeeded": ["waiting", "running", "dead", "unknown", "closed"],
            "dead": ["running", "succeeded", "unknown"],
            "unknown": ["running"],
            "closed": ["running", "succeeded", "unknown"],
            "again": ["running", "unknown"],
        }.items()
        for said in all_said
    },
}


def test_the_documented_number_of_tampering_kinds_is_right():
    """The page on proof has the right number of kinds."""
    assert len(TAMPERING) >= 55


def test_an_unchanged_ledger_balances(rich):
    """Results of normal operation are never reported, in any number."""
    with rich.connect() as connection:
        books = verify(connection)
    assert books.problems == []
    assert books.purged == 1
    assert set(books.events) == {"dismissed", "parked", "routed"}
    assert set(books.deliveries) == {*State}


@contextmanager
def changing(connection):
    """A transaction without constraints that makes changes and is rolled back."""
    if connection.dialect.name == "sqlite":
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
    with connection.begin() as transaction:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL session_replication_role = 'replica'"))
        yield
        transaction.rollback()


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_is_reported(rich, case):
    """Each change is reported by a sentence that names the row or the sum."""
    named, statements = TAMPERING[case]
    with rich.connect() as connection, changing(connection):
        key = connection.execute(text(f"SELECT {named}")).scalar_one()
        for statement in statements:
            assert connection.execute(text(statement)).rowcount > 0, statement
        problems = verify(connection).problems
    assert any(key in line for line in problems), problems
