"""Several processes under a supervisor, on a real PostgreSQL: callers do not notice crashes, starts and stops."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.journal import whole_lines
from support.process_trials import FAST_EXPIRY
from support.service_manager import next_state
from support.steady_clients import MAX_SILENCE
from support.waiting import WAIT_TIMEOUT, until, until_refused

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

JOURNAL = pathlib.Path(os.environ["JOURNAL"])

@handler(process_key="KEY", retry=Retry(attempts=5, delays=[0.05], jitter=0))
def work(event, delivery):
    """Write down who was entered, and wait as long as the gate is shut."""
    with JOURNAL.open("a") as journal:
        inherited = "FLOWHOOKS_SUPERVISOR_FD" in os.environ
        print("NAME", event.flow_instance_id, os.getpid(), inherited, file=journal, flush=True)
    while JOURNAL.with_name("shut-" + event.flow_instance_id).exists():
        time.sleep(0.01)

@hookimpl
def handlers():
    return [work]
'''
HANGS_AT_IMPORT = """
import os, pathlib, threading
pathlib.Path(os.environ["JOURNAL"]).with_name(f"imported-{os.getpid()}").touch()
threading.Event().wait()
"""
GOOD = {"processDefinitionKey": "a"}
BOTH = 2


@pytest.fixture
def shared(site, postgresql_url):
    """A site on PostgreSQL with a plugin `a`, which listens to the key `a`; supervisors fork their processes."""
    site.database = site.url = postgresql_url
    site.forks_children = True
    install(site, "a")
    return site


def install(site, name, key=None):
    """Install a plugin for a key."""
    site.plugin(name, PLUGIN.replace("NAME", name).replace("KEY", key or name))


def start(site, *words, ready=BOTH, processes=BOTH, **settings):
    """Start a server of several processes, and wait until all of them serve."""
    settings = {"ledger__write_timeout": 20} | settings  # a commit may take seconds on a busy machine
    server = site.start("--processes", processes, *words, ready=bool(ready), **settings)
    if ready:
        until(lambda: len(pids(server)) == ready)
    return server


def pids(server, ready="server_started"):
    """The processes that have become ready and still exist, in order."""
    return [pid for record in server.logged(ready) if alive(pid := record["pid"])]


def alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def entered(site):
    """(plugin, instance, process) of each run of a handler."""
    lines = whole_lines(site.journal)
    assert not any(line.endswith("True") for line in lines), "a handler sees what only its process is to see"
    return [(name, instance, int(pid)) for name, instance, pid, _ in map(str.split, lines)]


class Load:
    """Clients that send callbacks in turn, each on persistent connections or on a new one each time.

    With `patient` a call whose connection breaks is repeated, as engines do; a refused call is not. Without, it is
    repeated only if this client was silent for so long that a process that retires may have closed the connection.
    """

    def __init__(self, server, *, callers=4, patient=False):
        self.address = server.address
        self.patient = patient
        self.statuses = Counter()
        self.failures = []
        self.sent = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number, number % 2 == 0)) for number in range(callers)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_TIMEOUT)

    def _call(self, caller, keeps):
        connection, sent_at = None, 0.0
        for number in range(1_000_000):
            if self._over.is_set():
                break
            instance = f"c{caller}-{number}"
            self.sent.append(instance)
            while True:
                if connection is None:
                    connection, sent_at = http.client.HTTPConnection(*self.address, timeout=30), time.monotonic()
                silent_since = sent_at
                try:
                    try:
                        connection.request("POST", f"/flow/{instance}/call-back/complete", json.dumps(GOOD))
                    finally:
                        sent_at = time.monotonic()
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    connection = None
                    is_late = sent_at - silent_since > MAX_SILENCE and isinstance(error, ConnectionError)
                    if not (self.patient or is_late) or isinstance(error, ConnectionRefusedError):
                        self.failures.append((instance, repr(error)))
                        break
                    continue
                self.statuses[answer.status] += 1
                break
            if connection is not None and not keeps:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def until_more(self, count=30):
        """Wait until `count` more calls were answered."""
        enough = sum(self.statuses.values()) + count
        until(lambda: sum(self.statuses.values()) >= enough)


def test_a_signal_during_the_start_ends_all_processes_at_once(shared):
    """A plugin that never returns delays neither the processes nor their supervisor."""
    shared.plugin("hangs", HANGS_AT_IMPORT)
    server = start(shared, ready=0)
    until(lambda: len(list(shared.folder.glob("imported-*"))) == BOTH)
    children = [int(file.name.removeprefix("imported-")) for file in shared.folder.glob("imported-*")]
    server.until_logged("server_starting", times=BOTH)
    server.signal()
    assert server.wait() == 0
    assert not any(map(alive, children))
    assert not server.logged("server_started")


def test_calls_are_spread_over_the_processes(shared):
    """Both processes accept callbacks at one address on cores of their own; each log line has its process."""
    server = start(shared, cpu_affinity=True)
    both = pids(server)
    with Load(server, callers=8):
        until(lambda: {pid for _, _, pid in entered(shared)} == set(both))
    assert {entry["call_backs"] for entry in server.logged("server_started")} == {
        f"http://127.0.0.1:{server.address[1]}"
    }
    assert server.ask("GET", "/readyz", admin=True).json == {"ready": True, "trouble": []}
    cores = [os.sched_getaffinity(pid) for pid in both]
    assert [len(affinity) for affinity in cores] == [1, 1]
    if len(os.sched_getaffinity(0)) > 1:
        assert cores[0] != cores[1]
    server.stop()
    assert {record["pid"] for record in server.records} == {*both, server.process.pid}
    server.check_log()
    assert shared.balance().deliveries.keys() == {"succeeded"}


def attempts_told(server):
    """The number of succeeded attempts according to `/metrics`."""
    text = server.ask("GET", "/metrics", admin=True).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return sum(sample.value for sample in families["flowhooks_attempts"].samples)


def test_each_scrape_has_the_sum_over_all_processes(shared):
    """Each scrape has the sum over all processes, including ended ones, whichever process answers."""
    server = start(shared)
    before = pids(server)
    with Load(server, callers=8):
        until(lambda: {pid for _, _, pid in entered(shared)} == set(before))
    until(lambda: attempts_told(server) == len(entered(shared)))
    server.signal(signal.SIGHUP)
    server.until_logged("process_replaced")
    until(lambda: len(pids(server)) == BOTH)  # a process reports that it is ready before it logs it
    told = [attempts_told(server) for _ in range(6)]
    assert told == [len(entered(shared))] * 6
    text = server.ask("GET", "/metrics", admin=True).body.decode()
    for family in text_string_to_metric_families(text):
        if family.name.startswith("process_"):
            reported = {int(sample.labels["pid"]): sample.value for sample in family.samples}
            assert reported.keys() == {server.process.pid, *pids(server)}, family.name
            assert family.name == "process_cpu_seconds" or all(reported.values())
    assert "process_open_fds{" in text
    server.stop()


def test_a_process_is_restarted_after_its_temporary_files_were_removed(shared):
    """The folder in which the processes count together is created again."""
    server = start(shared)
    victim, other = pids(server)
    (folder,) = set(re.findall(r"/\S*flowhooks-counts-[^/]+", Path(f"/proc/{victim}/maps").read_text()))
    shutil.rmtree(folder)
    os.kill(victim, signal.SIGKILL)
    (successor,) = until(lambda: set(pids(server)) - {victim, other})
    assert server.logged("counts_incomplete", pid=successor)
    assert [file.read_text() for file in Path(folder).glob("*.pid")] == [str(successor)]
    assert server.ask("GET", "/metrics", admin=True).status == 200
    server.stop()
    assert not Path(folder).exists()


def test_a_killed_process_is_restarted(shared):
    """A killed process is restarted: under load no connection is refused, and repeated callbacks are stored once."""
    server = start(shared, **FAST_EXPIRY)
    victim, _ = pids(server)
    with Load(server, patient=True) as load:
        load.until_more()
        os.kill(victim, signal.SIGKILL)
        died = server.until_logged("process_died", process=victim)
        assert (died["why"], died["again_in"]) == ("it was killed by SIGKILL", 0.2)
        until(lambda: len(pids(server)) == BOTH)
        load.until_more()
    assert load.failures == []
    assert load.statuses.keys() <= {200, 202}
    shared.until(lambda ledger: ledger.verify().deliveries == {"succeeded": len(load.sent)})
    server.stop()
    assert shared.balance().accepted == len(load.sent)


def test_repeated_crashes_delay_the_restart_longer_each_time(shared):
    """A process that crashes repeatedly is restarted with growing delays, while the other serves."""
    server = start(shared)
    for delay in (0.2, 0.4, 0.8):
        victim = pids(server)[-1]
        os.kill(victim, signal.SIGKILL)
        assert server.until_logged("process_died", process=victim)["again_in"] == delay
        assert server.post(f"i{delay}", GOOD).status == 200
        until(lambda: len(pids(server)) == BOTH)
    server.stop()


def test_sighup_replaces_processes_without_a_failed_call(shared):
    """During SIGHUP no call fails, even without repeats; afterwards a new plugin is loaded."""
    server = start(shared)
    before = pids(server)
    with Load(server) as load:
        load.until_more()
        install(shared, "b", key="a")
        server.signal(signal.SIGHUP)
        server.until_logged("process_replaced")
        load.until_more()
        until(lambda: len(pids(server)) == BOTH)
    assert load.failures == []
    assert load.statuses.keys() <= {200, 202}
    assert not set(pids(server)) & set(before)
    assert server.post("last", GOOD).status == 200
    assert {name for name, instance, _ in entered(shared) if instance == "last"} == {"a", "b"}
    server.stop()
    server.check_log()
    assert shared.balance().accepted == len(load.sent) + 1


def test_a_replaced_process_waits_for_its_running_handler(shared):
    """The caller gets the outcome on its connection, while new processes already serve."""
    shared.forks_children = False  # one test shows that flowhooks is executed again
    server = start(shared)
    # A process whose runner has not started leaves its callbacks to the other one, so its caller would be here and the
    # handler there.
    with Load(server, callers=8):
        until(lambda: {pid for _, _, pid in entered(shared)} == set(pids(server)))
    (gate := shared.folder / "shut-slow").touch()
    answers = []
    # Two starts of Python lie before the response.
    caller = threading.Thread(target=lambda: answers.append(server.post("slow", GOOD, Prefer="wait=60", timeout=90)))
    caller.start()
    (runs_in,) = until(lambda: [pid for _, instance, pid in entered(shared) if instance == "slow"])
    server.signal(signal.SIGHUP)
    server.until_logged("process_retiring", pid=runs_in)
    assert server.post("quick", GOOD).status == 200
    gate.unlink()
    caller.join(WAIT_TIMEOUT)
    assert [answer.status for answer in answers] == [200]
    assert answers[0].headers["Connection"] == "close"
    server.until_logged("process_replaced")
    assert [run for run in entered(shared) if run[1] == "slow"] == [("a", "slow", runs_in)]
    server.stop()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        pytest.param("answer_wait = 1000\n", "flowhooks.toml:1: answer_wait must be", id="a setting"),
        pytest.param(
            'schemas_dir = "nowhere"\n',
            "the folder of schema files nowhere does not exist",
            id="what a setting names",
            marks=pytest.mark.long,
        ),
    ],
)
def test_old_processes_continue_if_new_processes_cannot_start(shared, settings, why):
    """If new processes cannot start, the old ones continue, and the log has the reason."""
    server = start(shared)
    before = pids(server)
    config = shared.folder / "flowhooks.toml"
    config.write_text(settings)
    server.signal(signal.SIGHUP)
    assert why in server.until_logged("process_replace_failed")["why"]
    assert server.post("i", GOOD).status == 200
    assert pids(server) == before
    config.write_text("")
    server.signal(signal.SIGHUP)
    server.until_logged("process_replaced")
    assert not set(pids(server)) & set(before)
    server.stop()
    server.check_log()


def test_settings_that_need_a_restart_are_named(shared):
    """SIGHUP does not apply another number of processes or address, but applies other changes."""
    server = shared.start(config="processes = 2")
    until(lambda: len(pids(server)) == BOTH)
    (shared.folder / "flowhooks.toml").write_text('processes = 3\n[routing]\nno_handler = "reject"\n')
    server.signal(signal.SIGHUP)
    assert server.until_logged("restart_needed")["settings"] == ["processes"]
    server.until_logged("process_replaced", processes=2)
    until(lambda: len(pids(server)) == BOTH)
    assert server.post("i", {"processDefinitionKey": "nobody"}).status == 422
    server.stop()


def test_only_the_supervisor_notifies_the_service_manager(shared, tmp_path, monkeypatch):
    """Only the supervisor notifies systemd: when all are ready, reloading, reloaded and stopping."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.settimeout(WAIT_TIMEOUT)
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        server = start(shared, ready=0)
        assert next_state(manager) == b"READY=1"
        until(lambda: len(pids(server)) == BOTH)
        server.signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(1000) == b"READY=1"
        server.until_logged("process_replaced")
        (shared.folder / "flowhooks.toml").write_text("no TOML")
        server.signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\n")
        assert manager.recv(1000) == b"READY=1"
        server.until_logged("process_replace_failed")
        server.stop()
        assert manager.recv(1000) == b"STOPPING=1"


def test_sigterm_ends_all_processes_in_order(shared):
    """Waiting callers get 202, the exit code is 0, and no process is left."""
    server = start(shared)
    both = pids(server)
    gates = [shared.folder / f"shut-slow{number}" for number in range(6)]
    for gate in gates:
        gate.touch()
    answers = []
    callers = [
        threading.Thread(target=lambda name=gate.name[5:]: answers.append(server.post(name, GOOD, Prefer="wait=60")))
        for gate in gates
    ]
    for caller in callers:
        caller.start()
    until(lambda: len(entered(shared)) == len(gates))
    server.signal(signal.SIGTERM)
    for caller in callers:
        caller.join(WAIT_TIMEOUT)
    assert [answer.status for answer in answers] == [202] * len(gates)
    server.until_logged("shutdown_started", times=BOTH)
    until_refused(server.address)
    for gate in gates:
        gate.unlink()
    assert server.wait() == 0
    assert [record["all_ended"] for record in server.logged("shutdown_finished")] == [True, True]
    assert not any(map(alive, both))
    assert shared.balance().deliveries == {"succeeded": len(gates)}


def test_a_signal_to_all_processes_counts_once(shared):
    """If all processes get the signal, as from systemd, they still shut down in order."""
    server = start(shared)
    both = pids(server)
    (gate := shared.folder / "shut-slow").touch()
    server.post("slow", GOOD, Prefer="respond-async")
    until(lambda: entered(shared))
    for pid in (*both, server.process.pid):
        os.kill(pid, signal.SIGTERM)
    server.until_logged("shutdown_started", times=BOTH)
    gate.unlink()
    assert server.wait() == 0
    assert shared.balance().deliveries == {"succeeded": 1}


def test_a_second_signal_ends_all_processes_at_once(shared):
    """A second signal ends all processes at once, even with running handlers."""
    server = start(shared)
    both = pids(server)
    (shared.folder / "shut-slow").touch()
    server.post("slow", GOOD, Prefer="respond-async")
    until(lambda: entered(shared))
    server.signal()
    server.until_logged("shutdown_started", times=BOTH)
    server.signal(signal.SIGINT)
    assert server.wait() == 128 + signal.SIGINT
    until(lambda: not any(map(alive, both)))  # a killed process needs a moment to end


def test_processes_of_a_killed_supervisor_end_in_order(shared):
    """Without their supervisor all processes finish running attempts, end, and release the port."""
    server = start(shared)
    both, place = pids(server), server.address
    (gate := shared.folder / "shut-slow").touch()
    server.post("slow", GOOD, Prefer="respond-async")
    until(lambda: entered(shared))
    os.kill(server.process.pid, signal.SIGKILL)
    server.until_logged("shutdown_started", times=BOTH)
    server.until_logged("supervisor_lost", times=BOTH)
    until_refused(place)
    gate.unlink()
    until(lambda: not any(map(alive, both)))
    server.wait()
    assert shared.balance().deliveries == {"succeeded": 1}


def test_impossible_settings_of_processes_are_refused(shared, tmp_path):
    """Several processes on SQLite, zero or too many processes, and an unassigned address are refused."""
    serve = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    for words, says in (
        (("--processes", "2", "--database", tmp_path / "x.db"), "only one process may write a SQLite ledger"),
        (("--processes", "0"), "must be a whole number, 1 to 256, not 0"),
        (("--processes", "257"), "must be a whole number, 1 to 256, not 257"),
        (("--processes", "two"), "must be a whole number, 1 to 256, not 'two'"),
    ):
        refused = shared.run(*serve, *words)
        assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr
        assert not (tmp_path / "x.db").exists()
    refused = shared.run(*serve, supervisor_fd="nonsense")
    assert refused.returncode == 2
    assert "FLOWHOOKS_SUPERVISOR_FD" in refused.stderr
    checked = shared.run("check", "--database", tmp_path / "x.db", processes=3)
    assert "processes = 3 needs PostgreSQL" in checked.stdout


def test_a_failed_first_start_logs_the_reason(shared, postgresql_server):
    """If the port is used or tables are missing, the last log line says so, and no process is left."""
    url = postgresql_server.make("flowhooks_no_tables")
    try:
        server = shared.start("--processes", "2", "--database", url, ready=False)
        assert server.wait() == 1
    finally:
        postgresql_server.drop("flowhooks_no_tables")
    assert "flowhooks db upgrade" in server.lines[-1]
    assert server.lines[-1].startswith("Error: ")
    assert not any(alive(record["process"]) for record in server.logged("process_started"))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        server = shared.start("--processes", "2", listen=f"127.0.0.1:{taken.getsockname()[1]}", ready=False)
        assert server.wait() == 1
    assert "address already in use" in server.lines[-1]


def test_worker_processes_are_supervised(shared):
    """Supervised workers run a server's callbacks: a killed one restarts, SIGHUP loads plugins, SIGTERM ends all."""
    install(shared, "b")
    (shared.plugins / "b.py").rename(shared.folder / "b.py")
    server = shared.start("--no-worker", **FAST_EXPIRY)
    worker = shared.start_worker(
        "--plugins-dir", shared.plugins, "--processes", "2", "--concurrency", "1", **FAST_EXPIRY
    )
    both = until(lambda: len(found := pids(worker, "worker_started")) == BOTH and found)
    gates = [shared.folder / f"shut-i{number}" for number in range(2)]
    for gate in gates:
        gate.touch()
        server.post(gate.name[5:], GOOD, Prefer="respond-async")
    until(lambda: {pid for _, _, pid in entered(shared)} == set(both))
    os.kill(both[0], signal.SIGKILL)
    for gate in gates:
        gate.unlink()
    worker.until_logged("process_died", process=both[0])
    until(lambda: len(pids(worker, "worker_started")) == BOTH)
    (shared.folder / "b.py").rename(shared.plugins / "b.py")
    worker.signal(signal.SIGHUP)
    worker.until_logged("process_replaced")
    late = server.post("late", {"processDefinitionKey": "b"}, Prefer="respond-async").event_id
    shared.until(
        lambda ledger: [delivery_status.state for delivery_status in ledger.delivery_statuses(late)] == ["succeeded"]
    )
    shared.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 3})
    last = pids(worker, "worker_started")
    worker.stop()
    assert not any(map(alive, last))
    server.stop()
    shared.balance()
