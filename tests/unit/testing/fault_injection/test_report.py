"""The texts of a report: its verdict and its table."""

from __future__ import annotations

from flowhooks import State
from flowhooks.testing import Finding, Report


def finding(**given):
    """A finding without a fault, except for the given values."""
    whole = {
        "scenario": "crash-during",
        "place": "leave.py:1",
        "times": 1,
        "state": State.SUCCEEDED,
        "verdict": "once",
        "words": "The work was done once.",
    }
    return Finding(**whole | given)


def report(*findings, **given):
    """A report of these findings."""
    return Report(handler="leave:grant", findings=findings, **given)


def test_the_verdict_of_a_report():
    """Once and held are ok, held is not exactly once; twice and lost are neither; an empty report is not ok."""
    held, twice, lost = (finding(verdict=verdict) for verdict in ("held", "twice", "lost"))
    assert (report(finding()).ok, report(finding()).exactly_once) == (True, True)
    assert (report(finding(), held).ok, report(finding(), held).exactly_once) == (True, False)
    for bad in (twice, lost):
        assert (report(finding(), bad).ok, report(finding(), bad).exactly_once) == (False, False)
    assert (report().ok, report().exactly_once) == (False, False)


def test_a_handler_that_fails_without_a_fault_is_not_ok():
    """Held is ok after a fault only, and the head says that nothing was tried."""
    held = finding(scenario="baseline", place="", times=0, state=State.DEAD, verdict="held", words="The work …")
    assert (held.ok, report(held).ok, report(held).exactly_once) == (False, False, False)
    assert str(report(held)).splitlines()[:4] == [
        "leave:grant: it does not succeed even without a fault; nothing else was tried",
        "",
        "  done  delivery   when",
        "!  0 x  dead       it runs without faults [1]",
    ]


def test_the_table_of_a_report():
    """Equal results share a line, faults are marked, and advice is given once."""
    places = [finding(place=f"leave.py:{number}") for number in range(1, 6)]
    twice = {"times": 2, "verdict": "twice", "words": "Fix it."}
    table = report(
        *places,
        finding(place="leave.py:7", **twice),
        finding(scenario="crash-after", place="", **twice),
        finding(scenario="crash-before", place="", times=0, state=State.UNKNOWN, verdict="held", words="Decide."),
        notes=("what cannot be had",),
    )
    assert str(table) == (
        "leave:grant: the work was done twice, or lost unnoticed\n"
        "\n"
        "  done  delivery   when\n"
        "   1 x  succeeded  the process is killed at leave.py:1, leave.py:2 … leave.py:5 (5 places)\n"
        "!  2 x  succeeded  the process is killed at leave.py:7 [1]\n"
        "!  2 x  succeeded  the process is killed when the handler has returned [1]\n"
        "   0 x  unknown    the process is killed before the handler is entered [2]\n"
        "\n"
        "[1] Fix it.\n"
        "\n"
        "[2] Decide.\n"
        "\n"
        "Not tried: what cannot be had"
    )
    assert places[0].tried == "the process is killed at leave.py:1"
