"""Charts: bars are within their frame, proportional and visible."""

from __future__ import annotations

from flowhooks.web.admin.console import charts


def test_bars_are_side_by_side():
    """Each column has its place; the highest reaches the top; zero has no bar."""
    chart = charts.bar_chart([(1,), (0,), (4,)], ("came",), width=30, height=20)
    low, high = chart.bars
    assert (low.height, high.height, high.y) == (5, 20, 0)
    assert 0 <= low.x < low.x + low.width <= 10
    assert 20 <= high.x < high.x + high.width <= 30
    assert chart.most == 4


def test_values_of_a_column_are_stacked():
    """The second value is stacked on the first, each with its kind."""
    good, bad = charts.bar_chart([(3, 1)], ("good", "bad"), width=10, height=20).bars
    assert (good.kind, good.y, good.height) == ("good", 5, 15)
    assert (bad.kind, bad.y, bad.height) == ("bad", 0, 5)


def test_the_smallest_bar_is_visible():
    """The smallest bar has a visible height, and no bar leaves the frame."""
    chart = charts.bar_chart([(10_000, 1), (1, 0)], ("good", "bad"), width=10, height=100)
    assert all(bar.height >= 1 and bar.y >= 0 for bar in chart.bars)


def test_a_bar_chart_without_values():
    """No columns, or only zeros, give no bars."""
    assert charts.bar_chart([], ("a",), width=10, height=10).bars == ()
    assert charts.bar_chart([(0,)] * 3, ("a",), width=10, height=10).most == 0


def test_a_line_is_scaled_to_all_lines():
    """The largest value of all lines reaches the top, zero the bottom, and each point is in the middle of its step."""
    series = [charts.LineSeries("now", [0, 5, 10], 1 / 3), charts.LineSeries("yesterday", [20], 1)]
    chart = charts.time_chart(series, width=30, height=20)
    assert (chart.low, chart.most) == (0, 20)
    assert chart.lines == (("now", "M5 20L15 15L25 10"), ("yesterday", "M0 0H30"))


def test_a_line_has_gaps():
    """Steps without a value interrupt the line, and a value without neighbours is as long as its step."""
    (line,) = charts.time_chart(
        [charts.LineSeries("now", [None, 2, None, 1, 2, None], 1 / 6)], width=60, height=20
    ).lines
    assert line.path == "M10 0H20M35 10L45 0"


def test_a_line_between_two_values():
    """With a value at the bottom other than zero, the line stays within the frame."""
    (line,) = charts.time_chart(
        [charts.LineSeries("now", [0.5, 0.9, 1.0], 1 / 3)], low=0.8, most=1.0, width=30, height=20
    ).lines
    assert line.path == "M5 20L15 10L25 0"


def test_columns_and_lines_share_a_scale():
    """A line above all columns makes them lower; marks are at their share of the width."""
    chart = charts.time_chart(
        [charts.LineSeries("yesterday", [8, 8], 0.5)],
        columns=[(3, 1), (0, 0)],
        kinds=("good", "bad"),
        marks=(0.25,),
        width=20,
        height=40,
    )
    assert [bar.height for bar in chart.bars] == [15, 5]
    assert (chart.marks, chart.most) == ((5.0,), 8)


def test_a_time_chart_without_values():
    """Without values there are neither bars nor lines, and no division by zero."""
    chart = charts.time_chart(
        [charts.LineSeries("now", [0, None], 0.5)], columns=[(0,)] * 2, kinds=("a",), width=9, height=9
    )
    assert (chart.bars, chart.most) == ((), 0)
    assert charts.time_chart([], width=9, height=9).lines == ()
