"""`flowhooks plugins try`: a wheel is compared with the installed plugin on stored events, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from contextlib import closing
from importlib.metadata import entry_points

import pytest

from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.ledger.reader import Reader
from flowhooks.settings import Settings
from support import fork_server

pytestmark = pytest.mark.timeout(600)  # each trial makes an environment and starts two processes

PIP = ("--", "--no-index")
PLUGIN = """
import pathlib
import flowhooks

@flowhooks.handler(process_key="leave"{selectors})
def grant(event):
    pathlib.Path({folder!r}, "entered").touch()

@flowhooks.hookimpl
def handlers():
    print("a plugin may print while it is loaded")
    return [grant]
"""
SCHEMAS = """
@flowhooks.hookimpl
def schemas():
    return [pathlib.Path(__file__).parent / "schemas"]
"""
BACKEND = """
import importlib.util
import shutil

def build_wheel(folder, config_settings=None, metadata_directory=None):
    assert importlib.util.find_spec("flowhooks") is None
    return shutil.copy({wheel!r}, folder).rpartition("/")[2]
"""
SCHEMA = {"type": "object", "properties": {"days": {"type": "integer"}}}


class Place:
    """A folder with a ledger and wheels, and perhaps an installed plugin.

    Attributes:
        database: the ledger.
        stored: ids of the stored events, by number.
    """

    def __init__(self, folder):
        self.folder = folder
        self.database = str(folder / "flowhooks.db")
        self.stored = {}
        self.installed = folder / "installed"

    def wheel(self, version="1.0.0", *, selectors="", source=None, schema=None, name="leave", requires=()):
        """A wheel of the package `acme-leave` with the plugin `leave`."""
        package, folder = f"acme_{name}", str(self.folder)
        source = PLUGIN.format(selectors=selectors, folder=folder) if source is None else source
        files = {f"{package}/__init__.py": source + (SCHEMAS if schema else "")}
        if schema:
            files[f"{package}/schemas/data/key/leave.schema.json"] = json.dumps(schema)
        info = f"{package}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        files |= {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[flowhooks]\n{name} = {package}\n"
            if "handler" in source or not source
            else "",
            f"{info}/RECORD": "",
        }
        wheel = self.folder / f"{package}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as made:
            for path, text in files.items():
                made.writestr(path, text)
        return wheel

    def install(self, **plugin):
        """Make such a package one of the installed ones."""
        with zipfile.ZipFile(self.wheel(**plugin)) as wheel:
            wheel.extractall(self.installed)

    def store(self, number, **body):
        """Store an event of the key `leave`."""
        body = {"processDefinitionKey": "leave", **body}
        callback = Callback(
            source="default", kind="complete", flow_instance_id=str(number), body=body, text=json.dumps(body)
        )
        with closing(App(Settings(database=self.database, safe_mode=True), run=(), kind="command")) as app:
            self.stored[number] = app.intake.accept(callback, wait=0).event_id

    def run(self, *words, code=0):
        """The output of `flowhooks plugins try`; its standard error is in `said`."""
        kept = {name: it for name, it in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTHONPATH"))}
        env = kept | {
            "FLOWHOOKS_DATABASE": self.database,
            # The plugins of this environment are not part of these tests.
            "FLOWHOOKS_PLUGINS_DENY": ",".join(
                sorted({entry_point.name for entry_point in entry_points(group="flowhooks")})
            ),
            "PIP_CONFIG_FILE": os.devnull,
            "COLUMNS": "100",
        }
        how = {"python_path": str(self.installed)} if self.installed.exists() else {}
        command = [*fork_server.FLOWHOOKS, "plugins", "try", *map(str, words)]
        done = fork_server.run(command, cwd=self.folder, env=env, timeout=300, forks_children=True, **how)
        self.said = done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def ask(self, *words, code=0):
        """Its JSON output."""
        return json.loads(self.run("--json", *words, code=code))


@pytest.fixture
def place(tmp_path, new_database):
    """A folder with an empty ledger. After the test no handler has been entered, and nothing else is stored."""
    place = Place(tmp_path)
    shutil.copy(new_database, place.database)
    yield place
    assert not (tmp_path / "entered").exists()
    if "://" not in place.database:
        with closing(Reader(f"sqlite:///{place.database}")) as reader:
            assert reader.registered_handlers() == []
            assert reader.totals().stored == len(place.stored)


def test_a_version_that_makes_no_difference(place):
    """The exit code is 0; a package with the version of the installed one is tried, too."""
    place.store(1, conclusion="approved")
    place.install()
    text = place.run(place.wheel(), *PIP)
    assert text.startswith("No plugin is new or changed in what it declares.\n\n0 of 1 event (received 20")
    assert text.endswith(") would be handled differently with acme-leave 1.0.0.\n")


def test_differences_of_another_version_are_grouped(place):
    """Routes, conditions and data are compared beside a running process, event by event, and grouped."""
    for number in range(7):
        place.store(number, conclusion="rejected")
    place.store(7, conclusion="approved", days="three")
    place.store(8, days=3)
    place.install(selectors="")
    wheel = place.wheel("2.0.0", selectors=', conclusion="approved"', schema=SCHEMA)
    with closing(App(Settings(database=place.database, safe_mode=True), kind="server")):
        result = place.ask(wheel, *PIP, code=1)
    assert result["tried"] == {"leave": "acme-leave 2.0.0"}
    ((changed,), problems) = result["plugins"]["changed"], result["problems"]
    assert (changed["name"], changed["version"], changed["before"]["version"]) == ("leave", "2.0.0", "1.0.0")
    assert problems == []
    numbers = result["events"]
    assert (numbers["compared"], numbers["different"], numbers["damaged"]) == (9, 9, 0)
    assert numbers["oldest_received_at"] <= numbers["newest_received_at"]
    rejected, undecided, invalid = result["differences"]
    assert rejected == {
        "callback_class": None,
        "process_key": "leave",
        "conclusion": "rejected",
        "state_before": "routed",
        "state_after": "dismissed (condition)",
        "subject": "route",
        "handler": "leave:grant",
        "before": "delivered",
        "after": "not delivered",
        "events": 7,
        "reasons": ["conclusion 'rejected' is not one of approved"],
        "more_reasons": False,
        "samples": [place.stored[number] for number in (6, 5, 4, 3, 2)],
    }
    assert (undecided["conclusion"], undecided["after"], undecided["samples"]) == (None, "undecided", [place.stored[8]])
    assert (invalid["subject"], invalid["before"], invalid["after"]) == ("data", "valid", "invalid")
    assert "three" not in json.dumps(invalid)
    assert "a plugin may print" in place.said

    text = place.run(wheel, "--limit", 2, *PIP, code=1)
    assert "key leave, conclusion approved\n  leave:grant, data: valid -> invalid, 1 event\n" in text
    assert "key leave\n  leave:grant: delivered -> undecided, 1 event\n" in text
    assert "    the event: routed -> parked (condition)\n" in text
    assert f"    such as {place.stored[8]}\n" in text
    assert "\n2 of 2 events (received " in text
    assert "rejected" not in text


def test_a_new_plugin_on_postgresql(place, postgresql_url):
    """Events that are parked now would be delivered to it. A thread that it starts keeps no process."""
    place.database = postgresql_url
    place.store(1)
    source = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    wheel = place.wheel(source=source + PLUGIN.format(selectors="", folder=str(place.folder)))
    text = place.run(wheel, "--state", "parked", *PIP, code=1)
    assert "new: leave 1.0.0 (acme-leave): loaded" in text
    assert "  leave:grant: not delivered -> delivered, 1 event\n    the event: parked (handler) -> routed\n" in text


def test_a_plugin_that_cannot_be_used(place):
    """The exit code is 1 even if no event is stored, and the reason is printed."""
    text = place.run(place.wheel(source="import flowhooks  # handler\n1 / 0"), *PIP, code=1)
    assert "problem: leave cannot be used and is quarantined\n  why: plugin 'leave'" in text
    assert "ZeroDivisionError" in text
    assert text.endswith("No stored event matches: nothing was compared with acme-leave 1.0.0.\n")
    text = place.run(place.wheel(source="import os  # handler\nos._exit(3)"), *PIP, code=1)
    assert "the tried plugins cannot be evaluated: their process ended with exit code 3" in place.said


def test_missing_requirements_are_installed(place):
    """Requirements that this environment lacks are installed with it, and those that it has are not."""
    place.wheel(name="days", source="LIMIT = 30")
    source = "from acme_days import LIMIT\n" + PLUGIN.format(selectors="", folder=str(place.folder))
    wheel = place.wheel(source=source, requires=("acme-days>=1", "flowhooks>=0.1", "click"))
    assert place.ask(wheel, *PIP, "--find-links", place.folder)["problems"] == []
    place.run(wheel, *PIP, code=1)
    assert "pip failed with exit code 1" in place.said


def test_a_folder_is_built_in_isolation(place):
    """Pip builds it in an environment of its own, which has the standard library and no package of this one."""
    wheel = place.wheel()
    package = place.folder / "acme-leave"
    package.mkdir()
    build_system = {"requires": "[]", "build-backend": '"backend"', "backend-path": '["."]'}
    lines = ["[build-system]", *(f"{name} = {value}" for name, value in build_system.items())]
    (package / "pyproject.toml").write_text("\n".join(lines))
    (package / "backend.py").write_text(BACKEND.format(wheel=str(wheel)))
    assert place.ask("./acme-leave", *PIP)["tried"] == {"leave": "acme-leave 1.0.0"}


def test_wrong_usage(place):
    """A package without a plugin, and a path without a package, are refused with a reason."""
    place.run(code=2)
    place.run(place.folder, code=2)
    assert "is no package: it has no pyproject.toml" in place.said
    place.run("--", "--no-index", code=2)
    assert "Nothing to try" in place.said
    place.run(place.wheel(name="days", source="LIMIT = 30"), *PIP, code=1)
    assert "it has no plugin" in place.said
    place.run("./nothing-here", *PIP, code=1)
    assert "pip failed with exit code 1" in place.said
