"""Clients that send callbacks at a steady rate while a test replaces their server. No tests."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter

from support.waiting import WAIT_TIMEOUT, until

RATE = 50
"""Callbacks a second."""


class Clients:
    """Clients that send callbacks, half of them on persistent connections; a refused connection is a failure.

    Args:
        place: (host, port) of the server.
        body: the body of each callback.
        patient: whether a callback whose connection breaks is repeated, as engines do.
        callers: the number of clients.

    Attributes:
        statuses: how often each status was answered.
        failures: the instance and the error of each callback that was not answered.
        sent: the instance of each callback.
    """

    def __init__(self, place, body, *, patient=False, callers=4):
        self.place = place
        self.body = json.dumps(body)
        self.patient = patient
        self.statuses = Counter()
        self.failures = []
        self.sent = []
        self._pause = callers / RATE
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_TIMEOUT)

    def _call(self, caller):
        connection, number = None, 0
        while not self._over.wait(self._pause):
            number += 1
            instance = f"c{caller}-{number}"
            self.sent.append(instance)
            answered = False
            while not answered:
                connection = connection or http.client.HTTPConnection(*self.place, timeout=WAIT_TIMEOUT)
                try:
                    connection.request("POST", f"/flow/{instance}/call-back/complete", self.body)
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses[answer.status] += 1
                    answered = True
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    connection = None
                    if not self.patient or isinstance(error, ConnectionRefusedError):
                        self.failures.append((instance, repr(error)))
                        break
            if connection is not None and caller % 2:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def until_more(self, count=20):
        """Wait until `count` more callbacks were answered."""
        enough = sum(self.statuses.values()) + count
        until(lambda: sum(self.statuses.values()) >= enough, why=lambda: self.failures[:3])

    def check(self, site, *, others=0, unknown=0):
        """Check that no callback was refused, lost or doubled.

        Args:
            site: the folder of the server.
            others: the number of callbacks that a test sent itself.
            unknown: how many of them are *unknown*, because a process was killed while their handlers ran.
        """
        assert self.failures == []
        assert self.statuses.keys() <= {200, 202}
        accepted = len(self.sent) + others
        expected = {"succeeded": accepted - unknown} | ({"unknown": unknown} if unknown else {})
        site.until(lambda ledger: ledger.verify().deliveries == expected)
        assert site.balance().accepted == accepted
