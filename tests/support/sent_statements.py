"""The statements that code sends to a database, for tests of their number or their plans. No tests of its own."""

from __future__ import annotations

from contextlib import contextmanager

from sqlalchemy import event


@contextmanager
def taking_down(connection):
    """The statements sent in this context, with their parameters."""
    taken = []

    def take(_connection, _cursor, statement, parameters, _context, _many):
        taken.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", take)
    yield taken
    event.remove(connection, "before_cursor_execute", take)
