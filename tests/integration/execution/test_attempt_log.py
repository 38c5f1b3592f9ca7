"""The log records of a handler, as they are stored with its attempt."""

from __future__ import annotations

import io
import logging
import threading
from contextvars import copy_context

import pytest
from sqlalchemy import text

from flowhooks import Retry, State, hookimpl
from flowhooks.model.attempt_log import MAX_RECORDS
from flowhooks.observability import logging as logs
from support.logging_state import restore_logging  # noqa: F401 (a fixture)

log = logging.getLogger("pay")


@pytest.fixture(autouse=True)
def servers_log(restore_logging):  # noqa: F811 (restores the configuration)
    """The log as a server configures it; returns its stream."""
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    return stream


def logs_of(flow, event_id):
    """The logs of a delivery's attempts, without the times of the records."""
    attempts = flow.app.ledger.attempts(flow.only(event_id).delivery_id)
    return [[line.partition(" ")[2] for line in attempt.log.split("\n")] if attempt.log else [] for attempt in attempts]


def test_each_attempt_has_its_own_log_records(harness, listens, make_plugin):
    """Records of the handler and of wrappers; none of an attempt that logs nothing, and none of flowhooks itself."""

    def pay(event, delivery):
        if delivery.attempt != 2:
            log.info("attempt %d \0\x1b[2J", delivery.attempt, extra={"amount": event.data["amount"]})
        log.debug("not logged")
        if delivery.attempt < 3:
            raise OSError("the bank is closed")

    @hookimpl(wrapper=True)
    def run_handler(handler, event, delivery):
        answer = yield
        if delivery.attempt == 3:
            logging.getLogger("audit").warning("paid")
        return answer

    paying = listens(pay, retry=Retry(attempts=3, delays=[1], jitter=0))
    flow = harness.open(plugins={"p": make_plugin(paying), "w": make_plugin(run_handler=run_handler)})
    event_id = flow.take("i", wait=0, amount=7).event_id
    for attempt in (1, 2):
        flow.settled(event_id, State.WAITING, attempt=attempt)
        flow.advance(1)
    flow.settled(event_id, State.SUCCEEDED)
    assert logs_of(flow, event_id) == [
        [r"info pay: attempt 1 \u0000\u001b[2J amount=7"],
        [],
        [r"info pay: attempt 3 \u0000\u001b[2J amount=7", "warning audit: paid"],
    ]


@pytest.mark.either
def test_an_attempt_stores_only_its_last_log_records(harness, listens, servers_log):
    """An attempt with 10,000 records keeps the last ones; the server's log has all."""

    def pay(event):
        for number in range(10_000):
            log.info("record %d", number)

    flow = harness.open(listens(pay))
    (stored,) = logs_of(flow, flow.take("i").event_id)
    assert stored == [
        "earlier records left out)",
        *(f"info pay: record {number}" for number in range(10_000 - MAX_RECORDS, 10_000)),
    ]
    assert servers_log.getvalue().count(" record ") == 10_000


@pytest.mark.either
def test_log_records_of_threads_of_a_handler(harness, listens, eventually):
    """A thread with a copy of the context belongs to the attempt until the attempt has ended."""
    go_on, ended = threading.Event(), threading.Event()

    def later(number):
        log.info("first %d", number)
        if number:
            go_on.wait(20)
            log.info("too late")
            ended.set()

    def pay(event):
        for number in (0, 1):
            thread = threading.Thread(target=copy_context().run, args=(later, number))
            thread.start()
            while number == 0 and thread.is_alive():
                thread.join()
        eventually(lambda: "first 1" in str(logs_seen))

    logs_seen = []

    class Seen(logging.Handler):
        """Notes messages."""

        def emit(self, record):
            logs_seen.append(record.getMessage())

    logging.getLogger().addHandler(Seen())
    flow = harness.open(listens(pay))
    event_id = flow.take("i").event_id
    go_on.set()
    assert ended.wait(20)
    assert logs_of(flow, event_id) == [["info pay: first 0", "info pay: first 1"]]


@pytest.mark.postgresql
def test_log_records_are_committed_with_the_handlers_transaction(harness, listens):
    """The statement that records the outcome in the handler's transaction stores them, too."""

    def pay(event, delivery):
        with delivery.transaction() as connection:
            log.info("in the transaction: %d", connection.execute(text("SELECT 1")).scalar())
        log.info("after it")

    flow = harness.open(listens(pay))
    event_id = flow.take("i").event_id
    assert logs_of(flow, event_id) == [["info pay: in the transaction: 1", "info pay: after it"]]


@pytest.mark.either
def test_a_lost_attempt_has_no_log(harness, listens):
    """The records were in the memory of the process that ended."""
    started, go_on = threading.Event(), threading.Event()

    def pay(event):
        log.info("paying")
        started.set()
        go_on.wait(20)

    flow = harness.open(listens(pay))
    event_id = flow.take("i", wait=0).event_id
    assert started.wait(20)
    harness.crash(flow)
    flow = harness.open(listens(pay))
    flow.settled(event_id, State.UNKNOWN)
    assert logs_of(flow, event_id) == [[]]
    go_on.set()
