"""`flowhooks engines` with a real engine client: through the running server, and without one."""

from __future__ import annotations

import json

import pytest

from support.file_engine import CONFIG, PLUGIN, FileEngine
from support.waiting import until

RARELY = CONFIG.replace("reconcile_every = 1", "reconcile_every = 86400")


@pytest.fixture
def site(make_site):
    """A site with an engine, which a server asks by itself only once."""
    site = make_site()
    site.plugin("engine", PLUGIN)
    return site


def engines(site, *words, code=0):
    """Run `flowhooks engines` and return its output, read as JSON with --json."""
    ran = run(site, *words)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return json.loads(ran.stdout) if "--json" in words else ran.stdout


def run(site, *words, **settings):
    """Run `flowhooks engines` to its end."""
    return site.run("engines", *words, "--database", site.database, "--plugins-dir", site.plugins, **settings)


def until_reconciled(site, text, *words, code=0):
    """Reconcile until that is the result.

    If a busy machine delays an answer by seconds, the engine's clock looks wrong until the next round, which leaves out
    what has just ended.
    """
    ran = until(lambda: text in (ran := run(site, "reconcile", *words)).stdout and ran)
    assert ran.returncode == code, ran.stdout + ran.stderr


def test_reconciliation_with_and_without_a_server(site):
    """Instances are taken in by the command, by a server or without one; a dry run takes in nothing."""
    history = FileEngine(site.folder)
    server = site.start(config=RARELY)
    server.until_logged("reconciliation_finished")
    history.finish("i1", "i2")
    until_reconciled(site, "oa: 2 finished instances read, 0 have an event, 2 taken in.\n", "--source", "oa")
    site.until(lambda ledger: ledger.count_by_state()["waiting"] + ledger.count_by_state()["running"] == 0)
    assert "2 has event" in engines(site, "list")
    shown = engines(site, "show", "i1", "--json")
    assert [(entry["source"], entry["disposition"]) for entry in shown["book"]] == [("oa", "has_event")]
    assert shown["events"][0]["origin"] == "reconciled"
    assert [(answer["source"], answer["status"]) for answer in shown["engines"]] == [("oa", "running")]
    assert engines(site, "coverage", "--fresh") == "There is no definition to compare.\n"
    server.stop()
    refused = run(site, "reconcile", safe_mode="true")
    assert (refused.returncode, "no loaded plugin offers" in refused.stderr) == (2, True), refused
    assert "up to date" in engines(site, "list")
    history.finish("i3")
    for _ in range(2):
        until_reconciled(site, ", 1 would be taken in", "--dry-run")
    until_reconciled(site, "2 have an event, 1 taken in")
    assert ", 0 taken in" in engines(site, "reconcile")
    site.balance()


def test_a_reconciliation_is_confirmed(site):
    """More than max_new instances wait until the command confirms them; the command says so with exit code 1."""
    history = FileEngine(site.folder)
    server = site.start(config=f"{RARELY}max_new = 2\n")
    server.until_logged("reconciliation_finished")
    history.finish("i1", "i2", "i3")
    until_reconciled(site, "3 instances wait for --confirm", code=1)
    assert engines(site, "list", "--json")["engines"][0]["state"] == "to_confirm"
    confirmed = engines(site, "reconcile", "--source", "oa", "--confirm", "--yes", "--json")
    assert (confirmed["confirmed"], confirmed["sources"][0]["to_confirm"]) == (3, 0)
    server.stop()
    site.balance()
