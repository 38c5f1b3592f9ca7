"""The page of the audit log, the newest entry first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from flowhooks.ledger.audit import entries
from flowhooks.operations.seen_page import SeenPage, seen_page
from flowhooks.web.admin.console.audit_details import detail_rows
from flowhooks.web.admin.console.entered_times import input_values, parse_times
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.console.urls import OPERATIONS_ROOT
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon
    from sqlalchemy import Connection

    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.operations.access import Access

PAGE_SIZE: Final = 100
MAX_ENTRIES_OF_TARGET: Final = 20
"""Maximum number of audit entries on the page of an event."""
PATH: Final = f"{CONSOLE_ROOT}/audit"
FILTERS: Final = ("target", "actor", "action", "since")
"""Query parameters that select entries."""
_EVENT_ACTIONS: Final = frozenset({"accept_correction", "resolve", "reroute_parked", "dismiss", "reroute"})
_HANDLER_ACTIONS: Final = frozenset({"pause", "resume", "retire"})
_SOURCE_ACTIONS: Final = frozenset({"reconcile", "confirm_reconciliation", "decline_reconciliation", "close_gaps"})
_SERVER_ACTIONS: Final = frozenset(
    {"start", "reload", "restart", "compact", "install", "uninstall", "login", "logout", "login_refused"}
)
NAMED_ACTIONS: Final = (
    _EVENT_ACTIONS
    | _HANDLER_ACTIONS
    | _SOURCE_ACTIONS
    | _SERVER_ACTIONS
    | {"acknowledge", "export", "index_fields", "operation", "purge", "record_backup", "test_alerts"}
)
"""Operations for which the console has a text. Others are shown by their names."""


class AuditPage(Page):
    """`GET /console/audit`."""

    template = "audit.html"
    place = "audit"
    for_limited_roles = for_masked_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of the audit log."""
        before = query_text(request, "before")
        query = {name: value for name in FILTERS if (value := query_text(request, name))}
        times = {"since": query["since"]} if "since" in query else {}
        entered = parse_times(times, query_text(request, "zone"), ends=())
        query |= entered.given
        pinned = query | entered.absolute
        problem = entered.problems.get("since", "")
        only = {name: query.get(name) for name in FILTERS if name != "since"}
        page: SeenPage[AuditEntry] = SeenPage((), "")
        access = operator_of(request).access
        if not problem:
            with self.app.ledger.connection() as connection:

                def read(before: str, count: int) -> list[AuditEntry]:
                    return entries(connection, limit=count, before=before, since=entered.times.get("since"), **only)

                page = seen_page(read, access.sees_entry, limit=PAGE_SIZE, before=before)
        return {
            "path": PATH,
            "given": query,
            "problem": problem,
            "since": input_values(entered, "since"),
            "twice": entered.twice,
            "actions": sorted(NAMED_ACTIONS),
            "rows": [to_row(entry, access) for entry in page.items],
            "newest": f"{PATH}?{urlencode(pinned)}" if before else "",
            "older": f"{PATH}?{urlencode({**pinned, 'before': page.next})}" if page.next else "",
        }


def entries_about(connection: Connection, target: str, access: Access) -> list[dict[str, Any]]:
    """Return the last entries about one event or handler that the operator sees, as `_acts.html` shows them."""
    return [
        to_row(entry, access)
        for entry in entries(connection, limit=MAX_ENTRIES_OF_TARGET, target=target)
        if access.sees_entry(entry)
    ]


def to_row(entry: AuditEntry, access: Access) -> dict[str, Any]:
    """Return an entry as a page shows it to an operator."""
    entry = access.entry(entry)
    note = entry.detail.get("note")
    return {
        "facts": entry,
        "named": entry.action in NAMED_ACTIONS,
        "note": note if isinstance(note, str) else "",
        "detail": detail_rows(entry.detail),
        "address": _address(entry, access),
    }


def _address(entry: AuditEntry, access: Access) -> str:
    if not entry.target:
        return ""
    if entry.action in _EVENT_ACTIONS:
        return f"{CONSOLE_ROOT}/events/{quote(entry.target, safe='')}"
    if entry.action in _HANDLER_ACTIONS:
        return f"{CONSOLE_ROOT}/handlers?{urlencode({'q': entry.target})}"
    if entry.action in _SOURCE_ACTIONS:
        return f"{CONSOLE_ROOT}/sources/{quote(entry.target, safe='')}" if access.is_full else ""
    if entry.action == "operation":
        return f"{OPERATIONS_ROOT}/{quote(entry.target, safe='')}"
    return f"{CONSOLE_ROOT}/alerts" if entry.action in {"acknowledge", "test_alerts"} else ""
