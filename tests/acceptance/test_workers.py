"""Workers on one PostgreSQL beside a server without a worker: each runs its own handlers, despite kills."""

from __future__ import annotations

import signal
from collections import Counter

import psycopg
import pytest

from flowhooks.model.rate import Rate
from support.process_trials import FAST_EXPIRY

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

@handler(process_key="NAME", retry=Retry(attempts=5, delays=[0.05], jitter=0))
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
    """A site whose processes share a ledger on PostgreSQL; each plugin is in a folder of its own."""
    site = sharing
    site.settings |= {"ledger__write_timeout": 20}  # a commit may take seconds on a busy machine
    for name in ("a", "b"):
        folder = site.folder / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(PLUGIN.replace("NAME", name))
    return site


def worker(site, *names, words=(), **settings):
    """A worker that has the plugins with these names."""
    folders = [word for name in names for word in ("--plugins-dir", site.folder / name)]
    return site.start_worker(*folders, *words, **site.settings, **settings)


def entered(site):
    """(handler, instance, attempt, process) of each run of a handler."""
    lines = site.journal.read_text().splitlines() if site.journal.exists() else []
    return [(name, instance, int(attempt), int(pid)) for name, instance, attempt, pid in map(str.split, lines)]


def shut(site, instance):
    """Make the handler wait for this instance; removing the returned file lets it continue."""
    gate = site.folder / f"shut-{instance}"
    gate.touch()
    return gate


def all_succeeded(*event_ids):
    """Whether all deliveries of these events have succeeded."""
    return lambda ledger: all(
        (found := ledger.delivery_statuses(event_id)) and {it.state for it in found} == {"succeeded"}
        for event_id in event_ids
    )


def test_each_worker_runs_its_own_handlers_and_the_server_none(shared):
    """A server without plugins learns the handlers of its workers, also of workers that start later."""
    server = shared.start("--no-worker", **shared.settings)
    early = [server.post(f"{name}0", {"processDefinitionKey": name}, **ASYNC) for name in "ab"]
    workers = {name: worker(shared, name) for name in "ab"}
    shared.until(all_succeeded(*(answer.event_id for answer in early)))
    server.until_logged("routes_changed", others=2)
    late = [
        server.post(f"{name}{number}", {"processDefinitionKey": name}, **ASYNC)
        for name in "ab"
        for number in range(1, 6)
    ]
    assert {answer.status for answer in late} == {202}
    shared.until(all_succeeded(*(answer.event_id for answer in late)))
    ran = Counter((name, pid) for name, _, _, pid in entered(shared))
    assert ran == {(name, worker.process.pid): 6 for name, worker in workers.items()}
    for process in (server, *workers.values()):
        process.stop()
        process.check_log()
    assert shared.balance().accepted == 12
    with psycopg.connect(shared.url) as connection:
        counted = connection.execute("SELECT subject, sum(count)::int FROM trends GROUP BY subject").fetchall()
    assert dict(counted) == {"a:work": 6, "b:work": 6, "default": 12}


@pytest.mark.parametrize("sharing", ["embedded", "procrastinate"], indirect=True)
def test_another_worker_runs_the_deliveries_of_a_killed_worker(shared):
    """After a kill the other worker repeats the running delivery and runs the waiting one."""
    shared.settings |= FAST_EXPIRY
    workers = [worker(shared, "a", words=("--concurrency", "1")) for _ in range(2)]
    server = shared.start("--no-worker", **shared.settings)
    gate = shut(shared, "i")
    first = server.post("i", {"processDefinitionKey": "a"}, **ASYNC).event_id
    shared.until(lambda _ledger: entered(shared))
    (_, _, _, ran_by) = entered(shared)[0]
    victim, heir = sorted(workers, key=lambda worker: worker.process.pid != ran_by)
    victim.kill()
    gate.unlink()
    others = [server.post(f"j{number}", {"processDefinitionKey": "a"}, **ASYNC).event_id for number in range(5)]
    shared.until(all_succeeded(first, *others))
    tries = [(attempt, pid) for _, instance, attempt, pid in entered(shared) if instance == "i"]
    assert tries == [(1, ran_by), (2, heir.process.pid)]
    assert Counter(instance for _, instance, _, _ in entered(shared)) == {"i": 2} | {f"j{n}": 1 for n in range(5)}
    server.stop()
    heir.stop()
    shared.balance()


def test_processes_share_a_rate_despite_a_kill(shared):
    """Three processes, one of which is killed, start no more attempts than the rate allows, and run everything."""
    shared.settings |= FAST_EXPIRY
    source = shared.folder / "a" / "a.py"
    source.write_text(source.read_text().replace('key="a",', 'key="a", rate="20/s",'))
    server = shared.start("--plugins-dir", shared.folder / "a", **shared.settings)
    workers = [worker(shared, "a") for _ in range(2)]
    events = [server.post(f"i{number}", {"processDefinitionKey": "a"}, **ASYNC).event_id for number in range(50)]
    shared.until(lambda _ledger: len(entered(shared)) > 20)
    workers[0].kill()
    shared.until(all_succeeded(*events))
    assert {instance for _, instance, _, _ in entered(shared)} == {f"i{number}" for number in range(50)}
    with psycopg.connect(shared.url) as connection:
        attempts = connection.execute("SELECT started_at, finished_at FROM attempts").fetchall()
    assert len(attempts) >= 50
    # A start is noted before its transaction waits, for the writer of its process and for other processes. So what is
    # certain is that the rate allowed an attempt between its start and its end.
    rate = Rate.parse("20/s")
    for begin, _ in attempts:
        for _, end in attempts:
            allowed = sum(begin <= started and finished <= end for started, finished in attempts)
            assert allowed <= max(0, end - begin) / rate.interval + rate.burst
    for process in (server, workers[1]):
        process.stop()
    shared.balance()


def test_sigterm_waits_for_running_attempts_and_leaves_the_rest(shared):
    """On SIGTERM a worker records running attempts and exits with 0; another worker runs the rest."""
    server = shared.start("--no-worker", **shared.settings)
    leaving = worker(shared, "a", words=("--concurrency", "1"))
    server.until_logged("routes_changed", others=1)
    gate = shut(shared, "i")
    running = server.post("i", {"processDefinitionKey": "a"}, **ASYNC).event_id
    shared.until(lambda _ledger: entered(shared))
    waiting = [server.post(f"j{number}", {"processDefinitionKey": "a"}, **ASYNC).event_id for number in range(5)]
    leaving.signal(signal.SIGTERM)
    leaving.until_logged("shutdown_started", running=1)
    gate.unlink()
    assert leaving.wait() == 0
    assert leaving.logged("shutdown_finished", all_ended=True)
    shared.until(all_succeeded(running))
    heir = worker(shared, "a")
    shared.until(all_succeeded(*waiting))
    assert Counter(instance for _, instance, _, _ in entered(shared)) == {"i": 1} | {f"j{n}": 1 for n in range(5)}
    assert {attempt for _, _, attempt, _ in entered(shared)} == {1}
    heir.stop()
    server.stop()
    shared.balance()


def test_a_worker_runs_only_handlers_that_match_its_patterns(shared):
    """Of two loaded handlers, a worker runs only those that match its patterns."""
    only_b = worker(shared, "a", "b", words=("--handlers", "b:*"))
    server = shared.start("--no-worker", **shared.settings)
    events = {name: server.post(name, {"processDefinitionKey": name}, **ASYNC).event_id for name in "ab"}
    shared.until(all_succeeded(events["b"]))
    with shared.ledger() as ledger:
        assert [delivery_status.state for delivery_status in ledger.delivery_statuses(events["a"])] == ["waiting"]
    assert only_b.logged("worker_started", runs=1, handlers=2)
    rest = worker(shared, "a", "b", words=("--handlers", "a:*", "--handlers", "nob*:*"), ready=False)
    assert rest.wait() == 2
    assert "--handlers nob*:* matches no loaded handler: a:work, b:work" in rest.lines[-1]
    rest = worker(shared, "a", "b", words=("--handlers", "a:w*"))
    shared.until(all_succeeded(events["a"]))
    assert {name: pid for name, _, _, pid in entered(shared)} == {"a": rest.process.pid, "b": only_b.process.pid}
    for process in (rest, only_b, server):
        process.stop()
    shared.balance()


def test_a_worker_with_admin_serves_healthz_and_readyz(shared):
    """With --admin a worker serves /healthz and /readyz; without it, a worker does not listen."""
    one = worker(shared, "a", words=("--admin", "127.0.0.1:0"))
    assert one.ask("GET", "/healthz", admin=True).status == 200
    assert one.ask("GET", "/readyz", admin=True).json == {"ready": True, "trouble": []}
    other = worker(shared, "a")
    assert other.until_logged("worker_started")["admin"] is None
    for process in (one, other):
        process.stop()


def test_a_worker_without_postgresql_or_a_handler_is_refused(shared, site):
    """A worker or a server without a worker on SQLite, and a worker without a handler, are refused."""
    for words in (("worker",), ("serve", "--no-worker", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")):
        refused = site.run(*words, "--database", site.database)
        assert refused.returncode == 2, refused.stderr
        assert "only one process may write a SQLite ledger" in refused.stderr
        assert "PostgreSQL" in refused.stderr
    idle = worker(shared, ready=False)
    assert idle.wait() == 2
    assert "no plugin has a handler" in idle.lines[-1]


def test_a_delivery_replayed_by_a_command_runs_in_a_worker(shared):
    """A delivery replayed by a command runs in a worker."""
    first_worker = worker(shared, "a")
    server = shared.start("--no-worker", **shared.settings)
    event_id = server.post("i", {"processDefinitionKey": "a"}, **ASYNC).event_id
    shared.until(all_succeeded(event_id))
    again = shared.run("events", "replay", event_id, "--again", "--yes", "--database", shared.url, **shared.settings)
    assert again.returncode == 0, again.stderr
    shared.until(
        lambda ledger: (found := ledger.delivery_statuses(event_id)[0]).attempt == 2 and found.state == "succeeded"
    )
    for process in (server, first_worker):
        process.stop()
    shared.balance()


def test_sighup_reloads_the_settings_of_a_worker(shared):
    """SIGHUP applies what can change, logs the names of settings that need a restart, and the worker continues."""
    file = shared.folder / "flowhooks.toml"
    file.write_text("")
    working = worker(shared, "a")
    file.write_text('[log]\nlevel = "debug"\n[runner]\nthreads = 3\n')
    working.signal(signal.SIGHUP)
    assert working.until_logged("settings_reloaded")["changed"] == ["log.level"]
    assert working.until_logged("restart_needed")["settings"] == ["runner.threads"]
    file.write_text("no TOML")
    working.signal(signal.SIGHUP)
    working.until_logged("settings_reload_failed")
    assert working.process.poll() is None
    working.stop()


BLOCKS = '''
import os, pathlib, time
from flowhooks import handler, hookimpl

@handler(process_key="c")
def work(event):
    """Write down that it was entered, and never return."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print("c", event.flow_instance_id, 1, os.getpid(), file=journal, flush=True)
    while True:
        time.sleep(0.05)

@hookimpl
def handlers():
    return [work]
'''
COPIES = (
    """
    INSERT INTO events SELECT copy.* FROM events event, generate_series(1, 9999) number, jsonb_populate_record(event,
        jsonb_build_object('id', event.id || number, 'flow_instance_id', number, 'identity_sha256', number)) copy
    """,
    """
    INSERT INTO deliveries SELECT copy.* FROM deliveries delivery, generate_series(1, 9999) number,
        jsonb_populate_record(delivery, jsonb_build_object('id', delivery.id || number, 'event_id', event_id || number))
        copy
    """,
)


@pytest.mark.parametrize("sharing", ["embedded", "procrastinate"], indirect=True)
def test_a_kill_leaves_only_deliveries_in_running_slots_unknown(shared):
    """Of ten thousand due deliveries, only those in the six slots of the killed worker's handler are unknown."""
    shared.settings |= FAST_EXPIRY
    folder = shared.folder / "c"
    folder.mkdir()
    (folder / "c.py").write_text(BLOCKS)
    server = shared.start("--no-worker", "--plugins-dir", folder, **shared.settings)
    server.post("c0", {"processDefinitionKey": "c"}, **ASYNC)
    with psycopg.connect(shared.url) as connection:
        for copies in COPIES:
            connection.execute(copies)
    victim = worker(shared, "c", runner__threads=8)
    shared.until(lambda _ledger: len(entered(shared)) == 6)
    victim.kill()
    shared.until(lambda ledger: ledger.count_by_state()["running"] == 0)
    with shared.ledger() as ledger:
        tally = ledger.count_by_state()
    assert (tally["unknown"], tally["waiting"]) == (6, 9_994)
    assert len(entered(shared)) == 6
    server.stop()  # the next test uses the same database
