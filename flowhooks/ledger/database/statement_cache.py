"""Compiled statements, which all engines of a process share.

SQLAlchemy keeps the compiled statements of each engine apart. A server reads and writes over several engines, and the
test kit opens new ones for each process that it simulates: compiling the same statements again took a third of the time
of `exactly_once`.
"""

from __future__ import annotations

from typing import Any, Final

MAX_STATEMENTS: Final = 1000
"""Maximum number of compiled statements for one database system; flowhooks has a few hundred."""


class StatementCache(dict[tuple[Any, ...], Any]):
    """The compiled statements for one database system.

    The keys of SQLAlchemy begin with the dialect object of an engine, which is left out.
    """

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        """Return the compiled statement of this key."""
        return super().get(key[1:], default)

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        if len(self) >= MAX_STATEMENTS:
            self.clear()  # statements that are used often are compiled again soon
        super().__setitem__(key[1:], compiled)


_CACHES: Final = {name: StatementCache() for name in ("sqlite", "postgresql")}


def statement_cache(database_system: str) -> StatementCache:
    """Return the cache for `sqlite` or `postgresql`."""
    return _CACHES[database_system]
