"""Plugin status: every present or earlier plugin, with the stored data of its handlers."""

from __future__ import annotations

from contextlib import closing

import pytest

from flowhooks.ledger.reader import Reader
from flowhooks.ledger.stats import HandlerBacklog
from flowhooks.operations.plugin_status import list_plugins
from flowhooks.operations.retire import retire


def nothing(event):
    """Do nothing."""


def failing(event):
    """Fail."""
    raise ValueError("no")


def look(flow):
    """The status of a flow's plugins by name."""
    with closing(Reader(flow.address)) as reader:
        return {plugin.name: plugin for plugin in list_plugins(flow.app.plugins, reader)}


def test_only_loaded_plugins_are_listed_without_a_ledger(harness, listens):
    """Without a ledger each loaded plugin has its handlers, without stored data."""
    flow = harness.open(listens(nothing), start=False)
    listed = next(plugin for plugin in list_plugins(flow.app.plugins, None) if plugin.name == "p")
    assert (listed.state, [(handler.id, handler.availability) for handler in listed.handlers]) == (
        "loaded",
        [("p:nothing", "present")],
    )
    assert listed.handlers[0].handler is flow.app.plugins.handlers["p:nothing"]
    assert listed.handlers[0].backlog.is_empty


def test_the_first_of_two_plugins_with_one_name_decides_the_status(harness, listens, tmp_path):
    """A handler that the loaded plugin lacks is missing, although a second plugin of that name is quarantined."""
    harness.open(listens(nothing), listens(failing)).close()
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "p.py").write_text("")
    flow = harness.open(listens(nothing), plugins_dirs=(str(tmp_path / "single"),), start=False)
    assert [(info.name, info.state) for info in flow.app.plugins.infos if info.state != "denied"] == [
        ("p", "loaded"),
        ("p", "quarantined"),
    ]
    (first,) = {plugin.handlers for plugin in list_plugins(flow.app.plugins, flow.app.ledger) if plugin.handlers}
    assert [(handler.id, handler.availability) for handler in first] == [
        ("p:failing", "missing"),
        ("p:nothing", "present"),
    ]


def test_every_status_of_a_handler(harness, listens, make_plugin):
    """Handlers are loaded, removed from their plugin, without their plugin, or retired."""
    first = harness.open(
        plugins={"a": make_plugin(listens(nothing), listens(failing)), "b": make_plugin(listens(nothing))},
        start=False,
    )
    first.take(wait=0)
    first.close()
    flow = harness.open(plugins={"a": make_plugin(listens(nothing))}, start=False)
    found = look(flow)
    assert [(handler.id, handler.availability) for handler in found["a"].handlers] == [
        ("a:failing", "missing"),
        ("a:nothing", "present"),
    ]
    assert (found["b"].state, found["b"].info, [handler.availability for handler in found["b"].handlers]) == (
        "missing",
        None,
        ["missing"],
    )
    assert found["b"].handlers[0].selectors == listens(nothing).selectors
    retire(flow.app.operation_context, ["b:nothing"])
    (listed,) = look(flow)["b"].handlers
    assert (look(flow)["b"].state, listed.availability, listed.selectors) == ("retired", "retired", None)
    assert listed.backlog == HandlerBacklog(waiting=1)


def test_stored_deliveries_are_counted_by_state(harness, listens):
    """Deliveries with and without a due time, *unknown* and dead ones are counted separately; succeeded ones not."""
    flow = harness.open(listens(failing, name="h"))
    flow.take("dead")
    flow.close()
    flow = harness.open(listens(nothing, name="h"))
    flow.take("done")
    flow.close()
    flow = harness.open(listens(nothing, name="h"), start=False)
    flow.take("lost", wait=0)
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert flow.app.ledger.claim(queued)
    assert look(flow)["p"].handlers[0].backlog == HandlerBacklog(running=1, dead=1)
    harness.crash(flow)
    flow = harness.open(listens(nothing, name="h"), start=False)
    flow.take("soon", wait=0)
    assert look(flow)["p"].handlers[0].backlog == HandlerBacklog(waiting=1, unknown=1, dead=1)
    flow.close()
    flow = harness.open(start=False)
    assert look(flow)["p"].handlers[0].backlog == HandlerBacklog(waiting=1, unknown=1, dead=1)


def test_parked_events_that_match_a_handler_are_counted(harness, listens):
    """Each handler has its number of matching parked events; a handler of every event has none."""
    flow = harness.open(start=False)
    for number in range(3):
        assert flow.take(f"i{number}", wait=0).status == "parked"
    flow.take("other", key="other", wait=0)
    flow.close()
    flow = harness.open(listens(nothing), listens(failing, every=True), start=False)
    stored = {handler.id: handler.backlog for handler in look(flow)["p"].handlers}
    assert stored == {"p:nothing": HandlerBacklog(parked=3), "p:failing": HandlerBacklog()}


@pytest.mark.postgresql
def test_a_plugin_that_other_processes_run_is_elsewhere(harness, listens, make_plugin):
    """A plugin that is not loaded here is elsewhere while other processes have all its handlers, then missing."""
    both = make_plugin(listens(nothing), listens(failing))
    whole = harness.open(plugins={"b": both}, start=False)
    part = harness.open(plugins={"b": make_plugin(listens(nothing))}, start=False)
    flow = harness.open(start=False)

    def delivery_statuses():
        found = look(flow)["b"]
        return found.state, [handler.availability for handler in found.handlers]

    assert delivery_statuses() == ("elsewhere", ["elsewhere", "elsewhere"])
    whole.close()
    assert delivery_statuses() == ("missing", ["missing", "elsewhere"])
    part.close()
    assert delivery_statuses() == ("missing", ["missing", "missing"])
