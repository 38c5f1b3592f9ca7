"""Which connection is closed or has to wait when there are too many."""

from __future__ import annotations

import errno
import os
import resource as process
import socket
import time

import pytest
from structlog.testing import capture_logs

from flowhooks.web.server.server import Limits
from support.raw_requests import GOOD, SLOW
from support.waiting import WAIT_TIMEOUT, until


def test_connections_above_the_limit_wait(start, connect, monkeypatch):
    """Connections beyond the limit wait until another one closes, if none has been idle for some seconds."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start(max_connections=2)
    first, second = connect(server), connect(server)
    assert first.send(GOOD).answer().status == 200
    assert second.send(GOOD).answer().status == 200
    third = connect(server).send(GOOD)
    third.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        third.answer()
    first.close()
    third.socket.settimeout(WAIT_TIMEOUT)
    assert third.answer().status == 200


@pytest.fixture
def far_clients(monkeypatch):
    """Clients of a test count as clients of other machines."""
    monkeypatch.setattr("flowhooks.web.server.server.is_loopback", lambda _address: False)


def test_an_unused_connection_has_the_timeout_of_a_request(start, connect, step_clock):
    """It may stay open as long as a request may take to arrive, not as long as a connection that has been used."""
    server = start(read_timeout=WAIT_TIMEOUT, idle_timeout=WAIT_TIMEOUT * 3)
    used = connect(server).send(GOOD)
    assert used.answer().status == 200
    silent, half_sent = connect(server), connect(server).send(b"\r\n")
    until(lambda: len(server._listener.active_channels) == 3)
    step_clock(WAIT_TIMEOUT + 1)
    assert silent.closed()
    assert half_sent.closed()
    assert used.send(GOOD).answer().status == 200


def test_a_silent_connection_is_closed_for_a_new_one(start, connect, resource, eventually, monkeypatch):
    """When the limit is reached, the longest silent connection makes room; one that is used, or busy, does not."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    server = start(max_connections=4)
    used, busy = connect(server).send(GOOD), connect(server).send(SLOW)
    assert used.answer().status == 200
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    first, second = connect(server), connect(server)
    eventually(lambda: len(server._listener.active_channels) == 4)
    assert connect(server).send(GOOD).answer().status == 200
    assert first.closed()
    assert connect(server).send(GOOD).answer().status == 200
    assert second.closed()
    assert used.send(GOOD).answer().status == 200
    resource.go.set()
    assert busy.answer().status == 200


def test_the_connection_limit_is_logged(start, connect, resource, monkeypatch, caplog):
    """Once a minute at most, in a record of flowhooks, and not in one of waitress, which would close no connection."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    server = start(max_connections=2)
    busy = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    silent = [connect(server)]
    with capture_logs() as logs:
        for _ in range(2):
            silent.append(connect(server))
            assert silent[-2].closed()
    assert [(record["event"], record["max_connections"]) for record in logs] == [("connections_exhausted", 2)]
    assert not [record for record in caplog.records if record.name == "waitress"]
    resource.go.set()
    assert busy.answer().status == 200


def test_the_longest_idle_connection_is_closed_for_a_new_one(start, connect, monkeypatch, eventually):
    """Connections that have been used make room after some seconds, the longest idle one first."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.0)
    server = start(max_connections=2)
    first, second = connect(server), connect(server)
    channels = server._listener.active_channels

    def n_idle():
        return sum(channel.answered and not channel.requests for channel in list(channels.values()))

    for number, client in enumerate((second, first), start=1):
        assert client.send(GOOD).answer().status == 200
        # The answer is sent before the wait for the client starts.
        eventually(lambda number=number: n_idle() == number)
    assert connect(server).send(GOOD).answer().status == 200
    assert second.closed()
    assert first.send(GOOD).answer().status == 200


def test_connections_of_an_address_are_limited_to_a_share(start, connect, resource, far_clients, monkeypatch):
    """Beyond it a new connection takes the place of an idle one of the same client, and is closed if none is idle."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start(max_connections=40, threads=12)  # the share is a quarter
    busy = [connect(server).send(SLOW) for _ in range(9)]
    for _ in busy:
        assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    silent = connect(server)
    with capture_logs() as logs:
        tenth = connect(server).send(GOOD)
        assert tenth.answer().status == 200
        assert silent.closed()
        assert connect(server).closed()
        server.reconfigure(Limits(max_connections_per_address=11))
        assert connect(server).send(GOOD).answer().status == 200
    assert [(record["address"], record["max_connections"]) for record in logs] == [("127.0.0.1", 10)]
    resource.go.set()
    assert {client.answer().status for client in busy} == {200}
    assert tenth.send(GOOD).answer().status == 200


def test_a_client_over_its_share_closes_no_other_clients_connection(start, connect, resource, far_clients, monkeypatch):
    """When all connections are in use, its new one is closed. A client with a place takes that of an idle one."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.0)
    server = start(max_connections=4, max_connections_per_address=2)
    idle = [connect(server, source="127.0.0.2").send(GOOD) for _ in range(2)]
    assert [client.answer().status for client in idle] == [200, 200]
    busy = [connect(server).send(SLOW) for _ in range(2)]
    for _ in busy:
        assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert connect(server).closed()
    assert [client.send(GOOD).answer().status for client in idle] == [200, 200]
    assert connect(server, source="127.0.0.3").send(GOOD).answer().status == 200
    assert server._listener.connections_by_network == {"127.0.0.1": 2, "127.0.0.2": 1, "127.0.0.3": 1}
    resource.go.set()
    assert {client.answer().status for client in busy} == {200}


@pytest.mark.parametrize("proxy", ["", "127.0.0.1"])
def test_proxies_may_use_all_connections(start, connect, monkeypatch, proxy):
    """The trusted proxy, and programs on this machine, may have all connections."""
    if proxy:
        monkeypatch.setattr("flowhooks.web.server.server.is_loopback", lambda _address: False)
    server = start(max_connections=4, trusted_proxy=proxy)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        assert client.send(GOOD).answer().status == 200


def test_closed_connections_are_not_counted(start, connect, far_clients, step_clock, eventually):
    """However a connection ends, its place is free again."""
    server = start(max_connections=8, read_timeout=WAIT_TIMEOUT)  # the share is two
    for _ in range(5):
        clients = [connect(server).send(raw) for raw in (GOOD, b"hello\r\n\r\n")]
        assert [client.answer().status for client in clients] == [200, 400]
        for client in clients:
            client.close()
        eventually(lambda: not server._listener.connections_by_network)
    silent = connect(server)
    eventually(lambda: server._listener.connections_by_network)
    step_clock(WAIT_TIMEOUT + 1)
    assert silent.closed()
    eventually(lambda: not server._listener.connections_by_network)


def test_out_of_files(start, connect):
    """Without a free file handle the server waits without spinning, and accepts again later."""
    server = start()
    client = connect(server)
    assert client.send(GOOD).answer().status == 200
    waiting = socket.socket()
    soft, hard = process.getrlimit(process.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 (numbers, not paths)
    spare = []
    with capture_logs() as logs:
        process.setrlimit(process.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                spare.extend(os.dup(0) for _ in range(highest + 1))
            host, _, port = server.address.rpartition(":")
            waiting.connect((host, int(port)))
            waiting.sendall(GOOD)
            used = time.process_time()
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            assert time.process_time() - used < 0.1
            assert client.send(GOOD).answer().status == 200
            until(lambda: logs)
        finally:
            for number in spare:
                os.close(number)
            process.setrlimit(process.RLIMIT_NOFILE, (soft, hard))
        waiting.settimeout(WAIT_TIMEOUT)
        assert waiting.recv(12) == b"HTTP/1.1 200"
        waiting.close()
    assert logs[0]["event"] == "accept_failed"
