"""`docs/how-to/connect-an-engine-without-code.md`, walked from top to bottom with a stand-in for Flowable."""

from __future__ import annotations

import json
import signal
import sqlite3
import tomllib
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from support.code_blocks import DOCS, blocks
from support.docs_stage import Stage, commands
from support.flowable_stand_in import flowable
from support.waiting import until

PAGE = DOCS / "how-to/connect-an-engine-without-code.md"
PACE = {'"1m"': '"1s"', '"2m"': "0"}
"""The intervals of the page, and shorter ones for the test."""


def ago(**duration):
    """A time as Flowable writes it."""
    return (datetime.now(UTC) - timedelta(**duration)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def engine(monkeypatch):
    """A Flowable that is none, in which an instance has ended two hours ago."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with flowable() as stand_in:
        complete(stand_in, stand_in.define("leave_request"), "4710", ago(hours=2), amount=5)
        yield stand_in


def complete(engine, definition, instance, at, **variables):
    """Complete an instance."""
    engine.end(engine.start(definition, variables, instance=instance, businessKey="L-1"), at)


def handled(stage):
    """The instances for which a handler has succeeded, with the conclusion of their event."""
    with closing(sqlite3.connect(f"file:{stage.folder}/flowhooks.db?mode=ro", uri=True)) as ledger:
        sql = (
            "SELECT flow_instance_id, conclusion, body FROM events JOIN deliveries ON deliveries.event_id = events.id"
            " WHERE deliveries.state = 'succeeded'"
        )
        return {
            instance: (conclusion, json.loads(body)["amount"]) for instance, conclusion, body in ledger.execute(sql)
        }


def test_the_steps_of_the_page_lead_to_the_described_results(engine, tmp_path):
    """The settings and the commands of the page, in order, lead to the described results."""
    (settings,) = (block.text for block in blocks(PAGE, "toml"))
    shown = tomllib.loads(settings)["sources"]["oa"]["engine"]
    for words, instead in {shown["url"]: engine.url, **PACE}.items():
        assert words in settings
        settings = settings.replace(words, instead)
    stage = Stage(tmp_path / "stage", settings=settings)
    denied = stage.environment["FLOWHOOKS_PLUGINS_DENY"].split(",")
    stage.environment["FLOWHOOKS_PLUGINS_DENY"] = ",".join(name for name in denied if name != "flowable")
    stage.environment[shown["password"]["env"]] = "secret"
    todo = [command.text for block in blocks(PAGE, "sh") for command in commands(block)]
    install = "flowhooks plugins install /path/to/the/checkout/plugins/flowhooks-flowable"
    assert todo.pop(0) == install  # run in another environment, by another test

    def run(command, *expected, code=0):
        assert todo.pop(0) == command
        done = stage.run(command)
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        assert [words for words in expected if words not in done.stdout] == [], done.stdout
        return done.stdout

    def is_up_to_date():
        return "up to date" in stage.run("flowhooks engines list").stdout

    try:
        run("flowhooks check", "flowable 0.1.0 is loaded", "0 problems")
        stage.start()
        until(is_up_to_date)
        run("flowhooks engines list", "oa", "up to date", "Flowable 7.2.0")
        complete(engine, engine.definitions[0]["id"], "4711", ago(seconds=0), amount=7)
        run("flowhooks engines reconcile --source oa", "oa: ")
        until(lambda: handled(stage) == {"4711": ("approved", 7)}, why=lambda: handled(stage))
        run("flowhooks engines show 4711", "has event", "approved", "engine oa says: completed")
        dry_run = "flowhooks engines reconcile --source oa --since 24h --dry-run"
        run(dry_run, "2 finished instances read", "1 would be taken in")
        assert "4710" not in handled(stage)
        run(dry_run.removesuffix(" --dry-run"), "1 taken in")
        until(lambda: handled(stage).keys() == {"4710", "4711"}, why=lambda: handled(stage))
        run("flowhooks engines reconcile --source oa --confirm --yes", "oa: ")
        run("flowhooks engines coverage", "covered")
        assert todo == []
    finally:
        stage.stop(signal.SIGKILL)
