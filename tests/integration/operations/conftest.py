"""Fixtures shared by tests of operations: the context of an operator, and the audit log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.ledger import audit
from flowhooks.operations.context import Actor


@pytest.fixture
def context_of():
    """A function that returns a flow's operation context for Ann at the console."""
    return lambda flow: replace(flow.app.operation_context, by=Actor("ann", "console"))


@pytest.fixture
def audit_entries():
    """A function that returns the audit log of a flow, newest first."""

    def read(flow, **narrowing):
        with flow.app.ledger.connection() as connection:
            return audit.entries(connection, limit=100, **narrowing)

    return read
