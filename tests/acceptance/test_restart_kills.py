"""`kill -9` of any process at any step while a server on SQLite is replaced: no callback is lost or doubled.

Engines send callbacks meanwhile, and repeat those whose connection breaks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

import pytest

from flowhooks.failpoints import FAILPOINTS
from support.replaced_server import (
    ASYNC,
    GOOD,
    entered,
    is_alive,
    lock_owner,
    replace_server,
    restart,
    runs,
    serve,
    shut,
)
from support.steady_clients import Clients
from support.waiting import WAIT_TIMEOUT, until

PREFIX = "restart."
POINTS = {"loading": ["loaded"], "twice": ["draining", "recovered"]}
"""The points of steps that are not named after one. `loading`: the predecessor is killed while its successor loads.
`twice`: the predecessor is killed, and then its successor after the recovery."""
HANDLERS_RUN = {"loading", "loaded", "draining", "twice"}
"""The steps at which handlers still run. At all others, those of the predecessor have ended."""
EVERY = ["loaded", "loading", "draining", "stopped", "released", "locked", "recovered", "twice"]
"""The steps of a replacement by a supervisor."""


@pytest.fixture
def served(site):
    """A site with a running server."""
    return serve(site)


def arm(site, step, victim=""):
    """Kill the process with this id, or the process that gets there, at the points of a step; return their files."""
    files = [site.folder / f"kill-{PREFIX}{point}" for point in POINTS.get(step, [step])]
    for file in files:
        file.write_text(str(victim))
    return files


def open_at_hand_over(server, gate):
    """Open the gate when the predecessor waits for its handlers."""
    draining = len(server.logged("ledger_handing_over")) + 1

    def wait():
        server.until_logged("ledger_handing_over", times=draining)
        gate.unlink()

    threading.Thread(target=wait).start()


def test_there_is_a_step_for_every_point():
    """Each failpoint of a replacement is a step."""
    points = {PREFIX + point for step in EVERY for point in POINTS.get(step, [step])}
    assert points == {name for name in FAILPOINTS if name.startswith(PREFIX)}


@pytest.mark.parametrize(
    ("first", "later"),
    [
        pytest.param(["loaded"], ["draining", "stopped"], id="some"),
        pytest.param(["loaded", "locked"], EVERY, marks=pytest.mark.long, id="all"),
        pytest.param(["recovered"], [], marks=pytest.mark.long, id="recovered"),
    ],
)
def test_kill_at_each_step_of_a_replacement(served, first, later):
    """A predecessor or successor that is killed refuses, loses and doubles no callback, and no restart hangs.

    A handler that is not safe to repeat runs when each replacement begins, and is called once. Its delivery is
    *unknown* only if its own process was killed before its result was durable. `first` are the steps of a replacement
    by the server itself, `later` those of one by its supervisor.
    """
    server = served.server
    expected, steps = {}, [*first, *later]

    def kill(step):
        before, slow = lock_owner(served), f"slow-{len(expected)}"
        files = arm(served, step, before if step == "loading" else "")
        with shut(served) as gate:
            server.post(slow, {"processDefinitionKey": "once"}, **ASYNC)
            until(lambda: runs(served, slow))
            if step not in HANDLERS_RUN:
                open_at_hand_over(server, gate)
            done = restart(served)
        assert not [file for file in files if file.exists()]
        if step == "loaded":
            assert done.returncode == 1
            assert "continues: it was killed by SIGKILL" in done.stderr
            assert lock_owner(served) == before
        else:
            assert done.returncode == 0, done.stderr
            assert lock_owner(served) != before
        clients.until_more()
        is_lost = step in HANDLERS_RUN and step != "loaded"
        expected[slow] = [("once", before)] if is_lost else [("once", before), ("ended", before)]

    with Clients(server.address, GOOD, repeat=True) as clients:
        clients.until_more()
        for step in first:
            kill(step)
        if first == ["loaded"]:
            replace_server(served)
        for step in later:
            kill(step)
    lost = sum(len(entries) == 1 for entries in expected.values())
    clients.check(served, others=len(steps), unknown=lost, unsettled=steps.count("stopped"))
    assert {slow: runs(served, slow) for slow in expected} == expected
    server.stop()


@pytest.mark.parametrize(
    "step",
    [
        "draining",
        pytest.param("loading", marks=pytest.mark.long),
        pytest.param("stopped", marks=pytest.mark.long),
        pytest.param("released", marks=pytest.mark.long),
    ],
)
def test_kill_of_a_predecessor_without_a_supervisor(served, step):
    """Its successor takes over and continues without a supervisor, until it is stopped itself or replaced.

    Two handlers run when the replacement begins. If they are killed, only the one that is safe to repeat runs again.
    """
    server = served.server
    first, is_killed = server.process.pid, step in HANDLERS_RUN
    with shut(served) as gate, Clients(server.address, GOOD, repeat=True) as clients:
        for key in ("once", "held"):
            server.post(f"slow-{key}", {"processDefinitionKey": key}, **ASYNC)
            until(lambda key=key: runs(served, f"slow-{key}"))
        clients.until_more()
        arm(served, step, first)
        if not is_killed:
            open_at_hand_over(server, gate)
        server.signal(signal.SIGUSR2)
        server.until_logged("predecessor_lost")
        lone = server.until_logged("server_started", times=2)["pid"]
        clients.until_more()
        gate.unlink(missing_ok=True)
        until(lambda: "ended" in dict(runs(served, "slow-held")))
        assert replace_server(served)["predecessor"] == lone
        clients.until_more()
    clients.check(served, others=2, unknown=int(is_killed), unsettled=int(step == "stopped"))
    once, held = runs(served, "slow-once"), runs(served, "slow-held")
    if is_killed:
        assert once == [("once", first)]
        assert held == [("held", first), ("held", lone), ("ended", lone)]
    else:
        assert once == [("once", first), ("ended", first)]
        assert held[:2] == [("held", first), ("ended", first)]
        assert step == "stopped" or len(held) == 2  # its result may not be durable before the ledger is released
    assert server.process.wait(WAIT_TIMEOUT) == -signal.SIGKILL
    os.kill(lone, signal.SIGTERM)
    server.wait()
    until(lambda: not is_alive(lone))


@pytest.mark.parametrize(
    "step",
    [
        "draining",
        pytest.param("loaded", marks=pytest.mark.long),
        pytest.param("stopped", marks=pytest.mark.long),
        pytest.param("released", marks=pytest.mark.long),
        pytest.param("locked", marks=pytest.mark.long),
        pytest.param("recovered", marks=pytest.mark.long),
    ],
)
def test_a_supervisor_that_is_killed(served, step):
    """The service ends in order: running handlers end, and the next start runs what is stored, once."""
    server = served.server
    supervisor = server.process.pid
    replace_server(served)
    server.until_logged("process_replaced")
    predecessor = lock_owner(served)
    slow = {key: f"slow-{key}" for key in ("once", "held")}
    with shut(served) as gate, Clients(server.address, GOOD, repeat=True) as clients:
        for key, instance in slow.items():
            server.post(instance, {"processDefinitionKey": key}, **ASYNC)
            until(lambda instance=instance: runs(served, instance))
        clients.until_more()
        (file,) = arm(served, step, supervisor)
        if step not in HANDLERS_RUN:
            open_at_hand_over(server, gate)
        server.signal(signal.SIGUSR2)
        assert server.process.wait(WAIT_TIMEOUT) == -signal.SIGKILL
        gate.unlink(missing_ok=True)
        server.wait()  # until each process has ended
    assert not file.exists()
    assert clients.statuses.keys() <= {200, 202, 503}
    later = served.start()
    served.until(lambda ledger: (books := ledger.verify()).deliveries == {"succeeded": books.accepted})
    ran = Counter(instance for _, what, instance, _ in entered(served) if what == "work")
    assert clients.acknowledged <= ran.keys() <= set(clients.sent)
    assert set(ran.values()) == {1}
    assert served.balance().accepted == len(ran) + len(slow)
    for key, instance in slow.items():
        assert runs(served, instance) == [(key, predecessor), ("ended", predecessor)]
    later.stop()


@pytest.mark.long
def test_a_killed_server_is_started_again(served):
    """After the first replacement a supervisor starts a killed server again, with connections waiting meanwhile."""
    server = served.server
    replace_server(served)
    server.until_logged("supervisor_started")
    with Clients(server.address, GOOD, repeat=True) as clients:
        clients.until_more()
        victim = lock_owner(served)
        os.kill(victim, signal.SIGKILL)
        server.until_logged("process_died", process=victim, why="it was killed by SIGKILL")
        clients.until_more()
    clients.check(served)
    server.stop()
