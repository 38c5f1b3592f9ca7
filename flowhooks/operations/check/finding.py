"""One thing that a check has looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    NOTE = "note"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """One thing that was looked at.

    Attributes:
        mark: how grave it is.
        about: settings, binds, connections, schemas, plugins, alerts, handlers, routes, database, jobs, server,
            processes or deliveries.
        what: what was found.
        why: how it came about, or what follows from it; may be `""`.
        next: what to do; may be `""`.
        traceback: of a plugin that cannot be used, for its author; may be `""`.
        facts: what programs may want to read out of `what`.
    """

    mark: Severity
    about: str
    what: str
    why: str = ""
    next: str = ""
    traceback: str = ""
    facts: Mapping[str, str | int | None] = field(default_factory=dict)


def ok(about: str, what: str, **facts: str | int | None) -> CheckFinding:
    """A finding that all is well."""
    return CheckFinding(mark=Severity.OK, about=about, what=what, facts=facts)


def note(about: str, what: str, why: str = "", to_do: str = "") -> CheckFinding:
    """A finding that is worth knowing."""
    return CheckFinding(mark=Severity.NOTE, about=about, what=what, why=why, next=to_do)


def trouble(about: str, what: str, why: str = "", to_do: str = "", *, traceback: str = "") -> CheckFinding:
    """A finding that keeps something from working."""
    return CheckFinding(mark=Severity.TROUBLE, about=about, what=what, why=why, next=to_do, traceback=traceback)
