"""The drawings of the pages: texts fit their boxes, and no text overlaps an arrow or another text."""

from __future__ import annotations

import unicodedata
from itertools import combinations, pairwise
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from generating import overview

from support.code_blocks import DOCS, PAGES, blocks, name_of

SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = ("explanation/states.svg", "callback.svg", "callback.zh-CN.svg")
SIZES = {"states.svg": 13, "callback.svg": 14, "callback.zh-CN.svg": 14}
"""The font size of each drawing's labels, in pixels; names are 15 pixels high and bold."""


class Area(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other):
        """Whether this area contains another one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )

    def touches(self, other):
        """Whether the two areas overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def wide(text, size, *, bold):
    """The width of a text in pixels in DejaVu Sans, a wide font; a Chinese character is as wide as high."""
    return sum(size if unicodedata.east_asian_width(char) in "WF" else size * part(char) for char in text) * (
        1.15 if bold else 1
    )


def part(char):
    """The width of a character relative to the font's size, rounded up."""
    if char in "-ijltfr .,:;'()":
        return 0.42
    return 0.98 if char in "mwMW" else 0.68 if char.isupper() else 0.64


def texts(drawing, size):
    """Each line of text with its area."""
    for node in drawing.iter(f"{SVG}text"):
        name = node.get("class") == "name"
        height = 15 if name else size
        for line in node.findall(f"{SVG}tspan") or [node]:
            text, x, y = line.text.strip(), float(line.get("x")), float(line.get("y"))
            half = wide(text, height, bold=name) / 2
            yield text, Area(x - half, y - height * 0.8, x + half, y + height * 0.2)


def boxes(drawing):
    """The areas of all boxes; the first is the sheet."""
    for node in drawing.iter(f"{SVG}rect"):
        x, y = float(node.get("x", 0)), float(node.get("y", 0))
        yield Area(x, y, x + float(node.get("width")), y + float(node.get("height")))


def points(drawing):
    """Points on all arrows at a distance of two pixels."""
    for node in drawing.iter(f"{SVG}polyline"):
        corners = [tuple(map(float, corner.split(","))) for corner in node.get("points").split()]
        for (x1, y1), (x2, y2) in pairwise(corners):
            steps = max(1, int((abs(x2 - x1) + abs(y2 - y1)) / 2))
            yield from ((x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps) for step in range(steps + 1))


@pytest.mark.parametrize("name", DRAWINGS)
def test_texts_fit_their_boxes_and_overlap_nothing(name):
    """Each text is completely inside or outside each box, and overlaps no arrow and no other text."""
    drawing = ET.parse(DOCS / name).getroot()
    lines = list(texts(drawing, SIZES[name.rpartition("/")[2]]))
    assert lines
    sheet, *others = boxes(drawing)
    arrows = list(points(drawing))
    faults = []
    for text, area in lines:
        if not sheet.holds(area):
            faults.append(f"{text}: beyond the sheet")
        if any(box.touches(area) and not box.holds(area) for box in others):
            faults.append(f"{text}: across a border")
        if any(area.left <= x <= area.right and area.top <= y <= area.bottom for x, y in arrows):
            faults.append(f"{text}: on an arrow")
    faults += [f"{text}: on {other}" for (text, a), (other, b) in combinations(lines, 2) if a.touches(b)]
    assert faults == []


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_have_colours_for_light_and_dark_pages(name):
    """A drawing has a background and colours for light and dark pages, and loads no files."""
    text = (DOCS / name).read_text("utf-8")
    assert "prefers-color-scheme: dark" in text
    assert 'class="sheet"' in text
    assert "href" not in text
    assert "@import" not in text


def test_both_languages_have_the_same_texts():
    """The callback's drawing has each text in both languages, with as many lines."""
    english, chinese = overview.TEXTS["en"], overview.TEXTS["zh"]
    assert {name: len(lines) for name, lines in english.items()} == {
        name: len(lines) for name, lines in chinese.items()
    }


def test_drawings_of_characters_fit_the_page():
    """A character drawing has at most the 90 columns that the site shows."""
    drawn = [block for page in PAGES for block in blocks(page, "text") if "▶" in block.text]
    assert "docs/contributing/path-of-a-callback.md" in {name_of(block.page) for block in drawn}
    for block in drawn:
        assert max(map(len, block.text.splitlines())) <= 90, block.where
