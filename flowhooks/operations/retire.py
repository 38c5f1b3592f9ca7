"""Retire: the ledger forgets handlers, so that nothing more is kept for them; it must not know who asks.

What is stored for them already stays as it is. The look-up of a process that runs stays as it was when that process
started, so a running server goes on giving them deliveries until it is started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.ledger import handlers as known
from flowhooks.ledger.backlog import HandlerBacklog, backlog
from flowhooks.operations.context import Deed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.context import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What was retired, or would be.

    Attributes:
        handlers: the ids of those that are known no longer.
        passed_over: ids of which the ledger knew none, or which were retired before.
        waiting: how many deliveries still wait for those of `handlers`; they stay stored.
        unknown: how many of theirs are *unknown*.
        dead: how many of theirs are dead.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    passed_over: tuple[str, ...]
    waiting: int
    unknown: int
    dead: int
    dry_run: bool


def retire(desk: Desk, handlers: Sequence[str], *, dry_run: bool = False) -> Retired:
    """Have the ledger forget handlers; one that is loaded again later is remembered again, and gets what waits.

    Args:
        desk: what operations work with.
        handlers: their ids, `plugin:name`.
        dry_run: only say which would be retired.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    asked = tuple(dict.fromkeys(handlers))
    if dry_run:
        done = frozenset(one.id for one in desk.ledger.registered_handlers()).intersection(asked)
    else:
        now = desk.clock.now()
        done = desk.change(
            lambda transaction: known.retire(transaction, asked, now),
            lambda retired: Deed("retire", asked[0] if len(asked) == 1 else "", {"handlers": sorted(retired)}),
        )
    with desk.ledger.connection() as connection:
        stored = backlog(connection)
    theirs = [stored.get(one, HandlerBacklog()) for one in asked if one in done]
    return Retired(
        handlers=tuple(one for one in asked if one in done),
        passed_over=tuple(one for one in asked if one not in done),
        waiting=sum(one.waiting for one in theirs),
        unknown=sum(one.unknown for one in theirs),
        dead=sum(one.dead for one in theirs),
        dry_run=dry_run,
    )
