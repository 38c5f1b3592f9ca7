"""Servers that reconcile with an engine: stopped, and killed at each step, they take in each instance exactly once."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from flowhooks.background.reconciliation.due import PAGE_OF_DUE
from flowhooks.failpoints import FAILPOINTS
from flowhooks.ledger import engine_queries
from flowhooks.ledger.queries import EventFilter
from support.file_engine import CONFIG, PLUGIN, FileEngine
from support.process_trials import FAST_EXPIRY
from support.waiting import until

NAMES = [f"i{number}" for number in range(7)]
POINTS = {
    "reconcile.leased": 3,
    "reconcile.page_written": 2,
    "reconcile.page_committed": 1,
    "reconcile.read": 3,
    "reconcile.taken_in": 3,
    "reconcile.finished": 3,
}
"""Each failpoint of a round, and at which hit the process is killed."""
OF_A_DECLINE = {"reconcile.declining": 0, "reconcile.declined": PAGE_OF_DUE}
"""Each failpoint of a decline, and how many instances are declined when the process is killed there."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def place(request, make_site):
    """A site whose source has an engine, on each database."""
    return prepared(make_site(), request, request.param)


@pytest.fixture
def cluster(request, make_site):
    """The same on PostgreSQL."""
    return prepared(make_site(), request, "postgresql")


def prepared(site, request, database):
    """Install the plugin; use the database."""
    site.plugin("engine", PLUGIN)
    if database == "postgresql":
        site.database = site.url = request.getfixturevalue("postgresql_url")
    return site


def taken_in(ledger):
    """The number of events of each instance."""
    return Counter(stored.event.flow_instance_id for stored in ledger.find(EventFilter(), limit=100))


def until_taken_in(site, names=NAMES):
    """Wait until each instance has its event, and check that it has one, from the history."""
    site.until(lambda ledger: taken_in(ledger).keys() >= set(names))
    with site.ledger() as ledger:
        assert taken_in(ledger) == Counter(names)
        assert {stored.event.origin for stored in ledger.find(EventFilter(), limit=100)} == {"reconciled"}
    site.until(lambda ledger: ledger.count_by_state()["waiting"] + ledger.count_by_state()["running"] == 0)


def test_the_table_has_every_point_of_a_round():
    """Each failpoint of reconciliation kills a process here."""
    assert {*POINTS, *OF_A_DECLINE} == {name for name in FAILPOINTS if name.startswith("reconcile.")}


@pytest.mark.parametrize("point", POINTS)
def test_a_round_that_is_killed_is_repeated(place, point):
    """`kill -9` at each step of a round: after a restart, every instance has exactly one event."""
    engine = FileEngine(place.folder)
    server = place.start(config=CONFIG, failpoint=f"{point}:{POINTS[point]}", **FAST_EXPIRY)
    server.until_logged("reconciliation_finished")
    engine.finish(*NAMES)
    assert server.wait() == -signal.SIGKILL
    server = place.start(config=CONFIG, **FAST_EXPIRY)
    until_taken_in(place)
    server.stop()
    server.check_log()
    place.balance()


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=pytest.mark.long if done == 0 else ()) for point, done in OF_A_DECLINE.items()]
)
def test_a_decline_that_is_killed_is_finished_by_the_next_round(place, point):
    """`kill -9` in a decline: after a restart, the next round declines the rest, although `max_new` allows it."""
    config = CONFIG.replace("page_size = 3", f"page_size = 1000\nmax_new = {PAGE_OF_DUE + 1}")
    names = [f"i{number}" for number in range(PAGE_OF_DUE + 2)]
    engine = FileEngine(place.folder)
    is_in_server = place.url.startswith("sqlite")  # on PostgreSQL, the command declines itself
    server = place.start(config=config, **({"failpoint": f"{point}:1"} if is_in_server else {}), **FAST_EXPIRY)
    server.until_logged("reconciliation_finished")
    engine.finish(*names)
    server.until_logged("reconciliation_unconfirmed")
    place.until(lambda ledger: waiting_instances(ledger) == len(names))  # the end of the round stores the number
    if is_in_server:
        assert decline(place).returncode == 1
        assert server.wait() == -signal.SIGKILL
    else:
        server.stop()
        assert decline(place, failpoint=f"{point}:1").returncode == -signal.SIGKILL
    with place.ledger() as ledger:
        assert declined(ledger) == OF_A_DECLINE[point]
    server = place.start(config=config, **FAST_EXPIRY)
    place.until(lambda ledger: declined(ledger) == len(names))
    assert instances_for_decline(place) == 0
    engine.finish("later")
    until_taken_in(place, ["later"])
    server.stop()
    server.check_log()
    place.balance()


def decline(site, *words, **settings):
    """Run `flowhooks engines decline`."""
    settings |= {"database": site.database, "plugins_dirs": site.plugins}
    return site.run("engines", "decline", "--source", "oa", *(words or ("--yes",)), **settings)


def instances_for_decline(site):
    """How many instances a decline would decline."""
    shown = decline(site, "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["dry_run"]
    return json.loads(shown.stdout)["instances"]


def declined(ledger):
    """The number of declined instances."""
    with ledger.connection() as connection:
        return engine_queries.book_counts(connection, "oa").get(("skipped", "declined"), 0)


def waiting_instances(ledger):
    """The number of instances that wait for an operator."""
    with ledger.connection() as connection:
        return engine_queries.waiting(connection, "oa").instances


def test_a_stop_in_the_middle_of_a_page(place):
    """SIGTERM while the engine answers ends the server in time, and the next start reads the page again."""
    engine = FileEngine(place.folder)
    server = place.start(config=CONFIG, **FAST_EXPIRY)
    server.until_logged("reconciliation_finished")
    engine.finish(*NAMES)
    engine.block()
    until(engine.blocked_requests)
    server.stop()
    server.check_log()
    engine.unblock()
    server = place.start(config=CONFIG, **FAST_EXPIRY)
    until_taken_in(place)
    server.stop()


def test_one_of_two_servers_reconciles_and_the_other_takes_over(cluster):
    """Of two servers one reads the history at a time; after `kill -9` of it in a page, the other one continues."""
    engine = FileEngine(cluster.folder)
    servers = [cluster.start(config=CONFIG, **FAST_EXPIRY) for _ in range(2)]
    # Instances that ended before the first contact are not taken in.
    until(lambda: any(server.logged("reconciliation_finished") for server in servers))
    engine.finish("first")
    until_taken_in(cluster, ["first"])
    engine.block()
    (holder,) = until(engine.blocked_requests)
    engine.finish(*NAMES)
    killed, other = sorted(servers, key=lambda server: server.process.pid != holder)
    assert killed.process.pid == holder
    assert engine.blocked_requests() == [holder]
    killed.kill()
    until(lambda: engine.blocked_requests() == [holder, other.process.pid])
    engine.unblock()
    until_taken_in(cluster, ["first", *NAMES])
    other.stop()
    other.check_log()
    cluster.balance()


def test_a_client_that_is_not_installed_prevents_the_start(make_site):
    """A server whose settings name an unknown client does not start, and says which plugin to install."""
    # No plugin is denied, because one that is denied could offer the client.
    server = make_site().start(config=CONFIG.replace('"file"', '"other"'), ready=False, plugins_deny="")
    assert server.wait() == 2
    assert "such as flowhooks-other" in "\n".join(server.lines)


def test_the_safe_mode_starts_without_the_client(make_site):
    """Safe mode starts a server whose source has an engine, and the check has no problem with it."""
    site = make_site()
    site.plugin("engine", PLUGIN)
    server = site.start(config=CONFIG, safe_mode="true")
    assert "without it" in server.until_logged("engine_client_refused")["next"]
    server.until_logged("reconciliation_failed")
    checked = site.run("check", "--plugins-dir", site.plugins, safe_mode="true")
    assert "safe mode: the engine of oa is not asked" in checked.stdout
    assert checked.returncode == 0, checked.stdout
    server.stop()


def test_a_reload_adds_and_removes_engines(place):
    """SIGHUP adds an engine, and removes it; a client that does not exist is logged and stops nothing else."""
    engine = FileEngine(place.folder)
    server = place.start(**FAST_EXPIRY)
    config = place.folder / "flowhooks.toml"
    config.write_text(CONFIG)
    server.reload()
    server.until_logged("reconciliation_finished")
    engine.finish(*NAMES)
    until_taken_in(place)
    config.write_text(CONFIG.replace('"file"', '"other"'))
    server.reload()
    assert "no loaded plugin offers" in server.until_logged("engine_client_refused")["why"]
    asked = len(engine.page_requests())
    config.write_text(CONFIG)
    server.reload()
    until(lambda: len(engine.page_requests()) > asked)
    server.stop()
    server.check_log()
