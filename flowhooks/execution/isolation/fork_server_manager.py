"""Start the fork server, restart it if it exits, and read its messages and the output of its processes.

One thread does all of this, because on Linux the fork server is killed when the thread that started it ends.
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
from flowhooks.execution.isolation.process_handle import KILL_TIMEOUT, TRACEBACK_TIMEOUT, HandlerProcess
from flowhooks.forks import close_in_children
from flowhooks.observability.shared_counts import SHARED_DIR_VARIABLE
from flowhooks.sockets import socket_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.execution.isolation.config import ForkServerConfig
    from flowhooks.working_folder import WorkingFolder

READY_TIMEOUT: Final = 60.0
"""Seconds in which the fork server must have loaded its plugins."""
RESTART_DELAYS: Final = (0.1, 1.0, 5.0, 15.0)
"""Seconds between the exit of a fork server and the start of the next. The last delay repeats."""
STABLE_SECONDS: Final = 60.0
"""Seconds of running after which an exit of the fork server resets the restart delay."""
EXIT_TIMEOUT: Final = 2.0
_COMMAND: Final = (
    "import sys; sys.path.insert(0, sys.argv[3]); "
    "from flowhooks.execution.isolation.fork_server import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)

log = structlog.get_logger(__name__)


class ForkServerManager:
    """Keeps a fork server running.

    Args:
        config: the configuration that is sent to the fork server.
        environ: the environment of the fork server.
        folder: the working folder of the fork server; default: that of this process.
        on_ready: called in the manager's thread with the fork server's `ready` message, once it has loaded its plugins.
        on_failed: called with the reason when the fork server exits; `""` if it had been ready, so that the next one
            is likely to start.
        on_ended: called with each handler process that has exited.
        redact: masks secrets in printed lines before they are truncated; default: nothing is masked.
    """

    def __init__(
        self,
        config: ForkServerConfig,
        *,
        environ: Mapping[str, str],
        folder: WorkingFolder | None = None,
        on_ready: Callable[[Mapping[str, Any]], None],
        on_failed: Callable[[str], None],
        on_ended: Callable[[HandlerProcess], None],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._config = config
        self._redact = redact
        self._folder = folder
        # prometheus-client would leave a file behind for each process that ever ran.
        self._environ = {name: value for name, value in environ.items() if name != SHARED_DIR_VARIABLE}
        self._on_ready, self._on_failed, self._on_ended = on_ready, on_failed, on_ended
        self._lock = threading.Lock()
        self._processes: dict[int, HandlerProcess] = {}
        self._last_number = 0
        self._control: socket.socket | None = None
        self._buffer = b""
        self._is_ready = False
        self._wakeup_r: socket.socket | None = None
        self._wakeup_w: socket.socket | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="isolation", daemon=True)
        self.pid: int | None = None

    def start(self) -> None:
        """Start the fork server; return at once."""
        self._wakeup_r, self._wakeup_w = socket_pair()
        for end in (self._wakeup_r, self._wakeup_w):
            end.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """End the fork server and all its processes."""
        self._closing.set()
        if self._wakeup_r is None or self._wakeup_w is None:
            return  # `start` was never called
        self._wake_up()
        self._thread.join()
        self._wakeup_r.close()
        self._wakeup_w.close()

    def fork(self) -> HandlerProcess:
        """Request a new process; it can be sent its first delivery at once.

        Raises:
            OSError: the fork server is not running, or this process has too many open files.
        """
        local, remote = socket_pair()
        try:
            reads, writes = os.pipe()
        except OSError:
            local.close()
            remote.close()
            raise
        try:
            with self._lock:
                if self._control is None:
                    raise ConnectionResetError("the fork server has exited")
                self._last_number += 1
                process = HandlerProcess(self._last_number, local, Output(reads, self._redact))
                request = json.dumps({"fork": process.number}).encode() + b"\n"
                self._processes[process.number] = process
                try:
                    socket.send_fds(self._control, [request], [remote.fileno(), writes])
                except OSError:
                    del self._processes[process.number]
                    raise
        except OSError:
            local.close()
            os.close(reads)
            raise
        finally:
            remote.close()
            os.close(writes)
        self._wake_up()
        return process

    def signal(self, process: HandlerProcess, number: int) -> None:
        """Send a signal to a process; SIGKILL also goes to its whole process group."""
        with self._lock, suppress(OSError):
            if self._control is not None:
                request = {"signal": process.number, "number": int(number)}
                self._control.sendall(json.dumps(request).encode() + b"\n")

    def kill(self, process: HandlerProcess, *, with_traceback: bool) -> None:
        """Kill a process and wait up to `KILL_TIMEOUT` for its exit status.

        Args:
            process: the process.
            with_traceback: whether the process prints the tracebacks of its threads first.
        """
        if with_traceback:
            self.signal(process, signal.SIGABRT)  # Python's faulthandler prints where each thread is
            process.ended_event.wait(TRACEBACK_TIMEOUT)
        if not process.ended_event.is_set():
            self.signal(process, signal.SIGKILL)
            process.ended_event.wait(KILL_TIMEOUT)

    def _wake_up(self) -> None:
        if self._wakeup_w is not None:
            with suppress(OSError):
                self._wakeup_w.send(b"\0")

    def _supervise(self) -> None:
        tries = 0
        while not self._closing.is_set():
            started = time.monotonic()
            self._is_ready = False
            try:
                why, was_ready = self._run_fork_server()
            except Exception as error:
                # A defect in flowhooks must not end the thread: no isolated handler would ever run again.
                log.exception("isolation_fault")
                why, was_ready = f"a defect of flowhooks ended it: {type(error).__name__}", self._is_ready
            if self._closing.is_set():
                return
            tries = 1 if time.monotonic() - started > STABLE_SECONDS else tries + 1
            pause = RESTART_DELAYS[min(tries, len(RESTART_DELAYS)) - 1]
            self._on_failed("" if was_ready else why)  # a reader of the log finds that attempts wait
            log.error(
                "isolation_failed",
                why=why,
                next=f"it is tried again in {pause:g} s; attempts of isolated handlers wait for it, or are repeated",
            )
            self._closing.wait(pause)

    def _run_fork_server(self) -> tuple[str, bool]:
        """Run a fork server until it exits; return the reason, and whether it was ready before."""
        try:
            started, control, output = self._start_fork_server()
        except OSError as error:
            return f"it cannot be started: {error.strerror}", False
        self.pid = started.pid
        is_late = False
        try:
            with suppress(OSError):
                self._config.send(control)
                is_late = self._listen(control, output)
        finally:
            with self._lock:
                self._control = None
            self.pid = None
            control.close()  # the fork server exits when its connection is closed
            if not self._is_ready:
                started.kill()  # it does not read the connection while it loads its plugins
            try:
                started.wait(EXIT_TIMEOUT)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
            output.close()
            self._mark_all_ended()
        if is_late:
            return f"it did not load the plugins within {READY_TIMEOUT:g} s", False
        last = "" if self._is_ready else output.tail.rpartition("\n")[2]
        code = started.returncode
        how = f"it exited with code {code}" if code >= 0 else f"it was killed by signal {-code}"
        return f"{how}: {last}" if last else how, self._is_ready

    def _start_fork_server(self) -> tuple[subprocess.Popen[bytes], socket.socket, Output]:
        control, remote = socket_pair()
        reads, writes = os.pipe()
        try:
            # -P: do not import modules from the working directory that the server would not import.
            arguments = [str(remote.fileno()), str(os.getpid()), str(Path(flowhooks.__file__).parents[1])]
            started = subprocess.Popen(  # noqa: S603 (starts flowhooks itself)
                [sys.executable or sys.orig_argv[0], "-P", "-c", _COMMAND, *arguments],
                env=self._environ,
                cwd=None if self._folder is None else self._folder.path_if_left(),
                pass_fds=[remote.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=writes,
                stderr=writes,
                start_new_session=True,  # Ctrl-C must reach the server only
            )
        except BaseException:
            control.close()
            os.close(reads)
            raise
        finally:
            remote.close()
            os.close(writes)
        close_in_children(control, socket.socket.close)  # its end is how the fork server knows that of this process
        return started, control, Output(reads, self._redact, process="fork server")

    def _listen(self, control: socket.socket, output: Output) -> bool:
        """Handle messages and output until the fork server exits; return whether it is too late with its plugins."""
        until = time.monotonic() + READY_TIMEOUT
        self._buffer = b""
        while not self._closing.is_set():
            if not self._is_ready and time.monotonic() > until:
                return True
            for file in self._readable(control, output):
                if file == control.fileno():
                    if not self._receive(control):
                        return False
                elif file == output.file:
                    output.read_chunk()
                elif process := next((other for other in self._all_processes() if other.output.file == file), None):
                    process.output.read_chunk()
                elif self._wakeup_r is not None:
                    with suppress(OSError):
                        self._wakeup_r.recv(4096)
        return False

    def _readable(self, control: socket.socket, output: Output) -> list[int]:
        now, timeout = time.monotonic(), 1.0
        poll = select.poll()
        for stream in (control, self._wakeup_r):
            if stream is not None:
                poll.register(stream, select.POLLIN)
        for printed in (output, *(process.output for process in self._all_processes())):
            if printed.open and printed.read_again_at <= now:
                poll.register(printed.file, select.POLLIN)
            elif printed.open:
                timeout = min(timeout, printed.read_again_at - now)
        return [file for file, _ in poll.poll(timeout * 1000)]

    def _all_processes(self) -> list[HandlerProcess]:
        with self._lock:
            return list(self._processes.values())

    def _receive(self, control: socket.socket) -> bool:
        """Handle the fork server's messages; return whether the connection is still open."""
        part = control.recv(65536)
        *lines, self._buffer = (self._buffer + part).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                with self._lock:
                    self._control = control
                self._is_ready = True
                self._on_ready(message["ready"])
                continue
            process = self._processes.get(message.get("forked") or message.get("ended"))
            if process is not None and "forked" in message:
                process.pid = process.output.log_context["process"] = message["pid"]
            elif process is not None:
                self._mark_ended(process, code=message.get("code"), spawn_error=message.get("why", ""))
        return bool(part)

    def _mark_ended(self, process: HandlerProcess, *, code: int | None, spawn_error: str = "") -> None:
        with self._lock:
            self._processes.pop(process.number, None)
        process.output.close()
        process.mark_ended(code=code, spawn_error=spawn_error)
        self._on_ended(process)

    def _mark_all_ended(self) -> None:
        # Workers exit with their fork server.
        for process in self._all_processes():
            self._mark_ended(process, code=None)
