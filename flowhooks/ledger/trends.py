"""Counts over time: added at the end of a transaction, combined by the hour later, and deleted in the end.

Theory of operation
-------------------
Each process counts in memory and adds its counts to the rows of their minute (`add`), so several processes share rows.
Counts that are older than the retention of minutes are moved into the rows of their hours (`combine`). The minutes are
deleted and the hours are increased in one transaction, so a reader finds each count in exactly one row. A late count of
a minute that was combined already makes a new row of that minute, and the next run moves it.

A count is exact only if no reply to a COMMIT is lost: its process then adds the counts of that flush again.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, cast, delete, literal, or_, select, true, tuple_

from flowhooks.clock import SECOND
from flowhooks.ledger import database
from flowhooks.ledger.tables import error_groups, trends
from flowhooks.ledger.transaction import SharedRows
from flowhooks.model.delivery import OutcomeKind
from flowhooks.model.error_group import LOST, identify, other_errors
from flowhooks.model.trend import HOUR, MINUTE, NO_DURATION, RESOLUTIONS, TrendKey, TrendKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Delete

    from flowhooks.ledger.attempts import AttemptResult
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.error_group import ErrorIdentity

_TABLE = trends.c
_KEY: Final = list(trends.primary_key)
_ROWS = database.row_array(
    "rows",
    kind=Text,
    subject=Text,
    resolution=Integer,
    started_at=BigInteger,
    outcome=Text,
    bucket=Integer,
    count=BigInteger,
)
# SQLite needs a WHERE between SELECT and ON CONFLICT.
_INSERT = database.insert(trends).from_select(list(_ROWS.c.keys()), select(*_ROWS.c).where(true()))
_ADD: Final = database.DriverStatement(
    _INSERT.on_conflict_do_update(
        index_elements=_KEY, set_={"count": _TABLE["count"] + _INSERT.excluded["count"]}
    ).returning(_TABLE.kind)
)
_STORED_GROUPS: Final = select(error_groups.c.fingerprint).where(
    error_groups.c.fingerprint.in_(database.string_array("fingerprints"))
)
_NEXT_SUBJECT: Final = (
    select(_TABLE.kind, _TABLE.subject)
    .where(tuple_(_TABLE.kind, _TABLE.subject) > tuple_(bindparam("kind"), bindparam("subject")))
    .order_by(_TABLE.kind, _TABLE.subject)
    .limit(1)
)
_IS_OF_SUBJECT: Final = and_(
    _TABLE.kind == bindparam("kind"),
    _TABLE.subject == bindparam("subject"),
    _TABLE.resolution == bindparam("resolution"),
    _TABLE.started_at < bindparam("before", type_=BigInteger),
)
_HAS_OLDER: Final = select(_TABLE.kind).where(_IS_OF_SUBJECT).limit(1)


def _delete_oldest() -> Delete:
    oldest = select(*_KEY).where(_IS_OF_SUBJECT).order_by(*_KEY).limit(bindparam("most", type_=Integer))
    return delete(trends).where(tuple_(*_KEY).in_(oldest))


_TAKE_OLDEST: Final = _delete_oldest().returning(*trends.c)
_DELETE_OLDEST: Final = _delete_oldest()
CHECKS: Final = (
    (
        select(_TABLE.subject.concat(" ").concat(cast(_TABLE.started_at, Text))).where(
            or_(
                *(
                    (_TABLE.resolution == resolution)
                    & (_TABLE.started_at % literal(resolution * SECOND, BigInteger) != 0)
                    for resolution in RESOLUTIONS
                )
            )
        ),
        "the trend of {} does not start with its interval",
    ),
)
"""Each consistency check with the sentence that is reported for each key that it returns."""


def add(transaction: WriteTransaction, counts: Mapping[TrendKey, int]) -> None:
    """Add counts to the rows of their intervals, at the end of the transaction."""
    if counts:
        transaction.before_commit(SharedRows.TRENDS, lambda: _add(transaction.connection, counts))


def add_lost(transaction: WriteTransaction, results: Sequence[AttemptResult]) -> None:
    """Count lost attempts, which the process that ran them cannot count, at the end of the transaction."""
    if results:
        transaction.before_commit(SharedRows.TRENDS, lambda: _add_lost(transaction.connection, results))


def group_fingerprints(connection: Connection, identities: Collection[ErrorIdentity]) -> dict[ErrorIdentity, str]:
    """Return the fingerprint of the group in which the attempts with each error are.

    A handler that has its maximum number of groups has one for all its other errors.
    """
    fingerprints = {identity: identity.fingerprint for identity in identities}
    stored = set(
        connection.execute(_STORED_GROUPS, {"fingerprints": json.dumps(sorted(fingerprints.values()))}).scalars()
    )
    return {
        identity: fingerprint if fingerprint in stored else other_errors(identity.handler).fingerprint
        for identity, fingerprint in fingerprints.items()
    }


def subjects(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the kind and name of each subject that has counts."""
    kind = subject = ""
    while (row := connection.execute(_NEXT_SUBJECT, {"kind": kind, "subject": subject}).first()) is not None:
        kind, subject = row
        yield kind, subject


def has_older(connection: Connection, kind: str, subject: str, *, resolution: int, before: int) -> bool:
    """Return whether a subject has counts of this resolution from before a time, in microseconds since 1970."""
    parameters = {"kind": kind, "subject": subject, "resolution": resolution, "before": before}
    return connection.execute(_HAS_OLDER, parameters).first() is not None


def combine(transaction: WriteTransaction, *, kind: str, subject: str, before: int, limit: int) -> int:
    """Move the oldest counts of a subject from the rows of their minutes into those of their hours.

    Args:
        transaction: the open transaction.
        kind: a `TrendKind`.
        subject: the subject.
        before: only minutes that start before this time, in microseconds since 1970.
        limit: maximum number of rows.

    Returns:
        The number of moved rows; if it is less than `limit`, none is left.
    """
    parameters = {"kind": kind, "subject": subject, "resolution": MINUTE, "before": before, "most": limit}
    rows = transaction.connection.execute(_TAKE_OLDEST, parameters).all()
    hours: Counter[TrendKey] = Counter()
    for row in filter(_is_readable, rows):
        started_at = row.started_at - row.started_at % (HOUR * SECOND)
        hours[TrendKey(kind, subject, HOUR, started_at, row.outcome, row.bucket)] += row.count
    if hours:
        _add(transaction.connection, hours)
    return len(rows)


def delete_older(
    transaction: WriteTransaction, *, kind: str, subject: str, resolution: int, before: int, limit: int
) -> int:
    """Delete the oldest counts of a subject; return their number.

    Args:
        transaction: the open transaction.
        kind: a `TrendKind`.
        subject: the subject.
        resolution: one of `RESOLUTIONS`.
        before: only intervals that start before this time, in microseconds since 1970.
        limit: maximum number of rows.
    """
    parameters = {"kind": kind, "subject": subject, "resolution": resolution, "before": before, "most": limit}
    return int(transaction.connection.execute(_DELETE_OLDEST, parameters).rowcount)


def _add_lost(connection: Connection, results: Sequence[AttemptResult]) -> None:
    identities = [identify(result.handler, LOST, result.error) for result in results]
    fingerprints = group_fingerprints(connection, set(identities))
    counts: Counter[TrendKey] = Counter()
    for result, identity in zip(results, identities, strict=True):
        subjects = {TrendKind.HANDLER: result.handler, TrendKind.ERROR_GROUP: fingerprints[identity]}
        started_at = result.now - result.now % (MINUTE * SECOND)
        for kind, subject in subjects.items():
            counts[TrendKey(kind.value, subject, MINUTE, started_at, OutcomeKind.LOST.value, NO_DURATION)] += 1
    _add(connection, counts)


def _is_readable(row: Any) -> bool:
    """Whether a row can be added to another one; a damaged one, which `verify` reports, cannot always."""
    return type(row.outcome) is str and type(row.bucket) is int and type(row.count) is int


def _add(connection: Any, counts: Mapping[TrendKey, int]) -> None:
    # In one order, so that processes that share rows do not deadlock.
    _ADD(connection, {"rows": json.dumps([[*key, counts[key]] for key in sorted(counts)])})
