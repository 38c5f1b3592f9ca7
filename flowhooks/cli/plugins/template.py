"""Where the template of a plugin package is, and the rules for what goes into it."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Final

from flowhooks.errors import SettingsError
from flowhooks.model.selectors import MAX_CONCLUSION_CHARS

MAX_DOMAIN_CHARS: Final = 40
MAX_AUTHOR_CHARS: Final = 80
MAX_PACKAGE_CHARS: Final = 60
MAX_SELECTOR_CHARS: Final = 200
_PACKAGE: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX: Final = "flowhooks-"
_RESERVED_MODULES: Final = frozenset({"flowhooks", "pytest", "tests", "conftest"})
_FORBIDDEN_CHARS: Final = '"\\`{}<>'
"""What would end the text, the table or the code that a value is put into."""


def template_dir() -> Path:
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


def plugin_name(package: str) -> str:
    """The name of the plugin in a package that the template makes."""
    return package.removeprefix(_PREFIX)


def check_text(what: str, value: str, *, max_chars: int) -> str:
    """A text for people, in any script.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _check(what, value, _FORBIDDEN_CHARS, max_chars)
    if value != value.strip():
        raise ValueError(f"{what} has a blank at its beginning or end")
    if not any(char.isalnum() for char in value):
        raise ValueError(f"{what} has neither a letter nor a digit")
    return value


def check_selector(what: str, value: str) -> str:
    """A call-back class or a process key; none is `""`.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _check(what, value, _FORBIDDEN_CHARS + "'", MAX_SELECTOR_CHARS)
    if any(char.isspace() for char in value):
        raise ValueError(f"{what} has a blank in it")
    return value


def check_conclusion(value: str) -> str:
    """A conclusion, in any script.

    Raises:
        ValueError: it cannot be put into a package.
    """
    _check("conclusion", value, _FORBIDDEN_CHARS + "'", MAX_CONCLUSION_CHARS)
    if value != value.strip():
        raise ValueError("conclusion has a blank at its beginning or end")
    return value


def check_package(value: str) -> str:
    """The name of a package, of which the names of its module and its plugin are made.

    Raises:
        ValueError: no package of this name can be made.
    """
    if not _PACKAGE.fullmatch(value) or len(value) > MAX_PACKAGE_CHARS:
        raise ValueError(
            f"package is 1 to {MAX_PACKAGE_CHARS} of a-z, 0-9 and single dashes, starting with a letter, not {value!r}"
        )
    module = value.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _RESERVED_MODULES:
        raise ValueError(f"package {value!r} would make a module {module}, and Python has that name already")
    if plugin_name(value) == "flowhooks":
        raise ValueError(f"package {value!r} would make a plugin called flowhooks, and that name is reserved")
    return value


def _check(what: str, value: str, forbidden: str, max_chars: int) -> None:
    for char in value:
        if char in forbidden:
            raise ValueError(f"{what} has a character that cannot be used: {char}")
    if not value.isprintable():
        raise ValueError(f"{what} has a character that cannot be printed")
    if len(value) > max_chars:
        raise ValueError(f"{what} has more than {max_chars} characters")
