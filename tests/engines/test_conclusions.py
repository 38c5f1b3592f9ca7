"""How a process ended: the conclusion that real engines send, the ends that call back, and called instances.

Here all kinds are sent, and called instances call back too; by default neither is. Needs Java and Maven, as
`test_real_engines.py` does.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]  # the first build downloads

PAGES = Path(__file__).parents[2] / "docs/how-to/engines"
ENGINES = ["flowable", "activiti", "camunda-7", "operaton", "cib-seven"]
PLUGIN = '''
import json, os
from flowhooks import handler, hookimpl

def write(event):
    """Write one line per run, as a business system would have one booking."""
    booking = {"instance": event.flow_instance_id, "conclusion": event.conclusion}
    with open(os.environ["JOURNAL"], "a", encoding="utf-8") as journal:
        journal.write(json.dumps(booking) + "\\n")

@handler(process_key="expense_approval", conclusion="approved")
def pay(event):
    """Listen to a process that ends in several ways, for one of them."""
    write(event)

@handler(process_key=["leave_request", "contract_approval", "order"])
def book(event):
    """Listen to processes however they end."""
    write(event)

@hookimpl
def handlers():
    return [pay, book]
'''


@pytest.fixture(params=ENGINES)
def pair(request, pair_of):
    """A workflow engine beside a server; all ends and called instances call back."""
    return pair_of(request.param, PLUGIN, "all-ends")


@pytest.fixture(params=["java", *ENGINES])
def any_pair(request, pair_of):
    """The same, or a custom platform beside a server."""
    return pair_of(request.param, PLUGIN, *([] if request.param == "java" else ["all-ends"]))


def body(site, instance):
    """The callback of an instance, as the engine sent it."""
    return json.loads(site.settled(instance).body)


def ended(engine, key, **variables):
    """An instance of a process whose only task was completed with these variables."""
    instance = engine.do("start", key, "C-2026-30")["id"]
    engine.do("complete", instance, variables)
    return instance


def test_only_approved_instances_run_the_handler_for_approved_ones(any_pair):
    """Of 10 approved and 5 rejected instances, the handler runs for the 10; the 5 are dismissed and answered 200."""
    decisions = ["rejected" if number % 3 == 1 else "approved" for number in range(15)]
    instances = [(ended(any_pair.engine, "expense_approval", decision=decision), decision) for decision in decisions]
    any_pair.wait_until_sent()
    for instance, decision in instances:
        stored = any_pair.site.settled(instance)
        assert (stored.event.conclusion, json.loads(stored.body)["conclusion"]) == (decision, decision)
        rejected = decision == "rejected"
        assert (stored.state, stored.dismissed_by) == (("dismissed", "condition") if rejected else ("routed", None))
    runs = [len(any_pair.site.records(instance)) for instance, _ in instances]
    assert runs == [int(decision == "approved") for decision in decisions]
    assert sum(runs) == 10
    again = any_pair.send_again(instances[1][0])
    assert (again.status, again.json) == (200, {"success": True})


def test_an_instance_without_a_conclusion_is_parked(pair_of):
    """If all its handlers need a conclusion, an event without one waits for an operator."""
    house = pair_of("java", PLUGIN)
    instance = ended(house.engine, "expense_approval", decision=None)
    house.wait_until_sent()
    (stored,) = house.site.stored(instance)
    assert (stored.state, stored.event.conclusion) == ("parked", None)
    assert house.site.records(instance) == []


CONCLUSIONS = [
    ("rejected", "rejected"),
    ("拒绝", "拒绝"),
    ("é" * 128, "é" * 128),
    ("😀" * 128, "😀" * 128),
    ("x" * 129, None),
    (2, "2"),
    (False, "false"),
    ({"date": 0}, None),
]
"""A variable `conclusion`, and the conclusion that is sent for it."""


def test_a_variable_is_the_conclusion(pair):
    """Text, numbers and booleans are sent as text; dates and long texts are left out of the callback."""
    for variable, sent in CONCLUSIONS:
        instance = ended(pair.engine, "leave_request", conclusion=variable)
        assert body(pair.site, instance)["conclusion"] == sent, variable
    pair.wait_until_sent()


@pytest.mark.parametrize(
    ("name", "variable", "sent"),
    [("int", 5, "5"), ("boolean", True, "true"), ("date", {"date": 0}, None), ("long", "x" * 513, None)],
)
def test_a_class_variable_that_is_not_text(pair, name, variable, sent):
    """A number or boolean is sent as text, a date or a long text is left out: the callback is stored."""
    instance = ended(pair.engine, "leave_request", callBackProcessClass=variable)
    assert body(pair.site, instance)["callBackProcessClass"] == sent, name
    assert len(pair.site.records(instance)) == 1


def test_the_conclusion_of_each_engine_without_a_variable(pair):
    """Camunda sends the id of the end event, Flowable the business status; Activiti has neither."""
    known = {"flowable": "GRANTED", "activiti": None, "camunda-7": "leave_end"}
    instance = pair.engine.do("start", "leave_request", "L-2026-2")["id"]
    if pair.name == "flowable":
        pair.engine.do("act", "status", instance, "GRANTED")
    pair.engine.do("complete", instance, {"conclusion": None})
    assert body(pair.site, instance)["conclusion"] == known[pair.family]


# Instances that a call activity starts


def called(engine, key, **variables):
    """An instance and the instance of `key` that it called with all of its variables; both have ended."""
    caller = engine.do("start", "order", "O-2026-1", {"called": key} | variables)["id"]
    instance = engine.do("called", caller)["id"]
    engine.do("complete", instance)
    return caller, instance


@pytest.mark.parametrize(("key", "own"), [("leave_request", None), ("contract_approval", "com.example.ContractSigned")])
@pytest.mark.parametrize("given", [{}, {"callBackProcessClass": "com.example.Given", "conclusion": "of the caller"}])
def test_a_called_instance_inherits_nothing_from_its_caller(pair, key, own, given):
    """Called instances that call back have the class of their own definition, and their own conclusion."""
    caller, instance = called(pair.engine, key, **given)
    ends = {"leave_request": "leave_end", "contract_approval": "end", "order": "order_end"}
    camunda = pair.family == "camunda-7"
    sent = body(pair.site, instance)
    assert (sent["processDefinitionKey"], sent["callBackProcessClass"]) == (key, own)
    assert sent["conclusion"] == (ends[key] if camunda else None)
    sent = body(pair.site, caller)
    assert sent["callBackProcessClass"] == given.get("callBackProcessClass", "com.example.OrderPlaced")
    assert sent["conclusion"] == given.get("conclusion", ends["order"] if camunda else None)


# Which ends send a callback

FORMER = {
    "at an ordinary end event, approved": "`complete`",
    "at an ordinary end event, rejected": "`complete`",
}
LATER = {
    "by a message that starts an interrupting event sub-process": "`complete`",
    "in the transaction in which it started": "`complete`",
    "after an embedded sub-process that ran three times": "`complete`",
}
ENDS = {
    "flowable": {
        **FORMER,
        "at an escalation end event": "`complete`",
        **LATER,
        "because an operator moved it to an end event": "`complete`",
        "after it was migrated to version 2": "`complete`",
        "at an error end event that nothing catches": "-",
        "at a terminate end event": "`terminate`",
        "because it was cancelled or deleted": "`cancel`",
        "as a called instance, at an ordinary end event": "`complete`",
        "as a called instance, with an error that the caller catches": "`error`",
        "as a called instance, at a terminate end event": "`terminate`",
    },
    "activiti": {
        **FORMER,
        **LATER,
        "at an error end event that nothing catches": "-",
        "at a terminate end event": "`terminate`",
        "because it was cancelled or deleted": "`cancel`",
        "as a called instance, at an ordinary end event": "`complete`",
        "as a called instance, with an error that the caller catches": "`complete`, `error`",
        "as a called instance, at a terminate end event": "`complete`, `terminate`",
    },
    "camunda-7": {
        **FORMER,
        "at an escalation end event": "`complete`",
        **LATER,
        "because an operator moved it to an end event": "`complete`",
        "because an operator cancelled its activity, after a token was started at an end event": "`cancel`",
        "after it was migrated to version 2": "`complete`",
        "at an error end event that nothing catches": "`error`",
        "with a BPMN error that a task throws and nothing catches": "`error`",
        "at a terminate end event": "`terminate`",
        "because it was cancelled or deleted": "`cancel`",
        "because it was deleted with `skipCustomListeners`": "-",
        "as a called instance, at an ordinary end event": "`complete`",
        "as a called instance, with an error that the caller catches": "`cancel`",
        "as a called instance, at a terminate end event": "`terminate`",
    },
}
"""The kinds of the callbacks that each end sends if all kinds and called instances are included."""


def end(engine, way):
    """End an instance in this way; returns its id."""
    decisions = {"approved": "approved", "rejected": "rejected", "nothing catches": "fraud", "terminate end": "stopped"}
    decision = next((decision for words, decision in decisions.items() if words in way), None)
    if way.startswith("as a called instance"):
        key = "leave_request" if "ordinary" in way else "expense_approval"
        caller = engine.do("start", "order", "O-2026-1", {"called": key})["id"]
        instance = engine.do("called", caller)["id"]
        engine.do("complete", instance, {"decision": decision or "fraud"})
        return instance
    keys = {
        "escalation": "escalating",
        "message": "withdrawable",
        "transaction": "automatic",
        "three times": "three_opinions",
        "throws": "throwing",
    }
    key = next((key for words, key in keys.items() if words in way), "expense_approval")
    instance = engine.do("start", key, "E-2026-1")["id"]
    acts = {
        "message": "withdraw",
        "moved": "move",
        "token": "move-late",
        "migrated": "migrate",
        "skipCustomListeners": "cancel-silently",
    }
    if act := next((act for words, act in acts.items() if words in way), None):
        engine.do("act", act, instance, "expense_approval" if act == "migrate" else "decide")
        decision = "approved" if act == "migrate" else None
    elif "cancelled or deleted" in way:
        engine.do("cancel", instance)
    elif key == "three_opinions":
        for _ in range(3):
            engine.do("complete", instance)
    elif key in {"escalating", "throwing"}:
        engine.do("complete", instance)
    if decision and key == "expense_approval":
        engine.ask("complete", instance, {"decision": decision})  # an error in engines that refuse uncaught errors
    return instance


def test_each_kind_of_end_is_sent_once(pair):
    """Each way to end sends the kind that the page says, once; only ordinary ends are `complete`."""
    instances = {way: end(pair.engine, way) for way in ENDS[pair.family]}
    pair.wait_until_sent()
    found = {way: pair.site.stored(instance) for way, instance in instances.items()}
    kinds = {way: sorted(f"`{stored.event.kind}`" for stored in events) for way, events in found.items()}
    assert {way: ", ".join(sent) or "-" for way, sent in kinds.items()} == ENDS[pair.family]
    (migrated,) = found.get("after it was migrated to version 2", [None])
    assert migrated is None or migrated.event.process_definition_version == 2


@pytest.mark.parametrize("name", ENDS)
def test_the_page_lists_which_ends_send_a_callback(name):
    """The table of the engine's page lists these ways in this order, and called instances last."""
    page = (PAGES / f"{name}.md").read_text("utf-8").partition("## Which ends send a callback\n")[2]
    rows = re.findall(r"^\| ((?:at|by|in|after|because|with|as) .*?) \| (.*?) \|", page, re.MULTILINE)
    assert dict(rows) == ENDS[name]


TENANT_PROCESS = """<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:camunda="http://camunda.org/schema/1.0/bpmn"
             targetNamespace="https://flowhooks.example/processes">
  <process id="{key}" isExecutable="true"{more}>
    <startEvent id="begin"/>
    <sequenceFlow id="to_end" sourceRef="begin" targetRef="end"/>
    <endEvent id="end"/>
  </process>
</definitions>
"""


def test_tenant_parent_version_tag_and_start_time_are_sent(pair):
    """The body distinguishes tenants, called instances, tagged versions and instances that reuse an id."""
    key = "合同审批_" + "x" * 60
    camunda = pair.family == "camunda-7"
    more = ' camunda:versionTag="2026-11" camunda:historyTimeToLive="180"' if camunda else ""
    pair.engine.do("act", "deploy", "acme", TENANT_PROCESS.format(key=key, more=more))
    sent = body(pair.site, pair.engine.do("start-for", key, "C-1", "acme")["id"])
    assert (sent["processDefinitionKey"], sent["tenantId"], sent["parentInstanceId"]) == (key, "acme", None)
    assert sent.get("versionTag") == ("2026-11" if camunda else None)
    started = datetime.fromisoformat(sent["startTime"])
    assert started.utcoffset() == timedelta(0)
    caller, instance = called(pair.engine, "leave_request")
    assert body(pair.site, instance)["parentInstanceId"] == caller
    assert body(pair.site, caller)["tenantId"] is None
