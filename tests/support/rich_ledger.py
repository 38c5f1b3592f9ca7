"""A ledger with rows in every table and deliveries in every state. No tests of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from sqlalchemy import insert

from flowhooks import OutcomeKind, Retry, State, handler
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict
from flowhooks.ledger import checksums, ignored_requests, rejected_requests, required_credentials, sessions, webhook_ids
from flowhooks.ledger.conclusions import UnknownConclusions
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.tables import trends
from flowhooks.model.delivery import Trigger
from flowhooks.operations.context import Actor
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.purge import purge
from support import engine_rows, operation_rows
from support.app_harness import ingress_callback, until


@handler(process_key="leave", order_by="business_key", rate="99/s", retry=Retry())
def ordered(event):
    """Return something."""
    return {"instance": event.flow_instance_id}


@handler(every=True)
def everything(event):
    """Take every event."""


@handler(callback_class="com.example.Fails")
def fails(event):
    """Fail."""
    raise ValueError("no")


def fill(harness, hands_of):
    """Fill a ledger: every table gets rows, and no process runs the waiting deliveries."""
    flow = harness.open(ordered, everything, fails, routing={"ignore_process_keys": ("ignored",)})
    body = {"processDefinitionId": "leave:3:4711", "processDefinitionVersion": 3, "conclusion": "approved"}
    flow.take("done", businessKey="k1", **body)
    flow.take("purged", businessKey="k2")
    flow.take("parked", key="nobody")
    flow.take("ignored", key="ignored")
    flow.take("dismissed", key="nobody")
    flow.take("failed", key=None, callback_class="com.example.Fails")
    flow.take_in("pulled", businessKey="k3")
    with suppress(IdentityConflict):
        flow.take("done", businessKey="k1", other=1, **body)
    assert flow.app.intake.accept_all([ingress_callback("ingress")])
    until(flow.is_idle)
    flow.clock.advance(86_400)
    reused = flow.take_in("pulled", started_at=flow.clock.now())
    assert reused.reused_id
    until(flow.is_idle)
    dismiss(flow.app.operation_context, EventFilter(flow_instance_id="dismissed"))
    (old,) = flow.events(flow_instance_id="purged")
    purge(replace(flow.app.operation_context, by=Actor("ann", "cli")), EventFilter(ids=(old,), until=flow.clock.now()))
    flow.app.alerts.poll()
    flow.close()
    flow = harness.open(start=False)
    hands = hands_of(flow)
    for state in State:
        _, (ready,) = hands.accept(f"i-{state}", f"q:{state}")
        if state is State.CLOSED:
            hands.bring(ready, State.DEAD)
        hands.bring(ready, state)
    _, (retried,) = hands.accept("retried", "q:retried")
    hands.ledger.claim(retried)
    log = "2026-01-01T00:00:00.000Z info pay: paid\n2026-01-01T00:00:01.000Z warning pay: not booked"
    hands.settle(retried, 1, OutcomeKind.FAILED, State.WAITING, hands.clock.now(), log=log)
    _, (replayed,) = hands.accept("again", "q:again")
    hands.bring(replayed, State.SUCCEEDED)
    hands.ledger.write(
        lambda transaction: hands.ledger.requeue(
            transaction,
            [hands.delivery_status(replayed.delivery_id)],
            trigger=Trigger.REPLAY,
            actor="ann",
            reset_retries=True,
        )
    )
    hands.accept("two", "q:x", "q:y")
    hands.accept("order", fields=("/amount",), amount=1200.5)
    hands.ledger.write(lambda transaction: fill_other_tables(transaction, hands))
    hands.ledger.write(lambda transaction: operation_rows.fill(transaction, hands.clock.new_id(), hands.clock.now()))
    hands.ledger.write(lambda transaction: engine_rows.fill(transaction, "oa", reused.event_id, hands.clock.now()))
    flow.close()


def fill_other_tables(transaction, hands):
    """Insert a row into each table that no callback of `fill` fills."""
    now, digest = hands.clock.now(), checksums.body_sha256("x")
    request = rejected_requests.RejectedRequest(
        id=hands.clock.new_id(),
        rejected_at=now,
        first_rejected_at=now,
        path="/flow/x",
        address="192.0.2.1",
        status=409,
        reason_en="no",
        reason_zh="否否",
        user_agent="curl",
        event_id=hands.clock.new_id(),
    )
    rejected_requests.store(transaction, [request])
    record = ignored_requests.IgnoredRequestRecord("oa", "/status = 1", '{"status": 1}', "application/json", now)
    ignored_requests.record(transaction, [replace(record, at=now - SECOND), record])
    sessions.create(transaction, sessions.Session(digest=digest, operator="ann", created_at=now, used_at=now))
    required_credentials.require(transaction, ["sources"], now)
    event = hands.new("unknown", conclusion="odd", processDefinitionKey="leave").event
    UnknownConclusions().record(transaction, [event], now)
    minute = now - now % (60 * SECOND)
    transaction.connection.execute(
        insert(trends).values(
            kind="handler",
            subject="p:counted",
            resolution=60,
            started_at=minute,
            outcome="succeeded",
            bucket=5,
            count=3,
        )
    )
    signed = replace(hands.new("signed"), webhook_id="msg_1")
    assert webhook_ids.record_ids(transaction, [signed]) == [False]
