"""How long a connection may stay open, and what a slow client costs."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from flowhooks.web.server.channel import Channel
from flowhooks.web.server.server import Limits
from support.raw_requests import CHUNKED, GOOD, POST, SLOW
from support.waiting import WAIT_TIMEOUT, until


@pytest.mark.parametrize(
    ("version", "option", "open_after"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: TE, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: TE, Keep-Alive\r\n", True),
    ],
)
def test_keep_alive(server, connect, version, option, open_after):
    """A connection stays open according to the client's version and options."""
    client = connect(server).send(b"GET /x HTTP/" + version + b"\r\nHost: h\r\n" + option + b"\r\n")
    assert client.answer().status == 200
    if open_after:
        assert client.send(GOOD).answer().status == 200
    else:
        assert client.closed()


def n_arriving(server):
    """The number of connections on which a part of a request has arrived."""
    return sum(channel.request_started_at > 0 for channel in list(server._listener.active_channels.values()))


def n_busy(server):
    """The number of connections on which a complete request is answered, or waits for a thread."""
    return sum(len(channel.requests) > 0 for channel in list(server._listener.active_channels.values()))


def n_open(server):
    """The number of connections that the server has accepted."""
    return len(server._listener.active_channels)


@pytest.mark.parametrize("start_of_request", [b"GET /x", GOOD[:-2], POST + b"Content-Length: 900\r\n\r\n", CHUNKED])
def test_a_slow_request_ends_at_its_deadline(start, connect, ask, step_clock, start_of_request):
    """A request that arrives byte by byte is ended at its deadline with a response."""
    server = start(read_timeout=WAIT_TIMEOUT)
    client = connect(server).send(b"\r\n" + start_of_request)
    until(lambda: n_arriving(server) == 1)
    step_clock(WAIT_TIMEOUT + 1)
    byte = b"a" if start_of_request is not CHUNKED else b"0"
    client.socket.settimeout(0.02)

    def answered():
        client.send(byte)
        try:
            return client.answer()
        except TimeoutError:
            return None

    answer = until(answered)
    assert answer.status == 408
    assert answer.json["status"] == 408
    assert answer.json["path"] == ("/x" if b"\r\n" in start_of_request else "")
    assert ask(server, GOOD).status == 200


def test_deadline_does_not_run_while_the_server_works(start, connect, resource, step_clock, monkeypatch):
    """The deadline of a request behind a slow one starts when the slow one is answered."""
    checked, check = {}, Channel.check

    def check_and_note(channel, now):
        check(channel, now)
        checked[channel] = now

    monkeypatch.setattr(Channel, "check", check_and_note)
    server = start(read_timeout=WAIT_TIMEOUT)
    client = connect(server).send(SLOW + GOOD[:-4])
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    other = connect(server).send(GOOD[:-4])
    until(lambda: n_arriving(server) == 2)
    channel = next(channel for channel in list(server._listener.active_channels.values()) if channel.requests)
    step_clock(WAIT_TIMEOUT + 1)
    assert other.answer().status == 408
    resource.go.set()
    assert client.answer().json == {"slow": True}
    until(lambda: not channel.requests)
    answered = time.monotonic()
    until(lambda: checked.get(channel, 0) > answered)
    assert client.send(GOOD[-4:]).answer().status == 200


@pytest.mark.parametrize("raw", [b"", b"\r\n" * 10, GOOD])
def test_idle_connections_are_closed(start, connect, step_clock, raw):
    """A connection without a request is closed, also after earlier requests; empty lines are no request."""
    server = start(read_timeout=10 * WAIT_TIMEOUT, idle_timeout=WAIT_TIMEOUT)
    client = connect(server).send(raw)
    if raw == GOOD:
        assert client.answer().status == 200
    until(lambda: n_open(server) == 1)
    until(lambda: n_busy(server) == 0)
    step_clock(WAIT_TIMEOUT + 1)
    assert client.closed()


def test_a_client_that_disconnects_causes_no_error(start, connect, resource, caplog):
    """A client that disconnects before its response causes no error, and its path is not logged."""
    caplog.set_level("INFO")
    server = start(threads=1)
    client = connect(server).send(b"GET /slow?%0a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a TCP reset
    resource.go.set()
    assert connect(server).send(GOOD).answer().status == 200
    assert not caplog.records


def test_a_delayed_rejection_is_readable(start, connect, resource, step_clock):
    """A client can read a refusal that waited for a thread longer than the idle timeout."""
    server = start(threads=1, idle_timeout=WAIT_TIMEOUT)
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client = connect(server).send(b"x\r\n\r\n")
    until(lambda: n_busy(server) == 2)
    watch = connect(server)
    until(lambda: n_open(server) == 3)
    step_clock(WAIT_TIMEOUT + 1)
    assert watch.closed()
    resource.go.set()
    assert client.answer().status == 400
    assert client.closed()


@pytest.mark.parametrize("raw", [SLOW, b"x\r\n\r\n"], ids=["answer", "refusal"])
def test_a_response_slower_than_the_idle_timeout_is_not_cut(start, connect, resource, monkeypatch, step_clock, *, raw):
    """A long response is not cut off; the idle timeout starts when it is sent."""
    send, cut_off = Channel._flush_some, []

    def looked_at_meanwhile(channel, **given):
        channel.check(time.monotonic())
        cut_off.append(channel.will_close)
        return send(channel, **given)

    monkeypatch.setattr(Channel, "_flush_some", looked_at_meanwhile)
    server = start(threads=1, idle_timeout=WAIT_TIMEOUT)
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client = connect(server).send(raw)
    until(lambda: n_busy(server) == 2)
    watch = connect(server)
    until(lambda: n_open(server) == 3)
    step_clock(WAIT_TIMEOUT + 1)
    assert watch.closed()
    resource.go.set()
    assert client.answer().status == (200 if raw == SLOW else 400)
    assert cut_off
    assert not any(cut_off)


def test_a_client_that_does_not_read_blocks_nothing(start, connect):
    """A client that does not read its response blocks neither its connection nor the writing thread."""

    def flood(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"a" * 1_000_000 for _ in range(40))

    server = start(flood, threads=1)
    connect(server).send(GOOD)
    until(lambda: n_busy(server) == 1)
    other = connect(server).send(b"x\r\n\r\n")
    until(lambda: n_busy(server) == 2)
    server.reconfigure(Limits(idle_timeout=1))
    assert other.answer().status == 400


def test_a_client_that_reads_slowly_gets_its_whole_response(start, connect, monkeypatch, step_clock):
    """The rest of a response may take longer than the idle timeout, which starts when the client has all of it."""
    size, limit, checked = 12_000_000, WAIT_TIMEOUT, threading.Semaphore(0)  # below the mark where the thread waits

    def large(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
        return (b"a" * 1_000_000 for _ in range(size // 1_000_000))

    check = Channel.check

    def check_and_count(channel, at):
        check(channel, at)
        checked.release()

    def until_checked():
        while checked.acquire(blocking=False):
            pass
        for _ in range(2):  # the first check may have begun before
            assert checked.acquire(timeout=WAIT_TIMEOUT)

    monkeypatch.setattr(Channel, "check", check_and_count)
    server = start(large, threads=1, idle_timeout=limit)
    client = connect(server)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(GOOD)
    (channel,) = until(lambda: list(server._listener.active_channels.values()))
    until(lambda: channel.total_outbufs_len and not channel.requests)
    received, before = 0, channel.total_outbufs_len
    step_clock(0.75 * limit)
    while channel.total_outbufs_len == before:
        received += len(client.socket.recv(100_000))
    step_clock(1.5 * limit)
    until_checked()
    while received < size:
        received += len(data := client.socket.recv(100_000))
        assert data
    until(lambda: not channel.total_outbufs_len)
    until_checked()
    assert client.send(GOOD).socket.recv(100_000)


def test_a_step_of_the_clock_closes_no_connection_that_is_answered(start, connect, monkeypatch, eventually):
    """If the clock is set forward by an hour, a client that reads its response keeps its connection."""
    size, checked = 40_000_000, threading.Semaphore(0)

    def large(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
        return (b"a" * 1_000_000 for _ in range(size // 1_000_000))

    check, now = Channel.check, time.time

    def check_and_count(channel, at):
        check(channel, at)
        checked.release()

    server = start(large, threads=1, idle_timeout=20)
    client = connect(server).send(GOOD[:-2] + b"Connection: close\r\n\r\n")
    listener = server._listener
    # The writing thread waits at this mark: no more is sent until the client reads.
    mark = listener.adj.outbuf_high_watermark
    eventually(lambda: any(channel.total_outbufs_len > mark for channel in list(listener.active_channels.values())))
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    monkeypatch.setattr(Channel, "check", check_and_count)
    assert checked.acquire(timeout=WAIT_TIMEOUT)
    assert checked.acquire(timeout=WAIT_TIMEOUT)
    received = 0
    while data := client.socket.recv(1_000_000):
        received += len(data)
    assert received > size


def test_a_stalled_loop_closes_no_new_connection_with_a_request(start, connect, monkeypatch):
    """A new connection is not closed as silent before the loop has looked for what it sent."""
    sent, accept = threading.Event(), Channel.__init__

    def accept_slowly(*given, **named):
        accept(*given, **named)
        assert sent.wait(WAIT_TIMEOUT)
        time.sleep(0.4)

    monkeypatch.setattr(Channel, "__init__", accept_slowly)
    client = connect(start(read_timeout=0.3)).send(GOOD)
    sent.set()
    assert client.answer().status == 200


def test_a_stalled_loop_does_not_make_a_large_request_late(start, connect, monkeypatch):
    """A request is not late while the loop has not read all that has arrived of it."""
    begun, sent, receive = threading.Event(), threading.Event(), Channel.received

    def receive_slowly(channel, data):
        receive(channel, data)
        if not begun.is_set():
            begun.set()
            assert sent.wait(WAIT_TIMEOUT)
            time.sleep(0.4)
        else:
            time.sleep(0.1)  # longer than the loop waits between two checks

    monkeypatch.setattr(Channel, "received", receive_slowly)
    body = b"a" * 30_000  # several reads, and less than the buffer of the socket
    client = connect(start(read_timeout=0.3)).send(POST + b"Content-Length: %d\r\n\r\n" % len(body))
    assert begun.wait(WAIT_TIMEOUT)
    client.send(body)
    sent.set()
    assert client.answer().status == 200


def test_a_client_that_stops_after_a_full_read_is_ended(start, connect):
    """A request that stops after as many bytes as one read returns is ended at its deadline."""
    server = start(read_timeout=0.3)
    size = server._listener.adj.recv_bytes
    client = connect(server).send((POST + b"Content-Length: 50000\r\n\r\n").ljust(size, b"a"))
    assert client.answer().status == 408
