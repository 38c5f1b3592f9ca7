"""The parts of the reference of the test kit."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from generating.markdown import docstring, signature, table

if TYPE_CHECKING:
    from collections.abc import Iterator


def members(kind: type) -> str:
    """Return a class with its constructor and its public methods."""
    constructor = vars(kind).get("__init__")
    out = ["```text", f"{kind.__name__}{signature(constructor, method=True)}", "```", ""] if constructor else []
    out += docstring(kind)
    for name, method in _methods(kind):
        arguments = signature(method, method=True)
        out += ["", f"### {kind.__name__}.{name}", "", "```text", f"{name}{arguments}", "```", "", *docstring(method)]
    return "\n".join(out)


def suite(kind: type) -> str:
    """Return a suite with a table of its tests."""
    rows = ((f"`{name}`", _first_paragraph(method)) for name, method in _methods(kind))
    return "\n".join([*docstring(kind), "", *table(("test", "what must hold"), rows)])


def _methods(kind: type) -> Iterator[tuple[str, object]]:
    return (
        (name, value) for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")
    )


def _first_paragraph(thing: object) -> str:
    return inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
