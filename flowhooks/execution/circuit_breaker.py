"""Holds handlers that fail again and again, and tries them now and then; it must not know how an attempt is made.

Failures are counted here, by this process for itself. That a handler is held is in the ledger, and goes for all.
"""

from __future__ import annotations

import hashlib
import threading
from inspect import unwrap
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import circuit_breaker
from flowhooks.model.delivery import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.delivery import Claimed, Execute, Outcome, Queued
    from flowhooks.model.handler import Handler

LOOK_EVERY: Final = 0.5
"""Seconds between looks for handlers that are to be tried."""
MOST_WHY: Final = 500
"""Characters of an error that are kept as the reason."""

log = structlog.get_logger(__name__)


class Holding:
    """Counts how attempts end, and acts by it.

    Args:
        ledger: where it is written down what is held.
        hold_after: of each handler that this process runs, by its id, how many attempts have to fail in a row; 0: it
            is never held.
        releases: which release of its plugin each is of, by its id.
        try_every: seconds between two trials of a handler.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        hold_after: Mapping[str, int],
        releases: Mapping[str, str],
        try_every: float,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._hold_after = hold_after
        self._releases = releases
        self._try_every = int(try_every * SECOND)
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._wanted: SimpleQueue[tuple[str, str | None]] = SimpleQueue()
        self._look = threading.Event()
        self._trouble: str | None = None

    def ended(self, handler: str, outcome: Outcome, error: str) -> None:
        """Take note of how an attempt ended, once that is durable. From the ledger's own thread: it must be quick.

        What is rejected, and what asks to be made again later, says nothing about whether the handler works.

        Args:
            handler: its handler's id.
            outcome: how it ended.
            error: why, as it was written down.
        """
        if outcome.succeeded:
            if self._failures.pop(handler, 0) or handler in self._ledger.pauses.handlers:
                self._want(handler, None)
        elif outcome.kind is not OutcomeKind.REJECTED and outcome.retry_after is None:
            failures = self._failures[handler] = self._failures.get(handler, 0) + 1
            most = self._hold_after.get(handler, 0)
            if most and failures >= most and handler not in self._ledger.pauses.handlers:
                self._want(handler, error)

    def _want(self, handler: str, why: str | None) -> None:
        """Have a handler held for a reason; None: have it released if it is held."""
        self._wanted.put((handler, why))
        self._look.set()

    def run(self, execute: Execute, stop: threading.Event) -> None:
        """Hold, try and release until `stop` is set; return when no trial runs any more.

        Args:
            execute: makes an attempt that has begun.
            stop: is set when the process is about to end.
        """
        trials: list[threading.Thread] = []
        while not stop.is_set():
            try:
                self._act()
                trials = [one for one in trials if one.is_alive()]
                for one in self._tried(execute):
                    trials.append(one)  # each at once: the next one may not come, and all are waited for
                self._trouble = None
            except FlowhooksError as error:
                if self._trouble is None:
                    log.error("cannot_hold_or_try", why=str(error))  # noqa: TRY400 (one line until it changes)
                self._trouble = str(error)
            except Exception as error:
                # A fault of ours must not end the trials: what is held would be so for ever.
                if self._trouble is None:
                    log.exception("cannot_hold_or_try")
                self._trouble = type(error).__name__
            self._look.wait(LOOK_EVERY)
            self._look.clear()
        for one in trials:
            one.join()

    def wake(self) -> None:
        """Look now rather than soon: `stop` was set."""
        self._look.set()

    def _act(self) -> None:
        """Do what the ends of attempts ask for; what cannot be done now is asked for again by the next one's end."""
        asked: dict[str, str | None] = {}
        while True:
            try:
                handler, why = self._wanted.get_nowait()
            except Empty:
                break
            asked[handler] = why  # the newest counts
        for handler, why in asked.items():
            if why is not None:
                self._hold(handler, why)
            elif handler in self._ledger.pauses.handlers and self._release([handler]):
                log.info("handler_released", handlers=[handler], why="an attempt has succeeded")

    def _hold(self, handler: str, why: str) -> None:
        now = self._clock.now()
        release, trial_at = self._releases.get(handler, ""), now + self._try_every
        wish = circuit_breaker.OpenCircuit(handler, why[:MOST_WHY], release, trial_at)
        pauses = self._ledger.pauses
        if self._ledger.write(lambda transaction: circuit_breaker.open_circuit(transaction, wish, now, pauses)):
            log.error(
                "handler_held",
                handler=handler,
                failures=self._failures.get(handler, 0),
                why=wish.why,
                next="mend it; it is tried now and then, and runs again when that succeeds, or by "
                "`flowhooks handlers resume`",
            )

    def _release(self, handlers: Collection[str]) -> frozenset[str]:
        now, pauses = self._clock.now(), self._ledger.pauses
        return self._ledger.write(
            lambda transaction: circuit_breaker.close_circuits(transaction, handlers, now, pauses)
        )

    def _tried(self, execute: Execute) -> Iterator[threading.Thread]:
        """Begin a trial of each handler whose time has come, and that this process runs; their threads."""
        if self._hold_after.keys().isdisjoint(self._ledger.pauses.handlers):
            return
        now = self._clock.now()
        for handler, held in self._ledger.open_circuits().items():
            again_at = now + self._try_every
            is_time = held.trial_at <= now or held.trial_at > again_at + circuit_breaker.MAX_TRIAL_AHEAD
            if handler in self._hold_after and is_time:
                begun = self._ledger.claim_trial_delivery(handler, again_at)
                if begun is not None:
                    yield from _started(execute, *begun)


def _started(execute: Execute, queued: Queued, claimed: Claimed) -> Iterator[threading.Thread]:
    """Begin a trial in a thread of its own; where there is no room for another, it is made here, and nothing else."""

    def tried() -> None:
        log.info("handler_tried", handler=queued.handler, delivery=queued.delivery_id, event_id=claimed.event.id)
        try:
            execute(queued, claimed)
        except BaseException:
            # As in a runner: a fault of ours is told, and the next start recovers what it left running.
            log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)

    thread = threading.Thread(target=tried, name=f"trial-{queued.handler}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        tried()  # it stands as running: left so, nothing of its handler would ever be tried again
    else:
        yield thread


def releases(handlers: Mapping[str, Handler], version: Callable[[str], str]) -> dict[str, str]:
    """Which release of its plugin each handler is of, by its id: the version, and what is in the function's own file.

    Args:
        handlers: those that are loaded, by id.
        version: the version of a plugin, by its name.
    """
    return {one: f"{version(handlers[one].plugin)} {digest}".strip() for one, digest in files(handlers).items()}


def files(handlers: Mapping[str, Handler]) -> dict[str, str]:
    """What is in the file of each handler's function just now, by its id: a digest of it, `""` where there is no file.

    Args:
        handlers: those that are loaded, by id.
    """
    digests: dict[str, str] = {}
    found = {}
    for one, handler in handlers.items():
        code = getattr(unwrap(handler.function), "__code__", None)
        name = code.co_filename if code else ""
        if name not in digests:
            digests[name] = _digest(name)
        found[one] = digests[name]
    return found


def _digest(name: str) -> str:
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    except (OSError, ValueError):  # what came from no file, or from within an archive
        return ""
