"""The end of an isolated handler's process is reported to its caller and affects no other process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from flowhooks.errors import HandlerLost, HandlerProcessUnavailable, HandlerRaised, Reject, RetryAfter
from flowhooks.execution.isolation import pool as pool_module
from flowhooks.execution.isolation import protocol
from flowhooks.execution.isolation.output_capture import Output
from flowhooks.execution.isolation.process_handle import HandlerProcess
from flowhooks.model.delivery import Delivery
from flowhooks.model.invocation import Invocation
from support.waiting import WAIT_TIMEOUT, until

DEATHS = {
    "os_exits": r"its process exited with code 3 without an answer",
    "os_exits_well": r"its process exited with code 0 without an answer",
    "segfaults": r"its process was killed by signal 11 \(SIGSEGV\)",
    "aborts": r"its process ran out of memory \(limit 512 MiB\): signal 6 \(SIGABRT\)",
    "killed": r"its process was killed by signal 9 \(SIGKILL\) from outside, perhaps because",
    "hangs": r"killed after 1 s because it was overdue",
    "loops": r"killed after 1 s because it was overdue",
    "loops_in_c": r"killed after 1 s because it was overdue",
    "closes_everything": r"killed because its process closed its connection without an answer",
    "talks_rubbish": r"killed because its process sent an invalid answer",
}


def test_an_event_reaches_the_process_unchanged(pool_harness):
    """Any JSON value and all attributes of an event and a delivery reach the process unchanged."""
    data = {"text": 'ü\u2028"\\', "number": 12345678901234567890, "half": 0.1, "list": [None, True, {}], "": {"a": []}}
    found = pool_harness.run("echo", **data)
    assert found["data"] == data
    assert found["event"] == {
        "id": "e1",
        "source": "default",
        "kind": "complete",
        "flow_instance_id": "i1",
        "business_key": "b1",
    }
    assert found["delivery"] == ["d1", "e1", "unruly:echo", 3]
    assert found["received_at"].endswith("+00:00")


def test_a_process_is_reused_and_is_not_the_server(pool_harness):
    """A process is reused: a handler's second delivery finds the state that the first one left."""
    first, second = pool_harness.run("echo"), pool_harness.run("echo")
    assert first["pid"] == second["pid"] != os.getpid()
    assert second["runs"] == first["runs"] + 1


def test_the_traceback_of_one_exception_object_does_not_grow(pool_harness):
    """An exception that a module keeps and raises again has in each attempt the traceback of this attempt."""
    tracebacks = set()
    for _ in range(5):
        with pytest.raises(RetryAfter) as raised:
            pool_harness.run("asks_again_with_one_object")
        tracebacks.add(raised.value.__cause__.traceback)
    (traceback,) = tracebacks
    assert traceback.count("raise CLOSED") == 1


def test_handlers_do_not_share_a_process(pool_harness):
    """A handler's state in its process reaches no other handler."""
    assert pool_harness.run("limits") == [0, 0]
    assert pool_harness.run("threads") == 2
    assert pool_harness.run("nothing") is None
    assert pool_harness.run("echo")["pid"] != pool_harness.run("leaks")


def test_a_large_event_is_sent_and_returned(pool_harness):
    """An event larger than a socket's buffer is sent and returned."""
    text = "x" * 1_000_000
    assert pool_harness.run("echo", text=text[:500_000])["data"] == {"text": text[:500_000]}
    assert pool_harness.run("nothing", text=text) is None
    longest = "😀" * 1_000_000
    assert pool_harness.run("echo", text=longest)["data"] == {"text": longest}


def test_an_event_that_cannot_be_serialised(pool_harness):
    """If a wrapper adds an unserialisable value, no handler runs, the error says so, and no process stays busy."""
    invocation = pool_harness.invocation("nothing")
    for _ in range(6):
        with pytest.raises(
            HandlerProcessUnavailable, match=r"the event cannot be sent to the handler's process: .* not JSON"
        ):
            pool_harness.run("nothing", invocation=invocation, odd=object())
        assert not invocation.entered
    assert not [process for process in pool_harness.pool._processes if process.busy]
    assert pool_harness.run("nothing") is None


def test_an_error_before_the_request_is_sent_leaves_no_process_busy(pool_harness, monkeypatch):
    """Memory may be exhausted while the request is made."""
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "encode_frame", lambda _request: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            pool_harness.run("nothing")
    assert not [process for process in pool_harness.pool._processes if process.busy]
    assert pool_harness.run("nothing") is None


def test_an_exception_in_the_process_is_raised_in_the_server(pool_harness):
    """`Reject` and `RetryAfter` keep their types; other exceptions keep name, text and traceback."""
    with pytest.raises(Reject, match="not for me"):
        pool_harness.run("rejects")
    with pytest.raises(RetryAfter, match="the archive is closed") as again:
        pool_harness.run("asks_again")
    assert again.value.seconds == 60
    with pytest.raises(HandlerRaised) as raised:
        pool_harness.run("fails")
    assert raised.value.name == "LookupError"
    assert raised.value.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert "unruly.py" in raised.value.traceback
    assert "flowhooks/isolation" not in raised.value.traceback
    with pytest.raises(HandlerRaised, match="SystemExit: 3"):
        pool_harness.run("sys_exits")


def test_secrets_reach_the_process_and_are_masked_in_errors(pool_harness):
    """Secrets are read there from the server's environment, and masked in errors before these are cut."""
    assert pool_harness.run("secret")["password"] == "correct horse battery staple"
    with pytest.raises(HandlerRaised) as raised:
        pool_harness.run("fails")
    assert raised.value.text == "the password … was refused"
    assert "horse" not in raised.value.traceback


@pytest.mark.parametrize("handler", DEATHS)
def test_the_end_of_a_process_affects_only_its_attempt(pool_harness, handler, monkeypatch):
    """The caller learns how the process ended; the next delivery of any handler finds a process."""
    if handler == "killed":  # after this time, flowhooks would kill it, too, and say so
        monkeypatch.setattr(pool_module, "EXIT_STATUS_TIMEOUT", WAIT_TIMEOUT)
    invocation = pool_harness.invocation(handler)
    with pytest.raises(HandlerLost, match=DEATHS[handler]):
        pool_harness.run(handler, invocation=invocation)
    assert invocation.entered
    with pytest.raises(HandlerLost, match=DEATHS[handler]):
        pool_harness.run(handler)
    assert pool_harness.run("nothing") is None


def test_the_traceback_has_the_last_output_of_the_process(pool_harness, monkeypatch):
    """The attempt's traceback has the last output of the process, including the line that Python reports."""
    # However late the process gets the signal at which it prints its tracebacks.
    monkeypatch.setattr("flowhooks.execution.isolation.fork_server_manager.TRACEBACK_TIMEOUT", WAIT_TIMEOUT)
    with pytest.raises(HandlerLost) as lost:
        pool_harness.run("segfaults")
    assert lost.value.tail.startswith("about to read what is not there\nFatal Python error: Segmentation fault")
    assert " in segfaults" in lost.value.tail
    assert "flowhooks/isolation" not in lost.value.tail

    def is_told():
        # Repeatedly: on a busy machine, the second of the handler may be over before it has been entered.
        with pytest.raises(HandlerLost) as lost:
            pool_harness.run("loops_in_c")
        return " in loops_in_c" in lost.value.tail

    until(is_told)


@pytest.mark.parametrize("handler", ["allocates", "maps"])
def test_memory_is_limited(pool_harness, handler):
    """Memory above the limit fails in the process; allowed amounts succeed repeatedly."""
    for _ in range(2):
        assert pool_harness.run(handler, mebibytes=48) == 48 * 1024**2
        with pytest.raises(HandlerRaised) as raised:
            pool_harness.run(handler, mebibytes=80)
        assert raised.value.name in {"MemoryError", "OSError"}


def test_a_process_that_keeps_much_memory_is_replaced(pool_harness):
    """A process that keeps much memory is replaced, so the next delivery has all of it."""
    assert len({pool_harness.run("leaks") for _ in range(4)}) == 4
    until(lambda: "worn" in pool_harness.reasons)


def test_a_process_is_replaced_after_many_runs(pool_harness, monkeypatch):
    """A process is replaced after many runs, which frees leaked memory."""
    monkeypatch.setattr(pool_module, "MAX_RUNS_PER_PROCESS", 3)
    pids = [pool_harness.run("limits") and pool_harness.run("echo")["pid"] for _ in range(12)]
    assert len(set(pids)) >= 4


def test_a_hanging_handler_delays_no_other_handler(pool_harness, tmp_path):
    """A hanging handler uses its own thread and process; no other handler waits."""
    mark, go_on, ended = tmp_path / "mark", tmp_path / "go_on", []
    arguments = {"mark": str(mark), "go_on": str(go_on)}
    thread = threading.Thread(target=lambda: ended.append(pool_harness.run("waits_for", **arguments)))
    thread.start()
    until(mark.exists)
    assert pool_harness.run("nothing") is None
    assert not ended
    go_on.touch()
    thread.join(WAIT_TIMEOUT)
    assert ended == ["went on"]


def test_an_invalid_result_is_dropped_with_a_reason(pool_harness):
    """A result that is not JSON or too large is dropped; the reason crosses instead, for the attempt."""
    for handler, why in (
        ("returns_much", "returned 52,428,802 characters of JSON, and at most 65,536 are stored; "),
        ("returns_a_set", "returned a value of type set, which is not JSON; "),
    ):
        invocation = pool_harness.invocation(handler)
        assert pool_harness.run(handler, invocation=invocation) is None
        assert invocation.result_dropped.startswith(why)
    with pytest.raises(HandlerRaised, match="HandlerError: it returned a generator"):
        pool_harness.run("returns_a_generator")


def test_a_forked_copy_of_the_process_does_not_reply(pool_harness):
    """If a handler forks, only the original process replies and continues."""
    before = len(pool_harness.reasons)
    assert [pool_harness.run("forks") for _ in range(3)] == ["once"] * 3
    assert "crashed" not in pool_harness.reasons[before:]


def test_a_program_that_a_handler_started_ends_with_the_process(pool_harness, tmp_path, eventually, has_exited):
    """A program that a handler left running ends with the handler's process."""
    mark = tmp_path / "mark"
    with pytest.raises(HandlerLost):
        pool_harness.run("starts", mark=str(mark))
    eventually(lambda: has_exited(int(mark.read_text())))


def test_the_process_has_no_open_file_of_the_server(pool_harness, tmp_path):
    """The process has none of the server's 500 open files, only a socket, two pipes, /dev/null and /proc/…/statm."""
    opened = [(tmp_path / str(number)).open("w") for number in range(500)]
    try:
        with pytest.raises(HandlerLost):
            pool_harness.run("segfaults")  # so that a new process is started meanwhile
        found = pool_harness.run("opens")
    finally:
        for file in opened:
            file.close()
    kinds = [target.partition(":[")[0].rpartition("/")[2] for target in found]
    kinds = [kind for kind in kinds if not kind.startswith("libffi.so")]  # newer versions open themselves
    assert sorted(kinds) == ["null", "pipe", "pipe", "socket", "statm"]


def test_a_transaction_is_refused_in_an_isolated_process(pool_harness):
    """`delivery.transaction()` is refused in an isolated process, with the reason."""
    with pytest.raises(HandlerRaised, match=r"TransactionError: .* only the server writes to its ledger"):
        pool_harness.run("writes_to_the_ledger")


def test_printed_text_is_logged(pool_harness, logged, eventually):
    """Printed text is logged line by line with its handler, and escaped."""
    pool_harness.run("prints")
    eventually(lambda: sum(record["event"] == "handler_output" for record in logged) >= 2)
    printed = [record for record in logged if record["event"] == "handler_output"]
    assert [record["text"] for record in printed] == [
        "{not json}\x1b[2J",
        "half a line and \N{REPLACEMENT CHARACTER} the rest",
    ]
    assert {record["handler"] for record in printed} == {"unruly:prints"}
    assert {(record["delivery"], record["attempt"]) for record in printed} == {("d1", 3)}


def test_logged_lines_are_limited_per_second(pool_harness, logged, eventually):
    """Logged lines are limited per second; the number of dropped lines is logged."""
    runs = []

    def is_truncated():
        # Repeatedly: a slow machine may read the lines of one run in several seconds.
        runs.append(pool_harness.run("prints_much"))
        return any(record["event"] == "handler_output_truncated" for record in logged)

    eventually(is_truncated)
    logged_lines = sum(record["event"] == "handler_output" for record in logged)
    left_out = sum(record.get("lines_left_out", 0) for record in logged)
    assert left_out > 0
    assert logged_lines + left_out <= 5_000 * len(runs)


def test_log_records_of_the_process_reach_the_server_log(pool_harness, logged):
    """Log records keep their logger, level and values, and name their handler."""
    pool_harness.run("logs")
    plain, of_structlog = (record for record in logged if record["event"] in {"plain words", "of_structlog"})
    about = {"handler": "unruly:logs", "delivery": "d1", "attempt": 3}
    assert plain == {"event": "plain words", "log_level": "warning", "number": 7} | about
    assert of_structlog.pop("traceback").endswith("KeyError: 'inner'\n")
    assert of_structlog == {"event": "of_structlog", "log_level": "error", "colour": "red"} | about


def test_late_records_of_a_thread_are_logged_with_its_delivery(pool_harness, tmp_path, logged, eventually):
    """A thread logs between two deliveries; the server reads that record only with the second one."""
    files = {"go": str(tmp_path / "go"), "logged": str(tmp_path / "logged")}
    pool_harness.run("logs_afterwards", **files)
    (tmp_path / "go").touch()
    eventually((tmp_path / "logged").exists)
    second = Delivery(id="d2", event_id="e2", handler="unruly:logs_afterwards", attempt=1)
    invocation = Invocation("d2", 1, log_fields=lambda: {"event_id": "e2"})
    pool_harness.run("logs_afterwards", delivery=second, invocation=invocation, **files)
    assert invocation.log.text() is None
    (record,) = [entry for entry in logged if entry["event"] == "afterwards"]
    assert (record["delivery"], record["attempt"]) == ("d1", 3)


def test_logged_secrets_are_masked_before_records_are_cut(pool_harness, logged):
    """Secrets are masked before records are cut, because the server could not recognise half a secret."""
    pool_harness.run("logs_at_length")
    cut, whole = (record for record in logged if record["event"].startswith(("xxx", "with its")))
    assert cut["event"].endswith("x…")
    assert not [word for word in ("correct", "horse", "battery", "staple") if word in cut["event"] + whole["traceback"]]


def test_no_log_record_ends_an_attempt(pool_harness, logged):
    """An unknown level or a reserved name of a value does not make the process untrusted."""
    names = ("method_name", "level", "event", "self", "positional_args", "logger", "handler", "args_", "exc_info_")
    assert pool_harness.run("logs_oddly", extra=dict.fromkeys(names, "odd")) == "well"
    found = {record["event"]: record for record in logged if record["event"].startswith("at_")}
    assert found["at_35"]["log_level"] == "warning"
    assert found["at_35"]["method_name_"] == found["at_35"]["positional_args_"] == "odd"
    assert found["at_35"]["handler"] == "unruly:logs_oddly"
    assert found["at_the_top"]["log_level"] == "critical"


def test_a_probe_runs_in_a_process(pool_harness):
    """A probe runs with the same limits, and a crash ends only its own process."""
    assert [pool_harness.probe("can_tell", done=done) for done in (True, False, None)] == [
        True,
        False,
        None,
    ]
    with pytest.raises(HandlerRaised, match="TypeError: the probe returned a str instead of True, False or None"):
        pool_harness.probe("can_tell", done="yes")
    with pytest.raises(HandlerLost, match="exited with code 9"):
        pool_harness.probe("cannot_be_asked")


PROBED = """
from pathlib import Path
from flowhooks import handler, hookimpl

def asked(event, delivery):
    return True

@handler(process_key="k", isolation="process", probe=asked if Path(r"{there}").exists() else None)
def work(event):
    Path(r"{ran}").touch()

@hookimpl
def handlers():
    return [work]
"""


@pytest.fixture
def probed(make_pool_harness, tmp_path):
    """The pool of a plugin whose handler leaves a file, and which has a probe while that file exists."""
    (tmp_path / "there").touch()
    (tmp_path / "probed.py").write_text(PROBED.format(there=tmp_path / "there", ran=tmp_path / "ran"))
    pool_harness = make_pool_harness(tmp_path, "probed")
    assert pool_harness.probe("work") is True
    return pool_harness


def test_changed_code_is_not_run(probed, tmp_path, logged, eventually):
    """A restarted fork server that would load changed code is not used."""
    (tmp_path / "probed.py").write_text(PROBED.format(there="/nowhere", ran=tmp_path / "ran"))
    os.kill(probed.pool._manager.pid, signal.SIGKILL)
    eventually(lambda: [record for record in logged if record["event"] == "isolated_handler_missing"])
    why = (
        "a file of plugin 'probed' has changed since the server was started, but the server runs the old content: "
        "restart it"
    )
    for call in (probed.probe, probed.run):
        with pytest.raises(HandlerProcessUnavailable, match=why):
            call("work")
    assert not (tmp_path / "ran").exists()


def test_a_missing_probe_gives_no_answer(probed, tmp_path, logged, eventually):
    """If the loaded plugin has no probe, the answer is none; the handler's function never runs instead."""
    (tmp_path / "there").unlink()
    os.kill(probed.pool._manager.pid, signal.SIGKILL)

    def is_restarted():
        """The first start is logged after it is ready, and thus perhaps only now."""
        states = [record["event"] for record in logged if record["event"] in {"isolation_failed", "isolation_ready"}]
        return states[-2:] == ["isolation_failed", "isolation_ready"]

    eventually(is_restarted)
    assert probed.probe("work") is None
    assert not (tmp_path / "ran").exists()


def test_the_number_of_processes_is_limited(make_pool_harness):
    """At the limit, the process that was idle longest is replaced by one for another handler."""
    pool_harness = make_pool_harness(threads=2)
    first = pool_harness.run("echo")["pid"]
    for handler in ("nothing", "limits", "threads"):
        pool_harness.run(handler)
        until(lambda: pool_harness.pool.alive <= 2)
    until(lambda: "evicted" in pool_harness.reasons)
    assert pool_harness.run("echo")["pid"] != first


def test_a_killed_idle_process_is_replaced(pool_harness, eventually, has_exited):
    """After a kill of an idle process, the next delivery gets another one."""
    pid = pool_harness.run("echo")["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: has_exited(pid))
    invocation = pool_harness.invocation("echo")
    assert pool_harness.run("echo", invocation=invocation)["pid"] != pid
    assert invocation.entered


def test_isolated_processes_ignore_stop_signals(pool_harness, eventually):
    """Isolated processes ignore stop signals that a service manager sends to all processes."""
    pid = pool_harness.run("echo")["pid"]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
        os.kill(pool_harness.pool._manager.pid, number)
    assert pool_harness.run("echo")["pid"] == pid


def test_the_fork_server_is_started_again(make_pool_harness, logged, eventually):
    """If the fork server ends, running attempts are lost, and later deliveries wait for the next fork server."""
    pool_harness = make_pool_harness()
    ppid = pool_harness.run("echo")["ppid"]
    os.kill(ppid, signal.SIGKILL)
    eventually(lambda: [record for record in logged if record["event"] == "isolation_failed"])
    assert pool_harness.run("echo")["ppid"] != ppid


def test_a_new_fork_server_is_in_the_folder_of_the_start(make_pool_harness, tmp_path, monkeypatch, logged, eventually):
    """Isolated processes start in the folder of the start, although a handler has changed that of the server."""
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    start.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(start)
    pool_harness = make_pool_harness()
    ppid = pool_harness.run("echo")["ppid"]
    monkeypatch.chdir(elsewhere)
    os.kill(ppid, signal.SIGKILL)
    eventually(lambda: [record for record in logged if record["event"] == "isolation_failed"])
    assert Path(f"/proc/{pool_harness.run('echo')['pid']}/cwd").resolve() == start.resolve()
    start.rename(tmp_path / "moved")
    os.kill(pool_harness.run("echo")["ppid"], signal.SIGKILL)
    failed = eventually(lambda: [record for record in logged if "was moved or removed" in record.get("why", "")])
    assert failed[0]["why"] == f"it cannot be started: the folder of the start, {start}, was moved or removed"


def test_a_default_timeout_for_sockets(make_pool_harness, logged, eventually):
    """A default timeout that a plugin sets for sockets ends no process while it waits for a delivery."""
    pool_harness = make_pool_harness()
    ppid = pool_harness.run("echo")["ppid"]
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(WAIT_TIMEOUT)
    try:
        os.kill(ppid, signal.SIGKILL)
        eventually(lambda: [record for record in logged if record["event"] == "isolation_failed"])
        pids = set()
        for _ in range(20):
            pids.add(pool_harness.run("echo")["pid"])
            pool_harness.run("nothing")  # meanwhile the process of the other handler waits
        assert len(pids) == 1
    finally:
        socket.setdefaulttimeout(previous)


def test_an_exception_in_the_reader_restarts_the_fork_server(make_pool_harness, monkeypatch, logged):
    """An exception in the thread that reads the fork server's messages is logged, and the fork server starts again."""
    on_ready, faults = pool_module.ProcessPool._on_ready, []

    def broken(pool, ready):
        if not faults:
            faults.append(ready)
            raise KeyError("defect")
        on_ready(pool, ready)

    monkeypatch.setattr(pool_module.ProcessPool, "_on_ready", broken)
    assert make_pool_harness().run("echo")["pid"]
    errors = [entry["event"] for entry in logged if entry["log_level"] == "error"]
    assert errors == ["isolation_fault", "isolation_failed"]


def test_an_attempt_is_lost_when_its_fork_server_ends(make_pool_harness, tmp_path):
    """On Linux an isolated process ends with its fork server."""
    pool_harness = make_pool_harness()
    mark = tmp_path / "mark"
    ppid = pool_harness.run("echo")["ppid"]

    def kill():
        until(mark.exists)
        os.kill(ppid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(HandlerLost, match="its process ended together with the fork server"):
        pool_harness.run("waits_for", mark=str(mark), go_on=str(tmp_path / "never"))
    killer.join()


def test_closing_leaves_no_process(make_pool_harness, has_exited, eventually, tmp_path):
    """Closing ends running processes, notifies their callers, and leaves no process."""
    pool_harness = make_pool_harness()
    found = pool_harness.run("echo")
    mark, outcome = tmp_path / "mark", []

    def wait():
        try:
            pool_harness.run("waits_for", mark=str(mark), go_on=str(tmp_path / "never"))
        except HandlerLost as lost:
            outcome.append(str(lost))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: mark.exists() and mark.read_text())
    pool_harness.pool.close()
    thread.join(WAIT_TIMEOUT)
    assert outcome == ["killed because the server has stopped"]
    for pid in (found["pid"], found["ppid"], int(mark.read_text())):
        eventually(lambda pid=pid: has_exited(pid))
    with pytest.raises(HandlerProcessUnavailable, match="the server has stopped"):
        pool_harness.run("echo")


HALF = '''
import os
from flowhooks import handler, hookimpl

@handler(process_key="half", isolation="process")
def half(event):
    """Never run."""

@hookimpl
def handlers():
    return [half]

__version__ = "1"
if os.getpid() != {pid}:
    {what}
'''


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("__version__ = '2'", "version 2 of plugin 'half' is installed now, but the server runs 1: restart it"),
        ("raise OSError('only one may hold the device')", "only one may hold the device"),
        ("handlers = hookimpl(lambda: [])", "has no such handler when the fork server loads it"),
        ("print('out of here', flush=True); os._exit(4)", "it exited with code 4: out of here"),
    ],
)
def test_a_plugin_that_loads_only_once_is_named(make_pool_harness, tmp_path, what, why):
    """The plugin's handlers are not entered, so the attempt may be repeated."""
    (tmp_path / "half.py").write_text(HALF.format(pid=os.getpid(), what=what))
    pool_harness = make_pool_harness(tmp_path, "half")
    assert why in pool_harness.pool.unavailable()["half:half"]
    invocation = pool_harness.invocation("half")
    with pytest.raises(HandlerProcessUnavailable, match="no process could be started for the handler") as unavailable:
        pool_harness.run("half", invocation=invocation)
    assert why in str(unavailable.value)
    assert not invocation.entered


def test_closing_while_a_process_is_discarded(make_pool_harness):
    """All processes are closed, even if a thread discards one while the pool closes."""
    pool = make_pool_harness().pool
    pool.close()
    ours, theirs = socket.socketpair()
    reads, writes = os.pipe()
    os.close(writes)
    late = HandlerProcess(2, ours, Output(reads))
    late.ended_event.set()

    class Discarding(socket.socket):
        def close(self):
            super().close()
            pool.discard(late, "crashed")

    streams = [Discarding() for _ in range(2)]
    others = [HandlerProcess(number, stream, late.output) for number, stream in enumerate(streams)]
    pool._processes.update([late, *others])
    pool.close()
    late.output.close()
    theirs.close()
    assert ours.fileno() == -1
    assert [stream.fileno() for stream in streams] == [-1, -1]
