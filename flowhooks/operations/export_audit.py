"""The audit entry of an export: who takes which events as a file, and whether the file became complete.

The entry is stored before anything is sent, so an export of a process that is killed has one, too. Its result is added
when the export ends.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import audit
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.operations.context import Actor
    from flowhooks.operations.event_export import ExportRequest

ACTION: Final = "export"
MAX_ADDRESS_CHARS: Final = 100

log = structlog.get_logger(__name__)


class ExportResult(StrEnum):
    """How an export has ended."""

    STARTED = "started"
    """It has not: it is being sent, or its process was killed meanwhile."""
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    """The client closed the connection, or the ledger could not be read."""


class ExportAudit:
    """The audit entry of one export.

    Args:
        ledger: the ledger.
        clock: time and ids.
        by: the operator and the interface.
        role: the name of the operator's role.
        address: the client's address.
        request: what is exported. Its filter is already restricted to what the operator sees.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock, by: Actor, *, role: str, address: str, request: ExportRequest
    ) -> None:
        self._ledger = ledger
        self._entry = audit.AuditEntry(
            id=clock.new_id(),
            at=clock.now(),
            actor=by.name,
            interface=by.interface,
            action=ACTION,
            target="",
            detail={
                "event_filter": request.event_filter.to_json(),
                "format": request.export_format.value,
                "bodies": request.bodies.value,
                "role": role,
                "address": escape_control(address, MAX_ADDRESS_CHARS),
                "result": ExportResult.STARTED.value,
            },
        )

    def start(self) -> None:
        """Store the entry.

        Raises:
            Unavailable: the ledger could not be written.
        """
        self._ledger.write(lambda transaction: audit.record(transaction, self._entry))

    def end(self, *, events: int, is_complete: bool) -> None:
        """Add the result to the entry. If that fails, it is logged, and the entry stays as it was.

        Args:
            events: number of events that were sent.
            is_complete: whether the whole file was sent.
        """
        result = ExportResult.COMPLETE if is_complete else ExportResult.INTERRUPTED
        ended = replace(self._entry, detail={**self._entry.detail, "result": result.value, "events": events})
        try:
            self._ledger.write(lambda transaction: audit.update_detail(transaction, ended), certain=False)
        except FlowhooksError as error:
            # The response has ended, so it cannot report the error.
            log.error("audit_failed", why=str(error), next="the entry of this export has no result")  # noqa: TRY400 (one line says it)
