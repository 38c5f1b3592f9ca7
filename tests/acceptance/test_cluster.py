"""Commands beside two servers and a worker, each with its own plugin, print what is true for all processes."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from importlib.metadata import entry_points
from typing import NamedTuple

import pytest

from support.waiting import until

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

HERE = pathlib.Path(os.environ["JOURNAL"]).parent

@handler(process_key="NAME")
def work(event, delivery):
    """Fail until it is fixed; record the entry; wait as long as the gate is shut."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print("NAME", event.flow_instance_id, os.getpid(), file=journal, flush=True)
    while (HERE / f"shut-{event.flow_instance_id}").exists():
        time.sleep(0.01)
    if (HERE / "broken-NAME").exists():
        raise ValueError("NAME is broken")

@hookimpl
def handlers():
    return [work]
'''
ASYNC = {"Prefer": "respond-async"}
LONG = {"Prefer": "wait=60"}
"""Longer than a client's timeout here: an answered client did not wait to the end."""


@pytest.fixture
def cluster(make_site, postgresql_url):
    """A site on PostgreSQL, with the plugins a, b, c and d in folders of their own."""
    site = make_site()
    # A commit may take seconds on a busy machine.
    site.settings = {"ledger__heartbeat_timeout": 30.0, "ledger__write_timeout": 20}
    site.database = site.url = postgresql_url
    for name in "abcd":
        folder = site.folder / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(PLUGIN.replace("NAME", name))
    return site


@pytest.fixture
def said(cluster):
    """A function that runs a command with no plugin or one plugin; returns its output as JSON."""
    others = ",".join(entry_point.name for entry_point in entry_points(group="flowhooks"))

    def run(*words, code=0, name="", as_json=True):
        given = cluster.settings | {"database": cluster.url, "plugins_deny": others}
        if name:
            given["plugins_dirs"] = cluster.folder / name
        done = cluster.run(*words, *["--json"] * as_json, **given)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if as_json else done.stdout

    return run


def of(checked, about):
    """The findings about a subject."""
    return [finding for finding in checked["findings"] if finding["about"] == about]


def plugin(site, name):
    """The arguments that select a plugin's folder."""
    return ("--plugins-dir", site.folder / name)


def entered(site):
    """(handler, instance) of each run of a handler."""
    lines = site.journal.read_text().splitlines() if site.journal.exists() else []
    return [tuple(line.split()[:2]) for line in lines]


def succeeded(*event_ids):
    """Whether all deliveries of these events have succeeded."""
    return lambda ledger: all(
        {it.state for it in ledger.delivery_statuses(event_id)} == {"succeeded"} for event_id in event_ids
    )


class Three(NamedTuple):
    """Three processes: two servers with the plugins a and b, and a worker with the plugin c."""

    first: object
    second: object
    worker: object


def test_command_output_is_true_for_all_processes(cluster, said):
    """Commands list, replay, resolve and reroute; processes end in turn; nothing is lost and all output is true."""
    (nobody,) = of(said("check"), "processes")
    assert nobody["what"] == "no live process uses this ledger"
    (cluster.folder / "broken-b").touch()
    first = cluster.start(*plugin(cluster, "a"), **cluster.settings)
    second = cluster.start(*plugin(cluster, "b"), **cluster.settings)
    three = Three(first, second, cluster.start_worker(*plugin(cluster, "c"), **cluster.settings))
    for server in (first, second):
        server.until_logged("routes_changed", others=2)
    assert second.post("a1", {"processDefinitionKey": "a"}, **LONG).status == 200
    assert first.post("c1", {"processDefinitionKey": "c"}, **LONG).status == 200
    dead = [first.post(instance, {"processDefinitionKey": "b"}, **LONG) for instance in ("b1", "b2")]
    assert [response.status for response in dead] == [500, 500]
    look(said, three, {response.event_id for response in dead})
    change(cluster, said, *(response.event_id for response in dead))
    left = leave_to_nobody(cluster, said, three)
    left.append(end_each(cluster, three))
    assert of(said("check", code=1), "deliveries")[0]["what"] == "3 waiting, 0 running; no server runs"
    last = cluster.start_worker(*plugin(cluster, "c"), *plugin(cluster, "d"), **cluster.settings)
    cluster.until(succeeded(*left))
    assert of(said("check", code=1), "deliveries")[0]["what"] == "0 waiting, 0 running; no server runs, only workers"
    last.stop()
    assert said("verify")["balanced"]
    books = cluster.balance()
    assert books.accepted == 10
    assert {state: count for state, count in books.deliveries.items() if count} == {"succeeded": 9, "closed": 1}
    # Each delivery ran once, and the replayed one twice.
    assert {run: times for run, times in Counter(entered(cluster)).items() if times > 1} == {("b", "b1"): 2}
    assert len(entered(cluster)) == 11


def look(said, three, dead):
    """Check the output of a command without plugins."""
    checked = said("check")
    living = [finding["facts"] for finding in of(checked, "processes")]
    assert {(live_process["kind"], live_process["pid"], live_process["handlers"]) for live_process in living} == {
        ("server", three.first.process.pid, 1),
        ("server", three.second.process.pid, 1),
        ("worker", three.worker.process.pid, 1),
    }
    assert [finding["mark"] for finding in of(checked, "handlers")] == ["ok"]
    assert of(checked, "deliveries")[0]["what"] == "0 waiting, 0 running"
    found = {
        plugin["name"]: plugin["state"] for plugin in said("plugins", "list")["plugins"] if plugin["state"] != "denied"
    }
    assert found == dict.fromkeys("abc", "elsewhere")
    found = {route["handler_id"]: route["state"] for route in said("routes")["routes"]}
    assert found == {f"{name}:work": "elsewhere" for name in "abc"}
    assert {event["id"] for event in said("events", "list", "--state", "dead")["events"]} == dead


def change(cluster, said, replayed, closed):
    """Replay a delivery without its plugin: a process that has the plugin runs it."""
    (cluster.folder / "broken-b").unlink()
    done = said("events", "replay", replayed, "--yes")
    assert (done["planned"], done["server"]) == (1, True)
    cluster.until(succeeded(replayed))
    (shown,) = said("events", "show", closed)["events"]
    (delivery,) = shown["deliveries"]
    assert "b is broken" in delivery["attempts"][0]["error"]
    assert said("events", "resolve", delivery["id"], "--close", "--yes")["after"] == "closed"


def leave_to_nobody(cluster, said, three):
    """A handler known only from a server that has ended has no runner: callbacks do not wait for it."""
    parked = three.first.post("d1", {"processDefinitionKey": "d"}, **LONG)
    assert parked.status == 202
    # The plugins of the machine on which a command runs do not count.
    assert said("events", "reroute", "--parked", name="d")["delivered"] == 0
    knows = cluster.start("--no-worker", *plugin(cluster, "d"), **cluster.settings)
    cluster.until(lambda ledger: ledger.delivery_statuses(parked.event_id))
    for server in (three.first, three.second):
        server.until_logged("routes_changed", others=3)
    knows.stop()
    unrun = three.second.post("d2", {"processDefinitionKey": "d"}, **LONG)
    assert unrun.status == 202
    (missing,) = [finding for finding in of(said("check", code=1), "handlers") if finding["mark"] == "problem"]
    assert "no live process runs it: d:work" in missing["what"]
    assert "2 deliveries wait for it" in missing["why"]
    (loaded,) = [finding for finding in of(said("check", code=1, name="d"), "handlers") if finding["mark"] == "problem"]
    assert loaded["what"] == "no live process runs 1 handler loaded here: d:work"
    return [parked.event_id, unrun.event_id]


def end_each(cluster, three):
    """Send SIGTERM to each process while it works; an event received when no process can run it is not lost."""
    gates, running = {}, []
    for name in "cab":
        gates[name] = cluster.folder / f"shut-{name}9"
        gates[name].touch()
        running.append(three.first.post(f"{name}9", {"processDefinitionKey": name}, **ASYNC).event_id)
    cluster.until(lambda _ledger: {(name, f"{name}9") for name in "abc"} <= set(entered(cluster)))
    late = None

    def answered_without_a_wait():
        """The answer to a callback, unless the server still waits for the worker that has just ended."""
        with suppress(TimeoutError):
            return three.first.post("c2", {"processDefinitionKey": "c"}, timeout=5, **LONG)

    for name, process in zip("cba", (three.worker, three.second, three.first), strict=True):
        process.signal()
        process.until_logged("shutdown_started")
        gates[name].unlink()
        assert process.wait() == 0
        assert process.logged("shutdown_finished", all_ended=True)
        late = late or until(answered_without_a_wait)
    assert late.status == 202
    cluster.until(succeeded(*running))
    return late.event_id


def test_a_callback_without_any_worker_is_answered_at_once(cluster, said):
    """A server whose handlers have no worker answers at once, and `check` reports why."""
    cluster.settings |= {"runner__kind": "procrastinate"}
    said("db", "upgrade", as_json=False)
    server = cluster.start("--no-worker", *plugin(cluster, "a"), **cluster.settings)
    assert server.post("a1", {"processDefinitionKey": "a"}, **LONG).status == 202
    checked = said("check", code=1, name="a")
    assert [finding["what"] for finding in of(checked, "handlers")] == [
        "no live process runs 1 handler loaded here: a:work"
    ]
    assert of(checked, "jobs")[0]["mark"] == "ok"
    assert of(checked, "deliveries")[0]["what"] == "1 waiting, 0 running; no process runs handlers"
    assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    server.check_log()
