"""Steps of reconciliation: ends, callbacks, rounds, decisions of operators, killed rounds and lost leases.

The model knows which instances have ended, called, or were declined. After each step it must hold that an instance has
at most one event, and that the book says what became of it. At the end each ended instance has its event, or was
declined.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowhooks.ledger import engine_queries
from flowhooks.model.engine import EndState
from flowhooks.testing.engines.fake_engine import FakeEngine
from support.app_harness import plugin
from support.asked_engine import ReconciledApp, grant, settings_of

GRACE = 60
SETTINGS = {"grace": float(GRACE), "max_new": 2, "page_size": 2}
INSTANCES = st.integers(0, 7).map("i{}".format)
POINTS = st.sampled_from(
    [
        "reconcile.leased",
        "reconcile.page_written",
        "reconcile.page_committed",
        "reconcile.read",
        "reconcile.taken_in",
        "reconcile.finished",
    ]
)
MODULES = ("due", "pages", "round", "reconciler")


class Killed(BaseException):
    """The process ends here."""


class Rounds(RuleBasedStateMachine):
    """A ledger that asks an engine. A subclass provides the harness, and `patched`."""

    def new_harness(self) -> Any:
        """A harness for a new ledger."""
        raise NotImplementedError

    def patched(self, target: str, value: Any) -> Any:
        """A context in which an attribute has another value."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.harness = self.new_harness()
        self.engine = FakeEngine(self.harness.clock)
        self.ended: set[str] = set()
        self.called: set[str] = set()
        self.declined: set[str] = set()
        self.asked: ReconciledApp
        for number in range(8):
            self.engine.start(f"i{number}")
        self.open()
        self.asked.round()

    def open(self) -> None:
        """Start a process."""
        flow = self.harness.open(
            plugins={"p": plugin(grant, engine_clients=lambda: {"fake": self.engine.client})},
            sources={"oa": settings_of(SETTINGS)},
            start=False,
        )
        self.asked = ReconciledApp(self.harness, self.harness.clock, self.engine, flow)

    def teardown(self) -> None:
        """Let everything be taken in; then each ended instance has its event, or was declined."""
        try:
            for _ in range(2):
                self.asked.clock.advance(GRACE + 1)
                self.asked.round()
                self.asked.service.confirm("oa")
                self.asked.round()
            self.agree()
            assert self.ended <= set(self.asked.events()) | self.declined
            assert self.asked.flow.app.ledger.verify().problems == []
        finally:
            self.harness.crash(self.asked.flow)

    @invariant()
    def agree(self) -> None:
        """Check the events and the book."""
        rows = self.asked.flow.sql("SELECT flow_instance_id, origin FROM events")
        events = dict(rows)
        assert len(events) == len(rows)
        assert set(events) >= self.called
        assert {name for name, origin in events.items() if origin == "reconciled"} <= self.ended
        book = self.asked.book()
        assert set(book) <= self.ended
        for name, (disposition, why) in book.items():
            assert (disposition == "has_event") == (name in events), name
            assert (why == "declined") == (name in self.declined), name

    @rule(name=INSTANCES, undecided=st.booleans())
    def end(self, name: str, undecided: bool) -> None:
        """An instance ends."""
        if name not in self.ended:
            self.asked.finish(name, end_state=EndState.UNDECIDED if undecided else EndState.COMPLETED)
            self.ended.add(name)

    @rule(name=INSTANCES)
    def call(self, name: str) -> None:
        """The engine calls, before the end is in the history or after it, also for a declined instance."""
        self.asked.flow.take(name, source="oa", wait=0)
        self.called.add(name)
        self.declined.discard(name)

    @rule(seconds=st.sampled_from([1, GRACE - 1, GRACE + 1, 10 * GRACE]))
    def advance(self, seconds: int) -> None:
        """Time passes."""
        self.asked.clock.advance(seconds)

    @rule()
    def make_round(self) -> None:
        """A round is made; it takes in no more than `max_new` without an operator."""
        self.asked.round()

    @rule(since=st.booleans())
    def decide_again(self, since: bool) -> None:
        """An operator asks for an earlier start, also for declined instances."""
        before = set(self.asked.events())
        self.asked.round(since=self.asked.clock.now() - 3_600_000_000, declined=since)
        if since:
            self.declined = {name for name, (_, why) in self.asked.book().items() if why == "declined"}
        assert not (set(self.asked.events()) - before) & self.declined

    @rule()
    def confirm(self) -> None:
        """An operator lets the waiting instances be taken in."""
        self.asked.service.confirm("oa")

    @precondition(lambda self: self.asked.position().to_confirm)
    @rule()
    def decline(self) -> None:
        """An operator declines the waiting instances: only some without an event."""
        before = self.asked.book()
        count = self.asked.service.decline("oa", note="no")
        declined = {name for name, (_, why) in self.asked.book().items() if why == "declined"} - self.declined
        assert len(declined) == count
        assert all(before[name] == ("in_grace", "") for name in declined)
        self.declined |= declined

    @precondition(lambda self: self.asked.position().to_confirm)
    @rule(point=st.sampled_from(["reconcile.declining", "reconcile.declined"]))
    def kill_a_decline(self, point: str) -> None:
        """The process is killed in a decline, and the next round declines the rest."""
        with self.asked.flow.app.ledger.connection() as connection:
            seen_until = engine_queries.waiting(connection, "oa").seen_until
        shown = self.asked.flow.sql(
            "SELECT flow_instance_id FROM engine_instances WHERE disposition = 'in_grace' AND first_seen_at > ? "
            "AND first_seen_at <= ?",
            self.asked.position().confirmed_at or 0,
            seen_until,
        )

        def hit(name: str) -> None:
            if name == point:
                raise Killed

        with suppress(Killed), self.patched("hit", hit), self.patched("PAGE_OF_DUE", 1):
            self.asked.service.decline("oa", note="no")
        self.harness.crash(self.asked.flow)
        self.open()
        self.asked.service.confirm("oa")
        self.asked.round()
        self.declined |= {name for (name,) in shown}

    @rule(point=POINTS, late=st.booleans())
    def kill(self, point: str, late: bool) -> None:
        """The process is killed in a round, and another one starts."""

        def hit(name: str) -> None:
            if name == point:
                raise Killed

        with suppress(Killed):
            self._round_with(hit)
        self.harness.crash(self.asked.flow)
        if late:
            self.asked.clock.advance(10 * GRACE)
        self.open()

    @rule(point=st.sampled_from(["reconcile.page_committed", "reconcile.read", "reconcile.taken_in"]))
    def lose_the_lease(self, point: str) -> None:
        """Another process takes the lease in a round, which then ends."""
        lost = []

        def hit(name: str) -> None:
            if name == point and not lost:
                lost.append(name)
                self.asked.flow.sql("UPDATE engine_positions SET process = 'other'")

        result = self._round_with(hit)
        assert result.reason == ("stopped" if lost else "")

    def _round_with(self, hit: Any) -> Any:
        with self.patched("hit", hit):
            return self.asked.service.reconcile_now("oa")
