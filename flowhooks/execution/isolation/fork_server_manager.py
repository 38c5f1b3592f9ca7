"""Starts the nursery, starts it again if it ends, and hears what it and its processes say; it must not know deliveries.

All of that in one thread: on Linux the nursery ends with the thread that has started it, however that comes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import flowhooks
from flowhooks.execution.isolation.output_capture import Output
from flowhooks.execution.isolation.process import ENDING_GETS, SIGNALS_GET, HandlerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.execution.isolation.config import Setup

READY_WITHIN: Final = 60.0
"""Seconds in which the nursery must have loaded its plugins."""
AGAIN: Final = (0.1, 1.0, 5.0, 15.0)
"""Seconds between the end of a nursery and the start of the next; the last one goes on."""
STEADY: Final = 60.0
"""Seconds after which a nursery that ends is no longer taken for one that cannot start."""
LEAVES_WITHIN: Final = 2.0
_COMMAND: Final = (
    "import sys; sys.path.insert(0, sys.argv[3]); "
    "from flowhooks.execution.isolation.fork_server import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)

log = structlog.get_logger(__name__)


class Keeper:
    """Keeps a nursery.

    Args:
        setup: what it is told.
        environ: its environment.
        ready: called with what it says when it has loaded its plugins, in the keeper's thread.
        failed: called with why there is none; `""` if there was one, so that the next is likely to come soon.
        ended: called with a process that has.
        conceal: masks secrets in what is printed, before anything of it is cut; default: there are none.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        environ: Mapping[str, str],
        ready: Callable[[Mapping[str, Any]], None],
        failed: Callable[[str], None],
        ended: Callable[[HandlerProcess], None],
        conceal: Callable[[str], str] = str,
    ) -> None:
        self._setup = setup
        self._conceal = conceal
        # prometheus-client would leave a file for each process that there ever was.
        self._environ = {name: value for name, value in environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        self._ready, self._failed, self._ended = ready, failed, ended
        self._lock = threading.Lock()
        self._processes: dict[int, HandlerProcess] = {}
        self._made = 0
        self._control: socket.socket | None = None
        self._heard = b""
        self._woken: socket.socket | None = None
        self._wake: socket.socket | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="isolation", daemon=True)
        self.pid: int | None = None

    def start(self) -> None:
        """Start a nursery, and return at once."""
        self._woken, self._wake = socket.socketpair()
        for one in (self._woken, self._wake):
            one.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """End the nursery and all its processes."""
        self._closing.set()
        if self._woken is None or self._wake is None:
            return  # it was never started
        self._poke()
        self._thread.join()
        self._woken.close()
        self._wake.close()

    def fork(self) -> HandlerProcess:
        """Ask for a process; it may be given its first delivery at once.

        Raises:
            OSError: the nursery has gone, or this process may open no more files.
        """
        ours, theirs = socket.socketpair()
        try:
            reads, writes = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
        try:
            with self._lock:
                if self._control is None:
                    raise ConnectionResetError("the nursery has gone")
                self._made += 1
                made = HandlerProcess(self._made, ours, Output(reads, self._conceal))
                asked = json.dumps({"fork": made.number}).encode() + b"\n"
                self._processes[made.number] = made
                try:
                    socket.send_fds(self._control, [asked], [theirs.fileno(), writes])
                except OSError:
                    del self._processes[made.number]
                    raise
        except OSError:
            ours.close()
            os.close(reads)
            raise
        finally:
            theirs.close()
            os.close(writes)
        self._poke()
        return made

    def signal(self, process: HandlerProcess, number: int) -> None:
        """Send a process a signal; SIGKILL to all that it has started, too."""
        with self._lock, suppress(OSError):
            if self._control is not None:
                asked = {"signal": process.number, "number": int(number)}
                self._control.sendall(json.dumps(asked).encode() + b"\n")

    def kill(self, process: HandlerProcess, *, asking: bool) -> None:
        """End a process, and wait until it is known how it has ended.

        Args:
            process: the process.
            asking: whether it is to say first where it was.
        """
        if asking:
            self.signal(process, signal.SIGABRT)  # Python's faulthandler prints where each thread is
            process.over.wait(SIGNALS_GET)
        if not process.over.is_set():
            self.signal(process, signal.SIGKILL)
            process.over.wait(ENDING_GETS)

    def _poke(self) -> None:
        if self._wake is not None:
            with suppress(OSError):
                self._wake.send(b"\0")

    def _keep(self) -> None:
        tries = 0
        while not self._closing.is_set():
            started = time.monotonic()
            why, was_ready = self._nursery()
            if self._closing.is_set():
                return
            tries = 1 if time.monotonic() - started > STEADY else tries + 1
            pause = AGAIN[min(tries, len(AGAIN)) - 1]
            log.error("isolation_failed", why=why, next=f"tried again in {pause:g} s; handlers' deliveries wait")
            self._failed("" if was_ready else why)
            self._closing.wait(pause)

    def _nursery(self) -> tuple[str, bool]:
        """Start one, and listen to it until it ends; returns why it has, and whether it had been ready."""
        try:
            started, control, output = self._started()
        except OSError as error:
            return f"it cannot be started: {error.strerror}", False
        self.pid = started.pid
        said: dict[str, Any] = {}
        try:
            with suppress(OSError):
                self._setup.send(control)
                self._listen(control, output, said)
        finally:
            with self._lock:
                self._control = None
            self.pid = None
            control.close()  # it ends by that
            if not said.get("ready"):
                started.kill()  # it hears nothing while it loads its plugins
            try:
                started.wait(LEAVES_WITHIN)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
            output.close()
            self._bury()
        if said.get("late"):
            return f"it has not loaded the plugins within {READY_WITHIN:g} s", False
        last = "" if said.get("ready") else output.tail.rpartition("\n")[2]
        code = started.returncode
        how = f"it ended with exit code {code}" if code >= 0 else f"it was ended by signal {-code}"
        return f"{how}: {last}" if last else how, bool(said.get("ready"))

    def _started(self) -> tuple[subprocess.Popen[bytes], socket.socket, Output]:
        control, theirs = socket.socketpair()
        reads, writes = os.pipe()
        try:
            # -P: nothing is imported from the working folder that the server would not.
            arguments = [str(theirs.fileno()), str(os.getpid()), str(Path(flowhooks.__file__).parents[1])]
            started = subprocess.Popen(  # noqa: S603 (this very program)
                [sys.executable or sys.orig_argv[0], "-P", "-c", _COMMAND, *arguments],
                env=self._environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=writes,
                stderr=writes,
                start_new_session=True,  # Ctrl-C is for the server
            )
        except BaseException:
            control.close()
            os.close(reads)
            raise
        finally:
            theirs.close()
            os.close(writes)
        return started, control, Output(reads, self._conceal, process="nursery")

    def _listen(self, control: socket.socket, output: Output, said: dict[str, Any]) -> None:
        until = time.monotonic() + READY_WITHIN
        self._heard = b""
        while not self._closing.is_set():
            if not said.get("ready") and time.monotonic() > until:
                said["late"] = True
                return
            for file in self._to_be_read(control, output):
                if file == control.fileno():
                    if not self._hear(control, said):
                        return
                elif file == output.file:
                    output.take()
                elif one := next((one for one in self._those() if one.output.file == file), None):
                    one.output.take()
                elif self._woken is not None:
                    with suppress(OSError):
                        self._woken.recv(4096)

    def _to_be_read(self, control: socket.socket, output: Output) -> list[int]:
        """Wait until something is said; the files in which it is."""
        now, timeout = time.monotonic(), 1.0
        poll = select.poll()
        for one in (control, self._woken):
            if one is not None:
                poll.register(one, select.POLLIN)
        for printed in (output, *(one.output for one in self._those())):
            if printed.open and printed.again_at <= now:
                poll.register(printed.file, select.POLLIN)
            elif printed.open:
                timeout = min(timeout, printed.again_at - now)
        return [file for file, _ in poll.poll(timeout * 1000)]

    def _those(self) -> list[HandlerProcess]:
        with self._lock:
            return list(self._processes.values())

    def _hear(self, control: socket.socket, said: dict[str, Any]) -> bool:
        """Take what the nursery says; returns whether it may say more."""
        part = control.recv(65536)
        *lines, self._heard = (self._heard + part).split(b"\n")
        for line in lines:
            found = json.loads(line)
            if "ready" in found:
                with self._lock:
                    self._control = control
                said["ready"] = True
                self._ready(found["ready"])
                continue
            one = self._processes.get(found.get("forked") or found.get("ended"))
            if one is not None and "forked" in found:
                one.pid = one.output.about["process"] = found["pid"]
            elif one is not None:
                self._over(one, code=found.get("code"), unmade=found.get("why", ""))
        return bool(part)

    def _over(self, one: HandlerProcess, *, code: int | None, unmade: str = "") -> None:
        with self._lock:
            self._processes.pop(one.number, None)
        one.output.close()
        one.ended(code=code, unmade=unmade)
        self._ended(one)

    def _bury(self) -> None:
        """Those of a nursery that has ended have ended with it."""
        for one in self._those():
            self._over(one, code=None)
