"""Charts as shapes with numbers, which templates draw as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR_GAP = 0.25
"""The part of a bar's place that is left empty."""
MIN_BAR_HEIGHT = 0.04
"""The part of the height that the smallest bar has, so that one of something is seen beside thousands."""


class Bar(NamedTuple):
    """One rectangle.

    Attributes:
        x: its left edge.
        y: its upper edge.
        width: its width.
        height: its height.
        kind: its class, which gives it its colour.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str


class Chart(NamedTuple):
    """Bars side by side, over one time.

    Attributes:
        width: of the whole, in its own units.
        height: of the whole.
        bars: the rectangles.
        most: the largest value, which reaches the top.
    """

    width: int
    height: int
    bars: tuple[Bar, ...]
    most: int


def bar_chart(columns: Sequence[Sequence[int]], kinds: Sequence[str], *, width: int, height: int) -> Chart:
    """One column for each part of time, of one value for each kind, stacked upwards.

    Args:
        columns: the values.
        kinds: a class for each value of a column.
        width: of the chart, in its own units.
        height: of the chart.
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
