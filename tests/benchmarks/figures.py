"""The measured figures, their columns and their goals."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_STATED: Final = 0.0
"""A column that a row leaves out, for the reason in `EXCEPTIONS`."""
COLUMNS: Final = {"processor": "processor time", "rate": "rate", "p50": "p50", "p99": "p99"}
"""The columns that each row states, by their names in `Cost`."""
EXCEPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "postgresql-started": {"rate": "callbacks are sent one at a time with random pauses, which decide the rate"},
    "postgresql-answered": {"rate": "callbacks are sent one at a time with random pauses, which decide the rate"},
}
"""The columns that a row leaves out, by the name of the row, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The goal of one row.

    Attributes:
        least: the required figure.
        aim: the desired figure.
        smaller: whether a smaller figure is better.
        unit: of both; `""` for a ratio.
    """

    least: float
    aim: float
    smaller: bool = False
    unit: str = ""

    def verdict(self, figure: float) -> str:
        """`aim met`, `met` or `missed`, from the figure with two decimals."""
        sign = -1 if self.smaller else 1
        figure = round(figure, 2)
        if sign * figure >= sign * self.aim:
            return "aim met"
        return "met" if sign * figure >= sign * self.least else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a callback for a subject, and the time of its response; 0 if unknown.

    Rows about other actions, such as pages or starts, state the same for each action.

    Attributes:
        processor: microseconds of processor time for each callback, of all processes of the subject.
        rate: callbacks per second.
        p50: milliseconds within which half of the responses arrived.
        p99: milliseconds within which 99 of 100 responses arrived.
    """

    processor: float
    rate: float
    p50: float
    p99: float

    @classmethod
    def load(cls, stored: Mapping[str, float], shown: str = "") -> Self:
        """A cost from its JSON; if that has no rate, the rate is taken from the text that shows the figure."""
        text = re.match(r"([\d,]+)/s", shown)
        return cls(**({"rate": float(text[1].replace(",", "")) if text else 0.0} | stored))


UNKNOWN: Final = Cost(processor=0.0, rate=0.0, p50=0.0, p99=0.0)
"""The cost of a baseline that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the result.

    Attributes:
        case: the case of the row; `""` if there is only one.
        measured: flowhooks' own figure with its unit.
        yardstick: the baseline with its unit; `""` if there is none.
        judged: the figure that the goal judges: the ratio or the figure itself.
        ours: the cost of a callback in flowhooks.
        theirs: the cost of a callback in the baseline.
    """

    case: str = ""
    measured: str
    yardstick: str = ""
    judged: float
    ours: Cost
    theirs: Cost = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one row.

    Attributes:
        name: its name for `--rows`.
        title: its description.
        goal: the goal.
        figures: one for each case; none if it failed.
        notes: other results: absolute rates, latencies, sizes.
        broke: the reason why there are no figures; `""` if there are figures.
        took: the seconds in which the row was measured.
        busy: whether other programs used the machine so much that the figures show little.
    """

    name: str
    title: str
    goal: Goal
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = field(default=())
    broke: str = ""
    took: float = 0.0
    busy: bool = False


def missing_columns(row: str, figures: Sequence[Figure]) -> list[str]:
    """The columns that not all figures of a row state, without those that the row leaves out for a reason."""
    stated = COLUMNS.keys() - EXCEPTIONS.get(row, {})
    return [
        name
        for column, name in COLUMNS.items()
        if column in stated and not all(getattr(figure.ours, column) for figure in figures)
    ]
