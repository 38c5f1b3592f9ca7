"""How a process ended: the conclusion that real engines send, the ends that call back, and called instances.

Here called instances call back too, which they do not by default. Needs Java and Maven, as `test_real_engines.py` does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]  # the first build downloads

PAGES = Path(__file__).parents[2] / "docs/how-to/engines"
ENGINES = ["flowable", "activiti", "camunda-7"]
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
    """A workflow engine beside a server; instances that a call activity started call back too."""
    return pair_of(request.param, PLUGIN, "include-called")


@pytest.fixture(params=["java", *ENGINES])
def any_pair(request, pair_of):
    """The same, or a custom platform beside a server."""
    return pair_of(request.param, PLUGIN, *([] if request.param == "java" else ["include-called"]))


def body(site, instance):
    """The callback of an instance, as the engine sent it."""
    return json.loads(site.settled(instance).body)


def ended(engine, key, **variables):
    """An instance of a process whose only task was completed with these variables."""
    instance = engine.do("start", key, "C-2026-30")["id"]
    engine.do("complete", instance, variables)
    return instance


def test_only_approved_instances_run_the_handler_of_the_approved(any_pair):
    """Of 10 approved and 5 rejected instances, the handler runs for the 10; the 5 are dismissed and answered 200."""
    decisions = ["rejected" if number % 3 == 1 else "approved" for number in range(15)]
    instances = [(ended(any_pair.engine, "expense_approval", decision=decision), decision) for decision in decisions]
    any_pair.wait_until_sent()
    for instance, decision in instances:
        stored = any_pair.site.settled(instance)
        assert (stored.event.conclusion, json.loads(stored.body)["conclusion"]) == (decision, decision)
        rejected = decision == "rejected"
        assert (stored.state, stored.dismissed_by) == (("dismissed", "condition") if rejected else ("routed", None))
    runs = [len(any_pair.site.deeds(instance)) for instance, _ in instances]
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
    assert house.site.deeds(instance) == []


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
def test_a_class_that_is_no_text(pair, name, variable, sent):
    """A number or boolean is sent as text, a date or a long text is left out: the callback is stored."""
    instance = ended(pair.engine, "leave_request", callBackProcessClass=variable)
    assert body(pair.site, instance)["callBackProcessClass"] == sent, name
    assert len(pair.site.deeds(instance)) == 1


def test_what_the_engine_knows_without_a_variable(pair):
    """Camunda sends the id of the end event, Flowable the business status; Activiti has neither."""
    known = {"flowable": "GRANTED", "activiti": None, "camunda-7": "leave_end"}
    instance = pair.engine.do("start", "leave_request", "L-2026-2")["id"]
    if pair.name == "flowable":
        pair.engine.do("status", instance, "GRANTED")
    pair.engine.do("complete", instance, {"conclusion": None})
    assert body(pair.site, instance)["conclusion"] == known[pair.name]


# Instances that a call activity starts


def called(engine, key, **variables):
    """An instance and the instance of `key` that it called with all of its variables; both have ended."""
    caller = engine.do("start", "order", "O-2026-1", {"called": key} | variables)["id"]
    instance = engine.do("called", caller)["id"]
    engine.do("complete", instance)
    return caller, instance


@pytest.mark.parametrize(("key", "own"), [("leave_request", None), ("contract_approval", "com.example.ContractSigned")])
@pytest.mark.parametrize("given", [{}, {"callBackProcessClass": "com.example.Given", "conclusion": "of the caller"}])
def test_a_called_instance_takes_nothing_from_its_caller(pair, key, own, given):
    """Called instances that call back have the class of their own definition, and their own conclusion."""
    caller, instance = called(pair.engine, key, **given)
    ends = {"leave_request": "leave_end", "contract_approval": "end", "order": "order_end"}
    camunda = pair.name == "camunda-7"
    sent = body(pair.site, instance)
    assert (sent["processDefinitionKey"], sent["callBackProcessClass"]) == (key, own)
    assert sent["conclusion"] == (ends[key] if camunda else None)
    sent = body(pair.site, caller)
    assert sent["callBackProcessClass"] == given.get("callBackProcessClass", "com.example.OrderPlaced")
    assert sent["conclusion"] == given.get("conclusion", ends["order"] if camunda else None)


# Which ends send a callback


WAYS = {
    "flowable": {"approved": "yes", "rejected": "yes", "fraud": "no", "stopped": "no", "cancelled": "no"},
    "activiti": {"approved": "yes", "rejected": "yes", "fraud": "no", "stopped": "no", "cancelled": "no"},
    "camunda-7": {"approved": "yes", "rejected": "yes", "fraud": "yes", "stopped": "yes", "cancelled": "no"},
}
"""The ends of `expense_approval` that call back: an error end event is *fraud*, a terminate end event is *stopped*."""


def test_which_ways_to_end_call_back(pair):
    """Each way to end calls back or does not, and the conclusion distinguishes those that do."""
    instances = {way: pair.engine.do("start", "expense_approval", "E-2026-1")["id"] for way in WAYS[pair.name]}
    for way, instance in instances.items():
        if way == "cancelled":
            pair.engine.do("cancel", instance)
        elif way == "fraud" and pair.name != "camunda-7":
            assert "error" in pair.engine.ask("complete", instance, {"decision": way})  # the instance goes on
        else:
            pair.engine.do("complete", instance, {"decision": way})
    pair.wait_until_sent()
    found = {way: pair.site.stored(instance) for way, instance in instances.items()}
    assert {way: "yes" if events else "no" for way, events in found.items()} == WAYS[pair.name]
    conclusions = {way: json.loads(events[0].body)["conclusion"] for way, events in found.items() if events}
    assert conclusions == {way: way for way in conclusions}


@pytest.mark.parametrize("name", ENGINES)
def test_the_page_says_which_ways_to_end_call_back(name):
    """The table of the engine's page lists these ways in this order, and called instances last."""
    page = (PAGES / f"{name}.md").read_text("utf-8").partition("## Which ends send a callback\n")[2]
    rows = re.findall(r"^\| (?:at|as|cancelled) .*? \| (\w+) \|", page, re.MULTILINE)
    assert rows == [*WAYS[name].values(), "no"]
