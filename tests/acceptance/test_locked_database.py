"""Another program holds a lock on the database: no callback is lost, and the server recovers without help."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from support.waiting import WAIT_TIMEOUT, until

LATER = """
from flowhooks import Retry, handler, hookimpl

@handler(process_key="later", retry=Retry(attempts=9, delays=[0.4], jitter=0))
def later(event, delivery):
    if delivery.attempt == 1:
        raise OSError("not yet")

@hookimpl
def handlers():
    return [later]
"""


def test_a_marked_attempt_runs_after_the_lock_is_released(site):
    """While the database is locked no attempt begins; afterwards each attempt marked as running does run."""
    site.plugin("demo", LATER)
    server = site.start(ledger__write_timeout=3)  # less than the time for which SQLite waits for the lock
    # A commit may take longer on a busy machine.
    body = {"processDefinitionKey": "later"}
    answer = until(lambda: (sent := server.post("a", body, Prefer="wait=0")).status != 503 and sent)
    assert answer.status == 202
    server.until_logged("attempt_failed", attempt=1)
    with closing(sqlite3.connect(site.database, isolation_level=None, timeout=WAIT_TIMEOUT)) as outside:
        outside.execute("BEGIN IMMEDIATE")
        record = server.until_logged("ledger_write_failed")
        assert record["next"].startswith("end the other program that holds a lock on the database file (`lsof FILE`")
        outside.execute("ROLLBACK")
    site.until(lambda ledger: ledger.delivery_statuses(answer.event_id)[0].state == "succeeded")
    server.stop()
    site.balance()


def test_a_locked_database_is_503_and_needs_no_restart(site):
    """The server is not ready and reports why, and recovers without a restart."""
    site.plugin("demo", LATER)
    # Long enough for two tries: a batch that fails is tried again, request by request.
    server = site.start(ledger__write_timeout=30)
    with closing(sqlite3.connect(site.database, isolation_level=None, timeout=WAIT_TIMEOUT)) as outside:
        outside.execute("BEGIN IMMEDIATE")
        answer = server.post("a", {"processDefinitionKey": "nobody"})
        assert "database cannot be used now" in answer.check_error(503)
        assert answer.headers["Retry-After"]
        ready = server.ask("GET", "/readyz", admin=True)
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert "the last write to the database failed" in ready.json["trouble"][0]
        assert server.ask("GET", "/healthz", admin=True).status == 200
        outside.execute("ROLLBACK")
    assert server.post("a", {"processDefinitionKey": "nobody"}).status == 202
    assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    server.check_log()
    assert site.balance().accepted == 1
