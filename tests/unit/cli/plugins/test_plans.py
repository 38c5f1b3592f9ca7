"""The plan of an uninstall, made from the present state."""

from __future__ import annotations

import pytest

from flowhooks.cli.plugins.plans import plan_for_handlers, plan_for_plugin
from flowhooks.errors import SettingsError

NOTHING = {"waiting": 0, "running": 0, "unknown": 0, "dead": 0, "parked": 0}


def handler(handler_id, availability="present", *, keys=(), classes=(), kind="complete", every=False, **backlog):
    """A handler in the form of `plugins list --json`."""
    selectors = {
        "callback_classes": list(classes),
        "process_keys": list(keys),
        "versions": "",
        "sources": [],
        "kind": kind,
        "every": every,
        "conclusions": [],
        "when": {},
    }
    return {"id": handler_id, "availability": availability, "selectors": selectors, "backlog": NOTHING | backlog}


def plugin(name, package="", *handlers, origin=None, state="loaded"):
    """A plugin in the form of `plugins list --json`."""
    origin = f"entry point {name}" if origin is None else origin
    return {"name": name, "package": package, "origin": origin, "state": state, "handlers": list(handlers)}


LEAVE = plugin("leave", "acme-leave", handler("leave:grant", keys=["leave", "sick"]), handler("leave:old", "missing"))
ROOMS = plugin("rooms", "acme-rooms", handler("rooms:book", keys=["leave"], classes=["com.example.Room"]))


def test_a_package_and_former_handlers_of_its_plugin():
    """Handlers that the plugin no longer has are retired with it."""
    plan = plan_for_plugin("leave", [LEAVE], [LEAVE, ROOMS])
    assert (plan.package, plan.plugins, plan.unretired) == ("acme-leave", ("leave",), ["leave:grant", "leave:old"])


def test_a_package_with_several_plugins():
    """All plugins of the package are removed, whichever is named, and all their handlers are retired."""
    sick = plugin("sick", "acme-leave", handler("sick:note"))
    plan = plan_for_plugin("sick", [sick], [LEAVE, sick, ROOMS])
    assert (plan.package, plan.plugins) == ("acme-leave", ("leave", "sick"))
    assert plan.unretired == ["leave:grant", "leave:old", "sick:note"]
    assert next(plan.lines("park")) == "Uninstalls the package acme-leave, with the plugins leave, sick."


def test_selectors_left_without_a_handler():
    """The plan lists selectors without another handler of the kind; handlers of every event do not count."""
    every = plugin("audit", "a", handler("audit:all", every=True), handler("audit:c", keys=["sick"], kind="cancel"))
    plan = plan_for_plugin("leave", [LEAVE], [LEAVE, ROOMS, every])
    assert plan.unhandled() == ["key sick"]
    assert "Callbacks with key sick will be parked: no other handler listens to them." in list(plan.lines("park"))
    assert "will be rejected with 422" in "\n".join(plan.lines("reject"))
    assert plan_for_plugin("audit", [every], [every]).unhandled() == ["key sick (kind cancel)"]
    assert (
        plan_for_plugin("leave", [LEAVE], [LEAVE, plugin("x", "x", handler("x:y", keys=["sick"])), ROOMS]).unhandled()
        == []
    )


def test_a_key_of_several_kinds_is_named_once():
    """A key without a handler is named once, with its kinds if not all of them are `complete`."""
    both = plugin("sick", "s", handler("sick:a", keys=["sick"]), handler("sick:b", keys=["sick"], kind="cancel"))
    plan = plan_for_plugin("sick", [both], [both])
    assert plan.unhandled() == ["key sick (kinds complete, cancel)"]
    complete = plugin("x", "x", handler("x:y", keys=["sick"]))
    assert plan_for_plugin("sick", [both], [both, complete]).unhandled() == ["key sick (kind cancel)"]


def test_a_restart_is_needed_only_for_handlers_that_still_run():
    """A server that has been restarted without a handler needs no further restart."""
    gone = plugin("leave", "", handler("leave:old", "missing"), origin="", state="missing")
    assert not plan_for_plugin("leave", [gone], [gone]).needs_restart
    assert not plan_for_handlers([gone], ["old"], [gone]).needs_restart
    running = plugin("leave", "", handler("leave:old", "elsewhere"), origin="", state="elsewhere")
    assert plan_for_plugin("leave", [running], [running]).needs_restart
    assert plan_for_plugin("leave", [LEAVE], [LEAVE]).needs_restart


def test_two_packages_with_the_same_plugin_name():
    """The plugin's name is ambiguous; by the package's name, handlers that the other package has are not retired."""
    first = plugin("leave", "acme-leave", handler("leave:grant"))
    second = plugin("leave", "other-leave", state="quarantined")
    everything = [first, second]
    with pytest.raises(SettingsError, match="the packages acme-leave and other-leave both have a plugin leave"):
        plan_for_plugin("leave", everything, everything)
    for listed_plugin in everything:
        plan = plan_for_plugin(listed_plugin["package"], [listed_plugin], everything)
        assert (plan.package, plan.unretired) == (listed_plugin["package"], [])


def test_a_single_file_is_not_uninstalled():
    """A file is not uninstalled, even if a package has its name."""
    file = plugin("leave", origin="file /srv/leave.py")
    with pytest.raises(SettingsError, match=r"plugin leave is the single file /srv/leave\.py: delete the file"):
        plan_for_plugin("leave", [file], [file])


def test_a_plugin_without_a_package():
    """A plugin without a package cannot be uninstalled by pip."""
    stray = plugin("leave", origin="entry point leave")
    with pytest.raises(SettingsError, match="is in no package that pip can uninstall"):
        plan_for_plugin("leave", [stray], [stray])


def test_a_retired_handler_is_not_retired_again():
    """A retired handler is named, and not retired again."""
    gone = plugin(
        "leave", "", handler("leave:a", "missing", waiting=2), handler("leave:b", "retired", dead=1), origin=""
    )
    plan = plan_for_plugin("leave", [gone], [gone])
    assert (plan.package, plan.unretired) == ("", ["leave:a"])
    lines = list(plan.lines("park"))
    assert lines[0] == "Uninstalls no package; retires handlers of the plugin leave."
    assert any(line.startswith("Retires leave:a: ") and line.endswith("stored: 2 waiting") for line in lines)
    assert any(line.startswith("Already retired: leave:b") for line in lines)
    assert "Data stored for them is kept. If they are installed again, their deliveries continue." in lines


def test_a_plugin_without_handlers():
    """Without handlers the plan says that none is retired."""
    timings = plugin("timings", "flowhooks-timings")
    plan = plan_for_plugin("timings", [timings], [timings, LEAVE])
    assert list(plan.lines("park")) == [
        "Uninstalls the package flowhooks-timings, with the plugin timings.",
        "It has no handlers.",
    ]


@pytest.mark.parametrize("name", ["old", "leave:old"])
def test_a_single_handler(name):
    """A single handler is selected by name or id; no package is uninstalled."""
    plan = plan_for_handlers([LEAVE], [name], [LEAVE, ROOMS])
    assert (plan.package, plan.unretired) == ("", ["leave:old"])


@pytest.mark.parametrize(
    ("availability", "said"),
    [
        ("present", "its plugin still has it"),
        ("quarantined", "its plugin cannot be used now"),
    ],
)
def test_a_handler_that_may_still_be_loaded_is_not_retired(availability, said):
    """A handler that may still be loaded is not retired, because the next start would register it again."""
    installed = plugin("leave", "acme-leave", handler("leave:grant", availability))
    with pytest.raises(SettingsError, match=f"handler leave:grant cannot be retired: {said}"):
        plan_for_handlers([installed], ["grant"], [installed])


def test_a_handler_of_a_denied_plugin():
    """It can be retired: no start registers it again while the settings exclude its plugin."""
    audit = plugin("audit", "flowhooks-audit", handler("audit:record", "denied"))
    plan = plan_for_handlers([audit], ["record"], [audit])
    assert (plan.package, plan.unretired) == ("", ["audit:record"])


def test_an_unknown_handler():
    """An unknown handler is refused with similar names."""
    with pytest.raises(SettingsError, match=r"no handler 'grand' of leave is registered; did you mean grant\?"):
        plan_for_handlers([LEAVE], ["grand"], [LEAVE])
