"""`flowhooks plugins new`: asks what the template needs, and has it filled in; it must not know what that makes."""

from __future__ import annotations

import json
import logging
import tempfile
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import utf8
from flowhooks.cli.plugins import template
from flowhooks.commands import command_line, shell_quote
from flowhooks.errors import SettingsError
from flowhooks.hookspecs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

DOMAIN: Final = "Contracts"
"""What is proposed to those who only want to see one."""
CONCLUSION: Final = "approved"
"""The conclusion that is proposed: a rejected approval completes, too."""
NOBODY: Final = "nobody answers: say it with --domain, --package and --class or --key, and give --no-input"
NEEDS: Final = "flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'"


@click.command("new", short_help="Make a plugin package of your own.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--domain", type=utf8, metavar="TEXT", help="What it is about, in a word or two, in any language.")
@click.option("--package", type=utf8, metavar="NAME", help="The package's name, which is also its folder's.")
@click.option(
    "--class", "callback_class", type=utf8, metavar="CLASS", help="The callBackProcessClass that it listens to."
)
@click.option("--key", "process_key", type=utf8, metavar="KEY", help="The processDefinitionKey that it listens to.")
@click.option(
    "--conclusion",
    type=utf8,
    metavar="TEXT",
    help=f"The conclusion that its handler requires; '' for every conclusion. Default: {CONCLUSION}.",
)
@click.option("--author", type=utf8, default="", metavar="TEXT", help="Whose it is, for the package's metadata.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="The same as DIRECTORY."
)
@click.option("--no-input", is_flag=True, help="Ask nothing: take what is given, and defaults.")
def new_command(directory: Path | None, *, output_dir: Path | None, no_input: bool, **given: str | None) -> None:
    r"""Make a plugin package: a handler, its settings, tests that pass, and a README.

    The package gets a folder of its own in DIRECTORY, or here. What the options do not say is asked for; a class or
    a key there must be. Nothing is fetched from anywhere.

    \b
    Examples:
      flowhooks plugins new
      flowhooks plugins new --domain Leave --key leave_request --conclusion approved
      flowhooks plugins new plugins --domain Expenses --class com.example.ExpensesApproved --no-input

    Exit codes: 0 done, 2 it cannot be made, and nothing was.
    """
    if directory and output_dir:
        raise click.UsageError("DIRECTORY and --output-dir are the same: give one of them.")
    cookiecutter = _cookiecutter()
    answers = _Asking(given, no_input=no_input).answers()
    where = directory or output_dir or Path()
    target = where / answers["package"]
    if target.exists():
        raise SettingsError(f"there is a folder {target} already: move it away, or choose another --package")
    _make(cookiecutter, answers, where)
    _say(target, answers)


def _cookiecutter() -> Any:
    try:
        return import_module("cookiecutter.main").cookiecutter
    except ImportError:
        raise SettingsError(NEEDS) from None


class _Asking:
    """Answers out of the options and, where they say nothing, of whoever sits there; each is checked as it comes."""

    def __init__(self, given: dict[str, str | None], *, no_input: bool) -> None:
        self._given = given
        self._no_input = no_input

    def answers(self) -> dict[str, str]:
        """What goes into the template.

        Raises:
            SettingsError: something cannot be used, or neither a class nor a key is given.
        """
        domain = self._one("domain", "What is it about", DOMAIN, _domain)
        chosen = any(self._given[name] for name in _SELECTORS)
        selectors = {
            name: self._one(name, question, "", _selector(name), ask=not chosen)
            for name, question in _SELECTORS.items()
        }
        while not any(selectors.values()):
            if self._no_input or chosen:
                raise SettingsError("it would listen to nothing: give --class or --key, as the process has it")
            output.line("One of the two is needed, or it would listen to nothing.", err=True)
            selectors = {name: self._ask(question, "", _selector(name)) for name, question in _SELECTORS.items()}
        conclusion = self._one("conclusion", _CONCLUSION, CONCLUSION, _conclusion)
        package = self._one("package", "The package's name", _proposal(domain), template.refuse_package)
        author = self._one("author", "", "", _author, ask=False)
        return {"domain": domain, "package": package, **selectors, "conclusion": conclusion, "author": author}

    def _one(self, name: str, question: str, default: str, check: Callable[[str], str], *, ask: bool = True) -> str:
        if self._given[name] is None and ask and not self._no_input:
            return self._ask(question, default, check)
        try:
            return check(self._given[name] if self._given[name] is not None else default)  # type: ignore[arg-type]  # just asked
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def _ask(self, question: str, default: str, check: Callable[[str], str]) -> str:
        def checked(text: str) -> str:
            try:
                return check(utf8(text.strip()))
            except ValueError as error:
                raise click.BadParameter(str(error)) from None

        try:
            answer: str = click.prompt(
                question, default=default, value_proc=checked, show_default=bool(default), err=True
            )
        except click.Abort as error:
            if not isinstance(error.__context__, EOFError):
                raise
            output.line(err=True)  # ends the line of the question
            raise SettingsError(NOBODY) from None
        return answer


_SELECTORS: Final = {
    "callback_class": "The call-back class that it listens to (none: Enter)",
    "process_key": "The process definition key that it listens to (none: Enter)",
}
_CONCLUSION: Final = "The conclusion that its handler requires (every conclusion: a space)"
_CALLED: Final = {"callback_class": "the call-back class", "process_key": "the process key"}


def _domain(text: str) -> str:
    if not text:
        raise ValueError("domain is empty")
    return template.refuse_text("domain", text, most=template.MOST_DOMAIN)


def _conclusion(text: str) -> str:
    return template.refuse_conclusion(text) if text else text


def _author(text: str) -> str:
    return template.refuse_text("author", text, most=template.MOST_AUTHOR) if text else text


def _selector(name: str) -> Callable[[str], str]:
    return lambda text: template.refuse_selector(_CALLED[name], text)


def _proposal(domain: str) -> str:
    """A package's name out of the domain, as the template would make it; Chinese becomes Pinyin."""
    slug = import_module("slugify").slugify(domain)
    return f"{PROJECT}-{slug}"[: template.MOST_PACKAGE].rstrip("-")


def _make(cookiecutter: Any, answers: dict[str, str], where: Path) -> None:
    """Fill in the template; neither the user's own configuration of cookiecutter is read, nor their home written to."""
    logging.getLogger("cookiecutter").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        configuration = Path(scratch) / "cookiecutter.yaml"
        configuration.write_text(json.dumps({"replay_dir": scratch, "cookiecutters_dir": scratch}))  # JSON is YAML
        try:
            where.mkdir(parents=True, exist_ok=True)
            cookiecutter(
                str(template.shipped()),
                no_input=True,
                extra_context=answers,
                output_dir=str(where),
                config_file=str(configuration),
            )
        except OSError as error:
            raise SettingsError(f"the package cannot be written to {where}: {error.strerror or error}") from None
        except Exception as error:
            if not type(error).__module__.startswith("cookiecutter"):
                raise
            raise SettingsError(f"the package was not made: {' '.join(str(error).split())}") from None


def _say(target: Path, answers: dict[str, str]) -> None:
    plugin = template.plugin_of(answers["package"])
    output.line(f"Made {target}: the plugin {plugin}.", style="green")
    if plugin in {one.name for one in entry_points(group=PROJECT)}:
        output.line(f"A plugin {plugin} is installed here already; of two of one name only the first is loaded.")
    sent = [word for name, option in _SENT.items() if answers[name] for word in (f"--{option}", answers[name])]
    output.line()
    output.line("Next:")
    for command in (
        f"cd {shell_quote(str(target))}",
        "pip install -e '.[test]'",
        "pytest",
        "flowhooks serve",
    ):
        output.line(f"  {command}")
    output.line("and in another terminal:")
    output.line(f"  {command_line('send', '1', '--business-key', 'K-1', *sent)}")


_SENT: Final = {"callback_class": "class", "process_key": "key", "conclusion": "conclusion"}
