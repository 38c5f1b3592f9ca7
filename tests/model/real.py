"""The real side: `App`s on a real database whose only runner thread is the test, and their stored content."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from flowhooks import Reject, Retry, RetryAfter, handler, hookimpl, schema
from flowhooks.background.bulk_operations import OperationReleaser
from flowhooks.errors import Unavailable
from flowhooks.execution.runners.slots import SlotPool
from flowhooks.intake.callback import Callback
from flowhooks.ledger import bulk_release
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.group_commit import call_each
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from flowhooks.ledger.stats import totals
from flowhooks.ledger.tables import metadata
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.context import Actor
from flowhooks.operations.deliverable_events import dismissed_by_handler
from flowhooks.operations.registry import run_operation
from model.listeners import HANDLERS, IGNORED
from support.silent_engine import SilentClient, silent_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from flowhooks.ledger.bulk_release import Released
    from model.listeners import Conditions

HEARTBEAT_TIMEOUT = 3600.0
"""Seconds without a heartbeat after which a process expires: only a step makes a process silent for so long."""
STEP_TIMEOUT = 60.0
"""Timeout of a step in seconds, for a busy machine."""


class ManualSlots(SlotPool):
    """Slots whose threads are the test: `free` says whether one is free, and nothing is started."""

    free = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.started: list[ReadyDelivery] = []

    def reserve(self, transaction: Any, deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve all deliveries for this process or none. The ledger leaves out paused ones."""
        reserved = [delivery for delivery in deliveries if self.free and self._runtime.runs_here(delivery.handler)]
        transaction.after_commit(lambda: self.started.extend(reserved))
        return reserved


class HandlerBehavior:
    """The handlers' behaviour, as the current step defines.

    Attributes:
        fates: the result of an attempt or a probe by the delivery's id.
        entered: the attempts whose functions were entered: delivery's id, number, event's id.
    """

    def __init__(self) -> None:
        self.fates: dict[str, Any] = {}
        self.entered: list[tuple[str, int, str]] = []

    def plugins(self, handlers: Mapping[str, Conditions]) -> dict[str, object]:
        """The plugins with these handlers, and one that wraps them all."""
        plugins: dict[str, object] = {"wraps": self._wrapper_plugin(repr(handlers))}
        for name in sorted({handler_id.split(":")[0] for handler_id in handlers}):
            own = [
                self._handler(handler_id, conditions)
                for handler_id, conditions in handlers.items()
                if handler_id.startswith(f"{name}:")
            ]
            plugins[name] = SimpleNamespace(handlers=hookimpl(lambda own=own: own))
        return plugins

    def _handler(self, name: str, conditions: Conditions) -> Any:
        listener = HANDLERS[name]
        retry = (
            Retry(attempts=listener.retry.attempts, delays=listener.retry.delays, jitter=0) if listener.retry else None
        )
        return handler(
            process_key=listener.keys,
            callback_class=listener.classes,
            versions="" if listener.least_version is None else f">={listener.least_version}",
            every=listener.every,
            conclusion=conditions.conclusions,
            when=conditions.when,
            retry=retry,
            probe=(lambda event, delivery: self._probe(delivery)) if listener.probes else None,
            name=name.split(":")[1],
        )(self._function)

    def _wrapper_plugin(self, loaded: str) -> SimpleNamespace:
        @hookimpl(wrapper=True)
        def run_handler(handler: Any, event: Any, delivery: Any) -> Iterator[None]:
            if self.fates[delivery.id] == "never enters":
                raise RuntimeError("a wrapper failed")
            return (yield)

        engine_clients = hookimpl(lambda: {"silent": SilentClient})
        return SimpleNamespace(run_handler=run_handler, engine_clients=engine_clients, loaded=loaded)

    def _function(self, event: Any, delivery: Any) -> dict[str, int]:
        self.entered.append((delivery.id, delivery.attempt, event.id))
        fate = self.fates[delivery.id]
        if fate == "raises":
            raise ValueError("it failed")
        if fate == "rejects":
            raise Reject("never")
        if fate == "asks for time":
            raise RetryAfter(60)
        return {"attempt": delivery.attempt}

    def _probe(self, delivery: Any) -> bool | None:
        if self.fates[delivery.id] == "raises":
            raise ValueError("the probe failed")
        return self.fates[delivery.id]


class RealLedger:
    """One ledger and its processes.

    Args:
        harness: the harness that opens apps.
        new_database: a file with an empty ledger, for SQLite.
        work: the handlers' behaviour.

    Attributes:
        flows: the processes; two on a shared ledger.
        ids: the id of each known delivery by event and handler.
    """

    def __init__(self, harness: Any, new_database: Path, work: HandlerBehavior) -> None:
        self._harness = harness
        self.work = work
        self.clock = harness.clock
        self.shared = bool(harness.url)
        self.flows: list[Any] = []
        self.ids: dict[tuple[str, str], str] = {}
        if self.shared:
            self._harness.file.touch()
        else:
            shutil.copy(new_database, self._harness.file)

    def open(self, handlers: Mapping[str, Conditions]) -> None:
        """Start every process with these handlers."""
        for _ in range(1 + self.shared):
            self.flows.append(
                self._harness.open(
                    plugins=self.work.plugins(handlers),
                    start=False,
                    sources={"default": silent_source()},
                    routing={"ignore_process_keys": (IGNORED,)},
                    ledger={"write_timeout": STEP_TIMEOUT, "heartbeat_timeout": HEARTBEAT_TIMEOUT},
                )
            )

    def crash(self) -> None:
        """End every process without finishing its attempts."""
        while self.flows:
            self._harness.crash(self.flows.pop())

    def empty(self) -> None:
        """Delete all stored data."""
        if self.shared:
            flow = self.flows[0]
            flow.sql("; ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)))

    def queued(self, event: str, handler: str, attempt: int, *, probe: bool = False) -> ReadyDelivery:
        """A delivery as a runner knows it that has seen `attempt` attempts."""
        return ReadyDelivery(self.ids[event, handler], handler, attempt, probe)

    def call(self, identity: tuple[str, str, str], body: Mapping[str, Any]) -> Callback:
        """A callback."""
        instance, callback_class, kind = identity
        whole = dict(body) | ({"callBackProcessClass": callback_class} if callback_class else {})
        text = json.dumps(whole)
        return Callback(
            source="default", kind=kind, flow_instance_id=instance, body=schema.parse(text.encode()), text=text
        )

    def ingress(self, identity: tuple[str, str, str], body: Mapping[str, Any]) -> Callback:
        """The same as a request to a fixed URL."""
        callback = self.call(identity, body)
        return callback._replace(origin="ingress", raw_body=f" {callback.text}", media_type="application/json")

    def ignored(self, rule: str) -> IgnoredRequestRecord:
        """A request to a fixed URL that a rule ignores."""
        return IgnoredRequestRecord("default", rule, "{}", None, self.clock.now())

    def perform(self, flow: Any, name: str, **arguments: Any) -> dict[str, Any]:
        """Execute an operation as commands and the administration API do."""
        context = replace(flow.app.operation_context, by=Actor("ann", "api"))
        return run_operation(context, name, arguments)

    def _releaser(self, flow: Any) -> OperationReleaser:
        app = flow.app
        return OperationReleaser(app.ledger, app.clock, lambda: app.operation_context.missing_handlers)

    def release(self, flow: Any, operation_id: str) -> Released | None:
        """Release a page of an operation, as the thread of a process does."""
        return self._releaser(flow).release(operation_id)

    def fail_release(self, flow: Any, operation_id: str) -> None:
        """Release a page whose transaction fails before it is durable."""

        def fail(_point: str) -> None:
            raise Unavailable("on purpose")

        with pytest.MonkeyPatch.context() as patched, suppress(Unavailable):
            patched.setattr(bulk_release, "hit", fail)
            self._releaser(flow).release(operation_id)

    def finish_operations(self, flow: Any) -> None:
        """Store the results of operations, as the thread of a process does."""
        releaser = self._releaser(flow)
        for operation in releaser.open_operations():
            releaser.finish(operation)

    def age_heartbeat(self, flow: Any, other: Any) -> None:
        """Make a process's last heartbeat old, while the other process was connected."""
        other.app.ledger._registration.heartbeats._in_touch_since -= 2 * HEARTBEAT_TIMEOUT
        late = int(2 * HEARTBEAT_TIMEOUT * 1_000_000)
        flow.sql("UPDATE processes SET heartbeat_at = heartbeat_at - ? WHERE id = ?", late, flow.app.ledger.process)

    @contextmanager
    def batch_writes(self, flow: Any) -> Iterator[None]:
        """Keep the writer busy, so that work submitted in this context is committed together."""
        free, started = threading.Event(), threading.Event()
        flow.app.ledger._writer.submit(call_each, lambda _transaction: started.set() or free.wait(STEP_TIMEOUT))
        # Otherwise the writer may take a part of the work together with this, and not the rest.
        assert started.wait(STEP_TIMEOUT)
        try:
            yield
        finally:
            free.set()

    def submit_claim(self, flow: Any, queued: ReadyDelivery) -> Any:
        """Claim together with other submitted work; return a function that returns the result."""
        ledger = flow.app.ledger
        ticket = ledger._writer.submit(ledger._claim_batch, [ClaimRequest(queued, self.clock.now())])
        return lambda: ticket.result(STEP_TIMEOUT)[0]

    def flush(self, flow: Any) -> None:
        """Wait until all submitted work is durable."""
        flow.app.ledger.write(lambda _transaction: None)

    def count_dismissed(self) -> dict[str, int]:
        """The number of dismissed events that each handler matches."""
        app = self.flows[0].app
        with app.ledger.connection() as connection:
            dismissed = dismissed_by_handler(connection, app.router)
        return {handler: found.events for handler, found in dismissed.items()}

    def stored(self) -> dict[str, Any]:
        """All relevant stored data in the form of the model."""
        with self.flows[0].app.ledger.connection() as connection:
            return self._stored(connection)

    def _stored(self, connection: Connection) -> dict[str, Any]:
        def rows(query: str) -> list[Any]:
            return list(connection.exec_driver_sql(query))

        attempts: dict[str, list[Any]] = {}
        for delivery, number, *how in rows(
            "SELECT delivery_id, number, process, outcome, finished_at FROM attempts ORDER BY delivery_id, number"
        ):
            attempts.setdefault(delivery, []).append(tuple(how))
            assert number == len(attempts[delivery]), "attempts are numbered from 1, without a gap"
        deliveries: dict[str, dict[str, Any]] = {}
        for delivery, event, name, state, made, *how in rows(
            "SELECT id, event_id, handler, state, attempt, due_at, changed_at, retry_base FROM deliveries"
        ):
            assert name not in deliveries.setdefault(event, {}), "one event for one handler, once"
            assert self.ids.setdefault((event, name), delivery) == delivery, "a delivery keeps its id"
            deliveries[event][name] = (state, made, *how, attempts.pop(delivery, []))
        assert not attempts, "no attempt is without its delivery"
        conflicting_bodies = dict(rows("SELECT event_id, count(*) FROM conflicts GROUP BY event_id"))
        late = {
            event: (number, int(repeats))
            for event, number, repeats in rows(
                "SELECT event_id, count(*), sum(repeats) FROM late_callbacks GROUP BY event_id"
            )
        }
        items: dict[str, dict[str, Any]] = {}
        for name, delivery, *how in rows(
            "SELECT operation_id, delivery_id, planned_state, attempt, status FROM operation_items"
        ):
            items.setdefault(name, {})[delivery] = tuple(how)
        counted = totals(connection)
        return {
            "events": {
                event: (
                    (state, parked_by, dismissed_by),
                    set(json.loads(no_match)["reasons"]) if no_match else None,
                    repeats,
                    set(json.loads(route)),
                    conflicting_bodies.get(event, 0),
                    (origin, *late.get(event, (0, 0))),
                    deliveries.pop(event, {}),
                )
                for event, state, parked_by, dismissed_by, no_match, repeats, route, origin in rows(
                    "SELECT id, state, parked_by, dismissed_by, no_match, repeats, route, origin FROM events"
                )
            },
            "no event": deliveries,
            "purged_identities": {event for (event,) in rows("SELECT event_id FROM purged_identities")},
            "paused": {name for (name,) in rows("SELECT id FROM handlers WHERE paused_at IS NOT NULL")},
            "ignored": dict(rows("SELECT rule, count FROM ignored_requests")),
            "accepted": counted.accepted,
            "purged": counted.purged,
            "operations": {
                name: (*facts, items.pop(name, {}))
                for name, *facts in rows("SELECT id, state, planned, released, changed FROM operations")
            },
            "audit_entries": rows("SELECT count(*) FROM audit_log")[0][0],
        }
