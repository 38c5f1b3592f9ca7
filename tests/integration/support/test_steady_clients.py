"""The clients of a server that is replaced do not wait for earlier responses, and report each failure."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from support import steady_clients
from support.ports import free_port
from support.steady_clients import Clients
from support.waiting import WAIT_TIMEOUT, until


@pytest.fixture
def listener():
    """A listening socket, whose connections wait until a test accepts them."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield listener


@contextmanager
def answering(listener, status=202):
    """Answer all requests, each on a connection of its own."""

    def answer():
        with suppress(OSError):  # the socket listens no more
            while True:
                connection, _ = listener.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"{}") and (part := connection.recv(65536)):
                        request += part
                    connection.sendall(b"HTTP/1.1 %d \r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_each_callback_is_sent_when_it_is_due(listener):
    """Callbacks are sent while none is answered, and wait together."""
    with ExitStack() as later, Clients(listener.getsockname(), {}) as clients:
        until(lambda: len(clients.sent) >= 20)
        assert not clients.statuses
        later.enter_context(answering(listener))
        clients.until_more()
    assert clients.failures == []
    assert clients.statuses == {202: len(clients.sent)}
    assert clients.acknowledged == set(clients.sent)


@pytest.mark.parametrize(("repeat", "delayed"), [(False, False), (True, False), (False, True)])
def test_a_broken_connection_is_a_failure_without_a_repeat(listener, monkeypatch, repeat, delayed):
    """It is a failure, unless its callback is repeated: by clients that repeat, or because the client was delayed."""
    monkeypatch.setattr(steady_clients, "MAX_DELAY", 0.0 if delayed else WAIT_TIMEOUT)
    with ExitStack() as later, Clients(listener.getsockname(), {}, repeat=repeat) as clients:
        listener.accept()[0].close()
        later.enter_context(answering(listener))
        clients.until_more(5)
    assert [instance for instance, _ in clients.failures] == ([] if repeat or delayed else clients.sent[:1])
    assert clients.statuses == {202: len(clients.sent) - len(clients.failures)}


def test_a_refused_connection_is_a_failure():
    """It is one even if callbacks on broken connections are repeated."""
    with Clients(("127.0.0.1", free_port()), {}, repeat=True) as clients:
        until(lambda: clients.failures)
    assert [instance for instance, _ in clients.failures] == clients.sent
    assert "ConnectionRefusedError" in clients.failures[0][1]


def test_an_error_status_is_counted_as_no_acknowledgement(listener):
    """Its status is counted."""
    with answering(listener, 503), Clients(listener.getsockname(), {}) as clients:
        clients.until_more(1)
    assert clients.statuses == {503: len(clients.sent)}
    assert clients.acknowledged == set()
