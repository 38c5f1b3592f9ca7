"""Who is at the console or asks the administration API, and what they may do; it must not know what there is to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import falcon


class Role(StrEnum):
    """What an operator may do."""

    VIEW = "view"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Somebody who looks after this server.

    Attributes:
        name: as the audit has it.
        role: what they may do.
    """

    name: str
    role: Role

    @property
    def may_operate(self) -> bool:
        """Whether they may change anything."""
        return self.role is Role.OPERATE


LOCAL: Final = Operator(name="local", role=Role.OPERATE)
"""Whoever is at this machine, where no operators are named in the settings."""


def operator_of(request: falcon.Request) -> Operator:
    """Who asks; whoever lets requests in has found out."""
    return cast("Operator", request.context.operator)
