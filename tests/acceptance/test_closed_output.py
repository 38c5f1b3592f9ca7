"""A server whose standard output or error was closed before its start, as with `>&-` in a shell."""

from __future__ import annotations

import json
import sys
import urllib.request

import pytest

from support.waiting import until


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_output_starts(site, closed):
    """The server starts, responds and shuts down in order."""
    site.flowhooks = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "flowhooks"]
    server = site.start(ready=False)
    lock = site.database.with_name("flowhooks.db.lock")

    def serves():
        assert server.process.poll() is None, server.lines
        return lock.exists() and '"admin": "http' in lock.read_text()

    until(serves)
    admin = json.loads(lock.read_text())["admin"]
    with urllib.request.urlopen(f"{admin}/healthz", timeout=30) as answer:
        assert answer.status == 200
    server.stop()
    site.balance()
