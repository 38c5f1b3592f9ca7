"""The report of `exactly_once`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.model.delivery import State

Scenario = Literal[
    "baseline",
    "failure",
    "duplicate",
    "concurrent",
    "reordered",
    "crash-before",
    "crash-during",
    "crash-after",
]
ScenarioVerdict = Literal["once", "twice", "lost", "held"]

SCENARIOS: Final[dict[str, str]] = {
    "baseline": "it runs without faults",
    "failure": "an exception is raised at {}",
    "duplicate": "the callback is sent three times",
    "concurrent": "the callback is sent {} at the same time",
    "reordered": "two events change places: {}",
    "crash-before": "the process is killed before the handler is entered",
    "crash-during": "the process is killed at {}",
    "crash-after": "the process is killed when the handler has returned",
}
"""A description of each scenario; `{}` is replaced by the place of a finding."""
_MAX_PLACES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one scenario.

    Attributes:
        scenario: the scenario: `"baseline"`, `"failure"`, `"duplicate"`, `"concurrent"`, `"reordered"`,
            `"crash-before"`, `"crash-during"` or `"crash-after"`.
        place: `file.py:line` of the kill or the failure, or another text that distinguishes the finding; `""` if none.
        times: how many times the business work was done.
        state: the final state of the delivery.
        verdict: `"once"`; `"twice"`: done more than once; `"lost"`: not done, and no operator is notified; `"held"`:
            the delivery waits for an operator, and is shown to them.
        words: an explanation of the verdict, with advice.
    """

    scenario: Scenario
    place: str
    times: int
    state: State
    verdict: ScenarioVerdict
    words: str

    @property
    def ok(self) -> bool:
        """Whether the work was neither done more than once nor lost unnoticed.

        A delivery may wait for an operator only after a fault: a handler that fails without one does not work.
        """
        return self.verdict == "once" or (self.verdict == "held" and self.scenario != "baseline")

    @property
    def tried(self) -> str:
        """A description of the scenario."""
        return SCENARIOS[self.scenario].format(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of all scenarios. `str(report)` is a table as text.

    Attributes:
        handler: the handler's id.
        findings: one finding for each scenario, in the order of execution.
        notes: the scenarios that could not be tried.
    """

    handler: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the work was never done more than once, and never lost unnoticed.

        A delivery that waits for an operator after a fault is allowed: it is shown, and its work is not done again
        before an operator decides. A handler without `retry=` and `probe=` gets such a delivery after a crash. Without
        a fault it is not allowed, because the handler then failed by itself and nothing else was tried.
        """
        return bool(self.findings) and all(finding.ok for finding in self.findings)

    @property
    def exactly_once(self) -> bool:
        """Whether the work was always done exactly once without an operator. This is stricter than `ok`."""
        return bool(self.findings) and all(finding.verdict == "once" for finding in self.findings)

    def __str__(self) -> str:
        if self.exactly_once:
            head = "the work was done exactly once in every scenario"
        elif self.ok:
            head = "the work was never done twice and never lost unnoticed; in some scenarios an operator must decide"
        elif any(finding.scenario == "baseline" and finding.verdict == "held" for finding in self.findings):
            head = "it does not succeed even without a fault; nothing else was tried"
        else:
            head = "the work was done twice, or lost unnoticed"
        lines = [f"{self.handler}: {head}", "", f"{'done':>6}  {'delivery':<10} when"]
        advice: dict[str, int] = {}
        for group in _grouped(self.findings):
            first = group[0]
            number = "" if first.verdict == "once" else f" [{advice.setdefault(first.words, len(advice) + 1)}]"
            done = f"{first.times} x"
            mark = " " if first.ok else "!"
            lines.append(f"{mark}{done:>5}  {first.state!s:<10} {_when(group)}{number}")
        for words, place in advice.items():
            lines += ["", f"[{place}] {words}"]
        for note in self.notes:
            lines += ["", f"Not tried: {note}"]
        return "\n".join(lines)


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group findings with the same text of the same scenario."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        key = (finding.scenario, finding.times, finding.state, finding.verdict, finding.words)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _when(group: Sequence[Finding]) -> str:
    places = list(dict.fromkeys(finding.place for finding in group))
    if len(places) <= _MAX_PLACES:
        return SCENARIOS[group[0].scenario].format(", ".join(places))
    shown = ", ".join(places[: _MAX_PLACES - 1])
    return SCENARIOS[group[0].scenario].format(f"{shown} … {places[-1]} ({len(places)} places)")
