"""The dispatcher with a fake ledger: its calls, their order, and its reaction to each answer."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from flowhooks import Outcome, OutcomeKind, Retry, RetryAfter, State, handler
from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import DamagedRow, TransactionError, Unavailable
from flowhooks.execution.dispatcher import Dispatcher
from flowhooks.execution.isolation import IsolatedCalls
from flowhooks.execution.isolation.protocol import from_error, to_error
from flowhooks.execution.recorder import RETRY_DELAYS, OutcomeRecorder
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.ledger.deliveries import StateChange
from flowhooks.ledger.handler_transaction import CommitOutcomeUnknown
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.delivery import Trigger
from flowhooks.model.error_group import ErrorIdentity
from flowhooks.model.invocation import current_invocation
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery
from flowhooks.testing import ManualClock, make_event
from support.waiting import WAIT_TIMEOUT, until

DONE = Outcome(kind=OutcomeKind.SUCCEEDED, value={"a": 1})
FAILED = Outcome(kind=OutcomeKind.FAILED, error="ValueError: of\n  s3cret", traceback="at s3cret")
TAKEN = timedelta(seconds=7)
"""The age of an event at its attempt."""


QUEUED = ReadyDelivery("d", "p:h", 2)
UNKNOWN = DeliveryStatus(
    delivery_id="d", handler="p:h", state=State.UNKNOWN, attempt=3, due_at=1, outcome=OutcomeKind.LOST, error="lost"
)


class Full:
    """Answer of a queue that refuses the outcome."""


class Joint:
    """The transaction of an attempt; `answers` determines the result of its commit."""

    def __init__(self):
        self.is_open = False
        self.answers = []
        self.done = []

    def begin(self):
        """Write nothing."""

    def end_block(self):
        """End the handler's block."""
        self.done.append("over")

    def close(self):
        """Undo the writes."""
        self.done.append("close")

    def commit_with_result(self, settlement):
        """Commit."""
        self.done.append(settlement)
        return answer(self.answers)


class Paper:
    """All dependencies of the dispatcher: each records its calls, and answers as configured."""

    def __init__(self):
        self.clock = ManualClock()
        self.event = make_event(received_at=to_datetime(self.clock.now()) - TAKEN)
        self.written = []
        self.claims = [ClaimedAttempt(event=self.event, attempt=3, retry_base=0)]
        self.writing = Joint()
        self.settles = [True]
        self.found = (self.event, UNKNOWN)
        self.puts_off = True
        self.moves = True
        self.refused = None
        self.blamed = None
        self.outcome = DONE
        self.pauses = []
        self.ends_after = 999
        self.ends = lambda: False
        self.meanwhile = []
        self.sees = lambda _handler, _event, _delivery: None
        self.invocation = None

    # The ledger.

    def claim(self, queued):
        """Start an attempt."""
        self.written.append(("claim", queued))
        return answer(self.claims)

    def handler_transaction(self, delivery_id, attempt):
        """An attempt's transaction."""
        self.written.append(("joint", delivery_id, attempt))
        return self.writing

    def record_result(self, settlement):
        """Record an outcome, unless the queue is full."""
        self.written.append(("settle", settlement))
        settle = self.settles.pop(0)
        if isinstance(settle, Full):
            raise Unavailable("busy")
        if isinstance(settle, Future):
            return settle
        future = Future()
        if isinstance(settle, BaseException):
            future.set_exception(settle)
        else:
            future.set_result(settle)
        return future

    def wait_for(self, future):
        """Wait until an outcome is recorded."""
        return future.result(0)

    def delivery(self, delivery_id):
        """An event and its delivery's state."""
        self.written.append(("read", delivery_id))
        return self.found

    def write(self, work):
        """Do work in a transaction."""
        return work("transaction")

    def requeue(self, transaction, delivery_statuses, *, trigger, reset_retries, comment):
        """Let deliveries run again."""
        assert trigger is Trigger.PROBE
        self.written.append(("requeue", transaction, delivery_statuses, reset_retries, comment))

    # The plugins.

    def why_data_invalid(self, handler, event):
        """Why the plugin's schema refuses the event."""
        assert (handler.id, event) == ("p:h", self.event)
        return self.refused

    def redact(self, text):
        """Mask the only secret."""
        return text.replace("s3cret", "…")

    def responsible_plugin(self, error):
        """The plugin whose wrapper failed: none."""
        return self.blamed

    def run_handler(self, handler, event, delivery):
        """Run the handler."""
        self.written.append(("run", handler.id, event, delivery))
        self.invocation = current_invocation()
        self.sees(handler, event, delivery)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    # Recipients of notifications.

    def on_settled(self, settled):
        """Record the signal."""
        self.written.append(("settled", settled))

    def pause(self, seconds):
        """Wait; return whether the process is about to end."""
        self.pauses.append(seconds)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return len(self.pauses) > self.ends_after or self.ends()

    # The cores.

    def acquire(self, handler):
        """Record that the thread gets all cores."""
        self.written.append(("enter", handler))
        return "wide"

    def release(self, handler, seconds, *, unpinned):
        """Record that the thread returns to its core."""
        assert 0 <= seconds < 60
        self.written.append(("leave", handler, unpinned))

    def dispatch(self, *, elsewhere=(), **declared):
        """A dispatcher with the only handler `p:h`."""
        listens = handler(name="h", process_key="k", **declared)(lambda event: None)
        self.recorder = OutcomeRecorder(ledger=self, subscribers=[self.on_settled])
        self.recorder._stopping.wait = self.pause
        return Dispatcher(
            ledger=self,
            recorder=self.recorder,
            plugins=self,
            handlers={"p:h": replace(listens, plugin="p")},
            clock=self.clock,
            affinity=self,
            isolated=dict(elsewhere),
        )

    def of(self, what):
        """The recorded calls of one kind."""
        return [call[1:] for call in self.written if call[0] == what]

    def kinds(self):
        """The recorded calls, in order."""
        return [call[0] for call in self.written]


def answer(answers):
    """The next configured answer, or the configured error."""
    next_answer = answers.pop(0)
    if isinstance(next_answer, BaseException):
        raise next_answer
    return next_answer


@pytest.fixture
def paper():
    """The arguments of the dispatcher."""
    return Paper()


def settlement(paper, outcome, target, **given):
    """A complete settlement of the claimed attempt."""
    whole = {"error": "", "traceback": "", "result": None, "due_at": None} | given
    return AttemptResult(
        delivery_id="d",
        handler="p:h",
        attempt=3,
        outcome=outcome,
        target=target,
        now=paper.clock.now(),
        **whole,
    )


def test_steps_of_an_attempt(paper):
    """An attempt is claimed, run and settled; only durable results are counted and notified, with all details."""
    assert paper.dispatch().execute(QUEUED) is None
    assert paper.kinds() == [
        *("claim", "joint", "enter", "run", "leave", "settle", "settled"),
    ]
    assert paper.of("claim") == [(QUEUED,)]
    assert paper.of("joint") == [("d", 3)]
    assert paper.of("enter") == [("p:h",)]
    assert paper.of("leave") == [("p:h", "wide")]
    ((of, event, delivery),) = paper.of("run")
    assert (of, event) == ("p:h", paper.event)
    assert (delivery.id, delivery.event_id, delivery.handler, delivery.attempt) == ("d", paper.event.id, "p:h", 3)
    assert paper.invocation.begin_transaction == paper.writing.begin
    assert paper.invocation.isolated_call is None
    assert current_invocation() is None
    assert paper.of("settle") == [(settlement(paper, OutcomeKind.SUCCEEDED, State.SUCCEEDED, result='{"a": 1}'),)]
    delivery_status = DeliveryStatus(
        delivery_id="d",
        handler="p:h",
        state=State.SUCCEEDED,
        attempt=3,
        due_at=None,
        outcome=OutcomeKind.SUCCEEDED,
        finished_at=paper.clock.now(),
    )
    ((settled,),) = paper.of("settled")
    assert settled[:4] == (paper.event, delivery, delivery_status, DONE)
    assert settled.seconds > 0
    assert paper.writing.done == ["over", "close"]


def named(paper):
    """The fields by which each log record names the delivery and its event."""
    return {
        "handler": "p:h",
        "delivery": "d",
        "event_id": paper.event.id,
        "flow_instance_id": paper.event.flow_instance_id,
        "source": "default",
    }


def test_a_failure_is_logged_and_notified_without_secrets(paper, logged):
    """The stored, notified and logged text is on one line, and has none of the plugins' secrets."""
    paper.outcome = FAILED
    paper.dispatch(retry=Retry(delays=(5, 60), jitter=0, attempts=9)).execute(QUEUED)
    due_at = paper.clock.now() + 60 * SECOND
    stored = settlement(
        paper,
        OutcomeKind.FAILED,
        State.WAITING,
        error="ValueError: of …",
        traceback="at …",
        due_at=due_at,
        error_identity=ErrorIdentity("p:h", "Failed", "ValueError: of …"),
    )
    assert paper.of("settle") == [(stored,)]
    ((settled,),) = paper.of("settled")
    status, outcome = settled.status, settled.outcome
    assert (status.state, status.due_at, status.error) == (State.WAITING, due_at, "ValueError: of …")
    assert (outcome.error, outcome.traceback) == ("ValueError: of\n  …", "at …")
    (entry,) = logged
    seconds = entry.pop("seconds")
    assert seconds == round(seconds, 6)
    assert entry == {
        "event": "attempt_failed",
        "log_level": "warning",
        **named(paper),
        "attempt": 3,
        "outcome": "failed",
        "state": "waiting",
        "error": "ValueError: of …",
    }


def test_the_traceback_of_one_exception_object_does_not_grow(paper):
    """An exception that a module keeps and raises again, here as the cause of another one, keeps no earlier attempt."""
    busy = LookupError("closed")

    def fail(*_arguments):
        try:
            raise busy
        except LookupError as error:
            raise OSError("busy") from error

    paper.sees = fail
    dispatch = paper.dispatch()
    for _ in range(20):
        paper.claims, paper.settles = [ClaimedAttempt(event=paper.event, attempt=3, retry_base=0)], [True]
        dispatch.execute(QUEUED)
    results = [result for (result,) in paper.of("settle")]
    assert "LookupError: closed" in results[0].traceback
    assert {result.traceback for result in results} == {results[0].traceback}
    assert busy.__traceback__ is None


@pytest.mark.parametrize("given", [{"error": "s3cret"}, {"traceback": "s3cret"}])
def test_a_secret_is_masked_in_the_error_and_the_traceback(paper, given):
    """A secret is masked in the error alone and in the traceback alone."""
    paper.outcome = Outcome(kind=OutcomeKind.REJECTED, **given)
    paper.dispatch().execute(QUEUED)
    assert "s3cret" not in str(paper.of("settle"))


def test_an_unstorable_result_is_dropped_and_logged(paper, logged):
    """The attempt succeeds; the log names its handler and delivery."""
    paper.outcome = Outcome(kind=OutcomeKind.SUCCEEDED, value={1, 2})
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert (stored.target, stored.result) == (State.SUCCEEDED, None)
    assert stored.result_dropped == (
        "handler h of plugin p returned a value of type set, which is not JSON; return text, numbers, True, False, "
        "None, or lists and dicts of them with text as keys"
    )
    assert [(entry["event"], entry["handler"], entry["delivery"], entry["why"]) for entry in logged] == [
        ("result_dropped", "p:h", "d", stored.result_dropped)
    ]


def test_a_secret_in_the_reason_of_a_dropped_result_is_masked(paper, logged):
    """The name of a member that is not JSON may be a secret; neither the ledger nor the log has it."""
    paper.outcome = Outcome(kind=OutcomeKind.SUCCEEDED, value={"s3cret": {1, 2}})
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert "s3cret" not in f"{stored} {logged}"
    assert "is of type set, which is not JSON" in stored.result_dropped


@dataclass
class Busy(RetryAfter):
    """An exception that does not call `RetryAfter.__init__`."""

    code: int


class Endless(Exception):
    """An exception whose traceback cannot be formatted."""

    @property
    def __notes__(self):
        """Exit the thread."""
        raise SystemExit(3)


class Nameless(type):
    """A class whose name cannot be read."""

    def __getattribute__(cls, name):
        """Fail."""
        if name == "__qualname__":
            raise LookupError
        return super().__getattribute__(name)


def later(seconds):
    """A `RetryAfter` whose delay was changed."""
    error = RetryAfter(5, "busy")
    error.seconds = seconds
    return error


NO_DELAY = (
    " (its seconds are not a number from 0 to 2592000, so it counts as any other exception; a subclass of RetryAfter "
    "must call super().__init__(seconds, why))"
)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (Busy(3), f"Busy: (its text cannot be read: AttributeError){NO_DELAY}"),
        (later("soon"), f"RetryAfter: busy{NO_DELAY}"),
        (later(1e9), f"RetryAfter: busy{NO_DELAY}"),
        (later(float("nan")), f"RetryAfter: busy{NO_DELAY}"),
        (SyntaxError("m", ("f", 1, "3", "x")), "SyntaxError: m (f, line 1)"),
        (Endless("x"), "Endless: x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("state", [State.WAITING, State.DEAD])
def test_an_unreadable_exception_is_a_failure(paper, raised, error, state):
    """The attempt has failed and follows `retry=`; the error says what is wrong with the exception."""
    paper.outcome = raised
    paper.sees = lambda _handler, _event, _delivery: setattr(paper.invocation, "entered", True)
    paper.dispatch(retry=Retry() if state is State.WAITING else None).execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target, stored.error) == (OutcomeKind.FAILED, state, error)
    assert stored.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert stored.error_identity.error_type == type(raised).__qualname__


def test_an_outcome_that_cannot_be_built_is_a_failure(paper, joint, logged):
    """After any other error the outcome has no details; the log says what to do, and what failed."""
    paper.outcome = error = Nameless("Odd", (ValueError,), {})("x")
    paper.sees = lambda _handler, _event, _delivery: setattr(paper.invocation, "entered", True)
    paper.dispatch(retry=Retry()).execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target) == (OutcomeKind.FAILED, State.WAITING)
    assert stored.error == "an error that cannot be read: LookupError"
    assert joint.done[-1] == "close"
    assert [entry["event"] for entry in logged] == ["outcome_incomplete", "attempt_failed"]
    assert logged[0] | named(paper) == logged[0]
    assert logged[0]["traceback"].endswith("LookupError\n")
    assert "correct the plugin" in logged[0]["next"]
    sent = to_error(from_error(error, str))
    assert f"{sent.name}: {sent.text}" == stored.error, "as from its own process"


@pytest.mark.parametrize("kind", [OutcomeKind.REJECTED, OutcomeKind.LOST])
def test_the_kind_of_an_outcome_that_cannot_be_built_is_recorded(paper, monkeypatch, kind):
    """The outcome of a wrapper is recorded without its text."""
    paper.outcome = Outcome(kind=kind, error="x")
    monkeypatch.setattr(paper, "redact", lambda text: 1 / 0 if text == "x" else text)
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert stored.outcome is kind
    assert stored.error == "an error that cannot be read: ZeroDivisionError"


def nested(value, levels):
    """A value in so many lists."""
    for _ in range(levels):
        value = [value]
    return value


def test_a_too_deeply_nested_result_is_dropped(paper, joint):
    """Its secrets could not be masked; the attempt has succeeded, and its handler's rows are committed."""
    paper.outcome = Outcome(kind=OutcomeKind.SUCCEEDED, value=nested("s3cret", 450))
    joint.answers = [True]
    paper.dispatch().execute(QUEUED)
    stored = joint.done[-1]
    assert (stored.outcome, stored.target, stored.result) == (OutcomeKind.SUCCEEDED, State.SUCCEEDED, None)
    assert "nested more than 100 levels deep" in stored.result_dropped


def test_an_unreadable_result_is_dropped(paper, monkeypatch, logged):
    """The attempt has succeeded; the log says what failed, and the attempt that its result is not stored."""
    monkeypatch.setattr(paper, "redact", lambda text: 1 / 0 if text == '"x"' else text)
    paper.outcome = Outcome(kind=OutcomeKind.SUCCEEDED, value="x")
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target, stored.result) == (OutcomeKind.SUCCEEDED, State.SUCCEEDED, None)
    assert stored.result_dropped == "handler h of plugin p returned a value that cannot be stored (ZeroDivisionError)"
    assert [entry["event"] for entry in logged] == ["outcome_incomplete", "result_dropped"]
    ((settled,),) = paper.of("settled")
    assert settled.outcome.succeeded


def test_a_claimed_delivery_is_not_claimed_again(paper):
    """A runner that has reserved a delivery passes its attempt."""
    paper.dispatch().execute(QUEUED, ClaimedAttempt(event=paper.event, attempt=1, retry_base=0))
    assert paper.of("claim") == []
    assert paper.of("joint") == [("d", 1)]


def test_an_error_in_the_data_check_is_a_failure(paper, monkeypatch):
    """The attempt was not entered, so it is retried; no plugin is blamed."""
    monkeypatch.setattr(paper, "why_data_invalid", lambda _handler, _event: 1 / 0)
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target) == (OutcomeKind.FAILED, State.WAITING)
    assert stored.error == (
        "flowhooks or a plugin raised before the handler was entered: ZeroDivisionError: division by zero"
    )
    assert stored.error_identity.error_type == "ZeroDivisionError"


def test_a_damaged_delivery_runs_after_its_claim(paper, logged):
    """A damaged delivery is tried once a minute, by a clock that may be set back; one that is claimed was read."""
    paper.claims = [DamagedRow("x")] * 3
    dispatch = paper.dispatch()
    dispatch.execute(QUEUED)
    dispatch.execute(QUEUED)
    assert [entry["event"] for entry in logged] == ["delivery_damaged"]
    for seconds in (60, -86_400):
        paper.clock.time += seconds * SECOND
        dispatch.execute(QUEUED)
        dispatch.execute(QUEUED)
    assert paper.kinds() == ["claim"] * 3
    dispatch.execute(QUEUED, ClaimedAttempt(event=paper.event, attempt=3, retry_base=0))
    assert paper.kinds().count("run") == 1


def test_an_unclaimable_delivery_is_not_run(paper):
    """A delivery that changed or exceeds a limit is not run; the runner is notified."""
    paper.claims = [None, full := LimitReached()]
    dispatch = paper.dispatch()
    assert dispatch.execute(QUEUED) is None
    assert dispatch.execute(QUEUED) is full
    assert paper.kinds() == ["claim", "claim"]


@pytest.mark.parametrize("reserved", [False, True])
def test_a_delivery_without_its_handler_waits(paper, reserved):
    """A delivery without its handler waits without a due time, with the reason."""
    claimed = ClaimedAttempt(event=paper.event, attempt=3, retry_base=0)
    dispatch = paper.dispatch()
    dispatch._handlers = {}
    assert dispatch.execute(QUEUED, claimed if reserved else None) is None
    assert paper.of("claim") == ([] if reserved else [(QUEUED,)])
    assert paper.kinds()[-2:] == ["settle", "settled"]
    assert paper.of("settled")[0][0].outcome is None
    why = "no loaded plugin has this handler; the delivery waits until it is installed"
    assert paper.of("settle") == [(settlement(paper, OutcomeKind.FAILED, State.WAITING, error=why),)]


def test_a_delivery_without_its_handler_is_not_probed(paper):
    """An *unknown* delivery stays so; a delivery that could not be claimed is left alone."""
    dispatch = paper.dispatch()
    dispatch._handlers = {}
    dispatch.execute(QUEUED._replace(probe=True))
    assert paper.kinds() == []
    paper.claims = [None]
    dispatch.execute(QUEUED)
    assert paper.kinds() == ["claim"]


def test_invalid_data_is_rejected_without_a_call_of_the_handler(paper):
    """The handler is not called; the delivery is dead."""
    paper.refused = "the data does not match it"
    paper.dispatch(retry=Retry()).execute(QUEUED)
    assert "run" not in paper.kinds()
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target, stored.error) == (OutcomeKind.REJECTED, State.DEAD, paper.refused)
    outcome = paper.of("settled")[0][0].outcome
    assert outcome.entered is False


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize(
    ("answered", "error"),
    [
        (7, "a run_handler wrapper returned int instead of the Outcome that its yield returned"),
        (ValueError("x"), "ValueError: x"),
    ],
)
def test_a_failure_before_the_function_is_retried(paper, entered, answered, error):
    """A failure before the function is retried; a failure within it only with `retry=`."""
    paper.outcome = answered
    paper.sees = lambda _handler, _event, _delivery: setattr(paper.invocation, "entered", entered)
    paper.dispatch().execute(QUEUED)
    ((stored,),) = paper.of("settle")
    assert stored.error.endswith(error)
    assert stored.outcome is OutcomeKind.FAILED
    # The third attempt of `Retry()`.
    assert (stored.target, stored.due_at) == (
        (State.DEAD, None) if entered else (State.WAITING, paper.clock.now() + 1800 * SECOND)
    )
    outcome = paper.of("settled")[0][0].outcome
    assert outcome.entered is entered


def test_an_isolated_handler_gets_no_cores(paper):
    """An isolated process gets no cores; its invocation calls its function with the event and the delivery."""
    there = IsolatedCalls(run=lambda event, delivery: (event, delivery), probe=lambda event, delivery: None)
    paper.dispatch(elsewhere={"p:h": there}).execute(QUEUED)
    assert {"enter", "leave"}.isdisjoint(paper.kinds())
    ((_, _, delivery),) = paper.of("run")
    assert paper.invocation.isolated_call(paper.event) == (paper.event, delivery)


FAILS = {"kind": OutcomeKind.FAILED, "error": "x"}
LOSES = {"kind": OutcomeKind.LOST, "error": "x"}
TWO = Retry(delays=(10, 20), jitter=0.5)
"""Three attempts."""


@pytest.mark.parametrize(
    ("outcome", "declared", "made", "target", "seconds"),
    [
        ({"kind": OutcomeKind.SUCCEEDED}, {}, (1, 0), State.SUCCEEDED, None),
        ({"kind": OutcomeKind.REJECTED}, {"retry": TWO}, (1, 0), State.DEAD, None),
        ({"kind": OutcomeKind.REJECTED, "entered": False}, {}, (1, 0), State.DEAD, None),
        (FAILS, {}, (1, 0), State.DEAD, None),
        (FAILS, {"retry": TWO}, (1, 0), State.WAITING, 12.5),
        (FAILS, {"retry": TWO}, (2, 0), State.WAITING, 25),
        (FAILS, {"retry": TWO}, (3, 0), State.DEAD, None),
        (FAILS, {"retry": TWO}, (5, 4), State.WAITING, 12.5),
        (FAILS, {"retry": TWO}, (7, 4), State.DEAD, None),
        (FAILS | {"retry_after": 3}, {}, (1, 0), State.WAITING, 3),
        (FAILS | {"retry_after": 0}, {}, (7, 0), State.WAITING, 0),
        (FAILS | {"retry_after": 3}, {}, (8, 0), State.DEAD, None),
        (FAILS | {"retry_after": 3}, {"retry": TWO}, (2, 0), State.WAITING, 3),
        (FAILS | {"retry_after": 3}, {"retry": TWO}, (3, 0), State.DEAD, None),
        (FAILS | {"entered": False}, {}, (1, 0), State.WAITING, 5.25),
        (FAILS | {"entered": False}, {"retry": TWO}, (1, 0), State.WAITING, 12.5),
        (FAILS | {"entered": False}, {"retry": TWO}, (3, 0), State.WAITING, 1890),
        (FAILS | {"entered": False}, {"retry": TWO}, (8, 0), State.DEAD, None),
        (LOSES, {}, (1, 0), State.UNKNOWN, None),
        (LOSES, {"probe": lambda event, delivery: None}, (1, 0), State.UNKNOWN, 0),
        (LOSES, {"retry": TWO}, (2, "x"), State.WAITING, 25),
        (LOSES, {"retry": TWO}, (2, 3), State.WAITING, 25),
        (LOSES, {"retry": TWO}, (6, 4), State.WAITING, 25),
        (LOSES, {"retry": TWO}, (7, 4), State.DEAD, None),
    ],
)
def test_state_and_due_time_after_an_outcome(paper, outcome, declared, made, target, seconds):  # noqa: PLR0917 (a table's columns)
    """The new state and the due time of the next attempt or probe; attempts count from the present schedule on.

    Where that starts at a damaged number, all attempts count.
    """
    paper.clock.drawn = 0.5
    paper.outcome = Outcome(**outcome)
    attempt, retry_base = made
    paper.claims = [ClaimedAttempt(event=paper.event, attempt=attempt, retry_base=retry_base)]
    paper.dispatch(**declared).execute(QUEUED)
    ((stored,),) = paper.of("settle")
    due_at = None if seconds is None else paper.clock.now() + int(seconds * SECOND)
    assert (stored.target, stored.due_at) == (target, due_at)
    assert [settled.status.state for (settled,) in paper.of("settled")] == [target]


def test_a_stale_attempt_is_neither_counted_nor_notified(paper, logged):
    """The outcome of a stale attempt is neither counted nor notified."""
    paper.settles = [False]
    paper.dispatch().execute(QUEUED)
    assert paper.kinds()[-1] == "settle"
    assert logged == [{"event": "stale_attempt", "log_level": "warning", **named(paper), "attempt": 3}]


def test_a_thread_records_the_outcome_itself_if_the_queue_is_full(paper, logged):
    """An outcome that the queue refuses is recorded by the thread itself; a failure of that is logged once."""
    paper.settles = [Full(), Unavailable("ledger_down"), Full(), True]
    paper.dispatch().execute(QUEUED)
    assert paper.of("settle") == paper.of("settle")[:1] * 4
    assert [entry["event"] for entry in logged] == ["outcome_write_failed"]
    assert paper.kinds()[-1] == "settled"
    assert paper.pauses == list(RETRY_DELAYS[:2])


def retry_until_recorded(paper, *, settled=1):
    """Retry as the recording thread does, until that many outcomes were published."""
    paper.ends = lambda: len(paper.of("settled")) >= settled
    paper.recorder._retry()


def test_an_outcome_is_recorded_after_a_long_database_outage(paper, logged):
    """Recording is retried with growing delays, logged once, and published when durable."""
    paper.settles = [Unavailable("ledger_down")] * 8 + [True]
    paper.dispatch().execute(QUEUED)
    assert paper.kinds()[-1] == "settle"
    retry_until_recorded(paper)
    assert [pause for pause in paper.pauses if pause] == [*RETRY_DELAYS, RETRY_DELAYS[-1], RETRY_DELAYS[-1]]
    assert paper.of("settle") == paper.of("settle")[:1] * 9
    assert paper.kinds()[-1] == "settled"
    assert [(entry["event"], entry["delivery"]) for entry in logged] == [("outcome_write_failed", "d")]
    assert logged[0]["why"] == str(Unavailable("ledger_down"))


def test_an_unrecordable_outcome_does_not_block_other_outcomes(paper, logged):
    """A row that fails each time is retried behind the others, also if a defect of flowhooks is the cause."""
    paper.claims *= 2
    paper.settles = [Unavailable("ledger_down")] * 2 + [ZeroDivisionError(), True, DamagedRow("x"), True]
    dispatch = paper.dispatch()
    dispatch.execute(QUEUED)
    dispatch.execute(QUEUED._replace(delivery_id="other"))
    retry_until_recorded(paper, settled=2)
    assert [settlement.delivery_id for (settlement,) in paper.of("settle")[2:]] == ["d", "other", "d", "d"]
    assert [settled.delivery.id for (settled,) in paper.of("settled")] == ["other", "d"]


def test_the_recording_thread_retries_until_the_process_ends(paper):
    """The recording thread waits for outcomes until the process ends."""
    paper.settles = [Unavailable("ledger_down"), True]
    dispatch = paper.dispatch()
    paper.recorder.start()
    dispatch.execute(QUEUED)
    until(lambda: paper.of("settled"))
    paper.recorder.stop(WAIT_TIMEOUT)
    assert not paper.recorder._thread.is_alive()


def test_remaining_outcomes_are_recorded_at_shutdown(paper):
    """All outcomes that are left when the process ends are tried once more, before the first one is recorded."""
    recording = Future()
    paper.claims *= 2
    paper.settles = [Unavailable("ledger_down"), Unavailable("ledger_down"), recording, True]
    dispatch = paper.dispatch()
    dispatch.execute(QUEUED)
    dispatch.execute(QUEUED._replace(delivery_id="other"))
    paper.recorder.stop(0)
    assert [settled.delivery.id for (settled,) in paper.of("settled")] == ["other"]
    recording.set_result(True)
    assert [settled.delivery.id for (settled,) in paper.of("settled")] == ["other", "d"]


@pytest.mark.parametrize("first", ["queue full", "database down"])
def test_an_outcome_unrecorded_at_shutdown_is_logged_as_lost(paper, logged, first):
    """An outcome that could not be recorded until the end is logged as lost; the recovering process continues."""
    paper.settles = [Full() if first == "queue full" else Unavailable("ledger_down")] + [Unavailable("ledger_down")] * 9
    paper.ends_after = 2
    paper.dispatch().execute(QUEUED)
    paper.recorder.stop(0)
    paper.recorder.close(0)
    assert "settled" not in paper.kinds()
    assert logged[-1] == {"event": "outcome_lost", "log_level": "error", **named(paper), "attempt": 3}


def test_an_outcome_after_shutdown_is_logged_at_once(paper, logged):
    """No later step would log it."""
    paper.settles = [Unavailable("draining")]
    dispatch = paper.dispatch()
    paper.recorder.close(0)
    dispatch.execute(QUEUED)
    assert logged == [{"event": "outcome_lost", "log_level": "error", **named(paper), "attempt": 3}]


def test_an_outcome_still_being_recorded_at_shutdown_is_logged(paper, logged):
    """The database does not respond: only when the ledger is closed the thread learns that it has failed."""
    recording = Future()
    paper.settles = [Unavailable("ledger_down"), recording]
    paper.wait_for = lambda future: future.result(WAIT_TIMEOUT)
    paper.ends_after = 1
    dispatch = paper.dispatch()
    paper.recorder.start()
    dispatch.execute(QUEUED)
    until(lambda: not paper.settles)
    paper.recorder.stop(0)
    recording.set_exception(Unavailable("ledger_down"))
    paper.recorder.close(WAIT_TIMEOUT)
    assert [entry["event"] for entry in logged] == ["outcome_write_failed", "outcome_lost"]


def test_a_failing_subscriber_does_not_stop_other_subscribers(paper, logged):
    """The failure is logged, and the next subscriber gets the signal."""
    dispatch = paper.dispatch()
    paper.recorder._subscribers = [lambda settled: 1 / 0, paper.on_settled]
    dispatch.execute(QUEUED)
    assert len(paper.of("settled")) == 1
    assert [entry["event"] for entry in logged] == ["post_commit_hook_failed"]


@pytest.fixture
def joint(paper):
    """The transaction of an attempt in which its handler has written."""
    paper.writing.is_open = True
    return paper.writing


def unanswered(*answers):
    """A commit without a reply, and the ledger's later answer about it."""
    error = CommitOutcomeUnknown(None, None, None, "server closed the connection")
    left = list(answers)
    error.was_committed = lambda: answer(left)
    return error


def test_rows_of_a_handler_are_committed_with_its_outcome(paper, joint):
    """The handler's rows and the outcome are in one commit; then the outcome is notified as usual."""
    joint.answers = [True]
    paper.dispatch().execute(QUEUED)
    stored = settlement(paper, OutcomeKind.SUCCEEDED, State.SUCCEEDED, result='{"a": 1}')
    assert joint.done == ["over", stored]
    assert "settle" not in paper.kinds()
    ((settled,),) = paper.of("settled")
    assert (settled.event, settled.status.state, settled.outcome) == (paper.event, State.SUCCEEDED, DONE)


def test_rows_of_a_failed_handler_are_rolled_back(paper, joint):
    """The rows of a failed handler are rolled back, and its failure is recorded as usual."""
    paper.outcome = FAILED
    paper.dispatch().execute(QUEUED)
    assert joint.done == ["over", "close"]
    assert [stored.target for (stored,) in paper.of("settle")] == [State.DEAD]


def test_rows_of_a_stale_attempt_are_rolled_back(paper, joint, logged):
    """The rows of a stale attempt are rolled back."""
    joint.answers = [False]
    paper.dispatch().execute(QUEUED)
    assert paper.kinds()[-1] == "leave"
    assert [entry["event"] for entry in logged] == ["stale_attempt"]


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        (lambda: TransactionError("a s3cret is twice"), "a … is twice"),
        (lambda: unanswered(False), "the connection was lost before the commit: server closed the connection"),
    ],
)
def test_a_failed_commit_is_a_failure_of_the_attempt(paper, joint, logged, answered, why):
    """The handler was entered, so `retry=` decides; the stored text has no secrets."""
    joint.answers = [answered()]
    paper.dispatch(retry=Retry(delays=(5,), jitter=0, attempts=9)).execute(QUEUED)
    assert joint.done[-1] == "close"
    ((stored,),) = paper.of("settle")
    assert (stored.outcome, stored.target, stored.result) == (OutcomeKind.FAILED, State.WAITING, None)
    assert stored.error == f"TransactionError: {why}"
    assert "s3cret" not in stored.traceback
    assert logged[-1]["event"] == "attempt_failed"
    assert logged[-1]["error"] == stored.error
    ((settled,),) = paper.of("settled")
    outcome, state = settled.outcome, settled.status.state
    assert (outcome.kind, outcome.entered, state) == (OutcomeKind.FAILED, True, State.WAITING)


def test_an_unconfirmed_commit_is_looked_up(paper, joint, logged):
    """The outcome is looked up with growing delays while the database is down, and then notified."""
    joint.answers = [unanswered(*[Unavailable("ledger_down")] * 6, True)]
    paper.dispatch().execute(QUEUED)
    assert paper.pauses == [*RETRY_DELAYS, RETRY_DELAYS[-1]]
    assert len(paper.of("settled")) == 1
    assert logged == [
        {
            "event": "commit_outcome_unknown",
            "log_level": "error",
            **named(paper),
            "why": "server closed the connection",
        }
    ]


def test_a_commit_unconfirmed_at_shutdown_is_logged_and_not_notified(paper, joint, logged):
    """Nothing is notified, because the outcome is not known; it is logged."""
    joint.answers = [unanswered(*[Unavailable("ledger_down")] * 3)]
    paper.ends_after = 2
    paper.dispatch().execute(QUEUED)
    assert paper.kinds()[-1] == "leave"
    assert logged[-1] == {"event": "outcome_lost", "log_level": "error", **named(paper), "attempt": 3}
    assert joint.done[-1] != "close"


@pytest.fixture
def probes(paper, monkeypatch):
    """A function that runs a probe which returns or raises a value, and returns the probe's arguments."""
    asked = []

    def postpone(transaction, delivery_id, *, now, until):
        paper.written.append(("postpone", transaction, delivery_id, now, until))
        return paper.puts_off

    def move(transaction, moves):
        paper.written.append(("move", transaction, moves))
        return paper.moves

    def ask(answered, **given):
        def probe(event, delivery):
            paper.clock.advance(2)
            asked.append((event, delivery))
            if isinstance(answered, BaseException):
                raise answered
            return answered

        paper.dispatch(**{"probe": probe} | given).execute(QUEUED._replace(probe=True))
        return asked

    monkeypatch.setattr("flowhooks.execution.probe.defer_probe", postpone)
    monkeypatch.setattr("flowhooks.execution.probe.apply_changes", move)
    return ask


def test_a_probe_that_returns_true_settles_the_delivery(paper, probes):
    """The delivery is postponed before the probe; then it has succeeded, and waiting callers are notified."""
    before = paper.clock.now()
    ((event, delivery),) = probes(True)
    assert event == paper.event
    assert (delivery.id, delivery.event_id, delivery.handler, delivery.attempt) == ("d", paper.event.id, "p:h", 3)
    did = StateChange(
        delivery_id="d",
        source=State.UNKNOWN,
        target=State.SUCCEEDED,
        attempt=3,
        now=before + 2 * SECOND,
        comment="its probe says that its work was done",
    )
    assert paper.written == [
        ("read", "d"),
        ("postpone", "transaction", "d", before, before + 60 * SECOND),
        ("move", "transaction", [did]),
        ("settled", (event, delivery, UNKNOWN._replace(state=State.SUCCEEDED, due_at=None), None, 0.0, None)),
    ]


def test_a_probe_that_returns_false_restarts_the_delivery(paper, probes):
    """The delivery runs again, from the start of its schedule."""
    probes(False)
    comment = "its probe says that its work was not done"
    assert paper.written[2:] == [("requeue", "transaction", [UNKNOWN], True, comment)]


@pytest.mark.parametrize("answered", [None, 1, 0, "", "yes"])
def test_a_probe_without_a_boolean_leaves_the_delivery_unknown(paper, probes, answered, logged):
    """The delivery stays *unknown* until the next probe. Any other value than None is a mistake, which is logged."""
    assert len(probes(answered)) == 1
    assert paper.kinds() == ["read", "postpone"]
    error = f"TypeError: the probe returned a {type(answered).__name__} instead of True, False or None"
    assert [(entry["event"], entry["traceback"].splitlines()[-1]) for entry in logged] == (
        [] if answered is None else [("probe_failed", error)]
    )


def test_a_probe_that_raises_is_logged_without_secrets(paper, probes, logged):
    """A probe that raises is logged without secrets, and gives no answer."""
    error = ValueError("of s3cret")
    probes(error)
    assert error.__traceback__ is None, "it would grow with each raise"
    assert paper.kinds() == ["read", "postpone"]
    (entry,) = logged
    assert (entry["event"], entry["handler"], entry["delivery"]) == ("probe_failed", "p:h", "d")
    assert entry["log_level"] == "error"
    assert entry["traceback"].splitlines()[-1] == "ValueError: of …"


def test_cases_in_which_no_probe_runs(paper, probes):
    """No probe runs if another process runs it, the handler has none, or the delivery is gone."""
    assert probes(True, probe=None) == []
    paper.puts_off = False
    assert probes(True) == []
    paper.found = None
    assert probes(True) == []
    assert paper.kinds() == ["read", "postpone", "read", "postpone", "read"]


def test_an_operator_decision_during_a_probe_stays(paper, probes):
    """A decision made meanwhile stays, and no other one is notified."""
    paper.moves = False
    probes(True)
    assert paper.kinds() == ["read", "postpone", "move"]


def test_the_probe_of_an_isolated_handler_runs_in_its_process(paper, probes):
    """The probe of an isolated handler runs in its process."""
    there = IsolatedCalls(run=lambda event, delivery: None, probe=lambda event, delivery: False)
    assert probes(True, elsewhere={"p:h": there}) == []
    assert paper.kinds() == ["read", "postpone", "requeue"]
