"""Queries of trends. They change nothing, and read only rows of the subject and the time asked for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam, func, select

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger import audit, database
from flowhooks.ledger.tables import processes, trends
from flowhooks.model.trend import MINUTE, RESOLUTIONS, TrendMark, TrendPoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

    from flowhooks.ledger.audit import AuditEntry

MAX_MARKS: Final = 100
"""Maximum number of marks that `trend_marks` returns, the newest ones."""
MAX_STARTS: Final = 1_000
"""Maximum number of process starts that `trend_marks` reads, the newest ones."""
_MINUTE: Final = MINUTE * SECOND
_DIGEST: Final = re.compile(r"(?:^| )[0-9a-f]{16}$")
"""The digest at the end of a `PluginVersion` as text."""
_STEP: Final = (
    (trends.c.started_at - bindparam("since", type_=BigInteger)) // bindparam("length", type_=BigInteger)
).label("step")
_TREND: Final = (
    select(_STEP, trends.c.outcome, trends.c.bucket, func.sum(trends.c["count"]).label("total"))
    .where(
        trends.c.kind == bindparam("kind"),
        trends.c.subject == bindparam("subject"),
        # Both, because the minutes of one hour are moved in one transaction: none is counted twice.
        trends.c.resolution.in_(RESOLUTIONS),
        trends.c.started_at >= bindparam("since", type_=BigInteger),
        trends.c.started_at < bindparam("until", type_=BigInteger),
    )
    .group_by("step", trends.c.outcome, trends.c.bucket)
)
_TOTALS: Final = (
    select(trends.c.subject, func.sum(trends.c["count"]).label("total"))
    .where(
        trends.c.kind == bindparam("kind"),
        trends.c.subject.in_(database.string_array("subjects")),
        trends.c.resolution.in_(RESOLUTIONS),
        trends.c.started_at >= bindparam("since", type_=BigInteger),
    )
    .group_by(trends.c.subject)
)
_STARTS: Final = (
    select(processes.c.started_at, processes.c.kind)
    .where(
        # Its id is made when the process starts, so that the primary key bounds the search.
        processes.c.id >= bindparam("first_id"),
        processes.c.id < bindparam("last_id"),
        processes.c.kind.in_(("server", "worker")),
    )
    .order_by(processes.c.id.desc())
    .limit(MAX_STARTS)
)


def read_trend(
    connection: Connection, kind: str, subject: str, *, since: int, until: int, step: int
) -> list[TrendPoint]:
    """Return the counts of a subject, one point for each step that has any, the oldest first.

    The first step starts at `since`, rounded down to a whole minute. Older counts are stored by the hour: they are in
    the step in which their hour starts.

    Args:
        connection: any connection.
        kind: a `TrendKind`.
        subject: a handler's id, a source's name or the fingerprint of an error group.
        since: the start, in microseconds since 1970.
        until: the end, which is not included; in microseconds since 1970. Minutes that start before it count as a
            whole.
        step: length of a step in seconds, a multiple of 60.

    Raises:
        ValueError: the step is not a positive multiple of 60.
    """
    if step <= 0 or step % MINUTE:
        raise ValueError(f"the step must be a positive multiple of {MINUTE} seconds, not {step}")
    since, length = since - since % _MINUTE, step * SECOND
    parameters = {"kind": kind, "subject": subject, "since": since, "until": until, "length": length}
    counts: dict[int, dict[tuple[str, int], int]] = {}
    for row in connection.execute(_TREND, parameters):
        if _is_legal(row):
            counts.setdefault(row.step, {})[row.outcome, row.bucket] = int(row.total)
    return [TrendPoint(since + number * length, counts[number]) for number in sorted(counts)]


def count_since(connection: Connection, kind: str, subjects: Collection[str], since: int) -> dict[str, int]:
    """Return the counts of subjects since a time, by subject; without subjects that have none.

    A process adds its last counts a few seconds later.

    Args:
        connection: any connection.
        kind: a `TrendKind`.
        subjects: as of `read_trend`.
        since: the start, in microseconds since 1970, rounded down to a whole minute.
    """
    parameters = {"kind": kind, "subjects": json.dumps(list(subjects)), "since": since - since % _MINUTE}
    return {row.subject: int(row.total) for row in connection.execute(_TOTALS, parameters) if row.total is not None}


def trend_marks(connection: Connection, *, since: int, until: int) -> list[TrendMark]:
    """Return starts of servers and workers, and starts with other versions of plugins, the oldest first.

    Starts of one kind of process in one minute are one mark. Only the newest `MAX_MARKS` marks are returned.

    Args:
        connection: any connection.
        since: the start, in microseconds since 1970.
        until: the end, which is not included; in microseconds since 1970.
    """
    marks = [*_starts(connection, since, until), *_new_versions(connection, since, until)]
    return sorted(marks, key=lambda mark: (mark.at, mark.kind, mark.text))[-MAX_MARKS:]


def _is_legal(row: Any) -> bool:
    """Whether the values of a row can be read; those of a damaged ledger cannot always."""
    return type(row.step) is int and type(row.outcome) is str and type(row.bucket) is int and row.total is not None


def _starts(connection: Connection, since: int, until: int) -> Iterator[TrendMark]:
    first_of_minute: dict[tuple[int, str], int] = {}
    for started_at, kind in connection.execute(
        _STARTS, {"first_id": id_lower_bound(since), "last_id": id_lower_bound(until)}
    ):
        if type(started_at) is int and since <= started_at < until:
            first_of_minute[started_at // _MINUTE, kind] = started_at
    return (TrendMark(at, "start", kind) for (_, kind), at in first_of_minute.items())


def _new_versions(connection: Connection, since: int, until: int) -> Iterator[TrendMark]:
    starts = audit.entries(connection, limit=MAX_MARKS, action="start", since=since, before=id_lower_bound(until))
    last: dict[str, str] = {}
    for start in reversed(starts):
        for plugin, version in _changed_plugins(start):
            # Servers and workers that are deployed together each record the change.
            if last.get(plugin) != version:
                last[plugin] = version
                yield TrendMark(start.at, "plugin", f"{plugin} {version}".strip())


def _changed_plugins(start: AuditEntry) -> list[tuple[str, str]]:
    """Return the plugins that have another version than at the last start, with that version."""
    loaded, changed = start.detail.get("plugins"), start.detail.get("plugins_changed")
    if not isinstance(loaded, dict) or not isinstance(changed, dict):
        return []
    return [
        (plugin, _version_text(str(changed[plugin]), str(loaded[plugin])))
        for plugin in sorted(changed)
        if plugin in loaded
    ]


def _version_text(change: str, version: str) -> str:
    """Return a version without the digest of its files, unless only that has changed."""
    before, number = change.partition(" -> ")[0], _DIGEST.sub("", version)
    return version if _DIGEST.sub("", before) == number else number
