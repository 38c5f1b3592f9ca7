"""`flowhooks plugins new`: asks what the template needs, and has it filled in."""

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
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_DOMAIN: Final = "Contracts"
"""What is proposed to those who only want to see one."""
DEFAULT_CONCLUSION: Final = "approved"
"""The conclusion that is proposed: a rejected approval completes, too."""
NO_TERMINAL_MESSAGE: Final = "nobody answers: say it with --domain, --package and --class or --key, and give --no-input"
NO_COOKIECUTTER_MESSAGE: Final = (
    "flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'"
)


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
    help=f"The conclusion that its handler requires; '' for every conclusion. Default: {DEFAULT_CONCLUSION}.",
)
@click.option("--author", type=utf8, default="", metavar="TEXT", help="Whose it is, for the package's metadata.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="The same as DIRECTORY."
)
@click.option("--no-input", is_flag=True, help="Ask nothing: take what is given, and defaults.")
def new_command(directory: Path | None, *, output_dir: Path | None, no_input: bool, **options: str | None) -> None:
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
    answers = _Questionnaire(options, no_input=no_input).answers()
    parent = directory or output_dir or Path()
    target = parent / answers["package"]
    if target.exists():
        raise SettingsError(f"there is a folder {target} already: move it away, or choose another --package")
    _render_template(cookiecutter, answers, parent)
    _print_next_steps(target, answers)


def _cookiecutter() -> Any:
    try:
        return import_module("cookiecutter.main").cookiecutter
    except ImportError:
        raise SettingsError(NO_COOKIECUTTER_MESSAGE) from None


class _Questionnaire:
    """Answers out of the options and, where they say nothing, of whoever sits there; each is checked as it comes."""

    def __init__(self, options: dict[str, str | None], *, no_input: bool) -> None:
        self._options = options
        self._no_input = no_input

    def answers(self) -> dict[str, str]:
        """What goes into the template.

        Raises:
            SettingsError: something cannot be used, or neither a class nor a key is given.
        """
        domain = self._answer("domain", "What is it about", DEFAULT_DOMAIN, _domain)
        chosen = any(self._options[name] for name in _SELECTOR_QUESTIONS)
        selectors = {
            name: self._answer(name, question, "", _selector(name), ask=not chosen)
            for name, question in _SELECTOR_QUESTIONS.items()
        }
        while not any(selectors.values()):
            if self._no_input or chosen:
                raise SettingsError("it would listen to nothing: give --class or --key, as the process has it")
            output.print_line("One of the two is needed, or it would listen to nothing.", err=True)
            selectors = {
                name: self._ask(question, "", _selector(name)) for name, question in _SELECTOR_QUESTIONS.items()
            }
        conclusion = self._answer("conclusion", _CONCLUSION_QUESTION, DEFAULT_CONCLUSION, _conclusion)
        package = self._answer("package", "The package's name", _default_package(domain), template.check_package)
        author = self._answer("author", "", "", _author, ask=False)
        return {"domain": domain, "package": package, **selectors, "conclusion": conclusion, "author": author}

    def _answer(self, name: str, question: str, default: str, check: Callable[[str], str], *, ask: bool = True) -> str:
        if self._options[name] is None and ask and not self._no_input:
            return self._ask(question, default, check)
        try:
            return check(self._options[name] if self._options[name] is not None else default)  # type: ignore[arg-type]  # just asked
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
            output.print_line(err=True)  # ends the line of the question
            raise SettingsError(NO_TERMINAL_MESSAGE) from None
        return answer


_SELECTOR_QUESTIONS: Final = {
    "callback_class": "The call-back class that it listens to (none: Enter)",
    "process_key": "The process definition key that it listens to (none: Enter)",
}
_CONCLUSION_QUESTION: Final = "The conclusion that its handler requires (every conclusion: a space)"
_SELECTOR_NAMES: Final = {"callback_class": "the call-back class", "process_key": "the process key"}


def _domain(text: str) -> str:
    if not text:
        raise ValueError("domain is empty")
    return template.check_text("domain", text, max_chars=template.MAX_DOMAIN_CHARS)


def _conclusion(text: str) -> str:
    return template.check_conclusion(text) if text else text


def _author(text: str) -> str:
    return template.check_text("author", text, max_chars=template.MAX_AUTHOR_CHARS) if text else text


def _selector(name: str) -> Callable[[str], str]:
    return lambda text: template.check_selector(_SELECTOR_NAMES[name], text)


def _default_package(domain: str) -> str:
    """A package's name out of the domain, as the template would make it; Chinese becomes Pinyin."""
    slug = import_module("slugify").slugify(domain)
    return f"{PROJECT}-{slug}"[: template.MAX_PACKAGE_CHARS].rstrip("-")


def _render_template(cookiecutter: Any, answers: dict[str, str], parent: Path) -> None:
    """Fill in the template; neither the user's own configuration of cookiecutter is read, nor their home written to."""
    logging.getLogger("cookiecutter").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        configuration = Path(scratch) / "cookiecutter.yaml"
        configuration.write_text(json.dumps({"replay_dir": scratch, "cookiecutters_dir": scratch}))  # JSON is YAML
        try:
            parent.mkdir(parents=True, exist_ok=True)
            cookiecutter(
                str(template.template_dir()),
                no_input=True,
                extra_context=answers,
                output_dir=str(parent),
                config_file=str(configuration),
            )
        except OSError as error:
            raise SettingsError(f"the package cannot be written to {parent}: {error.strerror or error}") from None
        except Exception as error:
            if not type(error).__module__.startswith("cookiecutter"):
                raise
            raise SettingsError(f"the package was not made: {one_line(str(error))}") from None


def _print_next_steps(target: Path, answers: dict[str, str]) -> None:
    plugin = template.plugin_name(answers["package"])
    output.print_line(f"Made {target}: the plugin {plugin}.", style="green")
    if plugin in {entry_point.name for entry_point in entry_points(group=PROJECT)}:
        output.print_line(f"A plugin {plugin} is installed here already; of two of one name only the first is loaded.")
    sent = [word for name, option in _SEND_OPTIONS.items() if answers[name] for word in (f"--{option}", answers[name])]
    output.print_line()
    output.print_line("Next:")
    for command in (
        f"cd {shell_quote(str(target))}",
        "pip install -e '.[test]'",
        "pytest",
        "flowhooks serve",
    ):
        output.print_line(f"  {command}")
    output.print_line("and in another terminal:")
    output.print_line(f"  {command_line('send', '1', '--business-key', 'K-1', *sent)}")


_SEND_OPTIONS: Final = {"callback_class": "class", "process_key": "key", "conclusion": "conclusion"}
