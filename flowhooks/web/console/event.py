"""One event: where it went and why, its body, its deliveries and every attempt; it must not know how they are kept."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

from flowhooks.delivery import DONE, State
from flowhooks.errors import NotFound
from flowhooks.ledger import auditing
from flowhooks.web.console.inert import LONGEST
from flowhooks.web.console.page import Page, chosen_language
from flowhooks.web.console.rendering import HEADERS
from flowhooks.web.console.texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.auditing import Entry
    from flowhooks.ledger.reading import Standing, Stored

MOST_DELIVERIES: Final = 100
MOST_ATTEMPTS: Final = 50
"""Attempts of one delivery that a page shows, the last ones."""
MOST_DEEDS: Final = 50
"""What operators did about one event that a page shows, the latest."""


class EventPage(Page):
    """`GET /console/events/{event_id}`, where the id may be a delivery's too."""

    template = "event.html"
    place = "events"

    def show(self, _request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """All that is known of it."""
        stored = _stored(self, path["event_id"])
        conflicts = self.app.ledger.conflicts(stored.event.id)
        urgent_first = sorted(stored.standings, key=lambda one: one.state in DONE)
        return {
            "stored": stored,
            "event": stored.event,
            "received_at": round(stored.event.received_at.timestamp() * 1_000_000),
            "body": stored.body,
            "pretty": _pretty(stored.body),
            "too_long": len(stored.body) > LONGEST,
            "conflicts": conflicts,
            "deliveries": [self._delivery(stored, one) for one in urgent_first[:MOST_DELIVERIES]],
            "left_out": max(0, len(urgent_first) - MOST_DELIVERIES),
            "explain": _explain(stored),
            "deeds": self._deeds(stored.event.id),
            "most_deeds": MOST_DEEDS,
        }

    def _deeds(self, event_id: str) -> list[dict[str, Any]]:
        with self.app.ledger.connection() as connection:
            entries = auditing.entries(connection, limit=MOST_DEEDS, subject=event_id)
        return [_deed(one) for one in reversed(entries)]

    def _delivery(self, stored: Stored, one: Standing) -> dict[str, Any]:
        attempts = self.app.ledger.attempts(one.delivery_id, last=MOST_ATTEMPTS)
        return {
            "facts": one,
            "why": stored.route.get(one.handler, ""),
            "attempts": attempts,
            "earlier": max(0, one.attempt - len(attempts)),
            "command": _command(stored, one),
        }


class BodyFile(Page):
    """`GET /console/events/{event_id}/body`: the body as it was received, as a file and never as a page."""

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Give it."""
        try:
            stored = _stored(self, path["event_id"])
        except NotFound:
            language = chosen_language(request, response)
            self.problem(request, response, status=404, key="problem.nothing", language=language)
            return
        response.data = stored.body.encode()
        response.set_headers(HEADERS)
        response.content_type = "application/octet-stream"
        response.set_header("Content-Disposition", f'attachment; filename="{stored.event.id}.json"')

    on_head = on_get


def _stored(page: Page, name: str) -> Stored:
    """The event of this id, or of the delivery of this id.

    Raises:
        NotFound: there is none.
    """
    if not name.isascii() or not name.isprintable():
        raise NotFound("no id is like that")
    try:
        return page.app.ledger.event(name)
    except NotFound:
        if (found := page.app.ledger.delivery(name)) is None:
            raise
        return page.app.ledger.event(found[0].id)


def _pretty(body: str) -> str:
    if len(body) > LONGEST:
        return ""
    return json.dumps(json.loads(body), ensure_ascii=False, indent=2)


def _deed(entry: Entry) -> dict[str, Any]:
    """What an operator did, by the keys of its texts; what this version has no words for, as it was written down."""
    detail = entry.detail
    key = f"deed.{detail.get('verdict') if entry.action == 'resolve' else entry.action}"
    return {
        "facts": entry,
        "key": key if key in TEXTS else None,
        "count": str(detail.get("deliveries", "")),
        "about": str(detail.get("handler", "")) if key in TEXTS else json.dumps(detail, ensure_ascii=False),
        "note": str(detail.get("note", "")),
    }


def _explain(stored: Stored) -> str:
    """The command that says who would want such an event; `""` where it names nothing to look up."""
    event = stored.event
    words = ["flowhooks", "routes"]
    for option, value in (("--class", event.callback_class), ("--key", event.process_definition_key)):
        if value:
            words += [option, value]
    return shlex.join(words) if len(words) > 2 else ""  # noqa: PLR2004 (more than the command itself)


def _command(stored: Stored, one: Standing) -> str:
    """What an operator may do about a delivery, on the command line."""
    if one.state is State.DEAD:
        return shlex.join(["flowhooks", "events", "replay", stored.event.id, "--handler", one.handler])
    if one.state is State.UNKNOWN:
        return f"{shlex.join(['flowhooks', 'events', 'resolve', one.delivery_id])} --did | --did-not | --close"
    return ""
