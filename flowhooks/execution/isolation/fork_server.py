"""The process that handlers' own processes come from: it has loaded the plugins, has one thread, and forks.

A fork of the server itself would take its threads' locks and its connections along. It must not know deliveries.

It is told, a line of JSON each: `{"fork": 7}`, with two files: a socket to the server, and where to print;
`{"signal": 7, "number": 9}`. It says `{"ready": …}` once, then `{"forked": 7, "pid": …}` and `{"ended": 7, …}`.
When the server closes its end, or has ended in any way, it ends all its processes, and itself.
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
from flowhooks.execution.circuit_breaker import files
from flowhooks.execution.isolation.config import Setup
from flowhooks.execution.isolation.log_forwarding import install
from flowhooks.execution.isolation.worker import serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.plugins.plugins import Plugins

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_LIBC: Final = ctypes.CDLL(None)
_FILES: Final = 2
"""How many files come with the wish for a process."""


def main(control: int, parent: int) -> NoReturn:
    """Load the plugins, and fork until the server has gone.

    Args:
        control: the file through which the server speaks.
        parent: the server's process id.
    """
    _prctl(_PR_SET_NAME, b"flowhooks-nurse")
    die_with(parent)
    stream = socket.socket(fileno=control)
    stream.set_inheritable(False)
    try:
        setup = Setup.receive(stream)
    except EOFError:
        os._exit(0)
    if setup.version != __version__:
        sys.exit(f"flowhooks {__version__} is installed by now, and the server runs {setup.version}: restart it")
    sys.path[:] = setup.path
    if setup.cores and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # an operator has taken them away meanwhile
            os.sched_setaffinity(0, setup.cores)
    # Besides what it is told here, nobody has to listen to what plugins log while they are loaded a second time.
    install(lambda _record: None, setup.level)
    plugins = setup.load()
    _ignore_signals()
    for one in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a plugin has closed it
            one.flush()  # or each process would print it once more
    # What is there by now is in every process that is forked: not to be written to, and so shared, for good.
    gc.collect()
    gc.freeze()
    _prctl(_PR_SET_PDEATHSIG, 0)  # from here on it hears for itself, and takes along what its processes have started
    if os.getppid() != parent:
        os._exit(0)
    nursery = _Nursery(stream=stream, setup=setup, plugins=plugins)
    nursery.say(
        ready={
            "handlers": list(plugins.handlers),
            "trouble": {one.name: one.error for one in plugins.infos if one.state == "quarantined"},
            "versions": {one.name: one.version for one in plugins.infos if one.state == "loaded"},
            "files": files(plugins.handlers),
            "threads": sorted(one.name for one in threading.enumerate() if one is not threading.main_thread()),
        }
    )
    nursery.listen()


def die_with(parent: int) -> None:
    """Have the system end this process when the thread ends that has started it, however that comes; on Linux."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)


def _ignore_signals() -> None:
    """Go on when everybody is told to end: what runs gets its time, and it is the server that watches it.

    By a function that does nothing: what ignores a signal altogether is inherited by programs that handlers start.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing)


def _nothing(_number: int, _frame: object) -> None:
    """Do nothing."""


@dataclass(slots=True, kw_only=True)
class _Nursery:
    """Forks, and tells how what it has forked has ended.

    Attributes:
        stream: where the server speaks and is spoken to.
        setup: what it was told at its start.
        plugins: what it has loaded.
        pids: its processes, by the number that the server has given them.
    """

    stream: socket.socket
    setup: Setup
    plugins: Plugins
    pids: dict[int, int] = field(default_factory=dict)
    _files: deque[int] = field(default_factory=deque)
    _pipe: tuple[int, int] = field(default_factory=os.pipe)
    _heard: bytes = b""

    def say(self, **what: Any) -> None:
        """Tell the server something; if it has gone, that is heard elsewhere."""
        with suppress(OSError):
            self.stream.sendall(json.dumps(what).encode() + b"\n")

    def listen(self) -> NoReturn:
        """Do what the server asks for, until it has gone."""
        woken, wake = self._pipe
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        poll = select.poll()
        poll.register(self.stream, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = {one for one, _ in poll.poll()}
            if woken in ready:
                with suppress(BlockingIOError):
                    os.read(woken, 4096)
                self._reap()
            if self.stream.fileno() in ready and not self._hear():
                self._end()

    def _hear(self) -> bool:
        """Take what the server says; returns whether it may say more."""
        try:
            part, files, flags, _ = socket.recv_fds(self.stream, 65536, 64)
        except OSError:
            return False
        for one in files:
            os.set_inheritable(one, False)
        if flags & socket.MSG_CTRUNC:  # this process or the system may open no more files
            for one in files:
                os.close(one)
        else:
            self._files += files
        *lines, self._heard = (self._heard + part).split(b"\n")
        for line in lines:
            self._do(json.loads(line))
        return bool(part)

    def _do(self, asked: Mapping[str, Any]) -> None:
        if "fork" in asked and len(self._files) < _FILES:
            self.say(ended=asked["fork"], why=f"no process can be made: {os.strerror(errno.EMFILE)}")
        elif "fork" in asked:
            self._fork(asked["fork"], [self._files.popleft() for _ in range(_FILES)])
        elif (pid := self.pids.get(asked["signal"])) is not None:
            self._signal(pid, asked["number"])

    def _signal(self, pid: int, number: int) -> None:
        """Send a signal: SIGKILL to all that the process has started, too."""
        if number == signal.SIGKILL:
            with suppress(OSError):
                os.killpg(pid, number)
        with suppress(OSError):
            os.kill(pid, number)

    def _fork(self, number: int, files: list[int]) -> None:
        here = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.say(ended=number, why=f"no process can be made: {error.strerror}")
        else:
            if pid == 0:
                try:
                    self._become(here, *files)
                finally:
                    os._exit(70)
            self.pids[number] = pid
            self.say(forked=number, pid=pid)
        for one in files:
            os.close(one)

    def _become(self, nursery: int, served: int, printed: int) -> NoReturn:
        """In the new process: keep nothing of the nursery, and serve."""
        die_with(nursery)
        _prctl(_PR_SET_NAME, b"flowhooks-handl")
        signal.set_wakeup_fd(-1)
        for one in self._pipe:
            os.close(one)
        self.stream.close()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for here, there in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(here, there)
        for one in (nothing, printed):
            os.close(one)
        serve(socket.socket(fileno=served), self.plugins, self.setup.level)

    def _reap(self) -> None:
        """See which processes have ended; what they have left behind ends with them."""
        for number, pid in list(self.pids.items()):
            # Its number is taken until it is reaped, so that its group can be nobody else's.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self.pids[number]
            self.say(ended=number, code=os.waitstatus_to_exitcode(status))

    def _end(self) -> NoReturn:
        for pid in self.pids.values():
            self._signal(pid, signal.SIGKILL)
        os._exit(0)
