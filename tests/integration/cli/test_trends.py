"""`flowhooks handlers show`, `sources show` and `errors show`: what they show beside yesterday and last week."""

from __future__ import annotations

import re

import pytest

from flowhooks.clock import DAY, Clock, to_text
from support import trend_rows
from support.trend_rows import MINUTE

pytestmark = pytest.mark.sqlite


def archive(event):
    """Archive a contract, or fail."""
    raise OSError("the archive\x1b[31m is full")


@pytest.fixture
def flow(harness, listens):
    """A ledger with a slower handler and source, and a handler that never ran."""
    flow = harness.open(listens(archive), listens(archive, name="idle", process_key="none"))
    flow.take("4711")
    now = Clock().now()
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:archive", now))
    trend_rows.store(flow, trend_rows.slow_today("source", "default", now, good="200", bad="503"))
    return flow


@pytest.fixture
def error(flow):
    """The id of the error of that handler, of which there were fewer attempts on the days before."""
    ((group,),) = flow.sql("SELECT fingerprint FROM error_groups")
    now = Clock().now()
    for days, per_minute in ((0, 3), (1, 1), (7, 2)):
        start = now - days * DAY - 60 * MINUTE
        rows = trend_rows.rows(
            "error_group", group, start, minutes=30, seconds=None, per_minute=per_minute, outcome="failed"
        )
        trend_rows.store(flow, rows)
    return group


@pytest.fixture
def env(flow):
    """The environment of the commands."""
    return {"FLOWHOOKS_DATABASE": str(flow.file)}


@pytest.mark.parametrize(
    ("words", "noun", "bad"),
    [(("handlers", "show", "p:archive"), "attempts", "failed"), (("sources", "show", "default"), "requests", "503")],
)
def test_slower_than_yesterday(run, env, words, noun, bad):
    """A sentence, the totals of three days, and a line with bars for each step."""
    shown = run(*words, **env)
    assert shown.exit_code == 0
    text = shown.stdout
    assert re.search(r"^  p95 is 4\.\d s, yesterday at this time 485 ms: 9\.\d times as long\.$", text, re.MULTILINE)
    assert re.search(rf"^{noun} +1,\d\d\d +1,4\d\d +1,4\d\d$", text, re.MULTILINE)
    assert re.search(r"^success +96\.\d % +100\.0 % +100\.0 %$", text, re.MULTILINE)
    assert re.search(rf"^{bad} +60 +0 +0$", text, re.MULTILINE)
    assert re.search(r"^p95 +4\.\d s +485 ms +485 ms$", text, re.MULTILINE)
    steps = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:00 .*█.*$", text, re.MULTILINE)
    assert len(steps) in {24, 25}
    assert steps[-2].count("█") > steps[0].count("█")


def test_the_handler_and_its_errors(run, env):
    """The state and the selectors come before the trend, the last errors after it, with control characters escaped."""
    text = run("handlers", "show", "p:archive", **env).stdout
    assert text.startswith("handler p:archive\n  state          missing\n")
    assert "  listens to     key leave\n" in text
    assert "  stored         1 dead\n" in text
    assert re.search(
        r"^  [0-9a-f]{12}  1 attempt, last 2026-01-01 .*: OSError: the archive\\u001b\[# is full$", text, re.MULTILINE
    )


def test_a_time_range(run, run_json, env):
    """--from and --to select the time; a range of more than a week has nothing beside it."""
    start, end = (to_text(Clock().now() - DAY - hours * 60 * MINUTE) for hours in (2, 1))
    found = run_json("handlers", "show", "p:archive", "--from", start, "--to", end, **env)["trend"]
    assert found["current"]["totals"]["p95_ms"] == pytest.approx(485, abs=1)
    assert (found["current"]["step"], found["slowdown"]) == (60, None)
    for days, earlier in (("24h", "yesterday"), ("7d", "last_week")):
        found = run_json("handlers", "show", "p:archive", "--from", days, **env)["trend"]
        assert found["slowdown"]["earlier"] == earlier
    found = run_json("sources", "show", "default", "--from", "30d", **env)["trend"]
    assert (found["yesterday"], found["last_week"]) == (None, None)
    assert found["current"]["totals"]["count"] > 1680


def test_an_error_beside_yesterday(run, run_json, env, error):
    """An error has the numbers of attempts only: it has no successes and no durations."""
    shown = run("errors", "show", error[:8], **env)
    assert shown.exit_code == 0
    text, _, rest = shown.stdout.partition("Newest attempt: ")
    assert "OSError: the archive" in rest
    assert re.search(r"^attempts +90 +30 +60$", text, re.MULTILINE)
    assert re.search(r"^failed +90 +30 +60$", text, re.MULTILINE)
    assert re.search(r"^per minute +0\.[23] +0\.1 +0\.2$", text, re.MULTILINE)
    assert "success" not in text
    assert "p95" not in text
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:00 +\d+ +█.*$", text, re.MULTILINE)) in {2, 3}
    found = run_json("errors", "show", error, "--from", "24h", **env)
    assert (found["id"], found["trend"]["kind"], found["trend"]["subject"]) == (error, "error_group", error)
    assert found["trend"]["current"]["totals"]["outcomes"] == {"failed": 90}
    assert found["trend"]["current"]["totals"]["p95_ms"] is None
    assert found["trend"]["yesterday"]["totals"]["count"] == 30
    assert found["trend"]["slowdown"] is None
    assert found["newest"]["attempt"]["number"] == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--from", "2026-01-02", "--to", "2026-01-01"), "the start must be before the end"),
        (("--from", "2099-01-01"), "the start is in the future"),
        (("--from", "2001-01-01"), "the start must be at most 400 days before the end"),
        (("--to", "soon"), "not a time"),
    ],
)
def test_times_that_cannot_be_shown(run, env, error, words, why):
    """An invalid range is wrong usage, with the reason."""
    for command in (("handlers", "show", "p:archive"), ("sources", "show", "default"), ("errors", "show", error)):
        ran = run(*command, *words, **env)
        assert (ran.exit_code, why in ran.stderr) == (2, True)


def test_nothing_recorded(run, run_json, env):
    """A handler that never ran says so; JSON has its state and no slowdown."""
    text = run("handlers", "show", "p:idle", **env).stdout
    assert "  No attempts are recorded in this time, or at the same time yesterday or last week.\n" in text
    found = run_json("handlers", "show", "p:idle", **env)
    assert (found["id"], found["handler"]["availability"], found["errors"]) == ("p:idle", "missing", [])
    assert found["trend"]["slowdown"] is None


def test_an_unknown_handler(run, env):
    """An unknown handler is exit code 1, with a suggestion."""
    ran = run("handlers", "show", "p:archiv", **env)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == "Error: there is no handler p:archiv; did you mean p:archive?\n"
