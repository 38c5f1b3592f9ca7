"""On what terms a handler runs, by its own word and by the operator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.settings import HandlerSettings

if TYPE_CHECKING:
    from flowhooks.model.handler import Handler
    from flowhooks.settings import Settings


class RunOptions(NamedTuple):
    """How a handler is run.

    Attributes:
        isolation: `"thread"`, or `"process"`: its function runs in a process of its own.
        timeout: seconds after which an attempt is overdue.
        memory_mib: mebibytes that its process may take, where it has one of its own.
        max_failures: attempts that fail in a row after which its circuit opens; 0: never.
    """

    isolation: str
    timeout: float
    memory_mib: int
    max_failures: int


def resolve_run_options(handler: Handler, settings: Settings) -> RunOptions:
    """What the operator says of this handler, else what it declares, else what the operator says of all."""
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
