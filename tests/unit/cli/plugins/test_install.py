"""Which plugins an installation has changed."""

from __future__ import annotations

from flowhooks.cli.plugins.install import diff_plugins

HANDLER = {
    "id": "leave:grant",
    "availability": "present",
    "selectors": {"versions": ""},
    "retry": None,
    "has_probe": False,
}


def plugin(name="leave", **more):
    """A plugin in the form of `plugins list --json`."""
    whole = {"version": "1", "package": f"acme-{name}", "origin": "entry point x", "state": "loaded", "error": ""}
    return {"name": name, "hooks": ["handlers"], "handlers": [HANDLER | {"backlog": {"waiting": 1}}]} | whole | more


def told(before, after):
    """The names of new, changed and removed plugins."""
    found = diff_plugins(before, after)
    return tuple([plugin["name"] for plugin in found[word]] for word in ("new", "changed", "gone"))


def test_unchanged_plugins_are_not_reported():
    """A higher number of waiting deliveries is no change."""
    assert told([plugin()], [plugin()]) == ([], [], [])
    assert told([plugin()], [plugin(handlers=[HANDLER | {"backlog": {"waiting": 9}}])]) == ([], [], [])


def test_a_change_has_the_earlier_values():
    """A change has the earlier version, state, error, hooks and descriptions of handlers."""
    for more in (
        {"version": "2"},
        {"state": "quarantined"},
        {"error": "other"},
        {"hooks": []},
        {"handlers": []},
        {"handlers": [HANDLER | {"selectors": {"versions": ">=2"}}]},
        {"handlers": [HANDLER | {"has_probe": True}]},
    ):
        assert told([plugin()], [plugin(**more)]) == ([], ["leave"], []), more
    (changed,) = diff_plugins([plugin()], [plugin(version="2")])["changed"]
    assert (changed["version"], changed["before"]["version"]) == ("2", "1")


def test_new_and_removed_plugins():
    """A plugin known only to the ledger is new when it is installed; two packages with one plugin name are two."""
    missing = plugin(package="", origin="", state="missing")
    assert told([missing], [plugin()]) == (["leave"], [], [])
    assert told([plugin()], [missing]) == ([], [], ["leave"])
    assert told([plugin()], [plugin(), plugin(package="other", state="quarantined")]) == (["leave"], [], [])
