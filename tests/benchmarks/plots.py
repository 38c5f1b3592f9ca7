"""Plots of stored figures, as SVG: processor time and latency by size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from figures import Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLOURS = ("#0072b2", "#d55e00", "#6b7280")
"""The colours of the series, which people with red-green colour blindness can distinguish, too."""
FONT = 'font-family="system-ui, sans-serif" font-size="12"'
BASELINE = "bare app"
"""The series that always has the last colour."""
MARKS = ("circle", "square", "diamond")
WIDTH, HEIGHT = 860, 330
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT, GAP = 64, 64, 330, 200, 92
STEEP = 20
"""If the largest figure is this many times the smallest, the axis is logarithmic; otherwise it begins at zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The cost of a callback at one size."""

    size: int
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Figures to draw.

    Attributes:
        title: what grows.
        axis: what the sizes are.
        series: the points of each subject, by its name.
    """

    title: str
    axis: str
    series: Mapping[str, tuple[Point, ...]]

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Plot:
        """A plot from its JSON."""
        series = {
            name: tuple(Point(size=point["size"], cost=Cost.load(point["cost"])) for point in points)
            for name, points in stored["series"].items()
        }
        return cls(title=stored["title"], axis=stored["axis"], series=series)


def svg(plot: Plot) -> str:
    """A plot with two panels: processor time, and the time within which 99 of 100 responses arrived."""
    title = f"{plot.title}: processor time of a callback, and p99 of its response"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_legend(plot),
        *_panel(plot, LEFT, "processor time of a callback, µs", lambda cost: cost.processor),
        *_panel(plot, LEFT + PLOT_WIDTH + GAP, "p99 of the response, ms", lambda cost: cost.p99),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(plot: Plot) -> list[str]:
    parts, x = [], float(LEFT)
    for name, number in _numbers(plot).items():
        parts += [_mark(number, x + 5, 20), _text(name, x + 16, 24)]
        x += 40 + 7 * len(name)
    return parts


def _panel(plot: Plot, left: float, heading: str, value_of: Callable[[Cost], float]) -> list[str]:
    sizes = sorted({point.size for points in plot.series.values() for point in points})
    values = [value_of(point.cost) for points in plot.series.values() for point in points if value_of(point.cost)]
    if not values:
        return [_text(f"{heading}: not measured", left, TOP - 12, weight="bold")]
    scale = _Scale(min(values), max(values))
    step = PLOT_WIDTH / max(1, len(sizes) - 1)
    places = {size: left + step * number for number, size in enumerate(sizes)}
    parts = [_text(heading, left, TOP - 12, weight="bold")]
    for tick in scale.ticks:
        y = scale.place(tick)
        parts.append(f'<line x1="{left}" x2="{left + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(_text(_short_number(tick), left - 8, y + 4, anchor="end"))
    parts += [_text(_short_number(size), x, TOP + PLOT_HEIGHT + 20, anchor="middle") for size, x in places.items()]
    parts.append(_text(plot.axis, left + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 44, anchor="middle"))
    for name, number in _numbers(plot).items():
        points = plot.series[name]
        marks = [(places[point.size], scale.place(value_of(point.cost))) for point in points if value_of(point.cost)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in marks)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
        parts += [_mark(number, x, y) for x, y in marks]
    return parts


def _numbers(plot: Plot) -> dict[str, int]:
    """The colour and the mark of each series, by its name."""
    names = [name for name in plot.series if name != BASELINE]
    numbers = {name: number for number, name in enumerate(names)}
    return numbers | ({BASELINE: len(COLOURS) - 1} if BASELINE in plot.series else {})


class _Scale:
    """The vertical axis of a panel."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self._steep = maximum > minimum * STEEP
        if self._steep:
            self._low, self._high = math.floor(math.log10(minimum)), math.ceil(math.log10(maximum))
            self.ticks = [10.0**power for power in range(self._low, self._high + 1)]
        else:
            step = 10 ** math.floor(math.log10(maximum))
            step = next(part * step for part in (0.25, 0.5, 1, 2) if maximum <= 5 * part * step)
            self.ticks = [step * number for number in range(math.ceil(maximum / step) + 1)]
            self._low, self._high = 0.0, self.ticks[-1]

    def place(self, value: float) -> float:
        """The y coordinate of a value in the picture."""
        position = math.log10(value) if self._steep else value
        return TOP + PLOT_HEIGHT * (1 - (position - self._low) / (self._high - self._low))


def _mark(number: int, x: float, y: float) -> str:
    colour = COLOURS[number]
    if MARKS[number] == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    rotation = f' transform="rotate(45 {x:.1f} {y:.1f})"' if MARKS[number] == "diamond" else ""
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"{rotation}/>'


def _text(text: str, x: float, y: float, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="#374151"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _short_number(value: float) -> str:
    """A figure in a short form, such as 20 k."""
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
