"""The reply to a COMMIT is lost: its result is not known, and still each callback is stored once and run once."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from support.app_harness import LedgerHarness, until
from support.process_trials import (
    NOT_RETRYABLE,
    RETRYABLE,
    check_invariants,
    entered,
    rows,
    shut,
    until_worker_known,
    wait_until_finished,
)
from support.waiting import WAIT_TIMEOUT

QUICK = {"ledger__heartbeat_timeout": 8.0}
"""A start that was not confirmed is noticed at the next heartbeat. No process expires in these tests."""


@pytest.fixture(params=["embedded", pytest.param("procrastinate", marks=pytest.mark.long)])
def kind(request):
    """A runner."""
    return request.param


def accepts(said):
    """Whether a transaction stores an event."""
    return b"INSERT INTO events" in said


def claims(said):
    """Whether a transaction starts an attempt of a delivery stored earlier."""
    return b"INSERT INTO attempts" in said and not accepts(said)


def settles(said):
    """Whether a transaction records the outcome of an attempt."""
    return b"UPDATE attempts" in said


@pytest.mark.parametrize("kind", ["embedded", "procrastinate"])
def test_lost_commit_reply_of_an_accepted_callback(broken, kind):
    """The caller gets 503 and repeats; the callback is recognised, has one row, and its handler is entered once.

    If it was committed together with other work, the writer retries at once and recognises it then.
    """
    broken.database = broken.proxied
    server = broken.start(runner__kind=kind, **QUICK)
    broken.proxy.lose_reply(accepts)
    first = server.post("i", NOT_RETRYABLE, Prefer="wait=10")
    assert broken.proxy.lost.wait(60)
    # If a heartbeat was in the same commit, the event is stored again at once and recognised.
    assert first.status in {200, 202, 503}
    if first.status == 503:
        assert first.check_error(503)
        assert first.headers["Retry-After"]
    again = server.post("i", NOT_RETRYABLE, Prefer="wait=20")
    assert again.status == 200
    assert rows(broken.direct, "SELECT id FROM events") == [(again.event_id,)]
    assert [instance for instance, _, _ in entered(broken)] == ["i"]
    check_invariants(broken, broken.direct, {"i": again.event_id})
    server.stop()
    server.check_log()


def test_lost_commit_reply_of_a_running_mark(broken, kind):
    """A stored running mark of an attempt that did not start is removed, and the handler is entered once."""
    server = broken.start("--no-worker", runner__kind=kind, **QUICK)
    broken.database = broken.proxied
    worker = broken.start_worker("--plugins-dir", broken.plugins, runner__kind=kind, **QUICK)
    until_worker_known(server)
    wait_until_finished(broken.direct)  # the worker may still have to run the first probes
    broken.proxy.lose_reply(claims)
    answer = server.post("i", NOT_RETRYABLE, Prefer="wait=30")
    assert broken.proxy.lost.is_set()
    assert answer.status == 200
    assert [attempt for instance, attempt, _ in entered(broken) if instance == "i"] == [2]
    check_invariants(broken, broken.direct, {"i": answer.event_id})
    for process in (server, worker):
        process.stop()
        process.check_log()


def test_lost_commit_reply_of_an_outcome(broken, kind):
    """A repeated record of an outcome changes nothing and is not a stale attempt. The caller gets the outcome."""
    broken.database = broken.proxied
    server = broken.start(runner__kind=kind, **QUICK)
    gate = shut(broken, "i")
    event_id = server.post("i", NOT_RETRYABLE, Prefer="respond-async").event_id
    broken.until(lambda _ledger: entered(broken))
    broken.proxy.lose_reply(settles)
    gate.unlink()
    assert broken.proxy.lost.wait(WAIT_TIMEOUT)
    answer = server.post("i", NOT_RETRYABLE, Prefer="wait=20")
    assert (answer.status, answer.event_id) == (200, event_id)
    assert len(entered(broken)) == 1
    check_invariants(broken, broken.direct, {"i": event_id})
    server.stop()
    assert not server.logged("stale_attempt")
    server.check_log()


def test_lost_commit_reply_of_a_retry(broken, kind):
    """After a failed attempt the next attempt is made once."""
    broken.database = broken.proxied
    server = broken.start(runner__kind=kind, **QUICK)
    broken.proxy.lose_reply(settles)
    answer = server.post("i", RETRYABLE | {"fails": 1}, Prefer="wait=20")
    assert broken.proxy.lost.is_set()
    assert answer.status == 200
    assert [(instance, attempt) for instance, attempt, _ in entered(broken)] == [("i", 1), ("i", 2)]
    check_invariants(broken, broken.direct, {"i": answer.event_id})
    server.stop()
    server.check_log()


@pytest.fixture
def through_proxy(broken, tmp_path, clock):
    """A harness on the database behind the proxy."""
    harness = LedgerHarness(tmp_path, clock, broken.proxied)
    yield harness
    harness.end()


@contextmanager
def one_batch(flow, size, monkeypatch):
    """Keep the writer busy until `size` callbacks are queued, so that one transaction has all of them."""
    begun, free = threading.Event(), threading.Event()
    busy = threading.Thread(
        target=flow.app.ledger.write, args=(lambda _transaction: begun.set() or free.wait(WAIT_TIMEOUT), WAIT_TIMEOUT)
    )
    busy.start()
    assert begun.wait(WAIT_TIMEOUT)
    submitted = []
    submit = flow.app.ledger.accept
    monkeypatch.setattr(flow.app.ledger, "accept", lambda *call: (submit(*call), submitted.append(call))[0])
    yield
    # The queue's length is no measure, because heartbeats wait in it, too.
    until(lambda: len(submitted) == size)
    free.set()
    busy.join(WAIT_TIMEOUT)


def test_lost_commit_reply_of_several_accepted_callbacks(broken, through_proxy, listens, make_plugin, monkeypatch):
    """The writer retries each stored callback: all are answered as new, announced once, and run once."""
    accepted, runs = [], []
    plugins = {
        "p": make_plugin(
            listens(lambda event: runs.append(event.flow_instance_id), name="h"),
            event_accepted=lambda event: accepted.append(event.flow_instance_id),
        )
    }
    flow = through_proxy.open(plugins=plugins, ledger={"heartbeat_timeout": 3.0})
    answers = {}

    def post(number, instance):
        answers[number] = flow.take(instance)

    posts = [threading.Thread(target=post, args=entry) for entry in enumerate(["one", "two", "two", "three"])]
    broken.proxy.lose_reply(accepts)
    with one_batch(flow, len(posts), monkeypatch):
        for post in posts:
            post.start()
    for post in posts:
        post.join(60)
    assert broken.proxy.lost.is_set()
    assert [answers[number].status for number in range(4)] == ["done"] * 4
    assert answers[1].event_id == answers[2].event_id
    until(lambda: sorted(accepted) == ["one", "three", "two"])
    assert sorted(runs) == ["one", "three", "two"]
    counted = rows(broken.direct, "SELECT flow_instance_id, repeats > 0 FROM events ORDER BY 1")
    assert counted == [("one", False), ("three", False), ("two", True)]
    assert flow.close()
    assert sorted(accepted) == ["one", "three", "two"]
    assert len(runs) == 3
