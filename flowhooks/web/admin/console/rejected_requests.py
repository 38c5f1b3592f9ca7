"""The page of the last rejected requests, with the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.rejected_requests import NO_SOURCE, RejectedFilter, groups, latest, parse_source
from flowhooks.web.admin.console.filters import filter_from_request, query_text, time_values
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

PAGE_SIZE: Final = 100
PATH: Final = f"{CONSOLE_ROOT}/rejected-requests"
RECENT_PERIODS: Final = ("15m", "1h", "24h", "7d")
"""Periods offered as search links."""
_OWN: Final = ("status", "source", "path")
_SHARED: Final = ("flow", "since", "until")
"""Parameters with the meaning that they have in the filter of events."""
_STATUS_DIGITS: Final = 3


class RejectedRequestsPage(Page):
    """`GET /console/rejected-requests`."""

    template = "rejected_requests.html"
    place = "rejected_requests"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of the rejected requests that match the filter, the newest first."""
        parsed = filter_from_request(request)
        given = {name: value for name in _OWN if (value := query_text(request, name))}
        given |= {name: parsed.given[name] for name in _SHARED if name in parsed.given}
        # The next page starts at the same moment, and not a minute later.
        pinned = given | {name: parsed.pinned[name] for name in _SHARED if name in parsed.pinned}
        before = query_text(request, "before")
        status = given.get("status", "")
        with self.app.ledger.connection() as connection:
            existing = groups(connection)
            entries = (
                []
                if parsed.event_filter is None
                else latest(
                    connection,
                    limit=PAGE_SIZE + 1,
                    before=before,
                    request_filter=RejectedFilter(
                        status=_parse_status(status) if status else None,
                        source=parse_source(given.get("source")),
                        flow_instance_id=given.get("flow"),
                        path=given.get("path"),
                        since=parsed.event_filter.since,
                        until=parsed.event_filter.until,
                    ),
                )
            )
        more = len(entries) > PAGE_SIZE
        del entries[PAGE_SIZE:]
        return {
            "look": parsed,
            "given": given,
            "times": {name: time_values(parsed, name) for name in ("since", "until")},
            "lately": {span: to_address({**given, "since": span, "until": ""}) for span in RECENT_PERIODS},
            "statuses": sorted({str(status) for status, _ in existing} | ({status} if status else set())),
            "sources": sorted({source for _, source in existing if source} | _named(given)),
            "no_source": NO_SOURCE,
            "path": PATH,
            "requests": entries,
            "newest": to_address(pinned) if before else "",
            "older": to_address({**pinned, "before": entries[-1].id}) if more else "",
        }


def to_address(query: Mapping[str, str]) -> str:
    """Return the address of the page with a query; empty values are left out."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{PATH}?{text}" if text else PATH


def _parse_status(text: str) -> int:
    """Return an HTTP status; for any other text -1, which no request has."""
    return int(text) if len(text) == _STATUS_DIGITS and text.isascii() and text.isdecimal() else -1


def _named(given: Mapping[str, str]) -> set[str]:
    return {given["source"]} - {NO_SOURCE} if "source" in given else set()
