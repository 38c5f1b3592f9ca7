"""`flowhooks events list` and `show`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from flowhooks.cli.filters import timestamp

EVENT = {
    "id",
    "received_at",
    "source",
    "origin",
    "corrects",
    "kind",
    "flow_instance_id",
    "business_key",
    "callback_class",
    "process_definition_id",
    "process_definition_key",
    "process_definition_version",
    "conclusion",
    "state",
    "parked_by",
    "damaged",
    "dismissed_by",
    "route",
    "repeats",
    "deliveries",
}
DELIVERY = {
    "id",
    "handler",
    "state",
    "attempts",
    "due_at",
    "outcome",
    "error",
    "finished_at",
    "note",
    "ordered",
    "blocked_by",
    "error_group",
}
ATTEMPT = {"number", "started_at", "finished_at", "seconds", "outcome", "error", "traceback", "process"} | {
    *("result", "result_dropped", "plugin_version", "plugin_digest", "trigger", "actor", "operation_id"),
    *("error_group", "log"),
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def flows(listed):
    """The flow instances of a listing in order."""
    return [event["flow_instance_id"] for event in listed["events"]]


def test_list_has_stable_names(run_json, server):
    """JSON has all members of an event and a delivery, with times in ISO 8601."""
    (event,) = run_json("events", "list", "--flow", "leave", server=server)["events"]
    assert set(event) == EVENT
    assert set(event["deliveries"][0]) == DELIVERY
    assert MOMENT.fullmatch(event["received_at"])
    assert MOMENT.fullmatch(event["deliveries"][0]["finished_at"])
    assert (event["state"], event["repeats"], event["process_definition_version"]) == ("routed", 1, 2)
    assert event["route"] == {"shop:grant": "key leave"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--state", "dead", "--flow", "dead"), {"dead"}),
        (("--state", "unknown", "--flow", "killed"), {"killed"}),
        (("--state", "parked"), {"parked"}),
        (("--state", "dismissed"), set()),
        (("--key", "ordre"), {"parked"}),
        (("--class", "com.example.Leave"), {"twice"}),
        (("--handler", "shop:hang"), {"killed", "resolved"}),
        (("--handler", "shop:grant", "--state", "dead"), set()),
        (("--flow", "leave", "--since", "1d"), {"leave"}),
        (("--flow", "leave", "--until", "1d"), set()),
        (("--flow", "leave", "--since", "2001-01-01", "--until", "2002-01-01"), set()),
        (("--business-key", "nothing"), set()),
        (("--id", "nothing"), set()),
    ],
)
def test_each_filter_works_separately_and_combined(run_json, server, options, expected):
    """Each filter works alone and with others."""
    found = set(flows(run_json("events", "list", *options, "--limit", "1000", server=server)))
    assert {
        flow_instance_id for flow_instance_id in found if flow_instance_id in server.OWN
    } == expected  # other tests send callbacks, too


def test_list_continues_from_page_to_page(run_json, run, server):
    """The pages, newest first, have each event once, and the last page says that it is the last."""
    # All of them: other tests call back, too.
    everything = flows(run_json("events", "list", "--until", "2100-01-01", "--limit", "1000", server=server))
    found, after = [], ""
    while True:
        page = run_json("events", "list", "--limit", "3", "--after", after, server=server)
        assert len(page["events"]) <= 3
        found += flows(page)
        if not (after := page["next"]):
            break
    assert found[-len(everything) :] == everything
    assert found[-2:] == ["resolved", "killed"]
    assert "There are more events: add --after " in run("events", "list", "--limit", "1", server=server).stdout


def test_the_table_fits_80_columns_and_has_complete_ids(run, run_json, server, run_at_terminal):
    """At 80 columns the table shows complete ids with flow, key and deliveries."""
    words = ("events", "list", "--limit", "500")  # other tests send callbacks, too
    result = run(*words, server=server)
    assert result.exit_code == 0
    for event in run_json(*words, server=server)["events"]:
        assert event["id"] in result.stdout
    for instance, shown in (("killed", "unknown shop:hang"), ("twice", "com.example.Leave")):
        # Listed alone: long values of other tests' events stay whole and make the table wider.
        text, code = run_at_terminal("events", "list", "--flow", instance, typed="", COLUMNS="80", NO_COLOR="1")
        lines = re.sub("\x1b\\[[0-9;]*m", "", text).splitlines()
        assert (code, shown in text, max(map(len, lines)) <= 80) == (0, True, True)


def test_an_empty_result_prints_a_sentence(run, server):
    """Without a result a sentence replaces the table."""
    result = run("events", "list", "--flow", "nobody", server=server)
    assert (result.exit_code, result.stdout) == (0, "No matching events.\n")


def test_show_by_event_delivery_or_flow(run_json, server):
    """`show` finds an event by its own id, a delivery's id or its flow instance."""
    (event,) = run_json("events", "show", "dead", server=server)["events"]
    for name in (event["id"], event["deliveries"][0]["id"]):
        assert run_json("events", "show", name, server=server)["events"] == [event]


def test_show_as_json_has_all_data(run_json, server):
    """JSON has the received body, its data, other bodies, and attempts with times and results."""
    (event,) = run_json("events", "show", "leave", server=server)["events"]
    more = {"body", "data", "conflicts", "late_callbacks", "deliveries_left_out", "audit_entries", "no_match"}
    more |= {"traceparent", "raw_body", "media_type"}
    assert set(event) == EVENT | more
    assert event["body"] == '{"processDefinitionKey": "leave", "processDefinitionVersion": 2}'
    assert event["data"] == json.loads(event["body"])
    (conflict,) = event["conflicts"]
    assert json.loads(conflict["body"])["processDefinitionVersion"] == 3
    (attempt,) = event["deliveries"][0]["attempts"]
    assert set(attempt) == ATTEMPT
    assert MOMENT.fullmatch(attempt["started_at"])
    assert attempt["seconds"] >= 0
    assert (attempt["number"], attempt["outcome"]) == (1, "succeeded")
    assert attempt["result"] == {"days": 3, "status": "已归档"}
    assert (attempt["trigger"], attempt["actor"], attempt["operation_id"]) == ("first", "", "")
    assert re.fullmatch("[0-9a-f]{64}", attempt["plugin_digest"])


def test_show_as_text(run, run_json, server):
    """The text has members, routing reasons, attempts, errors and the next steps; a traceback only on request."""
    text = run("events", "show", "leave", server=server).stdout
    for part in ("received again 1 time", "why            key leave", "rejected with 409"):
        assert part in text
    assert 'returned {"days": 3, "status": "已归档"}' in text
    text = run("events", "show", "dead", server=server).stdout
    assert re.search(r"attempt 1 .* UTC: failed after \d+ ms\n    ValueError: closed", text)
    assert re.search(r"\n    shop \([0-9a-f]{12}\), first\n", text)
    assert "flowhooks events replay " in text
    assert "Traceback" not in text
    assert "Traceback" in run("events", "show", "dead", "--traceback", server=server).stdout
    assert re.search(r"attempt 1 .* UTC: lost\n", run("events", "show", "killed", server=server).stdout)
    (event,) = run_json("events", "show", "killed", server=server)["events"]
    assert event["deliveries"][0]["attempts"][0]["seconds"] is None
    text = run("events", "show", "parked", server=server).stdout
    assert "`flowhooks routes --source=default --kind=complete --key=ordre` explains" in text
    assert "合同" in text


def test_several_events_of_a_flow_are_listed(run, run_json, server):
    """For two events of an instance, people get a list and programs get both."""
    result = run("events", "show", "twice", server=server)
    assert "2 events of this flow instance" in result.stdout
    assert len(run_json("events", "show", "twice", server=server)["events"]) == 2


def test_unknown_event(run, server):
    """An unknown event is one line and exit code 1."""
    result = run("events", "show", "nothing", server=server)
    assert result.exit_code == 1
    assert result.output == "Error: there is no event, delivery or flow instance nothing\n"


def test_a_read_only_command_creates_no_database(run, tmp_path):
    """A read-only command with a mistyped path creates no file."""
    for arguments in (
        ("list",),
        ("show", "x"),
        ("replay", "--all", "--yes"),
        ("reroute", "--parked"),
        ("reroute", "--parked", "--dry-run"),
    ):
        result = run("events", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: there is no database at {tmp_path}/flowhooks.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T09:30", datetime(2026, 11, 24, 9, 30, tzinfo=UTC)),
        ("2026-11-24 09:30:01.5", datetime(2026, 11, 24, 9, 30, 1, 500_000, tzinfo=UTC)),
        ("2026-11-24T09:30:00+08:00", datetime(2026, 11, 24, 1, 30, tzinfo=UTC)),
        ("2026-11-24T09:30:00Z", datetime(2026, 11, 24, 9, 30, tzinfo=UTC)),
    ],
)
def test_times_are_parsed_as_iso_8601(text, moment):
    """Times are ISO 8601, in UTC if there is no zone."""
    assert timestamp(text) == moment.timestamp() * 1_000_000


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", 90), ("5m", 300), ("2h", 7200), ("3d ago", 259_200), ("1w", 604_800)]
)
def test_durations_are_parsed_as_times_before_now(text, ago):
    """A duration means this long before now."""
    expected = datetime.now(UTC) - timedelta(seconds=ago)
    assert abs(timestamp(text) - expected.timestamp() * 1_000_000) < 5_000_000
