"""Resolve a handler's run options from the settings and its decorator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.settings import HandlerSettings

if TYPE_CHECKING:
    from flowhooks.model.handler import Handler
    from flowhooks.settings import Settings


class RunOptions(NamedTuple):
    """The run options of a handler.

    Attributes:
        isolation: `"thread"`, or `"process"` if the function runs in a process of its own.
        timeout: seconds after which an attempt is overdue.
        memory_mib: memory limit of the handler's own process, in mebibytes.
        max_failures: consecutive failed attempts that open the circuit; 0: never.
    """

    isolation: str
    timeout: float
    memory_mib: int
    max_failures: int


def resolve_run_options(handler: Handler, settings: Settings) -> RunOptions:
    """Return a handler's run options: settings for the handler override its decorator, which overrides `[runner]`."""
    overrides = settings.handlers.get(handler.id, HandlerSettings())
    runner = settings.runner
    return RunOptions(
        isolation=overrides.isolation or handler.isolation or runner.isolation,
        timeout=overrides.timeout or handler.timeout or runner.timeout,
        memory_mib=overrides.memory_mib or handler.memory_mib or runner.memory_mib,
        max_failures=settings.circuit_breaker.failures
        if overrides.circuit_breaker_failures is None
        else overrides.circuit_breaker_failures,
    )
