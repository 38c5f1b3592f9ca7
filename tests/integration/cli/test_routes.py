"""`flowhooks routes`."""

from __future__ import annotations

import json

import pytest


def test_every_route(server, run_json, run):
    """Each route has its selector, its handler and whether that is loaded; the table has a total."""
    routes = run_json("routes", server=server)["routes"]
    assert {
        "kind": "complete",
        "by": "key",
        "value": "order",
        "versions": ">=2",
        "sources": [],
        "conclusions": [],
        "when": {},
        "handler_id": "shop:book",
        "order_by": None,
        "concurrency": None,
        "rate": None,
        "state": "present",
        "paused_at": None,
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

@handler(process_key="slow", concurrency=2, rate="10/s")
def slow(event):
    pass

@handler(process_key="plain")
def plain(event):
    pass

@hookimpl
def handlers():
    return [change, slow, plain]
"""


def test_order_key_concurrency_and_rate_are_listed(run_json, run, tmp_path):
    """The table and JSON have the order key of a handler, its concurrency and its rate."""
    (tmp_path / "turns.py").write_text(TURNS)
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path), "FLOWHOOKS_PLUGINS_ALLOW": "turns"}
    routes = run_json("routes", **env)["routes"]
    found = {route["handler_id"]: (route["order_by"], route["concurrency"], route["rate"]) for route in routes}
    assert found == {
        "turns:change": ("business_key", 4, None),
        "turns:slow": (None, 2, "10/s"),
        "turns:plain": (None, None, None),
    }
    lines = run("routes", COLUMNS="200", **env).stdout.splitlines()
    for handler, said in (
        ("turns:change", "ordered by business_key, at most 4 at a time"),
        ("turns:slow", "at most 2 at a time, at most 10/s"),
        ("turns:plain", " -"),
    ):
        (line,) = [line for line in lines if handler in line]
        assert line.rstrip().endswith(said)
    assert "at most 2 at a time, at most 10/s" in run("handlers", "list", COLUMNS="200", **env).stdout
    env["FLOWHOOKS_DATABASE"] = str(tmp_path / "ledger.db")
    assert run("db", "upgrade", **env).exit_code == 0
    shown = run("handlers", "show", "turns:change", **env).stdout
    assert "  runs           ordered by business_key, at most 4 at a time\n" in shown


@pytest.mark.parametrize(
    ("options", "verdicts"),
    [
        (("--key", "order", "--version", "2"), {"shop:book": True, "shop:copy": False}),
        (("--key", "order", "--version", "2", "--source", "erp"), {"shop:book": True, "shop:copy": True}),
        (("--key", "order", "--version", "1"), {"shop:book": False, "shop:copy": False}),
        (("--key", "order"), {"shop:book": False, "shop:copy": False}),
        (("--key", "leave", "--class", "com.example.Leave"), {"shop:grant": True}),
        (("--class", "nobody"), {}),
        (("--class", ""), {}),
    ],
)
def test_a_lookup_is_explained(server, run_json, options, verdicts):
    """Each candidate matches or not, with the reason; without a match the exit code is 1."""
    won = any(verdicts.values())
    found = run_json("routes", *options, server=server, code=0 if won else 1)
    assert {candidate["handler_id"]: candidate["matched"] for candidate in found["candidates"]} == verdicts
    assert all(candidate["reason"] for candidate in found["candidates"])
    assert set(found["handlers"]) == {name for name, has in verdicts.items() if has}
    assert found["result"] == ("delivered" if won else "parked")


def test_the_explanation_for_people(server, run):
    """The text has the reason for no match, the resulting state and similar names."""
    result = run("routes", "--key", "order", "--version", "2", server=server)
    assert result.exit_code == 0
    assert "with key order, version 2:" in result.stdout
    assert "source 'default' is not one of erp" in result.stdout
    assert result.stdout.endswith("It is delivered to shop:book.\n")
    result = run("routes", "--key", "ordre", server=server)
    assert result.exit_code == 1
    assert "it is parked until a matching handler is installed" in result.stdout
    assert "Hint: key 'order' is similar." in result.stdout
    result = run("routes", "--key", "order", "--kind", "cancelled", server=server)
    assert "Hint: there is no kind of callback 'cancelled'" in result.stdout


def test_the_explanation_covers_the_settings(server, run_json, tmp_path):
    """The explanation covers rejection, ignored keys, and a source that is not configured."""
    assert (
        run_json("routes", "--key", "x", server=server, code=1, FLOWHOOKS_ROUTING_NO_HANDLER="reject")["result"]
        == "rejected"
    )
    found = run_json("routes", "--key", "x", server=server, FLOWHOOKS_ROUTING_IGNORE_PROCESS_KEYS="x,y")
    assert found["result"] == "ignored"
    (tmp_path / "flowhooks.toml").write_text(f'[sources.erp]\ntoken_sha256 = ["{"0" * 64}"]\n')
    assert run_json("routes", "--key", "leave", "--source", "default", server=server)["hints"] == [
        "there is no source 'default'; the settings have erp"
    ]


def test_the_source_is_the_first_one_of_the_settings(server, run_json, run, tmp_path):
    """Without `--source`, an event of a source that exists is explained, so that its conditions are met."""
    sections = [f'[sources.{name}]\ntoken_sha256 = ["{digit * 64}"]\n' for name, digit in (("erp", "0"), ("oa", "1"))]
    (tmp_path / "flowhooks.toml").write_text("".join(sections))
    found = run_json("routes", "--key", "order", "--version", "2", server=server)
    assert (set(found["handlers"]), found["hints"]) == ({"shop:book", "shop:copy"}, [])
    assert "from erp, with key order" in run("routes", "--key", "order", "--version", "2", server=server).stdout


def test_unavailable_handlers_are_routes_too(server, run_json, run, tmp_path):
    """Missing, denied or quarantined handlers of the ledger are routes: events still match them."""
    for env, state in (
        ({"FLOWHOOKS_PLUGINS_DIRS": ""}, "missing"),
        ({"FLOWHOOKS_PLUGINS_DENY": "shop"}, "denied"),
    ):
        routes = run_json("routes", server=server, **env)["routes"]
        assert {route["state"] for route in routes} == {state}
    (tmp_path / "shop.py").write_text("import nothing_of_this_name")
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path)}
    found = run_json("routes", server=server, **env)
    assert {route["state"] for route in found["routes"]} == {"quarantined"}
    assert "nothing_of_this_name" in found["quarantined"][0]["error"]
    text = run("routes", "--key", "leave", server=server, **env).stdout
    assert "It is delivered to shop:grant.\nA handler that is not present still gets its delivery" in text


def test_without_a_ledger(run, run_json, tmp_path):
    """A missing ledger is no failure; an unreadable one is a line."""
    assert run("routes").stdout == "No handler is registered: every callback would be parked.\n"
    assert not list(tmp_path.iterdir())
    (tmp_path / "flowhooks.db").write_text("nonsense " * 200)
    result = run("routes")
    assert result.exit_code == 0
    assert result.stderr.startswith("Without the registered handlers: cannot use the database")


CONDITIONS = """
from flowhooks import handler, hookimpl

@handler(process_key="expense", conclusion="approved")
def book(event):
    pass

@handler(process_key="expense", conclusion=["approved", "settled"], when={"/amount": {"minimum": 1000}})
def audit(event):
    pass

@handler(process_key="expense", conclusion="rejected", kind="cancel")
def release(event):
    pass

@hookimpl
def handlers():
    return [book, audit, release]
"""


@pytest.fixture
def expenses(tmp_path, run_json, run):
    """`flowhooks routes` with handlers that have conditions: as JSON, or as text."""
    (tmp_path / "expenses.py").write_text(CONDITIONS)
    (tmp_path / "flowhooks.toml").write_text(
        f'[sources.erp]\ntoken_sha256 = ["{"0" * 64}"]\n[sources.erp.conclusion]\nagree = "approved"\n'
    )
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path), "FLOWHOOKS_PLUGINS_ALLOW": "expenses", "COLUMNS": "200"}

    def ask(*arguments, text=False, code=0, **more):
        if text:
            result = run("routes", "--source", "erp", *arguments, **env, **more)
            assert result.exit_code == code, result.output
            return result.stdout
        return run_json("routes", "--source", "erp", *arguments, code=code, **env, **more)

    ask.env = env
    return ask


def test_conclusions_and_conditions_are_listed(expenses, run_json, run):
    """The conditions of each handler, in a column of the table and as JSON."""
    found = {
        route["handler_id"]: (route["conclusions"], route["when"])
        for route in run_json("routes", **expenses.env)["routes"]
    }
    assert found["expenses:audit"] == (["approved", "settled"], {"/amount": {"minimum": 1000}})
    assert found["expenses:book"] == (["approved"], {})
    text = run("routes", **expenses.env).stdout
    assert 'conclusion approved or settled, /amount {"minimum": 1000}' in text


@pytest.mark.parametrize(
    ("given", "verdict", "gets"),
    [
        (({"conclusion": "agree", "amount": 5000},), "delivered", {"book": True, "audit": True}),
        (({"conclusion": "agree", "amount": 10},), "delivered", {"book": True, "audit": False}),
        (({"conclusion": "agree", "amount": 5000}, "--conclusion", "settled"), "delivered", {"audit": True}),
        (({"conclusion": "settled"},), "parked", {"book": False, "audit": None}),
        (({},), "parked", {"book": None, "audit": None}),
        (({"conclusion": "Approved"},), "dismissed", {"book": False, "audit": False}),
        (({"conclusion": "agree"}, "--kind", "terminate"), "dismissed", {"book": False}),
        (({"conclusion": "agree"}, "--key", "travel"), "parked", {}),
        (({"conclusion": 7},), "rejected", {}),
    ],
)
def test_a_body_explained(expenses, tmp_path, given, verdict, gets):
    """Members of a body count as in a callback, options override them, and each condition has one of three values."""
    body, *options = given
    (tmp_path / "body.json").write_text(json.dumps({"processDefinitionId": "expense:3:77", **body}))
    code = int(verdict in {"parked", "rejected"})
    found = expenses("--data", str(tmp_path / "body.json"), *options, code=code)
    assert found["result"] == verdict
    assert found["state"] == {"delivered": "routed", "rejected": None}.get(verdict, verdict)
    won = {
        candidate["handler_id"]: None if candidate["undecided"] else candidate["matched"]
        for candidate in found["candidates"]
    }
    assert {f"expenses:{name}": value for name, value in gets.items()}.items() <= won.items()
    if verdict == "rejected":
        assert "/conclusion: must be of type string" in found["schema_error"]
    else:
        assert found["event"]["version"] == 3


def test_the_conditions_of_each_handler_are_explained(expenses, tmp_path):
    """The explanation has the missing member, the condition's source text, and similar names."""
    (tmp_path / "body.json").write_text(json.dumps({"processDefinitionKey": "expense", "conclusion": "agree"}))
    found = expenses("--data", str(tmp_path / "body.json"))
    assert (found["event"]["conclusion"], found["event"]["conclusion_sent"]) == ("approved", "agree")
    (audit,) = [candidate for candidate in found["candidates"] if candidate["handler_id"] == "expenses:audit"]
    assert [(condition["member"], condition["holds"]) for condition in audit["conditions"]] == [
        ("conclusion", True),
        ("/amount", None),
    ]
    text = expenses("--data", str(tmp_path / "body.json"), text=True)
    assert "with key expense, conclusion approved (sent as agree):" in text
    assert '/amount is absent, but the condition {"minimum": 1000} needs it' in text
    assert "/amount: undecided" in text
    assert "It is delivered to expenses:book." in text
    assert "A condition on /amount cannot be decided" in text
    text = expenses("--key", "expense", text=True, code=1)
    assert "cannot be decided because of conclusion: it is parked for an operator" in text
    text = expenses("--key", "expense", "--conclusion", "Approved", text=True)
    assert "the conditions of each are false: it is dismissed and answered 200." in text
    assert "Hint: no handler of its class or key requires the conclusion 'Approved'." in text
    assert "Hint: conclusion 'approved' differs only in case or white space." in text


def test_a_body_from_the_standard_input(expenses):
    """A body is read from standard input as another command prints it."""
    body = json.dumps({"processDefinitionKey": "expense", "conclusion": "approved", "amount": 1})
    assert list(expenses("--data", "-", given=body)["handlers"]) == ["expenses:book"]


@pytest.mark.parametrize(
    ("body", "why"),
    [("{", "cannot be read at line 1"), ('{"a": 1, "a": 2}', "two members named"), ("[]", "not an object")],
)
def test_an_invalid_body_file(run, expenses, tmp_path, body, why):
    """The file is parsed as strictly as a callback."""
    (tmp_path / "body.json").write_text(body)
    result = run("routes", "--data", str(tmp_path / "body.json"), **expenses.env)
    assert result.exit_code == 2
    assert "--data is not the body of a callback." in result.stderr
    assert why in result.stderr
    assert run("routes", "--data", str(tmp_path / "none.json"), **expenses.env).exit_code != 0
