"""The size of the ledger as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.storage import Storage


class StorageJson(TypedDict):
    """The size of the ledger, its growth, the free disk, and how long data is kept.

    Attributes:
        generated_at: the time at which the numbers were read.
        database: SQLite or PostgreSQL.
        name: the database file, or the name and the server of the database.
        bytes: the size of the database; on SQLite of its file, without the write-ahead log.
        unused_bytes: the bytes of the file without data, which new data fills before the file grows; null on
            PostgreSQL.
        log_bytes: the size of the write-ahead log; null on PostgreSQL, or if it cannot be read.
        free_disk_bytes: the free bytes on the disk of the file; null on PostgreSQL, or if they cannot be read.
        growth_bytes: the growth of the database since growth_since, negative if it became smaller; null if no size of
            at least an hour ago is recorded.
        growth_since: the time of the oldest recorded size of the last 24 hours; null if there is no growth.
        days_until_full: the days after which the free disk and the unused bytes are filled if the growth continues;
            null if the database does not grow, its disk is not known, or it takes more than 10 years.
        events: the number of stored events.
        oldest_event_at: the time at which the oldest stored event was received; null without events.
        last_backup_at: the time of the last recorded backup; null if none is recorded.
        retention: the days that data is kept, by setting of the section retention; 0 is forever.
        alert_disk_free_mib: the free space in mebibytes below which an alert is raised; 0 is never.
        alert_max_mib: the size of the ledger in mebibytes above which an alert is raised; 0 is never.
        alert_growth_mib: the growth in 24 hours, in mebibytes, above which an alert is raised; 0 is never.
    """

    generated_at: TimestampJson
    database: str
    name: str
    bytes: int
    unused_bytes: int | None
    log_bytes: int | None
    free_disk_bytes: int | None
    growth_bytes: int | None
    growth_since: TimestampJson | None
    days_until_full: float | None
    events: int
    oldest_event_at: TimestampJson | None
    last_backup_at: TimestampJson | None
    retention: dict[str, int]
    alert_disk_free_mib: int
    alert_max_mib: int
    alert_growth_mib: int


def storage_to_json(storage: Storage) -> StorageJson:
    """Return the size of the ledger with times as text."""
    return {
        "generated_at": to_text(storage.generated_at),
        "database": storage.database,
        "name": storage.name,
        "bytes": storage.bytes,
        "unused_bytes": storage.unused_bytes,
        "log_bytes": storage.log_bytes,
        "free_disk_bytes": storage.free_disk_bytes,
        "growth_bytes": storage.growth_bytes,
        "growth_since": to_text(storage.growth_since),
        "days_until_full": storage.days_until_full,
        "events": storage.events,
        "oldest_event_at": to_text(storage.oldest_event_at),
        "last_backup_at": to_text(storage.last_backup_at),
        "retention": dict(storage.retention),
        "alert_disk_free_mib": storage.alert_disk_free_mib,
        "alert_max_mib": storage.alert_max_mib,
        "alert_growth_mib": storage.alert_growth_mib,
    }
