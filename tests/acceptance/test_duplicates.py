"""Sixty-four clients send the same callback at the same moment: one row, one run, and one event in all responses."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter

import pytest

from flowhooks.ledger.queries import EventFilter

PLUGIN = '''
import os, time
from flowhooks import handler, hookimpl

@handler(process_key="twins")
def once(event, delivery):
    """Write down that it was entered."""
    line = f"{event.flow_instance_id} {event.id} {delivery.attempt}\\n".encode()
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)
    time.sleep(0.005)

@hookimpl
def handlers():
    return [once]
'''
CALLERS = 64
ROUNDS = {"sqlite": 25, "postgresql": 10}
SETTINGS = {
    "answer_wait": 5,
    "runner__kind": "embedded",
    "ledger__write_timeout": 20,  # a commit may take seconds on a busy machine
}


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request, site):
    """A site, and the number of servers that its ledger allows."""
    site.several, site.rounds = 1, ROUNDS[request.param]
    if request.param == "postgresql":
        site.database = site.url = request.getfixturevalue("postgresql_url")
        site.several = 2
    site.plugin("twins", PLUGIN)
    return site


def spellings(number):
    """The same data as different engines would write it."""
    body = {"processDefinitionKey": "twins", "businessKey": f"HT-{number}", "processDefinitionVersion": 3, "甲": [1.5]}
    return [
        json.dumps(body),
        json.dumps(dict(reversed(body.items())), ensure_ascii=False, indent=1),
        json.dumps(body | {"callBackProcessClass": None}),
        json.dumps(body).replace(": 3", ": 3.0"),
    ]


class Callers:
    """Sixty-four clients with a connection each, which all start at the same moment."""

    def __init__(self, places, rounds):
        self.rounds = rounds
        self.answers = []
        self.errors = []
        self._moment = threading.Barrier(CALLERS)
        self._threads = [
            threading.Thread(target=self._call, args=(number, places[number % len(places)]), daemon=True)
            for number in range(CALLERS)
        ]

    def run(self):
        """Send every round; return (instance, status, event id, body) of every response."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(100)
        assert self.errors == []
        return self.answers

    def _call(self, caller, place):
        connection = http.client.HTTPConnection(*place, timeout=60)
        try:
            connection.connect()
            for number in range(self.rounds):
                body = spellings(number)[caller % 4].encode()
                self._moment.wait(60)
                connection.request("POST", f"/flow/twin-{number}/call-back/complete", body)
                answer = connection.getresponse()
                raw = answer.read()
                self.answers.append((f"twin-{number}", answer.status, answer.headers["Flowhooks-Event"], raw))
        except (OSError, http.client.HTTPException, threading.BrokenBarrierError) as error:
            self.errors.append(repr(error))
            self._moment.abort()
        finally:
            connection.close()


def test_the_same_callback_at_the_same_moment(shared):
    """Each identity has one row and one run; every response is 2xx and names one event."""
    check_one_event_each(shared, shared.rounds)


@pytest.mark.long
def test_the_same_callback_at_the_same_moment_two_hundred_times(shared):
    """The same with two hundred rounds, which finds rare races."""
    check_one_event_each(shared, 200)


def check_one_event_each(shared, rounds):
    """Send every round, and check the responses, the stored rows and the runs."""
    servers = [shared.start(**SETTINGS) for _ in range(shared.several)]
    answers = Callers([server.address for server in servers], rounds).run()
    assert len(answers) == CALLERS * rounds
    assert {status for _, status, _, _ in answers} <= {200, 202}
    told = {(instance, event_id) for instance, _, event_id, _ in answers}
    assert len(told) == rounds, "one callback was answered with two events"
    shared.until(lambda ledger: ledger.verify().deliveries == {"succeeded": rounds})
    with shared.ledger() as ledger:
        stored = {
            (stored_event.event.flow_instance_id, stored_event.event.id)
            for stored_event in ledger.page(EventFilter(), limit=1000)
        }
        repeats = sum(stored_event.repeats for stored_event in ledger.page(EventFilter(), limit=1000))
    assert stored == told
    assert repeats == (CALLERS - 1) * rounds
    ran = Counter(tuple(line.split()) for line in shared.journal.read_text().splitlines())
    assert ran == Counter({(*pair, "1"): 1 for pair in told})
    for server in servers:
        server.stop()
        server.check_log()
    assert shared.balance().accepted == rounds
