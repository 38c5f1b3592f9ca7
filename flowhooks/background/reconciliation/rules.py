"""Pure functions of reconciliation: the window of a round, and what becomes of an instance of the history."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks import schema
from flowhooks.clock import DAY, SECOND, to_text
from flowhooks.errors import InvalidCallback, MalformedRequest
from flowhooks.intake.callback import Callback
from flowhooks.ledger.engine_book import MAX_DETAIL_CHARS, BookRow, Disposition
from flowhooks.ledger.instance_events import REUSE_TOLERANCE, precedes_end
from flowhooks.model.engine import KIND_OF_END, MAX_VARIABLES_BYTES, EndState
from flowhooks.model.event import Origin, from_body
from flowhooks.text import escape_control, to_storable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.ledger.engine_book import EventOfInstance
    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.model.engine import FinishedInstance
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import EngineSettings, Source

OVERLAP: Final = 600 * SECOND
"""Microseconds before the last read end time that each round reads again: a transaction can commit late."""
WIDE_OVERLAP: Final = 7800 * SECOND
"""The same once an hour. An engine can store local times: when the clocks go back, an interval of up to an hour looks
empty, and its instances can be read an hour later only."""
WIDE_INTERVAL: Final = 3600 * SECOND
LOCAL_TIME_TOLERANCE: Final = 4200 * SECOND
"""Microseconds by which such an engine can be wrong about an end."""
SWEEP: Final = DAY
"""Microseconds of history that are read again once a day."""
WINDOW_TOLERANCE: Final = SECOND
"""Microseconds by which an instance may have ended outside of the window: some engines store whole seconds."""
_MILLISECOND: Final = 1000
_MAX_TEXT_CHARS: Final = 255
_MAX_VERSION: Final = 2**31 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Rule(StrEnum):
    """Why reconciliation skips an instance."""

    CHILD = "child"
    """Another instance called it, and the settings do not take in such instances."""
    END_STATE = "end_state"
    """The settings do not take in instances that end like this."""
    TENANT = "tenant"
    """The settings do not read its tenant."""
    BEFORE_FIRST_CONTACT = "before_first_contact"
    """It ended before flowhooks first read the history."""
    PURGED = "purged"
    """It had an event, which was purged."""
    INVALID_ID = "invalid_id"
    """No callback can have its id."""
    TOO_LARGE = "too_large"
    """Its variables are too large."""
    INVALID = "invalid"
    """The schema of its kind refuses the callback that it would become, or its row is damaged."""
    DECLINED = "declined"
    """An operator declined to take it in."""


class Again(NamedTuple):
    """Which skipped instances a round decides again, because an operator asks for it.

    Attributes:
        skipped: those that a rule skips.
        declined: those that an operator declined.
    """

    skipped: bool = False
    declined: bool = False


class Window(NamedTuple):
    """An interval of end times, both included, by the engine's clock, in microseconds since 1970."""

    since: int
    until: int


def to_microseconds(time: datetime) -> int:
    """Return an aware time in microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def is_ahead(position: EnginePosition, engine_now: int) -> bool:
    """Return whether the history was read by a clock that was ahead, so that the last end read says little."""
    return position.read_until > engine_now + OVERLAP


def next_window(
    position: EnginePosition,
    engine_now: int,
    *,
    sweeps: bool,
    earliest: int,
    since: int | None = None,
    read_at: int | None = None,
    is_wide: bool = False,
) -> Window:
    """Return the window of a round.

    Args:
        position: how far the history was read.
        engine_now: the time by the engine's clock.
        sweeps: whether to read the last 24 hours again.
        earliest: the earliest end for which purged events are still known.
        since: an earlier start that an operator asks for; None: the regular one.
        read_at: when the history was last read, by the engine's clock as it is now; None: its clock has not changed.
        is_wide: whether to read the last hours again.
    """
    start = min(position.read_until, engine_now, engine_now if read_at is None else read_at) - OVERLAP
    if is_wide:
        start = min(start, engine_now - WIDE_OVERLAP)
    if sweeps or is_ahead(position, engine_now):
        start = min(start, engine_now - SWEEP)
    start = max(start, position.since)
    if since is not None:
        start = min(start, since)
    start = max(start, earliest) // _MILLISECOND * _MILLISECOND
    return Window(start, max(start, -(-engine_now // _MILLISECOND) * _MILLISECOND))


def is_in_window(instance: FinishedInstance, window: Window) -> bool:
    """Return whether an instance ended in a window, as far as the resolution of engines allows to say."""
    ended_at = to_microseconds(instance.ended_at)
    return window.since - WINDOW_TOLERANCE <= ended_at <= window.until + WINDOW_TOLERANCE


def is_near(instance: FinishedInstance, window: Window) -> bool:
    """Return whether an instance ended so near to a window that the engine can have mistaken a local time."""
    since, until = window
    return is_in_window(instance, Window(since - LOCAL_TIME_TOLERANCE, until + LOCAL_TIME_TOLERANCE))


def last_of_each(instances: Sequence[FinishedInstance]) -> list[FinishedInstance]:
    """Return one instance of each id: the one that ended last."""
    newest: dict[str, FinishedInstance] = {}
    for instance in instances:
        if instance.id not in newest or instance.ended_at >= newest[instance.id].ended_at:
            newest[instance.id] = instance
    return list(newest.values())


class Refusal(NamedTuple):
    """Why the settings do not take an instance in.

    Attributes:
        rule: the rule that skips it.
        detail: more about the rule, for operators.
    """

    rule: Rule
    detail: str = ""

    def skip(self, row: BookRow) -> BookRow:
        """Return the row of the skipped instance."""
        return _skipped(row, self.rule, self.detail)


class Candidates(NamedTuple):
    """A source, as far as rules need it.

    Attributes:
        name: the name of the source.
        source: its settings.
        engine: its section `engine`.
        schemas: the schemas of callbacks.
    """

    name: str
    source: Source
    engine: EngineSettings
    schemas: Schemas

    def to_row(self, instance: FinishedInstance, now: int) -> BookRow:
        """Return the row of an instance without an event: in grace with its body, or skipped by a rule.

        Args:
            instance: the instance.
            now: microseconds since 1970.
        """
        row = BookRow(
            source=self.name,
            flow_instance_id=instance.id,
            ended_at=to_microseconds(instance.ended_at),
            started_at=None if instance.started_at is None else to_microseconds(instance.started_at),
            end_state=instance.end_state.value,
            process_definition_key=_text(instance.process_definition_key),
            process_definition_version=_version(instance.process_definition_version),
            conclusion=_text(self.source.conclusion.get(instance.conclusion or "", instance.conclusion)) or None,
            tenant_id=_text(instance.tenant_id),
            parent_id=_text(instance.parent_id),
            disposition=Disposition.IN_GRACE.value,
            rule="",
            detail="",
            event_id=None,
            body=None,
            first_seen_at=now,
            changed_at=now,
        )
        try:
            self.schemas.check_flow_instance_id(instance.id)
        except InvalidCallback as error:
            return _skipped(replace(row, flow_instance_id=_printable_id(instance.id)), Rule.INVALID_ID, str(error))
        refusal = self.refusal(instance.end_state, tenant_id=instance.tenant_id, parent_id=instance.parent_id)
        return self._with_body(row, instance, KIND_OF_END[instance.end_state]) if refusal is None else refusal.skip(row)

    def refusal(self, end_state: EndState, *, tenant_id: str | None, parent_id: str | None) -> Refusal | None:
        """Return why the settings do not take an instance in; None: they do.

        Args:
            end_state: how it ended.
            tenant_id: its tenant, or None.
            parent_id: the instance that called it, or None.
        """
        if self.engine.tenants and tenant_id not in self.engine.tenants:
            return Refusal(Rule.TENANT)
        if parent_id is not None and not self.engine.children:
            return Refusal(Rule.CHILD)
        kind = KIND_OF_END[end_state]
        if kind not in self.engine.kinds:
            return Refusal(Rule.END_STATE, f"the kind {kind} is not in the setting kinds")
        return None

    def refusal_of(self, row: BookRow) -> Refusal | None:
        """Return why the settings do not take in an instance of the book; None: they do."""
        try:
            end_state = EndState(row.end_state)
        except ValueError as error:
            return Refusal(Rule.INVALID, f"its row is damaged: {error}")
        return self.refusal(end_state, tenant_id=row.tenant_id, parent_id=row.parent_id)

    def _with_body(self, row: BookRow, instance: FinishedInstance, kind: str) -> BookRow:
        variables = {name: instance.variables[name] for name in self.engine.variables if name in instance.variables}
        try:
            size = len(json.dumps(variables, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            if size > MAX_VARIABLES_BYTES:
                return _skipped(
                    row, Rule.TOO_LARGE, f"its variables have {size:,} bytes; {MAX_VARIABLES_BYTES:,} are allowed"
                )
            text = json.dumps(make_body(instance, variables), ensure_ascii=False, allow_nan=False)
            body = schema.parse_callback(text.encode())
            if kind not in self.schemas.kinds:
                return _skipped(row, Rule.INVALID, f"there is no kind of callback {kind}")
            self.schemas.check_body(kind, body)
        except (MalformedRequest, InvalidCallback) as error:
            return _skipped(row, Rule.INVALID, str(error))
        except (TypeError, ValueError, RecursionError) as error:
            return _skipped(row, Rule.INVALID, f"a value cannot be written as JSON: {error}")
        event = from_body(
            body,
            id="",
            source=self.name,
            kind=kind,
            flow_instance_id=instance.id,
            received_at=_EPOCH,
            conclusions=self.source.conclusion,
        )
        return replace(
            row,
            body=text,
            process_definition_key=_text(event.process_definition_key),
            process_definition_version=_version(event.process_definition_version),
        )


def make_body(instance: FinishedInstance, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the callback that an instance becomes, without nulls."""
    members = {
        "processDefinitionId": instance.process_definition_id,
        "processDefinitionKey": instance.process_definition_key,
        "processDefinitionVersion": instance.process_definition_version,
        "businessKey": instance.business_key,
        "callBackProcessClass": instance.callback_class,
        "conclusion": instance.conclusion,
        "tenantId": instance.tenant_id,
        "startTime": None if instance.started_at is None else to_text(to_microseconds(instance.started_at)),
        "endTime": to_text(to_microseconds(instance.ended_at)),
        "endState": instance.end_state.value,
        **variables,
    }
    return {name: value for name, value in members.items() if value is not None}


class Known(NamedTuple):
    """The row, the events and the purged event of an instance.

    Attributes:
        row: its row in the book, or None.
        events: its events, under any name of the source.
        purged_at: when the newest purged event of it was received; None: there is none.
    """

    row: BookRow | None
    events: Sequence[EventOfInstance] = ()
    purged_at: int | None = None


def has_same_times(instance: FinishedInstance, row: BookRow) -> bool:
    """Return whether a row of the book is about this instance, and not about another one with its id."""
    started_at = None if instance.started_at is None else to_microseconds(instance.started_at)
    return (row.ended_at, row.started_at) == (to_microseconds(instance.ended_at), started_at)


def is_storable_id(text: str) -> bool:
    """Return whether any database can store an id as it is."""
    return to_storable(text, _MAX_TEXT_CHARS) == text


def is_decided(candidate: BookRow, row: BookRow, *, again: Again) -> bool:
    """Return whether the row of an instance stays as it is, so that nothing else needs to be read.

    Args:
        candidate: the row that the instance would have without an event.
        row: its row in the book.
        again: which skipped instances are decided again.
    """
    if (row.ended_at, row.started_at) != (candidate.ended_at, candidate.started_at):
        return False
    if row.rule == Rule.DECLINED:
        return not again.declined
    if row.disposition == Disposition.SKIPPED:
        return not again.skipped and row.end_state == candidate.end_state
    if row.disposition == Disposition.IN_GRACE:
        return (row.body, row.end_state) == (candidate.body, candidate.end_state)
    return True


def decide(candidate: BookRow, known: Known, *, since: int, skew: int) -> BookRow:
    """Return the row of an instance.

    Args:
        candidate: the row that it would have without an event.
        known: what the ledger knows of it.
        since: the first contact, by the engine's clock.
        skew: the engine's clock minus ours, in microseconds.
    """
    row = candidate
    if known.row is not None and _is_same_instance(known.row, candidate):
        row = replace(row, first_seen_at=known.row.first_seen_at)
    started_at = our_start(candidate, skew)
    if (event := newest_event(known.events, started_at=started_at, ended_at=our_end(candidate, skew))) is not None:
        return replace(
            row, disposition=Disposition.HAS_EVENT.value, rule="", detail="", event_id=event.event_id, body=None
        )
    if known.purged_at is not None and known.purged_at >= started_at - REUSE_TOLERANCE:
        return _skipped(row, Rule.PURGED)
    if candidate.ended_at < since:
        return _skipped(row, Rule.BEFORE_FIRST_CONTACT)
    if candidate.disposition == Disposition.IN_GRACE and not _is_in_grace(known.row):
        return candidate  # first seen now: an earlier confirmation does not cover an instance that is decided again
    return row


def _is_in_grace(row: BookRow | None) -> bool:
    return row is not None and row.disposition == Disposition.IN_GRACE


def newest_event(events: Sequence[EventOfInstance], *, started_at: int, ended_at: int) -> EventOfInstance | None:
    """Return the newest event that reports the end of an instance; None: there is none.

    Args:
        events: the events with its id; one from before its start is that of an earlier instance.
        started_at: when it started, by our clock, in microseconds since 1970.
        ended_at: when it ended.
    """
    of_instance = [
        event
        for event in events
        if event.received_at >= started_at - REUSE_TOLERANCE
        and not precedes_end(event.kind, event.received_at, ended_at)
    ]
    return max(of_instance, key=lambda event: (event.received_at, event.event_id), default=None)


def our_start(row: BookRow, skew: int) -> int:
    """Return the earliest time by our clock at which an instance can have started; 0 if it is not known.

    The skew may be that of a proxy, or of the time before a clock was corrected. So an event belongs to an earlier
    instance only if it is older than this one with the skew and without it.
    """
    return 0 if row.started_at is None else row.started_at - max(skew, 0)


def our_end(row: BookRow, skew: int) -> int:
    """Return the earliest time by our clock at which an instance can have ended, with the skew or without it."""
    return row.ended_at - max(skew, 0)


def to_callback(row: BookRow, skew: int) -> Callback:
    """Return the callback that an instance in grace becomes.

    Raises:
        MalformedRequest: the body of the row is damaged.
    """
    body = row.body or ""
    end_state = EndState(row.end_state)
    return Callback(
        source=row.source,
        kind=KIND_OF_END[end_state],
        flow_instance_id=row.flow_instance_id,
        body=schema.parse_callback(body.encode()),
        text=body,
        origin=Origin.RECONCILED.value,
        started_at=None if row.started_at is None else our_start(row, skew),
        ended_at=our_end(row, skew),
        end_undecided=end_state is EndState.UNDECIDED,
    )


def _is_same_instance(row: BookRow, candidate: BookRow) -> bool:
    return row.started_at == candidate.started_at


def _skipped(row: BookRow, rule: Rule, detail: str = "") -> BookRow:
    return replace(
        row,
        disposition=Disposition.SKIPPED.value,
        rule=rule.value,
        detail=escape_control(detail, MAX_DETAIL_CHARS),
        body=None,
    )


def _printable_id(text: str) -> str:
    """Return a key for an id that no callback can have: it may be of any length, and no database may store it."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escape_control(text, 100)} sha256:{digest}"


def _text(value: str | None) -> str | None:
    return None if value is None else to_storable(value, _MAX_TEXT_CHARS)


def _version(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= _MAX_VERSION else None
