"""The job tables: created, recorded, and upgraded from older versions of Procrastinate with their data."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from procrastinate.schema import SchemaManager

from flowhooks import State
from flowhooks.cli.main import main
from flowhooks.clock import Clock
from flowhooks.errors import LedgerSchemaTooOld, LedgerUnusable
from flowhooks.execution.runners import procrastinate_schema
from flowhooks.execution.runners.job_sweeper import JobSweeper
from flowhooks.ledger.upgrade import upgrade

MIGRATIONS = {file.stem: file.read_bytes() for file in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))}
"""The migrations of the installed Procrastinate, back to its first version."""
SHAPE = """
SELECT 'column', table_name, column_name, data_type || coalesce(column_default, '') FROM information_schema.columns
WHERE table_name ~ '^procrastinate_'
UNION ALL SELECT 'function', proname, '', pg_get_function_identity_arguments(oid) FROM pg_proc
WHERE proname ~ '^procrastinate_'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, '' FROM pg_trigger WHERE tgname ~ '^procrastinate_'
UNION ALL SELECT 'value', enumtypid::regtype::text, enumlabel, '' FROM pg_enum
UNION ALL SELECT 'index', tablename, indexname, '' FROM pg_indexes WHERE tablename ~ '^procrastinate_'
"""
JOBS = "SELECT id, queue_name, task_name, args, status::text, attempts FROM procrastinate_jobs ORDER BY id"


@pytest.fixture
def new_ledger(postgresql_server):
    """A function that makes a ledger without job tables."""
    names = []

    def make():
        names.append(f"jobs_{uuid.uuid4().hex}")
        url = postgresql_server.make(names[-1])
        upgrade(url)
        return url

    yield make
    for name in names:
        postgresql_server.drop(name)


def run(url, statement, *values):
    """Read or write over a new connection."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement, values or None)
        return found.fetchall() if found.description else []


def is_upto(name, last):
    """Whether a migration is not after the one whose name begins with this."""
    return name < last or name.startswith(last)


def as_it_was(url, last):
    """Create the tables of an older version, each migration in its own transaction, and record them."""
    run(url, "CREATE TABLE job_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL)")
    for name, statements in MIGRATIONS.items():
        if is_upto(name, last):
            run(url, statements)
            run(url, "INSERT INTO job_migrations VALUES (%s, now())", name)


def test_db_upgrade_creates_the_job_tables(new_ledger):
    """Only `db upgrade` creates the tables, once; an older or newer version of the tables is recognised."""
    url = new_ledger()
    with pytest.raises(LedgerSchemaTooOld, match="missing: run `flowhooks db upgrade`"):
        procrastinate_schema.check(url)
    assert procrastinate_schema.upgrade(url) == 1
    procrastinate_schema.check(url)
    assert procrastinate_schema.upgrade(url) == 0
    upgrade(url)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM job_migrations WHERE name = (SELECT max(name) FROM job_migrations)")
    with pytest.raises(LedgerSchemaTooOld, match="older than the installed Procrastinate"):
        procrastinate_schema.check(url)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO job_migrations VALUES ('99.00.00_01_later', now())")
    for function in (procrastinate_schema.check, procrastinate_schema.upgrade):
        with pytest.raises(LedgerUnusable, match="newer Procrastinate"):
            function(url)


@pytest.mark.postgresql
@pytest.mark.parametrize("last", ["01.01.01_01", "02.05.00_01", "03.00.00_01_pre", "03.00.00_50_post", "03.03.00_01"])
def test_upgrade_of_older_job_tables(new_ledger, harness, listens, monkeypatch, last):
    """`db upgrade` upgrades the tables with Procrastinate's migrations; existing jobs stay and run."""
    runs = []
    listener = listens(lambda event: runs.append(event.flow_instance_id), name="h")
    harness.clock, harness.url = Clock(), new_ledger()
    flow = harness.open(listener, start=False)
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(3)]
    flow.close()
    as_it_was(harness.url, last)
    run(
        harness.url,
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args) SELECT 'p:h', 'flowhooks:work',"
        " jsonb_build_object('handler', handler) FROM deliveries",
    )
    before = run(harness.url, JOBS)
    harness.runner = "procrastinate"
    with pytest.raises(LedgerSchemaTooOld, match="older than the installed Procrastinate"):
        harness.open(listener)

    environ = {"FLOWHOOKS_DATABASE": harness.url, "FLOWHOOKS_RUNNER_KIND": "procrastinate"}
    result = CliRunner().invoke(main, ["db", "upgrade"], env=environ)
    missing = sum(not is_upto(name, last) for name in MIGRATIONS)
    assert result.exit_code == 0, result.output
    assert f"({missing} steps)" in result.stdout
    assert run(harness.url, JOBS) == before
    assert {name for (name,) in run(harness.url, "SELECT name FROM job_migrations")} == MIGRATIONS.keys()
    new = new_ledger()
    procrastinate_schema.upgrade(new)
    assert sorted(run(harness.url, SHAPE)) == sorted(run(new, SHAPE))

    # So that a renewed job runs nothing.
    monkeypatch.setattr(JobSweeper, "_store_missing", lambda _self, _handlers: None)
    flow = harness.open(listener)
    for event_id in events:
        flow.settled(event_id, State.SUCCEEDED)
    assert sorted(runs) == ["i0", "i1", "i2"]


@pytest.mark.postgresql
def test_a_failing_migration_changes_nothing(new_ledger, monkeypatch):
    """A failing migration reports the reason and changes nothing; earlier migrations are kept and recorded."""
    url = new_ledger()
    as_it_was(url, "03.00.00_50_post")
    third = next(name for name in MIGRATIONS if name.startswith("03.02.00_01"))
    broken = MIGRATIONS | {third: b"CREATE TABLE half (x int); SELECT nothing_of_that_name()"}
    monkeypatch.setattr(procrastinate_schema, "_available", lambda: broken)
    with pytest.raises(LedgerUnusable, match=f"nothing_of_that_name.*[(]migration {third}[)]"):
        procrastinate_schema.upgrade(url)
    assert run(url, "SELECT to_regclass('half')") == [(None,)]
    monkeypatch.undo()
    with pytest.raises(LedgerSchemaTooOld, match="older than the installed Procrastinate"):
        procrastinate_schema.check(url)
    assert procrastinate_schema.upgrade(url) == sum(name > "03.01.99" for name in MIGRATIONS)
    procrastinate_schema.check(url)
