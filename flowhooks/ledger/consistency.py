"""Consistency checks: whether everything that was accepted is still accounted for. They change and repair nothing.

Each query reads one or two tables once, and returns the ids of rows that contradict others or themselves.

Times are compared within a row, with those of its delivery, or with the newest time of the whole ledger, because a
clock may have been wrong and corrected later. A tolerance of one day is allowed for that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, bindparam, case, cast, func, literal, or_, select

from flowhooks.clock import DAY
from flowhooks.ledger import correction_checks, error_groups, field_checks, ignored_requests, trends
from flowhooks.ledger.damaged_rows import shown_time
from flowhooks.ledger.deliveries import NEXT, STARTED
from flowhooks.ledger.due_times import MAX_DELAY
from flowhooks.ledger.filled_tables import failed_checks, filled_tables
from flowhooks.ledger.operation_checks import OPERATION_CHECKS
from flowhooks.ledger.row_checks import check_rows
from flowhooks.ledger.stats import totals
from flowhooks.ledger.tables import (
    IS_LAST_ATTEMPT,
    attempts,
    audit_log,
    conflicts,
    counters,
    deliveries,
    engine_instances,
    engine_positions,
    events,
    handlers,
    history_gaps,
    in_order_group,
    late_callbacks,
    processes,
    purged_identities,
)
from flowhooks.ledger.value_checks import check_values
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.event import CALLBACK_ORIGINS, UNDECIDED, Origin, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

MAX_SHOWN: Final = 20
"""Maximum number of ids shown for each kind of problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyReport:
    """The contents of the ledger, and its inconsistencies.

    Attributes:
        accepted: events accepted, counted in the transactions that accepted them.
        stored: events stored now.
        purged: events purged, counted in the transactions that purged them.
        events: number of events in each state.
        deliveries: number of deliveries in each state.
        attempts: number of attempts that were started.
        histories: until when the history of each engine was read, by source, in microseconds since 1970.
        problems: one line for each inconsistency; empty if there is none.
    """

    accepted: int
    stored: int
    purged: int
    events: dict[str, int]
    deliveries: dict[str, int]
    attempts: int
    histories: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_consistent(self) -> bool:
        """Whether no inconsistency was found."""
        return not self.problems


_COUNTERS: Final = ("accepted", "purged", "tried")
_NEWEST: Final = bindparam("newest", type_=BigInteger)
"""The newest time of the ledger, or the present time if that is later."""

_LAST: Final = (
    select(
        attempts.c.delivery_id,
        func.max(attempts.c.number).label("number"),
        func.min(attempts.c.number).label("first"),
        func.count().label("made"),
    )
    .group_by(attempts.c.delivery_id)
    .subquery("last")
)
_UNFINISHED: Final = attempts.c.outcome.is_(None)
_MADE: Final = (
    select(deliveries.c.event_id, func.count().label("made")).group_by(deliveries.c.event_id).subquery("made")
)
_OF_DELIVERY: Final = attempts.c.delivery_id == deliveries.c.id
_ATTEMPT: Final = attempts.c.delivery_id.concat(" attempt ").concat(cast(attempts.c.number, Text))
_INSTANCE: Final = engine_instances.c.source.concat(" ").concat(engine_instances.c.flow_instance_id)
_RUNNING: Final = deliveries.c.state == State.RUNNING.value


def _is_consistent() -> ColumnElement[bool]:
    # docs/explanation/states.md has the table.
    outcome = attempts.c.outcome
    none = attempts.c.number.is_(None)
    return case(
        (_RUNNING, and_(~none, _UNFINISHED)),
        (
            deliveries.c.state == State.SUCCEEDED.value,
            outcome.in_([OutcomeKind.SUCCEEDED.value, OutcomeKind.LOST.value]),
        ),
        (deliveries.c.state == State.UNKNOWN.value, outcome == OutcomeKind.LOST.value),
        # A succeeded delivery leaves that state only by `replay --again`, which starts its retry schedule again.
        else_=or_(
            none,
            and_(
                ~_UNFINISHED,
                or_(outcome != OutcomeKind.SUCCEEDED.value, deliveries.c.retry_base == deliveries.c.attempt),
            ),
        ),
    )


def _later(time: ColumnElement[int], than: ColumnElement[int]) -> ColumnElement[bool]:
    return time > than + literal(DAY, BigInteger)


_OF_EVENTS: Final = (
    (
        select(events.c.id)
        .outerjoin(_MADE, _MADE.c.event_id == events.c.id)
        .where(func.coalesce(_MADE.c.made, 0) != events.c.route_size),
        "event {} does not have the deliveries of its recorded route",
    ),
    (
        select(events.c.id).where(events.c.state.not_in(["routed", "parked", "dismissed"])),
        "event {} is in an unknown state",
    ),
    (
        select(events.c.id).where(events.c.state == "routed", events.c.route_size == literal(0)),
        "event {} counts as routed, but has no deliveries",
    ),
    (
        select(events.c.id).where(
            or_(
                (events.c.state == "parked") != events.c.parked_by.is_not(None),
                (events.c.state == "dismissed") != events.c.dismissed_by.is_not(None),
            )
        ),
        "event {} is not in the state that its reason belongs to",
    ),
    (
        select(events.c.id).where(
            or_(
                events.c.parked_by.not_in([*ParkedBy]),
                events.c.dismissed_by.not_in(["condition", "kind", "setting", "operator"]),
            )
        ),
        "event {} is parked or dismissed for an unknown reason",
    ),
    (
        select(events.c.id).where(or_(events.c.repeats < 0, events.c.received_at <= 0)),
        "event {} has a negative number",
    ),
    (
        select(events.c.id).where(_later(events.c.received_at, events.c.rerouted_at)),
        "event {} has an impossible time of its last change",
    ),
    (
        select(conflicts.c.event_id)
        .outerjoin(events, events.c.id == conflicts.c.event_id)
        .where(
            or_(
                events.c.id.is_(None),
                # The digest does not cover the kind, by which a late callback may conflict.
                (events.c.digest == conflicts.c.digest) & events.c.origin.in_(CALLBACK_ORIGINS),
                events.c.origin == Origin.CORRECTION.value,
            )
        ),
        "a conflicting body is stored for event {}, which does not exist, has the same data or is a correction",
    ),
    (
        select(late_callbacks.c.event_id)
        .outerjoin(events, events.c.id == late_callbacks.c.event_id)
        .where(
            or_(
                events.c.id.is_(None),
                events.c.origin != Origin.RECONCILED.value,
                events.c.digest == late_callbacks.c.digest,
            )
        ),
        "a late callback is stored for event {}, which does not exist, was not taken in or has the same data",
    ),
    (
        select(events.c.id).where(
            events.c.origin != Origin.RECONCILED.value,
            or_(
                events.c.parked_by.in_(sorted(UNDECIDED)),
                events.c.instance_started_at.is_not(None),
            ),
        ),
        "event {} is not that of a reconciliation, but has values of one",
    ),
)
_OF_DELIVERIES: Final = (
    (
        select(deliveries.c.id).outerjoin(events, events.c.id == deliveries.c.event_id).where(events.c.id.is_(None)),
        "delivery {} belongs to an event that does not exist",
    ),
    (
        select(deliveries.c.id)
        .outerjoin(_LAST, _LAST.c.delivery_id == deliveries.c.id)
        .where(
            or_(
                func.coalesce(_LAST.c.number, 0) != deliveries.c.attempt,
                func.coalesce(_LAST.c.made, 0) != deliveries.c.attempt,
                func.coalesce(_LAST.c.first, 1) != literal(1),
            )
        ),
        "delivery {} does not have as many attempts as it counts",
    ),
    (
        select(deliveries.c.id)
        .outerjoin(attempts, IS_LAST_ATTEMPT)
        .where(or_(~func.coalesce(_is_consistent(), literal(False)), deliveries.c.state.not_in([*State]))),
        "delivery {} does not agree with its last attempt",
    ),
    (
        select(deliveries.c.id).where(or_(deliveries.c.retry_base < 0, deliveries.c.retry_base > deliveries.c.attempt)),
        "delivery {} has a retry schedule that starts at an attempt that does not exist",
    ),
    (
        select(deliveries.c.id).where(
            deliveries.c.due_at.is_not(None),
            deliveries.c.state.not_in([State.WAITING.value, State.UNKNOWN.value]),
        ),
        "delivery {} has a due time, but is neither waiting nor unknown",
    ),
    (
        select(deliveries.c.id).where(
            or_(deliveries.c.due_at > _NEWEST + literal(MAX_DELAY, BigInteger), deliveries.c.due_at <= 0)
        ),
        "delivery {} has an impossible due time",
    ),
    (
        select(deliveries.c.id).where(
            or_(
                _later(deliveries.c.created_at, deliveries.c.changed_at),
                _later(deliveries.c.changed_at, _NEWEST),
                deliveries.c.created_at <= 0,
            )
        ),
        "delivery {} has an impossible time of its last change",
    ),
    (
        select(deliveries.c.id).where(
            or_(
                deliveries.c.order_key.is_(None) & (deliveries.c.order_position != NEXT),
                deliveries.c.order_key.is_not(None) & _RUNNING & (deliveries.c.order_position != STARTED),
                (deliveries.c.attempt == 0) & ~_RUNNING & (deliveries.c.order_position < NEXT),
                deliveries.c.order_position < STARTED,
            )
        ),
        "delivery {} does not have the order position of its state",
    ),
    (
        select(func.max(deliveries.c.id))
        .where(in_order_group(deliveries) & _RUNNING)
        .group_by(deliveries.c.handler, deliveries.c.order_key)
        .having(func.count() > 1),
        "delivery {} runs at the same time as another delivery of the same handler and order key",
    ),
)
_OF_ATTEMPTS: Final = (
    (
        select(_ATTEMPT).outerjoin(deliveries, _OF_DELIVERY).where(deliveries.c.id.is_(None)),
        "delivery {} belongs to a delivery that does not exist",
    ),
    (
        select(_ATTEMPT).where(
            or_(attempts.c.finished_at.is_(None) != _UNFINISHED, attempts.c.outcome.not_in([*OutcomeKind]))
        ),
        "delivery {} has an impossible end",
    ),
    (
        select(_ATTEMPT).join(deliveries, _OF_DELIVERY).where(attempts.c.number < deliveries.c.attempt, _UNFINISHED),
        "delivery {} has not ended, but was followed by another attempt",
    ),
    (
        select(_ATTEMPT)
        .join(deliveries, _OF_DELIVERY)
        .where(
            or_(
                _later(deliveries.c.created_at, attempts.c.started_at),
                _later(attempts.c.started_at, deliveries.c.changed_at),
                _later(attempts.c.started_at, attempts.c.finished_at),
                _later(attempts.c.finished_at, deliveries.c.changed_at),
            )
        ),
        "delivery {} has an impossible start or end time",
    ),
    (
        select(_ATTEMPT).outerjoin(processes, processes.c.id == attempts.c.process).where(processes.c.id.is_(None)),
        "delivery {} was made by an unknown process",
    ),
)
_OF_OTHER_TABLES: Final = (
    (
        select(counters.c.name.concat(" of process ").concat(counters.c.process)).where(
            or_(counters.c.value < 0, counters.c.name.not_in(_COUNTERS))
        ),
        "counter {} is negative or unknown",
    ),
    (
        select(purged_identities.c.event_id).join(events, events.c.id == purged_identities.c.event_id),
        "event {} is stored, although its identity is kept as that of a purged event",
    ),
    (
        select(handlers.c.id).where(
            or_(
                handlers.c.circuit_opened_at.is_not(None) & handlers.c.paused_at.is_(None),
                handlers.c.circuit_opened_at.is_(None) & handlers.c.circuit_retry_at.is_not(None),
                handlers.c.has_probe.not_in([0, 1]),
                handlers.c.concurrency < 1,
                handlers.c.rate.is_(None) & handlers.c.rate_next_at.is_not(None),
                handlers.c.order_by.not_in(["business_key", "process_key"]),
            )
        ),
        "handler {} has impossible values",
    ),
    (
        select(handlers.c.id).where(handlers.c.circuit_retry_at > _NEWEST + literal(MAX_DELAY, BigInteger)),
        "handler {} has an impossible time of its next trial",
    ),
    (
        select(processes.c.id).where(_later(processes.c.started_at, processes.c.stopped_at)),
        "process {} ended before it started",
    ),
    (
        select(_INSTANCE).where(
            or_(
                (engine_instances.c.disposition == "has_event") != engine_instances.c.event_id.is_not(None),
                (engine_instances.c.disposition == "skipped") != (engine_instances.c.rule != ""),
                (engine_instances.c.disposition == "in_grace") != engine_instances.c.body.is_not(None),
            )
        ),
        "engine instance {} does not have the values of its disposition",
    ),
    (
        select(_INSTANCE)
        .join(events, events.c.id == engine_instances.c.event_id)
        .where(events.c.flow_instance_id != engine_instances.c.flow_instance_id),
        "engine instance {} is recorded with the event of another instance",
    ),
    (
        select(_INSTANCE).where(
            or_(
                _later(engine_instances.c.first_seen_at, engine_instances.c.changed_at),
                _later(engine_instances.c.changed_at, _NEWEST),
            )
        ),
        "engine instance {} has an impossible time of its last change",
    ),
    (
        select(engine_positions.c.source).where(
            or_(
                (engine_positions.c.failed_since.is_(None)) != (engine_positions.c.failures == 0),
                (engine_positions.c.failures == 0) != (engine_positions.c.reason == ""),
            )
        ),
        "the position of source {} has errors without a number, or a number without errors",
    ),
    (
        select(engine_positions.c.source).where(
            or_(
                engine_positions.c.declining_after.is_(None) != engine_positions.c.declining_until.is_(None),
                engine_positions.c.declining_note.is_(None) != engine_positions.c.declining_until.is_(None),
                engine_positions.c.declining_after >= engine_positions.c.declining_until,
            )
        ),
        "the position of source {} does not say which instances are being declined",
    ),
    (
        select(history_gaps.c.source).where(history_gaps.c.until < history_gaps.c.since),
        "a gap in the history of source {} ends before it begins",
    ),
)
_CHECKS: Final[tuple[tuple[Select[str], str], ...]] = (
    *(*_OF_EVENTS, *_OF_DELIVERIES, *_OF_ATTEMPTS, *_OF_OTHER_TABLES),
    *(*correction_checks.CHECKS, *error_groups.CHECKS, *field_checks.CHECKS),
    *(*ignored_requests.CHECKS, *trends.CHECKS, *OPERATION_CHECKS),
)
"""Each query with the sentence that is reported for each id that it returns."""

_NEWEST_TIMES: Final = select(
    select(func.max(events.c.received_at)).scalar_subquery(),
    select(func.max(conflicts.c.received_at)).scalar_subquery(),
    select(func.max(late_callbacks.c.received_at)).scalar_subquery(),
    select(func.max(attempts.c.started_at)).scalar_subquery(),
    select(func.max(attempts.c.finished_at)).scalar_subquery(),
    select(func.max(processes.c.started_at)).scalar_subquery(),
    select(func.max(processes.c.stopped_at)).scalar_subquery(),
    select(func.max(audit_log.c.at)).scalar_subquery(),
)
"""Query for the newest times of the ledger. The times of deliveries and handlers are left out, because they are checked
against them."""
_POSITIONS: Final = select(engine_positions.c.source, engine_positions.c.position).order_by(engine_positions.c.source)
_MISSING_EVENTS: Final = (
    (
        select(_INSTANCE)
        .outerjoin(events, events.c.id == engine_instances.c.event_id)
        .outerjoin(purged_identities, purged_identities.c.event_id == engine_instances.c.event_id)
        .where(
            engine_instances.c.event_id.is_not(None),
            events.c.id.is_(None),
            purged_identities.c.identity_sha256.is_(None),
        ),
        "engine instance {} is recorded with an event that does not exist",
    ),
    (correction_checks.LOST, "a conflicting body of event {} is recorded as accepted with no event"),
)
"""Queries for events that are neither stored nor purged, each with its sentence."""
_PURGED_IDENTITIES: Final = select(func.count()).select_from(purged_identities)


def _states(query: Select[str, int], connection: Connection) -> dict[str, int]:
    # As text, because a damaged state may be of any type.
    return dict(sorted((str(state), number) for state, number in connection.execute(query)))


def verify(connection: Connection) -> ConsistencyReport:
    """Check everything that is stored. One transaction, so that events accepted meanwhile do not matter."""
    filled = filled_tables(connection)
    counted = totals(connection)
    by_event = _states(select(events.c.state, func.count()).group_by(events.c.state), connection)
    report = ConsistencyReport(
        accepted=counted.accepted,
        stored=counted.stored,
        purged=counted.purged,
        events=by_event,
        deliveries=_states(select(deliveries.c.state, func.count()).group_by(deliveries.c.state), connection),
        attempts=connection.execute(select(func.count()).select_from(attempts)).scalar_one(),
        histories={str(source): shown_time(position) for source, position in connection.execute(_POSITIONS)},
    )
    _check_file(connection, report)
    _check_totals(connection, filled, report)
    # A damaged time may be a text.
    times = [value for value in connection.execute(_NEWEST_TIMES).one() if type(value) is int]
    newest = max([time.time_ns() // 1000, *times])
    by_sentence: dict[str, list[str]] = {}
    for sentence, key in check_values(connection, filled, newest, MAX_SHOWN + 1):
        _add(by_sentence, sentence, key)
    for sentence, ids in failed_checks(connection, _CHECKS, filled, MAX_SHOWN + 1, newest):
        _report(report, sentence, ids)
    for sentence, key in check_rows(connection, filled):
        _add(by_sentence, sentence, key)
    for sentence, keys in by_sentence.items():
        _report(report, sentence, keys)
    return report


def _check_file(connection: Connection, report: ConsistencyReport) -> None:
    """Let SQLite compare its pages and indexes: a damaged index hides rows from the statements that use it."""
    if connection.dialect.name == "sqlite":
        answers = connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_SHOWN})").scalars().all()
        report.problems.extend(f"the database file is damaged: {answer}" for answer in answers if answer != "ok")


def _check_totals(connection: Connection, filled: Collection[str], report: ConsistencyReport) -> None:
    if report.accepted != report.stored + report.purged:
        report.problems.append(
            f"{report.accepted} events were accepted, but {report.stored} are stored and {report.purged} were purged"
        )
    identities = connection.execute(_PURGED_IDENTITIES).scalar_one()
    if identities > report.purged:
        report.problems.append(f"{report.purged} events were purged, but the identities of {identities} are kept")
    if identities == report.purged:  # otherwise a purged event may look as if it had never existed
        for sentence, ids in failed_checks(connection, _MISSING_EVENTS, filled, MAX_SHOWN + 1):
            _report(report, sentence, ids)


def _add(by_sentence: dict[str, list[str]], sentence: str, key: str) -> None:
    keys = by_sentence.setdefault(sentence, [])
    if len(keys) <= MAX_SHOWN:
        keys.append(key)


def _report(report: ConsistencyReport, sentence: str, ids: Sequence[str]) -> None:
    report.problems.extend(sentence.format(key) for key in ids[:MAX_SHOWN])
    if len(ids) > MAX_SHOWN:
        report.problems.append(f"… and more of the same: {sentence.format('…')}")
