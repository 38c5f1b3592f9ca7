"""How this process runs each handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flowhooks.execution.run_options import RunOptions
    from flowhooks.ledger.pauses import PausedHandlers
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler


class HandlerRuntime:
    """How this process runs each handler. It knows neither the ledger nor the runner, which are built with it.

    Args:
        handlers: the loaded handlers, by id.
        run_options: the run options of each loaded handler, by id.
        handler_ids: ids of the handlers whose deliveries this process runs; None: all, also those that are not loaded.
        pauses: the paused handlers.
        limits: the limits of the handlers that have any, by id.
        default_timeout: seconds after which an attempt of a handler that is not loaded is overdue.
        kill_timeout: seconds that an attempt of an isolated handler gets, after its timeout, to be ended.
        isolated: ids of the handlers that run in processes of their own.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        run_options: Mapping[str, RunOptions],
        *,
        handler_ids: frozenset[str] | None,
        pauses: PausedHandlers,
        limits: Mapping[str, StartLimits],
        default_timeout: float,
        kill_timeout: float,
        isolated: Collection[str],
    ) -> None:
        self._handlers = handlers
        self._run_options = run_options
        self._handler_ids = handler_ids
        self._pauses = pauses
        self._limits = limits
        self._default_timeout = default_timeout
        self._kill_timeout = kill_timeout
        self._isolated = isolated
        self._run_elsewhere: Collection[str] = ()
        self._is_stopping = False

    def runs_here(self, handler: str) -> bool:
        """Return whether this process starts attempts of a handler's deliveries; other processes run the rest."""
        return not self._is_stopping and (self._handler_ids is None or handler in self._handler_ids)

    def runs_somewhere(self, handler: str) -> bool:
        """Return whether a live process runs a handler's deliveries, as far as this process knows."""
        if self._is_stopping or handler in self._pauses.handlers:
            return False
        return self.runs_here(handler) or handler in self._run_elsewhere

    def stop(self) -> None:
        """Note that this process starts no more attempts, so that no callback waits for one."""
        self._is_stopping = True

    def set_run_elsewhere(self, handler_ids: Collection[str]) -> None:
        """Note the handlers whose deliveries live processes run."""
        self._run_elsewhere = handler_ids

    def passes(self, handler: str, event: Event) -> bool:
        """Return whether the conditions of a loaded handler hold for an event."""
        selectors = self._handlers[handler].selectors
        return not selectors.has_conditions or selectors.decide(event) is True

    def is_unconditional(self, handler: str) -> bool:
        """Return whether a handler is loaded and has no conditions, so that its deliveries may simply be claimed."""
        loaded = self._handlers.get(handler)
        return loaded is not None and not loaded.selectors.has_conditions

    def limit(self, handler: str) -> int | None:
        """Return a handler's concurrency limit over all processes; None: limited only by the slots."""
        limits = self._limits.get(handler)
        return None if limits is None else limits.concurrency

    def next_start_of(self, handler: str, now: int) -> int | None:
        """Return when a handler that is at its rate, as far as this process knows, may start an attempt; else None."""
        limits = self._limits.get(handler)
        return None if limits is None else limits.next_start(now)

    def may_start(self, handler: str, now: int) -> bool:
        """Return whether this process starts attempts of a handler at a time: not if it is paused, or at its rate."""
        return self.runs_here(handler) and not self.is_paused(handler) and self.next_start_of(handler, now) is None

    def is_paused(self, handler: str) -> bool:
        """Return whether a handler is paused, as far as this process knows."""
        return handler in self._pauses.handlers

    def next_start(self, now: int) -> int | None:
        """Return when the first of the handlers that are at their rate may start an attempt; None: none is."""
        return min(
            (
                at
                for limits in list(self._limits.values())
                if limits.rate and (at := limits.next_start(now)) is not None
            ),
            default=None,
        )

    def timeout(self, handler: str) -> float:
        """Return the seconds after which an attempt of a handler is overdue."""
        options = self._run_options.get(handler)
        timeout = options.timeout if options else self._default_timeout
        return timeout + self._kill_timeout if handler in self._isolated else timeout
