"""Measured rows as files, one for each row. Pages and plots are written from these files."""

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
        result: the figures of the row.
        command: the command that measured the row.
        machine: the machine on which the row was measured.
        plot: the plot of the row; None if it has none.
        plans: the plans of the database, in Markdown; `""` if the row has none.
    """

    result: Result
    command: str
    machine: Mapping[str, str]
    plot: Plot | None = None
    plans: str = ""


def store(stored: Stored) -> None:
    """Write a row into its file, and replace the earlier measurement."""
    FOLDER.mkdir(exist_ok=True)
    result = asdict(stored.result)
    del result["goal"]  # `load` takes the goal of `run.py`
    content = asdict(stored) | {"result": result}
    (FOLDER / f"{stored.result.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load(name: str, goal: Goal) -> Stored | None:
    """Read a stored row, with `goal` as its goal; return None if no measurement is stored."""
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
