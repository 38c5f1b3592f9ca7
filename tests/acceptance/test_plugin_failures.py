"""Plugins that cannot be loaded, raise or hang affect only themselves."""

from __future__ import annotations

import json

import pytest

FAULTY = """
import os, sys, time
from flowhooks import Reject, Retry, RetryAfter, handler, hookimpl

class Rude(BaseException):
    def __str__(self):
        raise RuntimeError("no text")

def deeper():
    deeper()

FAULTS = {
    "value": lambda: (_ for _ in ()).throw(ValueError("no\\x1b[31m room\\nin \\u202e here")),
    "exit": lambda: sys.exit(3),
    "exit-quietly": lambda: sys.exit(),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "rude": lambda: (_ for _ in ()).throw(Rude()),
    "recursion": deeper,
    "memory": lambda: (_ for _ in ()).throw(MemoryError()),
    "stop": lambda: next(iter(())),
    "group": lambda: (_ for _ in ()).throw(ExceptionGroup("two", [OSError("a"), ValueError("b")])),
    "long": lambda: (_ for _ in ()).throw(ValueError("x" * 1_000_000)),
    "surrogate": lambda: (_ for _ in ()).throw(ValueError("half \\ud800 of a pair, and NUL \\0")),
    "not-json": lambda: object(),
    "nan": lambda: float("nan"),
    "large": lambda: "x" * 1_000_000,
    "circle": lambda: (lambda one: one.append(one) or one)([]),
    "bytes": lambda: b"x",
    "warns": lambda: __import__("warnings").warn("look out"),
    "prints": lambda: print("to stdout"),
}

@handler(process_key="faulty")
def faulty(event):
    return FAULTS[event.business_key]()

@handler(process_key="hangs")
def hangs(event):
    time.sleep(600)

@hookimpl
def handlers():
    return [faulty, hangs]
"""
GOOD = """
from flowhooks import handler, hookimpl

@handler(process_key=("good", "faulty"))
def good(event):
    return event.flow_instance_id

@hookimpl
def handlers():
    return [good]
"""
WRAPPER = """
import os
from flowhooks import handler, hookimpl

@hookimpl(wrapper=True)
def run_handler(handler, event, delivery):
    if event.business_key == "before" and delivery.attempt == 1:
        raise LookupError("no connection")
    answer = yield
    if event.business_key == "after":
        raise LookupError("cannot commit")
    return None if event.business_key == "nothing" else answer

@handler(process_key="wrapped")
def wrapped(event, delivery):
    with open(os.environ["JOURNAL"], "a") as file:
        print(event.business_key, delivery.attempt, file=file)

@hookimpl
def handlers():
    return [wrapped]
"""
LISTENER = """
import sys
from flowhooks import hookimpl

@hookimpl
def event_accepted(event):
    if event.business_key == "exit":
        sys.exit(1)
    raise ValueError("cannot listen")

@hookimpl
def delivery_settled(delivery, outcome, state):
    raise ValueError(f"cannot hear {state}")
"""
BROKEN = {
    "absent": ("import no_such_module", "No module named 'no_such_module'"),
    "exits": ("import sys; sys.exit(0)", "it called sys.exit()"),
    "raises": ("raise RuntimeError('out\\x1b[31m of order')", "RuntimeError"),
    "syntax": ("def (:", "SyntaxError"),
    "selects-nothing": (
        "from flowhooks import handler\n@handler()\ndef f(event): ...",
        "it listens to nothing",
    ),
    "misspelt": ("from flowhooks import hookimpl\n@hookimpl\ndef handler(): ...", "handler"),
    "hook-raises": ("from flowhooks import hookimpl\n@hookimpl\ndef handlers(): 1 / 0", "ZeroDivisionError"),
    "refuses": (
        "from flowhooks import hookimpl\n@hookimpl\ndef configure(settings): raise ValueError('url is missing')",
        "url is missing",
    ),
    "no-python": ("\0\0\0", "null bytes"),
}


@pytest.fixture(scope="module")
def troubled(make_site):
    """A folder in which most plugins are broken."""
    site = make_site()
    for name, source in {"faulty": FAULTY, "good": GOOD, "wrapper": WRAPPER, "listener": LISTENER}.items():
        site.plugin(name, source)
    for name, (source, _) in BROKEN.items():
        site.plugin(name, source)
    return site


@pytest.fixture(scope="module")
def server(troubled):
    """A server with all of them; a wrapper delays one event from the start, because its retry takes seconds."""
    server = troubled.start(runner__threads=4, circuit_breaker__failures=0, answer_wait=20)
    server.held_up = server.post("w-1", {"processDefinitionKey": "wrapped", "businessKey": "before"}, Prefer="wait=0")
    return server


def only(site, answer):
    """The only delivery of a response's event, and its attempts."""
    with site.ledger() as ledger:
        (delivery_status,) = ledger.delivery_statuses(answer.event_id)
        return delivery_status, ledger.attempts(delivery_status.delivery_id)


@pytest.mark.parametrize("name", BROKEN)
def test_a_plugin_that_cannot_be_loaded_is_quarantined_and_named(server, name):
    """One log line names the plugin and the reason; the server runs with the other plugins."""
    record = server.until_logged("plugin_quarantined", plugin=name)
    assert record["level"] == "error"
    assert BROKEN[name][1] in record["why"]
    assert f"{name}.py" in record["why"]
    assert "\x1b" not in record["why"]


def test_the_start_logs_the_number_of_plugins(server):
    """The start logs how many plugins were loaded and how many were not."""
    server.until_logged("server_started", plugins=4, quarantined=len(BROKEN), handlers=4)


def test_check_names_broken_plugins(troubled):
    """`flowhooks check` names each broken plugin and exits with 1."""
    ran = troubled.run("check", "--json", "--database", troubled.database, "--plugins-dir", troubled.plugins)
    assert ran.returncode == 1
    found = json.loads(ran.stdout)["findings"]
    problems = " ".join(f"{finding['what']} {finding['why']}" for finding in found if finding["mark"] == "problem")
    for name, (_, why) in BROKEN.items():
        assert name in problems
        assert why in problems


FAILING = {
    "value": "ValueError: no",
    "exit": "SystemExit: 3",
    "exit-quietly": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "rude": "Rude: (its text cannot be read: RuntimeError)",
    "recursion": "RecursionError: maximum recursion depth exceeded",
    "memory": "MemoryError",
    "stop": "StopIteration",
    "group": "ExceptionGroup: two (2 sub-exceptions)",
    "long": "ValueError: xxx",
    "surrogate": "ValueError: half \\\\ud800 of a pair, and NUL \\\\0",
}


@pytest.mark.parametrize("name", FAILING)
def test_any_exception_of_a_handler_fails_only_its_delivery(server, troubled, name):
    """A 500 names the handler and the error on one line; the event's other handler succeeded."""
    answer = server.post(f"f-{name}", {"processDefinitionKey": "faulty", "businessKey": name})
    message = answer.check_error(500)
    assert "its handler faulty:faulty failed: " in message
    assert FAILING[name].replace("\\\\", "\\") in message
    assert message.isprintable()
    assert len(message) < 700
    with troubled.ledger() as ledger:
        states = {
            delivery_status.handler: delivery_status.state.value
            for delivery_status in ledger.delivery_statuses(answer.event_id)
        }
    assert states == {"faulty:faulty": "dead", "good:good": "succeeded"}
    record = server.until_logged("attempt_failed", event_id=answer.event_id)
    assert (record["handler"], record["state"], record["attempt"]) == ("faulty:faulty", "dead", 1)


@pytest.mark.parametrize("name", ["not-json", "nan", "large", "circle", "bytes"])
def test_a_result_that_is_not_json_is_dropped_and_logged(server, troubled, name):
    """A result that is not JSON is dropped and logged, and the delivery succeeds."""
    answer = server.post(f"r-{name}", {"processDefinitionKey": "faulty", "businessKey": name})
    assert (answer.status, answer.body) == (200, b'{"success": true}')
    with troubled.ledger() as ledger:
        (found,) = [
            delivery_status
            for delivery_status in ledger.delivery_statuses(answer.event_id)
            if delivery_status.handler == "faulty:faulty"
        ]
        assert [attempt.result for attempt in ledger.attempts(found.delivery_id)] == [None]
    server.until_logged("result_dropped", handler="faulty:faulty", delivery=found.delivery_id)


@pytest.mark.parametrize("name", ["warns", "prints"])
def test_a_handler_may_warn_and_print(server, name):
    """Warnings and printed text of a handler do not break the log."""
    answer = server.post(f"p-{name}", {"processDefinitionKey": "faulty", "businessKey": name})
    assert answer.status == 200


def test_a_wrapper_error_before_the_handler_repeats_the_attempt(server, troubled):
    """The attempt is repeated even without `retry=`, because the handler's function was not entered."""
    assert server.held_up.status == 202
    record = server.until_logged("attempt_failed", event_id=server.held_up.event_id)
    assert record["state"] == "waiting"
    said = "the run_handler wrapper of plugin wrapper raised before the handler was entered: LookupError: no connection"
    assert record["error"] == said
    troubled.until(lambda ledger: ledger.delivery_statuses(server.held_up.event_id)[0].state == "succeeded")
    _, attempts = only(troubled, server.held_up)
    assert [attempt.outcome.value for attempt in attempts] == ["failed", "succeeded"]
    assert troubled.journal.read_text().splitlines().count("before 2") == 1
    assert "before 1" not in troubled.journal.read_text()


def test_a_wrapper_error_after_the_handler_fails_the_attempt(server, troubled):
    """Without `retry=` the attempt is not repeated, because the handler's function was entered."""
    answer = server.post("w-2", {"processDefinitionKey": "wrapped", "businessKey": "after"})
    message = answer.check_error(500)
    assert "wrapper:wrapped failed: LookupError: cannot commit (raised by the run_handler wrapper of plugin" in message
    assert only(troubled, answer)[0].attempt == 1


def test_a_wrapper_that_drops_the_result_fails_the_attempt(server):
    """A wrapper that drops the handler's result makes the attempt a failure."""
    answer = server.post("w-3", {"processDefinitionKey": "wrapped", "businessKey": "nothing"})
    assert "wrapper returned NoneType instead of the Outcome" in answer.check_error(500)


def test_a_listener_that_raises_is_logged_and_has_no_effect(server):
    """A listener that raises or calls `sys.exit` is logged and has no other effect."""
    for name in ("raise", "exit"):
        answer = server.post(f"l-{name}", {"processDefinitionKey": "good", "businessKey": name})
        assert (answer.status, answer.body) == (200, b'{"success": true}')
    for hook in ("event_accepted", "delivery_settled"):
        record = server.until_logged("hook_failed", plugin="listener", hook=hook)
        assert "cannot" in record["traceback"]


def test_a_hanging_handler_does_not_block_other_callbacks(server, troubled):
    """A hanging handler uses at most three quarters of the pool; an unrelated callback gets its outcome at once."""
    hanging = [server.post(f"h-{number}", {"processDefinitionKey": "hangs"}, Prefer="wait=0") for number in range(6)]
    assert {answer.status for answer in hanging} == {202}

    def states(ledger):
        return sorted(ledger.delivery_statuses(answer.event_id)[0].state.value for answer in hanging)

    troubled.until(lambda ledger: states(ledger) == ["running"] * 3 + ["waiting"] * 3)
    for number in range(20):
        # The handler hangs longer than a response waits: if it had all threads, this would be 202.
        answer = server.post(f"g-{number}", {"processDefinitionKey": "good"})
        assert answer.body == b'{"success": true}'
    with troubled.ledger() as ledger:
        assert states(ledger) == ["running"] * 3 + ["waiting"] * 3


def test_log_is_complete_and_counts_balance_after_all_failures(server, troubled):
    """The log has one JSON object per line, tracebacks only of listeners, and the counts balance."""
    assert server.ask("GET", "/readyz", admin=True).status == 200
    for line, record in server.log():
        assert record["event"] is not None, line
        assert "traceback" not in record or record["event"] == "hook_failed", line
        assert "\u202e" not in line
        assert "\x1b" not in line
    ran = troubled.run("verify", "--database", troubled.database)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "The counts balance." in ran.stdout
    troubled.balance()  # the server runs on: this process may run further tests of this file
