"""The fork server: a single-threaded process that has loaded the plugins and forks the handler processes.

A fork of the server itself would inherit the locks of its threads and its connections.

Messages are lines of JSON. The server sends `{"fork": 7}` together with two file descriptors, a socket to the server
and a pipe for the output, and `{"signal": 7, "number": 9}`. The fork server sends `{"ready": …}` once, then
`{"forked": 7, "pid": …}` and `{"ended": 7, …}`. When the server closes the connection or exits for any reason, the fork
server kills all its processes and exits.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from flowhooks import __version__
from flowhooks.execution.isolation.config import ForkServerConfig
from flowhooks.execution.isolation.log_forwarding import install
from flowhooks.execution.isolation.worker import serve
from flowhooks.plugins.source_digests import source_digests
from flowhooks.signals import STOP_SIGNALS, SignalWaiter, ignore_signal
from flowhooks.sockets import socket_from_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.plugins.plugins import Plugins

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_LIBC: Final = ctypes.CDLL(None)
_FILES_PER_FORK: Final = 2
"""File descriptors that are sent with each `fork` request."""


def main(control: int, parent: int) -> NoReturn:
    """Load the plugins, then serve fork requests until the server closes the connection.

    Args:
        control: file descriptor of the connection to the server.
        parent: the server's process id.
    """
    _prctl(_PR_SET_NAME, b"flowhooks-fork")
    exit_with_parent(parent)
    control_socket = socket_from_file(control)
    control_socket.set_inheritable(False)
    try:
        config = ForkServerConfig.receive(control_socket)
    except EOFError:
        os._exit(0)
    if config.version != __version__:
        sys.exit(f"flowhooks {__version__} is installed now, but the server runs {config.version}: restart it")
    sys.path[:] = config.path
    if config.cores and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # an operator may have removed these cores meanwhile
            os.sched_setaffinity(0, config.cores)
    # Drop log records: the server has logged the same ones when it loaded the plugins.
    install(lambda _record: None, config.level)
    plugins = config.load()
    _ignore_signals()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a plugin may have closed the stream
            stream.flush()  # otherwise each forked process would print the buffered text again
    # All forked processes share the objects that exist now. Freezing keeps the garbage collector from writing to them.
    gc.collect()
    gc.freeze()
    # From here on the fork server detects the end of the server itself, and kills its workers' process groups, too.
    _prctl(_PR_SET_PDEATHSIG, 0)
    if os.getppid() != parent:
        os._exit(0)
    fork_server = _ForkServer(stream=control_socket, config=config, plugins=plugins)
    fork_server.send(
        ready={
            "handlers": list(plugins.handlers),
            "problems": {info.name: info.error for info in plugins.infos if info.state == "quarantined"},
            "versions": {info.name: info.version for info in plugins.infos if info.state == "loaded"},
            "files": source_digests(plugins.handlers),
            "threads": sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread()),
        }
    )
    fork_server.listen()


def exit_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends. Linux only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)


def _ignore_signals() -> None:
    # A handler function, not SIG_IGN: programs that handlers start would inherit SIG_IGN.
    for number in (*STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, ignore_signal)


@dataclass(slots=True, kw_only=True)
class _ForkServer:
    """Forks worker processes and reports how they exit.

    Attributes:
        stream: connection to the server.
        config: configuration received at start.
        plugins: the loaded plugins.
        pids: process ids by the number that the server assigned.
    """

    stream: socket.socket
    config: ForkServerConfig
    plugins: Plugins
    pids: dict[int, int] = field(default_factory=dict)
    _files: deque[int] = field(default_factory=deque)
    _signals: SignalWaiter = field(default_factory=lambda: SignalWaiter((signal.SIGCHLD,)))
    _buffer: bytes = b""

    def send(self, **message: Any) -> None:
        """Send a message to the server; ignore errors, because `listen` detects a closed connection."""
        with suppress(OSError):
            self.stream.sendall(json.dumps(message).encode() + b"\n")

    def listen(self) -> NoReturn:
        """Handle the server's requests until it closes the connection."""
        poll = select.poll()
        poll.register(self.stream, select.POLLIN)
        poll.register(self._signals.reader, select.POLLIN)
        with self._signals:
            while True:
                ready = {file for file, _ in poll.poll()}
                if self._signals.reader in ready:
                    self._signals.read()
                    self._reap()
                if self.stream.fileno() in ready and not self._receive():
                    self._end()

    def _receive(self) -> bool:
        """Handle the server's messages; return whether the connection is still open."""
        try:
            part, files, flags, _ = socket.recv_fds(self.stream, 65536, 64)
        except OSError:
            return False
        for file in files:
            os.set_inheritable(file, False)
        if flags & socket.MSG_CTRUNC:  # this process or the system may open no more files
            for file in files:
                os.close(file)
        else:
            self._files += files
        *lines, self._buffer = (self._buffer + part).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))
        return bool(part)

    def _handle(self, request: Mapping[str, Any]) -> None:
        if "fork" in request and len(self._files) < _FILES_PER_FORK:
            self.send(ended=request["fork"], why=f"no process can be created: {os.strerror(errno.EMFILE)}")
        elif "fork" in request:
            self._fork(request["fork"], [self._files.popleft() for _ in range(_FILES_PER_FORK)])
        elif (pid := self.pids.get(request["signal"])) is not None:
            self._signal(pid, request["number"])

    def _signal(self, pid: int, number: int) -> None:
        """Send a signal; SIGKILL goes to the worker's whole process group."""
        if number == signal.SIGKILL:
            with suppress(OSError):
                os.killpg(pid, number)
        with suppress(OSError):
            os.kill(pid, number)

    def _fork(self, number: int, files: list[int]) -> None:
        pid_of_fork_server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.send(ended=number, why=f"no process can be created: {error.strerror}")
        else:
            if pid == 0:
                try:
                    self._run_child(pid_of_fork_server, *files)
                finally:
                    os._exit(70)
            self.pids[number] = pid
            self.send(forked=number, pid=pid)
        for file in files:
            os.close(file)

    def _run_child(self, fork_server: int, stream: int, output: int) -> NoReturn:
        """Close what belongs to the fork server, then serve as a worker."""
        exit_with_parent(fork_server)
        _prctl(_PR_SET_NAME, b"flowhooks-handl")
        self.stream.close()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for file in (nothing, output):
            os.close(file)
        serve(socket_from_file(stream), self.plugins, self.config.level)

    def _reap(self) -> None:
        """Collect exited workers, and kill what they left running."""
        for number, pid in list(self.pids.items()):
            # WNOWAIT: until it is reaped, its pid cannot be reused, so the process group is still its own.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self.pids[number]
            self.send(ended=number, code=os.waitstatus_to_exitcode(status))

    def _end(self) -> NoReturn:
        for pid in self.pids.values():
            self._signal(pid, signal.SIGKILL)
        os._exit(0)
