"""Servers on PostgreSQL are replaced one after the other, as by the Helm chart, while clients send callbacks."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.waiting import until

PLUGIN = '''
import os, pathlib, time
from flowhooks import handler, hookimpl

@handler(process_key="rolling")
def work(event, delivery):
    """Record the instance; wait as long as its gate is shut."""
    journal = pathlib.Path(os.environ["JOURNAL"])
    with journal.open("a") as file:
        print(event.flow_instance_id, file=file, flush=True)
    while journal.with_name("shut-" + event.flow_instance_id).exists():
        time.sleep(0.01)

@hookimpl
def handlers():
    return [work]
'''
BODY = {"processDefinitionKey": "rolling"}
CLIENTS = 3
SETTINGS = {"ledger__write_timeout": 20}
"""A commit may take seconds on a busy machine."""


class Balancer:
    """Clients that send callbacks to the current servers in turn, and count which list of servers they use."""

    def __init__(self, servers):
        self.answers = {}
        self._servers, self._version = list(servers), 0
        self._used = dict.fromkeys(range(CLIENTS), 0)
        self._stop = threading.Event()

    def send(self, client):
        """Send callbacks until `stop`. Each has to be answered the first time."""
        sent = 0
        while not self._stop.wait(0.01):
            version, servers = self._version, self._servers
            self._used[client] = version
            instance = f"{client}-{sent}"
            self.answers[instance] = servers[sent % len(servers)].post(instance, BODY)
            sent += 1

    def change(self, servers):
        """Use other servers. The clients learn it one by one, and the old servers still serve meanwhile."""
        self._servers, self._version = list(servers), self._version + 1
        until(lambda: min(self._used.values()) == self._version)

    def stop(self):
        """Let the clients stop."""
        self._stop.set()


@pytest.fixture
def shared(make_site, postgresql_url):
    """A site whose servers share a ledger on PostgreSQL."""
    site = make_site()
    site.database = site.url = postgresql_url
    site.plugin("p", PLUGIN)
    return site


def replace(site, balancer, pool, servers, number):
    """Replace one of the servers by a new one, which is ready before; return the server that has stopped."""
    new, old = site.start(**SETTINGS), servers[number]
    until(lambda: new.ask("GET", "/readyz", admin=True).status == 200)
    gate = site.folder / f"shut-waiting-{number}"
    gate.touch()
    waiting = pool.submit(old.post, f"waiting-{number}", BODY, Prefer="wait=60", timeout=90)
    until(lambda: f"waiting-{number}" in site.journal.read_text().split())
    servers[number] = new
    balancer.change(servers)
    old.signal()
    old.until_logged("shutdown_started")
    gate.unlink()
    assert old.wait() == 0
    balancer.answers[f"waiting-{number}"] = waiting.result()
    return old


def test_a_rolling_update_loses_no_callback(shared):
    """No callback is refused or lost while all servers are replaced, and each handler runs once."""
    servers = [shared.start(**SETTINGS), shared.start(**SETTINGS)]
    balancer = Balancer(servers)
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        clients = [pool.submit(balancer.send, client) for client in range(CLIENTS)]
        try:
            until(lambda: len(balancer.answers) > CLIENTS)
            for number in range(len(servers)):
                old = replace(shared, balancer, pool, servers, number)
                assert old.logged("shutdown_finished", all_ended=True)
        finally:
            balancer.stop()
        for client in clients:
            client.result()
    statuses = Counter(answer.status for answer in balancer.answers.values())
    assert set(statuses) <= {200, 202}, statuses
    ids = [answer.event_id for answer in balancer.answers.values()]
    shared.until(
        lambda ledger: all({it.state for it in ledger.delivery_statuses(event_id)} == {"succeeded"} for event_id in ids)
    )
    assert shared.balance().accepted == len(ids)
    assert Counter(shared.journal.read_text().split()) == Counter(list(balancer.answers))
