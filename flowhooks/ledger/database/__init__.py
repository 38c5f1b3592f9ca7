"""What differs from one database to the other, and the only place that asks which one it is.

It must not know what the tables mean.
"""

from __future__ import annotations

from flowhooks.ledger.database.backups import copy_file, count_pages
from flowhooks.ledger.database.engines import (
    STATEMENT_TIMEOUT,
    check_file,
    database_file,
    display_name,
    dispose,
    enable_wal,
    error_text,
    free_disk_bytes,
    is_damage,
    is_readable,
    is_same_database,
    is_shared,
    library_version,
    open_engine,
    quick_check,
    remedy,
    without_statement_timeout,
)
from flowhooks.ledger.database.statements import (
    BulkInsert,
    Now,
    bytewise_order,
    database_time,
    exclude_readers,
    insert,
    listen,
    lock,
    lock_statement,
    notify,
    row_array,
    string_array,
)

__all__ = [
    "STATEMENT_TIMEOUT",
    "BulkInsert",
    "Now",
    "bytewise_order",
    "check_file",
    "copy_file",
    "count_pages",
    "database_file",
    "database_time",
    "display_name",
    "dispose",
    "enable_wal",
    "error_text",
    "exclude_readers",
    "free_disk_bytes",
    "insert",
    "is_damage",
    "is_readable",
    "is_same_database",
    "is_shared",
    "library_version",
    "listen",
    "lock",
    "lock_statement",
    "notify",
    "open_engine",
    "quick_check",
    "remedy",
    "row_array",
    "string_array",
    "without_statement_timeout",
]
