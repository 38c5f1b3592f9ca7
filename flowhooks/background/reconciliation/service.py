"""Reconciliation of all sources with an engine: a thread for each of them, and the operator's entry points."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from flowhooks.background.reconciliation.clients import create_clients, create_refused_client, is_unloaded
from flowhooks.background.reconciliation.context import BUSY
from flowhooks.background.reconciliation.reconciler import RoundLock, SourceReconciler
from flowhooks.clock import SECOND
from flowhooks.errors import NotFound, SettingsError
from flowhooks.ledger import engine_book
from flowhooks.settings.secrets import read_engine_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.background.reconciliation.clients import BoundedClient
    from flowhooks.background.reconciliation.context import RoundResult
    from flowhooks.clock import Clock
    from flowhooks.intake.callback import Callback, TakenIn
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings, Source

MAX_BUSY_WAIT: Final = 30.0
"""Maximum seconds until a process that found another one at work looks again."""

YIELD_FACTOR: Final = 1.2
"""How much later than due a source whose client is refused makes its round, which can only record why. Another process
on the same ledger, whose client was created, has made a real round by then.
"""

_CORRECT: Final = "send SIGHUP when it is corrected"
_LOAD: Final = "restart the server when the plugin can be loaded, or send SIGHUP when the settings are corrected"
_END_SAFE_MODE: Final = "safe mode loads no plugin: restart the server without it"
_CORRECT_FILE: Final = "correct the file and send SIGHUP; until then the previous secret is used"

log = structlog.get_logger(__name__)


class Reconciliation:
    """Reconciles the histories of the engines with the events.

    Rounds of one source never overlap, also if an operator asks for one. Of the processes that share a ledger, the one
    that has the lease of a source makes its round.

    Args:
        settings: the settings.
        plugins: offer the engine clients.
        environ: the environment from which secrets are read.
        ledger: has the book and the events.
        take_in: stores an instance as an event: `Intake.take_in`.
        on_source: called with the name of each source that is reconciled from now on.
        on_taken_in: called with the source of each new event, and whether a callback was expected: `missed`.
        schemas: the schemas of callbacks.
        clock: the time.
        is_server: whether this process is a server. A client whose plugin may be denied or quarantined does not prevent
            its start, so that callbacks are stored; each round of the source fails. A command must not record such a
            failure, because a server that has the plugin may reconcile the source.

    Raises:
        SettingsError: an engine client cannot be created; one line for each source.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        plugins: Plugins,
        environ: Mapping[str, str],
        ledger: Ledger,
        take_in: Callable[[Callback], TakenIn],
        on_source: Callable[[str], None],
        on_taken_in: OnTakenIn,
        schemas: Schemas,
        clock: Clock,
        is_server: bool,
    ) -> None:
        self._plugins = plugins
        self._environ = environ
        self._ledger = ledger
        self._take_in = take_in
        self._on_source = on_source
        self._on_taken_in = on_taken_in
        self._schemas = schemas
        self._clock = clock
        self._safe_mode = settings.safe_mode
        self._identity_days = settings.retention.identities
        self._lock = threading.Lock()
        self._is_started = False
        self._is_stopping = False
        self._ready_since = 0
        self._not_ready_at = 0
        self._sources: dict[str, Source] = {}
        self._refused: set[str] = set()
        self._rounds: dict[str, RoundLock] = {}
        self._workers: dict[str, _ReconcilerThread] = {}
        self._closed: list[_ReconcilerThread] = []
        problems = []
        for name, client in self._create_clients(settings).items():
            source = settings.sources[name]
            if not isinstance(client, SettingsError):
                self._add(name, source, client)
            elif is_server and self._is_unloaded(source):
                # Its round is not made at once: repeated starts must not raise the alert beside a server that
                # reconciles the source.
                self._add_refused(name, source, str(client))
            else:
                problems.append(str(client))
        if problems:
            self.stop(0)
            raise SettingsError("\n".join(problems))

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources with an engine."""
        return tuple(self._workers)

    def start(self) -> None:
        """Start a thread for each source. Engines have the time `grace` from now on to call."""
        with self._lock:
            self._is_started = True
            self._ready_since = self._clock.now()
            for worker in self._workers.values():
                worker.start()

    def report_not_ready(self) -> None:
        """Note that this process is not ready for callbacks, so that engines get the time `grace` after it.

        An instance waits for it for at most an hour.
        """
        self._not_ready_at = self._clock.now()

    def begin_stop(self) -> None:
        """End the rounds in progress soon; what they have written stays."""
        with self._lock:
            self._is_stopping = True
            for worker in self._workers.values():
                worker.begin_stop()

    def stop(self, timeout: float) -> None:
        """Stop; the rounds in progress get `timeout` seconds together."""
        self.begin_stop()
        deadline = time.monotonic() + timeout
        for worker in (*self._workers.values(), *self._closed):
            worker.join(max(0.0, deadline - time.monotonic()))

    def reconfigure(self, settings: Settings) -> None:
        """Use the sources of new settings from now on. The files of passwords and tokens are read again.

        A source whose engine client cannot be created is not reconciled until the settings are corrected. Each of its
        rounds fails, and says why.
        """
        with self._lock:
            self._identity_days = settings.retention.identities
            refused_before = frozenset(self._refused)
            for name, before in list(self._sources.items()):
                is_refused = name in refused_before
                if is_refused or settings.sources.get(name) != before or self._has_new_secrets(name, before):
                    del self._sources[name]
                    self._refused.discard(name)
                    worker = self._workers.pop(name)
                    worker.begin_stop()
                    self._closed = [*(closed for closed in self._closed if closed.is_alive()), worker]
            if self._is_stopping:
                return
            for name, client in self._create_clients(settings).items():
                source = settings.sources[name]
                if not isinstance(client, SettingsError):
                    worker = self._add(name, source, client)
                else:
                    worker = self._add_refused(name, source, str(client))
                    # Once: its failure delays the next round of another process, whose client was created.
                    if name not in refused_before:
                        worker.wake()
                if self._is_started:
                    worker.start()

    def _create_clients(self, settings: Settings) -> dict[str, BoundedClient | SettingsError]:
        """Create the client of each source that has none yet."""
        engines = {
            name: source.engine
            for name, source in settings.sources.items()
            if source.engine is not None and name not in self._sources
        }
        return create_clients(engines, self._plugins, self._environ)

    def _has_new_secrets(self, name: str, source: Source) -> bool:
        try:
            return (
                source.engine is not None
                and read_engine_secrets(source.engine, self._environ) != self.client(name).secrets
            )
        except ValueError as error:
            log.error("engine_client_refused", source=name, why=str(error), next=_CORRECT_FILE)  # noqa: TRY400 (one line says it)
            return False

    def reconcile_now(
        self, source: str, *, since: int | None = None, declined: bool = False, dry_run: bool = False
    ) -> RoundResult:
        """Make a round of a source, after the one in progress. If another request waits for it, the result is *busy*.

        Args:
            source: the name of the source.
            since: the earliest end to read, by the engine's clock, in microseconds since 1970; instances that ended
                before the first contact are taken in, too. None: the regular window.
            declined: whether to take in instances, too, that an operator declined.
            dry_run: whether to write nothing, and to count what would be taken in.

        Raises:
            NotFound: there is no source with an engine of this name.
        """
        return self._worker(source).reconciler.run_for_request(since=since, declined=declined, dry_run=dry_run)

    def confirm(self, source: str, seen_until: int | None = None) -> None:
        """Let the next round take in instances that wait for an operator.

        Args:
            source: the name of the source.
            seen_until: instances that were first seen until this time, in microseconds since 1970; None: as many as the
                last round has counted.

        Raises:
            NotFound: there is no source with an engine of this name.
            Unavailable: it was not stored.
        """
        worker = self._worker(source)
        self._ledger.write(lambda transaction: engine_book.confirm(transaction, source, seen_until))
        worker.wake()

    def decline(self, source: str, seen_until: int | None = None, *, note: str) -> int:
        """Let a rule skip the instances that wait for an operator; return their number.

        Args:
            source: the name of the source.
            seen_until: instances that were first seen until this time, in microseconds since 1970; None: as many as the
                last round has counted.
            note: why; it is stored beside each instance.

        Raises:
            NotFound: there is no source with an engine of this name.
            LedgerError: the source cannot be reconciled now: the message says why, such as another process. Nothing
                was declined, or a part, and the next reconciliation declines the rest.
            Unavailable: it was not stored, or only a part, and the next reconciliation declines the rest.
        """
        return self._worker(source).reconciler.decline(seen_until, note)

    def client(self, source: str) -> BoundedClient:
        """Return the client of a source. It may be called from any thread.

        Raises:
            NotFound: there is no source with an engine of this name.
        """
        return self._worker(source).reconciler.client

    def _worker(self, source: str) -> _ReconcilerThread:
        if (worker := self._workers.get(source)) is None:
            known = ", ".join(sorted(self._workers)) or "none"
            raise NotFound(f"there is no source {source} with an engine; the sources with one are: {known}")
        return worker

    def _add_refused(self, name: str, source: Source, why: str) -> _ReconcilerThread:
        """Add a source whose client cannot be created, so that the error is recorded as that of an engine is."""
        if source.engine is None:
            raise ValueError(f"source {name} has no engine")
        to_do = self._to_do(source)
        log.error(
            "engine_client_refused",
            source=name,
            why=why,
            next=f"{to_do}; until then this server does not reconcile the source",
        )
        self._refused.add(name)
        client = create_refused_client(name, source.engine, f"{why}; {to_do}")
        return self._add(name, source, client)

    def _to_do(self, source: Source) -> str:
        if self._safe_mode:
            return _END_SAFE_MODE
        return _LOAD if self._is_unloaded(source) else _CORRECT

    def _is_unloaded(self, source: Source) -> bool:
        return source.engine is not None and is_unloaded(source.engine.client, self._plugins, safe_mode=self._safe_mode)

    def _add(self, name: str, source: Source, client: BoundedClient) -> _ReconcilerThread:
        self._on_source(name)
        reconciler = SourceReconciler(
            name,
            source,
            client,
            ledger=self._ledger,
            take_in=partial(self._take_in_and_count, expects_callbacks=source.has_credential),
            schemas=self._schemas,
            clock=self._clock,
            identity_days=lambda: self._identity_days,
            ready_since=self._served_since,
            not_ready_at=lambda: self._not_ready_at,
            rounds=self._rounds.setdefault(name, RoundLock()),
        )
        worker = self._workers[name] = _ReconcilerThread(reconciler, self._clock, is_refused=name in self._refused)
        self._sources[name] = source
        return worker

    def _served_since(self) -> int:
        """Return since when this process has taken callbacks; a clock that was ahead at the start postpones nothing."""
        self._ready_since = min(self._ready_since, self._clock.now())
        return self._ready_since

    def _take_in_and_count(self, callback: Callback, *, expects_callbacks: bool) -> TakenIn:
        taken = self._take_in(callback)
        if taken.new:
            self._on_taken_in(callback.source, missed=expects_callbacks)
        return taken


class OnTakenIn(Protocol):
    """Counts an event that was taken in."""

    def __call__(self, source: str, *, missed: bool) -> None:
        """Count it; `missed`: a callback was expected."""


class _ReconcilerThread:
    """The thread of one source."""

    def __init__(self, reconciler: SourceReconciler, clock: Clock, *, is_refused: bool = False) -> None:
        self.reconciler = reconciler
        self._every = reconciler.engine.reconcile_every * (YIELD_FACTOR if is_refused else 1)
        self._clock = clock
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._loop, name=f"reconcile-{reconciler.name}", daemon=True)

    def start(self) -> None:
        """Make rounds from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Make the next round at once."""
        self._wake.set()

    def begin_stop(self) -> None:
        """End the round in progress, and make no other."""
        self._is_stopping = True
        self.reconciler.stop()
        self._wake.set()
        self.reconciler.close()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, at most `timeout` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        wait, is_asked = self._seconds_until_due(), False
        while not self._is_stopping:
            is_asked = self._wake.wait(wait) or is_asked
            self._wake.clear()
            if self._is_stopping:
                return
            if not is_asked and (wait := self._seconds_until_due()) > 0:
                continue  # another process has made the round meanwhile
            result = self.reconciler.run()
            # The round of another process may have begun before an operator asked for one.
            is_asked = is_asked and result.reason == BUSY
            wait = min(self._every, MAX_BUSY_WAIT) if result.reason == BUSY else self._every

    def _seconds_until_due(self) -> float:
        """Return the seconds until a round is due, because any process made the last one; 0 if it is due."""
        try:
            position = self.reconciler.position()
        except Exception:  # noqa: BLE001 (such as one about a damaged value: the round reports it)
            return 0.0
        if position is None:
            return 0.0
        passed = (self._clock.now() - position.round_at) / SECOND
        # A little early counts: otherwise the process that made the last round would make the next one too late.
        return self._every - passed if 0 <= passed < self._every * 0.9 else 0.0
