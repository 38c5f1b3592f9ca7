"""The twelve steps of docs/contributing/path-of-a-callback.md are what a callback does."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from flowhooks.background.trends import TrendRecorder
from flowhooks.execution.circuit_breaker import CircuitBreaker
from flowhooks.ledger.waiters import WaiterRegistry
from flowhooks.observability.metrics import Metrics
from flowhooks.plugins.notifier import HookNotifier
from support.callback_trace import PACKAGE, CallbackTrace, callback_server

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "path-of-a-callback.md"
LINE = re.compile(r"^(?:▶ (.+)| ?(\d+)  (\S+\.py) +(\S+)  .+)$", re.MULTILINE)
THREADS = {"io": "I/O loop"}
"""The names of threads that the page calls otherwise."""


class Step(NamedTuple):
    """One step of the page."""

    thread: str
    file: str
    function: str


def steps():
    """The steps of the page, in order."""
    found, numbers, thread = [], [], ""
    for named, number, file, function in LINE.findall(PAGE.read_text("utf-8")):
        if named:
            thread = named
        else:
            numbers.append(int(number))
            found.append(Step(thread, file, function))
    assert numbers == list(range(1, 13))
    return found


@pytest.fixture
def trace():
    """The calls and returns of the package's functions in threads that start from now on."""
    with CallbackTrace() as trace:
        yield trace


@pytest.mark.sqlite
def test_a_callback_takes_the_steps_of_the_page(trace, harness, listens):
    """Each function is entered in the page's order and in its thread; the last one returns after the outcome.

    The body is read once, then the request is authenticated, then the body is parsed once. No function of the intake
    runs in the writer's thread.
    """
    flow = harness.open(listens(lambda event: 1, name="h"), answer_wait=60.0)
    with callback_server(flow.app) as send:
        assert send("i1") == 200
    visits = [visit._replace(thread=THREADS.get(visit.thread, visit.thread)) for visit in trace.visits]
    calls = [(visit.event, Step(visit.thread, visit.file, visit.function)) for visit in visits]
    *before, last = steps()
    entered = [step for event, step in calls if event == "call" and step in before]
    assert [step for index, step in enumerate(entered) if step not in entered[:index]] == before
    recorded = [index for index, (event, step) in enumerate(calls) if event == "call" and step == before[-1]]
    assert calls.index(("return", last)) > recorded[0]
    # If no thread of the runner is free yet, the runner reads the event from the ledger, and parses its body again.
    receiving = before[1].thread
    functions = [step.function for event, step in calls if event == "call" and step.thread == receiving]
    stations = ["read_body", "Authenticator.authenticate", "parse_callback"]
    assert [function for function in functions if function in stations] == stations
    assert [visit for visit in visits if visit.thread == "ledger-writer" and visit.file.startswith("intake/")] == []
    assert sys.getprofile() is None


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("hooks", "notifiers"), [({}, []), ({"delivery_settled": lambda delivery, outcome: None}, [HookNotifier])]
)
def test_the_subscribers_of_the_page(harness, make_plugin, hooks, notifiers):
    """`DeliverySettled` is published to the four subscribers that the page names, and to plugins if one listens."""
    app = harness.open(plugins={"p": make_plugin(**hooks)}, start=False).app
    subscribers = [type(subscriber.__self__) for subscriber in app._recorder._subscribers]
    assert subscribers == [Metrics, TrendRecorder, CircuitBreaker, WaiterRegistry, *notifiers]
    named = re.search(r"four subscribers: (.+?)\.", PAGE.read_text("utf-8"), re.DOTALL)
    assert " ".join(named[1].split()) == (
        "metrics, trends, circuit breaker, and waiters; and to the plugins, if one listens when the server starts"
    )


def tree(file):
    """The syntax tree of a module."""
    return ast.parse((PACKAGE / file).read_text("utf-8"))


def nodes(kind, *roots):
    """The nodes of a kind in syntax trees."""
    return [node for root in roots for node in ast.walk(root) if isinstance(node, kind)]


def test_one_module_publishes_outcomes_and_retries_recording():
    """Subscribers are only connected elsewhere, and no other module hands a result to the ledger."""
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    used = {
        name: {file for file in files if any(node.attr == name for node in nodes(ast.Attribute, tree(file)))}
        for name in ("on_settled", "_subscribers", "record_result", "commit_with_result")
    }
    recorder = {"execution/recorder.py"}
    assert used.pop("on_settled") == {"composition.py"}
    assert used == {"_subscribers": recorder, "record_result": recorder, "commit_with_result": recorder}


def test_the_intake_passes_no_own_function_to_the_writer():
    """A function that runs in a transaction, or when that is durable, is of another package."""
    handed = []
    for path in (PACKAGE / "intake").glob("*.py"):
        module = tree(path)
        own = {function.name for function in nodes(ast.FunctionDef, module)}
        for call in nodes(ast.Call, module):
            if isinstance(call.func, ast.Attribute) and call.func.attr in {"write", "submit", "add_done_callback"}:
                (given, *_) = call.args
                if isinstance(given, ast.Call) and ast.unparse(given.func) == "partial":
                    (given, *_) = given.args
                handed.append((path.name, ast.unparse(given), ast.unparse(given).removeprefix("self.") in own))
    assert {file for file, *_ in handed} == {"accept.py", "rejected_requests.py", "required_credentials.py"}
    assert [(file, function) for file, function, is_own in handed if is_own or "lambda" in function] == []


def test_no_component_is_reached_before_it_exists():
    """The constructors of the app give out none of its methods, and no closure is over what is built later."""
    (app,) = (node for node in tree("app.py").body if isinstance(node, ast.ClassDef) and node.name == "App")
    methods = {node.name: node for node in app.body if isinstance(node, ast.FunctionDef)}
    building = [*methods["__init__"].body, *methods["_connect"].body]
    called = {id(call.func) for call in nodes(ast.Call, *building)}
    given = {ast.unparse(node) for node in nodes(ast.Attribute, *building) if id(node) not in called}
    assert given & {f"self.{name}" for name in methods} == {"self._release_lock"}  # for a failed start
    assert nodes(ast.Lambda, *building) == []
    late = []
    for function in nodes(ast.FunctionDef, tree("composition.py")):
        built = {node.id: node.lineno for node in nodes(ast.Name, function) if isinstance(node.ctx, ast.Store)}
        for closure in nodes(ast.Lambda, function):
            late += [name.id for name in nodes(ast.Name, closure) if built.get(name.id, 0) > closure.lineno]
    assert late == []
