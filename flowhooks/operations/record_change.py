"""Record in the audit log who installed plugins, asked the server to restart, or compacted the database."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.context import OperationContext


class ChangeKind(enum.StrEnum):
    """A change of an installation that a command makes outside the ledger; also the action in the audit log."""

    INSTALL = "install"
    UNINSTALL = "uninstall"
    RESTART = "restart"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChangeResult:
    """Result of recording a change.

    Attributes:
        at: when the change was recorded, in microseconds since 1970.
    """

    at: int


def record_change(context: OperationContext, kind: ChangeKind, *, plugins: Sequence[str] = ()) -> RecordChangeResult:
    """Record a change of the installation. It changes nothing itself.

    Args:
        context: what operations work with; `by` is the operator.
        kind: what the operator did.
        plugins: the plugins with their versions before and after, such as `contracts 1.3 -> 1.4`; `-` is none.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    now = context.clock.now()
    detail: dict[str, Any] = {"plugins": list(plugins)} if plugins else {}
    context.change(lambda _: True, lambda _: AuditRecord(kind.value, "", detail))
    return RecordChangeResult(at=now)
