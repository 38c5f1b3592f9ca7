"""What operators do, and what becomes of processes and time; the steps beside those of engines and runners.

It must not know how often, or on which database, that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model import desk
from model.machine import LOADED, PICKS, WHICH, Machine
from model.paper import HANDLERS, SECOND, Delivery

from flowhooks.delivery import State
from flowhooks.errors import IllegalMove, NotFound

if TYPE_CHECKING:
    from flowhooks.ledger.reading import Standing

DRY = st.sampled_from([False, False, False, True])
WANTED = st.sampled_from(
    ["one", "one", {}, {"handler": "p:again"}, {"handler": "q:every", "state": "dead"}]
    + [{"state": one} for one in ("dead", "succeeded", "unknown", "waiting", "parked", "dismissed")]
)
PURGED = st.sampled_from([None, None, "succeeded", "closed", "dismissed", "dead", "parked"])
HELD = st.sampled_from([["p:again"], ["p:*"], ["*"], ["q:late", "p:once"], ["nobody:*"]])
SECONDS = st.sampled_from([1, 10, 60, 3600, 86_400, 200 * 86_400])


class Acting(Machine):
    """All steps."""

    def __init__(self) -> None:
        super().__init__()
        self.sights: list[tuple[Standing, Delivery]] = []

    def _perform(self, which: int, name: str, expected: dict[str, Any], **arguments: Any) -> None:
        done = self.real.perform(self._flow(which), name, **arguments)
        assert {one: done[one] for one in expected} == expected

    def _wanted(self, wanted: Any, pick: int) -> dict[str, Any]:
        events = list(self.paper.events)
        return {"ids": [events[pick % len(events)] if events else "none"]} if wanted == "one" else wanted

    @rule(wanted=WANTED, pick=PICKS, again=st.booleans(), dry=DRY, which=WHICH)
    def replay(self, wanted: Any, pick: int, again: bool, dry: bool, which: int) -> None:
        """What is dead runs again; with `again` what succeeded, too."""
        wanted = self._wanted(wanted, pick)
        expected = desk.replay(self.paper, wanted, again=again, dry_run=dry)
        self._perform(which, "replay", expected, wanted=wanted, again=again, dry_run=dry)

    @precondition(lambda self: self.real.ids)
    @rule(pick=PICKS, verdict=st.sampled_from(["did", "did-not", "close"]), dry=DRY, which=WHICH)
    def resolve(self, pick: int, verdict: str, dry: bool, which: int) -> None:
        """An operator says of one delivery what the machine cannot know; not of one that is purged."""
        names = list(self.real.ids)
        event, handler = names[pick % len(names)]
        arguments = {"delivery_id": self.real.ids[event, handler], "verdict": verdict, "dry_run": dry}
        if event not in self.paper.events:
            with pytest.raises(NotFound):
                self._perform(which, "resolve", {}, **arguments)
            return
        one = self.paper.events[event].deliveries[handler]
        expected = desk.resolve(self.paper, one, verdict, dry_run=dry)
        if expected is None:
            with pytest.raises(IllegalMove):
                self._perform(which, "resolve", {}, **arguments)
        else:
            self._perform(which, "resolve", expected, **arguments)

    @rule(dry=DRY, which=WHICH)
    def drain(self, dry: bool, which: int) -> None:
        """What is parked and wanted by now is delivered."""
        self._perform(which, "drain", desk.drain(self.paper, dry_run=dry), dry_run=dry)

    @rule(wanted=WANTED, pick=PICKS, dry=DRY, which=WHICH)
    def reroute(self, wanted: Any, pick: int, dry: bool, which: int) -> None:
        """Events go where they would go now, beside where they went."""
        wanted = self._wanted(wanted, pick)
        self._perform(which, "reroute", desk.reroute(self.paper, wanted, dry_run=dry), wanted=wanted, dry_run=dry)

    @rule(wanted=WANTED, pick=PICKS, dry=DRY, which=WHICH)
    def dismiss(self, wanted: Any, pick: int, dry: bool, which: int) -> None:
        """Nobody need want what is parked."""
        wanted = self._wanted(wanted, pick)
        self._perform(which, "dismiss", desk.dismiss(self.paper, wanted, dry_run=dry), wanted=wanted, dry_run=dry)

    @rule(handlers=HELD, pause=st.booleans(), dry=DRY, which=WHICH)
    def pause_or_resume(self, handlers: list[str], pause: bool, dry: bool, which: int) -> None:
        """Handlers are held, or let run again."""
        meant = {
            one
            for one in HANDLERS
            if any(one == word or (word[-1] == "*" and one.startswith(word[:-1])) for word in handlers)
        }
        expected = (desk.pause if pause else desk.resume)(self.paper, meant, dry_run=dry)
        self._perform(which, "pause" if pause else "resume", expected, handlers=handlers, dry_run=dry)

    @rule(state=PURGED, age=st.sampled_from([0, 0, 60, 86_400]), dry=DRY, which=WHICH)
    def purge(self, state: str | None, age: int, dry: bool, which: int) -> None:
        """Old events go."""
        until = self.paper.now + 1 - age * SECOND
        wanted = {"until": until} | ({"state": state} if state else {})
        expected = desk.purge(self.paper, until, state, dry_run=dry)
        self._perform(which, "purge", expected, wanted=wanted, dry_run=dry)

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, which=WHICH)
    def look(self, pick: int, which: int) -> None:
        """Somebody looks at a delivery, and will act on that later."""
        one = self._nth(pick)
        _, standing = self._flow(which).app.ledger.delivery(self.real.ids[one.event, one.handler])
        last = one.attempts[-1] if one.attempts else None
        assert (standing.state, standing.attempt, standing.outcome) == (
            one.state,
            len(one.attempts),
            last and last.outcome,
        )
        self.sights.append((standing, one))

    @precondition(lambda self: self.sights)
    @rule(pick=PICKS, which=WHICH)
    def act_late(self, pick: int, which: int) -> None:
        """Somebody has a delivery run again that they looked at before: only if it still is as it was."""
        seen, one = self.sights.pop(pick % len(self.sights))
        if seen.state not in {State.DEAD, State.UNKNOWN, State.SUCCEEDED}:
            return
        app = self._flow(which).app
        moved = app.ledger.write(
            lambda transaction: app.ledger.requeue(transaction, [seen], absent=self.paper.absent, fresh=True)
        )
        is_same = one.event in self.paper.events and (one.state, len(one.attempts)) == (seen.state, seen.attempt)
        assert moved == ({seen.delivery_id} if is_same else set())
        if is_same:
            self.paper.again(one, self.paper.absent)

    # Processes and time

    @rule(loaded=LOADED)
    def crash(self, loaded: str) -> None:
        """All processes are killed and begin anew: with the same plugins, with more, or with fewer."""
        handlers = [one for one in HANDLERS if one[0] in loaded]
        self.real.crash()
        self.real.open(handlers)
        self.paper.reopen(handlers)

    @precondition(lambda self: self.real.shared and self.real.flows)
    @rule(which=WHICH)
    def take_over(self, which: int) -> None:
        """A process is silent for so long that the other takes it for dead; then it comes back."""
        silent, other = self._flow(which), self._flow(1 - which)
        self.real.silence(silent, other)
        assert other.app.ledger.recover(absent=self.paper.absent) == self.paper.lose({silent.app.ledger.process})
        before = silent.app.ledger.process
        silent.app.ledger.beat()
        assert silent.app.ledger.process != before

    @precondition(lambda self: self.real.shared and self.real.flows)
    @rule(which=WHICH)
    def sweep(self, which: int) -> None:
        """A process looks for what the dead have left, and leaves alone what the living run."""
        assert not any(self._flow(which).app.ledger.recover(absent=self.paper.absent).values())

    @rule(seconds=SECONDS)
    def advance(self, seconds: int) -> None:
        """Time passes."""
        self.real.clock.advance(seconds)
        self.paper.now = self.real.clock.now()
