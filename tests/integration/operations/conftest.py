"""Fixtures that tests of operations share: the caller, and the records of the audit log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.ledger import audit
from flowhooks.operations.context import Actor


@pytest.fixture
def by():
    """The desk of a flow, asked by Ann at the console."""
    return lambda flow: replace(flow.app.operation_context, by=Actor("ann", "console"))


@pytest.fixture
def deeds():
    """All that is written down of what operators did in a flow, the newest first."""

    def read(flow, **narrowing):
        with flow.app.ledger.connection() as connection:
            return audit.entries(connection, limit=100, **narrowing)

    return read
