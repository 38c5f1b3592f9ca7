"""Draining, retiring and closing a server over real sockets."""

from __future__ import annotations

import threading

import pytest

from flowhooks.web.server.server import Limits, Server
from flowhooks.web.server.sockets import LISTEN_BACKLOG, open_listener
from support.raw_requests import GOOD, SLOW
from support.waiting import WAIT_TIMEOUT


def test_drain_answers_running_and_queued_requests(start, connect, resource, caplog):
    """Running and queued requests are answered with Connection: close; idle connections are closed."""
    caplog.set_level("INFO")
    server = start(threads=2)
    idle = connect(server)
    assert idle.send(GOOD).answer().status == 200
    busy = [connect(server).send(SLOW) for _ in range(6)]
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    result = []
    drain = threading.Thread(target=lambda: result.append(server.drain(WAIT_TIMEOUT)))
    drain.start()
    assert idle.closed()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    resource.go.set()
    for client in busy:
        answer = client.answer()
        assert answer.json == {"slow": True}
        assert answer.headers["connection"] == "close"
        assert client.closed()
        client.close()
    drain.join(WAIT_TIMEOUT)
    assert result == [True]
    assert not caplog.records  # waitress would warn about every queued request


def test_closing_is_announced_while_new_connections_are_accepted(start, connect, resource, eventually):
    """A client learns it from its next response. The server knows whether clients do not know, and when it is quiet."""
    server = start(threads=2)
    kept = connect(server)
    assert "connection" not in kept.send(GOOD).answer().headers
    eventually(server.has_kept_connections)
    server.announce_closing()
    assert kept.send(GOOD).answer().headers["connection"] == "close"
    assert kept.closed()
    kept.close()
    later = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert not server.has_kept_connections()
    assert not server.is_quiet(0.0)
    resource.go.set()
    assert later.answer().headers["connection"] == "close"
    later.close()
    eventually(lambda: server.is_quiet(0.0))


def test_a_copied_socket_serves_connections_not_yet_accepted(start, connect, resource):
    """Connections that a retired server has not accepted are answered by the next one, on a copy of its socket."""
    server = start(threads=1)
    copy = server.duplicate_socket()
    server.retire()
    server.stop_accepting()
    client = connect(server).send(GOOD)
    start(threads=1, inherited=copy)
    assert client.answer().status == 200
    client.close()


def test_drain_answers_pipelined_and_arriving_requests(start, connect, resource, eventually):
    """All requests of a connection are answered, also an arriving one; only the last response says close."""
    server = start(threads=1)
    client = connect(server).send(SLOW + GOOD + GOOD[:10])
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    (channel,) = server._listener.active_channels.values()
    # The first request is run before the rest of the bytes is parsed.
    eventually(lambda: len(channel.requests) == 2 and channel.request_started_at > 0)
    drain = threading.Thread(target=server.drain, args=(WAIT_TIMEOUT,))
    drain.start()
    eventually(lambda: server._listener.draining)
    resource.go.set()
    assert "connection" not in client.answer().headers
    assert "connection" not in client.answer().headers
    assert client.send(GOOD[10:]).answer().headers["connection"] == "close"
    assert client.closed()
    client.close()
    drain.join(WAIT_TIMEOUT)
    assert not drain.is_alive()


def test_drain_answers_connections_not_yet_accepted(start, connect):
    """A request sent before the stop is answered, even on a connection not yet accepted."""
    held = threading.Event()
    server = start()
    server._listener.trigger.pull_trigger(lambda: held.wait(WAIT_TIMEOUT))
    clients = [connect(server).send(GOOD) for _ in range(5)]
    drain = threading.Thread(target=server.drain, args=(WAIT_TIMEOUT,))
    drain.start()
    held.set()
    for client in clients:
        assert client.answer().status == 200
        client.close()
    drain.join(WAIT_TIMEOUT)
    assert not drain.is_alive()


def test_rejected_connections_do_not_delay_the_stop(app, monkeypatch):
    """A client over its share that connects repeatedly keeps no server from closing its listening socket."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    listener, n_refused = server._listener, 0

    def refuse():
        nonlocal n_refused
        n_refused += 1
        listener._n_accepted += 1
        assert n_refused < LISTEN_BACKLOG * 2, "the server still accepts connections"

    monkeypatch.setattr(listener, "handle_accept", refuse)
    server.stop_accepting()
    assert n_refused >= LISTEN_BACKLOG  # those that waited before the stop
    server.close()


def test_drain_times_out(start, connect, resource):
    """A request that does not end in time is reported, then cut off."""
    server = start(read_timeout=20)
    connect(server).send(GOOD[:10]).socket.sendall(b"a")
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert server.drain(0.1) is False
    resource.go.set()
    server.close()


def test_a_retired_server_leaves_new_connections_to_other_servers(start, connect):
    """Of two servers on one socket, the stopping one accepts nothing more, even if it waits; the other does."""
    holds, held = threading.Event(), threading.Event()
    with open_listener("127.0.0.1:0") as socket_of_both:
        one = start(inherited=socket_of_both.dup())
        one._listener.trigger.pull_trigger(lambda: holds.set() or held.wait(WAIT_TIMEOUT))
        assert holds.wait(WAIT_TIMEOUT)
        clients = [connect(one).send(GOOD) for _ in range(5)]
        one.retire()
        held.set()
        assert one.wait_closed(WAIT_TIMEOUT)
        other = start(inherited=socket_of_both.dup())
    assert other.address == one.address
    for client in clients:
        assert client.answer().headers.keys().isdisjoint({"connection"})


def test_retire_sends_connection_close(start, connect, resource, monkeypatch):
    """A connection is closed after a response with Connection: close; an idle one after a while."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start()
    idle, active, busy = connect(server), connect(server), connect(server)
    for client in (idle, active):
        assert client.send(GOOD).answer().status == 200
    busy.send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    server.retire()
    assert server._stopped.wait(WAIT_TIMEOUT)
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert active.send(GOOD).answer().headers["connection"] == "close"
    assert active.closed()
    active.close()
    idle.socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # the connection is still open
        idle.closed()
    idle.socket.settimeout(WAIT_TIMEOUT)
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.1)
    assert idle.closed()
    assert not server.wait_closed(0)
    resource.go.set()
    assert busy.answer().headers["connection"] == "close"
    assert busy.closed()
    busy.close()
    assert server.wait_closed(WAIT_TIMEOUT)
    assert server.drain(WAIT_TIMEOUT)


def test_close_does_not_wait_for_a_hanging_thread(start, connect, resource, monkeypatch):
    """A request that hangs does not block the close; its client's connection ends."""
    monkeypatch.setattr("flowhooks.web.server.server.STOP_TIMEOUT", 0.1)
    server = start()
    client = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    server.close()
    assert client.closed()  # without the response, which exists when the request ends
    resource.go.set()


def test_stop_accepting_rejects_new_connections(start, connect):
    """New connections are refused, old ones are served as before."""
    server = start()
    client = connect(server)
    assert client.send(GOOD).answer().status == 200
    server.stop_accepting()
    server.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    answer = client.send(GOOD).answer()
    assert answer.status == 200
    assert "connection" not in answer.headers


def test_a_stop_from_within_the_loop(app):
    """A function that a signal handler calls in the serving thread does not wait for itself."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    refused = []

    def handler():
        server.stop_accepting()
        try:
            server.drain(1)
        except RuntimeError as error:
            refused.append(error)
        server.close()

    server._listener.trigger.pull_trigger(handler)
    server.serve()
    assert len(refused) == 1
    server.close()


def test_drain_and_close_of_a_server_that_never_served(app):
    """A bound server that never served can be drained and closed repeatedly, and then does not serve."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    assert server.drain(WAIT_TIMEOUT)
    server.close()
    server.close()
    server.serve()
