"""The writer commits work in groups; each item is durable before it is answered, and no answer is false."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from flowhooks.errors import Unavailable
from flowhooks.ledger import database, group_commit
from flowhooks.ledger.group_commit import GroupCommitWriter, WriteRequest, call_alone, call_each
from flowhooks.ledger.ledger import Ledger
from support.waiting import WAIT_TIMEOUT

SOON = WAIT_TIMEOUT
NO_LEDGER = SimpleNamespace()
"""`Ledger.wait_for` with a timeout uses nothing of its ledger."""


class Bench:
    """A writer over a table of words, with its commits counted."""

    def __init__(self, path, limit=1000):
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE words (word TEXT PRIMARY KEY, of TEXT REFERENCES words DEFERRABLE)")
        self.engine = database.open_engine(f"sqlite:///{path}", writing=True)
        database.enable_wal(self.engine)
        self.commits = 0
        event.listen(self.engine, "commit", self._count)
        self.writer = GroupCommitWriter(self.engine, max_queued=limit)
        self.writer.start()
        self._free = threading.Event()
        self._free.set()

    def _count(self, _connection):
        self.commits += 1

    def insert(self, transaction, words):
        """Store words, except bad ones."""
        for word in words:
            if word.startswith("bad"):
                transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES ('half')")
                raise ValueError(word)
            transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES (?)", (word,))
        return [word.upper() for word in words]

    def submit(self, word):
        """Queue a word."""
        return self.writer.submit(self.insert, word)

    def hold(self):
        """Keep the writer busy until `free` is called."""
        begun = threading.Event()
        self._free.clear()

        def wait(_transaction):
            begun.set()
            self._free.wait(SOON)

        self.writer.submit(call_each, wait)
        assert begun.wait(SOON)

    def free(self):
        """Let the writer go on."""
        self._free.set()

    def words(self):
        """The rows that another connection reads."""
        with closing(sqlite3.connect(self.path)) as connection:
            return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]

    def close(self):
        """End the writer."""
        self.free()
        self.writer.close()
        self.engine.dispose()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    bench = Bench(tmp_path / "words.db")
    yield bench
    bench.close()


def test_queued_items_are_committed_together(bench):
    """A hundred items that wait for a commit share the next one, and each gets its own result."""
    bench.hold()
    tickets = [bench.submit(f"w{number:03}") for number in range(100)]
    bench.free()
    assert [ticket.result(SOON) for ticket in tickets] == [f"W{number:03}" for number in range(100)]
    assert bench.commits == 2
    assert len(bench.words()) == 100


def test_concurrent_items_need_fewer_commits_than_items(bench, together):
    """Concurrent threads need fewer commits than they have items."""
    several = [lambda n=n: [bench.submit(f"{n}-{i}").result(SOON) for i in range(25)] for n in range(16)]
    results = together(*several)
    assert results == [[f"{n}-{i}" for i in range(25)] for n in range(16)]
    assert len(bench.words()) == 400
    assert bench.commits < 400


class LockingWork:
    """Two work functions that take locks, another one, and the items of each transaction."""

    def __init__(self, bench):
        self.bench = bench
        self.transactions = {}
        bench.writer._run_last = (self.lock, self.lock_too)

    def lock(self, transaction, items):
        """Work that takes locks."""
        return self.work(transaction, items)

    def lock_too(self, transaction, items):
        """Other work that takes locks."""
        return self.work(transaction, items)

    def work(self, transaction, items):
        """Other work."""
        self.transactions.setdefault(transaction, []).extend(items)
        return self.bench.insert(transaction, items)

    def submit(self, first="a"):
        """Queue items of all three, which the writer takes together; return their futures."""
        works = (self.lock, self.work, self.lock_too, self.lock, self.work)
        return [self.bench.writer.submit(work, item) for work, item in zip(works, (first, *"bcde"), strict=True)]


def test_work_that_must_be_alone_shares_no_transaction(bench):
    """The transactions of the other items of its batch come first."""
    locking = LockingWork(bench)
    bench.hold()
    alone = [
        bench.writer.submit(call_alone, lambda transaction, item=item: locking.work(transaction, [item])[0])
        for item in "xy"
    ]
    tickets = locking.submit()
    bench.free()
    assert [ticket.result(SOON) for ticket in [*alone, *tickets]] == list("XYABCDE")
    assert [sorted(items) for items in locking.transactions.values()] == [["a", "b", "d", "e"], ["c"], ["x"], ["y"]]


def test_a_transaction_takes_the_locks_of_one_work_function(bench):
    """It does so last. The items of another function that takes locks are committed by another transaction."""
    locking = LockingWork(bench)
    bench.hold()
    tickets = locking.submit()
    bench.free()
    assert [ticket.result(SOON) for ticket in tickets] == list("ABCDE")
    assert list(locking.transactions.values()) == [["b", "e", "a", "d"], ["c"]]


def test_a_failing_item_does_not_affect_work_with_other_locks(bench):
    """Only its caller gets the error, and all other items of both transactions are stored."""
    locking = LockingWork(bench)
    bench.hold()
    tickets = locking.submit("bad")
    bench.free()
    with pytest.raises(ValueError, match="bad"):
        tickets[0].result(SOON)
    assert [ticket.result(SOON) for ticket in tickets[1:]] == list("BCDE")


def test_no_further_transaction_is_tried_while_the_database_is_down(bench, monkeypatch):
    """If the first transaction of the items that were taken together cannot begin, all callers get the error."""
    tries = []

    def begin():
        tries.append(1)
        raise group_commit._BeginFailed from Unavailable("ledger_down")

    bench.hold()
    tickets = LockingWork(bench).submit()
    monkeypatch.setattr(bench.writer, "_begin", begin)
    bench.free()
    for ticket in tickets:
        with pytest.raises(Unavailable):
            ticket.result(SOON)
    assert tries == [1]


def test_the_batch_size_is_limited(bench):
    """More items than the largest batch are committed in several batches."""
    bench.hold()
    tickets = [bench.submit(f"w{number:04}") for number in range(600)]
    bench.free()
    for ticket in tickets:
        ticket.result(SOON)
    assert bench.commits == 4
    assert len(bench.words()) == 600


def test_a_failing_item_does_not_affect_the_rest_of_its_batch(bench):
    """If one item of a batch raises, the others are stored and only its caller gets the error."""
    bench.hold()
    tickets = [bench.submit(word) for word in ("a", "bad", "b", "c")]
    bench.free()
    assert [tickets[place].result(SOON) for place in (0, 2, 3)] == ["A", "B", "C"]
    with pytest.raises(ValueError, match="bad"):
        tickets[1].result(SOON)
    assert bench.words() == ["a", "b", "c"]


def test_a_constraint_violation_fails_only_its_item(bench):
    """A row that violates a constraint is its caller's error, and the rest of its batch is stored."""
    bench.submit("a").result(SOON)
    bench.hold()
    twice, other = bench.submit("a"), bench.submit("b")
    bench.free()
    assert other.result(SOON) == "B"
    with pytest.raises(Unavailable):
        twice.result(SOON)
    assert bench.words() == ["a", "b"]


def test_a_withdrawn_item_is_not_executed(bench):
    """An item withdrawn before it was taken is not executed."""
    bench.hold()
    given_up, other = bench.submit("given up"), bench.submit("other")
    with pytest.raises(Unavailable) as refusal:
        Ledger.wait_for(NO_LEDGER, given_up, 0.01)
    assert refusal.value.key == "ledger_slow"
    bench.free()
    other.result(SOON)
    assert bench.words() == ["other"]


def test_a_running_item_is_answered_unknown_when_its_caller_stops_waiting(bench):
    """A caller who stops waiting for a running item gets "unknown", not "done"."""
    gate, begun = threading.Event(), threading.Event()

    def slow(transaction):
        transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES ('slow')")
        begun.set()
        gate.wait(SOON)

    ticket = bench.writer.submit(call_each, slow)
    assert begun.wait(SOON)
    with pytest.raises(Unavailable):
        Ledger.wait_for(NO_LEDGER, ticket, 0.01)
    assert bench.words() == []
    gate.set()
    bench.submit("next").result(SOON)
    assert bench.words() == ["next", "slow"]


def test_items_are_rejected_at_once_when_the_queue_is_full(tmp_path):
    """If the queue is full, more items are refused at once."""
    bench = Bench(tmp_path / "full.db", limit=3)
    try:
        bench.hold()
        tickets = [bench.submit(word) for word in "abc"]
        with pytest.raises(Unavailable) as refusal:
            bench.submit("d")
        assert refusal.value.key == "ledger_full"
        bench.free()
        assert [ticket.result(SOON) for ticket in tickets] == ["A", "B", "C"]
        assert bench.submit("d").result(SOON) == "D"
    finally:
        bench.close()


def test_close_commits_the_submitted_items(bench):
    """Items submitted before the end are stored; later ones are refused."""
    bench.hold()
    tickets = [bench.submit(f"w{number:04}") for number in range(700)]
    closing_thread = threading.Thread(target=bench.writer.close)
    closing_thread.start()
    bench.free()
    closing_thread.join(SOON)
    assert not closing_thread.is_alive()
    assert [ticket.result(0) for ticket in tickets] == [f"W{number:04}" for number in range(700)]
    assert len(bench.words()) == 700
    with pytest.raises(Unavailable):
        bench.submit("late")


def test_an_item_that_is_submitted_while_the_writer_closes_gets_its_result(bench, monkeypatch):
    """An item that was not refused is stored, even if the end begins before it is in the queue."""
    closing_thread = threading.Thread(target=bench.writer.close)

    def close_meanwhile(*fields):
        closing_thread.start()
        closing_thread.join(0.1)  # not longer, because the end waits for the item
        return WriteRequest(*fields)

    monkeypatch.setattr("flowhooks.ledger.group_commit.WriteRequest", close_meanwhile)
    ticket = bench.submit("w")
    closing_thread.join(SOON)
    assert ticket.result(0) == "W"


def test_close_can_be_called_twice(bench):
    """A closed writer can be closed again."""
    bench.writer.close()
    bench.writer.close()


def test_a_callback_runs_after_the_commit(bench):
    """A function that runs after the commit sees the row from another connection, before the caller is answered."""
    seen = []

    def work(transaction):
        transaction.after_commit(lambda: seen.append(bench.words()))
        transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES ('w')")

    bench.writer.submit(call_each, work).result(SOON)
    assert seen == [["w"]]


def test_no_callback_runs_after_a_failed_commit(bench):
    """A function for after a commit is not called if the commit failed."""
    seen = []

    def work(transaction):
        transaction.after_commit(lambda: seen.append("called"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bench.writer.submit(call_each, work).result(SOON)
    bench.submit("w").result(SOON)
    assert seen == []


def test_a_callback_that_raises_undoes_no_work(bench, logged):
    """The work is durable, its caller gets its result, the fault is logged and the writer continues."""

    def work(transaction):
        transaction.after_commit(lambda: 1 / 0)
        transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES ('w')")
        return "done"

    assert bench.writer.submit(call_each, work).result(SOON) == "done"
    assert bench.submit("x").result(SOON) == "X"
    assert bench.words() == ["w", "x"]
    assert [entry["event"] for entry in logged] == ["post_commit_hook_failed"]


def test_a_callback_that_raises_does_not_affect_other_callbacks(bench, logged):
    """A raising callback of one item does not affect the callbacks of other items."""
    seen = []

    def failing(transaction):
        transaction.after_commit(lambda: 1 / 0)

    def telling(transaction):
        transaction.after_commit(lambda: seen.append("told"))

    bench.hold()
    tickets = [bench.writer.submit(call_each, failing), bench.writer.submit(call_each, telling)]
    bench.free()
    for ticket in tickets:
        ticket.result(SOON)
    assert seen == ["told"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_no_exception_of_an_item_ends_the_writer(bench, error):
    """Any exception of an item goes to its caller, and the writer continues."""

    def work(_transaction):
        raise error("no")

    with pytest.raises(error):
        bench.writer.submit(call_each, work).result(SOON)
    assert bench.submit("w").result(SOON) == "W"


def test_a_wrong_number_of_results_stores_nothing(bench):
    """Work that does not return one result for each item is an error for all."""

    def short(transaction, items):
        transaction.connection.exec_driver_sql("INSERT INTO words (word) VALUES ('w')")
        return []

    with pytest.raises(ValueError, match="zip"):
        bench.writer.submit(short, 1).result(SOON)
    assert bench.words() == []


def test_a_commit_that_fails_stores_nothing(bench):
    """If the commit fails, the caller gets the error, nothing is stored, and the writer continues."""

    def orphan(transaction):
        transaction.connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        transaction.connection.exec_driver_sql("INSERT INTO words VALUES ('orphan', 'nobody')")

    bench.hold()
    tickets = [bench.writer.submit(call_each, orphan), bench.submit("w")]
    bench.free()
    assert tickets[1].result(SOON) == "W"
    with pytest.raises(Unavailable):
        tickets[0].result(SOON)
    assert bench.words() == ["w"]


def test_the_writer_recovers_after_a_locked_database(bench):
    """While another connection holds the write lock nothing is acknowledged; afterwards the writer recovers."""
    bench.submit("before").result(SOON)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tickets = [bench.submit(word) for word in ("x", "y")]
        for ticket in tickets:
            with pytest.raises(Unavailable) as refusal:
                ticket.result(SOON)
            assert "locked" in str(refusal.value.__cause__)
        assert bench.writer.write_error == "database is locked"
        other.execute("ROLLBACK")
    assert bench.submit("after").result(SOON) == "AFTER"
    assert bench.writer.write_error is None
    assert bench.words() == ["after", "before"]


def test_an_exception_of_an_item_is_no_database_failure(bench):
    """An exception of the item itself does not count as a database failure."""
    with pytest.raises(ValueError, match="bad"):
        bench.submit("bad").result(SOON)
    assert bench.writer.write_error is None


def test_a_failing_callback_of_a_future_does_not_end_the_writer(bench):
    """A failing callback of a future stops neither the writer nor the other callbacks."""
    bench.hold()
    tickets = [bench.submit("a"), bench.submit("b")]
    told = []
    tickets[0].add_done_callback(lambda _ticket: 1 / 0)
    tickets[0].add_done_callback(lambda ticket: told.append(ticket.result()))
    bench.free()
    assert [ticket.result(SOON) for ticket in tickets] == ["A", "B"]
    assert bench.submit("c").result(SOON) == "C"
    assert told == ["A"]


def test_a_writer_whose_thread_ended_reports_an_error(bench, eventually):
    """A writer whose thread has ended reports that nothing can be written; one that was closed does not."""
    bench.submit("a").result(SOON)
    bench.writer._queue.put(None)
    assert eventually(lambda: bench.writer.write_error) == "the thread ledger-writer has ended; restart the server"
    bench.close()
    assert bench.writer.write_error is None


def test_a_broken_connection_is_replaced(bench):
    """When the connection breaks, one item fails and the next one gets a new connection."""

    def breaking(transaction):
        transaction.connection.connection.dbapi_connection.close()
        raise ValueError("broken")

    bench.submit("a").result(SOON)
    with pytest.raises((ValueError, Unavailable)):
        bench.writer.submit(call_each, breaking).result(SOON)
    for word in "bcd":
        try:
            assert bench.submit(word).result(SOON) == word.upper()
        except Unavailable:
            continue
    assert bench.words()[:1] == ["a"]
    assert bench.words()[-1] == "d"


def read_link(link):
    """The file of a descriptor; `""` if it was closed meanwhile."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_a_large_statement_creates_no_file(bench):
    """SQLite keeps in memory what it needs to undo a large statement, because a file would double its time."""
    with closing(sqlite3.connect(bench.path)) as connection, connection:
        connection.executemany("INSERT INTO words (word) VALUES (?)", ((f"{n}" * 100,) for n in range(2_000)))

    def open_files(transaction):
        found = set()

        def look(word):
            found.update(target for link in Path("/proc/self/fd").iterdir() if (target := read_link(link)))
            return word

        transaction.connection.connection.driver_connection.create_function("look", 1, look)
        transaction.connection.exec_driver_sql("UPDATE words SET word = look(word) || '.' WHERE rowid % 50 = 0")
        return found

    opened = bench.writer.submit(call_each, open_files).result(SOON)
    assert str(bench.path) in opened
    assert [name for name in opened if "etilqs_" in name] == []
