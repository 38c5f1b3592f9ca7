"""What came of trying whether a handler does its work exactly once."""

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
    "baseline": "it runs, and nothing happens",
    "failure": "an exception is raised at {}",
    "duplicate": "the call-back comes three times",
    "concurrent": "the call-back comes {} at the same moment",
    "reordered": "two events are to change places: {}",
    "crash-before": "the process is killed before the handler is entered",
    "crash-during": "the process is killed at {}",
    "crash-after": "the process is killed when the handler has returned",
}
"""What each scenario is, in words; `{}` stands for a finding's place."""
_MAX_PLACES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one try.

    Attributes:
        scenario: what was tried: `"baseline"`, `"failure"`, `"duplicate"`, `"concurrent"`, `"reordered"`,
            `"crash-before"`, `"crash-during"` or `"crash-after"`.
        place: `file.py:line` where it was killed or failed, or what else tells it from others; `""` if nothing.
        times: how many times the business work was done in the end.
        state: the state of the delivery in the end.
        verdict: `"once"`; `"twice"`: more than once; `"lost"`: not at all, and nobody is told; `"held"`: it waits
            for an operator, who is shown it.
        words: what that means, and what to do about it.
    """

    scenario: Scenario
    place: str
    times: int
    state: State
    verdict: ScenarioVerdict
    words: str

    @property
    def ok(self) -> bool:
        """Whether the work was neither done twice nor lost unseen."""
        return self.verdict in {"once", "held"}

    @property
    def tried(self) -> str:
        """What was tried, in words."""
        return SCENARIOS[self.scenario].format(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of all tries. `str(report)` is a table in words.

    Attributes:
        handler: the handler's id.
        findings: one for each try, in the order in which they were made.
        notes: what could not be tried.
    """

    handler: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the work was never done twice, and never lost unseen.

        A delivery that is held for an operator is neither: it is shown, and its work is not done again before
        somebody decides. That is what a handler without `retry=` and `probe=` gets after a crash.
        """
        return bool(self.findings) and all(finding.ok for finding in self.findings)

    @property
    def exactly_once(self) -> bool:
        """Whether the work was always done exactly once without an operator: more than `ok` asks."""
        return bool(self.findings) and all(finding.verdict == "once" for finding in self.findings)

    def __str__(self) -> str:
        if self.exactly_once:
            head = "the work was done exactly once, whatever happened"
        elif self.ok:
            head = "the work was never done twice and never lost unseen; sometimes an operator has to decide"
        else:
            head = "the work was done twice, or lost unseen"
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
