"""Build the queue and the runner that `runner.kind` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.execution.runners.embedded import EmbeddedRunner
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.execution.runners.slots import SlotPool
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.execution.runners.procrastinate import ProcrastinateRunner
    from flowhooks.execution.runners.runner import Runner
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.settings import Settings


def build_queue(
    settings: Settings, runtime: HandlerRuntime, clock: Clock, handler_ids: frozenset[str]
) -> SlotPool | ProcrastinateRunner:
    """Return the ledger's queue. It is built before the ledger, and its runner after it.

    Args:
        settings: the settings.
        runtime: how this process runs each handler.
        clock: current time.
        handler_ids: ids of the loaded handlers that this process runs.

    Raises:
        SettingsError: the runner does not support this database, or is not installed.
        LedgerUnusable: the runner's tables are missing or have another version.
    """
    threads = settings.runner.threads
    if settings.runner.kind == "embedded":
        return SlotPool(threads, runtime, clock)
    jobs = procrastinate_schema_of(settings)
    from flowhooks.execution.runners.procrastinate import ProcrastinateRunner  # noqa: PLC0415 (an optional dependency)

    jobs.check(database_url(settings))
    return ProcrastinateRunner(
        database_url(settings), threads=threads, runtime=runtime, clock=clock, handlers=handler_ids
    )


def build_runner(queue: SlotPool | ProcrastinateRunner, ledger: Ledger, clock: Clock) -> Runner:
    """Return the runner of a queue."""
    if isinstance(queue, SlotPool):
        return EmbeddedRunner(queue, ledger, clock)
    queue.connect(ledger)
    return queue
