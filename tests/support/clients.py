"""Clients that behave like correct engines: they repeat a callback until it is acknowledged. No tests."""

from __future__ import annotations

import http.client
import json
import random
import threading
from contextlib import contextmanager
from itertools import count

from support.waiting import WAIT_TIMEOUT, until

SEED = 20260131


class Engine(threading.Thread):
    """One client that sends instance after instance.

    Args:
        number: its number, which determines its behaviour.
        places: (host, port) of the servers; the list may change meanwhile.
        stop: ends it.
        taken: gets (instance, event id, status) for each 2xx.
        problems: gets (instance, status, body) for other responses except 503.
        key: the process key of its callbacks.
        name: the start of its instances' ids.
        pause: seconds between two callbacks.
        backing_off: the maximum of the growing delay in seconds before it repeats a callback.
        history: gets each response, and each missing response.
    """

    def __init__(
        self, number, places, *, stop, taken, problems, key, name="", pause=0.0, backing_off=0.0, history=None
    ):
        super().__init__(daemon=True)
        self.number = number
        self.places = places
        self.stop = stop
        self.taken = taken
        self.problems = problems
        self.key = key
        self.begins = name
        self.pause = pause
        self.backing_off = backing_off
        self.history = history

    def run(self):
        """Send callbacks, instance after instance."""
        chance = random.Random(SEED + self.number)
        connection, turn = None, self.number
        for number in count():
            instance = f"{self.begins}{self.number}-{number}"
            again = chance.random() < 0.2
            tried = 0
            while not self.stop.is_set():
                tried += 1
                try:
                    places = list(self.places)
                    connection = connection or http.client.HTTPConnection(*places[turn % len(places)], timeout=10)
                    status, event_id, body = self.call(connection, instance, chance)
                except (OSError, http.client.HTTPException):
                    if connection:
                        connection.close()
                    connection, turn = None, turn + 1
                    self.stop.wait(max(0.01, self.rest(tried)))
                    continue
                if status in {200, 202}:
                    self.taken.append((instance, event_id, status))
                    if not again:
                        break
                    again = False
                elif status != 503:
                    self.problems.append((instance, status, body))
                    break
                self.stop.wait(self.rest(tried) if status == 503 else 0)
            if self.stop.wait(self.pause) if self.pause else self.stop.is_set():
                break
        if connection:
            connection.close()

    def rest(self, tried):
        """The delay in seconds before the next repeat."""
        return min(self.backing_off, 0.005 * 2 ** min(tried, 10))

    def call(self, connection, instance, chance):
        """Send one callback."""
        headers = {"Content-Type": "application/json"}
        if chance.random() < 0.3:
            headers["Prefer"] = "respond-async"
        body = json.dumps({"processDefinitionKey": self.key, "businessKey": instance})
        status = event_id = None
        try:
            connection.request("POST", f"/flow/{instance}/call-back/complete", body, headers)
            answer = connection.getresponse()
            raw = answer.read()
            status, event_id = answer.status, answer.headers["Flowhooks-Event"]
        finally:
            if self.history is not None:
                self.history.add(instance, body, status, event_id)
        return status, event_id, raw


@contextmanager
def calling(places, *, clients, key, name="", pause=0.0, backing_off=0.0, history=None):
    """Engines that send callbacks during this context; yields their responses: (taken, problems)."""
    stop, taken, problems = threading.Event(), [], []
    engines = [
        Engine(
            number,
            places,
            stop=stop,
            taken=taken,
            problems=problems,
            key=key,
            name=name,
            pause=pause,
            backing_off=backing_off,
            history=history,
        )
        for number in range(clients)
    ]
    for engine in engines:
        engine.start()
    try:
        yield taken, problems
    finally:
        stop.set()
        for engine in engines:
            engine.join(WAIT_TIMEOUT)


def until_more(taken, count):
    """Wait until `count` more callbacks have been accepted; a repeated one counts once."""

    def instances():
        return len({instance for instance, _, _ in list(taken)})

    wanted = instances() + count
    until(lambda: instances() >= wanted)
