"""Callers as engines should be: they repeat a callback until it is acknowledged. No tests of their own."""

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
    """One caller, instance after instance.

    Args:
        number: of this one; it decides what it does.
        places: (host, port) of the servers; the list may change meanwhile.
        stop: ends it.
        taken: gets (instance, event id, status) for each 2xx.
        problems: gets (instance, status, body) for all else that is answered, but 503.
        key: the process key of its callbacks.
        name: what its instances' ids begin with.
        pause: seconds between two callbacks.
        backing_off: seconds that it waits at most before it repeats one; at first it is quick, as engines are.
    """

    def __init__(self, number, places, *, stop, taken, problems, key, name="", pause=0.0, backing_off=0.0):
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

    def run(self):
        """Call back, instance after instance."""
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
        """Seconds before it calls again, having tried so often."""
        return min(self.backing_off, 0.005 * 2 ** min(tried, 10))

    def call(self, connection, instance, chance):
        """One callback."""
        headers = {"Content-Type": "application/json"}
        if chance.random() < 0.3:
            headers["Prefer"] = "respond-async"
        body = json.dumps({"processDefinitionKey": self.key, "businessKey": instance})
        connection.request("POST", f"/flow/{instance}/call-back/complete", body, headers)
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, answer.headers["Flowhooks-Event"], raw


@contextmanager
def calling(places, *, clients, key, name="", pause=0.0, backing_off=0.0):
    """Engines that call while this lasts; what they were answered: (taken, problems)."""
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
    """Wait until so many more callbacks have been taken; one that came again is still one."""

    def instances():
        return len({instance for instance, _, _ in list(taken)})

    wanted = instances() + count
    until(lambda: instances() >= wanted)
