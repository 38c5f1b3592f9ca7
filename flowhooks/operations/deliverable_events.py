"""Count dismissed events that handlers would accept now, and give the command that delivers them.

Installing a plugin delivers no dismissed event. The operator decides, because such an event may be years old.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from flowhooks.clock import to_datetime
from flowhooks.errors import DamagedRow, FlowhooksError
from flowhooks.ledger import database
from flowhooks.ledger.queries import to_event
from flowhooks.ledger.tables import DISMISSED_BY_ROUTING, events
from flowhooks.logger import get_logger
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

    from sqlalchemy import Connection

    from flowhooks.ledger.reader import Reader
    from flowhooks.model.event import Event
    from flowhooks.routing.router import Router

MAX_EVENTS: Final = 10_000
"""Maximum number of dismissed events examined, newest first."""
MAX_BODIES: Final = 1_000
"""Maximum number of bodies read, newest events first, if a condition needs the data."""
_BODY_BATCH_SIZE: Final = 20
"""Maximum number of bodies that one statement reads. A body may have 1 MiB."""

log = get_logger(__name__)


class DismissedEvents(NamedTuple):
    """Dismissed events that one handler would accept now.

    Attributes:
        events: number of such events among the examined ones.
        since: time when the oldest of them was received, in microseconds since 1970.
    """

    events: int
    since: int


_COLUMNS: Final = tuple(column for column in events.c if column.name not in {"body", "raw_body", "no_match"})
_NEWEST: Final = select(*_COLUMNS).where(DISMISSED_BY_ROUTING).order_by(events.c.id.desc()).limit(MAX_EVENTS)
_WITH_BODIES: Final = select(*_COLUMNS, events.c.body).where(events.c.id.in_(database.string_array("ids")))


def dismissed_by_handler(connection: Connection, router: Router) -> dict[str, DismissedEvents]:
    """Count the dismissed events that each handler would accept now, by handler id.

    Events dismissed by operators are left out, and so are damaged ones.

    Args:
        connection: any connection.
        router: the current look-up.

    Raises:
        NewerSelectorsError: handlers are registered whose selectors this version cannot read.
    """
    by_handler: dict[str, DismissedEvents] = {}
    for candidate in _candidates(connection, router):
        for handler, why in router.route(candidate.event).handlers.items():
            # An `every` handler got its delivery when the event was received, or was not installed then.
            if handler not in candidate.stored_route and not why.startswith("every"):
                before = by_handler.get(handler, DismissedEvents(0, candidate.received_at))
                by_handler[handler] = DismissedEvents(before.events + 1, min(before.since, candidate.received_at))
    return by_handler


def log_dismissed(reader: Reader, router: Router, handlers: Collection[str]) -> None:
    """Log how many dismissed events each of these handlers would take, with the command that delivers them."""
    try:
        with reader.connection() as connection:
            dismissed = dismissed_by_handler(connection, router)
    except FlowhooksError as error:
        log.error("dismissed_count_failed", why=str(error))  # noqa: TRY400 (the message is enough)
        return
    for handler in handlers:
        if deliverable := dismissed.get(handler):
            command = reroute_command(handler, deliverable)
            log.warning(
                "dismissed_events_matched",
                handler=handler,
                events=deliverable.events,
                next=f"`{command}` delivers them",
            )


def reroute_command(handler: str, dismissed: DismissedEvents) -> str:
    """Return the command that delivers these events to the handler, quoted for a shell."""
    since = to_datetime(dismissed.since).strftime("%Y-%m-%d")
    return command_line("events", "reroute", f"--handler={handler}", "--state=dismissed", f"--since={since}")


class _Candidate(NamedTuple):
    event: Event
    received_at: int
    stored_route: Collection[str]


def _candidates(connection: Connection, router: Router) -> Iterator[_Candidate]:
    """Yield the newest dismissed events, with their data if a condition needs it. One body is parsed at a time."""
    ids: list[str] = []
    for row in connection.execute(_NEWEST).all():
        candidate = _to_candidate(row, {})
        if candidate is None:
            continue
        if len(ids) < MAX_BODIES and router.reads_data(candidate.event):
            ids.append(row.id)
        else:
            yield candidate
    for start in range(0, len(ids), _BODY_BATCH_SIZE):
        batch = json.dumps(ids[start : start + _BODY_BATCH_SIZE])
        for row in connection.execute(_WITH_BODIES, {"ids": batch}):
            candidate = _to_candidate(row)
            if candidate is not None:
                yield candidate


def _to_candidate(row: Any, data: Mapping[str, Any] | None = None) -> _Candidate | None:
    """Return the event of a row, as `to_event` does; None if the row is damaged, which `flowhooks verify` reports."""
    try:
        return _Candidate(to_event(row, data), row.received_at, frozenset(json.loads(row.route)))
    except (DamagedRow, RecursionError, TypeError, ValueError):
        return None
