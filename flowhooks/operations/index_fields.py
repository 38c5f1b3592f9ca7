"""Index the declared fields of stored events, for the search by values of the body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import event_fields
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 100
"""Maximum number of events per call and per transaction. Callbacks that arrive wait for the transaction."""
MAX_DUTY_CYCLE: Final = 0.5
"""Maximum share of time that the pages take. Callers pause between pages: callbacks need the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexResult:
    """Result of one call of the indexing of fields, or of its dry run.

    Attributes:
        fields: the indexed fields.
        events: number of events examined.
        indexed: number of events whose indexed values were stored or removed.
        damaged: number of events whose body cannot be read.
        next: value of `after` for the next call; `""` if there are no more events.
        dry_run: whether nothing was changed.
    """

    fields: tuple[str, ...]
    events: int
    indexed: int
    damaged: int
    next: str
    dry_run: bool


def index_fields(context: OperationContext, *, dry_run: bool = False, after: str = "") -> IndexResult:
    """Index the fields that search.fields names for one page of stored events per call, and remove other fields.

    Args:
        context: what operations work with.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    fields = context.settings.search.fields
    with context.reader.connection() as connection:
        page = event_fields.find_changes(connection, fields, after=after, limit=PAGE_SIZE)
    indexed = len(page.changes)
    if page.changes and not dry_run:
        indexed = context.change(
            lambda transaction: event_fields.apply_changes(transaction, page.changes),
            lambda changed: AuditRecord(
                "index_fields", "", {"fields": list(fields), "events": changed}, after, page.next
            ),
        )
    return IndexResult(
        fields=fields,
        events=page.examined,
        indexed=indexed,
        damaged=page.damaged,
        next=page.next,
        dry_run=dry_run,
    )
