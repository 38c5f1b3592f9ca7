"""The shipped schemas, loaded once for all apps of a test process.

Each app reads and prepares the same files, which takes 10 ms of processor time, and tests open thousands of apps.
`Schemas` and its documents never change; folders of a test's own are loaded each time.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flowhooks.schema.schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def share() -> None:
    """Let `Schemas.load` without further folders return the same schemas each time from now on."""
    load = Schemas.load
    shipped = cache(load)

    def shared(extra: Sequence[Path] = ()) -> Schemas:
        return load(extra) if extra else shipped()

    Schemas.load = shared  # type: ignore[method-assign]
