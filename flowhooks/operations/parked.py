"""Parked: what nobody wants yet, by what it waits for, and what may have been meant; it must not change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.ledger.rerouting import oldest_parked
from flowhooks.operations.drain import may_be_taken

if TYPE_CHECKING:
    from flowhooks.ledger import Reader
    from flowhooks.ledger.rerouting import ParkedGroup
    from flowhooks.router import Router

HINTED: Final = 10
"""Groups for which is looked up what may have been meant."""
FEW_HANDLERS: Final = 500
"""With more handlers than this nothing is looked up, for each is compared with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Parked events that wait for the same.

    Attributes:
        facts: what they have in common, and how many they are.
        event_id: the oldest of them.
        since: when that came, in microseconds since 1970.
        wanted: whether a drain would deliver them, or may deliver some, because a condition reads the data of each.
        hints: what may have been meant.
    """

    facts: ParkedGroup
    event_id: str
    since: int
    wanted: bool
    hints: tuple[str, ...]


def parked(reader: Reader, router: Router, *, most: int, handlers: int) -> list[Waiting]:
    """What is parked, the largest group first.

    Args:
        reader: the ledger.
        router: the present look-up.
        most: how many events are gone through, the oldest ones.
        handlers: how many handlers are loaded.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        found = oldest_parked(connection, most=most)
    return [
        Waiting(
            facts=group,
            event_id=event_id,
            since=since,
            wanted=may_be_taken(router, group),
            hints=_hints(router, group) if number < HINTED and handlers <= FEW_HANDLERS else (),
        )
        for number, (group, event_id, since) in enumerate(found)
    ]


def _hints(router: Router, group: ParkedGroup) -> tuple[str, ...]:
    return router.explain(
        callback_class=group.callback_class,
        process_key=group.process_key,
        version=group.process_version,
        source=group.source,
        kind=group.kind,
        conclusion=group.conclusion,
    ).hints
