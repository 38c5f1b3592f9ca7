"""Differences of two bodies, line by line."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

MAX_BODY_CHARS: Final = 65_536
"""Maximum length of each of the two bodies."""
MAX_COMPARED_LINES: Final = 500
"""Maximum number of lines between the first and the last difference that are compared; more of them are all listed as
different. The time of a comparison grows with its square."""
CONTEXT_LINES: Final = 3
"""Number of equal lines that are listed before and after a difference."""


class DiffLine(NamedTuple):
    """One line of a difference.

    Attributes:
        mark: `"-"` if only the first body has it, `"+"` if only the second has it, `" "` if both have it, `"…"` for
            equal lines that are left out.
        text: the line; `""` for lines that are left out.
        left_out: number of equal lines that are left out.
    """

    mark: str
    text: str
    left_out: int = 0


def pretty(body: str) -> str:
    """Return a body as indented JSON, with its keys in their order; `""` if it is too long or no JSON."""
    values = _parse(body)
    return "" if values is None else _to_text(values)


def diff_bodies(first: str, second: str) -> list[DiffLine] | None:
    """Return the differences of two bodies as indented JSON; None if one of them is too long or no JSON.

    The members of the second body are listed in the order of the first, because their order has no meaning.
    """
    old, new = _parse(first), _parse(second)
    if old is None or new is None:
        return None
    return _compare(_to_text(old).splitlines(), _to_text(_in_order_of(old, new)).splitlines())


def _parse(body: str) -> Any:
    if len(body) > MAX_BODY_CHARS:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # damaged
        return None


def _to_text(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, indent=2)


def _in_order_of(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in old if name in new] + [name for name in new if name not in old]
        return {name: _in_order_of(old.get(name), new[name]) for name in names}
    if isinstance(old, list) and isinstance(new, list):
        return [_in_order_of(old[index] if index < len(old) else None, value) for index, value in enumerate(new)]
    return new


def _compare(old: list[str], new: list[str]) -> list[DiffLine]:
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    removed, added = old[start : len(old) - end], new[start : len(new) - end]
    lines = [DiffLine(" ", text) for text in old[:start]]
    if max(len(removed), len(added)) > MAX_COMPARED_LINES:
        lines += [*(DiffLine("-", text) for text in removed), *(DiffLine("+", text) for text in added)]
    else:
        matcher = SequenceMatcher(None, removed, added, autojunk=False)
        for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
            if tag == "equal":
                lines += [DiffLine(" ", text) for text in removed[old_from:old_to]]
            else:
                lines += [DiffLine("-", text) for text in removed[old_from:old_to]]
                lines += [DiffLine("+", text) for text in added[new_from:new_to]]
    lines += [DiffLine(" ", text) for text in old[len(old) - end :]]
    return _shorten(lines)


def _shorten(lines: list[DiffLine]) -> list[DiffLine]:
    """Leave out equal lines that are far from every difference."""
    near = set[int]()
    for index, line in enumerate(lines):
        if line.mark != " ":
            near.update(range(index - CONTEXT_LINES, index + CONTEXT_LINES + 1))
    shortened: list[DiffLine] = []
    for index, line in enumerate(lines):
        if index in near:
            shortened.append(line)
        elif shortened and shortened[-1].left_out:
            shortened[-1] = DiffLine("…", "", shortened[-1].left_out + 1)
        else:
            shortened.append(DiffLine("…", "", 1))
    return shortened
