"""Read the size of the ledger, its growth, the free disk, and how long data is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import database, maintenance
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.reader import Reader
    from flowhooks.settings import Settings

MIN_GROWTH_PERIOD: Final = 3600 * SECOND
"""Microseconds between two sizes from which a growth is computed."""
MAX_DAYS_UNTIL_FULL: Final = 3650
"""A disk that is full later than in so many days is not reported: the growth will have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The size of the ledger, its growth, the free disk, and how long data is kept.

    Attributes:
        generated_at: time of the reads, in microseconds since 1970.
        database: `SQLite` or `PostgreSQL`.
        name: the database file, or the name and the server of the database.
        bytes: size of the database; on SQLite of its file, without the write-ahead log.
        unused_bytes: bytes of the file without data, which new data fills before the file grows; null on PostgreSQL.
        log_bytes: size of the write-ahead log beside the file; null on PostgreSQL, or if it cannot be read.
        free_disk_bytes: free bytes on the disk of the file; null on PostgreSQL, or if they cannot be read.
        growth_bytes: growth of the database since `growth_since`, negative if it became smaller; null if no size of
            at least an hour ago is recorded. A running server records the size every 10 minutes, for a day.
        growth_since: time of the oldest recorded size, in microseconds since 1970; null if there is no growth.
        days_until_full: days after which the free disk and the unused bytes are filled if the growth continues; null
            if the database does not grow, its disk is not known, or it takes more than 10 years.
        events: number of stored events.
        oldest_event_at: when the oldest stored event was received, in microseconds since 1970; null without events.
        last_backup_at: when the last recorded backup was made, in microseconds since 1970; null if none is recorded.
        retention: days that data is kept, by setting of the section `retention`; 0 is forever.
        alert_disk_free_mib: free space in mebibytes below which an alert is raised; 0 is never.
        alert_max_mib: size of the ledger in mebibytes above which an alert is raised; 0 is never.
        alert_growth_mib: growth in 24 hours, in mebibytes, above which an alert is raised; 0 is never.
    """

    generated_at: int
    database: str
    name: str
    bytes: int
    unused_bytes: int | None
    log_bytes: int | None
    free_disk_bytes: int | None
    growth_bytes: int | None
    growth_since: int | None
    days_until_full: float | None
    events: int
    oldest_event_at: int | None
    last_backup_at: int | None
    retention: dict[str, int]
    alert_disk_free_mib: int
    alert_max_mib: int
    alert_growth_mib: int


def read_storage(reader: Reader, settings: Settings, now: int) -> Storage:
    """Read the size of the ledger, its growth, the free disk, and how long data is kept.

    Args:
        reader: the ledger.
        settings: the settings in force.
        now: current time in microseconds since 1970.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    url = database_url(settings)
    free = database.free_disk_bytes(url)
    with reader.connection() as connection:
        size, unused = maintenance.ledger_size(connection), maintenance.unused_bytes(connection)
        growth, since = _growth(connection, size, now)
        return Storage(
            generated_at=now,
            database="PostgreSQL" if reader.shared else "SQLite",
            name=database.display_name(url),
            bytes=size,
            unused_bytes=unused,
            log_bytes=database.log_bytes(url),
            free_disk_bytes=free,
            growth_bytes=growth,
            growth_since=since,
            days_until_full=_days_until_full(free, unused, growth, now - (since or now)),
            events=maintenance.count_stored_events(connection),
            oldest_event_at=maintenance.oldest_event_received_at(connection),
            last_backup_at=maintenance.last_backup(connection),
            retention=asdict(settings.retention),
            alert_disk_free_mib=settings.alerts.disk_free_mib,
            alert_max_mib=settings.alerts.ledger_max_mib,
            alert_growth_mib=settings.alerts.ledger_growth_mib,
        )


def _growth(connection: Connection, size: int, now: int) -> tuple[int | None, int | None]:
    samples = maintenance.observations(connection, "size", now - DAY, now - MIN_GROWTH_PERIOD)
    return (size - samples[0].value, samples[0].at) if samples else (None, None)


def _days_until_full(free: int | None, unused: int | None, growth: int | None, period: int) -> float | None:
    if free is None or growth is None or growth <= 0:
        return None
    days = round((free + (unused or 0)) / growth * period / DAY, 1)
    return days if days <= MAX_DAYS_UNTIL_FULL else None
