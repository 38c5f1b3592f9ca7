"""Where the template of a plugin package is, and the rules for what goes into it; it must not know who asks for it."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Final

from flowhooks.errors import SettingsError
from flowhooks.model.selectors import MAX_CONCLUSION_CHARS

MOST_DOMAIN: Final = 40
MOST_AUTHOR: Final = 80
MOST_PACKAGE: Final = 60
MOST_SELECTOR: Final = 200
_PACKAGE: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX: Final = "flowhooks-"
_TAKEN: Final = frozenset({"flowhooks", "pytest", "tests", "conftest"})
_NEVER: Final = '"\\`{}<>'
"""What would end the text, the table or the code that a value is put into."""


def shipped() -> Path:
    """The folder of the template.

    Returns:
        Package data of an installed flowhooks; in an editable install, a folder of the checkout.

    Raises:
        SettingsError: neither is there.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "template", package.parent / "plugins/cookiecutter-flowhooks-plugin"):
        if (folder / "cookiecutter.json").is_file():
            return folder
    raise SettingsError(f"flowhooks is installed without its template: there is no folder {package / 'template'}")


def plugin_of(package: str) -> str:
    """The name of the plugin in a package that the template makes."""
    return package.removeprefix(_PREFIX)


def refuse_text(what: str, value: str, *, most: int) -> str:
    """A text for people, in any script.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _refuse(what, value, _NEVER, most)
    if value != value.strip():
        raise ValueError(f"{what} has a blank at its beginning or end")
    if not any(char.isalnum() for char in value):
        raise ValueError(f"{what} has neither a letter nor a digit")
    return value


def refuse_selector(what: str, value: str) -> str:
    """A call-back class or a process key; none is `""`.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _refuse(what, value, _NEVER + "'", MOST_SELECTOR)
    if any(char.isspace() for char in value):
        raise ValueError(f"{what} has a blank in it")
    return value


def refuse_conclusion(value: str) -> str:
    """A conclusion, in any script.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _refuse("conclusion", value, _NEVER + "'", MAX_CONCLUSION_CHARS)
    if value != value.strip():
        raise ValueError("conclusion has a blank at its beginning or end")
    return value


def refuse_package(value: str) -> str:
    """The name of a package, of which the names of its module and its plugin are made.

    Raises:
        ValueError: no package of this name can be made.
    """
    if not _PACKAGE.fullmatch(value) or len(value) > MOST_PACKAGE:
        raise ValueError(
            f"package is 1 to {MOST_PACKAGE} of a-z, 0-9 and single dashes, starting with a letter, not {value!r}"
        )
    module = value.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise ValueError(f"package {value!r} would make a module {module}, and Python has that name already")
    if plugin_of(value) == "flowhooks":
        raise ValueError(f"package {value!r} would make a plugin called flowhooks, and that name is reserved")
    return value


def _refuse(what: str, value: str, never: str, most: int) -> None:
    for char in value:
        if char in never:
            raise ValueError(f"{what} has a character that cannot be used: {char}")
    if not value.isprintable():
        raise ValueError(f"{what} has a character that cannot be printed")
    if len(value) > most:
        raise ValueError(f"{what} has more than {most} characters")
