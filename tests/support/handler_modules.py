"""Plugins as their authors write them: importable modules, whose handlers write rows to a database file."""

from __future__ import annotations

import importlib
import sqlite3
import sys
from contextlib import closing
from textwrap import dedent

import pytest


class World:
    """The outside world of a plugin: bookings in a SQLite file without protection against duplicates."""

    def __init__(self, file):
        self.file = file
        with self.open() as connection, connection:
            connection.execute("CREATE TABLE bookings (flow TEXT)")
            connection.execute("CREATE TABLE seen (delivery TEXT PRIMARY KEY)")

    def open(self):
        """Open a connection."""
        return closing(sqlite3.connect(self.file, timeout=20))

    def book(self, flow):
        """Make a booking, committed at once."""
        with self.open() as connection, connection:
            connection.execute("INSERT INTO bookings VALUES (?)", (flow,))

    def booked(self, event):
        """The number of bookings for an event."""
        with self.open() as connection:
            return connection.execute(
                "SELECT count(*) FROM bookings WHERE flow = ?", (event.flow_instance_id,)
            ).fetchone()[0]


@pytest.fixture
def world(tmp_path):
    """The outside world of the plugin."""
    return World(tmp_path / "world.db")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module `acme_NAME` and import it; it is removed at the end. Without a text it is there already."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(name, text=None):
        names.append(f"acme_{name}")
        if text is not None:
            (tmp_path / f"acme_{name}.py").write_text(dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(f"acme_{name}")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
