"""The table of states as Markdown and as a drawing.

The drawing is SVG, which a code host, the site and a mail programme all show without a script. Every row of the table
is drawn; only where a state stands, and where a label is put, is said here.
"""

from __future__ import annotations

import textwrap
from html import escape
from itertools import pairwise
from math import dist
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.model.delivery import COMPLETED_STATES, TRANSITIONS, State

from .markdown import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.model.delivery import Transition


class Point(NamedTuple):
    """A place in the drawing, in pixels from its upper left corner."""

    x: float
    y: float


SIZE: Final = Point(860, 640)
BOX: Final = Point(118, 40)
"""Width and height of a state's box."""
PLACES: Final[Mapping[State | None, Point]] = {
    None: Point(186, 330),
    State.WAITING: Point(372, 330),
    State.RUNNING: Point(110, 64),
    State.SUCCEEDED: Point(480, 150),
    State.UNKNOWN: Point(748, 64),
    State.DEAD: Point(110, 536),
    State.CLOSED: Point(748, 536),
}
"""*Waiting* is in the middle and the other states are around it, so no two straight arrows cross."""
CORNERS: Final[Mapping[tuple[State | None, State], tuple[Point, ...]]] = {
    (State.RUNNING, State.CLOSED): (Point(24, 64), Point(24, 600), Point(748, 600)),
}
"""Corners of the arrows that would cross other arrows if they were straight."""
LABELS: Final[Mapping[tuple[State | None, State], tuple[float, float, float]]] = {
    (None, State.WAITING): (0.40, 0, 18),
    (State.WAITING, State.RUNNING): (0.50, 102, 0),
    (State.RUNNING, State.WAITING): (0.70, -78, 18),
    (State.RUNNING, State.SUCCEEDED): (0.55, 0, -20),
    (State.RUNNING, State.DEAD): (0.69, 76, 0),
    (State.DEAD, State.WAITING): (0.46, 100, 16),
    (State.WAITING, State.CLOSED): (0.50, 70, -30),
    (State.UNKNOWN, State.SUCCEEDED): (0.50, -50, -20),
    (State.UNKNOWN, State.WAITING): (0.50, 84, 28),
    (State.UNKNOWN, State.CLOSED): (0.60, 36, 0),
    (State.RUNNING, State.UNKNOWN): (0.50, 0, -20),
    (State.DEAD, State.CLOSED): (0.50, 0, 20),
    (State.RUNNING, State.CLOSED): (0.50, 0, 18),
    (State.SUCCEEDED, State.WAITING): (0.12, 54, 0),
}
"""Position of a label along its arrow (0 to 1) and its distance from it; the default is the middle."""
APART: Final = 9
"""Distance of each of two opposite arrows from the line between their boxes."""
LINE: Final = 15
"""The height of a line of text."""
WRAP: Final = 24
"""Maximum characters in a line of a label."""
STYLE: Final = """
    svg { font: 13px system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
    .sheet { fill: #ffffff; }
    .box { fill: #eef2f7; stroke: #64748b; stroke-width: 1.5; }
    .done { fill: #e3f4e8; stroke: #2f7d4f; }
    .name { fill: #0f172a; font-weight: 600; font-size: 15px; text-anchor: middle; }
    .arrow { stroke: #64748b; stroke-width: 1.5; fill: none; }
    .head, .start { fill: #64748b; }
    .by { fill: #1f2937; text-anchor: middle; stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
    @media (prefers-color-scheme: dark) {
      .sheet { fill: #1e2129; }
      .box { fill: #2b3340; stroke: #94a3b8; }
      .done { fill: #1f3b2b; stroke: #6fbf8e; }
      .name { fill: #f1f5f9; }
      .arrow { stroke: #94a3b8; }
      .head, .start { fill: #94a3b8; }
      .by { fill: #e2e8f0; stroke: #1e2129; }
    }
"""
"""The background has a colour, so that the drawing is readable on light and dark pages."""


def transitions() -> str:
    """The table of states."""
    return "\n".join(table(("from", "to", "by"), ((row.source or "-", row.target, row.by) for row in TRANSITIONS)))


def drawing() -> str:
    """The table of states as an SVG file.

    Raises:
        KeyError: a state has no place in the drawing.
    """
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE.x:g} {SIZE.y:g}" role="img">',
        "  <title>The states of a delivery, and what moves it from one to another</title>",
        f"  <style>{STYLE}  </style>",
        '  <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '    <path class="head" d="M0 0 10 5 0 10z"/>',
        "  </marker>",
        f'  <rect class="sheet" width="{SIZE.x:g}" height="{SIZE.y:g}" rx="8"/>',
    ]
    arrows = [(row, _points(row)) for row in TRANSITIONS]
    for row, points in arrows:
        where = " ".join(f"{point.x:.1f},{point.y:.1f}" for point in points)
        out.append(f'  <polyline class="arrow" data-arrow="{_named(row)}" points="{where}" marker-end="url(#head)"/>')
    for state, place in PLACES.items():
        out += _box(state, place)
    for row, points in arrows:
        out += _label(row, *max(pairwise(points), key=lambda ends: dist(*ends)))
    return "\n".join([*out, "</svg>", ""])


def _named(row: Transition) -> str:
    return f"{row.source or 'start'} {row.target}"


def _points(row: Transition) -> tuple[Point, ...]:
    """Return the points of an arrow. Its ends are on the borders of its boxes."""
    corners = CORNERS.get((row.source, row.target), ())
    centers = [PLACES[row.source], *corners, PLACES[row.target]]
    if any((other.source, other.target) == (row.target, row.source) for other in TRANSITIONS):
        along = _direction(centers[0], centers[1])
        # Beside the arrow that leads back.
        centers = [Point(center.x - along.y * APART, center.y + along.x * APART) for center in centers]
    start = _border(centers[0], _direction(centers[0], centers[1]), PLACES[row.source], start_of_all=row.source is None)
    return start, *corners, _border(centers[-1], _direction(centers[-1], centers[-2]), PLACES[row.target])


def _direction(start: Point, end: Point) -> Point:
    length = dist(start, end)
    return Point((end.x - start.x) / length, (end.y - start.y) / length)


def _border(point: Point, along: Point, box: Point, *, start_of_all: bool = False) -> Point:
    """Return the point at which the line from `point` in a direction leaves the box."""
    if start_of_all:
        return Point(point.x + along.x * 8, point.y + along.y * 8)
    steps = []
    for at, by, middle, size in ((point.x, along.x, box.x, BOX.x), (point.y, along.y, box.y, BOX.y)):
        if by:
            steps.append((middle + (size if by > 0 else -size) / 2 - at) / by)
    step = min(steps)
    return Point(point.x + along.x * step, point.y + along.y * step)


def _box(state: State | None, place: Point) -> Iterator[str]:
    if state is None:
        yield f'  <circle class="start" cx="{place.x:g}" cy="{place.y:g}" r="8"/>'
        return
    kind = "box done" if state in COMPLETED_STATES else "box"
    corner = f'x="{place.x - BOX.x / 2:g}" y="{place.y - BOX.y / 2:g}"'
    yield f'  <rect class="{kind}" {corner} width="{BOX.x:g}" height="{BOX.y:g}" rx="8"/>'
    yield f'  <text class="name" x="{place.x:g}" y="{place.y + 5:g}">{escape(state)}</text>'


def _label(row: Transition, start: Point, end: Point) -> Iterator[str]:
    part, right, down = LABELS.get((row.source, row.target), (0.5, 0, 0))
    lines = textwrap.wrap(row.by, WRAP, break_long_words=False, break_on_hyphens=False)
    x = start.x + (end.x - start.x) * part + right
    y = start.y + (end.y - start.y) * part + down - (len(lines) - 1) * LINE / 2 + 4
    yield f'  <text class="by" data-by="{_named(row)}">'
    for number, line in enumerate(lines):
        space = " " if number < len(lines) - 1 else ""
        yield f'    <tspan x="{x:.1f}" y="{y + number * LINE:.1f}">{escape(line)}{space}</tspan>'
    yield "  </text>"
