"""Recent activity: bounded for any amount of data, and correct within the bound."""

from __future__ import annotations

from flowhooks import OutcomeKind, State
from flowhooks.ledger import stats
from flowhooks.ledger.value_checks import EARLIEST as EARLY


def test_recent_arrivals_are_the_newest_events(hands):
    """Arrivals are taken from ids: newest first, none before the start, and at most the requested number."""
    start = hands.clock.time
    for second in (10, 20, 30):
        hands.clock.time = EARLY + second * 1_000_000
        hands.accept(f"i{second}")
    hands.clock.time = start  # before the end, because a process must not end before it started
    with hands.ledger.connection() as connection:
        newest = [EARLY // 1000 + 30_000, EARLY // 1000 + 20_000]
        assert stats.arrival_times(connection, EARLY + 15_000_000, limit=9) == newest
        assert stats.arrival_times(connection, 0, limit=1) == newest[:1]


def test_recent_deliveries_with_their_last_attempts(hands):
    """Each of the newest deliveries has the outcome of its last attempt."""
    _, (first,) = hands.accept("i1", "p:a")
    hands.bring(first, State.DEAD)
    hands.accept("i2", "p:b")
    with hands.ledger.connection() as connection:
        waiting, dead = stats.recent_deliveries(connection, limit=5)
        assert stats.recent_deliveries(connection, limit=1) == [waiting]
        assert (waiting.handler, waiting.state, waiting.outcome, waiting.started_at) == (
            "p:b",
            State.WAITING,
            None,
            None,
        )
        assert (dead.handler, dead.state, dead.outcome) == ("p:a", State.DEAD, OutcomeKind.FAILED)
        assert dead.finished_at == hands.clock.now()
        found, since = stats.count_by_handler(connection)
        assert ({one: called.deliveries for one, called in found.items()}, since) == ({"p:a": 1, "p:b": 1}, None)
        found, since = stats.count_by_handler(connection, limit=1)
        assert (list(found), since) == (["p:b"], hands.clock.now())


def test_counts_of_unfinished_deliveries_are_limited(hands):
    """Unfinished deliveries are counted by state, up to one above a limit."""
    for number, state in enumerate([*State, State.DEAD, State.DEAD]):
        hands.bring(hands.accept(f"i{number}", "p:a")[1][0], state)
    hands.store(hands.new("i20", "p:gone", absent={"p:gone"}))
    hands.accept("i30")
    with hands.ledger.connection() as connection:
        assert stats.count_by_state(connection) == {
            "waiting": 1,
            "handler_missing": 1,
            "running": 1,
            "unknown": 1,
            "dead": 3,
            "parked": 1,
        }
        assert stats.count_by_state(connection, limit=1)["dead"] == 2


def test_the_oldest_parked_event_and_the_longest_running_delivery(hands):
    """The result has the oldest parked event and the delivery that has run longest."""
    with hands.ledger.connection() as connection:
        assert stats.oldest_parked_event(connection) is None
        assert stats.oldest_in_state(connection, State.RUNNING) is None
    parked, _ = hands.accept("i1")
    running, (queued,) = hands.accept("i2", "p:a")
    hands.bring(queued, State.RUNNING)
    began = hands.clock.now()
    hands.clock.advance(5)
    hands.accept("i3")
    hands.bring(hands.accept("i4", "p:a")[1][0], State.RUNNING)
    with hands.ledger.connection() as connection:
        assert stats.oldest_parked_event(connection) == (parked, began)
        assert stats.oldest_in_state(connection, State.RUNNING) == (running, "p:a", began)
        assert stats.oldest_in_state(connection, State.DEAD) is None
