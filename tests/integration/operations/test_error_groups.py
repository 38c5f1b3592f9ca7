"""Failures and rejects of one handler are two groups, and one is replayed without the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import Reject
from flowhooks.errors import NotFound, SettingsError
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.traceback_text import CAUSE
from flowhooks.operations import error_groups
from flowhooks.operations.bulk import plan_operation
from flowhooks.operations.context import Actor
from flowhooks.operations.error_groups import complete_filter, find_error_group, list_error_groups, newest_sample
from flowhooks.operations.registry import run_operation

FAILURES, REJECTS = 12, 3


class Erp:
    """A system that is down or up."""

    up = False

    def post(self, order):
        """Take an order."""
        if not self.up:
            raise ConnectionError(f"no answer for order {order}")


@pytest.fixture
def erp(harness, listens):
    """An ERP whose failures and rejects are dead deliveries of one handler; another handler failed, too."""
    erp = Erp()
    erp.calls = []

    def sync(event):
        erp.calls.append(event.flow_instance_id)
        if "amount" not in event.data:
            raise Reject(f"order {event.flow_instance_id} has no amount")
        try:
            erp.post(event.flow_instance_id)
        except ConnectionError as error:
            raise RuntimeError("the ERP did not take it") from error

    def mail(event):
        erp.post(event.flow_instance_id)

    erp.flow = harness.open(listens(sync), listens(mail))
    for number in range(FAILURES):
        erp.flow.take(f"order-{number}", amount=1)
    for number in range(REJECTS):
        erp.flow.take(f"wrong-{number}")
    erp.context = replace(erp.flow.app.operation_context, by=Actor("ann", "cli"))
    erp.groups = {
        (group.handler, group.error_type): (group, activity)
        for group, activity in list_error_groups(erp.flow.app.ledger, now=erp.flow.clock.now(), limit=10).groups
    }
    return erp


def test_one_group_is_replayed_without_the_other(erp, eventually):
    """A replay by group runs the dead deliveries of that group only, and no other delivery of the same events."""
    assert {key: (group.count, activity.dead) for key, (group, activity) in erp.groups.items()} == {
        ("p:sync", "RuntimeError"): (FAILURES, FAILURES),
        ("p:sync", "Reject"): (REJECTS, REJECTS),
        ("p:mail", "ConnectionError"): (FAILURES + REJECTS, FAILURES + REJECTS),
    }
    fingerprint = erp.groups["p:sync", "RuntimeError"][0].fingerprint
    erp.up = True
    erp.calls.clear()
    event_filter = {"error_group": fingerprint[:8]}
    planned = run_operation(erp.context, "plan_operation", {"action": "replay", "event_filter": event_filter})
    assert planned["planned"] == FAILURES
    run_operation(erp.context, "start_operation", {"operation_id": planned["id"]})
    eventually(lambda: erp.flow.app.ledger.count_by_state()["dead"] == REJECTS + FAILURES + REJECTS)
    eventually(erp.flow.is_idle)
    assert sorted(erp.calls) == sorted(f"order-{number}" for number in range(FAILURES))
    status = find_error_group(erp.flow.app.ledger, fingerprint, now=erp.flow.clock.now())
    assert (status.group.count, status.activity.open) == (FAILURES, 0)
    assert plan_operation(erp.context, BulkAction.RERUN, EventFilter(error_group=fingerprint)).planned == 0


@pytest.mark.either
def test_a_group_has_the_newest_traceback(erp):
    """The newest stored attempt is shown with its chain of causes."""
    ledger = erp.flow.app.ledger
    group = erp.groups["p:sync", "RuntimeError"][0]
    sample = newest_sample(ledger, group)
    assert sample.attempt.error == "RuntimeError: the ERP did not take it"
    first, second = sample.chain
    assert (first.relation, second.relation) == ("", CAUSE)
    assert first.error.startswith("ConnectionError: no answer for order order-")
    assert second.error == "RuntimeError: the ERP did not take it"
    assert ledger.event(sample.event_id).delivery_statuses[0].delivery_id == sample.delivery_id
    assert newest_sample(ledger, erp.groups["p:sync", "Reject"][0]).chain == ()
    assert newest_sample(ledger, replace(group, fingerprint="0" * 64)) is None


@pytest.mark.either
def test_groups_are_found_by_the_prefix_of_their_id(erp, monkeypatch):
    """At least eight characters are needed, and two groups with the same beginning are refused."""
    ledger, now = erp.flow.app.ledger, erp.flow.clock.now()
    fingerprint = erp.groups["p:sync", "Reject"][0].fingerprint
    assert complete_filter(ledger, EventFilter(error_group=fingerprint[:8]), ()).error_group == fingerprint
    assert complete_filter(ledger, EventFilter(handler="p:sync"), ()) == EventFilter(handler="p:sync")
    for wrong in (fingerprint[:7], "0" * 64, "x" * 8, "%" * 8, f"{fingerprint}0", ""):
        with pytest.raises(NotFound, match="there is no error group"):
            find_error_group(ledger, wrong, now=now)
    same = [group for group, _ in erp.groups.values()]
    monkeypatch.setattr(error_groups.error_group_queries, "groups_with_prefix", lambda *_args, **_more: same)
    with pytest.raises(NotFound, match="more than one error group"):
        find_error_group(ledger, fingerprint[:8], now=now)


@pytest.mark.either
def test_pages_of_groups(erp):
    """A page says whether more groups follow."""
    ledger, now = erp.flow.app.ledger, erp.flow.clock.now()
    first = list_error_groups(ledger, now=now, limit=2)
    second = list_error_groups(ledger, now=now, limit=2, skip=2)
    assert (len(first.groups), first.has_more, len(second.groups), second.has_more) == (2, True, 1, False)
    assert list_error_groups(ledger, now=now, handler="p:nobody", limit=2) == ((), False)


@pytest.mark.either
def test_a_purge_refuses_an_error_group(erp):
    """A purge would ignore the group and delete other events, so it refuses."""
    event_filter = {"until": erp.flow.clock.now(), "error_group": erp.groups["p:sync", "Reject"][0].fingerprint}
    with pytest.raises(SettingsError, match="cannot select events by error_group"):
        run_operation(erp.context, "purge", {"event_filter": event_filter})
