"""Find causes in the installation: disk, size of the ledger, backups, the clock, and expiring credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import Cause, MessageTemplate
from flowhooks.clock import DAY, SECOND, to_text
from flowhooks.ledger import maintenance
from flowhooks.model.alert import AlertCause
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.maintenance import Observation
    from flowhooks.settings import Settings, Source

LEDGER_SUBJECT: Final = "ledger"
"""Subject of the alerts about the ledger itself."""
SAMPLE_INTERVAL: Final = 600 * SECOND
"""Microseconds between two records of the ledger's size, from which its growth is computed."""
MIB: Final = 2**20

DISK: Final = MessageTemplate(
    "The disk of the {subject} has only {why} free, less than alerts.disk_free_mib, found at {since}. When it is full, "
    "callbacks are answered with 503. Free space on it, or move the database to a larger disk. `flowhooks db purge` "
    "makes room for new events inside the file."
)
SIZE: Final = MessageTemplate(
    "The {subject} has {many}, more than alerts.ledger_max_mib allows, found at {since}. Shorten the retention or run "
    "`flowhooks db purge`, and find out what sends so many events: `flowhooks events list` shows the newest.",
    ("MiB", "MiB"),
)
GROWTH: Final = MessageTemplate(
    "The {subject} has grown by {many} in 24 hours, more than alerts.ledger_growth_mib allows, found at {since}. Find "
    "out what sends so many or such large events: `flowhooks events list` shows the newest. Then limit the source "
    "with rate or max_body_bytes, or raise the setting.",
    ("MiB", "MiB"),
)
BACKUP: Final = MessageTemplate(
    "The last backup of the {subject} was recorded at {since}, longer ago than alerts.backup_max_age. Find out why the "
    "regular backup does not run, and run `flowhooks db backup FILE`. On PostgreSQL run pg_dump, then "
    "`flowhooks db record-backup`."
)
NO_BACKUP: Final = MessageTemplate(
    "No backup of the {subject} is recorded, which is in use since {since}, longer than alerts.backup_max_age. Run "
    "`flowhooks db backup FILE` regularly. On PostgreSQL run pg_dump, then `flowhooks db record-backup`."
)
CLOCK_JUMP: Final = MessageTemplate(
    "The clock of host {subject} has jumped {many} in the last 24 hours, the first time at {since}, the last time by "
    "{why}. Find out what sets this clock, and synchronize it by NTP. After a jump of more than a day, nothing is "
    "purged for an hour.",
    ("time", "times"),
)
KEY: Final = MessageTemplate(
    "The last credential of source {subject} expires at {why}, and its callbacks are then answered with 401. Run "
    "`flowhooks sources rotate {quoted}`, and give the new secret to the engine."
)


@dataclass(slots=True, kw_only=True)
class MaintenanceCauseFinder:
    """Finds causes in the installation.

    Attributes:
        settings: returns the current settings.
        free_disk: returns the free bytes on the disk of the ledger; None if they are not known, as on PostgreSQL.
    """

    settings: Callable[[], Settings]
    free_disk: Callable[[], int | None]
    _sampled_at: int | None = field(default=None, init=False)

    def record_size(self, ledger: Ledger, now: int) -> None:
        """Record the size of the ledger if the last record is old enough.

        Raises:
            FlowhooksError: the database cannot be read or written.
        """
        if self._sampled_at is not None and 0 <= now - self._sampled_at < SAMPLE_INTERVAL:
            return
        with ledger.connection() as connection:
            size = maintenance.ledger_size(connection)
        ledger.write(lambda transaction: maintenance.record(transaction, "size", now, size))
        self._sampled_at = now

    def find(self, connection: Connection, now: int) -> Iterator[Cause]:
        """Yield every cause in the installation.

        Args:
            connection: reads a consistent snapshot.
            now: microseconds since 1970.
        """
        settings = self.settings()
        alerts = settings.alerts
        if alerts.disk_free_mib and (free := self.free_disk()) is not None and free < alerts.disk_free_mib * MIB:
            yield _of_ledger(AlertCause.DISK_NEARLY_FULL, DISK, now, why=f"{free / 2**30:.1f} GiB")
        yield from _size(connection, alerts.ledger_max_mib, alerts.ledger_growth_mib, now)
        if alerts.backup_max_age:
            yield from _backup(connection, int(alerts.backup_max_age * SECOND), now)
        yield from _clock_jumps(connection, now)
        if alerts.key_expires_within:
            yield from _expiring(settings.sources, now + int(alerts.key_expires_within * SECOND), now)


def _of_ledger(cause: AlertCause, template: MessageTemplate, since: int, *, count: int = 1, why: str = "") -> Cause:
    return Cause(cause=cause, subject=LEDGER_SUBJECT, since=since, count=lambda _: count, template=template, why=why)


def _size(connection: Connection, max_mib: int, growth_mib: int, now: int) -> Iterator[Cause]:
    if not (max_mib or growth_mib):
        return
    size = maintenance.ledger_size(connection)
    samples = maintenance.observations(connection, "size", now - DAY, now) if growth_mib else []
    growth = size - samples[0].value if samples else 0
    if max_mib and size > max_mib * MIB:
        yield _of_ledger(AlertCause.LEDGER_GROWTH, SIZE, now, count=size // MIB)
    elif growth_mib and growth > growth_mib * MIB:
        yield _of_ledger(AlertCause.LEDGER_GROWTH, GROWTH, now, count=growth // MIB)


def _backup(connection: Connection, max_age: int, now: int) -> Iterator[Cause]:
    last = maintenance.last_backup(connection)
    if last is not None and last > now + DAY:  # the clock was ahead, so nobody knows when that backup was made
        last = None
    since = maintenance.first_start(connection) if last is None else last
    if since is not None and now - since > max_age:
        yield _of_ledger(AlertCause.BACKUP_TOO_OLD, NO_BACKUP if last is None else BACKUP, since)


def _clock_jumps(connection: Connection, now: int) -> Iterator[Cause]:
    by_host: dict[str, list[Observation]] = {}
    # A jump ahead that was undone has a time in the future.
    for jump in maintenance.observations(connection, "clock_jump", now - DAY, now + DAY):
        by_host.setdefault(jump.detail, []).append(jump)
    for host, jumps in by_host.items():
        yield Cause(
            cause=AlertCause.CLOCK_JUMP,
            subject=printable_line(host),
            since=jumps[0].at,
            count=_constant(len(jumps)),
            template=CLOCK_JUMP,
            why=f"{jumps[-1].value / SECOND:+,.0f} s",
        )


def _constant(value: int) -> Callable[[Connection], int]:
    return lambda _: value


def _expiring(sources: Mapping[str, Source], before: int, now: int) -> Iterator[Cause]:
    """Find sources whose credentials all expire soon. An old secret beside one that stays valid is a rotation."""
    for name, source in sources.items():
        if not source.secrets or source.token_sha256 or source.token_file:
            continue
        ends = [secret.not_after for secret in source.secrets]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):
            continue
        last = int(max(known).timestamp() * SECOND)
        if last < before:
            yield Cause(
                cause=AlertCause.KEY_EXPIRING,
                subject=name,
                since=now,
                count=lambda _: 1,
                template=KEY,
                why=to_text(last),
            )
