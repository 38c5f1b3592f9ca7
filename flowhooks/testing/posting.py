"""Send a callback, or a request to a fixed URL, through a WSGI app, without a socket."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from falcon.testing import Result, simulate_post, simulate_request

from flowhooks.errors import FlowhooksError
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.delivery import State
from flowhooks.testing.views import PostResult
from flowhooks.testing.waiting import MAX_EVENTS, POLL_INTERVAL, next_starts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.app import App
    from flowhooks.ledger.queries import DeliveryStatus


def post(app: App, web: Any, *, path: tuple[str, str], text: str, headers: Mapping[str, str]) -> PostResult:
    """Send a callback and return its response, without waiting for anything that needs the clock to move.

    Args:
        app: the app behind `web`.
        web: the WSGI app.
        path: the flow instance id and the kind.
        text: the body.
        headers: all headers.
    """
    flow_instance_id, kind = path
    address = f"/flow/{quote(flow_instance_id, safe='')}/call-back/{quote(kind, safe='')}"
    # The request runs in another thread. This thread checks meanwhile whether the response waits for the clock to move.
    with futures.ThreadPoolExecutor(1, "post") as pool:
        future = pool.submit(simulate_post, web, address, body=text, headers=dict(headers), host="localhost")
        while not futures.wait([future], POLL_INTERVAL).done:
            _release_waiters(app, flow_instance_id)
    return _answer(future.result())


def receive(
    web: Any, *, source: str, method: str, query: Mapping[str, str], body: bytes, headers: Mapping[str, str]
) -> PostResult:
    """Send a request to the fixed URL of a source, and return its response."""
    result = simulate_request(
        web,
        method,
        f"/in/{quote(source, safe='')}",
        query_string=urlencode(query),
        body=body,
        headers=dict(headers),
        host="localhost",
    )
    return _answer(result)


def _release_waiters(app: App, flow_instance_id: str) -> None:
    """Release responses that wait for a delivery which cannot become due while the clock stands still."""
    now, rates = app.clock.now(), next_starts(app)
    event_filter = EventFilter(flow_instance_id=flow_instance_id, state=State.WAITING.value)
    try:
        events = app.ledger.page(event_filter, limit=MAX_EVENTS)
    except FlowhooksError:
        return  # the ledger cannot be read just now: the response reports that
    for stored in events:
        for status in stored.delivery_statuses:
            if status.state is not State.WAITING or status.due_at is None:
                continue
            due_at = max(status.due_at, rates.get(status.handler, 0))
            if due_at > now or (status.blocked_by is not None and _waits_for_clock(app, status, now)):
                app.waiters.notify(stored.event.id, status._replace(due_at=None))


def _waits_for_clock(app: App, blocked: DeliveryStatus, now: int) -> bool:
    first = next(
        (
            status
            for status in app.ledger.delivery_statuses(blocked.blocked_by or "")
            if status.handler == blocked.handler
        ),
        None,
    )
    if first is None or first.state not in {State.WAITING, State.UNKNOWN}:
        return False  # it is running, or has ended since
    return first.due_at is None or first.due_at > now


def _answer(result: Result) -> PostResult:
    try:
        body = result.json
    except ValueError:
        body = None
    document = body if isinstance(body, dict) else {}
    return PostResult(
        status=result.status_code,
        json=body,
        event_id=result.headers.get("Flowhooks-Event") or "",
        message=str(document.get("message") or ""),
        headers=result.headers,
        body=result.content,
    )
