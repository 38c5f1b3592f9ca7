"""Parse the text of a traceback as Python writes it: its frames, and its chain of exceptions."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CAUSE: Final = "cause"
"""Relation to the exception before, for `raise … from …`."""
CONTEXT: Final = "context"
"""Relation to the exception before, for an exception that was raised while it was handled."""
_RELATIONS: Final = {
    "The above exception was the direct cause of the following exception:": CAUSE,
    "During handling of the above exception, another exception occurred:": CONTEXT,
}
_HEADING: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'[ |+-]*File "(?P<file>.*)", line \d+, in (?P<function>.*)')
_PACKAGES: Final = re.compile(r"(?:site|dist)-packages/(flowhooks|pluggy)/")
_OWN_FOLDER: Final = f"{Path(__file__).parents[1]}/"


class Frame(NamedTuple):
    """A frame of a traceback.

    Attributes:
        file: the path of the file.
        function: the name of the function.
    """

    file: str
    function: str


class TracebackPart(NamedTuple):
    """Lines of a traceback that are shown together.

    Attributes:
        text: the lines.
        frames: number of frames; 0 for lines that belong to no frame.
        folded: the packages whose frames they are, which only passed on the call; `""`: show the lines.
    """

    text: str
    frames: int
    folded: str


class ChainedException(NamedTuple):
    """One exception of a chain.

    Attributes:
        relation: how it is related to the exception before it: `CAUSE` or `CONTEXT`; `""` for the first one.
        error: its type and message, in one line; `""` if they are missing.
        parts: its traceback.
    """

    relation: str
    error: str
    parts: tuple[TracebackPart, ...]


def frames(text: str) -> Iterator[Frame]:
    """Yield the frames of a traceback in the order of its lines."""
    for line in text.splitlines():
        if found := _FRAME.fullmatch(line):
            yield Frame(found["file"], found["function"])


def parse_chain(text: str) -> tuple[ChainedException, ...]:
    """Return the exceptions of a traceback, the first one raised first. Frames of flowhooks and pluggy are folded."""
    chain: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        if relation := _RELATIONS.get(line.strip()):
            chain.append((relation, []))
        else:
            chain[-1][1].append(line)
    return tuple(
        ChainedException(relation, _error(lines), tuple(_parts(lines)))
        for relation, lines in chain
        if relation or any(map(str.strip, lines))
    )


def _error(lines: list[str]) -> str:
    after = max((number for number, line in enumerate(lines) if _FRAME.fullmatch(line)), default=-1) + 1
    own = (line for line in lines[after:] if line.strip() and not line.startswith(" ") and line != _HEADING)
    return next(own, "")


def _parts(lines: list[str]) -> Iterator[TracebackPart]:
    labelled: list[tuple[str, str]] = []
    package = ""
    for line in lines:
        if found := _FRAME.fullmatch(line):
            package = _package(found["file"])
        elif not line.startswith("    "):
            package = ""
        labelled.append((package, line))
    for is_folded, group in groupby(labelled, key=lambda item: bool(item[0])):
        members = list(group)
        text = "\n".join(line for _, line in members).strip("\n")
        if text:
            packages = " & ".join(sorted({name for name, _ in members if name}))
            n_frames = sum(_FRAME.fullmatch(line) is not None for _, line in members)
            yield TracebackPart(text, n_frames, packages if is_folded else "")


def _package(file: str) -> str:
    found = _PACKAGES.search(file)
    if found is not None:
        return found[1]
    return "flowhooks" if file.startswith(_OWN_FOLDER) else ""
