"""The statements that code sends to a database, for tests of their number or their plans. No tests of its own."""

from __future__ import annotations

from contextlib import contextmanager

from sqlalchemy import event


@contextmanager
def record_statements(connection):
    """Yield the list of the statements sent in this context, with their parameters."""
    statements = []

    def record(_connection, _cursor, statement, parameters, _context, _many):
        statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", record)
    yield statements
    event.remove(connection, "before_cursor_execute", record)
