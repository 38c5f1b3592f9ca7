"""Measure the run time of handlers: a flowhooks plugin.

With `[plugins.timings] file = "timings.jsonl"` each measurement is a line of that file, otherwise a log record.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from flowhooks import Delivery, Event, Outcome, State, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

log: Final = logging.getLogger(__name__)


class Timings:
    """Measures every attempt, and writes the measurement once the attempt is settled.

    Args:
        max_unsettled: maximum number of measured attempts that are not settled; default: 10,000. Above it, the oldest
            measurement is dropped, so attempts that are never settled cannot fill the memory.
    """

    def __init__(self, max_unsettled: int = 10_000) -> None:
        self._max_unsettled = max_unsettled
        self._file: Path | None = None
        self._lock = Lock()  # many threads measure attempts, and another thread writes the lines
        self._seconds: OrderedDict[tuple[str, int], float] = OrderedDict()

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply `[plugins.timings]`.

        Raises:
            ValueError: a setting is misspelt or of a wrong type.
        """
        if unknown := settings.keys() - {"file"}:
            raise ValueError(f"[plugins.timings] has no setting {', '.join(sorted(unknown))}; the only setting is file")
        file = settings.get("file")
        if file is not None and (not isinstance(file, str) or not file):
            raise ValueError(f"[plugins.timings] file must be the path of a file, not {file!r}")
        self._file = Path(file).absolute() if file else None  # another plugin may change the working folder later

    @hookimpl(wrapper=True)
    def run_handler(self, delivery: Delivery) -> Generator[None, Outcome, Outcome]:
        """Measure the attempt, and pass on its result or exception unchanged."""
        started_at = perf_counter()
        try:
            return (yield)
        finally:
            seconds = perf_counter() - started_at
            with self._lock:
                self._seconds[delivery.id, delivery.attempt] = seconds
                if len(self._seconds) > self._max_unsettled:
                    self._seconds.popitem(last=False)

    @hookimpl
    def event_accepted(self, event: Event, handlers: Sequence[str]) -> None:
        """Write a line about a stored event and its handlers."""
        self._write("accepted", event=event.id, source=event.source, kind=event.kind, handlers=list(handlers))

    @hookimpl
    def delivery_settled(self, event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
        """Write the run time and the outcome of an attempt. A lost attempt was not measured: its time is null."""
        with self._lock:
            seconds = self._seconds.pop((delivery.id, delivery.attempt), None)
        self._write(
            "settled",
            event=event.id,
            handler=delivery.handler,
            delivery=delivery.id,
            attempt=delivery.attempt,
            seconds=None if seconds is None else round(seconds, 6),
            outcome=outcome.kind,
            state=state,
        )

    def _write(self, record_type: str, *, event: str, **members: Any) -> None:
        if self._file is None:
            # Values instead of a text, because the log is JSON. The message of a log record is its member `event`.
            log.info(record_type, extra={"event_id": event} | members)
            return
        # JSON in plain ASCII escapes line ends and control characters, so no value can forge a line.
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "what": record_type, "event": event} | members)
        # Opened for each line, so an operator can move the file away while the server runs.
        with self._lock, self._file.open("a", encoding="ascii") as out:
            out.write(line + "\n")


plugin: Final = Timings()
"""The plugin object that the entry point names."""
