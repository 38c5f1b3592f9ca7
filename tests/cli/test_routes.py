"""`flowhooks routes`."""

from __future__ import annotations

import pytest


def test_every_route(server, asked, run):
    """Each way in, with its handler and whether that is here; and as a table with a sum."""
    routes = asked("routes", server=server)["routes"]
    assert {
        "kind": "complete",
        "by": "key",
        "value": "order",
        "versions": ">=2",
        "sources": [],
        "handler_id": "shop:book",
        "order_by": None,
        "concurrency": None,
        "state": "present",
        "paused_since": None,
    } in routes
    assert len(routes) == 6
    text = run("routes", server=server, COLUMNS="80").stdout
    assert text.splitlines()[-1] == "6 routes to 4 handlers: 4 present."
    assert max(map(len, text.splitlines())) <= 80
    assert "turns" not in text, "no handler takes turns"


TURNS = """
from flowhooks import handler, hookimpl

@handler(process_key="change", order_by="business_key", concurrency=4)
def change(event):
    pass

@handler(process_key="slow", concurrency=2)
def slow(event):
    pass

@handler(process_key="plain")
def plain(event):
    pass

@hookimpl
def handlers():
    return [change, slow, plain]
"""


def test_how_deliveries_take_turns(asked, run, tmp_path):
    """What a handler's deliveries are ordered by, and how many run at once, in the table and as JSON."""
    (tmp_path / "turns.py").write_text(TURNS)
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path), "FLOWHOOKS_PLUGINS_ALLOW": "turns"}
    found = {one["handler_id"]: (one["order_by"], one["concurrency"]) for one in asked("routes", **env)["routes"]}
    assert found == {"turns:change": ("business_key", 4), "turns:slow": (None, 2), "turns:plain": (None, None)}
    lines = run("routes", COLUMNS="200", **env).stdout.splitlines()
    for handler, said in (
        ("turns:change", "in order of business_key, 4 at once at the most"),
        ("turns:slow", " 2 at once at the most"),
        ("turns:plain", " -"),
    ):
        (line,) = [line for line in lines if handler in line]
        assert line.rstrip().endswith(said)


@pytest.mark.parametrize(
    ("options", "verdicts"),
    [
        (("--key", "order", "--version", "2"), {"shop:book": True, "shop:copy": False}),
        (("--key", "order", "--version", "2", "--source", "erp"), {"shop:book": True, "shop:copy": True}),
        (("--key", "order", "--version", "1"), {"shop:book": False, "shop:copy": False}),
        (("--key", "order"), {"shop:book": False, "shop:copy": False}),
        (("--key", "leave", "--class", "com.example.Leave"), {"shop:grant": True}),
        (("--class", "nobody"), {}),
        (("--kind", "other", "--key", "leave"), {"shop:grant": False}),
        (("--class", ""), {}),
    ],
)
def test_one_look_up_explained(server, asked, options, verdicts):
    """Each candidate won or lost, for a reason; nobody at all is exit code 1."""
    won = any(verdicts.values())
    found = asked("routes", *options, server=server, code=0 if won else 1)
    assert {one["handler_id"]: one["won"] for one in found["candidates"]} == verdicts
    assert all(one["why"] for one in found["candidates"])
    assert set(found["handlers"]) == {name for name, has in verdicts.items() if has}
    assert found["verdict"] == ("delivered" if won else "parked")


def test_the_explanation_for_people(server, run):
    """Why it lost, where it goes, and what may have been meant."""
    result = run("routes", "--key", "order", "--version", "2", server=server)
    assert result.exit_code == 0
    assert "with key order, version 2:" in result.stdout
    assert "source 'default' is not one of erp" in result.stdout
    assert result.stdout.endswith("It goes to shop:book.\n")
    result = run("routes", "--key", "ordre", server=server)
    assert result.exit_code == 1
    assert "it is parked until one is installed" in result.stdout
    assert "Hint: key 'order' is similar." in result.stdout
    result = run("routes", "--key", "order", "--kind", "cancelled", server=server)
    assert "Hint: there is no kind of call-back 'cancelled'" in result.stdout


def test_settings_decide_what_becomes_of_it(server, asked, tmp_path):
    """Refused, ignored, and a source that no setting names."""
    assert asked("routes", "--key", "x", server=server, code=1, FLOWHOOKS_UNROUTED="reject")["verdict"] == "refused"
    found = asked("routes", "--key", "x", server=server, FLOWHOOKS_IGNORE_PROCESS_KEY="x,y")
    assert found["verdict"] == "ignored"
    (tmp_path / "flowhooks.toml").write_text(f'[sources.erp]\ntoken_sha256 = ["{"0" * 64}"]\n')
    assert asked("routes", "--key", "leave", server=server)["hints"] == [
        "no source is called 'default'; the settings have erp"
    ]


def test_handlers_that_are_not_here_are_routes_too(server, asked, run, tmp_path):
    """Known from the ledger: missing, denied or quarantined; an event still goes to them."""
    for env, state in (
        ({"FLOWHOOKS_PLUGINS_DIRS": ""}, "missing"),
        ({"FLOWHOOKS_PLUGINS_DENY": "shop"}, "denied"),
    ):
        routes = asked("routes", server=server, **env)["routes"]
        assert {one["state"] for one in routes} == {state}
    (tmp_path / "shop.py").write_text("import nothing_of_this_name")
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path)}
    found = asked("routes", server=server, **env)
    assert {one["state"] for one in found["routes"]} == {"quarantined"}
    assert "nothing_of_this_name" in found["quarantined"][0]["error"]
    text = run("routes", "--key", "leave", server=server, **env).stdout
    assert "It goes to shop:grant.\nA handler that is not present gets its delivery all the same" in text


def test_without_a_ledger(run, asked, tmp_path):
    """None yet is no reason to fail, nor is one that cannot be read, of which a line says so."""
    assert run("routes").stdout == "No handler is known: every call-back would be parked.\n"
    assert not list(tmp_path.iterdir())
    (tmp_path / "flowhooks.db").write_text("nonsense " * 200)
    result = run("routes")
    assert result.exit_code == 0
    assert result.stderr.startswith("Without the handlers that the ledger remembers: cannot use the database")
