"""The start of attempts: what is stored of it, such as the plugin's version and who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Text, bindparam, select

from flowhooks.errors import ProcessExpired
from flowhooks.ledger import database
from flowhooks.ledger.tables import attempts, processes
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import Origin
from flowhooks.model.plugin_version import UNKNOWN_VERSION, PluginVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from flowhooks.ledger.deliveries import ClaimRequest
    from flowhooks.ledger.transaction import WriteTransaction

# Its row is locked, so that no other process expires it before the COMMIT. A process that is being expired is skipped:
# if the transaction waited, it would hold deliveries for which the other process may wait.
_LIVE_PROCESS: Final = (
    select(processes.c.id)
    .where(processes.c.id == bindparam("live_process", type_=Text), processes.c.stopped_at.is_(None))
    .with_for_update(read=True, key_share=True, skip_locked=True)
    .scalar_subquery()
)
_INSERT: Final = database.BulkInsert(attempts, also_read=_LIVE_PROCESS)
_TRIGGERS: Final = frozenset(Trigger)


class InFlightAttempts:
    """The attempts that this process has started and that have not ended.

    If the reply to a COMMIT is lost, the database may list attempts as running that this process never started. They
    are recognized by being absent here.

    Args:
        on_expired: called, within its transaction, if an attempt cannot start because this process has expired.

    Attributes:
        on_expired: as given.
        plugin_versions: the version of the plugin of each loaded handler, by handler id. Each attempt stores it.
    """

    def __init__(self, on_expired: Callable[[], None] = lambda: None) -> None:
        self._attempts: set[tuple[str, int]] = set()
        self.on_expired = on_expired
        self.plugin_versions: Mapping[str, PluginVersion] = {}

    def add(self, attempts: Iterable[tuple[str, int]]) -> None:
        """Add attempts that are about to start."""
        self._attempts.update(attempts)

    def discard(self, attempts: Iterable[tuple[str, int]]) -> None:
        """Remove attempts whose result is durable, or whose start was not confirmed, so that they never run."""
        self._attempts.difference_update(attempts)

    def __contains__(self, attempt: tuple[str, int]) -> bool:
        return attempt in self._attempts


class AttemptStart(NamedTuple):
    """An attempt to be stored.

    Attributes:
        delivery_id: its delivery.
        handler: its handler's id.
        number: its number.
        now: when it starts, in microseconds since 1970.
        trigger: why it starts.
        actor: the operator who asked for it; None: no operator did.
        operation_id: the bulk operation that asked for it; None: none did.
    """

    delivery_id: str
    handler: str
    number: int
    now: int
    trigger: Trigger
    actor: str | None = None
    operation_id: str | None = None


def to_start(request: ClaimRequest, marked: Any, origin: str | None, trigger: Trigger | None) -> AttemptStart:
    """Return the start of an attempt.

    Args:
        request: the claim.
        marked: the row of its delivery, from one of the statements that start attempts.
        origin: the origin of its event.
        trigger: why it starts, unless the row says so; None: it is a first attempt or a retry.
    """
    queued, number = request.queued, request.queued.attempt + 1
    if marked.next_trigger in _TRIGGERS:
        trigger = Trigger(marked.next_trigger)
    if trigger is None:
        trigger = Trigger.RETRY if number > 1 else first_trigger(origin)
    return AttemptStart(
        queued.delivery_id, queued.handler, number, request.now, trigger, marked.next_actor, marked.operation_id
    )


def first_trigger(origin: str | None) -> Trigger:
    """Return why the first attempt of a delivery starts, from the origin of its event."""
    return Trigger.RECONCILED if origin == Origin.RECONCILED else Trigger.FIRST


def start_attempts(
    transaction: WriteTransaction, starts: Collection[AttemptStart], in_flight: InFlightAttempts, *, process: str
) -> None:
    """Store started attempts. The same transaction marks their deliveries as *running*.

    Raises:
        ProcessExpired: other processes of a shared ledger have expired this one, or are about to.
    """
    keys = [(start.delivery_id, start.number) for start in starts]
    versions = in_flight.plugin_versions
    # Before the commit, because other work of the same transaction may read it.
    in_flight.add(keys)
    transaction.after_rollback(lambda: in_flight.discard(keys))
    rows = [_row(start, versions.get(start.handler, UNKNOWN_VERSION), process) for start in starts]
    if transaction.connection.dialect.name == "sqlite":  # no other process writes
        _INSERT(transaction.connection, rows)
        return
    _, live_process = _INSERT.insert_and_read(transaction.connection, rows, live_process=process)
    if live_process is None:
        in_flight.on_expired()
        raise ProcessExpired


def _row(start: AttemptStart, version: PluginVersion, process: str) -> dict[str, Any]:
    return {
        "delivery_id": start.delivery_id,
        "number": start.number,
        "process": process,
        "started_at": start.now,
        "error": "",
        "traceback": "",
        "plugin_version": version.version or None,
        "plugin_digest": version.digest or None,
        "trigger": start.trigger.value,
        "actor": start.actor,
        "operation_id": start.operation_id,
    }
