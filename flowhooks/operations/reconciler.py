"""The interface through which operations reconcile with engines and ask them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from flowhooks.background.reconciliation.context import RoundResult
    from flowhooks.model.engine import EngineClient


class Reconciler(Protocol):
    """Reconciles the ledger with engines."""

    @property
    def sources(self) -> Collection[str]:
        """Names of the sources with an engine."""
        ...

    def reconcile_now(self, source: str, *, since: int | None, declined: bool, dry_run: bool) -> RoundResult:
        """Reconcile with one engine, after the reconciliation in progress. A failure is in the result.

        If another request waits for that one already, the result says so at once.

        Args:
            source: the name of the source.
            since: the earliest end, in microseconds since 1970; None: where the last reconciliation ended.
            declined: whether to take in instances, too, that an operator declined.
            dry_run: whether to change nothing.
        """
        ...

    def confirm(self, source: str, seen_until: int | None) -> None:
        """Let the next reconciliation take in the instances that wait for an operator.

        Args:
            source: the name of the source.
            seen_until: instances that were first seen until this time, in microseconds since 1970; None: as many as the
                last reconciliation has counted.
        """
        ...

    def decline(self, source: str, seen_until: int | None, *, note: str) -> int:
        """Let a rule skip the instances that wait for an operator; return their number.

        Args:
            source: the name of the source.
            seen_until: as for `confirm`.
            note: why.

        Raises:
            LedgerError: the source cannot be reconciled now: the message says why, such as another process. Nothing
                was declined, or a part, and the next reconciliation declines the rest.
            Unavailable: it was not stored, or only a part, and the next reconciliation declines the rest.
        """
        ...

    def client(self, source: str) -> EngineClient:
        """Return the client of one source."""
        ...
