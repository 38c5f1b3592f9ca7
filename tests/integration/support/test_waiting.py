"""The waits of tests."""

from __future__ import annotations

import socket

from support.waiting import until_refused


def test_a_wait_for_a_refused_connection_continues_after_a_reset(monkeypatch):
    """A connection is reset if the socket is closed while it accepts it; the wait goes on until one is refused."""
    results = [ConnectionResetError, ConnectionRefusedError]

    def connect(place, timeout):
        raise results.pop(0)

    monkeypatch.setattr(socket, "create_connection", connect)
    until_refused(("127.0.0.1", 1))
    assert not results
