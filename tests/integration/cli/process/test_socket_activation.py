"""Which sockets of a service manager are used for which listener."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from flowhooks.cli.process import socket_activation
from flowhooks.cli.process.socket_activation import take_sockets, with_addresses
from flowhooks.errors import SettingsError
from flowhooks.settings import Settings

LISTENERS = ("listen", "admin")


@pytest.fixture
def passed(monkeypatch):
    """A function that passes sockets with consecutive numbers; returns the variables and the sockets' ports."""
    with ExitStack() as stack:

        def pass_on(*sockets, names=None):
            # Numbers that nothing else uses; `take_sockets` owns these files.
            first = 900
            for number, sock in enumerate(sockets):
                stack.enter_context(sock)
                os.dup2(sock.fileno(), first + number)
                stack.callback(close, first + number)
            monkeypatch.setattr(socket_activation, "FIRST_FILE", first)
            environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), "OTHER": "stays"}
            return environ | ({} if names is None else {"LISTEN_FDNAMES": names})

        yield pass_on


def close(number):
    """Close a file that may have been closed."""
    with suppress(OSError):
        os.close(number)


def listening():
    """A listening socket."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (None, ["listen", "admin"]),
        ("flowhooks.socket:flowhooks.socket", ["listen", "admin"]),
        ("listen:admin", ["listen", "admin"]),
        ("admin:listen", ["admin", "listen"]),
    ],
)
def test_sockets_are_assigned_by_name_or_order(passed, names, order):
    """Names of settings decide; other names mean the order of the listeners. The settings have their addresses."""
    sockets = [listening(), listening()]
    ports = [sock.getsockname()[1] for sock in sockets]
    environ = passed(*sockets, names=names)
    taken = take_sockets(environ, LISTENERS)
    try:
        assert environ == {"OTHER": "stays"}
        assert [taken[name].getsockname()[1] for name in order] == ports
        settings = with_addresses(Settings(), taken)
        assert [getattr(settings, name) for name in order] == [f"127.0.0.1:{port}" for port in ports]
        assert not any(sock.get_inheritable() for sock in taken.values())
    finally:
        for sock in taken.values():
            sock.close()


def test_a_single_unnamed_socket_is_the_callback_listener(passed):
    """A single socket without the name of a setting is the callback listener; the other one is opened as configured."""
    taken = take_sockets(passed(listening(), names="flowhooks.socket"), LISTENERS)
    assert list(taken) == ["listen"]
    taken["listen"].close()


def test_variables_for_another_process_are_ignored():
    """Variables that a parent has inherited name its process id."""
    environ = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}
    assert take_sockets(environ, LISTENERS) == {}
    assert environ == {}


def test_unusable_sockets_are_errors(passed):
    """Too many sockets, a datagram socket, a local socket and a file are errors that name the cause."""
    with pytest.raises(SettingsError, match="2 sockets were passed, at most 1 are used"):
        take_sockets(passed(listening(), listening()), ("admin",))
    local = socket.socket(socket.AF_UNIX)
    for sock in (socket.socket(type=socket.SOCK_DGRAM), socket.socket(), local):
        with pytest.raises(SettingsError, match="for listen, is no listening TCP socket"):
            take_sockets(passed(sock), LISTENERS)
    with pytest.raises(SettingsError, match="file 900 is no socket"):
        take_sockets(passed(Path(os.devnull).open()), LISTENERS)  # noqa: SIM115 (the fixture closes it)
