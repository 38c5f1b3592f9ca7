"""What differs from one database to the other, and the only place that asks which one it is.

It must not know what the tables mean.
"""

from __future__ import annotations

from flowhooks.ledger.database.backups import copy_file, pages_of
from flowhooks.ledger.database.engines import (
    ANSWERS_WITHIN,
    check_file,
    cure,
    database_file,
    is_damage,
    is_readable,
    is_same,
    is_shared,
    let_go,
    library_version,
    open_engine,
    plain,
    quick_check,
    room,
    shown,
    unhurried,
    write_ahead,
)
from flowhooks.ledger.database.statements import (
    Insertion,
    Now,
    by_bytes,
    insert,
    keys,
    listening,
    lock,
    locking,
    notify,
    quiet,
    rows,
    time_of,
)

__all__ = [
    "ANSWERS_WITHIN",
    "Insertion",
    "Now",
    "by_bytes",
    "check_file",
    "copy_file",
    "cure",
    "database_file",
    "insert",
    "is_damage",
    "is_readable",
    "is_same",
    "is_shared",
    "keys",
    "let_go",
    "library_version",
    "listening",
    "lock",
    "locking",
    "notify",
    "open_engine",
    "pages_of",
    "plain",
    "quick_check",
    "quiet",
    "room",
    "rows",
    "shown",
    "time_of",
    "unhurried",
    "write_ahead",
]
