"""Requests to fixed URLs that an ignore rule answers: counted by source and rule, each rule with its last request.

The counts are part of the transaction after which the sender gets its answer. They are never deleted, so the number of
rules of a source is limited: a sender can put any number of values into its requests.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, case, or_, select

from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import ignored_requests
from flowhooks.ledger.transaction import SharedRows
from flowhooks.model.receiver import MAX_RULE_CHARS
from flowhooks.text import to_storable, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.transaction import WriteTransaction

MAX_RULES: Final = 200
"""Maximum number of rules of a source that are counted apart."""
OTHER_RULES: Final = "other rules"
"""The rule that counts for all further rules of a source."""
MAX_BODY_BYTES: Final = 65_536
"""Maximum number of bytes that are stored of a body, in UTF-8."""
_MAX_MEDIA_TYPE_CHARS: Final = 200

_TABLE = ignored_requests.c
_INSERT = database.insert(ignored_requests)


def _of_later(name: str) -> ColumnElement[Any]:
    return case((_INSERT.excluded["last_at"] >= _TABLE.last_at, _INSERT.excluded[name]), else_=_TABLE[name])


_UPSERT: Final = _INSERT.on_conflict_do_update(
    index_elements=list(ignored_requests.primary_key),
    set_={
        "count": _TABLE.count + _INSERT.excluded["count"],
        "first_at": case(
            (_INSERT.excluded["first_at"] < _TABLE.first_at, _INSERT.excluded["first_at"]), else_=_TABLE.first_at
        ),
        **{name: _of_later(name) for name in ("last_at", "body", "media_type")},
    },
)
_RULES: Final = select(_TABLE.source, _TABLE.rule).where(_TABLE.source.in_(database.string_array("sources")))
CHECKS: Final[tuple[tuple[Select[str], str], ...]] = (
    (
        select(_TABLE.source.concat(" ").concat(_TABLE.rule)).where(
            or_(_TABLE.first_at > _TABLE.last_at, (_TABLE.count == 1) & (_TABLE.first_at != _TABLE.last_at))
        ),
        "the ignored requests of source and rule {} have impossible times",
    ),
)
"""Each consistency check with the sentence that is reported for each key that it returns."""
_LOCK: Final = database.lock_statement(database.string_array("names"))


@dataclass(frozen=True, slots=True)
class IgnoredRequestRecord:
    """An ignored request that is to be counted.

    Attributes:
        source: the source.
        rule: the rule that ignores it. At most 100 characters are stored.
        body: its body. At most 64 KiB are stored.
        media_type: its `Content-Type`, or None.
        at: when it was received, in microseconds since 1970.
    """

    source: str
    rule: str
    body: str
    media_type: str | None
    at: int


@dataclass(frozen=True, slots=True)
class IgnoredRule:
    """The requests of a source that one rule ignored.

    Attributes:
        source: the source.
        rule: the rule, or `OTHER_RULES`.
        count: number of these requests. A request can count twice if the reply to a COMMIT was lost.
        first_at: when the first one was received, in microseconds since 1970.
        last_at: when the last one was received.
        body: the body of the last one.
        media_type: the `Content-Type` of the last one, or None.
    """

    source: str
    rule: str
    count: int
    first_at: int
    last_at: int
    body: str
    media_type: str | None


def record(transaction: WriteTransaction, records: Sequence[IgnoredRequestRecord]) -> None:
    """Count ignored requests at the end of the transaction.

    The rows of frequent rules are locked by each process that counts such a request, so they are locked last.
    """
    if records:
        transaction.before_commit(SharedRows.IGNORED_REQUESTS, lambda: _store(transaction.connection, records))


def _store(connection: Connection, records: Sequence[IgnoredRequestRecord]) -> None:
    storable = [_to_storable(record) for record in records]
    known = _known_rules(connection, storable)
    if any(record.rule not in known[record.source] for record in storable):
        # Locked, so that two processes do not both add the last rule; before the rows, so that they do not deadlock.
        names = [json.dumps(["ignore rules", source]) for source in sorted(known)]
        database.lock(connection, _LOCK, {"names": json.dumps(names)})
        known = _known_rules(connection, storable)
    changed: dict[tuple[str, str], IgnoredRule] = {}
    for record in storable:
        rules = known[record.source]
        rule = record.rule if record.rule in rules or len(rules - {OTHER_RULES}) < MAX_RULES else OTHER_RULES
        rules.add(rule)
        changed[record.source, rule] = _add(changed.get((record.source, rule)), replace(record, rule=rule))
    connection.execute(_UPSERT, [_to_row(changed[key]) for key in sorted(changed)])


def _known_rules(connection: Connection, records: Iterable[IgnoredRequestRecord]) -> dict[str, set[str]]:
    """Return the stored rules of the sources of the records, by source."""
    rules: dict[str, set[str]] = {record.source: set() for record in records}
    for source, rule in connection.execute(_RULES, {"sources": json.dumps(sorted(rules))}):
        rules[source].add(rule)
    return rules


def _to_storable(record: IgnoredRequestRecord) -> IgnoredRequestRecord:
    media_type = record.media_type
    body = to_storable(record.body, len(record.body)).encode()[:MAX_BODY_BYTES].decode(errors="ignore")
    return IgnoredRequestRecord(
        source=record.source,
        rule=truncate(to_storable(record.rule, len(record.rule)), MAX_RULE_CHARS),
        body=body,
        media_type=None if media_type is None else to_storable(media_type, _MAX_MEDIA_TYPE_CHARS),
        at=record.at,
    )


def _add(before: IgnoredRule | None, record: IgnoredRequestRecord) -> IgnoredRule:
    source, rule, at = record.source, record.rule, record.at
    if before is None:
        return IgnoredRule(source, rule, 1, at, at, record.body, record.media_type)
    if at < before.last_at:
        return replace(before, count=before.count + 1, first_at=min(at, before.first_at))
    return IgnoredRule(source, rule, before.count + 1, before.first_at, at, record.body, record.media_type)


def _to_row(rule: IgnoredRule) -> dict[str, Any]:
    return {column.name: getattr(rule, column.name) for column in _TABLE}


def ignored_rules(connection: Connection, source: str | None = None) -> list[IgnoredRule]:
    """Return the rules by which requests were ignored, by source, the rule of the last request first.

    Args:
        connection: any connection.
        source: the source; None: all sources.
    """
    query = select(ignored_requests)
    if source is not None:
        query = query.where(_TABLE.source == source)
    rows = (repair(row, list(_TABLE))[0] for row in connection.execute(query))
    rules = [IgnoredRule(*(getattr(row, column.name) for column in _TABLE)) for row in rows]
    return sorted(rules, key=lambda rule: (rule.source, -rule.last_at, rule.rule))


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Return the number of ignored requests by source and rule, also of a damaged ledger for at most `MAX_RULES`."""
    columns = (_TABLE.source, _TABLE.rule, _TABLE.count)
    rows = [repair(row, columns)[0] for row in connection.execute(select(*columns))]
    counted: Counter[tuple[str, str]] = Counter()
    n_rules: Counter[str] = Counter()
    for source, rule, count in sorted((row.source, row.rule, row.count) for row in rows):
        is_counted_apart = rule != OTHER_RULES and n_rules[source] < MAX_RULES
        n_rules[source] += is_counted_apart
        counted[source, rule if is_counted_apart else OTHER_RULES] += count
    return dict(counted)
