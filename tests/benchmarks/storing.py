"""Measured rows as files, one for each row: pages and plots are made from these, whenever a row was measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import Cost, Figure, Goal, Result
from plots import Plot

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).with_name("measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A measured row.

    Attributes:
        result: its figures.
        command: the command that measured it.
        machine: the machine then.
        plot: its plot; None if it has none.
        plans: the database's plans, in Markdown; `""` if it has none.
    """

    result: Result
    command: str
    machine: Mapping[str, str]
    plot: Plot | None = None
    plans: str = ""


def store(stored: Stored) -> None:
    """Write a row into its file, in place of what was measured before."""
    FOLDER.mkdir(exist_ok=True)
    result = asdict(stored.result)
    del result["goal"]  # that of `run.py` holds
    content = asdict(stored) | {"result": result}
    (FOLDER / f"{stored.result.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load(name: str, goal: Goal) -> Stored | None:
    """A stored row with its present goal; None if it was not measured."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        return None
    content: dict[str, Any] = json.loads(file.read_text())
    result = content["result"]
    figures = tuple(
        Figure(
            **(
                figure
                | {
                    "ours": Cost.load(figure["ours"], figure["measured"]),
                    "theirs": Cost.load(figure["theirs"], figure["yardstick"]),
                }
            )
        )
        for figure in result["figures"]
    )
    return Stored(
        result=replace(
            Result(name=name, title=result["title"], goal=goal),
            figures=figures,
            notes=tuple(result["notes"]),
            broke=result["broke"],
            took=result["took"],
            busy=result["busy"],
        ),
        command=content["command"],
        machine=content["machine"],
        plot=Plot.load(content["plot"]) if content["plot"] else None,
        plans=content["plans"],
    )
