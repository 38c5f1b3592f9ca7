"""Charts as numbers, which templates draw as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BAR_GAP = 0.25
"""Empty share of the width of a column, from 0 to 1."""
MIN_BAR_HEIGHT = 0.04
"""Share of the chart's height that the smallest bar has, so that a single item is visible beside thousands."""


class Bar(NamedTuple):
    """A rectangle.

    Attributes:
        x: its left edge.
        y: its upper edge.
        width: its width.
        height: its height.
        kind: its CSS class, which sets its colour.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str


class Chart(NamedTuple):
    """A bar chart over time.

    Attributes:
        width: the width of the chart, in its own units.
        height: the height of the chart.
        bars: the rectangles.
        most: the largest column, which reaches the top.
    """

    width: int
    height: int
    bars: tuple[Bar, ...]
    most: int


class LineSeries(NamedTuple):
    """Values over time, which a line connects.

    Attributes:
        kind: the CSS class of the line.
        values: the values at equal distances, beginning at the left edge; None where there is none.
        step: the distance of two values, as a share of the chart's width.
    """

    kind: str
    values: Sequence[float | None]
    step: float


class Line(NamedTuple):
    """A line through values, with gaps where there is none.

    Attributes:
        kind: its CSS class.
        path: its points, as the attribute `d` of an SVG path.
    """

    kind: str
    path: str


class TimeChart(NamedTuple):
    """Bars and lines over the same time.

    Attributes:
        width: the width of the chart, in its own units.
        height: the height of the chart.
        bars: the rectangles.
        lines: the lines, the first one at the back.
        marks: the horizontal positions of marks.
        low: the value at the bottom.
        most: the value at the top.
    """

    width: int
    height: int
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    marks: tuple[float, ...]
    low: float
    most: float


def bar_chart(columns: Sequence[Sequence[int]], kinds: Sequence[str], *, width: int, height: int) -> Chart:
    """Return a chart with one column for each interval of time. The values of a column are stacked.

    Args:
        columns: the values, one for each kind.
        kinds: the CSS class of each value of a column.
        width: the width of the chart, in its own units.
        height: the height of the chart.
    """
    max_value = max((sum(column) for column in columns), default=0)
    return Chart(width, height, _bars(columns, kinds, width, height, max_value), max_value)


def time_chart(
    series: Sequence[LineSeries],
    *,
    columns: Sequence[Sequence[int]] = (),
    kinds: Sequence[str] = (),
    marks: Iterable[float] = (),
    low: float = 0.0,
    most: float | None = None,
    width: int,
    height: int,
) -> TimeChart:
    """Return a chart with stacked columns, lines and marks over the same time.

    Args:
        series: the lines, the first one at the back.
        columns: the values of the columns, one for each kind.
        kinds: the CSS class of each value of a column.
        marks: the positions of marks, as shares of the width.
        low: the value at the bottom of the lines; columns need 0.
        most: the value at the top; default: the largest value.
        width: the width of the chart, in its own units.
        height: the height of the chart.
    """
    if most is None:
        values = [value for line in series for value in line.values if value is not None]
        most = max([float(sum(column)) for column in columns] + values, default=0.0)
    return TimeChart(
        width=width,
        height=height,
        bars=_bars(columns, kinds, width, height, most),
        lines=tuple(Line(line.kind, _path(line, low, most, width, height)) for line in series),
        marks=tuple(round(position * width, 2) for position in marks),
        low=low,
        most=most,
    )


def _bars(
    columns: Sequence[Sequence[int]], kinds: Sequence[str], width: int, height: int, max_value: float
) -> tuple[Bar, ...]:
    bars = []
    step = width / max(1, len(columns))
    for number, column in enumerate(columns):
        top = float(height)
        for value, kind in zip(column, kinds, strict=True):
            if value > 0:
                bar_height = max(height * MIN_BAR_HEIGHT, height * value / max_value)
                top = max(0.0, top - bar_height)
                x = round(number * step + step * BAR_GAP / 2, 2)
                bars.append(Bar(x, round(top, 2), round(step * (1 - BAR_GAP), 2), round(bar_height, 2), kind))
    return tuple(bars)


def _path(line: LineSeries, low: float, most: float, width: int, height: int) -> str:
    """Return a line through the middle of each step; a value without neighbours is as long as its step."""
    span, step = most - low, line.step * width
    parts = []
    for number, value in enumerate(line.values):
        if value is None:
            continue
        y = height - height * min(1.0, max(0.0, (value - low) / span)) if span > 0 else height
        x = (number + 0.5) * step
        before = number > 0 and line.values[number - 1] is not None
        after = number + 1 < len(line.values) and line.values[number + 1] is not None
        if before:
            parts.append(f"L{_number(x)} {_number(y)}")
        elif after:
            parts.append(f"M{_number(x)} {_number(y)}")
        else:
            parts.append(f"M{_number(x - step / 2)} {_number(y)}H{_number(min(float(width), x + step / 2))}")
    return "".join(parts)


def _number(value: float) -> str:
    return f"{round(value, 2):g}"
