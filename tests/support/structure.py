"""Print figures about the structure of the package: cycles, names used twice, vague names; `make structure` runs it.

`--details` lists what was found wherever a figure is higher than allowed.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grimp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE: Final = Path(__file__).parents[2] / "flowhooks"
VAGUE_NAMES: Final = frozenset({"one", "told", "several", "wanted", "said"})
"""Pronouns and participles that do not say what a variable holds."""
SHORT_LINES: Final = 40
LONG_LINES: Final = 500
"""Files with fewer lines than the first, or with more lines than the second figure, are counted."""

REQUIRED: Final = {
    "import cycles, inside packages too": 0,
    "siblings at the top of flowhooks/": 22,
    "class names used twice": 0,
    '"must not know" in docstrings': 0,
    "pronouns and participles as variables": 0,
    "__init__.py files with logic": 0,
}
"""The highest figures that are allowed."""


def import_cycles(package: str = "flowhooks") -> list[list[str]]:
    """Groups of modules that import each other, imports for type checking included (Tarjan's algorithm)."""
    graph = grimp.build_graph(package, cache_dir=None)
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    cycles = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported not in numbers:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], numbers[imported])
        if lowest[module] == numbers[module]:
            index = stack.index(module)
            if len(stack) - index > 1:
                cycles.append(sorted(stack[index:]))
            del stack[index:]

    for module in sorted(graph.modules):
        if module not in numbers:
            visit(module)
    return cycles


def siblings(package: Path = PACKAGE) -> list[str]:
    """The modules and packages at the top, without `__init__` and `__main__`."""
    names = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    return sorted(name for name in names if not name.startswith("__"))


def class_names_used_twice(trees: Iterable[ast.Module]) -> list[str]:
    """Names of several classes, including those that begin with `_`."""
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return sorted(name for name, times in names.items() if times > 1)


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Every docstring of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""


def vague_variables(tree: ast.Module) -> list[tuple[int, str]]:
    """Each variable and parameter with a vague name, by the line that binds it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VAGUE_NAMES:
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.arg) and node.arg in VAGUE_NAMES:
            found.append((node.lineno, node.arg))
    return found


def has_logic(tree: ast.Module) -> bool:
    """Whether an `__init__.py` does more than import names, list them, and load them on demand."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in {"__getattr__", "__dir__"}:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.For | ast.While | ast.With):
            return True
    return False


def docstring_and_comment_lines(text: str, tree: ast.Module) -> tuple[int, int]:
    """The number of lines of docstrings, and of lines with a comment."""
    docs = 0
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            docs += sum(
                statement.end_lineno - statement.lineno + 1
                for statement in body
                if isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            )
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return docs, sum(token.type == tokenize.COMMENT for token in tokens)


def main() -> int:
    """Print the figures; return 1 if a figure is higher than allowed."""
    texts = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    details: dict[str, list[str]] = defaultdict(list)
    details["import cycles, inside packages too"] = [" ↔ ".join(cycle) for cycle in import_cycles()]
    details["siblings at the top of flowhooks/"] = siblings()
    details["class names used twice"] = class_names_used_twice(trees.values())
    for path, tree in trees.items():
        name = str(path.relative_to(PACKAGE))
        details['"must not know" in docstrings'] += [
            name for text in docstrings(tree) if "must not know" in " ".join(text.split())
        ]
        details["pronouns and participles as variables"] += [
            f"{name}:{line} {variable}" for line, variable in vague_variables(tree)
        ]
        if path.name == "__init__.py" and has_logic(tree):
            details["__init__.py files with logic"].append(name)
    failed = False
    for figure, limit in REQUIRED.items():
        found = details[figure]
        failed |= len(found) > limit
        print(f"{figure:45} {len(found):6,} (at most {limit})")
        if len(found) > limit and "--details" in sys.argv[1:]:
            print(*(f"    {detail}" for detail in found), sep="\n")
    lengths = [len(text.splitlines()) for text in texts.values()]
    counts = [docstring_and_comment_lines(texts[path], trees[path]) for path in texts]
    docs, comments = (sum(column) for column in zip(*counts, strict=True))
    classes = sum(isinstance(node, ast.ClassDef) for tree in trees.values() for node in ast.walk(tree))
    print(f"{'files':45} {len(texts):6,}")
    print(f"{'lines':45} {sum(lengths):6,}")
    print(f"{'classes':45} {classes:6,}")
    print(f"{f'files of fewer than {SHORT_LINES} lines':45} {sum(length < SHORT_LINES for length in lengths):6,}")
    print(f"{f'files of more than {LONG_LINES} lines':45} {sum(length > LONG_LINES for length in lengths):6,}")
    print(f"{'lines of docstrings':45} {docs:6,} ({docs / sum(lengths):.0%})")
    print(f"{'lines with comments':45} {comments:6,} ({comments / sum(lengths):.0%})")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
