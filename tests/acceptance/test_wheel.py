"""The wheel, built from this checkout and installed elsewhere, is complete and serves."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).parents[2]
PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''


class Installed(NamedTuple):
    """A wheel, and the environment in which it is installed."""

    wheel: Path
    bin: Path

    def python(self, code):
        """The output of a Python program there."""
        command = [self.bin / "python", "-c", code]
        return subprocess.run(command, cwd=self.wheel.parent, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory, built):
    """The wheel, built and installed without a network; its requirements come from the environment of these tests."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        wheel = built(CHECKOUT)
        home = folder / "venv"
        venv.create(home, with_pip=False, symlinks=True)
        into = home / "bin/python"
        run(sys.executable, "-m", "pip", "--python", into, "install", "--no-deps", "--no-index", wheel)
        # Only the path, after the environment's own: .pth files there are not read, so editable installs are left out.
        (packages,) = home.glob("lib/python*/site-packages")
        (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        yield Installed(wheel, home / "bin")


def run(*command):
    """Run a command, and print its output if it failed."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


def test_the_wheel_has_all_needed_files(installed):
    """The wheel has schemas, migrations, the plugin template, the typing marker and the licence, but no tests."""
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    for folder, pattern, to in (
        ("schemas", "**/*.json", "flowhooks/schemas"),
        ("flowhooks", "**/*.py", "flowhooks"),
        ("flowhooks", "**/py.typed", "flowhooks"),
        ("plugins/cookiecutter-flowhooks-plugin", "**/*", "flowhooks/template"),
    ):
        found = [file for file in (CHECKOUT / folder).glob(pattern) if file.is_file()]
        files = [file.relative_to(CHECKOUT / folder).as_posix() for file in found]
        assert files
        assert {f"{to}/{file}" for file in files} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flowhooks"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".db")]


def test_the_source_archive_has_exactly_the_files_of_the_repository(tmp_path):
    """The source archive can be tested, built and read like a checkout, and has no other files."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, CHECKOUT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        names = {member.name.partition("/")[2] for member in sources.getmembers()}
    assert {"Makefile", "CONTRIBUTING.md", "SECURITY.md", ".dockerignore", "tests/data/requirements/dev.txt"} <= names
    if (CHECKOUT / ".git").exists():  # the unpacked archive is no repository
        git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        command = [*git, "--cached", "--others", "--exclude-per-directory=.gitignore"]
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        assert names - {"PKG-INFO"} == set(listed.stdout.split("\0")) - {""}


def test_the_installed_package_is_the_wheel_and_not_the_checkout(installed):
    """The installed package is the wheel; otherwise the other tests of this file would show nothing."""
    where = Path(installed.python("import flowhooks; print(flowhooks.__file__)"))
    assert where.is_relative_to(installed.bin.parent)
    shipped = Path(installed.python("from flowhooks.schema.files import shipped_dir; print(shipped_dir())"))
    assert shipped == where.parent / "schemas"
    template = Path(installed.python("from flowhooks.cli.plugins.template import template_dir; print(template_dir())"))
    assert template == where.parent / "template"


def test_the_command_prints_its_version(installed):
    """The command prints the version of the project file."""
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    ran = subprocess.run([installed.bin / "flowhooks", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"flowhooks {version}\n"
    assert installed.python("import flowhooks; print(flowhooks.__version__)") == version


def test_the_installed_wheel_serves_outside_the_checkout(installed, site):
    """Migrations run, schemas are published, a callback reaches its handler, and the counts balance."""
    site.plugin("demo", PLUGIN)
    site.flowhooks = [installed.bin / "flowhooks"]
    server = site.start()
    answer = server.post("a-1", {"processDefinitionKey": "good"})
    assert (answer.status, answer.body) == (200, b'{"success": true}')
    assert "must be of type string" in server.post("a-2", {"businessKey": True}).check_error(422)
    assert "/flow/{flowInstanceId}/call-back/complete" in server.ask("GET", "/openapi.json").json["paths"]
    server.stop()
    server.check_log()
    ran = site.run("verify", "--database", site.database)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "The counts balance." in ran.stdout
