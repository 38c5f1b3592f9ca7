"""Sockets between processes of flowhooks block, whatever default timeout a plugin has set."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from flowhooks.sockets import socket_from_file, socket_pair


@pytest.fixture
def _default_timeout():
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(1.0)
    yield
    socket.setdefaulttimeout(previous)


@pytest.mark.usefixtures("_default_timeout")
def test_both_ends_of_a_pair_block():
    """Neither end has the default timeout. A process that inherits one of them blocks as well."""
    for end in socket_pair():
        with closing(end):
            assert end.gettimeout() is None
            assert os.get_blocking(end.fileno())


@pytest.mark.usefixtures("_default_timeout")
def test_a_socket_of_a_file_blocks():
    """A socket of an inherited file has no timeout, and blocks, even if its other owner did not let it block."""
    for inherited in socket.socketpair():
        assert not os.get_blocking(inherited.fileno())
        with closing(socket_from_file(inherited.detach())) as sock:
            assert sock.gettimeout() is None
            assert os.get_blocking(sock.fileno())
