"""The durations of handlers, as a flowhooks plugin.

With `[plugins.timings] file = "timings.jsonl"` each is a line of that file, otherwise a record of the log.
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
    """Measures every attempt, and writes it down once when it has been settled.

    Args:
        most: how many measured attempts may wait to be settled before the oldest is forgotten,
            so that what is never settled cannot fill the memory; default 10,000.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._file: Path | None = None
        self._lock = Lock()  # attempts are measured in many threads, and written in another
        self._seconds: OrderedDict[tuple[str, int], float] = OrderedDict()

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take `[plugins.timings]`; a misspelt setting is refused rather than passed over."""
        if unknown := settings.keys() - {"file"}:
            raise ValueError(f"[plugins.timings] has no setting {', '.join(sorted(unknown))}; the only setting is file")
        file = settings.get("file")
        if file is not None and (not isinstance(file, str) or not file):
            raise ValueError(f"[plugins.timings] file must be the path of a file, not {file!r}")
        self._file = Path(file) if file else None

    @hookimpl(wrapper=True)
    def run_handler(self, delivery: Delivery) -> Generator[None, Outcome, Outcome]:
        """Measure the attempt, whichever way it ends; what the handler raises goes on as it came."""
        began = perf_counter()
        try:
            return (yield)
        finally:
            seconds = perf_counter() - began
            with self._lock:
                self._seconds[delivery.id, delivery.attempt] = seconds
                if len(self._seconds) > self._most:
                    self._seconds.popitem(last=False)

    @hookimpl
    def event_accepted(self, event: Event, handlers: Sequence[str]) -> None:
        """Write that an event was stored, and where it goes."""
        self._write(what="accepted", event=event.id, source=event.source, kind=event.kind, handlers=list(handlers))

    @hookimpl
    def delivery_settled(self, event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
        """Write how long an attempt took and how it ended; an attempt that was lost was not measured: null."""
        with self._lock:
            seconds = self._seconds.pop((delivery.id, delivery.attempt), None)
        self._write(
            what="settled",
            event=event.id,
            handler=delivery.handler,
            delivery=delivery.id,
            attempt=delivery.attempt,
            seconds=None if seconds is None else round(seconds, 6),
            outcome=outcome.kind,
            state=state,
        )

    def _write(self, *, what: str, event: str, **members: Any) -> None:
        if self._file is None:
            # Values, not a text: the log is JSON itself. There the name of what happened is `event`.
            log.info(what, extra={"event_id": event} | members)
            return
        # JSON in plain ASCII escapes line ends and control characters: no value can forge a line.
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "what": what, "event": event} | members)
        # Opened for each line, so that the file may be moved away while the server runs.
        with self._lock, self._file.open("a", encoding="ascii") as out:
            out.write(line + "\n")


plugin: Final = Timings()
"""The object that the entry point names."""
