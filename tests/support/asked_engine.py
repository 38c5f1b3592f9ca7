"""A source whose engine is a `FakeEngine`, and the rows that its rounds store in the ledger. No tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowhooks import handler
from flowhooks.ledger import engine_book
from flowhooks.settings import EngineSettings, Source

if TYPE_CHECKING:
    from flowhooks.background.reconciliation.context import RoundResult
    from flowhooks.testing import ManualClock
    from flowhooks.testing.engines.fake_engine import FakeEngine
    from support.app_harness import LedgerHarness, RunningApp

MINUTE = 60
"""Seconds of a minute."""


def settings_of(engine: dict[str, Any] | None = None, **source: Any) -> Source:
    """Make the source `oa` with an engine."""
    options = {"client": "fake", "url": "http://oa.invalid", "grace": 120.0, "variables": ("amount",)} | (engine or {})
    return Source(engine=EngineSettings(**options), **{"token_sha256": ("0" * 64,)} | source)


@handler(process_key="leave")
def grant(event):
    """Grant the leave."""


@dataclass
class ReconciledApp:
    """An app that reconciles with a `FakeEngine`, with methods that read its results."""

    harness: LedgerHarness
    clock: ManualClock
    engine: FakeEngine
    flow: RunningApp

    @property
    def service(self):
        """The reconciliation."""
        return self.flow.app.reconciliation

    def round(self, source: str = "oa", **options: Any) -> RoundResult:
        """Run a round, which must succeed."""
        result = self.service.reconcile_now(source, **options)
        assert not result.error, result
        return result

    def failed(self, source: str = "oa", **options: Any) -> RoundResult:
        """Run a round, which must fail."""
        result = self.service.reconcile_now(source, **options)
        assert result.error, result
        return result

    def finish(self, instance_id: str | None = None, **fields: Any) -> str:
        """End an instance of the process `leave`."""
        return self.engine.finish(instance_id, **{"process_definition_key": "leave"} | fields).id

    def after_grace(self, seconds: float = 121) -> RoundResult:
        """Advance the clock beyond the grace period, and run a round."""
        self.clock.advance(seconds)
        return self.round()

    def book(self) -> dict[str, tuple[str, str]]:
        """Return the disposition and the rule of each recorded instance."""
        rows = self.flow.sql("SELECT flow_instance_id, disposition, rule FROM engine_instances")
        return {row[0]: (row[1], row[2]) for row in rows}

    def events(self) -> dict[str, str]:
        """Return the origin of the event of each instance that has one."""
        return dict(self.flow.sql("SELECT flow_instance_id, origin FROM events"))

    def position(self, source="oa"):
        """Return the position up to which the history was read."""
        with self.flow.app.ledger.connection() as connection:
            return engine_book.position(connection, source)

    def gaps(self) -> list[tuple[Any, ...]]:
        """Return the reason of each gap, and whether the gap is closed."""
        rows = self.flow.sql("SELECT reason, closed_at FROM history_gaps ORDER BY since")
        return [(reason, closed_at is not None) for reason, closed_at in rows]
