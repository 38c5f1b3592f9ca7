"""Generate parts of the documentation from the code, so that they stay in agreement.

`python docs/_build/generate.py` rewrites the generated parts of the pages; with `--check` it changes nothing, names the
pages that are out of date, and exits with 1 if there are any. A part stands between two comments:

    <!-- generated: NAME -->
    <!-- end -->

Files that are generated as a whole, such as drawings, are named in `FILES`.
"""

# ruff: noqa: INP001 (a script, in no package)
from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
import tomllib
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from generating import administration, contract, numbers, overview, states, testing
from generating.markdown import docstring, signature, table

import flowhooks
from flowhooks import hookspecs
from flowhooks.cli.main import COMMANDS, main
from flowhooks.plugins.registration import HOOKS
from flowhooks.settings import Settings, describe, live_names
from flowhooks.testing import EngineClientContract, EngineDriver, FakeEngine, HttpClientContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PART: Final = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHARED_OPTIONS: Final = ("--config", "--database", "--plugins-dir")
"""Options of every command that reads settings; listed once."""


def render(page: str) -> str:
    """Return a page's text with its generated parts renewed.

    Args:
        page: the text as it is.

    Raises:
        KeyError: it has a part that nothing here generates.
    """
    return PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]().strip()}\n\n{match[3]}", page)


def pages() -> list[Path]:
    """Return every page that has a generated part."""
    return sorted(path for path in DOCS.rglob("*.md") if PART.search(path.read_text("utf-8")))


SUBSECTIONS: Final = {
    "alerts.routes.NAME": "Which plugins are notified of which alerts.",
    "sources.NAME.engine": "How flowhooks reads the history of this source's engine.",
    "sources.NAME.ingress": "How requests to the fixed URL /in/NAME become callbacks.",
    "sources.NAME.signature": "How this source signs, if not by Standard Webhooks.",
}
"""Sections within sections, each with its description."""


def settings() -> str:
    """Every setting, a table for each section."""
    sections = {one.name: str(one.metadata.get("doc", "")) for one in fields(Settings)}
    out: list[str] = []
    for section, group in groupby(describe(), key=lambda one: one.name.rpartition(".")[0]):
        heading = f"[{section}]" if section else "At the top of the file"
        if section == "plugins":
            heading, section = "[plugins.NAME]", ""  # noqa: PLW2901 (the whole section is the user's)
        out += ["", f"## {heading}", "", SUBSECTIONS.get(section) or sections.get(section.partition(".")[0], ""), ""]
        out += table(
            ("setting", "default", "values", "meaning"),
            (
                (
                    f"`{one.name}`" + (f"<br>`{one.variable}`" if one.variable else ""),
                    f"`{one.default}`" if one.default else "none",
                    with_separators(one.type),
                    one.doc,
                )
                for one in group
            ),
        )
    return "\n".join(out)


def with_separators(allowed: str) -> str:
    """Return the allowed values of a setting with separators in large numbers, and with the days of long times."""

    def separated(match: re.Match[str]) -> str:
        days, rest = divmod(int(match[0]), 86_400) if "seconds" in allowed else (0, 0)
        return f"{int(match[0]):,}" + (f" ({days:,} days)" if days > 1 and not rest else "")

    return re.sub(r"(?<![\w:])\d{4,}\b", separated, allowed)  # a port follows a colon


def commands() -> str:
    """Every command with its help text and its options."""
    without = [
        f"`{' '.join(words)}`"
        for words, command in _all_commands()
        if not isinstance(command, click.Group)
        and not {_names(param)[0] for param in command.params if isinstance(param, click.Option)} >= set(SHARED_OPTIONS)
    ]
    takers = f"Every command but {', '.join(without[:-1])} and {without[-1]} takes them."
    out = ["## Options of the settings", "", takers, ""]
    serve = _command(("serve",))
    out += _options(param for param in serve.params if _names(param)[0] in SHARED_OPTIONS)
    for words, command in _all_commands():
        context = click.Context(command, info_name=" ".join(("flowhooks", *words)))
        usage = " ".join((context.info_name or "", *command.collect_usage_pieces(context)))
        out += ["", f"## {' '.join(('flowhooks', *words))}", "", "```text", usage, "```", "", *_help(command)]
        own = [param for param in command.params if isinstance(param, click.Option)]
        takes_them = {_names(param)[0] for param in own} >= set(SHARED_OPTIONS)
        if takes_them:
            own = [param for param in own if _names(param)[0] not in SHARED_OPTIONS]
        if own:
            out += ["", *_options(own)]
        if takes_them:
            out += ["", "And [the options of the settings](#options-of-the-settings)."]
    return "\n".join(out)


def hooks() -> str:
    """Every hook under its signature."""
    out: list[str] = []
    for name in HOOKS:
        function = getattr(hookspecs, name)
        out += ["", f"## {name}", "", "```python", f"def {name}{signature(function)}: ...", "```", ""]
        out += docstring(function)
    return "\n".join(out)


def names() -> str:
    """Every object that plugins import, unless its docstring is not from flowhooks."""
    out: list[str] = []
    for name in flowhooks.__all__:
        if name == "hookimpl":
            continue
        thing = getattr(flowhooks, name)
        out += ["", f"## {name}", ""]
        if isinstance(thing, enum.EnumType):
            known: Mapping[str, enum.Enum] = thing.__members__
            members = [f'`{name}.{member}` (`"{value}"`)' for member, value in known.items()]
            out += [*docstring(thing), "", f"One of {', '.join(members)}."]
            continue
        if inspect.isfunction(thing):
            out += ["```python", f"def {name}{signature(thing)}: ...", "```", ""]
        else:
            out += ["```text", f"{name}{signature(_constructor(thing), method=True)}", "```", ""]
        out += docstring(thing)
        for method, function in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(function) and not method.startswith("_"):
                out += ["", f"### {name}.{method}", ""]
                out += ["```text", f"{method}{signature(function, method=True)}", "```", "", *docstring(function)]
    return "\n".join(out)


def layers() -> str:
    """The layers as import-linter checks them, the highest first, with the first sentence of each file or package."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    names = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = (
        (str(len(names) - place), f"`{name}`", _summary(f"flowhooks.{name}"))
        for place, layer in enumerate(names)
        for name in layer.split(" | ")
    )
    return "\n".join(table(("layer", "file or package", "what it is"), rows))


def live_settings() -> str:
    """The settings that SIGHUP changes, in one paragraph."""
    return ", ".join(f"`{name}`" for name in live_names())


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings,
    "live-settings": live_settings,
    "commands": commands,
    "hooks": hooks,
    "names": names,
    "transitions": states.transitions,
    "layers": layers,
    "metrics": numbers.numbers,
    "fake-engine": partial(testing.members, FakeEngine),
    "engine-driver": partial(testing.members, EngineDriver),
    "engine-client-contract": partial(testing.suite, EngineClientContract),
    "http-client-contract": partial(testing.suite, HttpClientContract),
    "administration-paths": administration.paths,
    "administration-parameters": administration.parameters,
    "administration-operations": administration.operations,
    "administration-members": administration.members,
} | {
    f"{name}-{language}": partial(part, language)
    for name, part in (
        ("kinds", contract.kinds),
        ("fields", contract.fields),
        ("answers", contract.answers),
        ("statuses", contract.statuses),
        ("headers", contract.headers),
        ("schemas", contract.schemas),
    )
    for language in ("en", "zh")
}
"""Generators by the name that a page uses for them."""
FILES: Final[Mapping[str, Callable[[], str]]] = {
    "explanation/states.svg": states.drawing,
    "callback.svg": partial(overview.drawing, "en"),
    "callback.zh-CN.svg": partial(overview.drawing, "zh"),
}
"""Files that are generated as a whole, by their path in `docs/`."""


def _constructor(kind: type) -> Callable[..., Any]:
    """Return the function that creates an object. An exception without its own arguments has those of every exception."""
    found: Callable[..., Any] | None = vars(kind).get("__init__")
    return found or (lambda *_args: None)


def _all_commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, in the order of `flowhooks --help`."""
    yield (), main
    for name in COMMANDS:
        command = _command((name,))
        yield (name,), command
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield (name, str(inner.name)), inner


def _command(words: tuple[str, ...]) -> click.Command:
    found = main.get_command(click.Context(main), words[0])
    if found is None:
        raise LookupError(words)
    return found


def _help(command: click.Command) -> Iterator[str]:
    """Return the help text of a command. Blocks that click prints unchanged become code."""
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        if number:
            yield ""
        if not paragraph.startswith("\b\n"):
            yield " ".join(paragraph.split())
            continue
        first, *rest = paragraph.removeprefix("\b\n").split("\n")
        if first.endswith(":") and rest:
            yield from (first, "")
        else:
            rest = [first, *rest]
        yield from ("```text", *inspect.cleandoc("\n" + "\n".join(rest)).split("\n"), "```")


def _options(params: Iterable[click.Parameter]) -> list[str]:
    rows = ((_option(param), _described(param)) for param in params if isinstance(param, click.Option))
    return table(("option", "meaning"), rows)


def _names(param: click.Parameter) -> list[str]:
    return [*param.opts, *param.secondary_opts]


def _option(param: click.Option) -> str:
    text = ", ".join(_names(param))
    if not param.is_flag:
        text += " " + (param.metavar or "|".join(getattr(param.type, "choices", ())))
    return f"`{text}`"


def _described(param: click.Option) -> str:
    text = param.help or ""
    if isinstance(param.type, click.IntRange | click.FloatRange):
        text += f" {param.type.min:,.10g} to {param.type.max:,.10g}."
    if param.show_default:
        text += f" Default: `{param.default}`."
    return text


def _summary(module: str) -> str:
    """The first sentence of a module's docstring, read without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(module)
    said = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""
    return " ".join(said.split("\n\n")[0].split()).partition("; it must not")[0].rstrip(".")


def run(arguments: list[str]) -> int:
    """Rewrite the pages, or with `--check` only list the pages that would change; return the exit code."""
    stale = 0
    made = {path: render(path.read_text("utf-8")) for path in pages()}
    made |= {DOCS / name: make() for name, make in FILES.items()}
    for path, after in made.items():
        before = path.read_text("utf-8") if path.exists() else None
        if after != before:
            stale += 1
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
            if "--check" not in arguments:
                path.write_text(after, "utf-8")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
