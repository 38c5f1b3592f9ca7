"""A position in the history, and its text: the cursor of a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the next page begins.

    Attributes:
        time: the earliest end of the next page, in milliseconds since 1970.
        size: the number of instances to ask for.
        within: whether the page has only instances that ended at `time`, by id. Otherwise by end time.
        offset: the number of instances that ended at `time` and were read.
        last_id: the last of them; `""`: none.
        restarts: how often reading them began again because they had changed.
    """

    time: int
    size: int
    within: bool = False
    offset: int = 0
    last_id: str = ""
    restarts: int = 0

    def cursor(self) -> str:
        """Return the text of this position."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, cursor: str) -> Position:
        """Return the position of a cursor."""
        return cls(**json.loads(cursor))
