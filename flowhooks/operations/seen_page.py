"""A page of the items that an operator sees, out of a list of all items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_READ: Final = 2_000
"""Maximum number of items that are read for one page."""


class _Item(Protocol):
    @property
    def id(self) -> str: ...


ItemT = TypeVar("ItemT", bound=_Item)


class SeenPage(NamedTuple, Generic[ItemT]):
    """A page of items, newest first.

    Attributes:
        items: the items.
        next: the id after which the next page continues; `""` if it is the last page. The page may have fewer items
            than were asked for, or none, and not be the last one.
    """

    items: tuple[ItemT, ...]
    next: str


def seen_page(
    read: Callable[[str, int], Sequence[ItemT]], sees: Callable[[ItemT], bool], *, limit: int, before: str
) -> SeenPage[ItemT]:
    """Return one page of the items that an operator sees.

    Args:
        read: returns the items after an id, or from the newest one for `""`, up to a number.
        sees: returns whether the operator sees an item.
        limit: maximum number of items.
        before: the id after which to continue; `""`: start with the newest.
    """
    found: list[ItemT] = []
    n_read = 0
    while n_read < MAX_READ:
        items = read(before, limit + 1)
        for number, item in enumerate(items[:limit], start=1):
            before = item.id
            if sees(item):
                found.append(item)
            if len(found) == limit:
                return SeenPage(tuple(found), before if number < len(items) else "")
        if len(items) <= limit:
            return SeenPage(tuple(found), "")
        n_read += limit
    return SeenPage(tuple(found), before)
