"""Print events and the outcomes of their attempts as they happen, for `flowhooks dev`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowhooks.cli import output
from flowhooks.cli.events.text import DISMISSED_REASONS, PARKED_REASONS
from flowhooks.clock import Clock, to_datetime
from flowhooks.errors import LedgerUnusable, SettingsError
from flowhooks.ledger.queries import EventFilter, shown_delivery_statuses
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.search import search_events
from flowhooks.model.delivery import State
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.ledger.search import EventSummary

PAGE_SIZE: Final = 100
MAX_FOLLOWED: Final = 200
"""Maximum number of events whose deliveries are followed; the oldest ones are then left out."""
_SETTLED: Final = frozenset({State.SUCCEEDED, State.DEAD, State.UNKNOWN, State.CLOSED})
_STYLES: Final = {State.SUCCEEDED: "green", State.DEAD: "red", State.UNKNOWN: "yellow"}


class LiveEvents:
    """Prints what has happened in the ledger since the last call."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._last_id = Clock().new_id()  # ids sort by time: earlier events are not printed
        self._followed: dict[str, EventSummary] = {}
        self._printed: dict[str, tuple[State, int]] = {}

    def print_new(self, source: SettingsSource) -> None:
        """Print new events and changed deliveries; nothing while the settings or the ledger cannot be read.

        Args:
            source: the settings with the ledger.
        """
        try:
            if self._reader is None:
                self._reader = Reader(database_url(source.load()))
            with self._reader.connection() as connection:
                page = search_events(connection, EventFilter(), limit=PAGE_SIZE, after=self._last_id)
                for event in reversed(page.events):
                    self._last_id = event.id
                    self._followed[event.id] = event
                    _print_event(event)
                statuses = shown_delivery_statuses(connection, list(self._followed))
        except (LedgerUnusable, SettingsError):  # the server reports both
            self.close()
            return
        for event_id, of_event in statuses.items():
            self._print_changes(self._followed[event_id], of_event)
        self._forget(statuses)

    def close(self) -> None:
        """Close the ledger."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _print_changes(self, event: EventSummary, statuses: tuple[DeliveryStatus, ...]) -> None:
        for status in statuses:
            now = (status.state, status.attempt)
            if status.state is State.RUNNING or self._printed.get(status.delivery_id, (State.WAITING, 0)) == now:
                continue
            self._printed[status.delivery_id] = now
            output.print_line(_status_text(event, status), style=_STYLES.get(status.state))

    def _forget(self, statuses: dict[str, tuple[DeliveryStatus, ...]]) -> None:
        settled = [
            event_id
            for event_id in self._followed
            if all(status.state in _SETTLED for status in statuses.get(event_id, ()))
        ]
        for event_id in [*settled, *list(self._followed)[: max(0, len(self._followed) - MAX_FOLLOWED)]]:
            if self._followed.pop(event_id, None) is not None:
                for status in statuses.get(event_id, ()):
                    self._printed.pop(status.delivery_id, None)


def _print_event(event: EventSummary) -> None:
    name = event.callback_class or event.process_key or "no class and no key"
    about = ", ".join(filter(None, (event.kind, event.conclusion, name, event.business_key)))
    why = PARKED_REASONS.get(event.parked_by or "") or DISMISSED_REASONS.get(event.dismissed_by or "")
    result = f"{event.state}: {why}" if why else ", ".join(event.route) or event.state
    clock = f"{to_datetime(event.received_at).astimezone():%H:%M:%S}"
    output.print_line(f"{clock}  {event.flow_instance_id}  {about} -> {result}", style="cyan")


def _status_text(event: EventSummary, status: DeliveryStatus) -> str:
    text = f"{time.strftime('%H:%M:%S')}  {event.flow_instance_id}  {status.handler}: {status.state}"
    if status.attempt:
        text += f" (attempt {status.attempt})"
    if status.error:
        text += f": {status.error}"
    if status.state is State.WAITING and status.due_at is not None:
        text += f"; next attempt in {output.format_duration(max(0, status.due_at - time.time_ns() // 1000))}"
    return text
