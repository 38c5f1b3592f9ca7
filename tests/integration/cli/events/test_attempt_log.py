"""`flowhooks events show` has the log records of a handler under its attempt."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.sqlite

LINES = ("(3 earlier records left out)", "2026-01-01T00:00:00.000Z info pay: \x1b[2Jpaid", "…Z warning pay: not booked")


def test_the_log_of_an_attempt(harness, listens, run, run_json):
    """Printed on request, with control characters escaped; otherwise the text says that there is one."""
    flow = harness.open(listens(lambda event: None, name="pay"))
    flow.take("logged")
    flow.sql("UPDATE attempts SET log = ?", "\n".join(LINES))
    flow.take("silent")
    env = {"FLOWHOOKS_DATABASE": str(harness.file)}
    whole = "    log\n      " + "\n      ".join(LINES).replace("\x1b", r"\u001b") + "\n"
    assert whole in run("events", "show", "logged", "--log", **env).stdout
    plain = run("events", "show", "logged", **env).stdout
    assert "    log: 3 lines; --log prints them\n" in plain
    assert "not booked" not in plain
    assert "log" not in run("events", "show", "silent", "--log", **env).stdout
    for instance, log in (("logged", "\n".join(LINES)), ("silent", "")):
        (event,) = run_json("events", "show", instance, **env)["events"]
        assert event["deliveries"][0]["attempts"][0]["log"] == log
