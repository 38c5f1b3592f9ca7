"""Assign a process to each attempt of an isolated handler, and take it back.

A process serves one handler only, so threads, memory or a changed working directory that the handler leaves behind
affect no other handler. Processes are reused. When the pool is full, the process that has been idle longest is ended.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from flowhooks.errors import HandlerProcessUnavailable
from flowhooks.execution.isolation.config import ForkServerConfig
from flowhooks.execution.isolation.fork_server_manager import READY_TIMEOUT, ForkServerManager
from flowhooks.execution.isolation.process_handle import KILL_TIMEOUT
from flowhooks.execution.run_options import resolve_run_options
from flowhooks.plugins.source_digests import source_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flowhooks.execution.isolation.process_handle import HandlerProcess
    from flowhooks.execution.run_options import RunOptions
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings
    from flowhooks.working_folder import WorkingFolder

MAX_RUNS_PER_PROCESS: Final = 1_000
"""Deliveries after which a process is replaced, so that slow memory leaks are freed."""
# Memory that one delivery has left behind would be missing for the next one.
MAX_GROWTH_DIVISOR: Final = 4
"""A process that keeps more than 1/4 of its memory limit after an attempt is replaced."""
# An attempt waits up to READY_TIMEOUT for a process, and then for the end of the process.
ATTEMPT_END_TIMEOUT: Final = 2 * READY_TIMEOUT
"""Seconds after its own timeout by which an isolated attempt has ended."""
EXIT_STATUS_TIMEOUT: Final = 1.0
"""Seconds to wait for the exit status of a process that has closed its connection."""
_MISSING_TEXT: Final = (
    "restart the server; until then its attempts fail without being run, and a delivery is dead after at least 8"
)

log = structlog.get_logger(__name__)


class ProcessPool:
    """The processes of isolated handlers.

    Attributes:
        options: run options of the isolated handlers, by handler id.

    Args:
        options: run options of the isolated handlers, by handler id.
        config: the configuration of the fork server; it loads the same plugins as this process.
        environ: the environment of the processes.
        folder: the working folder of the processes; default: that of this process.
        max_processes: maximum number of processes.
        on_ended: called with the reason when a process has ended: `"overdue"`, `"crashed"`, `"worn"` (replaced after
            many runs or memory growth), `"evicted"` (replaced by a process for another handler) or `"stopped"`.
        redact: masks secrets in the output of the processes; default: nothing is masked.
        versions: versions of the plugins that are loaded in this process, by plugin name.
        digests: digest of the file of each handler's function when this process loaded it, by handler id.
    """

    def __init__(
        self,
        options: Mapping[str, RunOptions],
        *,
        config: ForkServerConfig,
        environ: Mapping[str, str],
        folder: WorkingFolder | None = None,
        max_processes: int,
        on_ended: Callable[[str], None] = lambda _reason: None,
        redact: Callable[[str], str] = str,
        versions: Mapping[str, str] = MappingProxyType({}),
        digests: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._versions = versions
        self._source_digests = digests
        self.options = dict(options)
        self._max_processes = max_processes
        self._on_ended = on_ended
        self._changed = threading.Condition(threading.Lock())
        self._processes: set[HandlerProcess] = set()
        self._idle: dict[str, list[HandlerProcess]] = {}
        self._idle_order: dict[HandlerProcess, None] = {}
        self._spare: HandlerProcess | None = None
        self._loaded_handlers: frozenset[str] | None = None
        self._problems: Mapping[str, str] = {}
        self._failure = ""
        self._closing = ""
        self._started_at = 0.0
        self._manager = ForkServerManager(
            config,
            environ=environ,
            folder=folder,
            on_ready=self._on_ready,
            on_failed=self._on_failed,
            on_ended=self._on_process_ended,
            redact=redact,
        )

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        plugins: Plugins,
        environ: Mapping[str, str],
        *,
        folder: WorkingFolder | None = None,
        cores: frozenset[int] = frozenset(),
        runs: Callable[[str], bool] = lambda _handler: True,
        on_ended: Callable[[str], None] = lambda _reason: None,
    ) -> Self:
        """Create the pool for the isolated handlers that this process runs.

        Args:
            settings: the settings of this process.
            plugins: the loaded plugins. Plugins given as objects cannot be loaded in another process: their handlers
                run in threads even if they are configured as isolated.
            environ: the environment before plugins were loaded, because plugins may change it.
            folder: the working folder before plugins were loaded; default: that of this process.
            cores: the CPU cores that handlers may use; empty: any.
            runs: whether this process runs deliveries of a handler id; default: it runs all.
            on_ended: as for the class.
        """
        object_plugins = {info.name for info in plugins.infos if info.origin == "object"}
        isolated = {
            handler.id: options
            for handler in plugins.handlers.values()
            if (options := resolve_run_options(handler, settings)).isolation == "process"
            and handler.plugin not in object_plugins
            and runs(handler.id)
        }
        config = ForkServerConfig.from_settings(settings, cores)
        return cls(
            isolated,
            config=config,
            environ=environ,
            folder=folder,
            max_processes=settings.runner.threads,
            on_ended=on_ended,
            redact=plugins.redact,
            versions={info.name: info.version for info in plugins.infos if info.state == "loaded"},
            digests=source_digests({handler_id: plugins.handlers[handler_id] for handler_id in isolated}),
        )

    @property
    def handlers(self) -> Collection[str]:
        """Ids of the isolated handlers."""
        return self.options.keys()

    def start(self) -> None:
        """Start the fork server if there is an isolated handler; return at once."""
        if self.options:
            self._started_at = time.monotonic()
            self._manager.start()

    def stop(self) -> bool:
        """Kill the processes that run an attempt, and start no more; return whether any was running.

        The killed attempts are *lost*.
        """
        with self._changed:
            self._closing = "the server has stopped"
            self._changed.notify_all()
            busy = [process for process in self._processes if process.busy]
            for process in busy:
                process.closing_reason = process.closing_reason or "stopped"
        for process in busy:
            self._manager.signal(process, signal.SIGKILL)
        for process in busy:
            process.ended_event.wait(KILL_TIMEOUT)
        return bool(busy)

    def close(self) -> None:
        """End all processes and the fork server."""
        self.stop()
        if self.options:
            self._manager.close()
        with self._changed:
            # A copy, because a runner thread may discard its process at the same time.
            processes = list(self._processes)
        for process in processes:
            process.stream.close()

    @property
    def alive(self) -> int:
        """Number of processes for handlers."""
        with self._changed:
            return len(self._processes)

    def unavailable(self, timeout: float = READY_TIMEOUT) -> dict[str, str]:
        """Map each isolated handler's id to the reason why it cannot run in its own process; `""` if it can.

        Waits until the fork server is ready or has failed, but at most `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(self._is_known, timeout)
            return {handler_id: self._why_unavailable(handler_id) for handler_id in self.options}

    def _is_known(self) -> bool:
        return bool(self._closing or self._failure or self._loaded_handlers is not None)

    def _why_unavailable(self, handler: str) -> str:
        if self._closing:
            return self._closing
        if self._loaded_handlers is None:
            return self._failure or f"the fork server did not load the plugins within {READY_TIMEOUT:g} s"
        if handler in self._loaded_handlers:
            return ""
        plugin = handler.partition(":")[0]
        return self._problems.get(plugin) or f"plugin {plugin!r} has no such handler when the fork server loads it"

    def _on_ready(self, ready: Mapping[str, Any]) -> None:
        with self._changed:
            self._problems = {
                **ready["problems"],
                **self._changed_files(ready["files"]),
                **self._changed_versions(ready["versions"]),
            }
            self._loaded_handlers = frozenset(
                handler_id for handler_id in ready["handlers"] if handler_id.partition(":")[0] not in self._problems
            )
            self._failure = ""
            missing = {
                handler_id: self._why_unavailable(handler_id)
                for handler_id in self.options
                if handler_id not in self._loaded_handlers
            }
            self._prepare()
            self._changed.notify_all()
        for handler_id, why in missing.items():
            log.error("isolated_handler_missing", handler=handler_id, why=why, next=_MISSING_TEXT)
        if ready["threads"]:
            log.warning(
                "isolation_threads",
                threads=ready["threads"],
                why="a plugin started threads while it was loaded, and the processes of isolated handlers do not "
                "have them",
            )
        seconds = round(time.monotonic() - self._started_at, 3)
        log.info("isolation_ready", handlers=len(self.options) - len(missing), seconds=seconds)

    def _changed_versions(self, loaded_versions: Mapping[str, str]) -> dict[str, str]:
        """Map plugins that were upgraded since the server started to the remedy."""
        return {
            name: f"version {version} of plugin {name!r} is installed now, but the server runs {own}: restart it"
            for name, version in loaded_versions.items()
            if (own := self._versions.get(name, version)) != version
        }

    def _changed_files(self, loaded_digests: Mapping[str, str]) -> dict[str, str]:
        """Map plugins whose files changed since the server started to the remedy."""
        changed = {
            handler_id.partition(":")[0]
            for handler_id, own in self._source_digests.items()
            if loaded_digests.get(handler_id, own) != own
        }
        why = "has changed since the server was started, but the server runs the old content: restart it"
        return {name: f"a file of plugin {name!r} {why}" for name in changed}

    def _on_failed(self, why: str) -> None:
        with self._changed:
            self._loaded_handlers, self._failure = None, why and f"the fork server failed: {why}"
            self._changed.notify_all()

    def _on_process_ended(self, process: HandlerProcess) -> None:
        with self._changed:
            self._processes.discard(process)
            self._unidle(process)
            if self._spare is process:
                self._spare = None
            self._changed.notify_all()
            reason = process.closing_reason or ("stopped" if self._closing else "crashed")
        if not process.busy:
            process.stream.close()
        self._on_ended(reason)

    def _prepare(self) -> None:
        # With the lock held. One idle process is kept for the next attempt.
        if self._spare is None and not self._closing and self._count_staying() < self._max_processes:
            with suppress(OSError):
                self._spare = self._manager.fork()
                self._processes.add(self._spare)

    def _count_staying(self) -> int:
        return sum(not process.closing_reason for process in self._processes)

    def _unidle(self, process: HandlerProcess) -> None:
        self._idle_order.pop(process, None)
        idle = self._idle.get(process.handler)
        if idle and process in idle:
            idle.remove(process)

    def acquire(self, handler: str) -> HandlerProcess:
        """Return an idle process of this handler, the spare process, or a new one.

        Raises:
            HandlerProcessUnavailable: no process is available.
        """
        with self._changed:
            self._changed.wait_for(self._is_known, READY_TIMEOUT)
            if why := self._why_unavailable(handler):
                raise HandlerProcessUnavailable(f"no process could be started for the handler: {why}")
            idle = self._idle.setdefault(handler, [])
            while idle:
                process = idle[-1]
                self._unidle(process)
                if process.is_alive:
                    break
                self._end(process, "crashed")
            else:
                process = self._create()
            process.handler = handler
            process.busy = True
            self._prepare()
            return process

    def _create(self) -> HandlerProcess:
        if (spare := self._spare) is not None:
            self._spare = None
            if spare.is_alive:
                return spare
        if self._count_staying() >= self._max_processes and self._idle_order:
            longest = next(iter(self._idle_order))
            self._unidle(longest)
            self._end(longest, "evicted")
        try:
            process = self._manager.fork()
        except OSError as error:
            raise HandlerProcessUnavailable(
                f"no process could be started for the handler: {error.strerror or error}"
            ) from None
        self._processes.add(process)
        return process

    def _end(self, process: HandlerProcess, reason: str) -> None:
        process.closing_reason = process.closing_reason or reason
        self._manager.signal(process, signal.SIGKILL)

    def release(self, process: HandlerProcess, grown: int) -> None:
        """Return a process that has replied to the pool, or replace it.

        `grown` is its memory growth in bytes since its start.
        """
        allowed = self.options[process.handler].memory_mib * 1024**2
        with self._changed:
            process.busy = False
            is_ending = process.closing_reason or process.ended_event.is_set()
            is_worn = process.runs >= MAX_RUNS_PER_PROCESS or grown > allowed // MAX_GROWTH_DIVISOR
            if not is_ending and (self._closing or is_worn):
                self._end(process, "stopped" if self._closing else "worn")
                self._prepare()
            elif not is_ending:
                self._idle.setdefault(process.handler, []).append(process)
                self._idle_order[process] = None
        if process.ended_event.is_set():
            process.stream.close()

    def discard(
        self, process: HandlerProcess, reason: str, *, with_traceback: bool = False, has_disconnected: bool = False
    ) -> None:
        """End a process that has not replied.

        Args:
            process: the process.
            reason: one of the reasons of `on_ended`.
            with_traceback: whether the process prints the tracebacks of its threads before it is killed.
            has_disconnected: whether the process has closed its connection. It has then most likely exited, so wait
                for its exit status first.
        """
        has_ended = process.ended_event.wait(EXIT_STATUS_TIMEOUT) if has_disconnected else False
        with self._changed:
            if not has_ended:
                process.closing_reason = process.closing_reason or reason
        if not has_ended:
            self._manager.kill(process, with_traceback=with_traceback)
        with self._changed:
            process.busy = False
            self._processes.discard(process)
            self._prepare()
        process.stream.close()


def check_isolation(
    settings: Settings, plugins: Plugins, environ: Mapping[str, str], folder: WorkingFolder
) -> dict[str, str]:
    """Start a fork server and map each isolated handler's id to the reason why it cannot run there; `""` if it can.

    Args:
        settings: the settings that the plugins were loaded with.
        plugins: the loaded plugins.
        environ: the environment before the plugins were loaded.
        folder: the working folder before the plugins were loaded.
    """
    pool = ProcessPool.from_settings(settings, plugins, environ, folder=folder)
    pool.start()
    try:
        return pool.unavailable() if pool.options else {}
    finally:
        pool.close()
