"""Gives each attempt of an isolated handler a process, and takes it back.

A process belongs to one handler: what one leaves behind, threads, memory, a changed folder, meets no other. It is used
again; when there are as many as may be, the one that has rested longest makes room. It must not know the ledger.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from flowhooks.errors import ProcessUnavailable
from flowhooks.execution.circuit_breaker import files
from flowhooks.execution.isolation.call import call
from flowhooks.execution.isolation.config import Setup
from flowhooks.execution.isolation.fork_server_manager import READY_WITHIN, Keeper
from flowhooks.execution.isolation.process import ENDING_GETS
from flowhooks.execution.run_options import terms
from flowhooks.model.delivery import Elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flowhooks.execution.isolation.process import HandlerProcess
    from flowhooks.execution.run_options import RunTerms
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings

MOST_RUNS: Final = 1_000
"""Deliveries after which a process is replaced: what leaks slowly is given back."""
MOST_GROWTH: Final = 4
"""A process that keeps more than this part (one over it) of the memory that it may take is replaced, so that what one
delivery has left behind is not missed by the next."""
ENDED_WITHIN: Final = 2 * READY_WITHIN
"""Seconds besides its time in which an attempt has surely ended, though it first waits for a process and then for its
end."""
KNOWN_WITHIN: Final = 1.0
"""Seconds in which it is known of a process that has closed its end how it ended, unless it goes on."""

log = structlog.get_logger(__name__)


class Pool:
    """The processes of isolated handlers.

    Args:
        terms: on which terms each handler runs that has a process of its own, by its id.
        setup: what makes a process load what this one has loaded.
        environ: the environment of those processes.
        most: processes that there are at once at the most.
        ended: is told, in one word, why a process has ended: `"overdue"`, `"crashed"`, `"worn"` (it was replaced after
            many runs, or having grown), `"evicted"` (another handler needed its place) or `"stopped"`.
        conceal: masks secrets in what processes print; default: there are none.
        versions: of the plugins as they run here, by name.
        files: what was in the file of each handler's function when it was loaded here, by its id: a digest of it.
    """

    def __init__(
        self,
        terms: Mapping[str, RunTerms],
        *,
        setup: Setup,
        environ: Mapping[str, str],
        most: int,
        ended: Callable[[str], None] = lambda _reason: None,
        conceal: Callable[[str], str] = str,
        versions: Mapping[str, str] = MappingProxyType({}),
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._versions = versions
        self._files = files
        self._terms = dict(terms)
        self._most = most
        self._tell = ended
        self._changed = threading.Condition(threading.Lock())
        self._processes: set[HandlerProcess] = set()
        self._idle: dict[str, list[HandlerProcess]] = {}
        self._rested: dict[HandlerProcess, None] = {}
        self._spare: HandlerProcess | None = None
        self._there: frozenset[str] | None = None
        self._trouble: Mapping[str, str] = {}
        self._why = ""
        self._closing = ""
        self._started_at = 0.0
        self._keeper = Keeper(
            setup, environ=environ, ready=self._ready, failed=self._failed, ended=self._over, conceal=conceal
        )

    @classmethod
    def of(
        cls,
        settings: Settings,
        plugins: Plugins,
        environ: Mapping[str, str],
        *,
        cores: frozenset[int] = frozenset(),
        runs: Callable[[str], bool] = lambda _handler: True,
        ended: Callable[[str], None] = lambda _reason: None,
    ) -> Self:
        """The pool for the isolated ones of those handlers that a process runs.

        Args:
            settings: what was loaded by.
            plugins: what was loaded. Those that were given as objects cannot be loaded anywhere else: their handlers
                run in threads, whatever is said of them.
            environ: the environment as it was before plugins were loaded, which may have changed it.
            cores: the processor cores that handlers may use; empty: no matter.
            runs: whether the process runs deliveries of a handler, by its id; default: it runs all.
            ended: as above.
        """
        given = {one.name for one in plugins.infos if one.origin == "object"}
        isolated = {
            one.id: on_terms
            for one in plugins.handlers.values()
            if (on_terms := terms(one, settings)).isolation == "process" and one.plugin not in given and runs(one.id)
        }
        setup = Setup.of(settings, cores)
        return cls(
            isolated,
            setup=setup,
            environ=environ,
            most=settings.runner.threads,
            ended=ended,
            conceal=plugins.conceal,
            versions={one.name: one.version for one in plugins.infos if one.state == "loaded"},
            files=files({one: plugins.handlers[one] for one in isolated}),
        )

    @property
    def handlers(self) -> Collection[str]:
        """The ids of the handlers that have a process of their own."""
        return self._terms.keys()

    def elsewhere(self) -> dict[str, Elsewhere]:
        """How each handler is called that has a process of its own, by its id."""
        return {
            one: Elsewhere(
                run=partial(call, self, on_terms, probe=False), probe=partial(call, self, on_terms, probe=True)
            )
            for one, on_terms in self._terms.items()
        }

    def start(self) -> None:
        """Begin; returns at once. Without any isolated handler nothing is ever started."""
        if self._terms:
            self._started_at = time.monotonic()
            self._keeper.start()

    def stop(self) -> bool:
        """End what still runs, and begin nothing more; returns whether something did. Each such attempt is lost."""
        with self._changed:
            self._closing = "the server has stopped"
            self._changed.notify_all()
            busy = [one for one in self._processes if one.busy]
            for one in busy:
                one.leaving = one.leaving or "stopped"
        for one in busy:
            self._keeper.signal(one, signal.SIGKILL)
        for one in busy:
            one.over.wait(ENDING_GETS)
        return bool(busy)

    def close(self) -> None:
        """End everything."""
        self.stop()
        if self._terms:
            self._keeper.close()
        with self._changed:
            # A copy, because a handler's thread may discard its process meanwhile.
            processes = list(self._processes)
        for process in processes:
            process.stream.close()

    @property
    def alive(self) -> int:
        """How many processes there are for handlers."""
        with self._changed:
            return len(self._processes)

    def missing(self, within: float = READY_WITHIN) -> dict[str, str]:
        """Why each handler cannot be run in a process of its own, by its id; `""` if it can. Waits until it is known.

        Args:
            within: seconds to wait at the most.
        """
        with self._changed:
            self._changed.wait_for(self._known, within)
            return {one: self._cannot(one) for one in self._terms}

    def _known(self) -> bool:
        return bool(self._closing or self._why or self._there is not None)

    def _cannot(self, handler: str) -> str:
        """Why a handler gets no process just now; `""` if it does."""
        if self._closing:
            return self._closing
        if self._there is None:
            return self._why or f"the plugins are not loaded there after {READY_WITHIN:g} s"
        if handler in self._there:
            return ""
        plugin = handler.partition(":")[0]
        return self._trouble.get(plugin) or f"plugin {plugin!r} gives no such handler when it is loaded there"

    def _ready(self, said: Mapping[str, Any]) -> None:
        with self._changed:
            self._trouble = {
                **said["trouble"],
                **self._other_files(said["files"]),
                **self._other_versions(said["versions"]),
            }
            self._there = frozenset(one for one in said["handlers"] if one.partition(":")[0] not in self._trouble)
            self._why = ""
            lacking = {one: self._cannot(one) for one in self._terms if one not in self._there}
            self._prepare()
            self._changed.notify_all()
        for one, why in lacking.items():
            log.error("isolated_handler_missing", handler=one, why=why, next="its deliveries wait")
        if said["threads"]:
            log.warning(
                "isolation_threads",
                threads=said["threads"],
                why="a plugin has started them while it was loaded: handlers' processes do not have them",
            )
        seconds = round(time.monotonic() - self._started_at, 3)
        log.info("isolation_ready", handlers=len(self._terms) - len(lacking), seconds=seconds)

    def _other_versions(self, there: Mapping[str, str]) -> dict[str, str]:
        """Of plugins that were upgraded since the server was started, what to do."""
        return {
            name: f"version {version} of plugin {name!r} is installed by now, and the server runs {here}: restart it"
            for name, version in there.items()
            if (here := self._versions.get(name, version)) != version
        }

    def _other_files(self, there: Mapping[str, str]) -> dict[str, str]:
        """Of plugins whose files were changed since the server was started, what to do."""
        changed = {one.partition(":")[0] for one, here in self._files.items() if there.get(one, here) != here}
        why = "has changed since the server was started, which runs what it was: restart it"
        return {name: f"a file of plugin {name!r} {why}" for name in changed}

    def _failed(self, why: str) -> None:
        with self._changed:
            self._there, self._why = None, why and f"the process that they come from has failed: {why}"
            self._changed.notify_all()

    def _over(self, one: HandlerProcess) -> None:
        """A process has ended."""
        with self._changed:
            self._processes.discard(one)
            self._no_longer_idle(one)
            if self._spare is one:
                self._spare = None
            self._changed.notify_all()
            reason = one.leaving or ("stopped" if self._closing else "crashed")
        if not one.busy:
            one.stream.close()
        self._tell(reason)

    def _prepare(self) -> None:
        """Have one process ready for whoever needs one next; with the lock."""
        if self._spare is None and not self._closing and self._here() < self._most:
            with suppress(OSError):
                self._spare = self._keeper.fork()
                self._processes.add(self._spare)

    def _here(self) -> int:
        return sum(not one.leaving for one in self._processes)

    def _no_longer_idle(self, one: HandlerProcess) -> None:
        self._rested.pop(one, None)
        idle = self._idle.get(one.handler)
        if idle and one in idle:
            idle.remove(one)

    def take(self, handler: str) -> HandlerProcess:
        """A process for a delivery of this handler: its own, one that was prepared, or one that is made.

        Raises:
            ProcessUnavailable: there is none.
        """
        with self._changed:
            self._changed.wait_for(self._known, READY_WITHIN)
            if why := self._cannot(handler):
                raise ProcessUnavailable(f"its own process could not be had: {why}")
            idle = self._idle.setdefault(handler, [])
            while idle:
                one = idle[-1]
                self._no_longer_idle(one)
                if one.usable:
                    break
                self._dismiss(one, "crashed")
            else:
                one = self._new()
            one.handler = handler
            one.busy = True
            self._prepare()
            return one

    def _new(self) -> HandlerProcess:
        if (spare := self._spare) is not None:
            self._spare = None
            if spare.usable:
                return spare
        if self._here() >= self._most and self._rested:
            longest = next(iter(self._rested))
            self._no_longer_idle(longest)
            self._dismiss(longest, "evicted")
        try:
            made = self._keeper.fork()
        except OSError as error:
            raise ProcessUnavailable(f"its own process could not be had: {error.strerror or error}") from None
        self._processes.add(made)
        return made

    def _dismiss(self, one: HandlerProcess, reason: str) -> None:
        """Have a process end that nobody waits for."""
        one.leaving = one.leaving or reason
        self._keeper.signal(one, signal.SIGKILL)

    def give_back(self, one: HandlerProcess, grown: int) -> None:
        """A process has answered: it rests, or is replaced."""
        allowed = self._terms[one.handler].memory_mib * 1024**2
        with self._changed:
            one.busy = False
            if one.leaving or one.over.is_set():
                pass
            elif self._closing or one.runs >= MOST_RUNS or grown > allowed // MOST_GROWTH:
                self._dismiss(one, "stopped" if self._closing else "worn")
                self._prepare()
            else:
                self._idle.setdefault(one.handler, []).append(one)
                self._rested[one] = None
        if one.over.is_set():
            one.stream.close()

    def lost(self, one: HandlerProcess, reason: str, *, asking: bool = False, quiet: bool = False) -> None:
        """End a process that has not answered.

        Args:
            one: the process.
            reason: why, in one word.
            asking: whether it is to say first where it was.
            quiet: whether it has closed its end: then it has most likely ended, and that will be known in a moment.
        """
        gone = one.over.wait(KNOWN_WITHIN) if quiet else False
        with self._changed:
            if not gone:
                one.leaving = one.leaving or reason
        if not gone:
            self._keeper.kill(one, asking=asking)
        with self._changed:
            one.busy = False
            self._processes.discard(one)
            self._prepare()
        one.stream.close()


def tried(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> dict[str, str]:
    """Why each isolated handler cannot be run in a process of its own, by its id; `""` if it can. It is tried out.

    Args:
        settings: what was loaded by.
        plugins: what was loaded.
        environ: the environment as it was before that.
    """
    pool = Pool.of(settings, plugins, environ)
    pool.start()
    try:
        return pool.missing() if pool.elsewhere() else {}
    finally:
        pool.close()
