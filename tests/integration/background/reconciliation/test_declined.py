"""Instances that an operator declines become no event, unless they are asked for, or the engine calls."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowhooks.background.reconciliation import due
from flowhooks.clock import DAY, SECOND
from flowhooks.errors import LedgerError
from flowhooks.ledger import engine_queries
from support.asked_engine import MINUTE, settings_of

pytestmark = pytest.mark.either

HOUR = 3600


@pytest.fixture
def waiting(open_app):
    """An app with three instances that wait for an operator."""
    asked = open_app({"max_new": 2})
    asked.round()
    asked.clock.advance(MINUTE)
    for number in range(3):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().to_confirm == 3
    return asked


def details(asked):
    """The rule and the detail of each skipped instance."""
    return dict(asked.flow.sql("SELECT flow_instance_id, detail FROM engine_instances WHERE rule = 'declined'"))


def test_declined_instances_are_skipped_by_the_declined_rule(waiting):
    """No round takes them in; the note is kept beside each; nothing waits for an operator any more."""
    assert waiting.service.decline("oa", note="handled by the\nold system") == 3
    assert details(waiting) == dict.fromkeys(("i0", "i1", "i2"), "handled by the\\nold system")
    assert waiting.position().to_confirm == 0
    with waiting.flow.app.ledger.connection() as connection:
        assert engine_queries.waiting(connection, "oa").instances == 0
    waiting.finish("i3")
    waiting.round()
    assert waiting.after_grace().taken_in == 1
    assert waiting.events() == {"i3": "reconciled"}
    assert waiting.round().skipped == {"declined": 3}


def test_only_instances_shown_to_the_operator_are_declined(waiting):
    """Instances that were first seen later wait on."""
    with waiting.flow.app.ledger.connection() as connection:
        shown = engine_queries.waiting(connection, "oa")
    waiting.clock.advance(MINUTE)
    waiting.finish("i3")
    waiting.round()
    assert waiting.service.decline("oa", shown.seen_until, note="") == shown.instances == 3
    assert sorted(details(waiting)) == ["i0", "i1", "i2"]
    assert waiting.after_grace().taken_in == 1


def test_declined_instances_can_be_imported_later(waiting):
    """A start that an operator gives leaves them; with `declined` they are decided again."""
    since = waiting.clock.now() - HOUR * SECOND
    waiting.service.decline("oa", note="")
    assert waiting.round(since=since).skipped == {"declined": 3}
    assert waiting.round(since=since, declined=True, dry_run=True).to_confirm == 3
    assert waiting.round(since=since, declined=True).to_confirm == 3
    waiting.service.confirm("oa")
    assert waiting.round().taken_in == 3
    assert len(waiting.events()) == 3


def test_declined_instances_of_a_renamed_source_stay_declined(waiting, open_app):
    """Neither an overlapping window nor a start that an operator gives takes them in; `declined` does, once."""
    since = waiting.clock.now() - HOUR * SECOND
    waiting.service.decline("oa", note="")
    waiting.flow.close()
    waiting.clock.advance(MINUTE)
    renamed = open_app(sources={"ob": settings_of(former_names=("oa",))})
    for given in ({}, {"since": since, "dry_run": True}, {"since": since}, {}):
        assert renamed.round("ob", **given).skipped == {"declined": 3}
    assert renamed.events() == {}
    assert renamed.round("ob", since=since, declined=True).taken_in == 3
    assert renamed.round("ob", since=since).has_event == 3
    assert renamed.flow.sql("SELECT DISTINCT source FROM events") == [("ob",)]


@pytest.mark.parametrize("whose", ["engine", "both"])
def test_a_clock_that_is_far_ahead_deletes_no_decision(waiting, monkeypatch, whose):
    """A sweep by a clock that is ahead by more than the kept identities leaves what was declined."""
    since, now = waiting.clock.now() - HOUR * SECOND, waiting.clock.now
    waiting.service.decline("oa", note="")
    waiting.clock.advance(25 * HOUR)
    with monkeypatch.context() as patch:
        if whose == "engine":
            patch.setattr(waiting.engine, "skew", timedelta(days=401))
        else:
            patch.setattr(waiting.clock, "now", lambda: now() + 401 * DAY)  # of both, because this engine uses it, too
            waiting.harness.check_at_end = False  # a gap was found in the future
        waiting.round()
        assert waiting.position().swept_at == waiting.clock.now()
    waiting.clock.advance(MINUTE)
    assert waiting.round(since=since).skipped == {"declined": 3}
    assert waiting.events() == {}


def test_a_callback_for_a_declined_instance_is_accepted(waiting):
    """The decision concerns the history only: if the engine calls, the instance has an event."""
    waiting.service.decline("oa", note="")
    waiting.flow.take("i1", source="oa", wait=0)
    assert waiting.book()["i1"] == ("has_event", "")
    assert waiting.events() == {"i1": "callback"}


def test_nothing_is_declined_while_another_process_reconciles(waiting):
    """The process with the lease may be taking the instances in."""
    now = waiting.clock.now()
    waiting.flow.sql(
        "INSERT INTO processes (id, kind, host, pid, started_at, heartbeat_at) "
        f"VALUES ('other', 'server', 'h', 1, {now}, {now})"
    )
    waiting.flow.sql(f"UPDATE engine_positions SET process = 'other', process_until = {2**53}")
    with pytest.raises(LedgerError, match="another process reconciles oa"):
        waiting.service.decline("oa", note="")
    assert details(waiting) == {}
    waiting.flow.sql("DELETE FROM processes WHERE id = 'other'")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def restarted(waiting, harness, open_app, monkeypatch):
    """The process after one that was killed when it had declined two of three instances, a page of two."""

    def hit(point):
        if point == "reconcile.declined":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(due, "PAGE_OF_DUE", 2)
        patch.setattr(due, "hit", hit)
        with pytest.raises(Killed):
            waiting.service.decline("oa", note="handled by the old system")
    assert sorted(details(waiting)) == ["i0", "i1"]
    harness.crash(waiting.flow)
    return open_app({"max_new": 2})


def test_the_next_round_finishes_a_decline_that_was_killed(restarted):
    """The rest, which is no more than `max_new`, is not taken in, and has the note; what comes later is taken in."""
    with restarted.flow.app.ledger.connection() as connection:
        assert engine_queries.waiting(connection, "oa").instances == 0
    assert restarted.position().to_confirm == 0
    restarted.finish("i3")
    assert restarted.round(dry_run=True).taken_in == 1
    assert restarted.round().taken_in == 0
    assert details(restarted) == dict.fromkeys(("i0", "i1", "i2"), "handled by the old system")
    assert restarted.after_grace().taken_in == 1
    assert restarted.events() == {"i3": "reconciled"}
    assert restarted.position().declining_until is None
    assert restarted.flow.app.ledger.verify().problems == []


def test_a_decline_is_finished_although_the_engine_is_unreachable(restarted, engine):
    """A round finishes the decline before it asks the engine."""
    engine.fail()
    restarted.failed()
    assert sorted(details(restarted)) == ["i0", "i1", "i2"]


def test_a_confirmation_does_not_cover_the_rest_of_a_decline(restarted):
    """An operator who confirms the waiting instances does not confirm what was declined before."""
    restarted.service.confirm("oa", restarted.position().round_at)
    assert restarted.round().taken_in == 0
    assert sorted(details(restarted)) == ["i0", "i1", "i2"]


def test_a_second_decline_finishes_the_first_decline(restarted):
    """The rest keeps the note with which it was declined, and is not counted as declined again."""
    assert restarted.service.decline("oa", note="later") == 0
    assert details(restarted) == dict.fromkeys(("i0", "i1", "i2"), "handled by the old system")


def test_a_source_with_a_later_former_name_finishes_its_decline(restarted, open_app):
    """The rest is declined with its note, although the source has a position of its own."""
    restarted.flow.close()
    for former_names in ((), ("oa",)):
        restarted.clock.advance(MINUTE)
        renamed = open_app(sources={"ob": settings_of(former_names=former_names)})
        assert renamed.round("ob").taken_in == 0
        assert renamed.events() == {}
        declined = details(renamed)
        renamed.flow.close()
    assert declined == dict.fromkeys(("i0", "i1", "i2"), "handled by the old system")
