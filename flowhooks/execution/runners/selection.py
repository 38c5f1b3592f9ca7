"""Build the queue and the runner that `runner.kind` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.execution.runners.embedded import EmbeddedRunner
from flowhooks.execution.runners.handler_slots import HandlerSlots
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.execution.runners.slots import SlotPool
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.execution.runners.job_queue import JobQueue
    from flowhooks.execution.runners.runner import Runner
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.settings import Settings


def build_queue(settings: Settings, runtime: HandlerRuntime, clock: Clock) -> SlotPool | JobQueue:
    """Return the ledger's queue. It is built before the ledger, and its runner after it.

    Args:
        settings: the settings.
        runtime: how this process runs each handler.
        clock: current time.

    Raises:
        SettingsError: the runner does not support this database, or is not installed.
        LedgerUnusable: the runner's tables are missing or have another version.
    """
    threads = settings.runner.threads
    if settings.runner.kind == "embedded":
        return SlotPool(threads, runtime, clock)
    procrastinate_schema_of(settings).check(database_url(settings))
    from flowhooks.execution.runners.job_queue import JobQueue  # noqa: PLC0415 (an optional dependency)

    return JobQueue(HandlerSlots(threads, runtime.limit), runtime, clock)


def build_runner(
    settings: Settings,
    queue: SlotPool | JobQueue,
    *,
    ledger: Ledger,
    runtime: HandlerRuntime,
    clock: Clock,
    handler_ids: frozenset[str],
) -> Runner:
    """Return the runner of a queue.

    Args:
        settings: the settings.
        queue: the ledger's queue.
        ledger: the ledger.
        runtime: how this process runs each handler.
        clock: current time.
        handler_ids: ids of the loaded handlers that this process runs.
    """
    if isinstance(queue, SlotPool):
        return EmbeddedRunner(queue, ledger, clock)
    from flowhooks.execution.runners.procrastinate import ProcrastinateRunner  # noqa: PLC0415 (as above)

    return ProcrastinateRunner(
        database_url(settings), queue=queue, ledger=ledger, runtime=runtime, clock=clock, handlers=handler_ids
    )
