"""Refuse answers that cannot make a plugin, with a message of one line.

Cookiecutter puts the answers in, then runs this in the new folder, and removes that if this fails. `flowhooks plugins
new` calls `refusal` as well, before anything is made.
"""

# ruff: noqa: INP001 (cookiecutter runs it as a file)
from __future__ import annotations

import json
import keyword
import re
import sys
from importlib.util import find_spec

# In a raw string in single quotes, for `tojson` gives neither a single quote nor a line end, whatever was answered.
ANSWERS = r'{{ {"domain": cookiecutter.domain, "package": cookiecutter.package, "author": cookiecutter.author, "callback_class": cookiecutter.callback_class, "process_key": cookiecutter.process_key, "conclusion": cookiecutter.conclusion} | tojson }}'  # noqa: E501 (one line of Jinja)
NO_TEXT = set('"\\`{}<>')
"""Characters that would change the syntax of a generated file."""
NO_NAME = NO_TEXT | {"'"}
PACKAGE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TAKEN = {"flowhooks", "pytest", "tests", "conftest"}
"""Names of modules that exist where a plugin is tested."""
LONGEST = {
    "domain": 40,
    "package": 60,
    "author": 80,
    "callback_class": 200,
    "process_key": 200,
    "conclusion": 128,
}
SELECTORS = {"callback_class", "process_key"}


def refusal(answers: dict[str, str]) -> str | None:
    """Return why these answers cannot make a plugin; None if they can."""
    for name, value in answers.items():
        if why := _unfit(name, value):
            return f"{name} {why}"
    if not re.search(r"[^\W_]", answers["domain"]):
        return "domain has neither a letter nor a digit: give a subject of one or two words, such as Contracts"
    if not any(answers[name] for name in SELECTORS):
        return "callback_class and process_key are both empty: give one, or no event would match the handler"
    return _package(answers["package"])


def _unfit(name: str, value: str) -> str | None:
    if len(value) > LONGEST[name]:
        return f"has {len(value)} characters, but at most {LONGEST[name]} are allowed"
    refused = NO_NAME if name in {*SELECTORS, "conclusion"} else NO_TEXT
    for character in value:
        if character in refused or not character.isprintable() or (name in SELECTORS and character.isspace()):
            shown = character if character.isprintable() and not character.isspace() else ascii(character)
            return f"has a character that cannot be used: {shown}"
    if value != value.strip():
        return "begins or ends with a space"
    return None


def _package(package: str) -> str | None:
    if not PACKAGE.fullmatch(package):
        return (
            f"package {package!r} is not a package name: use lower-case ASCII letters, digits and single dashes,"
            " a letter first, such as flowhooks-contracts"
        )
    module = package.replace("-", "_")
    if keyword.iskeyword(module):
        return f"package {package!r} would create a module {module}, which is a word of Python: choose another name"
    known = module in sys.stdlib_module_names or module in TAKEN
    if known or (not module.startswith("flowhooks_") and find_spec(module)):
        return f"package {package!r} would create a module {module}, which exists already: choose another name"
    if module.startswith("test_") or module.endswith("_test"):
        return (
            f"package {package!r} would create a module {module}, which would count as a test in flowhooks.testing:"
            " choose another name"
        )
    if package == "flowhooks-flowhooks":
        return f"package {package!r} would create a plugin flowhooks, but that name is reserved: choose another name"
    return None


if __name__ == "__main__":
    sys.path.pop(0)  # this file's temporary folder, whose modules must not be imported
    if why := refusal(json.loads(ANSWERS)):
        sys.exit(why)
