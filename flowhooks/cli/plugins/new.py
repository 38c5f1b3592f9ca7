"""`flowhooks plugins new`: ask for the template's values and render it."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import utf8
from flowhooks.cli.plugins.template import refusal, template_dir
from flowhooks.errors import SettingsError
from flowhooks.hookspecs import PROJECT
from flowhooks.text import command_line, one_line, shell_quote

NO_TERMINAL_MESSAGE: Final = (
    "there is no terminal for questions: give --domain, --package, --class or --key, and --no-input"
)
NO_COOKIECUTTER_MESSAGE: Final = (
    "flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'"
)
_SELECTORS: Final = {"callback_class": "--class", "process_key": "--key"}
"""Answers of which one is required, with their options."""


@click.command("new", short_help="Create a plugin package.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--domain", type=utf8, metavar="TEXT", help="Subject of the plugin in one or two words, in any language.")
@click.option("--package", type=utf8, metavar="NAME", help="Name of the package and of its folder.")
@click.option(
    "--class",
    "callback_class",
    type=utf8,
    metavar="CLASS",
    help="The callBackProcessClass that the handler listens to.",
)
@click.option(
    "--key", "process_key", type=utf8, metavar="KEY", help="The processDefinitionKey that the handler listens to."
)
@click.option(
    "--conclusion",
    type=utf8,
    metavar="TEXT",
    help="Conclusion that the handler requires; '' for all conclusions. Default: approved.",
)
@click.option("--author", type=utf8, metavar="TEXT", help="Author in the package's metadata.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Same as DIRECTORY."
)
@click.option("--no-input", is_flag=True, help="Ask no questions: use the options and defaults.")
def new_command(directory: Path | None, *, output_dir: Path | None, no_input: bool, **options: str | None) -> None:
    r"""Create a plugin package with a handler, its settings, passing tests and a README.

    The package is created as a new folder in DIRECTORY or in the working directory. The command asks at the terminal
    for options that are not given. A class or a key is required. Nothing is downloaded.

    \b
    Examples:
      flowhooks plugins new
      flowhooks plugins new --domain Leave --key leave_request --conclusion approved
      flowhooks plugins new plugins --domain Expenses --class com.example.ExpensesApproved --no-input

    Exit codes: 0 done, 2 the package cannot be created, and nothing was created.
    """
    if directory and output_dir:
        raise click.UsageError("DIRECTORY and --output-dir are the same: give one of them.")
    cookiecutter = _cookiecutter()
    answers = _answers(options, no_input=no_input)
    parent = directory or output_dir or Path()
    target = parent / answers["package"]
    if target.exists():
        raise SettingsError(f"the folder {target} exists already: move it, or choose another --package")
    _render_template(cookiecutter, answers, parent)
    _print_next_steps(target, answers)


def _cookiecutter() -> Any:
    try:
        return import_module("cookiecutter.main").cookiecutter
    except ImportError:
        raise SettingsError(NO_COOKIECUTTER_MESSAGE) from None


def _answers(options: dict[str, str | None], *, no_input: bool) -> dict[str, str]:
    """Return the template's values: from the options, from the user, or the template's defaults.

    Raises:
        SettingsError: a value is invalid, or there is no terminal to ask at.
    """
    questions = json.loads((template_dir() / "cookiecutter.json").read_text("utf-8"))
    prompt = import_module("cookiecutter.prompt")
    environment = import_module("cookiecutter.utils").create_env_with_context({"cookiecutter": questions})
    proposed = {name: value for name, value in options.items() if value is not None}
    if any(proposed.get(name) for name in _SELECTORS):
        proposed = dict.fromkeys(_SELECTORS, "") | proposed
    settled = frozenset(options if no_input else proposed)
    while True:
        answers: dict[str, str] = {}
        for name in (name for name in questions if not name.startswith("_")):
            default = proposed.get(name)
            if default is None:
                default = prompt.render_variable(environment, questions[name], answers)
            answers[name] = default if name in settled else _ask(name, default, questions["__prompts__"])
            if answers[name] != default:
                proposed[name] = answers[name]
        why = refusal(answers)
        if why is None:
            return answers
        if why.startswith(tuple(_SELECTORS)):
            for name, option in _SELECTORS.items():
                why = why.replace(name, option)
        if no_input:
            raise SettingsError(why)
        output.print_line(why, err=True)
        settled = frozenset()
        proposed = {name: value for name, value in proposed.items() if value.isprintable()}


def _ask(name: str, default: str, questions: dict[str, str]) -> str:
    if not sys.stdin.isatty():
        raise SettingsError(NO_TERMINAL_MESSAGE)
    import_module("rich").reconfigure(stderr=True)  # questions are not part of the output
    try:
        return utf8(import_module("cookiecutter.prompt").read_user_variable(name, default, questions))
    except EOFError:
        output.print_line(err=True)  # ends the line of the question
        raise SettingsError(NO_TERMINAL_MESSAGE) from None


def _render_template(cookiecutter: Any, answers: dict[str, str], parent: Path) -> None:
    # Use a temporary configuration, so that cookiecutter neither reads the user's nor writes to the home folder.
    logging.getLogger("cookiecutter").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        configuration = Path(scratch) / "cookiecutter.yaml"
        configuration.write_text(json.dumps({"replay_dir": scratch, "cookiecutters_dir": scratch}))  # JSON is YAML
        try:
            parent.mkdir(parents=True, exist_ok=True)
            cookiecutter(
                str(template_dir()),
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
            raise SettingsError(f"the package was not created: {one_line(str(error))}") from None


def _print_next_steps(target: Path, answers: dict[str, str]) -> None:
    plugin = answers["package"].removeprefix(f"{PROJECT}-")
    output.print_line(f"Created {target}: the plugin {plugin}.", style="green")
    if plugin in {entry_point.name for entry_point in entry_points(group=PROJECT)}:
        output.print_line(
            f"A plugin {plugin} is already installed here. Of two plugins with the same name only the first is loaded."
        )
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
