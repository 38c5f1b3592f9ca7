"""The most recently rejected requests, with the reasons.

Equal requests share a row, which counts them. Each status of each source has a limit of its own, so that an engine that
sends the same error at a high rate does not displace the errors of others. If the source is not known, each address has
a limit, too.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from sqlalchemy import delete, func, select

from flowhooks.errors import NotFound
from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import rejected_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from flowhooks.ledger.transaction import WriteTransaction

MAX_STORED: Final = 1_000
"""Maximum number of rows that a ledger stores, for all processes: the newest ones. Rows that `MIN_KEPT_PER_GROUP` keeps
are stored beyond it."""
MIN_KEPT_PER_GROUP: Final = 10
"""Number of the newest rows with the same status and source that no number of other rows displaces."""
MAX_STORED_PER_GROUP: Final = 100
"""Maximum number of these rows with the same status and source."""
MAX_STORED_PER_ADDRESS: Final = 20
"""Maximum number of these rows with the same address, if the source is not known."""
PATH_INDEPENDENT_STATUSES: Final = frozenset({401, 403, 429})
"""Statuses that depend on the sender and not on the path. Requests that differ only in their path count as equal. A 401
of a known source is an exception: its `webhook-id` was used before for another path."""
NO_SOURCE: Final = "(none)"
"""Stands for a source that is not known in filters of operators: the request had no valid credential, or was rejected
before it was checked. No source has this name."""
_FLOW_INSTANCE_ID: Final = re.compile("/+flow/+([^/]+)")

_INSERT: Final = database.insert(rejected_requests)
_UPSERT: Final = _INSERT.on_conflict_do_update(
    index_elements=[rejected_requests.c.fingerprint],
    set_={
        **{name: _INSERT.excluded[name] for name in ("id", "rejected_at", "path", "reason_zh")},
        **{name: _INSERT.excluded[name] for name in ("user_agent", "event_id")},
        "count": rejected_requests.c.count + _INSERT.excluded["count"],
    },
)
_RANKED: Final = (
    select(
        rejected_requests.c.id,
        func.row_number()
        .over(
            partition_by=(rejected_requests.c.status, rejected_requests.c.address),
            order_by=rejected_requests.c.id.desc(),
        )
        .label("rank"),
    )
    .where(rejected_requests.c.source == "", rejected_requests.c.address != "")
    .subquery()
)
_RANKED_IN_GROUPS: Final = select(
    rejected_requests.c.id,
    func.row_number().over(order_by=rejected_requests.c.id.desc()).label("rank"),
    func.row_number()
    .over(partition_by=(rejected_requests.c.status, rejected_requests.c.source), order_by=rejected_requests.c.id.desc())
    .label("rank_in_group"),
).subquery()
_DELETE_OLDEST_OF_ADDRESSES: Final = delete(rejected_requests).where(
    rejected_requests.c.id.in_(select(_RANKED.c.id).where(_RANKED.c.rank > MAX_STORED_PER_ADDRESS))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRequest:
    """Equal requests to the callback listener that were answered with an error. Their bodies are not stored.

    Attributes:
        id: the id of this record. It changes with each further equal request.
        rejected_at: when the last of them was rejected, in microseconds since 1970.
        first_rejected_at: when the first of them was rejected, in microseconds since 1970.
        count: the number of these requests.
        source: the source that sent them; `""` if they were rejected before a valid credential was found.
        path: the path of the last one, without invisible characters. Requests with the status 403 or 429, and with 401
            if no source is known, are equal even if their paths differ.
        address: the address of the client; `""` if unknown.
        status: the HTTP status of the answer.
        reason_en: the reason in the answer, in English.
        reason_zh: the same in Chinese.
        user_agent: the program that sent the last one, as it names itself; `""` if not known.
        event_id: the id of the event that they contradict (409); `""` for other statuses.
    """

    id: str
    rejected_at: int
    first_rejected_at: int
    count: int = 1
    source: str = ""
    path: str
    address: str
    status: int
    reason_en: str
    reason_zh: str
    user_agent: str = ""
    event_id: str = ""

    @property
    def flow_instance_id(self) -> str:
        """The decoded flow instance id of the path; `""` if the path has none, such as a fixed URL."""
        found = _FLOW_INSTANCE_ID.match(self.path)
        return unquote(found[1]) if found else ""

    @property
    def fingerprint(self) -> str:
        """A SHA-256 that is the same for equal requests."""
        is_reused_id = self.status == 401 and self.source  # noqa: PLR2004 (Unauthorized)
        path = "" if self.status in PATH_INDEPENDENT_STATUSES and not is_reused_id else self.path
        if self.event_id and not self.flow_instance_id:  # the path of a fixed URL is the same for each process instance
            path += f" {self.event_id}"
        parts = (self.status, self.source, self.address, path, self.reason_en)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def limited_by_address(self) -> bool:
        """Whether the records of its address are limited, because its source is not known."""
        return not self.source and bool(self.address)

    def after(self, earlier: RejectedRequest) -> RejectedRequest:
        """Return one record for this request and an equal earlier one."""
        return replace(self, count=self.count + earlier.count, first_rejected_at=earlier.first_rejected_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFilter:
    """Which rejected requests are listed. None selects all.

    Attributes:
        status: the HTTP status of the answer.
        source: the source that sent them; `""`: those whose source is not known.
        flow_instance_id: the flow instance id in their path, decoded.
        path: a part of their path, as it was sent.
        since: last rejected at or after this time, in microseconds since 1970.
        until: last rejected before this time.
    """

    status: int | None = None
    source: str | None = None
    flow_instance_id: str | None = None
    path: str | None = None
    since: int | None = None
    until: int | None = None

    def matches_path(self, request: RejectedRequest) -> bool:
        """Whether the path of a request is selected."""
        return (self.path is None or self.path in request.path) and (
            self.flow_instance_id is None or self.flow_instance_id == request.flow_instance_id
        )


def store(transaction: WriteTransaction, requests: Sequence[RejectedRequest], *, limit: int = MAX_STORED) -> None:
    """Store rejected requests with different fingerprints, and delete the oldest ones beyond the limits."""
    # In a fixed order, so that two processes that store equal requests do not deadlock.
    rows = sorted(
        (asdict(request) | {"fingerprint": request.fingerprint} for request in requests),
        key=lambda row: str(row["fingerprint"]),
    )
    transaction.connection.execute(_UPSERT, rows)
    table = rejected_requests.c
    if any(request.limited_by_address for request in requests):
        transaction.connection.execute(_DELETE_OLDEST_OF_ADDRESSES)
    for status, source in sorted({(request.status, request.source) for request in requests}):
        _delete_oldest(transaction, MAX_STORED_PER_GROUP, table.status == status, table.source == source)
    ranked = _RANKED_IN_GROUPS.c
    displaced = select(ranked.id).where(ranked.rank > limit, ranked.rank_in_group > MIN_KEPT_PER_GROUP)
    transaction.connection.execute(delete(rejected_requests).where(table.id.in_(displaced)))


def _delete_oldest(transaction: WriteTransaction, limit: int, *group: ColumnElement[bool]) -> None:
    """Delete the oldest rows of a group beyond a limit."""
    table = rejected_requests.c
    oldest = select(table.id).where(*group).order_by(table.id.desc()).limit(1).offset(limit - 1)
    transaction.connection.execute(delete(rejected_requests).where(*group, table.id < oldest.scalar_subquery()))


def parse_source(name: str | None) -> str | None:
    """Return the source that an operator named, in the form of the filter."""
    return "" if name == NO_SOURCE else name


def latest(
    connection: Connection, *, limit: int, before: str = "", request_filter: RejectedFilter | None = None
) -> list[RejectedRequest]:
    """Return the newest rejected requests that match a filter, newest first.

    Args:
        connection: any connection.
        limit: maximum number of requests.
        before: the id after which to continue; `""`: start with the newest.
        request_filter: the filter; None: all requests.
    """
    criteria = request_filter or RejectedFilter()
    table = rejected_requests.c
    query = select(*_COLUMNS).order_by(table.id.desc())
    if before:
        query = query.where(table.id < before)
    if criteria.status is not None:
        query = query.where(table.status == criteria.status)
    if criteria.source is not None:
        query = query.where(table.source == criteria.source)
    if criteria.since is not None:
        query = query.where(table.rejected_at >= criteria.since)
    if criteria.until is not None:
        query = query.where(table.rejected_at < criteria.until)
    # Paths are compared here, because the same id can be encoded in several ways. The table has few rows.
    return list(islice(filter(criteria.matches_path, _requests(connection, query)), limit))


def read(connection: Connection, request_id: str) -> RejectedRequest:
    """Return one record.

    Raises:
        NotFound: there is no record with this id.
    """
    query = select(*_COLUMNS).where(rejected_requests.c.id == request_id)
    found = next(_requests(connection, query), None)
    if found is None:
        raise NotFound(
            f"there is no rejected request {request_id}: a further equal request gives its record another id, and old "
            "records are deleted"
        )
    return found


def groups(connection: Connection) -> list[tuple[int, str]]:
    """Return the statuses and sources that records have, in order."""
    query = select(rejected_requests.c.status, rejected_requests.c.source).distinct()
    return sorted((row.status, row.source) for row, _ in (repair(row, _GROUP) for row in connection.execute(query)))


_GROUP: Final = (rejected_requests.c.status, rejected_requests.c.source)
_COLUMNS: Final = tuple(column for column in rejected_requests.c if column.name != "fingerprint")
_FIELDS: Final = tuple(field.name for field in fields(RejectedRequest))


def _requests(connection: Connection, query: Select[Any]) -> Iterator[RejectedRequest]:
    for stored in connection.execute(query):
        row, _ = repair(stored, _COLUMNS)
        yield RejectedRequest(**{name: getattr(row, name) for name in _FIELDS})
