"""The measured figures and their goals."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """The cost of a callback for a subject, and the time of its response; 0 if it was not measured.

    Attributes:
        processor: microseconds of processor time for each callback, of all processes of the subject.
        p50: milliseconds within which half of the responses arrived.
        p99: milliseconds within which 99 of 100 responses arrived.
    """

    processor: float = 0.0
    p50: float = 0.0
    p99: float = 0.0


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
    ours: Cost = Cost()
    theirs: Cost = Cost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one row.

    Attributes:
        name: its name for `--rows`.
        title: its description.
        goal: the goal.
        figures: one for each case; none if it failed.
        notes: other results: absolute rates, latencies, sizes.
        broke: why there are no figures; `""` if there are.
        took: seconds that the row took.
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
