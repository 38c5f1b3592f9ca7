"""The objects that all operations use, in every interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flowhooks.ledger import audit
from flowhooks.ledger.ledger import Ledger
from flowhooks.operations.access import FULL, Access

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from flowhooks.background.alerts.tester import AlertTester
    from flowhooks.clock import Clock
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.event import Event
    from flowhooks.operations.reconciler import Reconciler
    from flowhooks.routing.router import Router
    from flowhooks.settings import Settings

T = TypeVar("T")


class Actor(NamedTuple):
    """An operator and the interface that they use.

    Attributes:
        name: the operator's name.
        interface: `"console"`, `"api"` or `"cli"`.
    """

    name: str
    interface: str


class AuditRecord(NamedTuple):
    """An operation, as recorded in the audit log.

    Attributes:
        action: name of the operation.
        target: id of the event, handler or alert concerned; `""` if there are several.
        detail: arguments and results of the operation, as JSON values.
        after: where the page of events starts; `""` for the first page.
        next_page: where the next page starts; `""` for the last page.
    """

    action: str
    target: str
    detail: Mapping[str, Any]
    after: str = ""
    next_page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """The objects that all operations use.

    Attributes:
        reader: the ledger. A dry run without a server has one that only reads.
        router: the current look-up.
        missing_handlers: ids of handlers that are or were registered and are not loaded.
        clock: time and ids.
        settings: the current settings.
        notify_accepted: notifies the plugins of a new event, with the ids of its handlers.
        reconciler: asks engines; None if no source has an engine, or in a dry run without a server.
        alert_tester: sends test messages; None in a dry run without a server.
        by: the operator; None if flowhooks acts by itself, which writes no audit record.
        access: what the operator may see and change.
        wake_operations: makes this process look at once for bulk operations that run.
    """

    reader: Reader
    router: Router
    missing_handlers: Collection[str]
    clock: Clock
    settings: Settings
    notify_accepted: Callable[[Event, Sequence[str]], None] = lambda _event, _handlers: None
    reconciler: Reconciler | None = None
    alert_tester: AlertTester | None = None
    by: Actor | None = None
    access: Access = FULL
    wake_operations: Callable[[], None] = lambda: None

    @property
    def actor(self) -> str | None:
        """The operator's name; None if flowhooks acts by itself."""
        return None if self.by is None else self.by.name

    @property
    def ledger(self) -> Ledger:
        """The ledger, for writing.

        Raises:
            TypeError: this context only reads.
        """
        if not isinstance(self.reader, Ledger):
            raise TypeError("a dry run does not write")
        return self.reader

    def change(
        self,
        write: Callable[[WriteTransaction], T],
        audit_record: Callable[[T], AuditRecord],
        *,
        alone: bool = False,
    ) -> T:
        """Change the ledger and write the audit record of the change in one transaction.

        Args:
            write: makes the change and returns what it changed; a false value writes no audit record.
            audit_record: makes the audit record from the result of `write`.
            alone: as in `Ledger.write`.

        Raises:
            Unavailable: the ledger could not be written; nothing was changed.
            FlowhooksError: raised by `write`; nothing was changed.
        """

        def changed(transaction: WriteTransaction) -> T:
            result = write(transaction)
            if result and self.by is not None:
                made = audit_record(result)
                entry = audit.AuditEntry(
                    id=self.clock.new_id(),
                    at=self.clock.now(),
                    actor=self.by.name,
                    interface=self.by.interface,
                    action=made.action,
                    target=made.target,
                    detail=made.detail,
                )
                audit.record(transaction, entry, after=made.after, next_page=made.next_page)
            return result

        return self.ledger.write(changed, alone=alone)
