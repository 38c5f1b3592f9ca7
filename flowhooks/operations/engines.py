"""Ask engines, reconcile with them now, confirm or decline waiting instances, and close gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

from flowhooks.clock import MAX_TIME, MIN_TIME, to_text
from flowhooks.errors import EngineError, NotFound, SettingsError
from flowhooks.ledger import engine_queries, history_gaps
from flowhooks.model.engine import FinishedInstance
from flowhooks.operations.context import AuditRecord
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.engine_queries import EnginePosition, Waiting
    from flowhooks.model.engine import ProcessDefinition
    from flowhooks.operations.context import OperationContext
    from flowhooks.operations.reconciler import Reconciler
    from flowhooks.settings import Settings

_COUNT_SCHEMA: Final = {"minimum": 0, "maximum": 2**63 - 1}
_TIME_SCHEMA: Final = {"minimum": MIN_TIME, "maximum": MAX_TIME}
RECONCILE_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"properties": {"declined": {"enum": [False, None]}}},
        {"properties": {"since": {"type": "integer"}}, "required": ["since"]},
    ]
}
"""Additional requirements of a reconciliation on its arguments, as JSON Schema for the API description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRound:
    """Result of one reconciliation with one engine, or of its dry run.

    Attributes:
        source: name of the source.
        since: start of the interval of end times that was read, in microseconds since 1970; 0 if it was not reached.
        until: end of the interval, in microseconds since 1970; 0 as above.
        read: number of instances that were read.
        has_event: number of these that have an event.
        skipped: number of skipped instances, by rule.
        in_grace: number of instances that wait until their grace ends.
        taken_in: number of instances that were taken in, or would be.
        to_confirm: number of instances that wait for an operator.
        waiting: number of instances whose own grace has ended, and that wait because this server could not take
            callbacks, so that the engine may call again.
        error: why the reconciliation stopped; `""`: it did not.
    """

    source: str
    since: int
    until: int
    read: int
    has_event: int
    skipped: dict[str, int] = field(default_factory=dict)
    in_grace: int
    taken_in: int
    to_confirm: int
    waiting: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileResult:
    """Results of reconciliations, one for each engine.

    Attributes:
        sources: one result for each engine.
        dry_run: whether nothing was changed.
    """

    sources: tuple[SourceRound, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmResult:
    """Result of a confirmation, or of its dry run.

    Attributes:
        source: name of the source.
        instances: maximum number of instances that may be taken in; some may get their event before.
        seen_until: the instances were first seen until this time, in microseconds since 1970.
        dry_run: whether nothing was changed.
    """

    source: str
    instances: int
    seen_until: int
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineResult:
    """Result of declining instances, or of its dry run.

    Attributes:
        source: name of the source.
        instances: number of instances that were declined; in a dry run, the maximum number, because some may get their
            event before.
        seen_until: the instances were first seen until this time, in microseconds since 1970.
        dry_run: whether nothing was changed.
    """

    source: str
    instances: int
    seen_until: int
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseGapsResult:
    """Result of closing the gaps in the history of an engine, or of its dry run.

    Attributes:
        source: name of the source.
        gaps: number of gaps that were closed, or would be.
        found_until: the gaps were found, or last extended, until this time, in microseconds since 1970.
        dry_run: whether nothing was changed.
    """

    source: str
    gaps: int
    found_until: int
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswer:
    """The answer of one engine about a process instance.

    Attributes:
        source: name of the source.
        status: `"finished"`, `"running"`, `"absent"`, or `"failed"` if the engine did not answer.
        error: why it did not answer; `""`: it did.
        end_state: how the instance ended; None: it has not, or the engine does not know it.
        started_at: when it started, by the engine's clock, as text; None: not known.
        ended_at: when it ended, by the engine's clock, as text; None: it has not.
        process_definition_key: the key of its definition, or None.
        process_definition_version: the version of its definition, or None.
        business_key: its business key, or None.
        conclusion: its conclusion in the engine's words, or None.
        parent_id: the instance that called it, or None.
        tenant_id: its tenant, or None.
    """

    source: str
    status: str
    error: str = ""
    end_state: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    process_definition_key: str | None = None
    process_definition_version: int | None = None
    business_key: str | None = None
    conclusion: str | None = None
    parent_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskResult:
    """The answers of engines about a process instance.

    Attributes:
        instance: the instance's id.
        answers: one answer for each engine that was asked.
    """

    instance: str
    answers: tuple[EngineAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDefinitions:
    """The deployed definitions of one engine.

    Attributes:
        source: name of the source.
        definitions: the definitions; empty if the engine did not answer.
        error: why the engine did not answer; `""`: it did.
    """

    source: str
    definitions: tuple[ProcessDefinition, ...]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionsResult:
    """The deployed definitions of engines.

    Attributes:
        sources: one entry for each engine that was asked.
    """

    sources: tuple[SourceDefinitions, ...]


def reconcile(
    context: OperationContext,
    *,
    source: str = "",
    since: Annotated[int | None, _TIME_SCHEMA] = None,
    declined: bool = False,
    dry_run: bool = False,
) -> ReconcileResult:
    """Reconcile with one engine or with all engines now.

    Args:
        context: what operations work with.
        source: name of the source; `""`: all sources with an engine.
        since: read the history from this time on, in microseconds since 1970, even if it was read before; default:
            from where the last reconciliation ended.
        declined: take in instances, too, that an operator declined and that ended after `since`.
        dry_run: only report what would be taken in.

    Raises:
        NotFound: there is no such source, or it has no engine.
        SettingsError: `declined` without `since`.
        Unavailable: the ledger could not be written.
    """
    if declined and since is None:
        raise SettingsError("declined needs since: give the time from which on declined instances are taken in")
    reconciler = _reconciler(context)
    results = []
    for name in _names(reconciler, source):
        if not dry_run:
            # Before the reconciliation, which is many transactions and can be interrupted.
            detail: dict[str, Any] = {} if since is None else {"since": to_text(since)}
            if declined:
                detail["declined"] = True
            context.change(lambda _: True, _record("reconcile", name, detail))
        done = reconciler.reconcile_now(name, since=since, declined=declined, dry_run=dry_run)
        results.append(
            SourceRound(
                source=name,
                since=done.since,
                until=done.until,
                read=done.read,
                has_event=done.has_event,
                skipped=dict(done.skipped),
                # A round counts an instance that it reads and then takes in under both.
                in_grace=max(0, done.in_grace - done.taken_in),
                taken_in=done.taken_in,
                to_confirm=done.to_confirm,
                waiting=done.waiting,
                error=printable_line(done.error),
            )
        )
    return ReconcileResult(sources=tuple(results), dry_run=dry_run)


def confirm_reconciliation(
    context: OperationContext,
    *,
    source: str,
    instances: Annotated[int | None, _COUNT_SCHEMA] = None,
    seen_until: Annotated[int | None, _TIME_SCHEMA] = None,
    dry_run: bool = False,
) -> ConfirmResult:
    """Let the next reconciliation take in more instances than `max_new`.

    Args:
        context: what operations work with.
        source: name of the source.
        instances: the number that a dry run has returned; more are not confirmed.
        seen_until: the time that a dry run has returned, in microseconds since 1970: only instances that were first
            seen until then are confirmed; default: as many as the last reconciliation has counted.
        dry_run: only report how many instances wait.

    Raises:
        NotFound: there is no such source, or it has no engine.
        SettingsError: `seen_until` is later than the last reconciliation, or more instances wait than `instances`.
        Unavailable: the ledger could not be written; nothing was changed.
    """
    reconciler = _reconciler(context)
    (name,) = _names(reconciler, source or "''")
    waiting = _waiting(context, name, instances, seen_until)
    count = waiting.instances if instances is None else instances
    if count and not dry_run:
        context.change(lambda _: True, _record("confirm_reconciliation", name, {"instances": count}))
        reconciler.confirm(name, waiting.seen_until)
    return ConfirmResult(source=name, instances=count, seen_until=waiting.seen_until, dry_run=dry_run)


def decline_reconciliation(
    context: OperationContext,
    *,
    source: str,
    note: str = "",
    instances: Annotated[int | None, _COUNT_SCHEMA] = None,
    seen_until: Annotated[int | None, _TIME_SCHEMA] = None,
    dry_run: bool = False,
) -> DeclineResult:
    """Skip the instances that wait for an operator: they do not become events, unless they are asked for later.

    Args:
        context: what operations work with.
        source: name of the source.
        note: reason, stored beside each instance and in the audit log.
        instances: the number that a dry run has returned; more are not declined.
        seen_until: the time that a dry run has returned, in microseconds since 1970: only instances that were first
            seen until then are declined; default: as many as the last reconciliation has counted.
        dry_run: only report how many instances wait.

    Raises:
        NotFound: there is no such source, or it has no engine.
        SettingsError: `seen_until` is later than the last reconciliation, or more instances wait than `instances`.
        LedgerError: the source cannot be reconciled now: the message says why, such as another process. Nothing was
            declined, or a part, and the next reconciliation declines the rest.
        Unavailable: the ledger could not be written. Nothing was declined, or a part, as above.
    """
    reconciler = _reconciler(context)
    (name,) = _names(reconciler, source or "''")
    waiting = _waiting(context, name, instances, seen_until)
    count = waiting.instances if instances is None else instances
    if count and not dry_run:
        # Before the instances are declined, which is many transactions and can be interrupted.
        context.change(lambda _: True, _record("decline_reconciliation", name, {"instances": count, "note": note}))
        count = reconciler.decline(name, waiting.seen_until, note=note)
    return DeclineResult(source=name, instances=count, seen_until=waiting.seen_until, dry_run=dry_run)


def close_gaps(
    context: OperationContext,
    *,
    source: str,
    note: str = "",
    found_until: Annotated[int | None, _TIME_SCHEMA] = None,
    dry_run: bool = False,
) -> CloseGapsResult:
    """Close the gaps in the history of an engine, after an operator has looked at them.

    A gap that nobody has looked at stays open: one that is found, or extended, after `found_until`.

    Args:
        context: what operations work with.
        source: name of the source.
        note: reason, stored in the audit log.
        found_until: the time that a dry run has returned, in microseconds since 1970; default: now.
        dry_run: only count.

    Raises:
        NotFound: there is no such source, or it has no engine.
        SettingsError: `found_until` is later than now.
        Unavailable: the ledger could not be written; nothing was changed.
    """
    (name,) = _names(_reconciler(context), source or "''")
    now = context.clock.now()
    until = now if found_until is None else found_until
    if until > now:
        raise SettingsError("found_until is later than now, so nobody has seen these gaps")
    if dry_run:
        with context.reader.connection() as connection:
            found = engine_queries.open_gaps(connection).get(name, [])
        count = sum(gap.found_at <= until for gap in found)
    else:
        count = context.change(
            lambda transaction: history_gaps.close_seen(transaction, name, until, now),
            lambda closed: AuditRecord("close_gaps", name, {"gaps": closed, "note": note}),
        )
    return CloseGapsResult(source=name, gaps=count, found_until=until, dry_run=dry_run)


def _waiting(context: OperationContext, name: str, instances: int | None, seen_until: int | None) -> Waiting:
    """Return the instances that wait for an operator, as far as the operator has seen them.

    Raises:
        SettingsError: `seen_until` is later than the last reconciliation, or more instances wait than `instances`.
    """
    with context.reader.connection() as connection:
        position = engine_queries.positions(connection).get(name)
        waiting = engine_queries.waiting(connection, name, seen_until)
    if seen_until is not None and (position is None or seen_until > position.round_at):
        raise SettingsError("seen_until is later than the last reconciliation, so nobody has seen these instances")
    if instances is not None and waiting.instances > instances:
        raise SettingsError(f"{waiting.instances:,} instances of {name} wait, not {instances:,}: look at them again")
    return waiting


def ask_engine(context: OperationContext, *, instance: str, source: str = "") -> AskResult:
    """Ask one engine or all engines about a process instance. Nothing is changed.

    Args:
        context: what operations work with.
        instance: id of the process instance.
        source: name of the source; `""`: all sources with an engine.

    Raises:
        NotFound: there is no such source, or it has no engine.
    """
    reconciler = _reconciler(context)
    names = _names(reconciler, source)
    return AskResult(instance=instance, answers=tuple(_ask(reconciler, name, instance) for name in names))


def read_definitions(context: OperationContext, *, source: str = "") -> DefinitionsResult:
    """Read the deployed definitions of one engine or of all engines. Nothing is changed.

    Args:
        context: what operations work with.
        source: name of the source; `""`: all sources with an engine.

    Raises:
        NotFound: there is no such source, or it has no engine.
    """
    reconciler = _reconciler(context)
    found = []
    for name in _names(reconciler, source):
        try:
            found.append(SourceDefinitions(source=name, definitions=tuple(reconciler.client(name).definitions())))
        except EngineError as error:
            found.append(SourceDefinitions(source=name, definitions=(), error=printable_line(error.why)))
    return DefinitionsResult(sources=tuple(found))


def _record(action: str, source: str, detail: Mapping[str, Any]) -> Any:
    return lambda _: AuditRecord(action, source, detail)


def _reconciler(context: OperationContext) -> Reconciler:
    if context.reconciler is None or not context.reconciler.sources:
        raise NotFound("no source has an engine: add a section [sources.NAME.engine] to the settings")
    return context.reconciler


def _names(reconciler: Reconciler, source: str) -> Sequence[str]:
    if source and source not in reconciler.sources:
        raise NotFound(
            f"no source {source} with an engine is configured; there are {', '.join(sorted(reconciler.sources))}"
        )
    return [source] if source else sorted(reconciler.sources)


def _ask(reconciler: Reconciler, name: str, instance: str) -> EngineAnswer:
    try:
        found = reconciler.client(name).instance(instance)
    except EngineError as error:
        return EngineAnswer(source=name, status="failed", error=printable_line(error.why))
    if not isinstance(found, FinishedInstance):
        return EngineAnswer(source=name, status=found.value)
    return EngineAnswer(
        source=name,
        status="finished",
        end_state=found.end_state.value,
        started_at=None if found.started_at is None else found.started_at.isoformat(),
        ended_at=found.ended_at.isoformat(),
        process_definition_key=found.process_definition_key,
        process_definition_version=found.process_definition_version,
        business_key=found.business_key,
        conclusion=found.conclusion,
        parent_id=found.parent_id,
        tenant_id=found.tenant_id,
    )


def state_of(position: EnginePosition | None) -> str:
    """Return the state of an engine: `"never_asked"`, `"failing"`, `"to_confirm"` or `"up_to_date"`."""
    if position is None or (position.succeeded_at is None and position.failed_since is None):
        return "never_asked"
    if position.failed_since is not None:
        return "failing"
    return "to_confirm" if position.unconfirmed else "up_to_date"


def engine_positions(connection: Connection, settings: Settings) -> dict[str, EnginePosition | None]:
    """Return how far each engine's history was read, by source; None: it was never asked.

    These are the engines that the settings name or that were asked before, sorted by source.
    """
    positions = engine_queries.positions(connection)
    configured = {name for name, source in settings.sources.items() if source.engine is not None}
    return {name: positions.get(name) for name in sorted({*configured, *positions})}
