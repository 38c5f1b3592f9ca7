"""The page of the engines: whether the history of each is read, and what was found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import DAY
from flowhooks.ledger import engine_queries
from flowhooks.operations.access import FULL
from flowhooks.operations.engines import engine_positions, state_of
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon
    from sqlalchemy import Connection

    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.operations.access import Access
    from flowhooks.settings import Settings


DISPOSITIONS: Final = ("has_event", "skipped", "in_grace")
RULES: Final = (
    *("child", "end_state", "tenant", "before_first_contact", "purged", "invalid_id", "too_large", "invalid"),
    "declined",
)
GAP_REASONS: Final = ("deleted", "refused", "unreachable", "invalid")
"""The words of the book and of gaps for which the console has texts. Other words are shown as they are stored."""


class EnginesPage(Page):
    """`GET /console/engines`."""

    template = "engines.html"
    place = "engines"
    for_masked_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the engines by source, those that need attention first."""
        app, now, access = self.app, self.app.clock.now(), operator_of(request).access
        with app.ledger.connection() as connection:
            engines = [
                engine_values(connection, app.settings, name, position, now, access=access)
                for name, position in engine_positions(connection, app.settings).items()
            ]
        engines.sort(key=lambda engine: not engine["needs_attention"])
        return {"engines": engines, "most": engine_queries.MAX_BOOK_ROWS}


def engine_values(
    connection: Connection,
    settings: Settings,
    name: str,
    position: EnginePosition | None,
    now: int,
    *,
    access: Access = FULL,
) -> dict[str, Any]:
    """Return the values that templates show of one engine.

    Args:
        connection: any connection.
        settings: the settings.
        name: the name of the source.
        position: how far its history was read; None: it was never asked.
        now: current time in microseconds since 1970.
        access: what the operator may see.
    """
    source = settings.sources.get(name)
    recent = engine_queries.taken_in(connection, name, now - DAY)
    gaps = access.history_gaps(engine_queries.gaps(connection, name))
    open_gaps = [gap for gap in gaps if gap.closed_at is None]
    state = state_of(position)
    return {
        "name": name,
        "configured": source is not None and source.engine is not None,
        "state": state,
        "position": access.engine_position(position) if position else None,
        "missed": recent.missed if source is None or source.has_credential else 0,
        "taken_in": recent.events,
        "gaps": gaps,
        "open_gaps": open_gaps,
        "book": sorted(engine_queries.book_counts(connection, name).items()),
        "unconfirmed": position.unconfirmed if position else 0,
        "waiting": position.waiting if position else 0,
        "words": {"disposition": DISPOSITIONS, "rule": RULES, "gap": GAP_REASONS},
        "needs_attention": state in {"failing", "to_confirm"} or bool(open_gaps),
    }
