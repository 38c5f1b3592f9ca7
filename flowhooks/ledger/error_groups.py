"""Error groups: attempts that failed for the same reason, counted while their results are recorded.

A group is changed at the end of the transaction that records its attempts, because all processes that record a failure
of it change the same row. The changes of a transaction are one statement, in one order, so that none deadlock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Integer,
    Text,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    select,
    true,
    update,
)

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import database
from flowhooks.ledger.tables import HAS_ERROR_GROUP, attempts, deliveries, error_groups
from flowhooks.ledger.transaction import GroupChange, SharedRows
from flowhooks.model.error_group import other_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.error_group import ErrorIdentity

MAX_GROUPS: Final = 200
"""Maximum number of groups of one handler. Further errors are in one more group, so that a handler whose messages all
differ cannot fill the ledger."""
REREAD_INTERVAL: Final = 60 * SECOND
"""Microseconds after which the groups of a handler that has the maximum are read again. Some may be purged by then."""
MAX_VERSIONS_CHARS: Final = 1_000
"""Maximum characters of the list of versions. A version that was seen after that is not listed."""

_ROWS = database.row_array(
    "changes",
    fingerprint=Text,
    handler=Text,
    error_type=Text,
    message=Text,
    frame=Text,
    first_seen_at=BigInteger,
    last_seen_at=BigInteger,
    count=BigInteger,
    sample_delivery_id=Text,
    sample_attempt=Integer,
)
_VERSION = (
    select(attempts.c.plugin_version)
    .where(attempts.c.delivery_id == _ROWS.c.sample_delivery_id, attempts.c.number == _ROWS.c.sample_attempt)
    .scalar_subquery()
)
_AS_JSON = (
    literal('["').concat(func.replace(func.replace(func.nullif(_VERSION, ""), "\\", "\\\\"), '"', '\\"')).concat('"]')
)
_INSERT = database.insert(error_groups).from_select(
    [*_ROWS.c.keys(), "versions"],
    # SQLite needs a WHERE between SELECT and ON CONFLICT.
    select(*_ROWS.c, func.coalesce(_AS_JSON, "[]")).where(true()),
)
_NEW: Final = _INSERT.excluded
_IS_NEWER: Final = _NEW.last_seen_at >= error_groups.c.last_seen_at
_NEW_VERSION: Final = func.substr(_NEW.versions, 2, func.length(_NEW.versions) - 2)


def _newer(name: str) -> Any:
    return case((_IS_NEWER, _NEW[name]), else_=error_groups.c[name])


_UPSERT: Final = database.DriverStatement(
    _INSERT.on_conflict_do_update(
        index_elements=["fingerprint"],
        set_={
            "count": error_groups.c.count + _NEW.count,
            "last_seen_at": _newer("last_seen_at"),
            "first_seen_at": case(
                (_NEW.first_seen_at < error_groups.c.first_seen_at, _NEW.first_seen_at),
                else_=error_groups.c.first_seen_at,
            ),
            "sample_delivery_id": _newer("sample_delivery_id"),
            "sample_attempt": _newer("sample_attempt"),
            "versions": case(
                (
                    (_NEW.versions == "[]")
                    | (func.replace(error_groups.c.versions, _NEW_VERSION, "") != error_groups.c.versions)
                    | (func.length(error_groups.c.versions) > MAX_VERSIONS_CHARS),
                    error_groups.c.versions,
                ),
                (error_groups.c.versions == "[]", _NEW.versions),
                else_=func.substr(error_groups.c.versions, 1, func.length(error_groups.c.versions) - 1)
                .concat(", ")
                .concat(func.substr(_NEW.versions, 2)),
            ),
        },
    ).returning(error_groups.c.fingerprint)
)
_KNOWN: Final = (
    select(error_groups.c.fingerprint).where(error_groups.c.handler == bindparam("handler")).limit(MAX_GROUPS + 1)
)
_OF_DELIVERIES: Final = (
    select(attempts.c.error_group, func.count())
    # Not only those with a group: PostgreSQL might read the whole index of these.
    .where(attempts.c.delivery_id.in_(database.string_array("delivery_ids")))
    .group_by(attempts.c.error_group)
)
_REDUCE: Final = (
    update(error_groups)
    .where(error_groups.c.fingerprint == bindparam("group"))
    .values(count=error_groups.c.count - bindparam("deleted", type_=BigInteger))
)
_DELETE_EMPTY: Final = delete(error_groups).where(
    error_groups.c.fingerprint == bindparam("group"), error_groups.c.count <= literal_column("0")
)
_COUNTED: Final = (
    select(attempts.c.error_group, func.count().label("counted"))
    .where(HAS_ERROR_GROUP)
    .group_by(attempts.c.error_group)
    .subquery("counted")
)
CHECKS: Final = (
    (
        select(_COUNTED.c.error_group)
        .outerjoin(error_groups, error_groups.c.fingerprint == _COUNTED.c.error_group)
        .where(error_groups.c.fingerprint.is_(None)),
        "error group {} has attempts and is not stored",
    ),
    (
        select(error_groups.c.fingerprint)
        .outerjoin(_COUNTED, error_groups.c.fingerprint == _COUNTED.c.error_group)
        .where(error_groups.c.count != func.coalesce(_COUNTED.c.counted, 0)),
        "error group {} does not have as many attempts as it counts",
    ),
    (
        select(error_groups.c.fingerprint).where(
            error_groups.c.first_seen_at > error_groups.c.last_seen_at + literal(DAY, BigInteger)
        ),
        "error group {} was last seen before it was first seen",
    ),
    (
        # The sample may be purged, and then proves nothing.
        select(error_groups.c.fingerprint)
        .join(deliveries, deliveries.c.id == error_groups.c.sample_delivery_id)
        .where(deliveries.c.handler != error_groups.c.handler),
        "error group {} belongs to another handler than its attempts",
    ),
)
"""Queries for inconsistent groups, each with the sentence for each fingerprint that it returns."""


class ErrorGroups:
    """Assigns failed attempts to groups. Used by one thread at a time, the ledger's writer.

    The groups of each handler are read once, and when an error appears that no group is known for.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = defaultdict(set)
        self._read_at: dict[str, int] = {}

    def add(
        self,
        transaction: WriteTransaction,
        identity: ErrorIdentity,
        *,
        attempt: tuple[str, int],
        now: int,
    ) -> str:
        """Count an attempt in its group at the end of the transaction, which records the attempt.

        Args:
            transaction: the open transaction.
            identity: what the attempt's error has in common with others.
            attempt: its delivery and its number.
            now: when it ended, in microseconds since 1970.

        Returns:
            The fingerprint of the group.
        """
        if not self._may_have(transaction, identity, now):
            identity = other_errors(identity.handler)
        fingerprint = identity.fingerprint
        before = transaction.error_changes.get(fingerprint, GroupChange())
        first, last, sample = now, now, attempt
        if before.added:
            first = min(before.first_seen_at, first)
            if before.last_seen_at > last:
                last, sample = before.last_seen_at, before.sample
        _change(transaction, fingerprint, GroupChange(identity, before.added + 1, first, last, sample, before.deleted))
        return fingerprint

    def _may_have(self, transaction: WriteTransaction, identity: ErrorIdentity, now: int) -> bool:
        """Return whether a handler has a group for an error, or may get one."""
        known, fingerprint = self._known[identity.handler], identity.fingerprint
        if fingerprint in known:
            return True
        if len(known) < MAX_GROUPS or not 0 <= now - self._read_at.get(identity.handler, 0) < REREAD_INTERVAL:
            known.clear()
            known.update(transaction.connection.execute(_KNOWN, {"handler": identity.handler}).scalars())
            known.discard(other_errors(identity.handler).fingerprint)
            # Groups of this transaction are stored at its end.
            known.update(
                key
                for key, change in transaction.error_changes.items()
                if change.identity is not None and change.identity.handler == identity.handler
            )
            self._read_at[identity.handler] = now
        if fingerprint not in known and len(known) >= MAX_GROUPS:
            return False
        known.add(fingerprint)
        return True


def remove_attempts(transaction: WriteTransaction, delivery_ids: Sequence[str]) -> None:
    """Subtract the attempts of deliveries, which the transaction deletes, from their groups once it ends.

    A group without attempts is deleted.
    """
    found = transaction.connection.execute(_OF_DELIVERIES, {"delivery_ids": json.dumps(list(delivery_ids))})
    for fingerprint, count in found.all():
        if fingerprint is None:
            continue
        before = transaction.error_changes.get(fingerprint, GroupChange())
        _change(transaction, fingerprint, before._replace(deleted=before.deleted + count))


def _change(transaction: WriteTransaction, fingerprint: str, change: GroupChange) -> None:
    if not transaction.error_changes:
        transaction.before_commit(SharedRows.ERROR_GROUPS, lambda: _store(transaction))
    transaction.error_changes[fingerprint] = change


def _store(transaction: WriteTransaction) -> None:
    changes = sorted(transaction.error_changes.items())
    if added := [
        [key, *change.identity, change.first_seen_at, change.last_seen_at, change.added, *change.sample]
        for key, change in changes
        if change.identity is not None
    ]:
        _UPSERT(transaction.connection, {"changes": json.dumps(added)})
    if reduced := [{"group": key, "deleted": change.deleted} for key, change in changes if change.deleted]:
        transaction.connection.execute(_REDUCE, reduced)
        transaction.connection.execute(_DELETE_EMPTY, reduced)
