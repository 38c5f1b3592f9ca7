"""Record a backup: store when the ledger was last backed up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from flowhooks.ledger import maintenance
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

_SIZE_SCHEMA: Final = {"minimum": 0, "maximum": 2**63 - 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBackupResult:
    """Result of recording a backup.

    Attributes:
        at: when the backup was recorded, in microseconds since 1970.
    """

    at: int


def record_backup(
    context: OperationContext, *, name: str = "", size: Annotated[int, _SIZE_SCHEMA] = 0
) -> RecordBackupResult:
    """Record that a backup of the ledger is complete, for the alert `backup_too_old`.

    Args:
        context: what operations work with; `by` is the operator.
        name: name of the backup, such as its file; stored in the audit log.
        size: size of the backup in bytes; 0 if not known.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    now = context.clock.now()

    def write(transaction: WriteTransaction) -> bool:
        maintenance.record(transaction, "backup", now, size, name)
        return True

    context.change(write, lambda _: AuditRecord("record_backup", "", {"name": name, "size": size}))
    return RecordBackupResult(at=now)
