"""Error groups for operators: a list with recent activity, one group with its traceback, and filters by a group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.errors import NotFound
from flowhooks.ledger import error_group_queries
from flowhooks.ledger.queries import ERROR_GROUP_CHARS
from flowhooks.model.search_fields import check_fields
from flowhooks.model.traceback_text import parse_chain

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.ledger.error_group_queries import ErrorGroup, GroupActivity
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.reader import Reader
    from flowhooks.model.delivery import Attempt
    from flowhooks.model.traceback_text import ChainedException

SHORT_ID_CHARS: Final = 12
"""Number of characters of a group's id in lists. Commands and URLs accept the beginning of an id."""


MAX_LISTED_VERSIONS: Final = 3
"""Maximum number of versions of a group that lists name."""


class ErrorGroupStatus(NamedTuple):
    """A group with its recent activity.

    Attributes:
        group: the group.
        activity: its recent attempts and its open deliveries.
    """

    group: ErrorGroup
    activity: GroupActivity


class ErrorGroupPage(NamedTuple):
    """A page of groups.

    Attributes:
        groups: the groups, the one seen last first.
        has_more: whether more groups follow.
    """

    groups: tuple[ErrorGroupStatus, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAttempt:
    """The newest stored attempt of a group.

    Attributes:
        event_id: the id of its event.
        delivery_id: the id of its delivery.
        attempt: the attempt.
        chain: the exceptions of its traceback, the first one raised first; empty if it has no traceback.
    """

    event_id: str
    delivery_id: str
    attempt: Attempt
    chain: tuple[ChainedException, ...]


def brief_versions(versions: Sequence[str]) -> str:
    """Return the versions of a group for a list; of many only the first and the last one, with their number."""
    if len(versions) <= MAX_LISTED_VERSIONS:
        return ", ".join(versions)
    return f"{versions[0]} … {versions[-1]} ({len(versions)})"


def list_error_groups(
    reader: Reader,
    *,
    now: int,
    handler: str | None = None,
    plugins: Collection[str] | None = None,
    since: int | None = None,
    limit: int,
    skip: int = 0,
) -> ErrorGroupPage:
    """Return a page of error groups, the one seen last first.

    Args:
        reader: the ledger.
        now: microseconds since 1970.
        handler: only groups of this handler; default: all.
        plugins: only groups of handlers of these plugins; default: all.
        since: only groups that were seen at or after this time, in microseconds since 1970; default: all.
        limit: maximum number of groups.
        skip: number of groups to skip.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        groups = error_group_queries.list_groups(
            connection, handler=handler, plugins=plugins, since=since, limit=limit + 1, skip=skip
        )
        activities = error_group_queries.activities(connection, groups[:limit], now=now)
    return ErrorGroupPage(
        tuple(ErrorGroupStatus(group, activities[group.fingerprint]) for group in groups[:limit]), len(groups) > limit
    )


def find_error_group(
    reader: Reader, name: str, *, now: int, plugins: Collection[str] | None = None
) -> ErrorGroupStatus:
    """Return the group with this id, or with an id that starts with these at least eight characters.

    Args:
        reader: the ledger.
        name: the id, or its beginning.
        now: microseconds since 1970.
        plugins: only groups of handlers of these plugins; default: all.

    Raises:
        NotFound: there is no such group, or more than one.
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        groups = (
            error_group_queries.groups_with_prefix(connection, name, limit=2)
            if ERROR_GROUP_CHARS.fullmatch(name)
            else []
        )
        if plugins is not None:
            groups = [group for group in groups if group.handler.partition(":")[0] in plugins]
        if not groups:
            raise NotFound("there is no error group with this id")
        if len(groups) > 1:
            raise NotFound(f"more than one error group has an id that starts with {name}: give more characters")
        activity = error_group_queries.activities(connection, groups, now=now)
    return ErrorGroupStatus(groups[0], activity[groups[0].fingerprint])


def complete_filter(
    reader: Reader,
    event_filter: EventFilter,
    indexed_fields: Collection[str],
    *,
    plugins: Collection[str] | None = None,
) -> EventFilter:
    """Return a filter with the whole id of its error group, if it has the beginning of one.

    Args:
        reader: the ledger.
        event_filter: the filter.
        indexed_fields: the setting `search.fields`.
        plugins: only groups of handlers of these plugins; default: all.

    Raises:
        SettingsError: the filter has a condition on a field that is not indexed.
        NotFound: there is no such group, or more than one.
        LedgerUnusable: the ledger cannot be read.
    """
    check_fields(event_filter.fields, indexed_fields)
    if event_filter.error_group is None:
        return event_filter
    found = find_error_group(reader, event_filter.error_group, now=0, plugins=plugins)
    return replace(event_filter, error_group=found.group.fingerprint)


def newest_sample(reader: Reader, group: ErrorGroup) -> SampleAttempt | None:
    """Return the newest attempt of a group with its traceback; None if none is stored any more.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        newest = error_group_queries.newest_attempt(connection, group)
    if newest is None or (delivery := reader.shown_delivery(newest[0])) is None:
        return None
    attempt = next((found for found in reader.attempts(newest[0]) if found.number == newest[1]), None)
    if attempt is None:
        return None
    return SampleAttempt(
        event_id=delivery[0], delivery_id=newest[0], attempt=attempt, chain=parse_chain(attempt.traceback)
    )
