"""Recent activity: bounded for any amount of data, and correct within the bound."""

from __future__ import annotations

from flowhooks import OutcomeKind, State
from flowhooks.ledger import stats
from flowhooks.ledger.value_checks import EARLIEST as EARLY


def test_recent_arrivals_are_the_newest_events(ledger_steps):
    """Arrivals are taken from ids: newest first, none before the start, and at most the requested number."""
    start = ledger_steps.clock.time
    for second in (10, 20, 30):
        ledger_steps.clock.time = EARLY + second * 1_000_000
        ledger_steps.accept(f"i{second}")
    ledger_steps.clock.time = start  # before the end, because a process must not end before it started
    with ledger_steps.ledger.connection() as connection:
        newest = [EARLY // 1000 + 30_000, EARLY // 1000 + 20_000]
        assert stats.arrival_times(connection, EARLY + 15_000_000, limit=9) == newest
        assert stats.arrival_times(connection, 0, limit=1) == newest[:1]


def test_recent_deliveries_with_their_last_attempts(ledger_steps):
    """Each of the newest deliveries has the outcome of its last attempt."""
    _, (first,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.bring(first, State.DEAD)
    ledger_steps.accept("i2", "p:b")
    with ledger_steps.ledger.connection() as connection:
        waiting, dead = stats.recent_deliveries(connection, limit=5)
        assert stats.recent_deliveries(connection, limit=1) == [waiting]
        assert (waiting.handler, waiting.state, waiting.outcome, waiting.started_at) == (
            "p:b",
            State.WAITING,
            None,
            None,
        )
        assert (dead.handler, dead.state, dead.outcome) == ("p:a", State.DEAD, OutcomeKind.FAILED)
        assert dead.finished_at == ledger_steps.clock.now()
        found, since = stats.count_by_handler(connection)
        assert ({handler_id: called.deliveries for handler_id, called in found.items()}, since) == (
            {"p:a": 1, "p:b": 1},
            None,
        )
        found, since = stats.count_by_handler(connection, limit=1)
        assert (list(found), since) == (["p:b"], ledger_steps.clock.now())


def test_counts_of_unfinished_deliveries_are_limited(ledger_steps):
    """Unfinished deliveries are counted by state, up to one above a limit."""
    for number, state in enumerate([*State, State.DEAD, State.DEAD]):
        ledger_steps.bring(ledger_steps.accept(f"i{number}", "p:a")[1][0], state)
    ledger_steps.store(ledger_steps.new("i20", "p:gone", absent={"p:gone"}))
    ledger_steps.accept("i30")
    with ledger_steps.ledger.connection() as connection:
        assert stats.count_by_state(connection) == {
            "waiting": 1,
            "handler_missing": 1,
            "running": 1,
            "unknown": 1,
            "dead": 3,
            "parked": 1,
        }
        assert stats.count_by_state(connection, limit=1)["dead"] == 2


def test_the_oldest_parked_event_and_the_longest_running_delivery(ledger_steps):
    """The result has the oldest parked event and the delivery that has run longest."""
    with ledger_steps.ledger.connection() as connection:
        assert stats.oldest_parked_event(connection) is None
        assert stats.oldest_in_state(connection, State.RUNNING) is None
    parked, _ = ledger_steps.accept("i1")
    running, (queued,) = ledger_steps.accept("i2", "p:a")
    ledger_steps.bring(queued, State.RUNNING)
    began = ledger_steps.clock.now()
    ledger_steps.clock.advance(5)
    ledger_steps.accept("i3")
    ledger_steps.bring(ledger_steps.accept("i4", "p:a")[1][0], State.RUNNING)
    with ledger_steps.ledger.connection() as connection:
        assert stats.oldest_parked_event(connection) == (parked, began)
        assert stats.oldest_in_state(connection, State.RUNNING) == (running, "p:a", began)
        assert stats.oldest_in_state(connection, State.DEAD) is None
