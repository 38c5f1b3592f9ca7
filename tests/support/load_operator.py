"""An operator who acts while servers are killed in turn: bulk operations and corrections, and the checks afterwards.

It has no tests of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import NamedTuple

from flowhooks.ledger import audit
from flowhooks.ledger.queries import EventFilter
from support.waiting import WAIT_TIMEOUT, until

TOKEN = "operator-token-0123456789abcdef"
RERUNS = {"replay", "mark-not-done"}
"""The actions after which a delivery runs again."""
DELIVERIES = 3
"""The number of events of a round whose deliveries are planned; one more is in no plan."""


class Correction(NamedTuple):
    """A conflicting body that the operator accepted."""

    instance: str
    event_id: str
    digest: str
    bodies: tuple[dict[str, str], dict[str, str]]


class Operator:
    """Plans, starts, pauses, resumes and cancels bulk operations, and accepts corrections, in rounds.

    A request is repeated until a server answers it, so most kills interrupt a step of a round.
    """

    def __init__(self, load):
        self.load = load
        self.site = load.site
        self.corrections = []
        self.untouched = []
        self.held = []
        self.started = set()
        self.closing = threading.Event()
        self.aborted = threading.Event()

    @property
    def config(self):
        """The settings of the operator."""
        file = self.site.folder / "operator-token"
        file.write_text(f"{TOKEN}\n")
        file.chmod(0o600)
        return f'[operators.ann]\nrole = "operate"\ntoken_file = "{file}"\n'

    def work(self):
        """Act round after round until the load ends, and once more after that."""
        for number in count():
            is_last = self.closing.is_set()
            if is_last:
                self.load.open_gates()
            self.correct(f"correction-{number}")
            self.run_again(f"operated-{number}", number)
            self.resolve_held(number)
            if is_last:
                break
            self.hold(f"held-{number}")

    def correct(self, instance):
        """Send two bodies for one instance, and accept the second one."""
        bodies = tuple({"processDefinitionKey": "corrected", "businessKey": key} for key in ("first", "second"))
        event_id = self.post(instance, bodies[0]).event_id
        assert self.post(instance, bodies[1]).status == 409
        with self.site.ledger() as ledger:
            (conflict,) = ledger.conflicts(event_id)
        accepted = {"event_id": event_id, "digest": conflict.digest, "note": instance}
        response, repeated = self.ask("accept_correction", **accepted)
        assert response.status == 200 or (repeated and response.status == 409), response
        self.corrections.append(Correction(instance, event_id, conflict.digest, bodies))

    def run_again(self, name, number):
        """Replay, run now and close deliveries, in operations that overlap, are paused, resumed and cancelled."""
        ids = [self.post(f"{name}-{number}", {"processDefinitionKey": "operated"}).event_id for number in range(4)]
        self.until(lambda ledger: all(not is_running(ledger, event_id) for event_id in ids))
        self.untouched.append(ids.pop())
        dead = {"ids": ids, "handler": "demo:once"}
        replays = [self.plan("replay", dead, rate=rate) for rate in (20, None)]
        for operation_id in replays:
            self.start(operation_id)
        for change in ("pause_operation", "resume_operation"):
            self.change(change, replays[0])
        self.change("set_operation_rate", replays[0], rate=50)
        for operation_id in replays:
            self.until_ended(operation_id)
        close = self.plan("close", dead | {"state": "dead"}, rate=4)
        self.start(close)
        if number % 2:
            self.change("cancel_operation", close)
        run_now = self.plan("run-now", {"ids": ids})
        self.start(run_now)
        self.until_ended(run_now)
        self.until_ended(close)
        self.close_scheduled([*ids, self.untouched[-1]])

    def close_scheduled(self, ids):
        """Close the scheduled deliveries of a round, so that none of them is waiting when the load ends.

        An attempt that a kill interrupted runs again after the next start, and can be closed only when it has failed.
        """
        is_closed = False
        while not is_closed:
            close = self.plan("close", {"ids": ids, "handler": "demo:scheduled"})
            self.start(close)
            self.until_ended(close)
            with self.site.ledger() as ledger:
                is_closed = not any(
                    status.handler == "demo:scheduled" and status.state in {"waiting", "running"}
                    for event_id in ids
                    for status in ledger.delivery_statuses(event_id)
                )

    def hold(self, name):
        """Let a handler run until the next kill, after which its delivery is unknown."""
        if self.held:
            with self.site.ledger() as ledger:
                if is_running(ledger, self.held[-1]):
                    return
        (self.site.folder / f"shut-{name}").touch()
        event_id = self.post(name, {"processDefinitionKey": "held"}).event_id
        self.held.append(event_id)
        self.until(lambda ledger: ledger.delivery_statuses(event_id)[0].state != "waiting")

    def resolve_held(self, number):
        """Decide about the deliveries that became unknown, in two operations that share one delivery."""
        if not self.held:
            return
        actions = ("mark-done", "mark-not-done") if number % 2 else ("mark-not-done", "mark-done")
        held = {"ids": self.held, "handler": "demo:held"}
        planned = [self.plan(action, held, rate=rate) for action, rate in zip(actions, (10, None), strict=True)]
        for operation_id in planned:
            self.start(operation_id)
        for operation_id in planned:
            self.until_ended(operation_id)

    def plan(self, action, event_filter, **options):
        """Plan an operation; return its id. An interrupted plan stays unused, and another one is made."""
        response, _ = self.ask("plan_operation", action=action, event_filter=event_filter, **options)
        assert response.status == 200, response
        return response.json["id"]

    def start(self, operation_id):
        """Start an operation."""
        response, repeated = self.ask("start_operation", operation_id=operation_id)
        assert response.status == 200 or (repeated and response.status == 409), response
        self.started.add(operation_id)

    def change(self, name, operation_id, **options):
        """Change an operation, which may have ended before."""
        response, _ = self.ask(name, operation_id=operation_id, **options)
        assert response.status in {200, 409}, response

    def until_ended(self, operation_id):
        """Wait until a started operation is finished or cancelled, and its deliveries were executed."""

        def has_ended(ledger):
            with ledger.connection() as connection:
                stored = connection.exec_driver_sql(
                    f"SELECT state, succeeded FROM operations WHERE id = '{operation_id}'"
                ).one()
            assert stored.state in {"running", "paused", "finished", "cancelled"}, stored
            return stored.state in {"finished", "cancelled"} and stored.succeeded is not None

        self.until(has_ended)

    def until(self, condition):
        """Wait until a condition on the ledger holds, while servers may be killed."""
        deadline = time.monotonic() + 3 * WAIT_TIMEOUT
        with self.site.ledger() as ledger:
            while not condition(ledger):
                assert time.monotonic() < deadline, "an operation was forgotten"
                assert not self.aborted.wait(0.02), "the test has failed"

    def post(self, instance, body):
        """Send a callback until a server responds; return the response."""
        response, _ = self.repeat_until_answered(lambda server: self.load.call(instance, body, server))
        assert response.status in {200, 202, 409, 500}, response
        if response.status != 409:
            self.load.event_ids[instance] = response.event_id
        return response

    def ask(self, name, **arguments):
        """Request an operation until a server responds."""
        return self.repeat_until_answered(lambda server: server.operate(TOKEN, name, **arguments))

    def repeat_until_answered(self, request):
        """Repeat a request until a server responds; return it, and whether an earlier request may have succeeded."""
        deadline, tries = time.monotonic() + 3 * WAIT_TIMEOUT, count()
        while True:
            assert time.monotonic() < deadline, "no server has answered"
            server = self.load.server
            if server is not None and server.logged("server_started"):
                earlier_requests = next(tries)
                with contextlib.suppress(OSError, http.client.HTTPException):
                    response = request(server)
                    if response.status != 503:
                        return response, earlier_requests > 0
            assert not self.aborted.wait(0.02), "the test has failed"


@contextlib.contextmanager
def operating(load):
    """Let the operator act in this context; at its end a whole round is done on the last server."""
    operator = load.operator
    with ThreadPoolExecutor(1) as executor:
        work = executor.submit(operator.work)
        try:
            yield operator
            operator.closing.set()
            work.result()
        finally:
            operator.aborted.set()


def is_running(ledger, event_id):
    """Return whether a delivery of an event runs, or is about to run for the first time."""
    statuses = ledger.delivery_statuses(event_id)
    return any(status.state == "running" or (status.state == "waiting" and status.attempt == 0) for status in statuses)


def check_untouched(operator):
    """Check that the operations did not change deliveries in no plan (I8): they are dead after their first attempt."""
    with operator.site.ledger() as ledger:
        for event_id in operator.untouched:
            (delivery_status,) = [
                status for status in ledger.delivery_statuses(event_id) if status.handler == "demo:once"
            ]
            # A kill during the first attempt leaves it unknown.
            assert (delivery_status.state.value, delivery_status.attempt) in {("dead", 1), ("unknown", 1)}


def check_operations(operator):
    """Check I8 when all operations have ended: each acted on its plan only, once, and from the planned state."""
    with operator.site.ledger() as ledger, ledger.connection() as connection:
        run = connection.exec_driver_sql
        operations = {row.id: row for row in run("SELECT * FROM operations")}
        items = run("SELECT * FROM operation_items").all()
        deliveries = {row.id: row for row in run("SELECT * FROM deliveries")}
        attempts = run("SELECT delivery_id, number, operation_id FROM attempts").all()
    assert operator.started <= {row.id for row in operations.values() if row.state in {"finished", "cancelled"}}
    requested = {(row.operation_id, row.delivery_id): row.number for row in attempts if row.operation_id}
    assert len(requested) == sum(row.operation_id is not None for row in attempts), "an operation ran a delivery twice"
    released = [item for item in items if item.status == "released"]
    check_counts(operations, items)
    action = {row.id: row.action for row in operations.values()}
    closed = {(item.delivery_id, item.attempt) for item in released if action[item.operation_id] == "close"}
    actions = Counter(
        (item.delivery_id, item.planned_state, item.attempt, action[item.operation_id] == "run-now")
        for item in released
    )
    assert set(actions.values()) == {1}, "two operations acted on a delivery in one planned state"
    for item in released:
        delivery = deliveries[item.delivery_id]
        number = requested.pop((item.operation_id, item.delivery_id), None)
        match action[item.operation_id]:
            case "close":
                assert (delivery.state, delivery.attempt, number) == ("closed", item.attempt, None)
            case "mark-done":
                assert (delivery.state, delivery.attempt, number) == ("succeeded", item.attempt, None)
            case _:
                is_closed = number is None and (item.delivery_id, item.attempt) in closed
                assert number == item.attempt + 1 or is_closed, (item, delivery)
    assert not requested, "an operation ran a delivery that it did not release"
    unrequested = [
        row
        for row in attempts
        if row.number > 1 and not row.operation_id and deliveries[row.delivery_id].handler in {"demo:once", "demo:held"}
    ]
    assert not unrequested, "a delivery ran again without an operation"
    performed = Counter(action[item.operation_id] for item in released)
    assert {"replay", "close", "run-now"} <= set(performed), performed
    assert set(performed) & {"mark-done", "mark-not-done"}, performed


def check_counts(operations, items):
    """Check the counts of each operation, and that operations which were never started released nothing."""
    statuses = Counter((item.operation_id, item.status) for item in items)
    for operation in operations.values():
        planned, released, changed = (statuses[operation.id, status] for status in ("planned", "released", "changed"))
        assert (operation.released, operation.changed) == (released, changed), operation
        assert operation.state == "planning" or operation.planned == planned + released + changed, operation
        if operation.state in {"planning", "planned"}:
            assert released == changed == 0, operation
        elif operation.state == "finished":
            assert planned == 0, operation


def check_corrections(operator):
    """Check that each accepted body is one event, with one chain of deliveries and one audit entry."""
    with operator.site.ledger() as ledger, ledger.connection() as connection:
        for instance, event_id, digest, bodies in operator.corrections:
            (conflict,) = ledger.conflicts(event_id)
            events = ledger.page(EventFilter(flow_instance_id=instance), limit=10)
            first, second = sorted(events, key=lambda stored: stored.event.corrects is not None)
            assert (conflict.digest, conflict.corrected_by) == (digest, second.event.id)
            assert (first.event.id, second.event.corrects) == (event_id, event_id)
            assert tuple(json.loads(stored.body) for stored in (first, second)) == bodies
            for stored in (first, second):
                assert sorted(status.handler for status in stored.delivery_statuses) == ["demo:again", "demo:plain"]
            (entry,) = audit.entries(connection, limit=10, target=event_id)
            assert (entry.action, entry.detail["correction"]) == ("accept_correction", second.event.id)
    assert operator.corrections
    for instance, event_id, _digest, bodies in operator.corrections[-3:]:
        first, second = (until(partial(_response, operator.load, instance, body)).event_id for body in bodies)
        assert first == event_id != second


def _response(load, instance, body):
    """Return the response to a callback; None if a busy machine did not store it in time."""
    response = load.call(instance, body)
    return None if response.status == 503 else response
