"""The measured figures and their goals."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The goal of one row.

    Attributes:
        least: the figure that is promised.
        aim: the figure that is hoped for.
        smaller: whether a smaller figure is the better one.
        unit: of both; `""` for a ratio.
    """

    least: float
    aim: float
    smaller: bool = False
    unit: str = ""

    def verdict(self, figure: float) -> str:
        """`aim met`, `met` or `missed`, by the two decimals that are shown."""
        sign = -1 if self.smaller else 1
        figure = round(figure, 2)
        if sign * figure >= sign * self.aim:
            return "aim met"
        return "met" if sign * figure >= sign * self.least else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the result.

    Attributes:
        case: which case of the row; `""` where there is one only.
        measured: flowhooks' own figure, with its unit.
        yardstick: what it is compared with, with its unit; `""` where it is not.
        judged: what the goal is about: the ratio, or the figure itself.
    """

    case: str = ""
    measured: str
    yardstick: str = ""
    judged: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one row.

    Attributes:
        name: what `--rows` calls it.
        title: what it is, in words.
        goal: what it should come to.
        figures: one for each case; none if it broke.
        notes: what else was seen: absolute rates, latencies, sizes.
        broke: why there are no figures; `""` if there are.
    """

    name: str
    title: str
    goal: Goal
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = field(default=())
    broke: str = ""
