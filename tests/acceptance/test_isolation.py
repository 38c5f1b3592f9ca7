"""Isolated handlers in real servers: the end of such a process affects only its own attempt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from flowhooks.ledger.queries import EventFilter
from support.waiting import until

PLUGIN = """
import ctypes, os, re, subprocess, time
from flowhooks import Retry, handler, hookimpl

def mark(event, text):
    with open(os.environ["JOURNAL"] + "-" + event.flow_instance_id + ".new", "w") as file:
        file.write(text)
    os.rename(file.name, file.name.removesuffix(".new"))

@handler(process_key="good", isolation="process")
def good(event):
    print("a line that is no JSON")
    return os.getpid()

@handler(process_key="slow", isolation="process")
def slow(event):
    child = subprocess.Popen(["sleep", "600"])
    mark(event, f"{os.getpid()} {os.getppid()} {child.pid}")
    while not os.path.exists(os.environ["JOURNAL"] + "-go"):
        time.sleep(0.01)
    return "done"

@handler(process_key="crashes", isolation="process")
def crashes(event):
    ctypes.string_at(0)

@handler(process_key="hangs", isolation="process", timeout=0.3, retry=Retry(attempts=1))
def hangs(event):
    re.match(r"(a+)+$", "a" * 60 + "b")

@hookimpl
def handlers():
    return [good, slow, crashes, hangs]
"""


def body(key):
    return {"processDefinitionKey": key}


@pytest.fixture
def isolated(make_site):
    """A site with that plugin."""
    site = make_site()
    site.plugin("own", PLUGIN)
    return site


def _marked(site, instance):
    """The pids that a handler has written: its own, its parent's, and those it started."""
    file = Path(f"{site.journal}-{instance}")
    until(file.exists)
    return [int(pid) for pid in file.read_text().split()]


def _until_gone(*pids):
    until(lambda: not [pid for pid in pids if _runs(pid)])


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_crash_kill_or_endless_loop_affects_only_its_attempt(isolated):
    """Responses name each result, the log each delivery; other work continues and the counts balance."""
    server = isolated.start()
    assert server.post("slow", body("slow"), Prefer="respond-async").status == 202
    pid, *_ = _marked(isolated, "slow")
    # On a busy machine it takes seconds until a process is forked, or its end is reported.
    assert server.post("good-1", body("good"), Prefer="wait=25").status == 200
    crashed = server.post("crashes", body("crashes"))
    assert crashed.status == 202
    assert server.post("hangs", body("hangs"), Prefer="wait=25").status == 500
    os.kill(pid, signal.SIGKILL)
    isolated.until(lambda ledger: ledger.count_by_state()["unknown"] == 2)
    assert server.post("good-2", body("good"), Prefer="wait=25").status == 200
    server.until_logged("attempt_failed", times=3)
    errors = {
        record["handler"]: (record["outcome"], record["state"], record["error"])
        for record in server.logged("attempt_failed")
    }
    killed = errors.pop("own:slow")
    assert errors == {
        "own:crashes": ("lost", "unknown", "its process was killed by signal 11 (SIGSEGV)"),
        "own:hangs": ("lost", "dead", "killed after 0.3 s because it was overdue"),
    }
    assert killed[:2] == ("lost", "unknown")
    assert killed[2] in {
        "its process was killed by signal 9 (SIGKILL) from outside, perhaps because this machine was out of memory",
        # On a busy machine the exit status comes more than a second after the end of the connection.
        "killed because its process closed its connection without an answer",
    }
    server.until_logged("handler_output", times=2, text="a line that is no JSON")
    server.stop()
    server.check_log()
    printed = server.logged("handler_output", text="a line that is no JSON")
    assert [record["handler"] for record in printed] == ["own:good"] * 2
    isolated.balance()


LOGS = """
import logging
from flowhooks import handler, hookimpl

@handler(process_key="supplier", isolation="process")
def supplier(event):
    logging.getLogger("own").warning("查询失败", extra={"reason": "供应商不存在\\u202e\\x85"})
    print("打印 供应商不存在")
    raise ValueError("供应商不存在")

@hookimpl
def handlers():
    return [supplier]
"""


def test_log_records_of_an_isolated_handler_are_searchable(make_site):
    """The log is UTF-8: `grep` finds the handler's record, output and error; marks stay escaped."""
    site = make_site()
    site.plugin("own", LOGS)
    server = site.start()
    # The process that handlers are forked from starts first.
    assert server.post("1", body("supplier"), Prefer="wait=60", timeout=90).status == 500
    server.until_logged("handler_output", text="打印 供应商不存在")
    server.until_logged("查询失败", reason="供应商不存在\u202e\x85")
    server.until_logged("attempt_failed", error="ValueError: 供应商不存在")
    server.stop()
    server.check_log()
    # A poll for alerts may have found the dead delivery before the stop: that record has its error, too.
    found = [line for line, record in server.log() if "供应商不存在" in line and record["event"] != "alert_raised"]
    assert len(found) == 3
    assert all(line.isprintable() for line in server.lines)
    assert len([line for line in found if r'"reason": "供应商不存在\u202e\u0085"' in line]) == 1


def test_a_killed_server_leaves_no_process_behind(isolated):
    """After a kill no handler process, fork server or child process remains; the next server recovers."""
    server = isolated.start()
    # The process that handlers are forked from starts first. An attempt that ran at the kill would be unknown, too.
    assert server.post("good", body("good"), Prefer="wait=60", timeout=90).status == 200
    server.post("slow", body("slow"), Prefer="respond-async")
    pids = _marked(isolated, "slow")
    server.kill()
    _until_gone(*pids)
    server = isolated.start()
    isolated.until(lambda ledger: ledger.count_by_state()["unknown"] == 1)
    server.stop()
    isolated.balance()


def test_each_server_process_has_its_own_handler_processes(sharing):
    """If a supervised process is killed, its handlers end and it is restarted; the other process continues."""
    sharing.plugin("own", PLUGIN)
    sharing.forks_children = True
    # Starts delay the heartbeats of a busy machine, and an attempt of an expired process would be unknown.
    server = sharing.start("--processes", 2, **sharing.settings, ledger__heartbeat_timeout=8.0)
    server.until_logged("server_started", times=2)
    server.post("slow", body("slow"), Prefer="respond-async")
    pids = _marked(sharing, "slow")
    parent = int(Path(f"/proc/{pids[1]}/stat").read_text().rpartition(")")[2].split()[1])
    both = [record["pid"] for record in server.logged("server_started")]
    assert parent in both
    os.kill(parent, signal.SIGKILL)
    _until_gone(*pids)
    assert server.until_logged("process_died", process=parent)["why"] == "it was killed by SIGKILL"
    sharing.until(lambda ledger: ledger.count_by_state()["unknown"] == 1)
    server.until_logged("server_started", times=3)
    for number in range(8):
        # The process that handlers are forked from starts first.
        assert server.post(f"good-{number}", body("good"), Prefer="wait=60", timeout=90).status == 200
    server.until_logged("handler_output", times=8, handler="own:good")
    assert {record["pid"] for record in server.logged("handler_output")} <= {
        record["pid"] for record in server.logged("server_started")
    }
    server.stop()
    server.check_log()
    assert sharing.balance().deliveries == {"succeeded": 8, "unknown": 1}


def test_shutdown_waits_for_isolated_handlers(isolated):
    """Shutdown waits for isolated handlers, even if every process of the service gets SIGTERM."""
    server = isolated.start()
    server.post("slow", body("slow"), Prefer="respond-async")
    pid, fork_server, started = _marked(isolated, "slow")
    for process_id in (pid, fork_server):
        os.kill(process_id, signal.SIGTERM)
    server.signal()
    server.until_logged("shutdown_started")
    Path(f"{isolated.journal}-go").touch()
    assert server.wait() == 0
    assert server.logged("shutdown_finished", all_ended=True)
    _until_gone(pid, fork_server, started)
    isolated.balance()
    with isolated.ledger() as ledger:
        assert len(ledger.page(EventFilter(state="succeeded"), limit=2)) == 1


def test_a_setting_overrides_the_handler_declaration(isolated):
    """A setting overrides a handler's declaration; a handler in a thread then runs in the server."""
    server = isolated.start(config='[handlers."own:good"]\nisolation = "thread"\n')
    assert server.post("good", body("good")).status == 200
    shown = isolated.run("plugins", "show", "own", "--plugins-dir", isolated.plugins).stdout
    assert "runs in    a thread, overdue after 5 min" in shown
    assert "runs in    a process of its own, at most 0.3 s and 512 MiB" in shown
    server.stop()
    assert not server.logged("handler_output")


def test_check_reports_a_plugin_that_can_only_be_loaded_once(isolated):
    """`check` reports a plugin that can only be loaded once, before any delivery waits for it."""
    words = ("check", "--plugins-dir", isolated.plugins, "--database", isolated.database)
    assert "4 handlers can be run in a process of their own" in isolated.run(*words).stdout
    once = f"""
import os
file = {str(isolated.folder / "once")!r}
if os.path.exists(file):
    raise OSError("only one may have it")
open(file, "w").close()
"""
    isolated.plugin("own", once + PLUGIN)
    found = isolated.run(*words)
    assert found.returncode == 1
    assert (
        "4 handlers cannot be run in a process of their own: own:crashes, own:good, own:hangs, own:slow" in found.stdout
    )
    assert "only one may have it" in found.stdout
