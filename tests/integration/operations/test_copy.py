"""A ledger with every kind of row is copied from SQLite to PostgreSQL and back, with interruptions."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import select

from flowhooks import Retry, State
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict, LedgerSchemaTooOld, LedgerUnusable
from flowhooks.intake.callback import AnswerStatus
from flowhooks.ledger import database, row_stream
from flowhooks.ledger.checksums import texts_sha256
from flowhooks.ledger.copy import DatabaseSnapshot
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.tables import events, metadata
from flowhooks.ledger.upgrade import upgrade
from flowhooks.ledger.value_checks import EARLIEST
from flowhooks.operations.copy import copy
from flowhooks.operations.pause import pause
from support import engine_rows, operation_rows
from support.app_harness import ingress_callback
from support.waiting import WAIT_TIMEOUT

CHINESE = "合同 C-2026-17 已签署 归档 𠮷"
LARGE = CHINESE * 40_000
NAMES = [table.name for table in metadata.sorted_tables]

pytestmark = pytest.mark.sqlite  # the source is on SQLite; it is copied to PostgreSQL


@contextmanager
def quiet(_what, _total):
    """Ignore the progress."""
    yield lambda _more: None


def move(source, target, **more):
    """Copy a ledger."""
    return copy(source, target, **{"heartbeat_timeout": 30.0, "progress": quiet} | more)


def rows(url):
    """All rows of a ledger: each table's rows by their keys."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return {table.name: _read(connection, table) for table in metadata.sorted_tables}
    with psycopg.connect(url) as connection:
        return {table.name: _read(connection, table) for table in metadata.sorted_tables}


def _read(connection, table):
    columns = [column.name for column in table.c]
    found = connection.execute(f"SELECT {', '.join(columns)} FROM {table.name}").fetchall()
    keys = [column.name for column in table.primary_key]
    made = [dict(zip(columns, row, strict=True)) for row in found]
    return {tuple(row[key] for key in keys): row for row in made}


def ended(furniture):
    """The same rows with an end for every process, as after its last heartbeat or kill."""
    for row in furniture["processes"].values():
        if row["stopped_at"] is None:
            row["stopped_at"] = max(row["heartbeat_at"], row["started_at"])
    return furniture


class Rooms:
    """The handlers of the copied ledger: one for each way in which an attempt can end, and its result."""

    def __init__(self, listens):
        self.entered = []
        self.hold = threading.Event()
        self.running = threading.Semaphore(0)

        def good(event):
            self.entered.append(("good", event.flow_instance_id))
            return {"archived": CHINESE}

        def bad(event):
            raise ValueError(f"no: {CHINESE}")

        def slow(event):
            self.entered.append(("slow", event.flow_instance_id))
            self.running.release()
            self.hold.wait(WAIT_TIMEOUT)

        def again(event):
            self.entered.append(("again", event.flow_instance_id))
            self.running.release()
            self.hold.wait(WAIT_TIMEOUT)

        def later(event):
            raise ValueError("not yet")

        def missing(event):
            self.entered.append(("missing", event.flow_instance_id))

        self.handlers = [
            listens(good, process_key="good"),
            listens(bad, process_key="bad"),
            listens(slow, process_key="slow"),
            listens(again, process_key="again", retry=Retry(attempts=3, delays=[0], jitter=0)),
            listens(good, name="approved", process_key="leave", conclusion="approved"),
            listens(later, process_key="later", retry=Retry(attempts=9, delays=[3600], jitter=0)),
        ]
        self.missing = listens(missing, process_key="missing")


def made_up_id(number):
    """Return a valid id that no clock makes."""
    return f"00000000-0000-7000-8000-{number:012x}"


@pytest.fixture
def rooms(listens):
    """The handlers for the copied ledger."""
    return Rooms(listens)


@pytest.fixture
def furnished(harness, rooms):
    """A SQLite ledger with every kind of row; its last process was killed while two deliveries ran."""
    harness.open(rooms.missing).close()
    flow = harness.open(*rooms.handlers, search={"fields": ("/processDefinitionVersion", "/text")})
    flow.take("good", key="good", businessKey=CHINESE, processDefinitionVersion=3, text=LARGE)
    flow.take("good", key="good", businessKey=CHINESE, processDefinitionVersion=3, text=LARGE)  # a repeat
    with pytest.raises(IdentityConflict):
        flow.take("good", key="good", businessKey="another")
    flow.take("good", key="good", callback_class="com.example.Other", source="erp")
    flow.take("bad", key="bad")
    flow.take("later", key="later", wait=0)
    flow.settled(flow.events(flow_instance_id="later")[0], State.WAITING, attempt=1)
    flow.take("parked", key="nobody", message="signed-1")
    flow.take("rejected", key="leave", conclusion="rejected")
    assert flow.app.intake.accept_all([ingress_callback("ingress", key="nobody", text=CHINESE)])
    flow.take("shelved", key="missing", wait=0)
    pulled = flow.take_in("pulled", key="nobody").event_id
    flow.app.ledger.write(lambda transaction: operation_rows.fill(transaction, made_up_id(8), EARLIEST + 8))
    flow.app.ledger.write(lambda transaction: engine_rows.fill(transaction, "oa", pulled, harness.clock.now()))
    for key in ("slow", "again"):
        flow.take(key, key=key, wait=0)
        assert rooms.running.acquire(timeout=WAIT_TIMEOUT)
    harness.crash(flow)
    flow.sql("UPDATE processes SET stopped_at = NULL WHERE id = ?", flow.app.ledger.process)
    for number, closed in ((1, None), (2, harness.clock.now())):
        flow.sql(
            "INSERT INTO alerts "
            "(id, cause, subject, message, started_at, count, event_id, opened_at, notified, closed_at)"
            f" VALUES (?, 'dead', 'p:gone', ?, {EARLIEST + 1}, 1, '', {EARLIEST + 2}, '[\"notice\"]', ?)",
            made_up_id(number),
            CHINESE,
            closed,
        )
    flow.sql(
        "INSERT INTO rejected_requests VALUES (?, ?, ?, 5, 'erp', '/flow/1', '127.0.0.1', 400, 'no', ?, ?, 'curl', ?)",
        made_up_id(3),
        EARLIEST + 3,
        EARLIEST + 2,
        CHINESE,
        texts_sha256(("fingerprint",)),
        made_up_id(9),
    )
    flow.sql(
        "INSERT INTO ignored_requests VALUES ('erp', '/status = 1', 9, ?, ?, ?, 'application/json')",
        *(EARLIEST + 9, EARLIEST + 10, CHINESE),
    )
    flow.sql("INSERT INTO trends VALUES ('handler', ?, 3600, ?, 'failed', -1, 3)", CHINESE, EARLIEST + 800_000_000)
    digest = texts_sha256(("digest",))
    flow.sql("UPDATE handlers SET retired_at = ? WHERE id = 'p:later'", EARLIEST + 77)
    flow.sql(
        "INSERT INTO audit_log VALUES (?, ?, ?, 'console', 'replay', '', '{}')", made_up_id(4), EARLIEST + 4, CHINESE
    )
    flow.sql("INSERT INTO sessions VALUES (?, ?, ?, ?)", digest, CHINESE, EARLIEST + 5, EARLIEST + 6)
    flow.sql("INSERT INTO required_credentials VALUES ('sources', ?)", EARLIEST + 7)
    flow.sql(
        "INSERT INTO purged_identities VALUES (?, ?, ?, ?, ?, 'callback')",
        *(digest, made_up_id(5), digest, EARLIEST + 7, digest),
    )
    flow.sql("INSERT INTO counters VALUES ('accepted', ?, 1), ('purged', ?, 1)", made_up_id(6), made_up_id(6))
    yield harness
    rooms.hold.set()


@pytest.fixture
def empty(postgresql_server):
    """An empty PostgreSQL database without tables."""
    name = "flowhooks_copy_target"
    yield postgresql_server.make(name)
    postgresql_server.drop(name)


def run(url, statement, *values):
    """Change a ledger on PostgreSQL outside flowhooks."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement, values).rowcount


def test_a_copy_to_postgresql_and_back_keeps_every_row(furnished, empty, tmp_path):
    """SQLite to PostgreSQL to SQLite: every row of every table is equal, and so are the digests."""
    before = rows(furnished.address)
    assert all(before[name] for name in NAMES), {name: len(before[name]) for name in NAMES}
    states = {row["state"] for row in before["deliveries"].values()}
    assert states == {"succeeded", "dead", "waiting", "running"}
    assert any(len(row["body"]) > len(LARGE) for row in before["events"].values())

    there = move(furnished.address, empty)
    assert there.made
    assert there.books.is_consistent
    assert {name: (table.rows, table.kept) for name, table in there.tables.items()} == {
        name: (len(before[name]), 0) for name in NAMES
    }
    assert rows(furnished.address) == before, "the source stays as it is"
    assert rows(empty) == ended(before)

    back = move(empty, f"sqlite:///{tmp_path / 'back.db'}")
    assert rows(f"sqlite:///{tmp_path / 'back.db'}") == before
    assert {name: table.digest for name, table in back.tables.items()} == {
        name: table.digest for name, table in there.tables.items()
    }


def test_open_deliveries_continue_in_the_copy(furnished, rooms, empty):
    """The first start recovers the killed process's attempts, and runs deliveries without a due time."""
    move(furnished.address, empty)
    rooms.hold.set()
    harness = type(furnished)(furnished.folder, furnished.clock, empty)
    flow = harness.open(*rooms.handlers, rooms.missing)
    try:
        page = [stored.event for stored in flow.app.ledger.page(EventFilter(), limit=100)]
        of = {event.flow_instance_id: event.id for event in page if event.source == "default"}
        assert flow.settled(of["slow"], State.UNKNOWN).attempt == 1
        flow.settled(of["again"], State.SUCCEEDED, attempt=2)
        flow.settled(of["shelved"], State.SUCCEEDED, attempt=1)
        assert rooms.entered.count(("slow", "slow")) == 1
        assert rooms.entered.count(("again", "again")) == 2
        assert rooms.entered.count(("missing", "shelved")) == 1
        assert flow.only(of["later"]).state is State.WAITING
        flow.advance(3600)
        flow.settled(of["later"], State.WAITING, attempt=2)
        again = flow.take("good", key="good", businessKey=CHINESE, processDefinitionVersion=3, text=LARGE)
        assert (again.event_id, again.status) == (of["good"], AnswerStatus.DONE)
        assert rooms.entered.count(("good", "good")) == 2, "one for each class, and none for the repeated callback"
    finally:
        harness.end()


def test_an_ordered_backlog_keeps_its_order_in_the_copy(harness, listens, empty, tmp_path):
    """Blocked deliveries keep their position in both directions; later events come after them."""
    entered = []

    def change(event, delivery):
        entered.append((event.business_key, event.flow_instance_id))
        if delivery.attempt == 1 and event.flow_instance_id.endswith("-9"):
            raise ValueError("not yet")

    handler = listens(change, order_by="business_key", retry=Retry(attempts=9, delays=[3600], jitter=0))
    flow = harness.open(handler)
    lanes = {key: [f"{key}-{number}" for number in range(9, 3, -1)] for key in ("k", "l")}
    for key, instances in lanes.items():
        flow.settled(flow.take(instances[0], wait=0, businessKey=key).event_id, State.WAITING, attempt=1)
        for instance in instances[1:]:
            flow.take(instance, wait=0, businessKey=key)
    assert flow.close()
    there, back = empty, f"sqlite:///{tmp_path / 'back.db'}"
    move(harness.address, there)
    move(there, back)
    assert rows(back) == rows(harness.address)
    for url in (there, back):
        entered.clear()
        moved = type(harness)(tmp_path, harness.clock, url)
        flow = moved.open(handler)
        last = [flow.take(f"{key}-0", wait=0, businessKey=key).event_id for key in lanes]
        if url == there:
            assert entered == [], "nothing overtakes a delivery that waits for its retry"
            flow.advance(3600)
        for event_id in last:
            flow.settled(event_id, State.SUCCEEDED)
        moved.end()
        for key, instances in lanes.items():
            assert [instance for of, instance in entered if of == key] == [*instances, f"{key}-0"], url


def test_an_interrupted_copy_is_resumed(furnished, postgresql_url):
    """Rows that an interrupted copy wrote are compared and kept; a repeat compares all rows."""
    move(furnished.address, postgresql_url)
    whole = rows(postgresql_url)
    for lost in (
        "DELETE FROM attempts",
        "DELETE FROM attempts; DELETE FROM deliveries; DELETE FROM conflicts",
        "TRUNCATE attempts, deliveries, conflicts, processes, alerts",
        (
            "TRUNCATE attempts, deliveries, conflicts, late_callbacks, event_fields, events; "
            "DELETE FROM handlers WHERE id > 'p:good'"
        ),
    ):
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(lost)
        left = {name: len(found) for name, found in rows(postgresql_url).items()}
        moved = move(furnished.address, postgresql_url)
        assert {name: table.kept for name, table in moved.tables.items()} == left
        assert rows(postgresql_url) == whole
    moved = move(furnished.address, postgresql_url)
    assert all(table.kept == table.rows for table in moved.tables.values())
    assert not moved.made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE events SET body = body || ' ' WHERE flow_instance_id = 'bad'", r"a row of events .* \(body\)"),
        ("UPDATE deliveries SET due_at = 1 WHERE due_at IS NULL AND state = 'waiting'", r"deliveries .* \(due_at\)"),
        (
            f"UPDATE alerts SET closed_at = 5 WHERE id = '{made_up_id(1)}'",
            rf"a row of alerts \({made_up_id(1)}\), .* \(closed_at\)",
        ),
        ("UPDATE processes SET stopped_at = NULL, heartbeat_at = 5", r"processes .* \(stopped_at, heartbeat_at\)"),
        ("UPDATE counters SET process = 'x' WHERE name = 'purged'", r"a row of counters .* does not have"),
    ],
)
def test_a_target_that_differs_is_refused(furnished, postgresql_url, change, said):
    """A changed or foreign row in the target is named, and nothing is written."""
    move(furnished.address, postgresql_url)
    assert run(postgresql_url, change)
    run(postgresql_url, "DELETE FROM attempts")
    before = rows(postgresql_url)
    with pytest.raises(LedgerUnusable, match=said) as refused:
        move(furnished.address, postgresql_url)
    assert CHINESE not in str(refused.value)
    assert "Copy into an empty database" in str(refused.value)
    assert rows(postgresql_url) == before


def test_a_target_with_other_callbacks_is_refused(furnished, rooms, postgresql_url):
    """A target with other callbacks is refused."""
    other = type(furnished)(furnished.folder, furnished.clock, postgresql_url)
    flow = other.open(rooms.handlers[0])
    flow.take("mine", key="good")
    other.end()
    before = rows(postgresql_url)
    with pytest.raises(LedgerUnusable, match="which the source does not have"):
        move(furnished.address, postgresql_url)
    assert rows(postgresql_url) == before


def test_a_target_of_another_program_is_refused(furnished, empty):
    """Tables of another program are refused and unchanged."""
    run(empty, "CREATE TABLE theirs (id int)")
    with pytest.raises(LedgerUnusable, match="is not a flowhooks ledger: it has other tables"):
        move(furnished.address, empty)
    with psycopg.connect(empty) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert found == [("theirs",)]


def test_a_target_that_changes_during_the_copy_is_reported(furnished, postgresql_url):
    """A target that changes during the copy is reported."""

    @contextmanager
    def meddling(what, _total):
        if what == "verify":
            run(postgresql_url, "UPDATE deliveries SET comment = 'seen' WHERE state = 'dead'")
        yield lambda _more: None

    with pytest.raises(LedgerUnusable, match=r"is not an exact copy of .* its table deliveries has"):
        move(furnished.address, postgresql_url, progress=meddling)


def test_a_source_with_unbalanced_counts_is_copied_exactly(furnished, postgresql_url):
    """A source whose counts do not balance is copied exactly, and the target's counts do not balance either."""
    with closing(sqlite3.connect(furnished.file)) as connection, connection:
        connection.execute("DELETE FROM attempts WHERE outcome = 'succeeded'")
    furnished.check_at_end = False
    moved = move(furnished.address, postgresql_url)
    assert not moved.books.is_consistent


@pytest.mark.sqlite
def test_damaged_text_is_not_copied(harness, tmp_path):
    """A copy with escapes instead of the damaged bytes would not be exact."""
    harness.check_at_end = False
    flow = harness.open()
    flow.take("damaged")
    flow.sql("UPDATE events SET flow_instance_id = CAST(x'61ff62' AS TEXT)")
    flow.close()
    with pytest.raises(LedgerUnusable, match="Could not decode to UTF-8 column 'flow_instance_id'"):
        move(harness.address, f"sqlite:///{tmp_path / 'copy.db'}")


def test_a_source_of_an_older_version_is_refused(harness, postgresql_url, pending_migration):
    """The error states the remedy; a source is never changed."""
    pending_migration()
    with pytest.raises(LedgerSchemaTooOld, match="flowhooks db upgrade"):
        move(harness.address, postgresql_url)


def test_a_running_process_on_either_database_blocks_the_copy(furnished, rooms, postgresql_url, tmp_path):
    """A process with heartbeats is named; an expired process does not count."""
    there = type(furnished)(furnished.folder, furnished.clock, postgresql_url)
    flow = there.open(rooms.handlers[0])
    said = r"is in use by process \d+ on .*: stop the processes, then copy again"
    with pytest.raises(LedgerUnusable, match=said):
        move(furnished.address, postgresql_url)
    with pytest.raises(LedgerUnusable, match=said):
        move(postgresql_url, f"sqlite:///{tmp_path / 'away.db'}")
    assert not (tmp_path / "away.db").exists()
    there.crash(flow)
    run(postgresql_url, "UPDATE processes SET stopped_at = NULL, heartbeat_at = heartbeat_at - %s", 31 * SECOND)
    assert move(postgresql_url, f"sqlite:///{tmp_path / 'away.db'}").books.is_consistent


def test_batches_have_a_limited_size(harness, postgresql_url):
    """Batches have a limited number of rows, and fewer large rows, on either database."""
    small, large = row_stream.MAX_BATCH_ROWS * 2 + 1, 6
    columns = [column.name for column in events.c]
    text = json.dumps({"text": "x" * (row_stream.MAX_BATCH_CHARS // 2)})
    with closing(sqlite3.connect(harness.file)) as connection, connection:
        connection.executemany(
            f"INSERT INTO events ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            (
                (
                    *(made_up_id(n), "default", "complete", f"i{n}", "", *[None] * 4, body, texts_sha256((body,))),
                    *("parked", "{}", 0, 0, EARLIEST + n, None, "name", *[None] * 4),
                    *(texts_sha256(("default", "complete", f"i{n}", "")), None, "callback", *[None] * 5),
                )
                for n in range(small + large)
                for body in ["{}" if n < small else text]
            ),
        )
        connection.execute("INSERT INTO counters VALUES ('accepted', ?, ?)", (made_up_id(0), small + large))
    move(harness.address, postgresql_url)
    for url in (harness.address, postgresql_url):
        with closing(Reader(url)) as reader, reader.connection() as connection:
            query = select(events).order_by(database.bytewise_order(events.c.id))
            sizes = [len(batch) for batch in DatabaseSnapshot(url, connection).batches(query)]
        assert sizes == [row_stream.MAX_BATCH_ROWS] * 2 + [3, 2, 2], url


def test_a_target_of_a_newer_version_is_refused(harness, postgresql_url, tmp_path):
    """A newer target is refused, as by `db upgrade`, which runs first."""
    upgrade(f"sqlite:///{tmp_path / 'newer.db'}")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerUnusable, match="written by a newer flowhooks"):
        move(postgresql_url, f"sqlite:///{tmp_path / 'newer.db'}")


def test_paused_handlers_stay_paused_in_the_copy(harness, listens, postgresql_url):
    """Paused handlers stay paused, and their deliveries keep waiting in the new database."""
    flow = harness.open(listens(lambda event: None, name="h"))
    pause(flow.app.operation_context, ["p:h"])
    flow.take(wait=0)
    flow.close()
    move(harness.address, postgresql_url)
    with closing(Reader(postgresql_url)) as reader:
        assert reader.paused() == {"p:h": harness.clock.now()}
        assert reader.count_by_state()["waiting"] == 1
