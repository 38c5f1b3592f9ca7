"""flowhooks-timings, run through pluggy around the built-in `run_handler`, on real files."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import entry_points
from threading import Barrier
from time import perf_counter
from typing import TYPE_CHECKING, Any

import flowhooks_timings
import pluggy
import pytest
from flowhooks_timings import Timings

from flowhooks import Delivery, Event, Handler, Outcome, OutcomeKind, Reject, State, handler, hookspecs
from flowhooks.plugins import default_hooks

if TYPE_CHECKING:
    from pathlib import Path

EVENT = Event(id="event-1", flow_instance_id="1", data={}, received_at=datetime.now(UTC))
SUCCEEDED = Outcome(kind=OutcomeKind.SUCCEEDED)


def delivery(number: int = 1, *, attempt: int = 1) -> Delivery:
    """One delivery of a handler that need not exist."""
    return Delivery(id=f"delivery-{number}", event_id="event-1", handler="some:thing", attempt=attempt)


def manager(timings: Timings) -> pluggy.PluginManager:
    """The plugin manager that runs handlers: the hooks, the built-in implementation, and this plugin."""
    made = pluggy.PluginManager("flowhooks")
    made.add_hookspecs(hookspecs)
    made.register(default_hooks)
    made.register(timings, "timings")
    made.check_pending()
    return made


@handler(every=True)
def fine(event: Event) -> str:
    """Return a value."""
    return event.id


@handler(every=True)
def refused(event: Event) -> None:
    """Raise an exception that a handler may raise."""
    raise Reject("never")


def run(made: pluggy.PluginManager, what: Handler, which: Delivery) -> Any:
    """Make one attempt as the dispatcher does."""
    return made.hook.run_handler(handler=what, event=EVENT, delivery=which)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file to which lines go; it does not exist yet."""
    return tmp_path / "timings.jsonl"


@pytest.fixture
def timings(file: Path) -> Timings:
    """A plugin for each test, configured as the server does it."""
    made = Timings()
    made.configure({"file": str(file)})
    return made


def lines(file: Path) -> list[dict[str, Any]]:
    """The written lines without their times."""
    found = [json.loads(line) for line in file.read_text("ascii").splitlines()]
    assert all(datetime.fromisoformat(line.pop("at")).tzinfo is UTC for line in found)
    return found


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `timings`."""
    found = entry_points(group="flowhooks", name="timings")
    assert [entry_point.load() for entry_point in found] == [flowhooks_timings.plugin]


def test_an_attempt_is_measured(timings: Timings, file: Path) -> None:
    """The handler's result is returned, and the seconds on the line are within the duration of the run."""
    made = manager(timings)
    began = perf_counter()
    assert run(made, fine, delivery()) == Outcome(kind=OutcomeKind.SUCCEEDED, value="event-1")
    whole = perf_counter() - began
    made.hook.delivery_settled(event=EVENT, delivery=delivery(), outcome=SUCCEEDED, state=State.SUCCEEDED)
    (line,) = lines(file)
    assert 0 < line.pop("seconds") <= whole
    assert line == {
        "what": "settled",
        "event": "event-1",
        "handler": "some:thing",
        "delivery": "delivery-1",
        "attempt": 1,
        "outcome": "succeeded",
        "state": "succeeded",
    }


def test_an_attempt_that_raises_is_measured(timings: Timings, file: Path) -> None:
    """The wrapper raises the handler's exception unchanged and measures the attempt too."""
    made = manager(timings)
    with pytest.raises(Reject, match="never"):
        run(made, refused, delivery())
    rejected = Outcome(kind=OutcomeKind.REJECTED, error="never")
    made.hook.delivery_settled(event=EVENT, delivery=delivery(), outcome=rejected, state=State.DEAD)
    (line,) = lines(file)
    assert line["seconds"] > 0
    assert (line["outcome"], line["state"]) == ("rejected", "dead")


def test_a_relative_path_stays_where_it_was_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another plugin that changes the working folder later does not move the file."""
    monkeypatch.chdir(tmp_path)
    made = Timings()
    made.configure({"file": "timings.jsonl"})
    (tmp_path / "later").mkdir()
    monkeypatch.chdir("later")
    made.event_accepted(EVENT, [])
    assert len(lines(tmp_path / "timings.jsonl")) == 1


def test_attempts_are_distinguished(timings: Timings, file: Path) -> None:
    """Each attempt gets its own time, once; the time of an attempt that was not measured is null."""
    made = manager(timings)
    run(made, fine, delivery(attempt=1))
    run(made, fine, delivery(attempt=2))
    for attempt in (2, 1, 1, 3):
        made.hook.delivery_settled(
            event=EVENT, delivery=delivery(attempt=attempt), outcome=SUCCEEDED, state=State.SUCCEEDED
        )
    assert [line["seconds"] is None for line in lines(file)] == [False, False, True, True]


def test_an_accepted_event_is_a_line(timings: Timings, file: Path) -> None:
    """A stored event is a line with its handlers."""
    manager(timings).hook.event_accepted(event=EVENT, handlers=("a:b", "c:d"))
    assert lines(file) == [
        {"what": "accepted", "event": "event-1", "source": "default", "kind": "complete", "handlers": ["a:b", "c:d"]}
    ]


def test_values_cannot_forge_lines(timings: Timings, file: Path) -> None:
    """Line breaks and control characters in a value are escaped: one event is one line of ASCII."""
    nasty = 'x"\r\n\x1b[31m\u2028合\n{"what": "settled"}'
    manager(timings).hook.event_accepted(event=EVENT, handlers=(nasty,))
    (line,) = lines(file)
    assert line["handlers"] == [nasty]


def test_the_number_of_unsettled_attempts_is_limited(file: Path) -> None:
    """Above the limit the oldest measured attempt is dropped."""
    timings = Timings(max_unsettled=2)
    timings.configure({"file": str(file)})
    made = manager(timings)
    for number in (1, 2, 3):
        run(made, fine, delivery(number))
    for number in (1, 2, 3):
        made.hook.delivery_settled(event=EVENT, delivery=delivery(number), outcome=SUCCEEDED, state=State.SUCCEEDED)
    assert [line["seconds"] is None for line in lines(file)] == [True, False, False]


def test_many_threads_are_measured_at_once(timings: Timings, file: Path) -> None:
    """Eight threads run and settle at once: each attempt gets a complete line and its own time."""
    made = manager(timings)
    together = Barrier(8, timeout=60)

    def work(thread: int) -> None:
        together.wait()
        for number in range(thread * 25, thread * 25 + 25):
            run(made, fine, delivery(number))
            made.hook.delivery_settled(event=EVENT, delivery=delivery(number), outcome=SUCCEEDED, state=State.SUCCEEDED)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = lines(file)
    assert {line["delivery"] for line in found} == {f"delivery-{number}" for number in range(200)}
    assert len(found) == 200
    assert all(line["seconds"] > 0 for line in found)


def test_measurements_are_logged_without_a_file(caplog: pytest.LogCaptureFixture) -> None:
    """Without settings each measurement is a log record of level info, with its values as members."""
    timings = Timings()
    timings.configure({})
    with caplog.at_level(logging.INFO, "flowhooks_timings"):
        manager(timings).hook.event_accepted(event=EVENT, handlers=())
    assert caplog.record_tuples == [("flowhooks_timings", logging.INFO, "accepted")]


def test_each_value_is_a_member_of_the_log_record(caplog: pytest.LogCaptureFixture) -> None:
    """Values are members of the log record, so the JSON log has no JSON within a text."""
    timings = Timings()
    timings.configure({})
    with caplog.at_level(logging.INFO, "flowhooks_timings"):
        manager(timings).hook.delivery_settled(
            event=EVENT, delivery=delivery(), outcome=SUCCEEDED, state=State.SUCCEEDED
        )
    record = vars(caplog.records[0])
    assert record["msg"] == "settled"
    assert {name: record[name] for name in ("event_id", "handler", "delivery", "attempt", "seconds", "outcome")} == {
        "event_id": "event-1",
        "handler": "some:thing",
        "delivery": "delivery-1",
        "attempt": 1,
        "seconds": None,
        "outcome": "succeeded",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flie": "x"}, "no setting flie; the only setting is file"),
        ({"file": 5}, "file must be the path of a file, not 5"),
        ({"file": ""}, "file must be the path of a file, not ''"),
    ],
)
def test_wrong_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    """A misspelt setting or a wrong type is reported."""
    with pytest.raises(ValueError, match=message):
        Timings().configure(settings)
