"""Find the template of a plugin package, and validate the answers to its questions."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


def template_dir() -> Path:
    """Return the folder of the template.

    Returns:
        Package data of an installed flowhooks; in an editable install, a folder of the checkout.

    Raises:
        SettingsError: neither exists.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "template", package.parent / "plugins/cookiecutter-flowhooks-plugin"):
        if (folder / "cookiecutter.json").is_file():
            return folder
    raise SettingsError(
        f"flowhooks is installed without its template: the folder {package / 'template'} does not exist"
    )


def refusal(answers: Mapping[str, str]) -> str | None:
    """Return why the template refuses these answers, in its own words; None if it accepts them."""
    why: str | None = runpy.run_path(str(template_dir() / "hooks/pre_gen_project.py"))["refusal"](answers)
    return why
