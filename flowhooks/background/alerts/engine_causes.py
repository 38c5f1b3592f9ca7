"""Find causes in engines and sources: unreachable engines, missed callbacks, gaps, silent and rejected sources."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import Cause, MessageTemplate
from flowhooks.clock import DAY, SECOND, to_text
from flowhooks.ledger import engine_queries, source_queries
from flowhooks.ledger.alert_queries import LatestOccurrence
from flowhooks.ledger.history_gaps import DELETED_PERIOD
from flowhooks.model.alert import AlertCause
from flowhooks.text import printable_line, shell_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.engine_queries import EnginePosition, HistoryGap
    from flowhooks.settings import Settings, Source

MIN_FAILURES: Final = 3
"""Number of failed reconciliations in a row from which an engine counts as unreachable."""
MAX_SKEW: Final = 30 * SECOND
"""Microseconds by which the clock of an engine may differ from ours."""
MIN_REJECTED: Final = 10
"""Minimum number of rejected callbacks of a source in one hour."""
OVERDUE_ROUNDS: Final = 3
"""Number of rounds, by `reconcile_every`, without a success from which reconciliation counts as overdue."""
OVERDUE_AFTER: Final = 3600 * SECOND
"""Minimum time without a success for the same, in microseconds."""
RECENT_PERIOD: Final = DAY
"""Microseconds for which a missed callback or a reused id keeps its alert open."""
_OVERLAP: Final = 120 * SECOND
"""Microseconds of events that are searched again at each check: another process may have stored them late. The clock of
another process may be ahead by the same.
"""
_MAX_SILENCE: Final = 31 * DAY
"""Maximum age of the events that the first check searches for a source's last callback."""

UNREACHABLE: Final = MessageTemplate(
    "The history of engine {subject} cannot be read since {since}, {many} failed: {why}. Check url and credential in "
    "[sources.NAME.engine] and the engine itself, then run `flowhooks engines reconcile --source {quoted}`.",
    ("reconciliation", "reconciliations"),
)
UNSTORED: Final = MessageTemplate(
    "The history of engine {subject} cannot be stored since {since}, {many} failed: {why}. Find out what keeps the "
    "database busy, and whether its disk is full, then run `flowhooks engines reconcile --source {quoted}`.",
    ("reconciliation", "reconciliations"),
)
OVERDUE: Final = MessageTemplate(
    "The history of engine {subject} was last read completely before {since}, and no error says why. Run "
    "`flowhooks engines reconcile --source {quoted}`: its result says what stops it. The log has the reason as "
    "`reconciliation_postponed` or `reconciliation_fault`."
)
RENAMED: Final = MessageTemplate(
    "The history of engine {subject} was last read completely before {since}: it is read as {why}. Add that name to "
    "former_names of {subject}, unless a server still uses it."
)
MISSED: Final = MessageTemplate(
    "{many} of engine {subject} {have} completed without a callback, the first taken in at {since}. Their events were "
    "made from the engine's history. `flowhooks events show {why}` shows one of them. Find out why the engine does "
    "not call, or why its callbacks are answered 503.",
    ("instance", "instances"),
)
GAP: Final = MessageTemplate(
    "{many} in the history of engine {subject} could not be read: {why}. Instances that ended then may be missing. "
    "Ask the engine for them, or run `flowhooks engines reconcile --source {quoted} --since {since}` when the history "
    "can be read. If the history is deleted, find out which instances ended then, and run "
    "`flowhooks engines close-gaps --source {quoted}`.",
    ("interval", "intervals"),
)
REUSED: Final = MessageTemplate(
    "Engine {subject} has used the id of an earlier instance again for {many}, the first found at {since}. Each was "
    "taken in as an event of its own. `flowhooks engines show {why}` shows the last one. Find out whether the engine "
    "was restored or replaced.",
    ("instance", "instances"),
)
SILENT: Final = MessageTemplate(
    "Source {subject} has sent no callback since {since}, which is longer than silent_after. Find out whether the "
    "engine runs and can reach flowhooks. `flowhooks sources test {quoted}` shows whether its credential is accepted."
)
REJECTED: Final = MessageTemplate(
    "{many} of source {subject} {have} been rejected in the last hour, more than were accepted, the first at {since}. "
    "The last reason: {why}. Correct what the engine sends. `flowhooks send` checks a body.",
    ("callback", "callbacks"),
)
UNCONFIRMED: Final = MessageTemplate(
    "{many} of engine {subject} {are} waiting to be taken in, more than max_new allows at once, the first ended at "
    "{since}. Look at them with `flowhooks engines reconcile --source {quoted} --dry-run`, then run "
    "`flowhooks engines reconcile --source {quoted} --confirm` to take them in, or "
    "`flowhooks engines decline --source {quoted}` to skip them.",
    ("instance", "instances"),
)
NO_ENGINE: Final = MessageTemplate(
    "{many} of source {subject} {have} no event and {are} not taken in, because the settings have no section "
    "[sources.{subject}.engine] any more; the first ended at {since}. If the source has another name now, "
    "add {subject} to former_names of that source. Otherwise add the section again. If the engine had another source "
    "meanwhile, add that source to former_names of {subject}, so that no handler runs twice.",
    ("finished instance", "finished instances"),
)
INVALID: Final = MessageTemplate(
    "{many} of engine {subject} {have} no event, because the data cannot become a callback: {why}. Correct the "
    "instances in the engine, or the settings, then run "
    "`flowhooks engines reconcile --source {quoted} --since {since}`. "
    "This alert ends a day after the last one was found.",
    ("finished instance", "finished instances"),
)
SKEW: Final = MessageTemplate(
    "The clock of engine {subject} differs from the clock of flowhooks by {why}, found at {since}. Synchronize both "
    "clocks by NTP. `flowhooks engines list` shows the difference."
)


class EngineCauseFinder:
    """Finds causes in engines and sources.

    Args:
        settings: returns the current settings. The time of the first check counts as the last callback of a source
            that has sent none.

    Attributes:
        undecided: the keys of the causes that the last check could neither find nor exclude, because the first check
            was too recent. Their open alerts must stay open.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self.undecided: set[tuple[AlertCause, str]] = set()
        self._last_callbacks: dict[str, int] = {}
        self._first_check_at: int | None = None
        self._searched_until: int | None = None

    def find(self, connection: Connection, now: int) -> Iterator[Cause]:
        """Yield every cause in engines and sources.

        Args:
            connection: reads a consistent snapshot.
            now: microseconds since 1970.
        """
        sources = self._settings().sources
        self.undecided = set()
        self._first_check_at = now if self._first_check_at is None else min(self._first_check_at, now)
        asked = {name: source for name, source in sources.items() if source.engine is not None}
        if asked:
            yield from self._engines(connection, asked, now)
        yield from _without_engine(connection, asked)
        yield from self._silent(connection, sources, now)
        yield from _rejected(connection, sources, now)

    def _engines(self, connection: Connection, asked: Mapping[str, Source], now: int) -> Iterator[Cause]:
        positions = engine_queries.positions(connection)
        gaps = engine_queries.open_gaps(connection, deleted_since=now - DELETED_PERIOD)
        for name, source in asked.items():
            position = positions.get(name)
            if position is not None:
                yield from _of_position(connection, position, now)
            if position is None or not _is_failing(position):
                yield from self._overdue(connection, name, source, position=position, now=now)
            if source.has_credential:  # nobody expects callbacks of another one
                yield from _missed(connection, name, now)
            yield from _gap(name, gaps.get(name, ()))
            yield from _reused(connection, name, now)
            yield from _invalid(connection, name, now)

    def _overdue(
        self, connection: Connection, name: str, source: Source, *, position: EnginePosition | None, now: int
    ) -> Iterator[Cause]:
        """Find a source whose rounds neither succeed nor fail, whatever keeps them from it."""
        if source.engine is None or self._first_check_at is None:
            return
        rounds = int(OVERDUE_ROUNDS * source.engine.reconcile_every * SECOND)
        limit = max(rounds, OVERDUE_AFTER)
        # After a pause of all servers, the first rounds have time to end.
        succeeded_at = None if position is None else position.succeeded_at
        started_at = self._first_check_at if succeeded_at is None else succeeded_at
        if succeeded_at is not None and now - started_at <= limit:
            return
        if now - started_at <= limit or now - self._first_check_at <= min(rounds, limit):
            self.undecided.add((AlertCause.ENGINE_UNREACHABLE, name))
        else:
            present_name = "" if position is not None else engine_queries.present_name(connection, name)
            yield Cause(
                cause=AlertCause.ENGINE_UNREACHABLE,
                subject=name,
                since=started_at,
                count=lambda _: 1,
                template=RENAMED if present_name else OVERDUE,
                why=present_name,
            )

    def _silent(self, connection: Connection, sources: Mapping[str, Source], now: int) -> Iterator[Cause]:
        limits = {
            name: int(source.silent_after * SECOND)
            for name, source in sources.items()
            if source.silent_after and source.has_credential
        }
        if not limits or self._first_check_at is None:
            return
        if self._searched_until is not None and self._searched_until > now:  # the clock was set back
            self._searched_until = None
            self._last_callbacks.clear()
        since = now - min(max(limits.values()), _MAX_SILENCE) if self._searched_until is None else self._searched_until
        until = now + _OVERLAP  # without the times of a clock that was ahead
        for name, received_at in source_queries.newest_callbacks(connection, since, until).items():
            self._last_callbacks[name] = max(received_at, self._last_callbacks.get(name, 0))
        self._searched_until = now - _OVERLAP
        for name, limit in limits.items():
            last_at = self._last_callbacks.get(name, 0)
            if now - last_at > limit:  # its last callback may be older than the events that were read
                answered_until = source_queries.last_success(connection, name, until)
                last_at = max(last_at, min(answered_until or 0, now))
            if not last_at:
                last_at = self._first_check_at
                if now - last_at <= limit:
                    self.undecided.add((AlertCause.SOURCE_SILENT, name))
            if now - last_at > limit:
                yield Cause(
                    cause=AlertCause.SOURCE_SILENT, subject=name, since=last_at, count=lambda _: 1, template=SILENT
                )


def _is_failing(position: EnginePosition) -> bool:
    return position.failed_since is not None and position.failures >= MIN_FAILURES


def _without_engine(connection: Connection, asked: Collection[str]) -> Iterator[Cause]:
    """Find instances in grace whose source has no engine any more: no round takes them in."""
    for name, (instances, first_at) in engine_queries.in_grace_by_source(connection).items():
        if name not in asked:
            yield Cause(
                cause=AlertCause.RECONCILIATION_UNCONFIRMED,
                subject=name,
                since=first_at,
                count=_constant(instances),
                template=NO_ENGINE,
            )


def _of_position(connection: Connection, position: EnginePosition, now: int) -> Iterator[Cause]:
    name = position.source
    if position.failed_since is not None and _is_failing(position):
        error = printable_line(position.error)
        yield Cause(
            cause=AlertCause.ENGINE_UNREACHABLE,
            subject=name,
            since=position.failed_since,
            count=lambda _: position.failures,
            template=UNSTORED if position.reason == "database" else UNREACHABLE,
            why=error,
            latest=lambda _: LatestOccurrence(position.round_at, error),
        )
    if position.unconfirmed:
        yield Cause(
            cause=AlertCause.RECONCILIATION_UNCONFIRMED,
            subject=name,
            since=engine_queries.oldest_in_grace(connection, name) or position.round_at,
            count=lambda _: position.unconfirmed,
            template=UNCONFIRMED,
        )
    if position.skew is not None and abs(position.skew) > MAX_SKEW:
        yield Cause(
            cause=AlertCause.CLOCK_SKEW,
            subject=name,
            since=now,
            count=lambda _: 1,
            template=SKEW,
            why=f"{position.skew / SECOND:+.1f} s",
        )


def _missed(connection: Connection, name: str, now: int) -> Iterator[Cause]:
    found = engine_queries.taken_in(connection, name, now - RECENT_PERIOD)
    if found.first_at is not None:
        yield Cause(
            cause=AlertCause.CALLBACKS_MISSED,
            subject=name,
            since=found.first_at,
            count=lambda _: found.missed,
            event_id=found.event_id,
            template=MISSED,
            why=found.event_id,
            latest=lambda _: LatestOccurrence(found.last_at or 0),
        )


def _gap(name: str, gaps: Sequence[HistoryGap]) -> Iterator[Cause]:
    if gaps:
        newest = max(gaps, key=lambda gap: gap.found_at)
        detail = printable_line(f"{newest.reason}, {newest.detail}" if newest.detail else newest.reason)
        yield Cause(
            cause=AlertCause.HISTORY_GAP,
            subject=name,
            since=gaps[0].since,
            count=partial(_length, gaps),
            template=GAP,
            why=f"the last one from {to_text(newest.since)} to {to_text(newest.until)}, {detail}",
            latest=lambda _: LatestOccurrence(newest.found_at, detail),
        )


def _length(gaps: Sequence[HistoryGap], _connection: Connection) -> int:
    return len(gaps)


def _reused(connection: Connection, name: str, now: int) -> Iterator[Cause]:
    found = engine_queries.reused_ids(connection, name, now - RECENT_PERIOD)
    if found.first_at is not None:
        yield Cause(
            cause=AlertCause.INSTANCE_ID_REUSED,
            subject=name,
            since=found.first_at,
            count=lambda _: found.instances,
            event_id=found.event_id,
            template=REUSED,
            why=_argument(found.instance),
        )


def _invalid(connection: Connection, name: str, now: int) -> Iterator[Cause]:
    found = engine_queries.invalid_instances(connection, name, now - RECENT_PERIOD)
    if (last := found.last) is not None:
        rules = ", ".join(f"{count:,} {rule}" for rule, count in found.instances.items())
        detail = printable_line(f"{last.flow_instance_id}: {last.detail or last.rule}")
        yield Cause(
            cause=AlertCause.INSTANCES_INVALID,
            subject=name,
            since=found.first_ended_at,
            count=_constant(sum(found.instances.values())),
            template=INVALID,
            why=f"{rules}; the last one is {detail}",
            latest=lambda _: LatestOccurrence(last.changed_at, detail),
        )


def _argument(value: str) -> str:
    """Return a value that an engine has chosen, as an argument of a command that a person copies into a shell."""
    quoted = shell_quote(value if value.isprintable() else printable_line(value))
    if quoted.endswith("."):
        quoted = f"'{quoted}'"  # the message drops full stops at the end of a reason
    return f"-- {quoted}" if value.startswith("-") else quoted


def _rejected(connection: Connection, sources: Mapping[str, Source], now: int) -> Iterator[Cause]:
    for name, (requests, first_at, reason) in source_queries.client_errors(
        connection, now - source_queries.HOUR
    ).items():
        if name not in sources or requests < MIN_REJECTED:
            continue
        accepted = source_queries.count_callbacks(connection, name, now - source_queries.HOUR, limit=requests)
        if accepted < requests:
            yield Cause(
                cause=AlertCause.SOURCE_REJECTED,
                subject=name,
                since=first_at,
                count=_constant(requests),
                template=REJECTED,
                why=printable_line(reason),
                latest=_occurrence(now, reason),
            )


def _constant(value: int) -> Callable[[Connection], int]:
    return lambda _: value


def _occurrence(at: int, error: str) -> Callable[[Connection], LatestOccurrence]:
    return lambda _: LatestOccurrence(at, printable_line(error))
