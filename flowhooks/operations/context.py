"""What operators do, one use case a file, whatever face asks for it; it must not hold SQL or HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flowhooks.ledger import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.routing.router import Router

T = TypeVar("T")


class Actor(NamedTuple):
    """Who does something.

    Attributes:
        name: the operator's name.
        interface: by which they do it: `"console"`, `"api"` or `"cli"`.
    """

    name: str
    interface: str


class AuditRecord(NamedTuple):
    """What somebody has done, for those who look later.

    Attributes:
        action: the operation's name.
        target: the id of the event, handler or alert that it is about; `""` if it is about several.
        detail: what was asked for, and what that changed, as JSON has it.
    """

    action: str
    target: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """What every operation works with.

    Attributes:
        ledger: the ledger, for writing.
        router: the present look-up.
        missing_handlers: ids of handlers that are registered, or were, but are not loaded.
        clock: time and ids.
        by: who asks; None: nobody does, flowhooks does it by itself, and no deed is written down.
    """

    ledger: Ledger
    router: Router
    missing_handlers: Collection[str]
    clock: Clock
    by: Actor | None = None

    def change(self, write: Callable[[WriteTransaction], T], audit_record: Callable[[T], AuditRecord]) -> T:
        """Change something in one transaction, and write down in the same one who has done it.

        Args:
            write: changes it, and returns what it has changed; nothing is written down of what is false.
            audit_record: what to write down of what was changed.

        Raises:
            Unavailable: the ledger could not be written; nothing was changed.
            FlowhooksError: whatever `write` raised; nothing was changed.
        """

        def changed(transaction: WriteTransaction) -> T:
            result = write(transaction)
            if result and self.by is not None:
                entry = audit.AuditEntry(
                    id=self.clock.new_id(),
                    at=self.clock.now(),
                    actor=self.by.name,
                    interface=self.by.interface,
                    **audit_record(result)._asdict(),
                )
                audit.record(transaction, entry)
            return result

        return self.ledger.write(changed)
