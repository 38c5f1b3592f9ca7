"""The server itself: its addresses, its threads, and errors outside the application."""

from __future__ import annotations

import socket
import struct
import threading
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from flowhooks.errors import AddressInUse, SettingsError
from flowhooks.web.server.channel import Channel
from flowhooks.web.server.server import Limits, Server
from flowhooks.web.server.thread_pool import spare_thread, thread_pool
from flowhooks.web.server.trusted_proxy import PEER
from support.raw_requests import GOOD, SLOW
from support.waiting import WAIT_TIMEOUT


def test_connections_with_a_waiting_thread_are_not_polled(start, connect, monkeypatch):
    """However many callbacks wait for their outcome, the loop looks only at the other connections."""
    asked, readable = [], Channel.readable
    entered, go = threading.Event(), threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            pool = thread_pool(environ)
            assert pool.add_thread()
            entered.set()
            assert go.wait(WAIT_TIMEOUT)
            pool.remove_thread()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    monkeypatch.setattr(Channel, "readable", lambda self: asked.append(self) or readable(self))
    server = start(application)
    slow, other = connect(server).send(SLOW), connect(server)
    assert entered.wait(WAIT_TIMEOUT)
    assert other.send(GOOD).answer().status == 200
    asked.clear()
    for _ in range(2):  # the loop may only ask again after the first answer, and must ask to read the second request
        assert other.send(GOOD).answer().status == 200
    assert len(set(asked)) == 1
    go.set()
    assert slow.answer().status == 200
    assert slow.send(GOOD).answer().status == 200
    assert len(set(asked)) == 2


def test_a_connection_of_a_replaced_thread_is_polled(start, connect):
    """Its connection is polled: a client receives a response larger than all buffers, and may leave."""
    entered, go, ended = threading.Event(), threading.Event(), threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/slow":
            start_response("200 OK", [("Content-Length", "2")])
            yield b"ok"
            return
        start_response("200 OK", [("Content-Length", str(2_000 * 65_536))])
        try:
            with spare_thread(environ):
                entered.set()
                assert go.wait(WAIT_TIMEOUT)
                for _ in range(2_000):
                    yield b"x" * 65_536
        finally:
            ended.set()

    server = start(application)
    client = connect(server).send(SLOW)
    assert entered.wait(WAIT_TIMEOUT)
    assert connect(server).send(GOOD).answer().status == 200  # the loop has seen that the thread waits
    go.set()
    for _ in range(200):
        assert client.socket.recv(65_536)
    client.socket.close()
    assert ended.wait(WAIT_TIMEOUT)


def test_only_the_loop_closes_connections(start, connect, resource, monkeypatch):
    """A client is gone when the thread of its request asks for the next body: the loop closes the connection."""
    threads, removed = [], threading.Event()
    add_channel, del_channel = Channel.add_channel, Channel.del_channel

    def add(channel, *args):
        threads.append(threading.get_ident())
        add_channel(channel, *args)

    def remove(channel, *args):
        threads.append(threading.get_ident())
        del_channel(channel, *args)
        removed.set()

    monkeypatch.setattr(Channel, "add_channel", add)
    monkeypatch.setattr(Channel, "del_channel", remove)
    server = start(threads=1)
    announced = b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client = connect(server).send(SLOW + announced)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a TCP reset
    resource.go.set()
    assert removed.wait(WAIT_TIMEOUT)
    loop, *closing = threads
    assert set(closing) == {loop}
    assert not server._listener.active_channels


@pytest.mark.parametrize("error", [RuntimeError("secret"), OSError("secret"), SystemExit("secret")])
def test_error_outside_the_application(start, connect, error):
    """An exception without an error handler is an envelope to the caller and a traceback in the log."""

    def broken(environ, start_response):
        raise error

    server = start(broken)
    with capture_logs() as logs:
        answer = connect(server).send(b"GET /p?q HTTP/1.1\r\nHost: h\r\nAccept-Language: zh\r\n\r\n").answer()
    assert answer.status == 500
    assert answer.json["message"].startswith("服务器内部错误")
    assert answer.json["path"] == "/p"
    assert b"secret" not in answer.body
    assert logs[0]["exc_info"] is error


def test_an_error_in_the_middle_of_a_response(start, connect):
    """A response that breaks off does not look complete."""

    def broken(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a" * 10
        raise RuntimeError("secret")

    server = start(broken)
    with capture_logs() as logs:
        client = connect(server).send(GOOD)
        raw = b""
        while data := client.socket.recv(65536):
            raw += data
    assert b"aaaaaaaaaa" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert len(logs) == 1


def test_responses_do_not_reveal_the_software_version(start, connect):
    """The Server header has no version, and headers for proxies only are ignored."""
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    server = start(app)
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nRemote_Addr: 1\r\n\r\n"
    assert connect(server).send(raw).answer().headers["server"] == "flowhooks"
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert not [name for name in seen if "FORWARDED" in name]


def test_a_dual_stack_socket_has_plain_ipv4_client_addresses(start, connect):
    """A socket unit listens for IPv4 and IPv6 on one socket; each use of a client's address sees plain IPv4."""
    seen, rejected = {}, []

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    server = start(app, inherited=listening, trusted_proxy="127.0.0.1")
    server._listener.on_rejected = rejected.append
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\n"
    client = connect(SimpleNamespace(address=f"127.0.0.1:{listening.getsockname()[1]}"))
    assert client.send(raw + b"\r\n").answer().status == 200
    assert (seen["REMOTE_ADDR"], seen[PEER]) == ("192.0.2.1", "127.0.0.1")
    assert client.send(raw + b"Content-Length: x\r\n\r\n").answer().status == 400
    assert [rejection.address for rejection in rejected] == ["192.0.2.1"]


def test_two_servers_in_one_process(start, connect):
    """Two servers in one process are independent."""
    one, other = start(), start()
    assert connect(one).send(GOOD).answer().status == 200
    one.close()
    assert connect(other).send(GOOD).answer().status == 200


def test_address_in_use(server, app):
    """A used address is a clear error at once."""
    with pytest.raises(AddressInUse) as caught:
        Server(app, listen=server.address, threads=1, limits=Limits(), name="test")
    assert str(caught.value) == (
        f"cannot listen on {server.address}: address already in use (is another server running?)"
    )


@pytest.mark.parametrize("listen", ["", "8080", "localhost", "h:x", "127.0.0.1:65536", "127.0.0.1:-1", "192.0.2.1:0"])
def test_invalid_address(app, listen):
    """An invalid or foreign address is a clear error at once."""
    with pytest.raises(SettingsError, match=f"^cannot listen on {listen}: "):
        Server(app, listen=listen, threads=1, limits=Limits(), name="test")


@pytest.mark.parametrize("listen", ["localhost:0", "*:0", ":0", "[::1]:0"])
def test_valid_addresses(app, listen):
    """Names, all addresses, and IPv6 are accepted; the assigned port is reported."""
    server = Server(app, listen=listen, threads=1, limits=Limits(), name="test")
    server.close()
    host, _, port = server.address.rpartition(":")
    assert int(port) > 0
    assert host in {"127.0.0.1", "0.0.0.0", "[::1]", "[::]"}
