"""Write the events of a search as CSV or as JSON lines.

Theory of operation
-------------------
The events are read in pages, newest first, each in bounded time and in a snapshot of its own, so an export of any size
needs the memory of one page and keeps no transaction open. An event that changes meanwhile is written as it is when its
page is read. Each part that `EventExport` yields has complete lines.

A spreadsheet takes a cell that starts with one of a few characters for a formula, which can send the other cells to
somebody. Such a cell gets a leading apostrophe, and every cell is quoted, so that no cell can start another one: see
"CSV Injection" of OWASP, requirement 1.2.10 of its ASVS 5.0, and CWE-1236. The form of the file is that of RFC 4180,
after a byte order mark, without which Excel reads Chinese text in the code page of the machine.
"""

from __future__ import annotations

import csv
import io
import json
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from flowhooks import schema
from flowhooks.errors import FlowhooksError
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.model.masking import EventMasker
from flowhooks.operations.access import FULL
from flowhooks.operations.json.events import EventJson, event_to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.search import EventSummary
    from flowhooks.operations.access import Access

MAX_EVENTS: Final = 100_000
"""Number of events of one export, unless a command asks for another number."""
PAGE_SIZE: Final = 200
"""Number of events that one search reads."""
BODIES_PAGE_SIZE: Final = 20
"""Number of events whose bodies are in memory at once. A body can have `http.max_body_bytes`."""
MASK_KEY_BYTES: Final = 32
"""Number of random bytes from which the masked values and ids of one export are made."""
BYTE_ORDER_MARK: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
"""Characters that make a spreadsheet take a cell for a formula, or that it skips before it decides."""

_LINE_BREAKS: Final = str.maketrans(
    # Of a JSON text: the first two are white space between values, and the others can only be in a string.
    {"\n": " ", "\r": " ", "\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class ExportFormat(StrEnum):
    """The form of an export."""

    CSV = "csv"
    """A table with a header and one row for each delivery; an event without deliveries has one row."""
    JSON_LINES = "jsonl"
    """One event on each line, as the administration API lists it."""


class Bodies(StrEnum):
    """Which bodies an export has."""

    NONE = "none"
    STORED = "stored"
    """As they are stored."""
    MASKED = "masked"
    """With other values of the same shape, and with other ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export.

    Attributes:
        event_filter: the events, with the whole id of an error group.
        export_format: the form.
        bodies: which bodies.
        max_events: maximum number of events, the newest ones.
        before: the id before which to start; `""`: with the newest event.
    """

    event_filter: EventFilter
    export_format: ExportFormat
    bodies: Bodies = Bodies.NONE
    max_events: int = MAX_EVENTS
    before: str = ""


class EventExport:
    """One export. Iterate over it once.

    Args:
        reader: the ledger.
        request: what to export. Its filter is already restricted to what the operator sees.
        mask_key: random bytes from which masked values and ids are made; default: new ones.
        access: what the operator sees of the events; default: everything.

    Attributes:
        written: number of events written so far.
        next: after the last part, the `before` of an export that continues this one; `""` if no event was left out.
    """

    def __init__(
        self, reader: Reader, request: ExportRequest, *, mask_key: bytes | None = None, access: Access = FULL
    ) -> None:
        self._reader = reader
        self._request = request
        is_masked = request.bodies is Bodies.MASKED
        self._masker = EventMasker(mask_key or secrets.token_bytes(MASK_KEY_BYTES)) if is_masked else None
        self._access = access
        self.written = 0
        self.next = ""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the parts of the file, in UTF-8; a lone surrogate becomes a question mark.

        Raises:
            LedgerUnusable: the ledger cannot be read.
        """
        write = self._csv_rows if self._request.export_format is ExportFormat.CSV else _json_lines
        if self._request.export_format is ExportFormat.CSV:
            yield _encode(BYTE_ORDER_MARK + _csv([self._columns]))
        for page in self._pages():
            text = write(page)
            self.written += len(page)
            if text:
                yield _encode(text)

    def cut_mark(self) -> bytes:
        """Return the last line of a file from which events were left out; `b""` if none were.

        A file that a server sends has no other place for it. The line of JSON has the only member `next`. In a masked
        export it is null, because it would be the real id of an event whose pseudonym is in the line before.
        """
        if not self.next:
            return b""
        if self._request.export_format is ExportFormat.JSON_LINES:
            return _encode(json.dumps({"next": None if self._masker else self.next}) + "\n")
        note = f"only the newest {self.written:,} events" + ("" if self._masker else f"; continue after {self.next}")
        return _encode(_csv([[note, *([""] * (len(self._columns) - 1))]]))

    @property
    def request(self) -> ExportRequest:
        """The request of which this is the export."""
        return self._request

    @property
    def _columns(self) -> tuple[str, ...]:
        names = (*_EVENT_COLUMNS, *_DELIVERY_COLUMNS)
        return names if self._request.bodies is Bodies.NONE else (*names, "body")

    def _pages(self) -> Iterator[list[_Exported]]:
        for summaries in self._summaries():
            if self._request.bodies is Bodies.NONE:
                yield [_Exported(event_to_json(self._access.summary(summary))) for summary in summaries]
                continue
            for start in range(0, len(summaries), BODIES_PAGE_SIZE):
                yield [self._with_body(stored) for stored in self._stored(summaries[start : start + BODIES_PAGE_SIZE])]

    def _summaries(self) -> Iterator[Sequence[EventSummary]]:
        left, before = self._request.max_events, self._request.before
        while True:
            with self._reader.connection() as connection:
                page = search_events(connection, self._request.event_filter, limit=PAGE_SIZE, before=before)
            # One event more than allowed is needed to know that events are left out.
            if len(page.events) > left:
                yield page.events[:left]
                self.next = page.events[left - 1].id if left else before
                return
            yield page.events
            left, before = left - len(page.events), page.older
            if not before:
                return

    def _stored(self, summaries: Sequence[EventSummary]) -> list[StoredEvent]:
        ids = tuple(summary.id for summary in summaries)
        # Events that were purged meanwhile are missing.
        found = self._reader.find(EventFilter(ids=ids), limit=len(ids)) if ids else []
        return [self._access.stored_event(stored) for stored in found]

    def _with_body(self, stored: StoredEvent) -> _Exported:
        event = event_to_json(stored)
        if self._masker is None:
            return _Exported(event, _body_json(stored))
        masked = self._masker.mask_body(stored.event.data, flow_instance_id=stored.event.flow_instance_id)
        body = json.dumps(masked, ensure_ascii=False).translate(_LINE_BREAKS)
        return _Exported(mask_event(event, self._masker), body)

    def _csv_rows(self, page: Sequence[_Exported]) -> str:
        rows = []
        for exported in page:
            event, body = exported.event, [] if exported.body is None else [exported.body]
            of_event = [_cell(event[name]) for name in _EVENT_FIELDS]
            of_deliveries = [_delivery_cells(event, delivery) for delivery in event["deliveries"]] or [_NO_DELIVERY]
            rows += [[*of_event, *cells, *map(_cell, body)] for cells in of_deliveries]
        return _csv(rows)


@dataclass(frozen=True, slots=True)
class _Exported:
    """An event to write, and its body as JSON on one line; None: without the body."""

    event: EventJson
    body: str | None = None


_EVENT_FIELDS: Final = (
    "id",
    "received_at",
    "source",
    "origin",
    "corrects",
    "kind",
    "flow_instance_id",
    "business_key",
    "callback_class",
    "process_definition_id",
    "process_definition_key",
    "process_definition_version",
    "conclusion",
    "state",
    "parked_by",
    "dismissed_by",
    "repeats",
    "damaged",
)
_NAMED_BY_BOTH: Final = frozenset({"id", "state"})
_EVENT_COLUMNS: Final = tuple(f"event_{name}" if name in _NAMED_BY_BOTH else name for name in _EVENT_FIELDS)
_DELIVERY_FIELDS: Final = (
    "id",
    "handler",
    "state",
    "attempts",
    "due_at",
    "outcome",
    "error",
    "finished_at",
    "note",
    "ordered",
    "blocked_by",
    "error_group",
)
_DELIVERY_COLUMNS: Final = (
    *(f"delivery_{name}" if name in _NAMED_BY_BOTH else name for name in _DELIVERY_FIELDS),
    "route",
)
_NO_DELIVERY: Final[Sequence[str | int]] = [""] * len(_DELIVERY_COLUMNS)


def mask_event(event: EventJson, masker: EventMasker) -> EventJson:
    """Return an event with other ids, and without texts that can quote values of its body."""
    masked: Any = {
        **event,
        **_masked_ids(event, ("id", "corrects", "flow_instance_id", "business_key"), masker),
        "deliveries": [
            {**delivery, **_masked_ids(delivery, ("id", "blocked_by"), masker), "error": "", "note": ""}
            for delivery in event["deliveries"]
        ],
    }
    result: EventJson = masked
    return result


def _masked_ids(values: Mapping[str, Any], names: Sequence[str], masker: EventMasker) -> dict[str, Any]:
    return {name: None if values[name] is None else masker.mask_id(values[name]) for name in names}


def escape_formula(text: str) -> str:
    """Return the text of a cell, with a leading apostrophe if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _cell(value: Any) -> str | int:
    if isinstance(value, bool):
        return "true" if value else "false"
    # A number is no text of a sender.
    return value if isinstance(value, int) else escape_formula(value or "")


def _delivery_cells(event: EventJson, delivery: Mapping[str, Any]) -> Sequence[str | int]:
    return [*(_cell(delivery[name]) for name in _DELIVERY_FIELDS), _cell(event["route"].get(delivery["handler"]))]


def _csv(rows: Sequence[Sequence[str | int]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _json_lines(page: Sequence[_Exported]) -> str:
    return "".join(f"{_json_line(exported)}\n" for exported in page)


def _json_line(exported: _Exported) -> str:
    text = json.dumps(exported.event, ensure_ascii=False).translate(_LINE_BREAKS)
    # The text of the body is not encoded again: its numbers stay as they were written.
    return text if exported.body is None else f'{text[:-1]}, "body": {exported.body}}}'


def _body_json(stored: StoredEvent) -> str:
    """Return a stored body on one line; `"null"` for a damaged one that is no JSON."""
    if stored.damage:
        try:
            schema.parse_callback(stored.body.encode())
        except FlowhooksError:
            return "null"
    return stored.body.translate(_LINE_BREAKS)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")
