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


def heard_of(messages):
    """The news in these messages."""
    whole = ChangeNotice()
    for message in messages:
        whole.add(message)
    return whole


def test_notifications_are_read_as_sent():
    """Ids, work, handlers and operations are read as they were sent; without news there is no message."""
    assert ChangeNotice().messages() == []
    assert not ChangeNotice()
    came = heard_of(ChangeNotice(events=["b", "a"], work=True, handlers=True, operations=True).messages())
    assert (came.events, came.work, came.handlers, came.operations, came.missed) == (
        {"a", "b"},
        True,
        True,
        True,
        False,
    )
    assert heard_of(ChangeNotice(work=True).messages()).events == set()


def test_no_message_is_too_long_for_a_notification():
    """For any number of settled events, each message fits PostgreSQL's limit, and no event is missing."""
    ids = {f"0190a1b2-c3d4-7e5f-8a9b-{number:012}" for number in range(1000)} | {"é" * 100}
    messages = ChangeNotice(events=ids).messages()
    assert len(messages) > 1
    assert all(len(message.encode()) < 8000 for message in messages)
    assert heard_of(messages).events == ids


def test_a_notification_of_unknown_kind_is_ignored():
    """A message of an unknown kind is ignored."""
    assert not heard_of(["moon full", "", "workers"])


class Ears:
    """A listener and the news that it received."""

    def __init__(self, url):
        self.news = []
        self.fails = []
        self.came = threading.Condition()
        self.listener = NotificationListener(url, on_change=self.hear)
        self.listener.start()

    def hear(self, one):
        """Store the news."""
        with self.came:
            self.news.append(one)
            self.came.notify_all()
            if self.fails:
                raise self.fails.pop()

    def until(self, wanted):
        """Wait until some news were received."""
        with self.came:
            assert self.came.wait_for(lambda: any(map(wanted, self.news)), WAIT_TIMEOUT), self.news
            self.news.clear()


@pytest.fixture
def ears(harness, monkeypatch):
    """A function that starts a listener on the fixture's ledger."""
    monkeypatch.setattr(notifications, "RETRY_INTERVAL", 0.01)
    opened = []

    def listen():
        opened.append(Ears(harness.url))
        opened[-1].until(lambda one: one.missed)
        return opened[-1]

    yield listen
    for one in opened:
        one.listener.stop(WAIT_TIMEOUT)
        assert not one.listener._thread.is_alive()


def cut(flow):
    """Make the server end every listening connection; return their number."""
    (ended,) = flow.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query IN ('LISTEN flowhooks', 'SELECT 1') AND pid <> pg_backend_pid()"
    )
    return ended[0]


@pytest.mark.postgresql
def test_listeners_receive_settled_deliveries(harness, listens, ears):
    """Each listener receives the event of a settled delivery once it is durable."""
    flow = harness.open(listens(nothing, name="h"))
    heard = ears()
    event_id = flow.take().event_id
    heard.until(lambda one: event_id in one.events)


@pytest.mark.postgresql
def test_only_deliveries_for_other_processes_are_announced(harness, listens, make_plugin, ears, eventually):
    """Only deliveries stored for other processes are announced as work."""
    there = harness.open(listens(nothing, name="h", process_key="there"), start=False)
    here = harness.open(plugins={"q": make_plugin(listens(nothing, name="k", process_key="here"))})
    eventually(lambda: here.app.runner._slots._is_polled)  # until then, others are notified of new deliveries
    heard = ears()
    event_id = here.take("i1", key="here").event_id
    with heard.came:
        assert heard.came.wait_for(lambda: any(event_id in one.events for one in heard.news), WAIT_TIMEOUT)
        assert not any(one.work for one in heard.news)
    here.take("i2", key="there", wait=0)
    heard.until(lambda one: one.work)
    assert there.app.ledger.shared


@pytest.mark.postgresql
def test_a_rolled_back_transaction_sends_no_notification(harness, listens, ears):
    """News of a transaction that is rolled back are not sent; later news are."""
    flow = harness.open(listens(nothing, name="h"))
    heard = ears()

    def fails(transaction):
        transaction.notice.events.add("undone")
        transaction.notice.notify(transaction.connection)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        flow.app.ledger.write(fails)
    event_id = flow.take().event_id
    with heard.came:
        assert heard.came.wait_for(lambda: any(event_id in one.events for one in heard.news), WAIT_TIMEOUT)
        assert not any("undone" in one.events for one in heard.news)


@pytest.mark.postgresql
def test_the_listener_reconnects_after_a_lost_connection(harness, listens, ears, logged):
    """After a reconnect the listener reports possibly missed news, and receives news as before."""
    flow = harness.open(listens(nothing, name="h"), start=False)
    heard = ears()
    assert cut(flow) >= 1  # PostgreSQL may not have ended a session of the test before yet
    heard.until(lambda one: one.missed)
    flow.app.ledger.write(lambda transaction: transaction.notice.events.add("e"))
    heard.until(lambda one: "e" in one.events)
    assert [one["event"] for one in logged if one["event"].startswith("notifications_")] == [
        "notifications_disconnected",
        "notifications_reconnected",
    ]


@pytest.mark.postgresql
def test_the_listener_retries_if_the_ledger_cannot_be_read(harness, listens, ears):
    """If the ledger cannot be read the listener retries; even an exception of flowhooks does not end it."""
    flow = harness.open(listens(nothing, name="h", retry=Retry(jitter=0)), start=False)
    heard = ears()
    for error in (LedgerUnusable("down"), RuntimeError("ours")):
        heard.fails.append(error)
        flow.app.ledger.write(lambda transaction: transaction.notice.events.add("e"))
        heard.until(lambda one: one.missed)


@pytest.mark.sqlite
def test_no_listener_runs_on_sqlite(harness, listens):
    """On SQLite a single process uses the database, so it does not listen."""
    before = set(threading.enumerate())  # a listener of an earlier test may be about to end
    flow = harness.open(listens(nothing, name="h"))
    assert flow.app.cluster is None
    assert flow.take().status == "done"
    assert not any(thread.name == "listener" for thread in set(threading.enumerate()) - before)
