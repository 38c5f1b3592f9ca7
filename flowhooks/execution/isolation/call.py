"""Run one delivery in a handler process, enforce its timeout, and turn the end of the process into an exception."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from flowhooks.errors import HandlerLost, HandlerProcessUnavailable
from flowhooks.execution.isolation import log_forwarding, protocol
from flowhooks.model.invocation import Invocation, current_invocation, outside_of_invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.execution.isolation.pool import ProcessPool
    from flowhooks.execution.isolation.process_handle import HandlerProcess
    from flowhooks.execution.run_options import RunOptions
    from flowhooks.model.delivery import Delivery
    from flowhooks.model.event import Event

MAX_TRIES: Final = 3
"""Processes that are tried for one delivery, because the operating system may have ended an idle one."""

log = structlog.get_logger(__name__)


class IsolatedCalls(NamedTuple):
    """The call functions of an isolated handler.

    Both raise `Reject` and `RetryAfter` as the handler's function raised them, `HandlerRaised` for any other exception
    of it, `HandlerLost` if its process ended, and `HandlerProcessUnavailable` if no process was available.

    Attributes:
        run: calls the handler's function, and marks the current invocation as entered if the function may have been
            entered.
        probe: calls the handler's probe.
    """

    run: Callable[[Event, Delivery], Any]
    probe: Callable[[Event, Delivery], Any]


def callers(pool: ProcessPool) -> dict[str, IsolatedCalls]:
    """Return the call functions of the isolated handlers, by handler id."""
    return {
        handler_id: IsolatedCalls(
            run=partial(call, pool, options, probe=False), probe=partial(call, pool, options, probe=True)
        )
        for handler_id, options in pool.options.items()
    }


def call(pool: ProcessPool, options: RunOptions, event: Event, delivery: Delivery, *, probe: bool) -> Any:
    """Run a handler's function, or its probe, in its own process.

    Args:
        pool: the handler processes.
        options: the handler's run options.
        event: the event for the function.
        delivery: the delivery for the function. The current invocation is marked as entered while the function may
            have been entered.
        probe: whether to call the probe instead of the function.

    Raises:
        HandlerProcessUnavailable: no process is available, or the request cannot be sent; nothing was run.
        HandlerLost: the process ended before it replied.
        HandlerRaised: the function raised an exception other than `Reject` and `RetryAfter`.
    """
    invocation = current_invocation() or Invocation(delivery.id, delivery.attempt)  # a probe runs in none
    reason = ""
    for _ in range(MAX_TRIES):
        process = pool.acquire(delivery.handler)
        until = time.monotonic() + options.timeout
        try:
            process.begin_run(delivery)
            request = {
                "run": process.runs,
                "probe": probe,
                "memory_mib": options.memory_mib,
                "level": logging.getLogger().level,
                "event": protocol.from_event(event),
                "delivery": asdict(delivery),
            }
            message = protocol.encode_frame(request)
        except BaseException as error:
            pool.discard(process, "crashed")  # otherwise it would stay busy
            if not isinstance(error, TypeError | ValueError | RecursionError):
                raise
            raise HandlerProcessUnavailable(
                "the event cannot be sent to the handler's process: a run_handler wrapper has changed its data "
                f"({error})"
            ) from None
        invocation.entered = True
        answer = _exchange(pool, process, options, message, until=until)
        if answer is not None:
            return _return_or_raise(answer, invocation)
        invocation.entered = False
        if process.spawn_error:
            reason = f": {process.spawn_error}"
            log.warning("process_spawn_failed", handler=delivery.handler, why=process.spawn_error)
    raise HandlerProcessUnavailable(
        f"no process could be started for the handler: {MAX_TRIES} processes ended before they began{reason}"
    )


def _exchange(
    pool: ProcessPool, process: HandlerProcess, options: RunOptions, message: bytes, *, until: float
) -> Mapping[str, Any] | None:
    """Send the worker a request and return its reply; None if the worker has not entered the function.

    Raises:
        HandlerLost: the worker received the request and sent no reply.
    """
    try:
        process.send(message, until)
    except OSError:  # the worker has not received the whole request
        pool.discard(process, "crashed", has_disconnected=True)
        return None
    try:
        while "log" in (answer := process.receive(until)):
            # A thread that the previous run left behind may log during this one.
            with nullcontext() if answer.get("run") == process.runs else outside_of_invocation():
                log_forwarding.emit_forwarded(answer["log"], **process.log_context(answer.get("run")))
        grown = _check_answer(answer, process.runs)
    except TimeoutError:
        pool.discard(process, "overdue", with_traceback=True)
        why = f"killed after {options.timeout:g} s because it was overdue"
    except protocol.ConnectionClosed:
        stopped = process.closing_reason == "stopped"
        pool.discard(process, "crashed", has_disconnected=True)
        if process.spawn_error:
            return None
        why = "killed because the server has stopped" if stopped else process.exit_text(options.memory_mib)
    except Exception as error:  # noqa: BLE001 (after any error the process must not keep running unsupervised)
        pool.discard(process, "crashed")
        why = f"killed because its process sent an invalid answer: {error}"
    else:
        pool.release(process, grown)
        return answer
    raise HandlerLost(why, process.output.tail)


def _return_or_raise(answer: Mapping[str, Any], invocation: Invocation) -> Any:
    if "raised" in answer:
        raise answer["raised"]
    invocation.result_dropped = str(answer.get("dropped", ""))
    return answer.get("verdict", answer.get("value"))


def _check_answer(answer: dict[str, Any], run: int) -> int:
    """Return the worker's memory growth in bytes from a valid reply.

    Raises:
        ProtocolError: the reply is malformed.
    """
    if answer.get("run") != run or not isinstance(grown := answer.get("grown"), int):
        raise protocol.ProtocolError("an answer to another request")
    if "raised" in answer:
        answer["raised"] = protocol.to_error(answer["raised"])
    return grown
