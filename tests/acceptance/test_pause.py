"""Two servers on one PostgreSQL: a handler paused at one starts at neither until it is resumed, despite restarts."""

from __future__ import annotations

from collections import Counter

import pytest

from support.process_trials import FAST_EXPIRY

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

@handler(process_key="NAME", retry=Retry(attempts=9, delays=[0.05], jitter=0))
def work(event, delivery):
    """Write down that it was entered; wait as long as the gate is shut."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print("NAME", event.flow_instance_id, delivery.attempt, os.getpid(), file=journal, flush=True)
    gate = pathlib.Path(os.environ["JOURNAL"]).with_name("shut-" + event.flow_instance_id)
    while gate.exists():
        time.sleep(0.01)

@hookimpl
def handlers():
    return [work]
'''
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def shared(sharing):
    """A site whose servers share a ledger on PostgreSQL and both have the plugins `a` and `b`."""
    site = sharing
    site.settings |= {"ledger__write_timeout": 20}  # a commit may take seconds on a busy machine
    for name in "ab":
        site.plugin(name, PLUGIN.replace("NAME", name))
    return site


def handlers(site, *words):
    """The output of `flowhooks handlers`."""
    said = site.run("handlers", *words, "--database", site.url, "--plugins-dir", site.plugins, **site.settings)
    assert said.returncode == 0, said.stderr
    return said.stdout


def entered(site):
    """(handler, instance, attempt, process) of each run of a handler."""
    lines = site.journal.read_text().splitlines() if site.journal.exists() else []
    return [(name, instance, int(attempt), int(pid)) for name, instance, attempt, pid in map(str.split, lines)]


def succeeded(*event_ids):
    """Whether all deliveries of these events have succeeded."""
    return lambda ledger: all(
        (found := ledger.delivery_statuses(event_id)) and {it.state for it in found} == {"succeeded"}
        for event_id in event_ids
    )


def test_pause_and_resume_apply_to_all_servers(shared):
    """Both servers answer its callbacks with 202 and run none; after the resume all run."""
    servers = [shared.start(**shared.settings) for _ in range(2)]
    busy = [servers[n % 2].post(f"before{n}", {"processDefinitionKey": "a"}, **ASYNC).event_id for n in range(20)]
    assert "Paused: a:work." in handlers(shared, "pause", "a:*", "--yes")
    # An attempt that was about to start has started by now: it may end, but no other starts.
    shared.until(lambda ledger: ledger.count_by_state()["running"] == 0)
    begun = entered(shared)
    # The callers request a longer wait than they get.
    answers = [servers[n % 2].post(f"i{n}", {"processDefinitionKey": "a"}, Prefer="wait=60") for n in range(30)]
    assert {answer.status for answer in answers} == {202}
    others = [servers[n % 2].post(f"o{n}", {"processDefinitionKey": "b"}, Prefer="wait=30") for n in range(4)]
    assert {answer.status for answer in others} == {200}
    assert [run for run in entered(shared) if run[0] == "a"] == begun
    said = handlers(shared, "resume", "a:work", "--yes")
    assert "waiting deliveries released" in said
    shared.until(succeeded(*busy, *(answer.event_id for answer in answers)))
    runs = Counter(instance for name, instance, _, _ in entered(shared) if name == "a")
    assert runs == {f"i{n}": 1 for n in range(30)} | {f"before{n}": 1 for n in range(20)}
    for server in servers:
        server.stop()
        server.check_log()
    assert shared.balance().accepted == 54


def test_kill_while_a_handler_is_paused(shared):
    """Running attempts are recovered and wait; the pause survives a restart; after the resume all run."""
    shared.settings |= FAST_EXPIRY
    victim = shared.start(**shared.settings)
    gate = shared.folder / "shut-runs"
    gate.touch()
    running = victim.post("runs", {"processDefinitionKey": "a"}, **ASYNC).event_id
    shared.until(lambda _ledger: entered(shared))
    assert "1 runs and finishes" in handlers(shared, "pause", "a:work", "--yes")
    waiting = victim.post("waits", {"processDefinitionKey": "a"}, **ASYNC).event_id
    victim.kill()
    gate.unlink()
    heir = shared.start(**shared.settings)
    shared.until(lambda ledger: ledger.delivery_statuses(running)[0].state == "waiting")
    assert heir.post("b", {"processDefinitionKey": "b"}, Prefer="wait=30").status == 200
    answer = heir.post("later", {"processDefinitionKey": "a"}, Prefer="wait=60")
    assert answer.status == 202
    assert [(instance, attempt) for name, instance, attempt, _ in entered(shared) if name == "a"] == [("runs", 1)]
    assert "1 paused" in handlers(shared, "list")
    handlers(shared, "resume", "a:work", "--yes")
    shared.until(succeeded(running, waiting, answer.event_id))
    assert Counter((instance, attempt) for name, instance, attempt, _ in entered(shared) if name == "a") == {
        ("runs", 1): 1,
        ("runs", 2): 1,
        ("waits", 1): 1,
        ("later", 1): 1,
    }
    heir.stop()
    shared.balance()
