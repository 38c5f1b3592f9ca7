"""The pytest plugin: found automatically, cheap if unused, and it reports faults at the end of a test."""

from __future__ import annotations

import subprocess
import sys

from support.nested_pytest import PYTEST_OPTIONS

pytest_plugins = ["pytester"]

HANDLER = """
    import threading
    import pytest
    from flowhooks import Retry, handler

    @handler(process_key="leave", retry=Retry())
    def grant(event, delivery):
        if delivery.attempt == 1:
            raise OSError("not yet")
"""


def test_fixtures_are_found_without_a_conftest(pytester):
    """A test with the fixtures runs without a conftest, with every warning an error."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(
        HANDLER
        + """
    def test_app(flowhooks_app, flowhooks_clock):
        app, other = flowhooks_app(grant), flowhooks_app(grant)
        answer = app.post("1", processDefinitionKey="leave")
        app.wait_for(answer.event_id, "waiting")
        assert app.clock is flowhooks_clock
        flowhooks_clock.advance(minutes=1)
        app.wait_for(answer.event_id, "succeeded")
        assert app.folder != other.folder
        app.crash()
    """
    )
    pytester.runpytest_subprocess(*PYTEST_OPTIONS).assert_outcomes(passed=1)


def test_unused_fixtures_import_nothing(pytester):
    """If no test uses the fixtures, no module of the kit or the server is imported."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(
        """
    import sys

    def test_app():
        assert "flowhooks.testing.fixtures" in sys.modules
        heavy = {"falcon", "sqlalchemy", "alembic", "jsonschema", "structlog"}
        heavy |= {"flowhooks.app", "flowhooks.ledger", "flowhooks.settings", "flowhooks.testing.clock"}
        assert heavy & set(sys.modules) == set()
    """
    )
    pytester.runpytest_subprocess(*PYTEST_OPTIONS).assert_outcomes(passed=1)


def test_unbalanced_ledgers_are_reported_at_teardown(pytester):
    """All apps are closed, also after one that cannot be closed, and each fault is reported for the test."""
    pytester.makepyfile(
        HANDLER
        + """
    import sqlite3

    def test_app(flowhooks_app):
        app, other = flowhooks_app(grant), flowhooks_app(grant)
        other.post("1", processDefinitionKey="leave")
        close = app.close

        def broken():
            close()
            raise OSError("the database is gone")

        app.close = broken
        with sqlite3.connect(other.folder / "flowhooks.db", timeout=20) as connection:
            connection.execute("DELETE FROM attempts")
        connection.close()

    def test_after(flowhooks_app):
        flowhooks_app(grant)
    """
    )
    result = pytester.runpytest_subprocess(*PYTEST_OPTIONS)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["OSError: the database is gone", "*do not balance*does not have as many attempts as it counts*"]
    )


def test_a_failed_wait_shows_the_line_of_the_test(pytester):
    """A failed wait shows the line of the test, not the kit's own code."""
    pytester.makepyfile(
        HANDLER
        + """
    def test_app(flowhooks_app):
        app = flowhooks_app(grant)
        answer = app.post("1", processDefinitionKey="leave")
        app.wait_for(answer.event_id, "dead")
    """
    )
    result = pytester.runpytest_subprocess(*PYTEST_OPTIONS, "--tb=short")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*: in test_app", '*app.wait_for(answer.event_id, "dead")*', "E *waited for the delivery of handlers:grant*"]
    )
    result.stdout.no_fnmatch_line("*under_test.py*")


def test_package_names_are_loaded_lazily():
    """The package lists its names, provides each, refuses others, and is cheap to import."""
    code = """
import sys
import flowhooks.testing as kit
assert "sqlalchemy" not in sys.modules
assert set(kit.__all__) <= set(dir(kit))
for name in kit.__all__:
    assert getattr(kit, name).__name__ == name
from flowhooks.testing import exactly_once
assert callable(exactly_once)
try:
    kit.nothing
except AttributeError as error:
    assert str(error) == "module 'flowhooks.testing' has no attribute 'nothing'"
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
