"""A position in the history, which is the cursor of a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position where the next page begins.

    Attributes:
        time: the earliest end of the next page, in milliseconds since 1970.
        size: the number of instances to ask for.
        within: whether the next page has only instances that ended at `time`, ordered by id. Otherwise it has
            instances that ended at `time` or later, ordered by end time.
        offset: the number of instances that ended at `time` and were read.
        last_id: the id of the last instance that was read at `time`; `""` if none was read.
        restarts: the number of times that `time` was read again because its instances had changed.
    """

    time: int
    size: int
    within: bool = False
    offset: int = 0
    last_id: str = ""
    restarts: int = 0

    def to_cursor(self) -> str:
        """Return the position as a cursor."""
        return json.dumps(asdict(self))

    @classmethod
    def from_cursor(cls, cursor: str) -> Position:
        """Return the position of a cursor."""
        return cls(**json.loads(cursor))
