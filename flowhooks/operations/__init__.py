"""What operators do, one use case a file, whatever face asks for it; it must not hold SQL or HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from flowhooks.clock import Clock
    from flowhooks.ledger import Ledger
    from flowhooks.router import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every operation works with.

    Attributes:
        ledger: the ledger, for writing.
        router: the present look-up.
        absent: ids of handlers that are known, or were, but are not loaded.
        clock: time and ids.
    """

    ledger: Ledger
    router: Router
    absent: Collection[str]
    clock: Clock
