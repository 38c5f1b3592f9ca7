"""Notifications between processes that share a ledger: form, recipients, and recovery after an outage."""

from __future__ import annotations

import threading

import pytest

from flowhooks import Retry
from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import notifications
from flowhooks.ledger.notifications import ChangeNotice, NotificationListener
from support.waiting import WAIT_TIMEOUT


def nothing(event):
    """Do nothing."""


def parse_notices(messages):
    """The notice that these messages contain."""
    notice = ChangeNotice()
    for message in messages:
        notice.add(message)
    return notice


def test_notifications_are_read_as_sent():
    """Ids, work, handlers and operations are read as they were sent; without news there is no message."""
    assert ChangeNotice().messages() == []
    assert not ChangeNotice()
    notice = parse_notices(ChangeNotice(events=["b", "a"], work=True, handlers=True, operations=True).messages())
    assert (notice.events, notice.work, notice.handlers, notice.operations, notice.missed) == (
        {"a", "b"},
        True,
        True,
        True,
        False,
    )
    assert parse_notices(ChangeNotice(work=True).messages()).events == set()


def test_no_message_is_too_long_for_a_notification():
    """For any number of settled events, each message fits PostgreSQL's limit, and no event is missing."""
    ids = {f"0190a1b2-c3d4-7e5f-8a9b-{number:012}" for number in range(1000)} | {"é" * 100}
    messages = ChangeNotice(events=ids).messages()
    assert len(messages) > 1
    assert all(len(message.encode()) < 8000 for message in messages)
    assert parse_notices(messages).events == ids


def test_a_notification_of_unknown_kind_is_ignored():
    """A message of an unknown kind is ignored."""
    assert not parse_notices(["moon full", "", "workers"])


class RecordingListener:
    """A listener that stores the notices that it receives."""

    def __init__(self, url):
        self.notices = []
        self.errors = []
        self.received = threading.Condition()
        self.listener = NotificationListener(url, on_change=self.store)
        self.listener.start()

    def store(self, notice):
        """Store a notice; raise the next error, if any."""
        with self.received:
            self.notices.append(notice)
            self.received.notify_all()
            if self.errors:
                raise self.errors.pop()

    def until(self, condition):
        """Wait until a notice that meets the condition was received; then forget all notices."""
        with self.received:
            assert self.received.wait_for(lambda: any(map(condition, self.notices)), WAIT_TIMEOUT), self.notices
            self.notices.clear()


@pytest.fixture
def start_listener(harness, monkeypatch):
    """A function that starts a listener on the fixture's ledger."""
    monkeypatch.setattr(notifications, "RETRY_INTERVAL", 0.01)
    recorders = []

    def listen():
        recorders.append(RecordingListener(harness.url))
        recorders[-1].until(lambda notice: notice.missed)
        return recorders[-1]

    yield listen
    for recorder in recorders:
        recorder.listener.stop(WAIT_TIMEOUT)
        assert not recorder.listener._thread.is_alive()


def cut(flow):
    """Make the server end every listening connection; return their number."""
    (ended,) = flow.sql(
        "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query IN ('LISTEN flowhooks', 'SELECT 1') AND pid <> pg_backend_pid()"
    )
    return ended[0]


@pytest.mark.postgresql
def test_listeners_receive_settled_deliveries(harness, listens, start_listener):
    """Each listener receives the event of a settled delivery once it is durable."""
    flow = harness.open(listens(nothing, name="h"))
    recorder = start_listener()
    event_id = flow.take().event_id
    recorder.until(lambda notice: event_id in notice.events)


@pytest.mark.postgresql
def test_only_deliveries_for_other_processes_are_announced(harness, listens, make_plugin, start_listener, eventually):
    """Only deliveries stored for other processes are announced as work."""
    there = harness.open(listens(nothing, name="h", process_key="there"), start=False)
    here = harness.open(plugins={"q": make_plugin(listens(nothing, name="k", process_key="here"))})
    eventually(lambda: here.app.runner._slots._is_polled)  # until then, others are notified of new deliveries
    recorder = start_listener()
    event_id = here.take("i1", key="here").event_id
    with recorder.received:
        assert recorder.received.wait_for(
            lambda: any(event_id in notice.events for notice in recorder.notices), WAIT_TIMEOUT
        )
        assert not any(notice.work for notice in recorder.notices)
    here.take("i2", key="there", wait=0)
    recorder.until(lambda notice: notice.work)
    assert there.app.ledger.shared


@pytest.mark.postgresql
def test_a_rolled_back_transaction_sends_no_notification(harness, listens, start_listener):
    """News of a transaction that is rolled back are not sent; later news are."""
    flow = harness.open(listens(nothing, name="h"))
    recorder = start_listener()

    def fails(transaction):
        transaction.notice.events.add("undone")
        transaction.notice.notify(transaction.connection)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        flow.app.ledger.write(fails)
    event_id = flow.take().event_id
    with recorder.received:
        assert recorder.received.wait_for(
            lambda: any(event_id in notice.events for notice in recorder.notices), WAIT_TIMEOUT
        )
        assert not any("undone" in notice.events for notice in recorder.notices)


@pytest.mark.postgresql
def test_the_listener_reconnects_after_a_lost_connection(harness, listens, start_listener, logged):
    """After a reconnect the listener reports possibly missed news, and receives news as before."""
    flow = harness.open(listens(nothing, name="h"), start=False)
    recorder = start_listener()
    assert cut(flow) >= 1  # PostgreSQL may not have ended a session of the test before yet
    recorder.until(lambda notice: notice.missed)
    flow.app.ledger.write(lambda transaction: transaction.notice.events.add("e"))
    recorder.until(lambda notice: "e" in notice.events)
    assert [record["event"] for record in logged if record["event"].startswith("notifications_")] == [
        "notifications_disconnected",
        "notifications_reconnected",
    ]


@pytest.mark.postgresql
def test_the_listener_retries_if_the_ledger_cannot_be_read(harness, listens, start_listener):
    """If the ledger cannot be read the listener retries; even an exception of flowhooks does not end it."""
    flow = harness.open(listens(nothing, name="h", retry=Retry(jitter=0)), start=False)
    recorder = start_listener()
    for error in (LedgerUnusable("down"), RuntimeError("ours")):
        recorder.errors.append(error)
        flow.app.ledger.write(lambda transaction: transaction.notice.events.add("e"))
        recorder.until(lambda notice: notice.missed)


@pytest.mark.sqlite
def test_no_listener_runs_on_sqlite(harness, listens):
    """On SQLite a single process uses the database, so it does not listen."""
    before = set(threading.enumerate())  # a listener of an earlier test may be about to end
    flow = harness.open(listens(nothing, name="h"))
    assert flow.app.cluster is None
    assert flow.take().status == "done"
    assert not any(thread.name == "listener" for thread in set(threading.enumerate()) - before)
