"""A finding of a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """A finding about one subject of the check.

    Attributes:
        mark: severity of the finding.
        about: settings, binds, connections, schemas, plugins, alerts, engines, handlers, routes, database, jobs,
            server, processes or deliveries.
        what: what was found.
        why: cause or consequence; may be `""`.
        next: what to do; may be `""`.
        traceback: traceback of an unusable plugin, for its author; may be `""`.
        facts: the values in `what`, for programs.
    """

    mark: Severity
    about: str
    what: str
    why: str = ""
    next: str = ""
    traceback: str = ""
    facts: Mapping[str, str | int | None] = field(default_factory=dict)


def ok(about: str, what: str, **facts: str | int | None) -> CheckFinding:
    """Return a finding that no action is needed."""
    return CheckFinding(mark=Severity.OK, about=about, what=what, facts=facts)


def note(about: str, what: str, why: str = "", to_do: str = "") -> CheckFinding:
    """Return a finding that is worth knowing."""
    return CheckFinding(mark=Severity.NOTE, about=about, what=what, why=why, next=to_do)


def problem(about: str, what: str, why: str = "", to_do: str = "", *, traceback: str = "") -> CheckFinding:
    """Return a finding about a problem that keeps something from working."""
    return CheckFinding(mark=Severity.PROBLEM, about=about, what=what, why=why, next=to_do, traceback=traceback)
