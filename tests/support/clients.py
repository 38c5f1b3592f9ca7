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
        addresses: (host, port) of the servers; the list may change while the client runs.
        stop: the event that ends it.
        accepted: receives (instance, event id, status) for each 2xx response.
        problems: receives (instance, status, body) for each other response except 503.
        key: the process key of its callbacks.
        name: the prefix of its instances' ids.
        pause: seconds between two callbacks.
        max_backoff: the maximum of the exponential delay in seconds before it repeats a callback.
        history: receives each response, and each missing response.
    """

    def __init__(
        self, number, addresses, *, stop, accepted, problems, key, name="", pause=0.0, max_backoff=0.0, history=None
    ):
        super().__init__(daemon=True)
        self.number = number
        self.addresses = addresses
        self.stop = stop
        self.accepted = accepted
        self.problems = problems
        self.key = key
        self.instance_prefix = name
        self.pause = pause
        self.max_backoff = max_backoff
        self.history = history

    def run(self):
        """Send callbacks, instance after instance."""
        rng = random.Random(SEED + self.number)
        connection, server_index = None, self.number
        for number in count():
            instance = f"{self.instance_prefix}{self.number}-{number}"
            is_repeated = rng.random() < 0.2
            attempts = 0
            while not self.stop.is_set():
                attempts += 1
                try:
                    addresses = list(self.addresses)
                    connection = connection or http.client.HTTPConnection(
                        *addresses[server_index % len(addresses)], timeout=10
                    )
                    status, event_id, body = self.call(connection, instance, rng)
                except (OSError, http.client.HTTPException):
                    if connection:
                        connection.close()
                    connection, server_index = None, server_index + 1
                    self.stop.wait(max(0.01, self.retry_delay(attempts)))
                    continue
                if status in {200, 202}:
                    self.accepted.append((instance, event_id, status))
                    if not is_repeated:
                        break
                    is_repeated = False
                elif status != 503:
                    self.problems.append((instance, status, body))
                    break
                self.stop.wait(self.retry_delay(attempts) if status == 503 else 0)
            if self.stop.wait(self.pause) if self.pause else self.stop.is_set():
                break
        if connection:
            connection.close()

    def retry_delay(self, attempts):
        """The delay in seconds before the next repeat."""
        return min(self.max_backoff, 0.005 * 2 ** min(attempts, 10))

    def call(self, connection, instance, rng):
        """Send one callback."""
        headers = {"Content-Type": "application/json"}
        if rng.random() < 0.3:
            headers["Prefer"] = "respond-async"
        body = json.dumps({"processDefinitionKey": self.key, "businessKey": instance})
        status = event_id = None
        try:
            connection.request("POST", f"/flow/{instance}/call-back/complete", body, headers)
            response = connection.getresponse()
            response_body = response.read()
            status, event_id = response.status, response.headers["Flowhooks-Event"]
        finally:
            if self.history is not None:
                self.history.add(instance, body, status, event_id)
        return status, event_id, response_body


@contextmanager
def send_callbacks(addresses, *, clients, key, name="", pause=0.0, max_backoff=0.0, history=None):
    """Run engines that send callbacks during this context; yield their responses: (accepted, problems)."""
    stop, accepted, problems = threading.Event(), [], []
    engines = [
        Engine(
            number,
            addresses,
            stop=stop,
            accepted=accepted,
            problems=problems,
            key=key,
            name=name,
            pause=pause,
            max_backoff=max_backoff,
            history=history,
        )
        for number in range(clients)
    ]
    for engine in engines:
        engine.start()
    try:
        yield accepted, problems
    finally:
        stop.set()
        for engine in engines:
            engine.join(WAIT_TIMEOUT)


def until_more(accepted, count):
    """Wait until `count` more callbacks have been accepted; a repeated callback counts once."""

    def instances():
        return len({instance for instance, _, _ in list(accepted)})

    target = instances() + count
    until(lambda: instances() >= target)
