"""Tables, signatures and docstrings as Markdown."""

from __future__ import annotations

import enum
import inspect
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDTH: Final = 90
"""Characters of a signature beyond which each argument has a line of its own."""
_SECTION: Final = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
_ITEM: Final = re.compile(r"    (\*{0,2}[\w.]+): (.*)")


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table; a vertical bar in a cell is escaped, also in code."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def signature(function: Callable[..., Any], *, method: bool = False) -> str:
    """Return a function's arguments and result as in the source, with annotations and without private arguments."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())[1 if method and inspect.isfunction(function) else 0 :]
    shown: list[str] = []
    for parameter in parameters:
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(shown_parameter.startswith("*") for shown_parameter in shown):
            shown.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = stars + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default if isinstance(parameter.default, enum.Enum) else repr(parameter.default)}"
        shown.append(text)
    result = "" if method or found.return_annotation is found.empty else f" -> {_annotation(found.return_annotation)}"
    if sum(map(len, shown)) + len(result) <= WIDTH:
        return f"({', '.join(shown)}){result}"
    return "(\n" + "".join(f"    {one},\n" for one in shown) + f"){result}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def docstring(thing: Any) -> list[str]:
    """A Google docstring as Markdown: its sections become lists."""
    out: list[str] = []
    section = ""
    for line in inspect.cleandoc(thing.__doc__ or "").split("\n"):
        if match := _SECTION.fullmatch(line):
            section = match[1]
            out += [f"{section}:", ""]
        elif section and line.startswith("    "):
            item = None if section in {"Returns", "Yields"} else _ITEM.fullmatch(line)
            if item:
                out.append(f"- `{item[1]}`: {item[2]}")
            elif out[-1] == "":
                out.append(f"- {line.strip()}")
            else:
                out[-1] += f" {line.strip()}"
        else:
            section = section if not line else ""
            out.append(line)
    return out
