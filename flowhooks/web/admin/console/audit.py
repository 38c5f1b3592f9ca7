"""What operators have done, the newest first; it must not know what any of it means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from flowhooks.clock import to_text
from flowhooks.ledger.audit import entries
from flowhooks.web.admin.console.filters import text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon
    from sqlalchemy import Connection

    from flowhooks.ledger.audit import AuditEntry

AT_ONCE: Final = 100
MOST_OF_ONE: Final = 20
"""Entries that the page of an event shows of it."""
PATH: Final = f"{ROOT}/audit"
_OF_EVENTS: Final = frozenset({"replay", "resolve", "drain", "dismiss", "reroute"})
_OF_HANDLERS: Final = frozenset({"pause", "resume", "retire"})
NAMED: Final = _OF_EVENTS | _OF_HANDLERS | {"acknowledge", "purge"}
"""The operations for which the console has a word; others are shown by their names."""


class AuditPage(Page):
    """`GET /console/audit`."""

    template = "audit.html"
    place = "audit"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """One page of it."""
        subject, before = text(request, "subject"), text(request, "before")
        with self.app.ledger.connection() as connection:
            found = entries(connection, limit=AT_ONCE + 1, before=before, subject=subject or None)
        more = len(found) > AT_ONCE
        del found[AT_ONCE:]
        sought = {"subject": subject} if subject else {}
        return {
            "path": PATH,
            "subject": subject,
            "rows": [row(one) for one in found],
            "newest": f"{PATH}?{urlencode(sought)}" if before else "",
            "older": f"{PATH}?{urlencode({**sought, 'before': found[-1].id})}" if more else "",
        }


def of(connection: Connection, subject: str) -> list[dict[str, Any]]:
    """The last entries about one event or handler, as `_acts.html` shows them."""
    return [row(one) for one in entries(connection, limit=MOST_OF_ONE, subject=subject)]


def row(entry: AuditEntry) -> dict[str, Any]:
    """An entry as a page shows it."""
    note = entry.detail.get("note")
    rest = {name: value for name, value in entry.detail.items() if name != "note"}
    if isinstance(rest.get("wanted"), dict):
        rest["wanted"] = {name: _readable(name, value) for name, value in rest["wanted"].items()}
    return {
        "facts": entry,
        "named": entry.action in NAMED,
        "note": note if isinstance(note, str) else "",
        "detail": json.dumps(rest, ensure_ascii=False) if rest else "",
        "address": _address(entry),
    }


def _readable(name: str, value: Any) -> Any:
    """A time of a filter as people read one."""
    return to_text(value) if name in {"since", "until"} and type(value) is int else value


def _address(entry: AuditEntry) -> str:
    """Where what it is about is shown."""
    if not entry.subject:
        return ""
    if entry.action in _OF_EVENTS:
        return f"{ROOT}/events/{quote(entry.subject, safe='')}"
    if entry.action in _OF_HANDLERS:
        return f"{ROOT}/handlers?{urlencode({'q': entry.subject})}"
    return f"{ROOT}/alerts" if entry.action == "acknowledge" else ""
