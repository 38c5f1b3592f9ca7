"""Plugin packages made from the template by cookiecutter, as by a person or `flowhooks plugins new`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[3] / "plugins/cookiecutter-flowhooks-plugin"


class Baked(NamedTuple):
    """A package, and the names in its files."""

    folder: Path
    plugin: str
    module: str
    given: dict[str, str]

    @property
    def files(self):
        """Every file by its path in the package."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return {file.relative_to(self.folder).as_posix(): file.read_text("utf-8") for file in files}


@pytest.fixture(scope="session")
def bake(tmp_path_factory):
    """A function that makes a package from answers in a folder, and returns it."""
    folder = tmp_path_factory.mktemp("cookiecutter")
    config = folder / "config.json"
    config.write_text(json.dumps({"replay_dir": str(folder), "cookiecutters_dir": str(folder)}))

    def make(into, template=TEMPLATE, **answers):
        package_folder = cookiecutter(
            str(template), no_input=True, extra_context=answers, output_dir=str(into), config_file=str(config)
        )
        package = Path(package_folder).name
        return Baked(Path(package_folder), package.removeprefix("flowhooks-"), package.replace("-", "_"), answers)

    return make


@pytest.fixture
def template_error(bake, capfd):
    """A function that passes invalid answers, and returns the error text of the template."""

    def attempt(into, **answers):
        with pytest.raises(CookiecutterException):
            bake(into, **answers)
        return capfd.readouterr().err

    return attempt
