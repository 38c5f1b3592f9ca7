"""Charts: bars are within their frame, proportional and visible."""

from __future__ import annotations

from flowhooks.web.admin.console import charts


def test_bars_stand_side_by_side():
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


def test_one_among_thousands_is_seen():
    """The smallest bar has a visible height, and no bar leaves the frame."""
    chart = charts.bar_chart([(10_000, 1), (1, 0)], ("good", "bad"), width=10, height=100)
    assert all(bar.height >= 1 and bar.y >= 0 for bar in chart.bars)


def test_of_nothing():
    """No columns, or only zeros, give no bars."""
    assert charts.bar_chart([], ("a",), width=10, height=10).bars == ()
    assert charts.bar_chart([(0,)] * 3, ("a",), width=10, height=10).most == 0
