"""Bar charts as numbers, which templates draw as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def bar_chart(columns: Sequence[Sequence[int]], kinds: Sequence[str], *, width: int, height: int) -> Chart:
    """Return a chart with one column for each interval of time. The values of a column are stacked.

    Args:
        columns: the values, one for each kind.
        kinds: the CSS class of each value of a column.
        width: the width of the chart, in its own units.
        height: the height of the chart.
    """
    max_value = max((sum(column) for column in columns), default=0)
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
    return Chart(width, height, tuple(bars), max_value)
