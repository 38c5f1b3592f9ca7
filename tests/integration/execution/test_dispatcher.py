"""Attempts: whatever a plugin does, each ends in an outcome, and its delivery in a state of the table."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace

import pytest

from flowhooks import Outcome, OutcomeKind, Reject, Retry, RetryAfter, State, hookimpl
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.execution.outcomes import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS
from flowhooks.execution.result_encoding import MAX_RESULT_CHARS
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.resolve import Resolution, resolve
from support.waiting import until

pytestmark = [pytest.mark.runners, pytest.mark.either]


def fails(error):
    """A handler function that raises this exception."""

    def failing(event):
        raise error

    return failing


class Nasty(Exception):
    """An exception whose text cannot be read."""

    def __str__(self):
        """Raise."""
        raise RuntimeError("no text")


class Nastier(Exception):
    """An exception whose text exits the thread."""

    def __str__(self):
        """Exit."""
        raise SystemExit(3)


class Unwilling(dict):
    """A result that cannot be read."""

    def items(self):
        """Raise."""
        raise OSError("detached")


def wrapped(before=None, after=None):
    """A `run_handler` wrapper that does something before or after its yield."""

    @hookimpl(wrapper=True)
    def run_handler(handler, event, delivery):
        if before:
            before()
        answer = yield
        return after(answer) if after else answer

    return run_handler


@pytest.fixture
def run(harness, listens, make_plugin):
    """A function that runs one attempt of a function, and returns the flow, the delivery's state and the attempt."""

    def go(function, *, wrapper=None, **declared):
        ((flow, delivery_status, attempt),) = many([function], wrapper=wrapper, **declared)
        return flow, delivery_status, attempt

    def many(functions, *, wrapper=None, **declared):
        """The same for several functions, each with its own key."""
        handlers = [
            listens(function, name=f"h{n}", process_key=f"k{n}", **declared) for n, function in enumerate(functions)
        ]
        plugins = {"p": make_plugin(*handlers)} | ({"w": make_plugin(run_handler=wrapper)} if wrapper else {})
        flow = harness.open(plugins=plugins)
        for number in range(len(functions)):
            answer = flow.take(key=f"k{number}", callback_class=f"c{number}")
            delivery_status = flow.only(answer.event_id)
            (*_, attempt) = flow.app.ledger.attempts(delivery_status.delivery_id)
            yield flow, delivery_status, attempt

    go.many = many
    return go


def test_the_result_of_a_handler_is_stored(run):
    """A JSON value is stored with its attempt."""
    _, delivery_status, attempt = run(lambda event: {"archived": [1, 2.5, None, True, "é"]})
    assert (delivery_status.state, delivery_status.attempt, delivery_status.error) == (State.SUCCEEDED, 1, "")
    assert attempt.outcome is OutcomeKind.SUCCEEDED
    assert json.loads(attempt.result) == {"archived": [1, 2.5, None, True, "é"]}


UNFIT = [
    {1, 2},
    float("nan"),
    float("inf"),
    object(),
    b"x",
    "x" * MAX_RESULT_CHARS,
    {"a": {(1, 2): 3}},
    Unwilling(a=1),
    10**5000,
]


def test_a_result_that_is_not_json_is_dropped_and_the_attempt_succeeds(run, logged):
    """A result that is not JSON is dropped, with the reason in the attempt and in the log; the attempt succeeds."""
    reasons = []
    for _, delivery_status, attempt in run.many([lambda event, value=value: value for value in UNFIT]):
        assert (delivery_status.state, attempt.result) == (State.SUCCEEDED, None), delivery_status.handler
        plugin, _, name = delivery_status.handler.partition(":")
        assert attempt.result_dropped.startswith(f"handler {name} of plugin {plugin} returned ")
        reasons.append(attempt.result_dropped)
    assert [entry["why"] for entry in logged if entry["event"] == "result_dropped"] == reasons
    assert len(reasons) == len(UNFIT)


def test_a_recursive_result_is_dropped(run):
    """A recursive value is not stored."""
    value = []
    value.append(value)
    _, delivery_status, attempt = run(lambda event: value)
    assert (delivery_status.state, attempt.result) == (State.SUCCEEDED, None)


def test_a_failure_without_retry_is_final(run):
    """Without `retry=` an exception makes the delivery dead."""
    flow, delivery_status, attempt = run(fails(ValueError("no\nroom  here")))
    assert (delivery_status.state, delivery_status.outcome, delivery_status.due_at) == (
        State.DEAD,
        OutcomeKind.FAILED,
        None,
    )
    assert delivery_status.error == "ValueError: no room here"
    assert "raise error" in attempt.traceback
    flow.advance(10**6)
    assert flow.only(flow.events()[0]).attempt == 1


def test_reject_is_final_at_once(run):
    """`Reject` makes the delivery dead even with `retry=`, and only its reason is stored."""
    _, delivery_status, attempt = run(fails(Reject("no such contract")), retry=Retry())
    assert (delivery_status.state, delivery_status.outcome) == (State.DEAD, OutcomeKind.REJECTED)
    assert (delivery_status.error, attempt.traceback) == ("no such contract", "")


def test_retries_follow_the_schedule_until_the_delivery_is_dead(harness, listens, eventually):
    """`Retry()` makes eight attempts after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, never earlier."""
    runs = []

    def failing(event, delivery):
        runs.append(delivery.attempt)
        raise OSError(f"attempt {delivery.attempt}")

    flow = harness.open(listens(failing, retry=Retry()))
    event_id = flow.take(wait=0).event_id
    for number, delay in enumerate([5, 300, 1800, 7200, 18000, 36000, 36000], start=1):
        delivery_status = flow.settled(event_id, State.WAITING, attempt=number)
        assert (delivery_status.due_at, delivery_status.error) == (
            flow.clock.now() + delay * SECOND,
            f"OSError: attempt {number}",
        )
        flow.advance(delay - 0.001)
        assert flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 9) == []
        flow.advance(0.001)
    delivery_status = flow.settled(event_id, State.DEAD)
    assert (delivery_status.attempt, delivery_status.error, delivery_status.due_at) == (8, "OSError: attempt 8", None)
    assert runs == [1, 2, 3, 4, 5, 6, 7, 8]
    outcomes = [attempt.outcome for attempt in flow.app.ledger.attempts(delivery_status.delivery_id)]
    assert outcomes == [OutcomeKind.FAILED] * 8


def test_custom_delays_and_jitter(harness, listens):
    """A custom schedule is followed, its last delay is repeated, and jitter lengthens delays."""
    flow = harness.open(listens(fails(ValueError("x")), retry=Retry(attempts=4, delays=(2, 10), jitter=0.5)))
    flow.clock.drawn = 0.4
    event_id = flow.take(wait=0).event_id
    for number, delay in enumerate([2.4, 12, 12], start=1):
        assert flow.settled(event_id, State.WAITING, attempt=number).due_at == flow.clock.now() + int(delay * SECOND)
        flow.advance(delay)
    assert flow.settled(event_id, State.DEAD).attempt == 4


def test_a_second_attempt_may_succeed(harness, listens):
    """A delivery succeeds when its retry does; the first attempt's error stays recorded."""
    outcomes = iter([ValueError("first"), None])

    def flaky(event):
        if error := next(outcomes):
            raise error
        return "second"

    flow = harness.open(listens(flaky, retry=Retry()))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(5)
    delivery_status = flow.settled(event_id, State.SUCCEEDED)
    assert delivery_status.error == ""
    first, second = flow.app.ledger.attempts(delivery_status.delivery_id)
    assert (first.error, second.result) == ("ValueError: first", '"second"')


def test_retry_after_works_without_a_declared_retry(harness, listens):
    """`RetryAfter` works without `retry=`, and ends after the number of attempts of `Retry()`."""
    flow = harness.open(listens(fails(RetryAfter(90, "busy"))))
    event_id = flow.take(wait=0).event_id
    for number in range(1, 8):
        delivery_status = flow.settled(event_id, State.WAITING, attempt=number)
        assert (delivery_status.due_at, delivery_status.error) == (flow.clock.now() + 90 * SECOND, "busy")
        flow.advance(90)
    assert flow.settled(event_id, State.DEAD).attempt == 8


def test_retry_after_counts_towards_the_declared_attempts(harness, listens):
    """With `retry=` it replaces the schedule's delay, but not its number of attempts."""
    flow = harness.open(listens(fails(RetryAfter(7)), retry=Retry(attempts=2, delays=(1000,))))
    event_id = flow.take(wait=0).event_id
    assert flow.settled(event_id, State.WAITING, attempt=1).due_at == flow.clock.now() + 7 * SECOND
    flow.advance(7)
    assert flow.settled(event_id, State.DEAD).error == "asked to be retried after 7 s"


RAISED = [
    (SystemExit(2), "SystemExit: 2"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (GeneratorExit(), "GeneratorExit"),
    (StopIteration(1), "StopIteration: 1"),
    (MemoryError(), "MemoryError"),
    (RecursionError("deep"), "RecursionError: deep"),
    (BlockingIOError(11, "again"), "BlockingIOError: [Errno 11] again"),
    (Unavailable("ledger_down"), "Unavailable: the database cannot be written now"),
    (
        BaseExceptionGroup("many", [KeyboardInterrupt(), ValueError("x")]),
        "BaseExceptionGroup: many (2 sub-exceptions)",
    ),
    (Nasty(), "Nasty: (its text cannot be read: RuntimeError)"),
    (Nastier(), "Nastier: (its text cannot be read: SystemExit)"),
]


def test_any_exception_fails_only_its_own_attempt(run):
    """Any exception, even one that exits threads, fails only its own attempt; the runner continues."""
    runs = run.many([fails(error) for error, _ in RAISED])
    for (_, line), (_, delivery_status, _) in zip(RAISED, runs, strict=True):
        assert (delivery_status.state, delivery_status.outcome) == (State.DEAD, OutcomeKind.FAILED), line
        assert delivery_status.error.startswith(line)


def test_exits_raised_by_handlers_cost_the_pool_no_thread(harness, listens):
    """After many exits of every kind, all threads of the pool still run."""
    errors = iter([SystemExit(1), Nastier(), KeyboardInterrupt(), Nasty()] * 5)
    gate = threading.Barrier(4)

    def failing(event):
        raise next(errors)

    flow = harness.open(
        listens(failing),
        *(listens(lambda event: gate.wait(20) and None, name=f"h{n}", process_key=f"k{n}") for n in range(4)),
        runner={"threads": 4},
    )
    for number in range(20):
        assert flow.take(f"i{number}").status == "dead"
    answers = [flow.take("last", key=f"k{n}", callback_class=f"c{n}", wait=0) for n in range(4)]
    for answer in answers:
        flow.settled(answer.event_id, State.SUCCEEDED)


def test_an_error_text_is_stored_cleaned_and_shortened(run):
    """NUL, lone surrogates and very long texts are replaced by storable text of one line and limited length."""
    texts = ["a\0b", "\ud800", "x" * 1_000_000, "\x1b[31m\u202e", "é" * 100_000, "a\r\nb"]
    for _, delivery_status, attempt in run.many([fails(ValueError(text)) for text in texts]):
        assert delivery_status.state is State.DEAD
        assert delivery_status.error.startswith("ValueError: ")
        assert "\0" not in delivery_status.error + attempt.traceback
        assert "\n" not in delivery_status.error
        assert len(delivery_status.error) <= MAX_ERROR_CHARS + 50
        assert len(attempt.traceback) <= MAX_TRACEBACK_CHARS + 50


def test_a_long_traceback_is_truncated(run):
    """A deep recursion leaves a traceback of limited size."""

    def deep(event):
        return deep(event)

    _, delivery_status, attempt = run(deep)
    assert delivery_status.error.startswith("RecursionError")
    assert 0 < len(attempt.traceback) <= MAX_TRACEBACK_CHARS + 50


def test_a_wrapper_failing_before_the_handler_causes_a_retry(harness, make_plugin, listens):
    """A failure before the function was entered is repeated, even without `retry=`."""
    broken = [True]
    runs = []

    def before():
        if broken[0]:
            raise ConnectionError("tracing is down")

    flow = harness.open(
        plugins={
            "p": make_plugin(listens(lambda event: runs.append(1), name="h")),
            "tracing": make_plugin(run_handler=wrapped(before)),
        }
    )
    event_id = flow.take(wait=0).event_id
    delivery_status = flow.settled(event_id, State.WAITING, attempt=1)
    assert delivery_status.due_at == flow.clock.now() + 5 * SECOND
    assert "plugin tracing" in delivery_status.error
    assert "ConnectionError: tracing is down" in delivery_status.error
    assert runs == []
    broken[0] = False
    flow.advance(5)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert runs == [1]


def test_an_attempt_that_never_entered_the_handler_is_always_retried(harness, make_plugin, listens):
    """A wrapper's failure before the function does not use up a handler's only attempt."""

    def before():
        raise ConnectionError("down")

    flow = harness.open(
        plugins={
            "p": make_plugin(listens(lambda event: None, name="h", retry=Retry(attempts=1))),
            "tracing": make_plugin(run_handler=wrapped(before)),
        }
    )
    event_id = flow.take(wait=0).event_id
    assert flow.settled(event_id, State.WAITING, attempt=1).due_at == flow.clock.now() + 5 * SECOND


def test_a_wrapper_that_raises_after_the_handler_is_named(run):
    """A wrapper's failure after the function fails the attempt, and is final without `retry=`."""

    def after(answer):
        raise ConnectionError("commit failed")

    _, delivery_status, _ = run(lambda event: "done", wrapper=wrapped(after=after))
    assert (delivery_status.state, delivery_status.outcome) == (State.DEAD, OutcomeKind.FAILED)
    assert delivery_status.error == "ConnectionError: commit failed (raised by the run_handler wrapper of plugin w)"


def test_an_exception_of_a_handler_names_no_wrapper(run):
    """A handler's exception passes through wrappers, which are not named."""
    _, delivery_status, _ = run(fails(ValueError("mine")), wrapper=wrapped(after=lambda answer: answer))
    assert delivery_status.error == "ValueError: mine"


def test_a_wrapper_that_returns_no_outcome_fails_the_attempt(run):
    """A wrapper that does not return its yield's result causes a failure, not a success or an endless wait."""
    answers = [None, True, "done", {"kind": "succeeded"}]
    left = iter(answers)
    runs = run.many([lambda event: "done"] * len(answers), wrapper=wrapped(after=lambda _: next(left)))
    for answer, (_, delivery_status, _) in zip(answers, runs, strict=True):
        assert (delivery_status.state, delivery_status.outcome) == (State.DEAD, OutcomeKind.FAILED)
        assert f"returned {type(answer).__name__} instead of the Outcome" in delivery_status.error


def test_a_wrapper_may_change_the_outcome(run):
    """A wrapper can turn a success into a failure."""

    def after(outcome):
        return replace(outcome, kind=OutcomeKind.FAILED, error="not good enough")

    _, delivery_status, _ = run(lambda event: 1, wrapper=wrapped(after=after))
    assert (delivery_status.state, delivery_status.error) == (State.DEAD, "not good enough")


CHANGES = [
    {"kind": "succeeded"},
    {"kind": "nonsense"},
    {"kind": None},
    {"kind": OutcomeKind.FAILED, "error": None},
    {"kind": OutcomeKind.FAILED, "error": b"x"},
    {"kind": OutcomeKind.FAILED, "traceback": 7},
    {"kind": OutcomeKind.FAILED, "retry_after": float("nan")},
    {"kind": OutcomeKind.FAILED, "retry_after": 1e300},
    {"kind": OutcomeKind.FAILED, "retry_after": -1e300},
    {"kind": OutcomeKind.FAILED, "retry_after": "soon"},
    {"kind": OutcomeKind.LOST},
]


def test_an_invalid_outcome_of_a_wrapper_still_ends_the_attempt(run):
    """An outcome of wrong types from a wrapper leaves no delivery running forever."""
    left = iter(CHANGES)
    runs = run.many(
        [lambda event: 1] * len(CHANGES), wrapper=wrapped(after=lambda outcome: replace(outcome, **next(left)))
    )
    for change, (flow, delivery_status, attempt) in zip(CHANGES, runs, strict=True):
        lost = change.get("kind") is OutcomeKind.LOST  # as if the process had ended: the outcome is not known
        assert delivery_status.state in ({State.UNKNOWN} if lost else {State.SUCCEEDED, State.DEAD, State.WAITING}), (
            change
        )
        assert attempt.finished_at is not None, change
        assert delivery_status.due_at is None or delivery_status.due_at <= flow.clock.now() + 31 * 86400 * SECOND, (
            change
        )


def test_a_multiline_wrapper_error_is_stored_as_one_line(run):
    """An error of a wrapper becomes one line, as every error does."""
    _, delivery_status, _ = run(
        lambda event: 1,
        wrapper=wrapped(after=lambda outcome: Outcome(kind=OutcomeKind.FAILED, error="a\nb\0" + "x" * 5000)),
    )
    assert delivery_status.state is State.DEAD
    assert "\n" not in delivery_status.error
    assert len(delivery_status.error) <= MAX_ERROR_CHARS + 50


def test_each_attempt_has_its_own_copy_of_the_event(harness, listens, eventually):
    """Each attempt has its own deep copy of the data, so no handler can change another's."""
    seen = []

    def spoiling(event):
        seen.append(event.data["order"]["lines"][:])
        event.data["order"]["lines"].clear()
        event.data["new"] = 1
        raise RetryAfter(1)

    handlers = [listens(spoiling, name=f"h{n}") for n in range(3)]
    flow = harness.open(*handlers)
    answer = flow.take(order={"lines": [1, 2]}, wait=0)
    eventually(
        lambda: (
            [delivery_status.due_at for delivery_status in flow.delivery_statuses(answer.event_id)]
            == [flow.clock.now() + SECOND] * 3
        )
    )
    assert seen == [[1, 2]] * 3
    flow.advance(1)
    eventually(lambda: len(seen) == 6)
    assert seen == [[1, 2]] * 6


def test_the_running_state_is_durable_before_the_handler_is_entered(harness, listens):
    """In the handler, another connection to the file sees this attempt as running."""
    seen = []

    def looking(event, delivery):
        seen.append(
            (delivery, flow.sql("SELECT id, state, attempt FROM deliveries"), flow.sql("SELECT * FROM attempts"))
        )

    flow = harness.open(listens(looking))
    answer = flow.take()
    ((delivery, rows, attempts),) = seen
    assert rows == [(delivery.id, "running", 1)]
    assert [(row[0], row[1], row[4], row[5]) for row in attempts] == [(delivery.id, 1, None, None)]
    assert (delivery.attempt, delivery.handler, delivery.event_id) == (1, "p:looking", answer.event_id)


def test_the_delivery_id_is_the_same_for_all_attempts(harness, listens):
    """The idempotency key that a handler uses is the same for each attempt."""
    seen = []

    def failing(event, delivery):
        seen.append((delivery.id, delivery.attempt))
        raise ValueError("x")

    flow = harness.open(listens(failing, retry=Retry(attempts=2)))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(5)
    delivery_status = flow.settled(event_id, State.DEAD)
    assert seen == [(delivery_status.delivery_id, 1), (delivery_status.delivery_id, 2)]


def test_an_outcome_is_recorded_after_a_database_outage(harness, listens, monkeypatch):
    """If the database cannot be written at a handler's end, the outcome is recorded as soon as possible."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    entered, leave = threading.Event(), threading.Event()
    runs = []

    def slow(event):
        runs.append(event.flow_instance_id)
        entered.set()
        leave.wait(20)
        return "done"

    flow = harness.open(listens(slow))
    event_id = flow.take("i1", wait=0).event_id
    assert entered.wait(20)
    with flow.locked(timeout=0.3):
        leave.set()
        with pytest.raises(Unavailable):
            flow.take("i2", wait=0)
        assert flow.only(event_id).state is State.RUNNING
    delivery_status = flow.settled(event_id, State.SUCCEEDED)
    assert delivery_status.attempt == 1
    assert runs.count("i1") == 1  # the other may be stored after the answer that its result is unknown
    assert flow.take("i3").status == "done"


def test_no_handler_runs_before_its_running_state_is_stored(harness, listens, monkeypatch, eventually):
    """While the database cannot be written no function is entered; afterwards it runs once by itself."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1)), start=False)
    event_id = flow.take(wait=0).event_id
    with flow.locked(timeout=0.2):
        flow.app.start()
        eventually(lambda: flow.app.ledger.write_error)
        assert runs == []
        assert flow.only(event_id).state is State.WAITING
    flow.settled(event_id, State.SUCCEEDED, attempt=1)
    assert runs == [1]


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (True, State.SUCCEEDED),
        (False, State.SUCCEEDED),
        (None, State.UNKNOWN),
        ("yes", State.UNKNOWN),
        (1, State.UNKNOWN),
    ],
    ids=["did", "did not", "cannot tell", "nonsense", "one"],
)
def test_a_probe_decides_the_outcome_of_a_lost_attempt(harness, listens, verdict, state, eventually):
    """True settles the delivery, False runs it again, and any other answer leaves it *unknown* until the next probe."""
    asked, runs = [], []

    def probe(event, delivery):
        asked.append((event.flow_instance_id, delivery.attempt))
        return verdict

    listener = listens(lambda event: runs.append(1), name="h", probe=probe)
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    eventually(lambda: asked)
    delivery_status = flow.settled(event_id, state)
    assert runs == [1] * (verdict is False)
    assert asked == [("i1", 1)]
    if verdict is True:
        assert delivery_status.comment == "its probe says that its work was done"
    if state is State.UNKNOWN:
        due = eventually(lambda: (probed := flow.only(event_id)).due_at != harness.clock.now() and probed.due_at)
        assert due == harness.clock.now() + 60 * SECOND
        flow.advance(59)
        assert flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 9) == []
        flow.advance(2)  # a sweep looks for deliveries that have been due for half a second
        eventually(lambda: len(asked) == 2)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), Nastier()], ids=["error", "exit", "nasty"])
def test_a_probe_that_raises_leaves_the_delivery_unknown(harness, listens, error, eventually, logged):
    """A failing probe is logged, leaves the delivery *unknown*, and is repeated later."""
    asked = []

    def probe(event, delivery):
        asked.append(1)
        raise error

    listener = listens(lambda event: None, name="h", probe=probe)
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    eventually(lambda: [entry["handler"] for entry in logged if entry["event"] == "probe_failed"] == ["p:h"])
    delivery_status = flow.only(event_id)
    assert (delivery_status.state, delivery_status.due_at) == (State.UNKNOWN, harness.clock.now() + 60 * SECOND)
    assert asked == [1]


@pytest.mark.parametrize("fails_too", [False, True])
def test_a_process_that_a_handler_forks_ends_with_the_handler(run, fails_too):
    """A child that returns from the handler, or raises, runs no code of flowhooks: the parent records the attempt."""

    def forks(event):
        child = os.fork()
        if child == 0:
            if fails_too:
                raise ValueError
            return None
        try:
            until(lambda: os.waitpid(child, os.WNOHANG) != (0, 0))
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        return "the parent"

    _, delivery_status, attempt = run(forks)
    assert (delivery_status.state, attempt.result) == (State.SUCCEEDED, '"the parent"')


def test_a_probe_runs_once_a_minute_over_all_threads_and_processes(harness, listens, together):
    """A probe runs once a minute, for any number of offers, threads or processes."""
    asked = []
    listener = listens(lambda event: None, name="h", probe=lambda event, delivery: asked.append(1))
    event_id = lost(harness, listener)
    flow = harness.open(listener, start=False)
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 9)
    assert queued.probe
    for times in (1, 2):
        together(*[lambda: flow.app.dispatcher.execute(queued)] * 4)
        assert len(asked) == times
        assert flow.only(event_id).due_at == flow.clock.now() + 60 * SECOND
        flow.clock.advance(60)


def test_a_delivery_read_before_the_last_probe_is_not_probed_again(harness, listens, eventually):
    """A delivery that a runner read before the probe's last answer does not run the probe again."""
    asked = []

    def probe(event, delivery):
        asked.append(1)

    listener = listens(lambda event: None, name="h", probe=probe)
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    eventually(lambda: asked and flow.app.runner.running == 0)
    delivery_status = flow.only(event_id)
    assert (delivery_status.due_at or 0) > harness.clock.now()
    flow.app.dispatcher.execute(
        ReadyDelivery(delivery_status.delivery_id, delivery_status.handler, delivery_status.attempt, probe=True)
    )
    assert asked == [1]


def test_a_probe_does_not_change_a_delivery_resolved_meanwhile(harness, listens, eventually):
    """If an operator resolves the delivery while the probe runs, the operator's outcome stays."""
    thinking, told = threading.Event(), threading.Event()

    def probe(event, delivery):
        thinking.set()
        told.wait(20)
        return True

    listener = listens(lambda event: None, name="h", probe=probe)
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    assert thinking.wait(20)
    resolve(flow.app.operation_context, flow.only(event_id).delivery_id, Resolution.CLOSE, note="by hand")
    told.set()
    eventually(lambda: flow.app.runner.running == 0)
    delivery_status = flow.only(event_id)
    assert (delivery_status.state, delivery_status.comment) == (State.CLOSED, "by hand")


def lost(harness, listener):
    """The event of a delivery whose process was killed while it ran."""
    flow = harness.open(listener, start=False)
    answer = flow.take(wait=0)
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
    assert flow.app.ledger.claim(queued)
    harness.crash(flow)
    return answer.event_id


def test_secrets_of_an_event_are_not_logged(run, logged):
    """The log record of a failed attempt names the delivery and the error, not the event's data."""
    flow, _, _ = run(fails(ValueError("x")))
    flow.take("i2", password="hunter2")
    assert "hunter2" not in str(logged)
