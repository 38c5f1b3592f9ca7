"""Compare a client's history of callbacks with the ledger: `flowhooks verify --against`.

The history is a file with one JSON object in each line. It is read once, in batches, so a history of any length needs
the same memory. Each batch is compared with a snapshot of the ledger that is newer than its lines.

One question cannot be answered line by line: a rejected request must not be stored, unless the client sent the same
callback another time as well. A temporary SQLite file keeps the identities of the callbacks for that.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from flowhooks import schema
from flowhooks.clock import DAY, id_time
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import checksums, history
from flowhooks.ledger.consistency import MAX_SHOWN
from flowhooks.ledger.events import MAX_CONFLICTS
from flowhooks.ledger.history import StoredBody
from flowhooks.ledger.late_callbacks import MAX_LATE_CALLBACKS
from flowhooks.ledger.purge import PurgedIdentity
from flowhooks.model.event import digest
from flowhooks.operations.time_parsing import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.history import StoredCallbacks
    from flowhooks.ledger.reader import Reader
    from flowhooks.settings import Settings

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Maximum length of a line; a longer one is reported and skipped."""
MAX_BATCH_LINES: Final = 500
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of lines after which a batch ends, even if it has fewer lines."""
FINDINGS: Final = {
    "malformed": "a line that is not in the format",
    "lost": "acknowledged, but neither stored nor purged",
    "other_event": "stored as another event than the one that was answered",
    "other_callback": "the event that was answered stores another callback",
    "other_body": "acknowledged, but stored with another body",
    "conflict_lost": "answered 409, but the conflicting body is not kept",
    "rejected_but_stored": "rejected, and never sent again, but stored",
}
"""Each kind of finding, with its meaning."""
_CONFLICT: Final = 409
_EVENT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MEMBERS: Final = {
    "time": str,
    "source": str,
    "kind": str,
    "flowInstanceId": str,
    "callBackProcessClass": str,
    "body": str,
    "bodySha256": str,
    "status": int,
    "event": str,
}
"""The members of a line, with their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryReport:
    """The result of a comparison.

    Attributes:
        lines: number of lines, without empty ones.
        acknowledged: number of lines whose answer says that the callback is stored: 2xx, and 500 with an event's id.
        conflicts: number of lines that were answered 409.
        rejected: number of lines with any other 4xx.
        unanswered: number of lines without an answer, or with an answer that does not say whether it is stored.
        purged: number of acknowledged lines whose event was purged since.
        expired: number of acknowledged lines so old that the identity of a purged event is no longer kept.
        findings: number of findings of each kind of `FINDINGS`.
        problems: a sentence for each finding; at most `MAX_SHOWN` of each kind.
    """

    lines: int = 0
    acknowledged: int = 0
    conflicts: int = 0
    rejected: int = 0
    unanswered: int = 0
    purged: int = 0
    expired: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_consistent(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of the history.

    Attributes:
        number: its number, from 1.
        sources: all names of the engine, the present one first.
        identity: the SHA-256 of the callback's identity, under the name in the line.
        identities: the same under each of `sources`.
        flow_instance_id: the process instance.
        status: the HTTP status; 0 without an answer.
        event_id: the header Flowhooks-Event of the answer; `""` if it had none.
        body_sha256: the SHA-256 of the bytes that were sent.
        data: the JSON values that were sent; None if only the SHA-256 is known, or the body is not valid.
        sent_at: when it was answered, in microseconds since 1970; None if that is not known.
    """

    number: int
    sources: tuple[str, ...]
    identity: str
    identities: tuple[str, ...]
    flow_instance_id: str
    status: int
    event_id: str
    body_sha256: str
    data: dict[str, Any] | None
    sent_at: int | None

    @property
    def key(self) -> bytes:
        """The identity under the present name, which the lines under all names of a source share."""
        return bytes.fromhex(self.identities[0])

    @property
    def is_acknowledged(self) -> bool:
        # With an event's id, a handler failed; without one, the server did.
        return 200 <= self.status < 300 or (self.status == 500 and bool(self.event_id))  # noqa: PLR2004 (HTTP)

    @property
    def is_rejected(self) -> bool:
        return 400 <= self.status < 500 and self.status != _CONFLICT  # noqa: PLR2004 (HTTP)


class _Malformed(Exception):
    """A line is not in the format."""


def check_history(reader: Reader, file: BinaryIO, settings: Settings) -> HistoryReport:
    """Compare each line of a history with the ledger.

    Args:
        reader: the ledger.
        file: the history, open for reading bytes.
        settings: `ignore_pointers`, `retention.identities` and the former names of sources are used, as the server
            does: a line under any name of a source is compared with the events of all its names.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    # An empty name is a temporary file that SQLite deletes.
    with closing(sqlite3.connect("", isolation_level=None)) as notes:
        check = _Check(reader, settings, notes)
        for batch in _batches(file):
            check.add(batch)
        return check.report()


class _Check:
    def __init__(self, reader: Reader, settings: Settings, notes: sqlite3.Connection) -> None:
        self._reader = reader
        self._settings = settings
        days = settings.retention.identities
        self._kept_from = time.time_ns() // 1000 - days * DAY if days else 0
        self._notes = notes
        self._counts: Counter[str] = Counter()
        self._findings: Counter[str] = Counter()
        self._problems: dict[str, list[str]] = {kind: [] for kind in FINDINGS}
        notes.execute("CREATE TABLE sent (identity BLOB PRIMARY KEY) WITHOUT ROWID")
        notes.execute("CREATE TABLE rejected (identity BLOB, number INTEGER, sentence TEXT)")

    def add(self, batch: Sequence[tuple[int, bytes | None]]) -> None:
        """Compare the lines of a batch."""
        lines = []
        for number, text in batch:
            try:
                lines.append(_parse(number, text, self._settings))
            except _Malformed as error:
                self._find("malformed", f"line {number}: {error}")
        self._counts["lines"] += len(batch)
        self._notes.execute("BEGIN")
        self._notes.executemany(
            "INSERT OR IGNORE INTO sent VALUES (?)",
            ((line.key,) for line in lines if not line.is_rejected),
        )
        with self._reader.connection() as connection:
            stored = history.find_callbacks(connection, [key for line in lines for key in line.identities])
            for line in lines:
                self._compare(connection, line, stored)
        self._notes.execute("COMMIT")

    def report(self) -> HistoryReport:
        """Return the result, after the last batch."""
        never_sent_again = self._notes.execute(
            "SELECT sentence FROM rejected WHERE identity NOT IN (SELECT identity FROM sent) ORDER BY number"
        )
        for (sentence,) in never_sent_again:
            self._find("rejected_but_stored", sentence)
        problems = []
        for kind, sentences in self._problems.items():
            problems += sentences
            if self._findings[kind] > MAX_SHOWN:
                problems.append(f"… and {self._findings[kind] - MAX_SHOWN} more: {FINDINGS[kind]}")
        return HistoryReport(
            **self._counts, findings={kind: n for kind in FINDINGS if (n := self._findings[kind])}, problems=problems
        )

    def _find(self, kind: str, sentence: str) -> None:
        self._findings[kind] += 1
        if self._findings[kind] <= MAX_SHOWN:
            self._problems[kind].append(sentence)

    def _compare(self, connection: Connection, line: _Line, stored: StoredCallbacks) -> None:
        if line.is_rejected:
            self._counts["rejected"] += 1
            self._compare_rejected(connection, line, stored)
        elif line.status == _CONFLICT:
            self._counts["conflicts"] += 1
            self._compare_conflict(connection, line, stored)
        elif line.is_acknowledged:
            self._counts["acknowledged"] += 1
            self._compare_acknowledged(connection, line, stored)
        else:
            self._counts["unanswered"] += 1

    def _compare_acknowledged(self, connection: Connection, line: _Line, stored: StoredCallbacks) -> None:
        begin = f"line {line.number}: flow instance {line.flow_instance_id!r}"
        event = _find_event(line, stored)
        if isinstance(event, StoredBody):
            is_same = self._is_same_body(connection, line, event, is_conflict=False)
            if not is_same and (correction := self._correction(connection, line, event.event_id)):
                self._compare_event_id(line, correction)
                return
            self._compare_event_id(line, event.event_id)
            if not is_same and not self._is_late(connection, line):
                self._find(
                    "other_body",
                    f"{begin} was acknowledged with {line.status}, but event {event.event_id} stores another body",
                )
        elif event is not None:
            self._counts["purged"] += 1
            self._compare_event_id(line, self._correction(connection, line, event.event_id) or event.event_id)
        elif self._is_late(connection, line):
            pass  # it is stored beside the event of its instance
        elif _is_late_for_purged(connection, line):
            self._counts["purged"] += 1
        elif line.event_id and (other := history.event_identities(connection, [line.event_id]).get(line.event_id)):
            source, kind, instance, callback_class = other
            self._find(
                "other_callback",
                f"{begin} was answered with event {line.event_id}, which stores another callback: "
                f"source {source!r}, kind {kind!r}, flow instance {instance!r}, class {callback_class!r}",
            )
        elif line.sent_at is not None and line.sent_at < self._kept_from:
            self._counts["expired"] += 1
        else:
            self._find("lost", f"{begin} was acknowledged with {line.status}, but is neither stored nor purged")

    def _correction(self, connection: Connection, line: _Line, event_id: str) -> str:
        """Return the id of the event's correction that has the body of a line; `""` if none has."""
        if line.data is None:
            return ""
        return history.correction_of(connection, event_id, {digest(line.data, self._pointers(line)), digest(line.data)})

    def _compare_event_id(self, line: _Line, event_id: str) -> None:
        if line.event_id not in {"", event_id}:
            self._find(
                "other_event",
                f"line {line.number}: flow instance {line.flow_instance_id!r} was answered with event {line.event_id}, "
                f"but is stored as event {event_id}",
            )

    def _compare_conflict(self, connection: Connection, line: _Line, stored: StoredCallbacks) -> None:
        event = _find_event(line, stored)
        if isinstance(event, PurgedIdentity):
            self._compare_event_id(line, event.event_id)  # no conflicting body is kept for it
            return
        if event is not None:
            self._compare_event_id(line, event.event_id)
            kept = stored.conflicts.get(event.event_id, [])
            if len(kept) >= MAX_CONFLICTS or any(
                self._is_same_body(connection, line, body, is_conflict=True) for body in kept
            ):
                return
        elif (
            self._is_late(connection, line)
            or _is_late_for_purged(connection, line)
            or (line.sent_at is not None and line.sent_at < self._kept_from)
        ):
            return
        what = "is not stored" if event is None else f"is stored as event {event.event_id} without this other body"
        self._find("conflict_lost", f"line {line.number}: flow instance {line.flow_instance_id!r} got 409, but {what}")

    def _compare_rejected(self, connection: Connection, line: _Line, stored: StoredCallbacks) -> None:
        event = _find_event(line, stored)
        if not isinstance(event, StoredBody):
            return
        bodies = [(event, False), *((body, True) for body in stored.conflicts.get(event.event_id, []))]
        if any(self._is_same_body(connection, line, body, is_conflict=is_conflict) for body, is_conflict in bodies):
            sentence = (
                f"line {line.number}: flow instance {line.flow_instance_id!r} was rejected with {line.status}, "
                f"but is stored as event {event.event_id}"
            )
            self._notes.execute("INSERT INTO rejected VALUES (?, ?, ?)", (line.key, line.number, sentence))

    def _is_late(self, connection: Connection, line: _Line) -> bool:
        """Tell whether a line is a late callback of an event that reconciliation took in, whatever class or kind."""
        bodies = history.bodies_of_instance(connection, line.sources, line.flow_instance_id)
        per_event = Counter(body.event_id for body in bodies)
        for body in bodies:
            # Of more bodies than these, some are not stored.
            if per_event[body.event_id] > MAX_LATE_CALLBACKS or self._is_same_body(
                connection, line, body, is_conflict=True
            ):
                self._compare_event_id(line, body.event_id)
                return True
        return False

    def _is_same_body(self, connection: Connection, line: _Line, body: StoredBody, *, is_conflict: bool) -> bool:
        """Tell whether a line's body has the bytes, or at least the JSON values, of a stored one."""
        if line.body_sha256 == body.body_sha256:
            return True
        if line.data is None:
            return False
        pointers = self._pointers(line)
        sent = digest(line.data, pointers)
        if body.digest in {sent, digest(line.data)}:
            return True
        # The pointers may have been changed after the event was stored.
        text = None if is_conflict or not pointers else history.event_body(connection, body.event_id)
        return text is not None and (values := _values(text)) is not None and digest(values, pointers) == sent

    def _pointers(self, line: _Line) -> tuple[str, ...]:
        return self._settings.ignore_pointers(line.sources[0])


def _find_event(line: _Line, stored: StoredCallbacks) -> StoredBody | PurgedIdentity | None:
    """Return the event of a line's callback, stored or purged; None if there is none.

    During a rolling rename, a callback can become an event of each name: then the one that was answered, or that of the
    line's name.
    """
    found = [stored.events[key] for key in (line.identity, *line.identities) if key in stored.events]
    return next((event for event in found if event.event_id == line.event_id), found[0] if found else None)


def _is_late_for_purged(connection: Connection, line: _Line) -> bool:
    """Tell whether a line may be a late callback of a purged event, whatever class or kind."""
    event_ids = history.purged_events_of_instance(connection, line.sources, line.flow_instance_id)
    return bool(event_ids) and line.event_id in {"", *event_ids}


def _batches(file: BinaryIO) -> Iterator[list[tuple[int, bytes | None]]]:
    """Yield numbered lines in batches, without empty ones; None is a line that is too long."""
    batch: list[tuple[int, bytes | None]] = []
    size, number = 0, 0
    while text := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(text) == MAX_LINE_BYTES and not text.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            batch.append((number, None))
        elif text.strip():
            batch.append((number, text))
            size += len(text)
        if len(batch) >= MAX_BATCH_LINES or size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parse(number: int, text: bytes | None, settings: Settings) -> _Line:
    given = _read_members(text)
    status, event_id = given.get("status", 0), given.get("event", "")
    if not (status == 0 or 100 <= status <= 599):  # noqa: PLR2004 (HTTP)
        raise _Malformed(f"status {status} is not an HTTP status")
    if event_id and not _EVENT_ID.fullmatch(event_id):
        raise _Malformed("event is not the id of an event")
    body_sha256, data = _read_body(given)
    callback_class = given.get("callBackProcessClass", (data or {}).get("callBackProcessClass"))
    source = given.get("source", "default")
    names = settings.source_names(source)
    identities = {
        name: history.identity_sha256(
            source=name,
            kind=given.get("kind", "complete"),
            flow_instance_id=given["flowInstanceId"],
            callback_class=callback_class if isinstance(callback_class, str) else "",
        )
        for name in names
    }
    return _Line(
        number=number,
        sources=names,
        identity=identities[source],
        identities=tuple(identities.values()),
        flow_instance_id=given["flowInstanceId"],
        status=status,
        event_id=event_id,
        body_sha256=body_sha256,
        data=data,
        sent_at=_read_time(given.get("time"), event_id),
    )


def _read_members(text: bytes | None) -> dict[str, Any]:
    """Return the members of a line that are not null."""
    if text is None:
        raise _Malformed(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        raise _Malformed("not JSON") from None
    if not isinstance(members, dict):
        raise _Malformed("not a JSON object")
    given = {name: value for name, value in members.items() if value is not None}
    for name, value in given.items():
        _check_member(name, value)
    if not given.get("flowInstanceId"):
        raise _Malformed("flowInstanceId is missing")
    if "status" not in members:
        raise _Malformed("status is missing; null means that no answer arrived")
    if ("body" in given) == ("bodySha256" in given):
        raise _Malformed("either body or bodySha256 is needed")
    return given


def _check_member(name: str, value: Any) -> None:
    if name not in _MEMBERS:
        raise _Malformed(f"unknown member {name!r}")
    if type(value) is not _MEMBERS[name]:
        raise _Malformed(f"{name} is not {'a whole number' if _MEMBERS[name] is int else 'a string'}")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise _Malformed(f"{name} has a character that UTF-8 does not have") from None


def _read_body(given: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return the SHA-256 of the body that was sent, and its JSON values if they are known."""
    if "body" not in given:
        sha256 = given["bodySha256"].lower()
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):  # noqa: PLR2004 (of SHA-256)
            raise _Malformed("bodySha256 is not the hexadecimal SHA-256 of a body")
        return sha256, None
    return checksums.body_sha256(given["body"]), _values(given["body"])


def _values(body: str) -> dict[str, Any] | None:
    try:
        return schema.parse_callback(body.encode())
    except FlowhooksError:
        return None


def _read_time(text: str | None, event_id: str) -> int | None:
    if text is None:
        return id_time(event_id) if event_id else None
    try:
        return parse_time(text)
    except ValueError as error:
        raise _Malformed(f"time is {error}") from None
