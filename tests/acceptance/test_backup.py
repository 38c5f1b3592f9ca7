"""A backup made while engines send callbacks, restored elsewhere, has every callback acknowledged before it began."""

from __future__ import annotations

import json
import shutil

import pytest

from support.clients import send_callbacks, until_more

PLUGIN = """
import os
from flowhooks import handler, hookimpl

@handler(process_key="backup")
def note(event, delivery):
    with open(os.environ["JOURNAL"], "a") as journal:
        print(event.flow_instance_id, file=journal)

@hookimpl
def handlers():
    return [note]
"""


def test_backup_under_load_and_restore(make_site):
    """The backup has callbacks acknowledged before it began, its counts balance, and a server continues with it."""
    site, other = make_site(), make_site()
    for each_site in (site, other):
        each_site.plugin("p", PLUGIN)
    server = site.start(answer_wait=0.5)
    target = site.folder / "backup.db"
    with send_callbacks([server.address], clients=6, key="backup") as (taken, problems):
        until_more(taken, 300)
        acknowledged = list(taken)
        done = site.run("db", "backup", str(target), "--json", "--database", site.database)
        until_more(taken, 50)
    assert problems == []
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["balanced"]
    assert said["events"] >= len({instance for instance, _, _ in acknowledged})
    server.stop()

    shutil.copy(target, other.database)
    restored = other.start(answer_wait=10, ledger__write_timeout=20)  # a commit may take seconds on a busy machine
    other.balance()
    for instance, event_id, _ in acknowledged:
        with other.ledger() as ledger:
            assert ledger.event(event_id).event.flow_instance_id == instance
    # An attempt that ran while the backup was made is unknown to the restored server.
    ended = [(instance, event_id) for instance, event_id, status in acknowledged if status == 200]
    for instance, event_id in ended[:20]:
        answer = restored.post(instance, {"processDefinitionKey": "backup", "businessKey": instance})
        assert (answer.status, answer.event_id) == (200, event_id)
    assert restored.post("new", {"processDefinitionKey": "backup"}).status == 200
    other.until(lambda ledger: ledger.count_by_state()["waiting"] + ledger.count_by_state()["running"] == 0)
    restored.stop()
    other.balance()


@pytest.mark.long
def test_a_large_backup_ends_under_continuous_writes(make_site):
    """A large backup ends while engines send callbacks, and engines do not wait for it."""
    site = make_site()
    site.plugin("p", PLUGIN)
    server = site.start(answer_wait=0)
    padding = "x" * 200_000
    for number in range(500):
        server.post(f"large{number}", {"processDefinitionKey": "nobody", "padding": padding})
    with send_callbacks([server.address], clients=6, key="backup") as (taken, problems):
        until_more(taken, 50)
        done = site.run("db", "backup", str(site.folder / "backup.db"), "--json", "--database", site.database)
        during = len(taken)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] > 500 * 200_000
    assert problems == []
    assert during > 50
