"""Several real servers with one ledger on PostgreSQL, which accept, run, crash and restart."""

from __future__ import annotations

import signal
from collections import Counter

import psycopg
import pytest

from flowhooks.ledger.queries import EventFilter
from support.process_trials import FAST_EXPIRY
from support.waiting import until

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

@handler(process_key="shared", retry=Retry(attempts=5, delays=[0.05], jitter=0))
def work(event, delivery):
    """Write down that it was entered; wait as long as the gate is shut."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print(event.flow_instance_id, delivery.attempt, os.getpid(), file=journal, flush=True)
    gate = pathlib.Path(os.environ["JOURNAL"]).with_name("shut-" + event.flow_instance_id)
    while gate.exists():
        time.sleep(0.01)

@hookimpl
def handlers():
    return [work]
'''
BODY = {"processDefinitionKey": "shared"}


@pytest.fixture
def shared(make_site, postgresql_url):
    """A site whose servers share a ledger on PostgreSQL."""
    site = make_site()
    site.database = site.url = postgresql_url
    site.plugin("p", PLUGIN)
    return site


def entered(site):
    """(instance, attempt, process) of each run of the handler."""
    lines = site.journal.read_text().splitlines() if site.journal.exists() else []
    return [(instance, int(attempt), int(pid)) for instance, attempt, pid in map(str.split, lines)]


def shut(site, instance):
    """Make the handler wait for this instance; removing the returned file lets it continue."""
    gate = site.folder / f"shut-{instance}"
    gate.touch()
    return gate


def registered(site, pid):
    """When each registered process with this id stopped."""
    with psycopg.connect(site.database) as connection:
        return connection.execute("SELECT stopped_at FROM processes WHERE pid = %s", [pid]).fetchall()


def delivery_status(site, event_id):
    """The state of an event's only delivery."""
    with site.ledger() as ledger:
        (only,) = ledger.delivery_statuses(event_id)
    return only


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_signal_late_in_the_start_leaves_no_process_row(shared, command):
    """Once the process is registered, SIGTERM is handled when the start is done: no row looks like a live process."""
    with psycopg.connect(shared.database) as blocker:
        blocker.execute("LOCK TABLE handlers IN ACCESS EXCLUSIVE MODE")  # which a start uses after it is registered
        if command == "serve":
            starting = shared.start(ready=False)
        else:
            starting = shared.start_worker("--plugins-dir", shared.plugins, ready=False)
        assert until(lambda: registered(shared, starting.process.pid)) == [(None,)]
        starting.signal()
    assert starting.wait() == 0
    ((stopped_at,),) = registered(shared, starting.process.pid)
    assert stopped_at is not None


def test_callbacks_to_either_server_are_stored_and_run_once(shared):
    """Callbacks to either server are stored once, run once, and recognised by the other server."""
    servers = [shared.start(), shared.start()]
    first = [servers[number % 2].post(f"i{number}", BODY) for number in range(20)]
    again = [servers[(number + 1) % 2].post(f"i{number}", BODY) for number in range(20)]
    assert {answer.status for answer in (*first, *again)} == {200}
    assert [answer.event_id for answer in first] == [answer.event_id for answer in again]
    assert Counter(instance for instance, _, _ in entered(shared)) == {f"i{number}": 1 for number in range(20)}
    assert servers[1].post("i0", BODY | {"businessKey": "other"}).status == 409
    for server in servers:
        server.stop()
        server.check_log()
    assert shared.balance().accepted == 20


def test_another_server_reruns_attempts_of_a_killed_server(shared):
    """The other server expires the killed one and makes the next attempt."""
    doomed, other = shared.start(**FAST_EXPIRY), shared.start(**FAST_EXPIRY)
    gate = shut(shared, "i")
    event_id = doomed.post("i", BODY, Prefer="respond-async").event_id
    shared.until(lambda _ledger: entered(shared))
    (_, _, ran_by) = entered(shared)[0]
    victim, heir = (doomed, other) if ran_by == doomed.process.pid else (other, doomed)
    victim.kill()
    gate.unlink()
    shared.until(lambda ledger: ledger.delivery_statuses(event_id)[0].state == "succeeded")
    assert [(attempt, pid) for _, attempt, pid in entered(shared)] == [(1, ran_by), (2, heir.process.pid)]
    heir.until_logged("deliveries_recovered", now_waiting=1)
    heir.stop()
    shared.balance()


def test_an_expired_server_writes_no_stale_outcome(shared):
    """A server stopped by SIGSTOP expires; after SIGCONT its outcome is too late and changes nothing."""
    servers = [shared.start(**FAST_EXPIRY), shared.start(**FAST_EXPIRY)]
    gate = shut(shared, "i")
    event_id = servers[0].post("i", BODY, Prefer="respond-async").event_id
    shared.until(lambda _ledger: entered(shared))
    (_, _, ran_by) = entered(shared)[0]
    sleeper, other = sorted(servers, key=lambda server: server.process.pid != ran_by)
    sleeper.signal(signal.SIGSTOP)
    shared.until(lambda _ledger: len(entered(shared)) == 2)
    sleeper.signal(signal.SIGCONT)
    sleeper.until_logged("process_expired")
    gate.unlink()
    sleeper.until_logged("stale_attempt", attempt=1)
    shared.until(lambda ledger: ledger.delivery_statuses(event_id)[0].state == "succeeded")
    assert delivery_status(shared, event_id).attempt == 2
    assert [pid for _, _, pid in entered(shared)] == [ran_by, other.process.pid]
    assert sleeper.post("after", BODY).status == 200
    for server in servers:
        server.stop()
    shared.balance()


def listeners(site, of_each="pid"):
    """The number of listening connections, for each of which PostgreSQL evaluates an expression."""
    with psycopg.connect(site.url, autocommit=True) as connection:
        (number,) = connection.execute(
            f"SELECT count({of_each}) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query IN ('LISTEN flowhooks', 'SELECT 1')"
            " AND pid <> pg_backend_pid()"
        ).fetchone()
    return number


def test_a_server_without_the_plugin_answers_with_the_outcome(shared):
    """One server accepts the callback and another runs it; the first response has the outcome."""
    bare = shared.start(safe_mode="true")
    assert bare.post("early", BODY).status == 202
    able = shared.start()
    bare.until_logged("routes_changed")
    shared.until(lambda ledger: not ledger.find(EventFilter(state="parked"), limit=1))
    # This is longer than the client's timeout: an answered client was notified.
    answers = [bare.post(f"i{number}", BODY, Prefer="wait=60") for number in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert {answer.json["success"] for answer in answers} == {True}
    until(lambda: listeners(shared) == 2)  # a server connects in the background
    assert listeners(shared, "pg_terminate_backend(pid)") == 2
    bare.until_logged("notifications_reconnected")
    assert bare.post("after", BODY, Prefer="wait=60").status == 200
    assert {pid for _, _, pid in entered(shared)} == {able.process.pid}
    for server in (bare, able):
        server.stop()
        server.check_log()
    assert shared.balance().accepted == 7


def test_tables_are_created_by_command_only(make_site, postgresql_server):
    """A server does not change tables that others may use; it names the command that does."""
    site = make_site()
    name = "flowhooks_not_yet"
    site.database = site.url = postgresql_server.make(name)
    try:
        refused = site.run("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--database", site.url)
        assert refused.returncode == 1
        assert "flowhooks db upgrade" in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
        made = site.run("db", "upgrade", "--database", site.url)
        assert made.returncode == 0, made.stderr
        assert "Created flowhooks_not_yet on" in made.stdout
        site.start().stop()
    finally:
        site.close()
        postgresql_server.drop(name)


def test_commands_write_beside_the_servers(shared):
    """Commands write while servers run, because there is no exclusive lock."""
    server = shared.start()
    event_id = server.post("i", BODY).event_id
    listed = shared.run("events", "list", "--database", shared.url, "--json")
    assert event_id in listed.stdout
    again = shared.run("events", "replay", event_id, "--again", "--yes", "--database", shared.url)
    assert again.returncode == 0, again.stderr
    shared.until(lambda ledger: ledger.delivery_statuses(event_id)[0].attempt == 2)
    assert shared.run("verify", "--database", shared.url).returncode == 0
    checked = shared.run("check", "--database", shared.url, "--plugins-dir", shared.plugins)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    server.stop()
