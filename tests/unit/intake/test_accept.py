"""Intake with a fake ledger: stored data, waits, and the reaction to each answer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import replace

import pytest

from flowhooks import Event, OutcomeKind, Retry, State, handler
from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import IdentityConflict, InvalidCallback, LedgerUnusable, Unauthorized, Unavailable
from flowhooks.intake.accept import Intake
from flowhooks.intake.callback import Answer, AnswerStatus, Callback, TakenIn
from flowhooks.intake.config import IntakeConfig
from flowhooks.ledger.accept_results import AcceptResult, BatchRolledBack, EventBatch
from flowhooks.ledger.new_event import NewEvent
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.ledger.waiters import Waiter, WaiterRegistry
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import NoMatch, digest
from flowhooks.model.search_fields import indexed_values
from flowhooks.model.selectors import Selectors
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router
from flowhooks.settings import IdentitySettings, RoutingSettings, SearchSettings, Settings, Source
from flowhooks.testing import ManualClock
from support.waiting import WAIT_TIMEOUT, until

BODY = {"processDefinitionKey": "k", "businessKey": "b", "at": 1}
CALL_BACK = Callback(
    source="hr", kind="complete", flow_instance_id="i", body=BODY, text='{"as": "sent"}', webhook_id="m1"
)
RECONCILED = CALL_BACK._replace(origin="reconciled", webhook_id=None)
LONG = 3600.0
"""A wait in seconds that no test waits for completely."""


class Paper:
    """A fake ledger and recipients of notifications: each records its calls, and answers as configured."""

    def __init__(self):
        self.clock, self.pauses = ManualClock(), PausedHandlers()
        self.watches = WaiterRegistry(clock=self.clock, max_waiters=1, max_unreplaced=1, pauses=self.pauses)
        self.asked = []
        self.become = lambda new: AcceptResult(event_id=new.event.id, new=True, state=new.state)
        self.meanwhile = lambda new: None
        self.there = []
        self.known = False
        self.taken_in = set()
        self.has_subscribers = False
        self.write_timeout = 5.0
        self.timeouts = []

    def accept(self, new):
        """Store an event or a batch."""
        if isinstance(new, EventBatch):
            return self.accept_batch(new)
        self.asked.append(("accept", new))
        future = Future()
        result = self.become(new)
        if result is not None:
            future.set_result(result)
        self.meanwhile(new)
        return future

    def accept_batch(self, batch):
        """Store the events of one request."""
        self.asked.append(("accept_batch", batch.events, batch.ignored))
        future = Future()
        results = [self.become(new) for new in batch.events]
        if any(result.damage for result in results):
            future.set_exception(BatchRolledBack(results))
        else:
            future.set_result(results)
        return future

    def wait_for(self, future, timeout=5.0):
        """Wait until an event is stored."""
        self.timeouts.append(timeout)
        return future.result(timeout)

    def is_stored(self, identity):
        """Whether the event is stored."""
        self.asked.append(("is_stored", identity))
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    def is_taken_in(self, source, instance):
        """Whether the instance has an event from the engine's history."""
        self.asked.append(("is_taken_in", source, instance))
        return (source, instance) in self.taken_in

    def delivery_statuses(self, event_id):
        """The states of its deliveries."""
        self.asked.append(("delivery_statuses", event_id))
        if isinstance(self.there, Exception):
            raise self.there
        return self.there

    def write(self, work):
        """Do work in a transaction."""
        return work("transaction")

    def requeue(self, transaction, delivery_statuses, *, trigger, missing_handlers):
        """Let deliveries run again."""
        assert trigger is Trigger.REPEATED
        self.asked.append(("requeue", transaction, delivery_statuses, missing_handlers))

    def event_accepted(self, event, handlers):
        """Record the notification of plugins about an event."""
        self.asked.append(("notice", event, handlers))

    def runs(self, handler_id):
        """Whether a process runs a handler's deliveries."""
        return handler_id not in self.pauses.handlers

    def of(self, what):
        """The recorded calls of one kind."""
        return [call[1:] for call in self.asked if call[0] == what]

    def takes_another(self):
        """Whether the only place to wait is free."""
        watch = self.watches.open("other", ["d"], 1)
        if watch is not None:
            watch.close()
        return watch is not None


def candidate(name, *, order_by=None, **selectors):
    """A handler in the form of the router."""
    return Candidate(f"p:{name}", Selectors(**selectors), order_by)


def rules(*candidates, absent=(), ignore_keys=(), **settings):
    """The intake of a callback; for `k`, the handlers `p:one` and `p:two`, unless others are given."""
    both = candidate("one", process_keys=("k",), order_by="business_key"), candidate("two", process_keys=("k",))
    return IntakeConfig(
        settings=Settings(**settings),
        router=Router(candidates or both, ignore_keys=ignore_keys),
        missing_handlers=frozenset(absent),
    )


@pytest.fixture
def paper():
    """The arguments of the intake."""
    return Paper()


@pytest.fixture
def intake(paper):
    """A function that makes an intake; its handler `p:again` may run twice, and `p:once` may not."""

    def make(given=None):
        again = handler(name="again", process_key="k", retry=Retry())(lambda event: None)
        once = handler(name="once", process_key="k")(lambda event: None)
        return Intake(
            ledger=paper,
            config=given or rules(),
            handlers={"p:again": again, "p:once": once},
            runs_somewhere=paper.runs,
            waiters=paper.watches,
            notifier=paper,
            clock=paper.clock,
        )

    return make


def delivery_status(name, state, **given):
    """The state of a handler's delivery."""
    whole = {"attempt": 1, "due_at": None} | given
    return DeliveryStatus(delivery_id=f"d-{name}", handler=f"p:{name}", state=state, **whole)


def came_before(paper, *delivery_statuses, state="routed", **given):
    """Make the ledger return an event that was stored before, with these deliveries."""
    paper.become = lambda new: AcceptResult(
        event_id="before", new=False, state=state, delivery_statuses=delivery_statuses, **given
    )


def test_stored_data_of_a_callback(paper, intake):
    """The event, its route, deliveries with order keys, and original text are stored; plugins are notified."""
    by = rules(absent={"p:two"}, identity=IdentitySettings(ignore_pointers=("/at",)))
    answer = intake(by).accept(CALL_BACK, wait=0)
    ((new,),) = paper.of("accept")
    (one, of_one), (two, of_two) = new.deliveries
    event = Event(
        id=answer.event_id,
        source="hr",
        kind="complete",
        flow_instance_id="i",
        business_key="b",
        process_definition_key="k",
        data=BODY,
        received_at=to_datetime(paper.clock.now()),
    )
    assert new == NewEvent(
        event=event,
        body='{"as": "sent"}',
        digest=digest({"processDefinitionKey": "k", "businessKey": "b"}),
        state="routed",
        route={"p:one": "key k", "p:two": "key k"},
        deliveries=[(one, "p:one"), (two, "p:two")],
        missing_handlers=frozenset({"p:two"}),
        order_keys={"p:one": "b"},
        webhook_id="m1",
        read=False,
        now=paper.clock.now(),
    )
    assert (of_one, of_two) == ("p:one", "p:two")
    assert len({one, two, answer.event_id}) == 3
    assert all(isinstance(made, str) for made in (one, two, answer.event_id))
    assert paper.of("notice") == [(event, ["p:one", "p:two"])]
    assert answer.status == AnswerStatus.PENDING
    assert answer.delivery_statuses == (
        DeliveryStatus(delivery_id=one, handler="p:one", state=State.WAITING, attempt=0, due_at=paper.clock.now()),
        DeliveryStatus(delivery_id=two, handler="p:two", state=State.WAITING, attempt=0, due_at=None),
    )


def test_stored_data_of_a_request(paper, intake):
    """The body and the media type as received, the trace, the digest of a signed request, and the indexed fields."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    raw = {"raw_body": "<raw>", "media_type": "text/plain", "webhook_digest": "d", "started_at": 5}
    given = {"origin": "ingress", "traceparent": trace} | raw
    intake(rules(search=SearchSettings(fields=("/at",)))).accept(CALL_BACK._replace(**given), wait=0)
    ((new,),) = paper.of("accept")
    assert (new.event.origin, new.event.traceparent) == ("ingress", trace)
    assert {name: getattr(new, name) for name in raw} == raw
    assert new.indexed_values == indexed_values(BODY, ("/at",))
    assert (new.locks_instance, new.former_names) == (False, ())


@pytest.mark.parametrize(
    ("source", "origin", "locks"),
    [
        (Source(former_names=("f",)), "callback", True),
        (Source(engine=object()), "callback", True),
        (Source(), "reconciled", True),
        (Source(), "callback", False),
    ],
)
def test_instances_open_to_reconciliation_are_locked(paper, intake, source, origin, locks):
    """Instances that reconciliation may take in are locked, also under the former names of their source."""
    intake(rules(sources={"hr": source})).accept(CALL_BACK._replace(origin=origin), wait=0)
    ((new,),) = paper.of("accept")
    assert (new.locks_instance, new.former_names) == (locks, source.former_names)


def test_ignored_members_of_a_source(paper, intake):
    """The setting of the source counts instead of the general one."""
    by = rules(identity=IdentitySettings(ignore_pointers=("/at",)), sources={"hr": Source(ignore_pointers=("/x",))})
    intake(by).accept(CALL_BACK, wait=0)
    assert paper.of("accept")[0][0].digest == digest(BODY)


def test_an_undecided_end_parks_the_event(paper, intake):
    """No handler gets it, and no reasons are stored, because routing does not matter."""
    intake().accept(RECONCILED._replace(end_undecided=True), wait=0)
    ((new,),) = paper.of("accept")
    assert (new.state, new.parked_by, new.route, new.deliveries, new.no_match) == ("parked", "end_state", {}, [], None)


def test_deliveries_reread_the_data_if_plugins_are_notified(paper, intake):
    """If plugins are notified, each delivery reads the data again."""
    paper.has_subscribers = True
    intake().accept(CALL_BACK, wait=0)
    assert paper.of("accept")[0][0].read


@pytest.mark.parametrize(
    ("by", "state", "status"),
    [
        (rules(candidate("h", process_keys=("other",))), "parked", AnswerStatus.PARKED),
        (rules(candidate("h", every=True)), "parked", AnswerStatus.PARKED),
        (rules(candidate("h", process_keys=("other",)), ignore_keys=("k",)), "dismissed", AnswerStatus.DONE),
        (rules(candidate("h", every=True), ignore_keys=("k",)), "dismissed", AnswerStatus.PENDING),
    ],
    ids=["nobody's", "everybody's", "ignored", "ignored but by one"],
)
def test_an_event_without_a_handler_is_parked_or_dismissed(paper, intake, by, state, status):
    """An event that matches no handler is parked, or dismissed if the settings say so."""
    assert intake(by).accept(CALL_BACK, wait=0).status == status
    assert paper.of("accept")[0][0].state == state


NO_VERSION = "no processDefinitionVersion, but versions '>1' requires one"
OTHER_VALUE = "/at is 1, but the condition is 2"
OTHER_CONCLUSION = "conclusion 'no' is not one of yes"


@pytest.mark.parametrize(
    ("selectors", "body", "stored"),
    [
        ({}, {}, ("routed", None, None, False, None)),
        ({}, {"processDefinitionKey": "other"}, ("parked", "handler", None, False, None)),
        ({"versions": ">1"}, {}, ("parked", "handler", None, False, NO_VERSION)),
        ({"when": {"/at": 2}}, {}, ("dismissed", None, "condition", False, OTHER_VALUE)),
        ({"conclusions": ("yes",)}, {"conclusion": "no"}, ("dismissed", None, "condition", True, OTHER_CONCLUSION)),
    ],
    ids=["routed", "another key", "another version", "false condition", "unknown conclusion"],
)
def test_reasons_of_an_unrouted_event_are_stored(paper, intake, selectors, body, stored):
    """The state with its reason, and the reason of each handler that shares the key, are stored if it is not routed."""
    by = rules(candidate("h", process_keys=("k",), **selectors))
    intake(by).accept(CALL_BACK._replace(body=BODY | body), wait=0)
    ((new,),) = paper.of("accept")
    *expected, reason = stored
    assert [new.state, new.parked_by, new.dismissed_by, new.unknown_conclusion] == expected
    assert new.no_match == (reason and NoMatch({"p:h": reason}, 1).to_json())


@pytest.mark.parametrize(
    ("first", "reasons"),
    [
        ({}, None),
        ({"when": {"/at": 1}}, None),
        ({"when": {"/late": 1}}, {"p:h": "/late is absent, but the condition 1 needs it"}),
    ],
)
def test_reasons_of_a_routed_event_are_stored_only_if_undecided(paper, intake, first, reasons):
    """The reason of an undecided condition is stored, because an operator needs it; that of a false one is not."""
    by = rules(
        candidate("h", process_keys=("k",), **first),
        candidate("all", process_keys=("k",)),
        candidate("new", process_keys=("k",), kind="cancel"),
    )
    intake(by).accept(CALL_BACK, wait=0)
    ((new,),) = paper.of("accept")
    assert new.state == "routed"
    assert (new.no_match is None) == (reasons is None)
    if reasons is not None:
        assert reasons.items() <= NoMatch.from_json(new.no_match).reasons.items()


@pytest.mark.parametrize(
    ("selectors", "body", "parked_by", "undecided"),
    [
        ({"versions": ">1"}, {}, "handler", ""),
        ({"when": {"/late": 1}}, {}, "condition", "/late"),
        ({"conclusions": ("yes",)}, {}, "condition", "conclusion"),
        ({}, {"processDefinitionKey": None}, "name", ""),
    ],
)
def test_the_response_has_the_reason_of_a_parked_event(intake, selectors, body, parked_by, undecided):
    """The answer names the member that an undecided condition lacks, unless the handler gets every event."""
    every = candidate("all", every=True, when={"/other": 1})
    by = rules(candidate("h", process_keys=("k",), **selectors), every)
    answer = intake(by).accept(CALL_BACK._replace(body=BODY | body), wait=0)
    assert (answer.status, answer.parked_by, answer.undecided) == (AnswerStatus.PARKED, parked_by, undecided)


def test_conclusions_are_mapped_by_the_table_of_their_source(paper, intake):
    """Each source has a table; an unlisted conclusion does not change, nor do those of other sources."""
    sources = {"hr": Source(conclusion={"agree": "approved"})}
    taking = intake(rules(sources=sources))
    for source, conclusion in (("hr", "agree"), ("hr", "refuse"), ("it", "agree")):
        taking.accept(CALL_BACK._replace(source=source, body=BODY | {"conclusion": conclusion}), wait=0)
    assert [new.event.conclusion for (new,) in paper.of("accept")] == ["approved", "refuse", "agree"]


def test_nothing_is_stored_while_a_handler_is_unreadable(paper, intake):
    """With a handler recorded by a newer flowhooks nothing is stored, because the event might match it."""
    with pytest.raises(Unavailable) as refused:
        intake(replace(rules(), router=Router([], unreadable_handlers=["p:newer"]))).accept(CALL_BACK, wait=0)
    assert refused.value.key == "newer_handlers"
    assert paper.asked == []


@pytest.mark.parametrize(
    ("routing", "body", "key"),
    [
        ({"no_name": "reject"}, {"processDefinitionKey": None}, "no_name"),
        ({"no_name": "reject"}, {"processDefinitionKey": "other"}, None),
        ({"no_handler": "reject"}, {"processDefinitionKey": None}, None),
        ({}, {"processDefinitionKey": None}, None),
    ],
)
def test_events_without_a_name_have_their_own_setting(paper, intake, routing, body, key):
    """`routing.no_name` refuses events with neither class nor key, and no others."""
    taking = intake(rules(routing=RoutingSettings(**routing)))
    call_back = CALL_BACK._replace(body=BODY | body)
    if key is None:
        assert taking.accept(call_back, wait=0).status == AnswerStatus.PARKED
        return
    with pytest.raises(InvalidCallback) as refused:
        taking.accept(call_back, wait=0)
    assert refused.value.key == key
    assert paper.of("accept") == []


def test_an_event_without_a_handler_is_rejected_if_so_configured(paper, intake):
    """A new event is refused, a repeat is answered as usual. If the ledger cannot be read, nothing is stored."""
    taking = intake(rules(candidate("h", process_keys=("other",)), routing=RoutingSettings(no_handler="reject")))
    with pytest.raises(InvalidCallback) as refused:
        taking.accept(CALL_BACK, wait=0)
    assert refused.value.key == "no_handler"
    assert paper.asked == [("is_stored", ("hr", "complete", "i", ""))]
    paper.known = LedgerUnusable("x")
    with pytest.raises(Unavailable) as away:
        taking.accept(CALL_BACK, wait=0)
    assert away.value.key == "ledger_down"
    paper.known = True
    assert taking.accept(CALL_BACK, wait=0).status == AnswerStatus.PARKED


@pytest.mark.parametrize("name", ["hr", "former"])
def test_a_late_callback_of_a_reconciled_instance_is_accepted(paper, intake, name):
    """The event may have another class or kind, and be stored under a former name of the source."""
    sources = {"hr": Source(token_sha256=("0" * 64,), former_names=("former",))}
    refusing = {"routing": RoutingSettings(no_handler="reject"), "sources": sources}
    taking = intake(rules(candidate("h", process_keys=("other",)), **refusing))
    with pytest.raises(InvalidCallback):
        taking.accept(CALL_BACK, wait=0)
    assert paper.of("is_stored") == [((source, "complete", "i", ""),) for source in ("hr", "former")]
    assert paper.of("is_taken_in") == [("hr", "i"), ("former", "i")]
    paper.taken_in = {(name, "i")}
    assert taking.accept(CALL_BACK, wait=0).status == AnswerStatus.PARKED


def test_an_event_with_a_handler_is_not_rejected(paper, intake):
    """An event that matches a handler is stored without reading the ledger first."""
    assert (
        intake(rules(routing=RoutingSettings(no_handler="reject"))).accept(CALL_BACK, wait=0).status
        == AnswerStatus.PENDING
    )
    assert paper.of("is_stored") == []


def test_a_callback_is_accepted_with_its_given_configuration(paper, intake):
    """The present rules apply, unless its sender was authenticated with others."""
    taking = intake()
    taking.reconfigure(rules(candidate("new", process_keys=("k",))))
    taking.accept(CALL_BACK, wait=0)
    taking.accept(CALL_BACK, wait=0, config=rules(candidate("old", process_keys=("k",))))
    assert [list(new.route) for (new,) in paper.of("accept")] == [["p:new"], ["p:old"]]


def tell(paper, new, state, *, until=9):
    """Notify waiters of an event's first deliveries."""
    for delivery_id, name in new.deliveries[:until]:
        told = DeliveryStatus(delivery_id=delivery_id, handler=name, state=state, attempt=1, due_at=None)
        paper.watches.notify(new.event.id, told)


def test_a_waiter_is_answered_when_all_deliveries_have_settled(paper, intake):
    """A waiter is answered from notifications without reading the ledger again; its place is free afterwards."""
    paper.meanwhile = lambda new: tell(paper, new, State.SUCCEEDED)
    answer = intake().accept(CALL_BACK, wait=LONG)
    assert answer.status == AnswerStatus.DONE
    assert [status.state for status in answer.delivery_statuses] == [State.SUCCEEDED] * 2
    assert paper.of("delivery_statuses") == []
    assert paper.takes_another()


def test_unsettled_deliveries_are_answered_with_their_current_state(paper, intake):
    """The answer has the notified state, and for other deliveries the ledger's state."""
    paper.meanwhile = lambda new: tell(paper, new, State.SUCCEEDED, until=1)
    paper.there = [delivery_status("late", State.RUNNING)]
    started = time.monotonic()
    answer = intake().accept(CALL_BACK, wait=0.2)
    assert time.monotonic() - started >= 0.2
    assert answer.status == AnswerStatus.PENDING
    assert [status.state for status in answer.delivery_statuses] == [State.SUCCEEDED, State.WAITING, State.RUNNING]
    assert paper.of("delivery_statuses") == [(answer.event_id,)]


def test_no_wait_if_no_process_runs_the_handlers(paper, intake):
    """If no process runs the event's handlers, the answer comes at once."""
    paper.pauses.replace({"p:one"})
    assert intake(rules(absent={"p:two"})).accept(CALL_BACK, wait=LONG).status == AnswerStatus.PENDING
    assert len(paper.of("accept")) == 1
    paper.pauses.replace({"p:two"})
    paper.meanwhile = lambda new: tell(paper, new, State.SUCCEEDED, until=1)
    assert intake().accept(CALL_BACK, wait=LONG).status == AnswerStatus.PENDING


def test_a_pause_during_storing_ends_the_wait(paper, intake):
    """A pause made before the waiter was registered ends the wait."""

    def become(new):
        paper.pauses.replace({"p:one", "p:two"})
        return AcceptResult(event_id=new.event.id, new=True, state=new.state)

    paper.become = become
    assert intake().accept(CALL_BACK, wait=LONG).status == AnswerStatus.PENDING


@pytest.mark.parametrize("has_subscribers", [False, True])
def test_a_started_delivery_is_awaited_although_others_do_not_start(paper, intake, together, has_subscribers):
    """After a pause or at a stop, the answer has the outcome of a running delivery, and the others as they are."""
    paper.has_subscribers = has_subscribers

    def become(new):
        paper.pauses.replace({"p:one", "p:two"})
        (one, _), (two, _) = new.deliveries
        running = DeliveryStatus(delivery_id=one, handler="p:one", state=State.RUNNING, attempt=1, due_at=None)
        waiting = DeliveryStatus(delivery_id=two, handler="p:two", state=State.WAITING, attempt=0, due_at=1)
        paper.there = [running, waiting]
        return AcceptResult(event_id=new.event.id, new=True, state=new.state)

    def settle():
        until(lambda: paper.of("delivery_statuses"))
        ((new,),) = paper.of("accept")
        tell(paper, new, State.SUCCEEDED, until=1)

    paper.become = become
    answer, error = together(lambda: intake().accept(CALL_BACK, wait=LONG), settle)
    assert error is None
    assert [status.state for status in answer.delivery_statuses] == [State.SUCCEEDED, State.WAITING]


def test_a_stop_shows_running_deliveries(paper, intake):
    """A stop ends the wait; the answer has the states of the ledger, also those of running deliveries."""

    def meanwhile(new):
        paper.pauses.replace({"p:one", "p:two"})
        paper.there = [
            DeliveryStatus(delivery_id=delivery_id, handler=name, state=State.RUNNING, attempt=1, due_at=None)
            for delivery_id, name in new.deliveries
        ]
        paper.watches.cancel_all()

    paper.meanwhile = meanwhile
    answer = intake().accept(CALL_BACK, wait=LONG)
    assert [status.state for status in answer.delivery_statuses] == [State.RUNNING] * 2


def test_an_outcome_at_the_end_of_the_wait_is_read(paper, intake, monkeypatch):
    """An outcome that is recorded just after the statuses were copied is in the answer."""
    slot, read_before = Waiter.delivery_statuses, []

    def read(waiter):
        statuses = slot.__get__(waiter)
        if read_before:
            return statuses
        copied = dict(statuses)
        read_before.append(copied)
        ((new,),) = paper.of("accept")
        tell(paper, new, State.SUCCEEDED)
        return copied

    paper.meanwhile = lambda new: setattr(
        paper,
        "there",
        [
            DeliveryStatus(delivery_id=delivery_id, handler=name, state=State.SUCCEEDED, attempt=1, due_at=None)
            for delivery_id, name in new.deliveries
        ],
    )
    monkeypatch.setattr(Waiter, "delivery_statuses", property(read, slot.__set__))
    assert intake().accept(CALL_BACK, wait=0.01).status == AnswerStatus.DONE


def test_response_is_immediate_without_a_free_waiter_place(paper, intake):
    """Accepting continues with any number of waiters."""
    assert paper.watches.open("other", ["d"], 1)
    assert intake().accept(CALL_BACK, wait=LONG).status == AnswerStatus.PENDING
    assert len(paper.of("accept")) == 1


@pytest.mark.parametrize("has_subscribers", [False, True])
def test_plugins_are_notified_before_the_outcomes(paper, intake, together, has_subscribers):
    """If plugins are notified of stored events, a callback does not wait for its outcomes before the notification."""
    paper.has_subscribers = has_subscribers
    stored, is_stored, notified = [], threading.Event(), threading.Event()
    paper.meanwhile = lambda new: (stored.append(new), is_stored.set())
    paper.event_accepted = lambda _event, _handlers: notified.set()

    def settle():
        assert is_stored.wait(WAIT_TIMEOUT)
        assert notified.wait(WAIT_TIMEOUT if has_subscribers else 0.1) is has_subscribers
        tell(paper, stored[0], State.SUCCEEDED)

    answer, error = together(lambda: intake().accept(CALL_BACK, wait=LONG), settle)
    assert error is None
    assert answer.status == AnswerStatus.DONE
    assert notified.is_set()


@pytest.mark.parametrize(("wait", "left"), [(0.1, 0.2), (LONG, 0.0)])
def test_an_event_that_is_not_stored_in_time(paper, intake, wait, left):
    """A callback waits for the storing no longer than a write may take, also if it waits for outcomes meanwhile."""
    paper.write_timeout, paper.become = 0.3, lambda _new: None
    with pytest.raises(TimeoutError):
        intake().accept(CALL_BACK, wait=wait)
    (timeout,) = paper.timeouts
    assert 0.0 <= timeout <= left
    assert paper.takes_another()


def test_a_failed_store_frees_the_waiter_place(paper, intake):
    """A refusal by the ledger is passed on, and the place to wait is free."""
    paper.become = lambda new: (_ for _ in ()).throw(Unavailable("busy"))
    for wait in (0, LONG):
        with pytest.raises(Unavailable):
            intake().accept(CALL_BACK, wait=wait)
    assert paper.takes_another()
    assert paper.of("notice") == []


def test_a_stopping_server_accepts_nothing(paper, intake):
    """A stopping server accepts nothing and answers its waiters."""
    taking = intake()
    watch = paper.watches.open("e", ["d"], LONG)
    taking.drain()
    assert watch.wait(0)
    with pytest.raises(Unavailable) as refused:
        taking.accept(CALL_BACK, wait=0)
    assert refused.value.key == "draining"
    assert paper.asked == []


def test_a_reused_signature_is_rejected_and_logged(paper, intake, logged):
    """The operator gets the source and the next step; the caller gets neither."""
    paper.become = lambda new: AcceptResult(event_id="", new=False, state="", webhook_id_reused=True)
    with pytest.raises(Unauthorized) as refused:
        intake().accept(CALL_BACK, wait=LONG)
    assert (refused.value.key, refused.value.cause) == ("unauthorized", "message_reused")
    (entry,) = logged
    assert (entry["event"], entry["source"], entry["webhook_id"], entry["flow_instance_id"]) == (
        *("webhook_id_reused", "hr", "m1", "i"),
    )
    assert (entry["log_level"], entry["why"]) == (
        "warning",
        "the webhook-id was used before for another path or other data",
    )
    assert entry["next"] == (
        "check whether the engine reuses ids; if not, an attacker has a copy of a request: replace the secret"
    )
    assert paper.takes_another()


@pytest.mark.parametrize(("state", "key"), [("routed", "conflict"), ("purged", "conflict_purged")])
def test_a_repeat_with_other_data_is_a_conflict(paper, intake, state, key):
    """The conflict names the first event, and says whether it has been purged."""
    came_before(paper, conflict=True, state=state)
    with pytest.raises(IdentityConflict) as refused:
        intake().accept(CALL_BACK, wait=0)
    assert (refused.value.event_id, refused.value.key) == ("before", key)
    assert paper.of("notice") == []


@pytest.mark.parametrize(
    ("states", "state", "status"),
    [
        ((State.SUCCEEDED, State.CLOSED), "routed", AnswerStatus.DONE),
        ((), "dismissed", AnswerStatus.DONE),
        ((), "parked", AnswerStatus.PARKED),
        ((State.SUCCEEDED,), "parked", AnswerStatus.PARKED),
        ((State.WAITING,), "parked", AnswerStatus.PARKED),
        ((State.DEAD, State.SUCCEEDED), "parked", AnswerStatus.DEAD),
        ((State.DEAD, State.WAITING), "routed", AnswerStatus.DEAD),
        ((State.SUCCEEDED, State.WAITING), "routed", AnswerStatus.PENDING),
        ((State.UNKNOWN,), "routed", AnswerStatus.PENDING),
        ((State.RUNNING,), "routed", AnswerStatus.PENDING),
    ],
)
def test_a_repeat_is_answered_with_the_gravest_state_of_its_event(paper, intake, states, state, status):
    """The gravest state decides; no notification of a repeated event is sent."""
    delivery_statuses = [delivery_status(f"h{number}", delivery_state) for number, delivery_state in enumerate(states)]
    came_before(paper, *delivery_statuses, state=state)
    answer = intake().accept(CALL_BACK, wait=0)
    assert (answer.event_id, answer.status, list(answer.delivery_statuses)) == ("before", status, delivery_statuses)
    assert [call[0] for call in paper.asked] == ["accept"]


def ago(paper, seconds):
    """A time, in microseconds since 1970."""
    return paper.clock.now() - int(seconds * SECOND)


@pytest.mark.parametrize(
    ("name", "given", "runs"),
    [
        ("again", {}, True),
        ("again", {"finished_at": 60}, True),
        ("again", {"finished_at": 59.999999}, False),
        ("again", {"finished_at": -3600}, True),  # the clock was ahead
        ("again", {"finished_at": -1}, False),  # the clock of another process is ahead
        ("again", {"outcome": OutcomeKind.FAILED}, True),
        ("again", {"outcome": OutcomeKind.REJECTED}, False),
        ("once", {}, False),
        ("unknown", {}, False),
        ("again", {"state": State.UNKNOWN}, False),
        ("again", {"state": State.SUCCEEDED}, False),
    ],
)
def test_a_repeat_retries_a_dead_delivery_at_most_once_a_minute(paper, intake, name, given, runs):
    """A dead delivery is retried at most once a minute, if its handler may run twice and has not rejected it."""
    given = dict(given)
    if "finished_at" in given:
        given["finished_at"] = ago(paper, given["finished_at"])
    one = delivery_status(name, given.pop("state", State.DEAD), **given)
    other = delivery_status("other", State.DEAD)
    came_before(paper, one, other)
    paper.there = [after := one._replace(state=State.WAITING)]
    answer = intake(rules(absent={"p:x"})).accept(CALL_BACK, wait=0)
    assert paper.of("requeue") == ([("transaction", [one], frozenset({"p:x"}))] if runs else [])
    assert answer.delivery_statuses == ((after, other) if runs else (one, other))
    assert paper.of("delivery_statuses") == [("before",)] * runs


def test_a_repeat_waits_for_running_or_due_deliveries(paper, intake):
    """A repeat waits for a running or due delivery in the only place, and gets its outcome."""
    done, runs, waits = (
        delivery_status("done", State.SUCCEEDED),
        delivery_status("runs", State.RUNNING),
        delivery_status("waits", State.WAITING),
    )
    waits = waits._replace(due_at=paper.clock.now())
    came_before(paper, done, runs, waits)
    paper.there = [done, runs, waits]

    def told_later():
        while not paper.watches.pending_event_ids():
            time.sleep(0.001)
        for status in (runs, waits):
            paper.watches.notify("before", status._replace(state=State.SUCCEEDED))

    teller = threading.Thread(target=told_later)
    teller.start()
    answer = intake().accept(CALL_BACK, wait=LONG)
    teller.join()
    assert answer.status == AnswerStatus.DONE
    assert [status.delivery_id for status in answer.delivery_statuses] == ["d-done", "d-runs", "d-waits"]
    assert len(paper.of("delivery_statuses")) == 1
    assert paper.takes_another()


def test_a_repeat_does_not_wait_for_deliveries_settled_meanwhile(paper, intake):
    """The state of the ledger after the start of the watch counts."""
    runs = delivery_status("runs", State.RUNNING)
    came_before(paper, runs)
    paper.there = [runs._replace(state=State.DEAD)]
    assert intake().accept(CALL_BACK, wait=LONG).status == AnswerStatus.DEAD


def test_a_repeat_does_not_exceed_its_wait(paper, intake):
    """After its wait a repeat is answered from the ledger's state."""
    runs = delivery_status("runs", State.RUNNING)
    came_before(paper, runs)
    paper.there = [runs]
    started = time.monotonic()
    answer = intake().accept(CALL_BACK, wait=0.2)
    assert time.monotonic() - started >= 0.2
    assert (answer.status, answer.delivery_statuses) == (AnswerStatus.PENDING, (runs,))
    assert paper.of("delivery_statuses") == [("before",)] * 2
    assert paper.takes_another()


@pytest.mark.parametrize(
    "delivery_statuses",
    [
        [delivery_status("h", State.WAITING)],
        [delivery_status("idle", State.WAITING, due_at=1)],
        [delivery_status("h", State.UNKNOWN, due_at=1)],
        [delivery_status("once", State.DEAD)],
    ],
    ids=["waits for its handler", "nobody runs it", "waits for its operator", "is dead"],
)
def test_a_repeat_does_not_wait_for_deliveries_that_cannot_settle(paper, intake, delivery_statuses):
    """A repeat whose deliveries cannot settle is answered at once."""
    paper.pauses.replace({"p:idle"})
    came_before(paper, *delivery_statuses)
    answer = intake().accept(CALL_BACK, wait=LONG)
    assert list(answer.delivery_statuses) == delivery_statuses
    assert paper.of("delivery_statuses") == []


def test_a_repeat_is_answered_while_the_ledger_is_unreadable(paper, intake):
    """The repeat is stored and answered from the known state."""
    runs = delivery_status("runs", State.RUNNING)
    came_before(paper, runs)
    paper.there = LedgerUnusable("x")
    answer = intake().accept(CALL_BACK, wait=0.05)
    assert (answer.status, answer.delivery_statuses) == (AnswerStatus.PENDING, (runs,))


def test_a_repeat_without_a_free_waiter_place_is_answered_at_once(paper, intake):
    """Without a free place a repeat is answered at once from the stored state."""
    assert paper.watches.open("other", ["d"], 1)
    runs = delivery_status("runs", State.RUNNING)
    came_before(paper, runs)
    assert intake().accept(CALL_BACK, wait=LONG).delivery_statuses == (runs,)


def test_an_instance_is_stored_as_a_reconciled_event(paper, intake):
    """It is stored as a reconciled event, also if the settings refuse such callbacks, and plugins are notified."""
    taken = intake().take_in(RECONCILED)
    ((new,),) = paper.of("accept")
    assert (new.event.origin, new.event.source, new.state) == ("reconciled", "hr", "routed")
    assert paper.of("notice") == [(new.event, ["p:one", "p:two"])]
    assert taken == TakenIn(event_id=new.event.id, disposition="has_event", new=True, reused_id=False)
    by = rules(candidate("h", process_keys=("other",)), routing=RoutingSettings(no_handler="reject"))
    assert intake(by).take_in(RECONCILED).new
    assert paper.of("accept")[1][0].state == "parked"


def test_an_instance_whose_id_was_used_before(paper, intake):
    """The ledger may park the event of such an instance; then no handler is named to the plugins."""
    paper.become = lambda new: AcceptResult(event_id=new.event.id, new=True, state="parked", instance_id_reused=True)
    taken = intake().take_in(RECONCILED)
    ((event, handlers),) = paper.of("notice")
    assert handlers == []
    assert taken == TakenIn(event_id=event.id, disposition="has_event", new=True, reused_id=True)


@pytest.mark.parametrize(("state", "disposition"), [("routed", "has_event"), ("purged", "purged")])
def test_an_instance_that_has_an_event(paper, intake, state, disposition):
    """Its event is named, plugins are not notified, and nothing runs again."""
    came_before(paper, delivery_status("again", State.DEAD), state=state)
    taken = intake().take_in(RECONCILED)
    assert taken == TakenIn(event_id="before", disposition=disposition, new=False, reused_id=False)
    assert paper.of("notice") == paper.of("requeue") == []


def test_a_stopping_server_accepts_no_instance_and_no_batch(paper, intake):
    """Nothing reaches the ledger."""
    stopping = intake()
    stopping.drain()
    for take in (lambda: stopping.take_in(RECONCILED), lambda: stopping.accept_all([CALL_BACK])):
        with pytest.raises(Unavailable) as refused:
            take()
        assert refused.value.key == "draining"
    assert paper.asked == []


def by_instance(paper, **results):
    """Let the ledger answer each callback of a batch by its instance; others are new."""

    def become(new):
        given = {"event_id": new.event.id, "new": True, "state": new.state}
        return AcceptResult(**(given | results.get(new.event.flow_instance_id, {})))

    paper.become = become


def test_the_callbacks_of_one_request(paper, intake):
    """They are stored in one call with the ignored requests; each has its answer, in order, without a wait."""
    dead, done = delivery_status("again", State.DEAD), delivery_status("once", State.SUCCEEDED)
    by_instance(
        paper,
        repeated={"event_id": "e1", "new": False, "delivery_statuses": (dead, done)},
        other={"event_id": "e2", "new": False, "conflict": True},
        purged={"event_id": "e3", "new": False, "conflict": True, "state": "purged"},
    )
    paper.there = [dead._replace(state=State.WAITING)]
    instances = ("new", "repeated", "other", "purged", "parked")
    batch = [CALL_BACK._replace(flow_instance_id=instance) for instance in instances]
    batch[-1] = batch[-1]._replace(body={"processDefinitionKey": "unknown"})
    answers = intake().accept_all(batch, ["ignored"])
    ((events, ignored),) = paper.of("accept_batch")
    assert ([new.event.flow_instance_id for new in events], ignored) == ([*instances], ("ignored",))
    assert paper.of("notice") == [(events[0].event, ["p:one", "p:two"]), (events[-1].event, [])]
    assert paper.of("requeue") == [("transaction", [dead], frozenset())]
    new, repeated, other, purged, parked = answers
    assert (parked.status, parked.parked_by) == (AnswerStatus.PARKED, "handler")
    assert (new.event_id, new.status, len(new.delivery_statuses)) == (events[0].event.id, AnswerStatus.PENDING, 2)
    statuses = (dead._replace(state=State.WAITING), done)
    assert repeated == Answer(event_id="e1", status=AnswerStatus.PENDING, delivery_statuses=statuses)
    assert [type(other), type(purged)] == [IdentityConflict] * 2
    assert [(error.event_id, error.key) for error in (other, purged)] == [("e2", "conflict"), ("e3", "conflict_purged")]
    assert paper.takes_another()


def test_a_batch_is_accepted_with_its_given_configuration(paper, intake):
    """The given configuration counts, and otherwise the current one; a batch may be empty."""
    by = rules(candidate("new", process_keys=("k",)))
    accepting = intake()
    accepting.accept_all([CALL_BACK], config=by)
    accepting.accept_all([CALL_BACK])
    assert [list(new.route) for (new,), _ in paper.of("accept_batch")] == [["p:new"], ["p:one", "p:two"]]
    assert accepting.accept_all([]) == []


@pytest.mark.parametrize(
    ("event", "result"),
    [
        ("webhook_id_reused", {"event_id": "", "state": "", "webhook_id_reused": True}),
        ("event_damaged", {"event_id": "e1", "damage": "it is not JSON"}),
    ],
)
def test_the_callback_that_prevents_a_batch_is_logged(paper, intake, logged, event, result):
    """The callback that prevents it is logged; conflicts beside it are no reason."""
    by_instance(paper, conflict={"event_id": "e0", "new": False, "conflict": True}, bad={"new": False} | result)
    batch = [CALL_BACK._replace(flow_instance_id=instance) for instance in ("conflict", "good", "bad")]
    with pytest.raises(Unauthorized if event == "webhook_id_reused" else Unavailable) as refused:
        intake().accept_all(batch)
    assert refused.value.key == ("unauthorized" if event == "webhook_id_reused" else event)
    (entry,) = logged
    assert (entry["event"], entry["source"], entry["flow_instance_id"]) == (event, "hr", "bad")
    if event == "event_damaged":
        assert (entry["event_id"], entry["why"]) == ("e1", "it is not JSON")
        assert "`flowhooks verify`" in entry["next"]
    assert paper.of("notice") == []


def test_an_outcome_that_arrives_while_statuses_are_applied_is_kept(paper, intake):
    """An outcome recorded by another thread is not replaced by an older status that is being applied."""
    writer = threading.Thread(
        target=paper.watches.notify, args=("before", delivery_status("again", State.SUCCEEDED)), daemon=True
    )

    class Applied(DeliveryStatus):
        """A status that another thread overtakes between its check and its record."""

        @property
        def state(self):
            if writer.ident is None:
                writer.start()
                writer.join(0.2)
            return State.RUNNING

    running = delivery_status("again", State.RUNNING)
    came_before(paper, running)
    paper.there = [Applied(*running)]
    assert intake().accept(CALL_BACK, wait=LONG).status is AnswerStatus.DONE
    writer.join(WAIT_TIMEOUT)
