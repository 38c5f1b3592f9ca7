"""A call-back sent through a WSGI app, without a socket; it must not know what the test wants of it."""

from __future__ import annotations

from concurrent import futures
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from falcon.testing import Result, simulate_post

from flowhooks.errors import FlowhooksError
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.delivery import State
from flowhooks.testing.views import PostResult
from flowhooks.testing.waiting import LOOK_EVERY, MOST_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.app import App
    from flowhooks.ledger.queries import DeliveryStatus


def post(app: App, web: Any, *, path: tuple[str, str], text: str, headers: Mapping[str, str]) -> PostResult:
    """Send a call-back, and wait for its answer, but for nothing that needs the clock to be moved.

    Args:
        app: the app behind `web`.
        web: the WSGI app.
        path: the flow instance id and the kind.
        text: the body.
        headers: all of them.
    """
    flow_instance_id, kind = path
    address = f"/flow/{quote(flow_instance_id, safe='')}/call-back/{quote(kind, safe='')}"
    # In a thread of its own: this one looks meanwhile whether the answer waits for a clock that stands still.
    with futures.ThreadPoolExecutor(1, "post") as pool:
        future = pool.submit(simulate_post, web, address, body=text, headers=dict(headers), host="localhost")
        while not futures.wait([future], LOOK_EVERY).done:
            _release_waiters(app, flow_instance_id)
    return _answer(future.result())


def _release_waiters(app: App, flow_instance_id: str) -> None:
    """Have the answers go out that wait for a delivery whose time cannot come while the clock stands still."""
    now = app.clock.now()
    wanted = EventFilter(flow_instance_id=flow_instance_id, state=State.WAITING.value)
    try:
        found = app.ledger.page(wanted, limit=MOST_EVENTS)
    except FlowhooksError:
        return  # the ledger cannot be read just now: the answer says so
    for stored in found:
        for one in stored.delivery_statuses:
            if one.state is not State.WAITING or one.due_at is None:
                continue
            if one.due_at > now or (one.behind is not None and _waits_for_clock(app, one, now)):
                app.waiters.notify(stored.event.id, replace(one, due_at=None))


def _waits_for_clock(app: App, held: DeliveryStatus, now: int) -> bool:
    """Whether what holds a delivery back cannot go on while the clock stands still."""
    first = next((one for one in app.ledger.delivery_statuses(held.behind or "") if one.handler == held.handler), None)
    if first is None or first.state not in {State.WAITING, State.UNKNOWN}:
        return False  # it runs, or it has ended since
    return first.due_at is None or first.due_at > now


def _answer(result: Result) -> PostResult:
    try:
        body = result.json
    except ValueError:
        body = None
    said = body if isinstance(body, dict) else {}
    return PostResult(
        status=result.status_code,
        json=body,
        event_id=result.headers.get("Flowhooks-Event") or "",
        message=str(said.get("message") or ""),
        headers=result.headers,
    )
