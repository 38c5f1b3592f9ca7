"""`flowhooks plugins install` and `uninstall` with pip in a temporary environment."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import sysconfig
import venv
import zipfile
from contextlib import closing, contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from flowhooks.app import App
from flowhooks.cli.plugins.plans import UninstallPlan
from flowhooks.cli.plugins.uninstall import _not_retired
from flowhooks.intake.callback import Callback
from flowhooks.ledger import audit
from flowhooks.ledger.lock import Lock
from flowhooks.ledger.reader import Reader
from flowhooks.settings import Settings
from support import fork_server
from support.steady_clients import Clients
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.timeout(900)  # a test runs up to a dozen commands, some of which run pip

CHECKOUT = Path(__file__).parents[4]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-leave"
version = "0.1.0"
dependencies = ["flowhooks"]

[project.entry-points.flowhooks]
leave = "acme_leave"

[tool.hatch.build.targets.wheel]
only-include = ["acme_leave.py"]
"""
PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="leave_request")
def grant(event):
    \"\"\"Grant it.\"\"\"

@hookimpl
def handlers():
    return [grant]
"""
PIP = ("--", "--no-deps", "--no-index", "--no-build-isolation")
"""Options against downloads: build requirements are in the environment of these tests."""
STARTED = {"PYTHONHASHSEED": "1"}
"""Lets a command, and the commands that it runs, be started, and not forked."""


class Environment:
    """An environment in which flowhooks runs on a ledger of its own.

    Attributes:
        folder: its folder, in which commands run and packages are made.
        database: the ledger, which may not exist.
    """

    def __init__(self, folder, python):
        self.folder = folder
        self.python = python
        self.database = folder / "flowhooks.db"
        self.env = {
            "FLOWHOOKS_DATABASE": str(self.database),
            # Packages installed for these tests are on the path, too.
            "FLOWHOOKS_PLUGINS_DENY": ",".join(
                sorted({entry_point.name for entry_point in entry_points(group="flowhooks")})
            ),
        }

    def command(self, *words):
        """A command of flowhooks there."""
        return [*fork_server.isolated_command(self.python), *map(str, words)]

    def environ(self):
        """The environment variables of its commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTHON"))}
        return kept | {"COLUMNS": "100", "PIP_CONFIG_FILE": os.devnull} | self.env

    def run(self, *words, code=0, **env):
        """The output of a command; its standard error is stored in `said`."""
        done = fork_server.run(self.command(*words), cwd=self.folder, env=self.environ() | env, timeout=300)
        self.said = done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def ask(self, *words, **more):
        """The JSON output of a command."""
        return json.loads(self.run(*words[:2], "--json", *words[2:], **more))

    def package(self):
        """The folder of a package with the plugin `leave`."""
        folder = self.folder / "acme-leave"
        folder.mkdir(exist_ok=True)
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "acme_leave.py").write_text(PLUGIN)
        return folder

    def wheel(self, version="0.1.0", source=PLUGIN, entry_points="[flowhooks]\nleave = acme_leave\n"):
        """A wheel of the package, which is faster to install than a package that has to be built."""
        wheel = self.folder / f"acme_leave-{version}-py3-none-any.whl"
        info = f"acme_leave-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as made:
            made.writestr("acme_leave.py", source)
            made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: acme-leave\nVersion: {version}\n")
            made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            made.writestr(f"{info}/entry_points.txt", entry_points)
            made.writestr(f"{info}/RECORD", "")
        return wheel

    def install(self):
        """Install such a wheel; return the command's JSON."""
        return self.ask("plugins", "install", self.wheel(), *PIP)

    def put(self):
        """Install such a wheel with pip only, for tests that start from there."""
        with zipfile.ZipFile(self.wheel()) as wheel:
            wheel.extractall(self.packages)
            names = wheel.namelist()
        info = self.packages / "acme_leave-0.1.0.dist-info"
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in (*names, f"{info.name}/INSTALLER")))

    def plugin(self, name="leave", **more):
        """The entry of a plugin in `plugins list`, or None."""
        found = {plugin["name"]: plugin for plugin in self.ask("plugins", "list", **more)["plugins"]}
        return found.get(name)

    @property
    def packages(self):
        """The folder of installed packages."""
        (packages,) = Path(self.python).parents[1].glob("lib/python*/site-packages")
        return packages

    def end(self):
        """Remove everything that a test created."""
        for left in self.packages.glob("*acme_leave*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for cached in (self.packages / "__pycache__").glob("acme_leave*"):
            cached.unlink()


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The Python of an environment with flowhooks and this environment's packages, except editable ones."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{CHECKOUT}\n")
    python = home / "bin/python"
    fork_server.use_for(python)
    return python


@pytest.fixture
def there(python, tmp_path):
    """An environment to install into and uninstall from; packages of a test are uninstalled after it."""
    there = Environment(tmp_path, python)
    yield there
    there.end()


@pytest.fixture
def ledger(there, new_database):
    """A ledger with two parked events that match the plugin."""
    shutil.copy(new_database, there.database)
    store(there, "leave_request", 2)
    return there.database


def store(there, key, count, kind="complete"):
    """Store callbacks with an `App` without plugins."""
    app = App(Settings(database=str(there.database), plugins_allow=("none",)))
    body = {"processDefinitionKey": key}
    for number in range(count):
        app.intake.accept(
            Callback(
                source="default",
                kind=kind,
                flow_instance_id=f"{key}-{number}",
                body=body,
                text=json.dumps(body),
            ),
            wait=0,
        )
    app.close()


def known(there):
    """The registered handlers."""
    with closing(Reader(f"sqlite:///{there.database}")) as reader:
        return [handler.id for handler in reader.registered_handlers()]


def audited(there):
    """The changes of the installation in the audit log, newest first, with the plugins concerned."""
    with closing(Reader(f"sqlite:///{there.database}")) as reader, reader.connection() as connection:
        entries = audit.entries(connection, limit=100)
    changes = [entry for entry in entries if entry.action in {"install", "uninstall", "restart"}]
    assert all(entry.actor and entry.interface for entry in changes)
    return [(entry.action, entry.detail.get("plugins")) for entry in changes]


def test_install_and_uninstall_of_a_plugin_with_parked_events(there, ledger):
    """Parked events are listed before they are delivered, kept when the plugin is removed, and listed again later."""
    there.package()
    text = there.run("plugins", "install", "./acme-leave", *PIP)
    assert text.startswith("Installing with pip. Append `-- --verbose` for the full output.\n\nnew: leave")
    assert "new: leave 0.1.0 (acme-leave): loaded" in text
    assert "leave:grant listens to key leave_request" in text
    assert "2 parked events will be delivered to leave:grant" in text
    assert "No server is running: the next server that starts loads the changes." in text
    assert known(there) == []
    assert audited(there) == [("install", ["leave - -> 0.1.0"])]
    there.run("events", "reroute", "--parked")
    assert known(there) == ["leave:grant"]
    dry = there.run("plugins", "uninstall", "leave", "--dry-run")
    assert "Uninstalls the package acme-leave, with the plugin leave." in dry
    assert "Retires leave:grant: key leave_request; stored: 2 waiting" in dry
    assert "Callbacks with key leave_request will be parked" in dry
    assert there.plugin()["state"] == "loaded"
    assert known(there) == ["leave:grant"]
    text = there.run("plugins", "uninstall", "acme_leave", "--yes")
    assert "Uninstalled acme-leave." in text
    assert "Found existing" not in text + there.said
    assert "Retired leave:grant." in text
    assert "Still stored for them: 2 waiting" in text
    assert "handler_missing" not in there.said
    assert known(there) == []
    assert audited(there)[0] == ("uninstall", ["leave 0.1.0 -> -"])
    assert there.plugin()["state"] == "retired"
    store(there, "leave_request", 3)
    done = there.install()
    (leave,) = done["new"]
    assert leave["handlers"][0]["backlog"] == {"waiting": 2, "running": 0, "unknown": 0, "dead": 0, "parked": 1}
    assert done["problems"] == []
    assert there.ask("events", "reroute", "--parked")["delivered"] == 1
    assert known(there) == [], "it is retired until a server loads it"


@pytest.mark.long
def test_editable_package(there):
    """Changes of an editable package take effect at once; uninstalling it keeps the folder."""
    folder = there.package()
    done = there.ask("plugins", "install", "-e", "./acme-leave", *PIP, **STARTED)
    assert [plugin["name"] for plugin in done["new"]] == ["leave"]
    (folder / "acme_leave.py").write_text(PLUGIN.replace("def grant", "def book").replace("[grant]", "[book]"))
    assert [handler["id"] for handler in there.plugin(**STARTED)["handlers"]] == ["leave:book"]
    there.run("plugins", "uninstall", "leave", "--yes", **STARTED)
    assert (folder / "acme_leave.py").exists()


def test_an_unusable_plugin_is_installed_and_reported(there):
    """An unusable plugin is installed, the check reports the fault, and the exit code is 1."""
    text = there.run("plugins", "install", there.wheel(source="1 / 0"), *PIP, code=1, **STARTED)
    assert "new: leave 0.1.0 (acme-leave): quarantined" in text
    assert "problem: leave 0.1.0 cannot be used and is quarantined" in text
    assert "ZeroDivisionError" in text
    assert "flowhooks plugins show leave" in text


def test_a_package_without_an_entry_point(there):
    """A package that has no plugin for flowhooks is installed, and the output names what it lacks."""
    text = there.run("plugins", "install", there.wheel(entry_points=""), *PIP, **STARTED)
    assert "No plugin is new or changed.\nA package whose plugin is missing in `flowhooks plugins list` has no" in text
    assert text.endswith("has no entry point of the group `flowhooks`.\n")
    assert there.plugin() is None


def test_a_plugin_that_ends_the_checking_process_is_reported(there, ledger):
    """If a plugin ends the process that checks it, its package is reported as installed, and recorded."""
    there.run("plugins", "install", there.wheel(source="import os\nos._exit(0)\n"), *PIP, code=1)
    assert "pip has installed the packages, and the next server that starts loads them" in there.said
    assert "failed in a new process, with exit code 0: it printed nothing" in there.said
    assert audited(there) == [("install", None)]


def test_each_plugin_that_was_not_retired_is_named():
    """Once a package is gone, nothing tells which plugins it had."""
    handlers = [{"id": f"{plugin}:h", "availability": "missing"} for plugin in ("leave", "sick")]
    plan = UninstallPlan(package="acme", plugins=("leave", "none", "sick"), handlers=handlers, other_handlers=())
    commands = "`flowhooks plugins uninstall leave` and `flowhooks plugins uninstall sick`"
    assert _not_retired(plan, "busy").endswith(f"were not retired: busy; run {commands} later")


def test_a_plugin_that_the_settings_deny(there):
    """A plugin that the settings deny is installed, and the setting is named."""
    text = there.run("plugins", "install", there.wheel(), *PIP, FLOWHOOKS_PLUGINS_ALLOW="other")
    assert "new: leave 0.1.0 (acme-leave): denied" in text
    assert "it is not in plugins_allow" in text


def test_a_ledger_that_another_process_is_opening(there, ledger):
    """The effects are shown although it is not known whether a server is running, and no server is replaced."""
    lock = Lock(there.database)
    assert lock.acquire()
    lock.path.write_text("")
    text = there.run("plugins", "install", "--restart", there.wheel(), *PIP, code=1)
    lock.release()
    assert "new: leave 0.1.0 (acme-leave): loaded" in text
    assert "If a server is running, restart it to load the changes." in text
    assert "It is not known whether a server is running: " in there.said


def test_a_package_that_is_already_installed(there):
    """An installed package changes nothing for a server; pip's own output is printed on request."""
    there.put()
    text = there.run("plugins", "install", there.wheel(), *PIP, "--verbose")
    assert "already installed" in text
    assert "\n\nNo plugin is new or changed.\n" in text


def test_a_package_that_pip_cannot_install(there):
    """The output of pip is passed through, and the exit code is 1."""
    there.run("plugins", "install", "./nothing-here", *PIP, code=1)
    assert "nothing-here" in there.said
    assert "pip failed with exit code 1" in there.said
    assert there.run("plugins", "install", code=2) == ""
    assert "Nothing to install" in there.said


def test_wrong_settings_are_found_before_pip_is_run(there):
    """With wrong settings nothing is installed, because it could not be checked."""
    there.package()
    there.run("plugins", "install", "./acme-leave", *PIP, code=2, FLOWHOOKS_LISTN="x")
    assert "FLOWHOOKS_LISTN is not a setting" in there.said
    assert there.plugin() is None
    there.run("plugins", "install", "./acme-leave", *PIP, code=1, FLOWHOOKS_PLUGINS_DIRS="missing-folder")
    assert "missing-folder cannot be read: No such file" in there.said
    shared = {"FLOWHOOKS_DATABASE": "postgresql://127.0.0.1/none"}
    there.run("plugins", "install", "./acme-leave", "--restart", *PIP, code=2, **shared)
    assert "--restart cannot find a server on PostgreSQL" in there.said
    assert there.plugin() is None


def test_an_environment_without_pip(there, tmp_path):
    """Without pip the command prints one line before it changes anything."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    (packages,) = bare.glob("lib/python*/site-packages")
    # Links to everything except pip and editable packages.
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("pip") and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    (packages / "flowhooks.pth").write_text(f"{CHECKOUT}\n")
    there.python = bare / "bin/python"
    there.run("plugins", "install", "./acme-leave", code=1)
    assert "has no pip" in there.said
    assert "-m ensurepip" in there.said


def test_uninstall_of_the_remains_of_a_package(there):
    """The remains of an interrupted pip run are no plugin, so they are not reported as uninstalled."""
    there.put()
    (folder,) = there.packages.glob("acme_leave-*.dist-info")
    remains = folder.rename(folder.with_name("~cme_leave-0.1.0.dist-info"))
    try:
        assert "Uninstalled" not in there.run("plugins", "uninstall", "leave", "--yes", code=2)
        assert f"{remains} is left of a pip run that was interrupted" in " ".join(there.said.split())
    finally:
        remains.rename(folder)


def test_an_uninstall_that_pip_does_not_know(there):
    """If pip does not find a package, but its plugin is still there, the command fails."""
    there.put()
    (folder,) = there.packages.glob("acme_leave-*.dist-info")
    renamed = folder.rename(folder.with_name("other_name-0.1.0.dist-info"))
    try:
        there.run("plugins", "uninstall", "leave", "--yes", code=1)
        assert "pip did not uninstall acme-leave" in there.said
    finally:
        renamed.rename(folder)


def test_uninstall_while_the_ledger_is_locked(there, ledger):
    """If the ledger is locked, the package is removed, its handlers stay known, and a repeat retires them."""
    there.put()
    there.run("events", "reroute", "--parked")
    lock = Lock(there.database)
    assert lock.acquire()
    there.run("plugins", "uninstall", "leave", "--yes", code=1)
    lock.release()
    assert "acme-leave is uninstalled, but its handlers were not retired: process" in there.said
    assert "run `flowhooks plugins uninstall leave` later" in there.said
    assert there.plugin()["state"] == "missing"
    text = there.run("plugins", "uninstall", "leave", "--yes")
    assert "Uninstalls no package" in text
    assert "Retired leave:grant." in text
    done = there.ask("plugins", "uninstall", "leave", "--yes")
    assert (done["handlers"], done["waiting"], done["server"]) == ([], 0, False)


def test_a_handler_that_a_new_version_lacks(there, ledger):
    """A new version without a handler is a fault with a command to retire it, which retires only that handler."""
    there.put()
    there.run("events", "reroute", "--parked")
    wheel = there.wheel("0.2.0", PLUGIN.replace("def grant", "def book").replace("[grant]", "[book]"))
    text = there.run("plugins", "install", "--upgrade", wheel, *PIP, code=1)
    assert "changed: leave 0.2.0 (acme-leave), before 0.1.0: loaded" in text
    assert "leave:book listens to key leave_request\n" in text
    assert "problem: 1 registered handler of plugin leave is not loaded: leave:grant" in text
    assert "`flowhooks plugins uninstall leave --handler grant`" in text
    done = there.ask("plugins", "uninstall", "leave", "--handler", "grant", "--yes")
    assert (done["package"], done["handlers"], done["waiting"]) == ("", ["leave:grant"], 2)
    assert there.plugin()["version"] == "0.2.0"
    assert known(there) == []


def test_dismissed_events_that_match_a_new_handler_are_counted(there, ledger):
    """The install counts them and prints the command that delivers them; the server does not."""
    there.put()
    there.run("events", "reroute", "--parked")
    store(there, "leave_request", 3, kind="cancel")
    undo = '@handler(process_key="leave_request", kind="cancel")\ndef undo(event):\n    """Undo it."""\n\n@hookimpl'
    wheel = there.wheel("0.2.0", PLUGIN.replace("@hookimpl", undo).replace("[grant]", "[grant, undo]"))
    text = there.run("plugins", "install", "--upgrade", wheel, *PIP)
    assert "dismissed" not in text.partition("At the next start:")[0]
    (command,) = re.findall(
        r"(?m)^  3 dismissed events will not be delivered to leave:undo unless you run: (flowhooks .*)$", text
    )
    there.run("events", "reroute", "--parked")
    assert len(there.ask("events", "list", "--state=dismissed")["events"]) == 3
    there.run(*shlex.split(command)[1:], "--yes")
    assert len(there.ask("events", "list", "--handler=leave:undo", "--state=waiting")["events"]) == 3


def test_a_package_outside_the_environment_is_not_uninstalled(there):
    """A package outside the environment, which pip skips without an error, is a failure here."""
    entry = next(entry_point for entry_point in entry_points(group="flowhooks"))
    there.run("plugins", "uninstall", entry.name, "--yes", code=1)
    assert f"pip did not uninstall {entry.dist.name}" in there.said


def test_unusable_targets_of_uninstall_are_refused(there, tmp_path):
    """A single file, a missing path, and at last a question without a terminal are refused."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "single.py").write_text(PLUGIN)
    there.put()
    for words, said in (
        (("single", "--yes"), f"plugin single is the single file {folder}/single.py: delete the file"),
        (("single",), f"plugin single is the single file {folder}/single.py: delete the file"),
        (("nosuch",), "there is no plugin 'nosuch'"),
        (("leave",), "There is no terminal to ask for confirmation"),
    ):
        there.run("plugins", "uninstall", *words, "--plugins-dir", folder, code=2)
        assert said in there.said
    assert (folder / "single.py").exists()
    assert there.plugin() is not None


@contextmanager
def serving(there):
    """A running server; yields the host and port of its callback listener."""
    command = there.command("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    process = fork_server.start(command, cwd=there.folder, env=there.environ())
    with process.stderr:
        try:
            said = []
            for line in process.stderr:
                said.append(line.decode())
                record = json.loads(line)
                if record["event"] == "server_started":
                    break
            else:
                pytest.fail("".join(said))
            yield record["call_backs"].removeprefix("http://")
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            code = process.wait(WAIT_TIMEOUT)
    assert code == 0


def post(base, instance):
    """The status of the response to a callback for the plugin."""
    with closing(http.client.HTTPConnection(base, timeout=WAIT_TIMEOUT)) as connection:
        headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
        connection.request(
            "POST", f"/flow/{instance}/call-back/complete", '{"processDefinitionKey": "leave_request"}', headers
        )
        return connection.getresponse().status


def test_the_command_asks_for_confirmation(server, run_at_terminal, tmp_path):
    """At a terminal the command describes its changes, also with `--json`, and "n" changes nothing."""
    for options in ((), ("--json",)):
        said, code = run_at_terminal(
            "plugins", "uninstall", "shop", "--plugins-dir", str(tmp_path), *options, typed="n\n"
        )
        plan, question, _ = said.partition("Continue? [y/N]")
        assert "Uninstalls no package; retires handlers of the plugin shop." in plan
        assert "Retires shop:grant: class com.example.Leave or class com.example.Other or key leave" in plan
        assert question
        assert code == 1
    with closing(Reader(f"sqlite:///{server.env['FLOWHOOKS_DATABASE']}")) as reader:
        assert "shop:grant" in [handler.id for handler in reader.registered_handlers()]


def test_a_running_server_is_replaced(there, ledger):
    """With `--restart` the server loads the plugin at once; a plugin that cannot be loaded leaves the server alone."""
    with serving(there) as base:
        assert post(base, "early") == 202
        text = there.run("plugins", "install", "--restart", there.wheel(), *PIP)
        assert "has replaced process" in text
        assert [action for action, _ in audited(there)] == ["restart", "install"]
        assert post(base, "in-time") == 200
        broken = there.wheel("0.2.0", "raise ImportError('no module of that kind')")
        text = there.run("plugins", "install", "--restart", broken, *PIP, code=1)
        assert "problem: " in text
        assert "has replaced process" not in text
        assert "refuses no callback" not in text
        assert "`flowhooks restart` is refused until leave can be loaded." in text
        assert post(base, "still") == 200


def test_an_upgrade_rejects_no_callback(there, ledger):
    """While clients send callbacks, a new version of a plugin is loaded; a broken one changes nothing."""
    there.put()
    with serving(there) as base:
        host, _, port = base.rpartition(":")
        with Clients((host, int(port)), {"processDefinitionKey": "leave_request"}) as clients:
            clients.until_more()
            text = there.run("plugins", "install", "--upgrade", "--restart", there.wheel("0.2.0"), *PIP)
            assert "has replaced process" in text
            clients.until_more()
            broken = there.wheel("0.3.0", "raise ImportError('no module of that kind')")
            there.run("plugins", "install", "--upgrade", "--restart", broken, *PIP, code=1)
            clients.until_more()
        with closing(Reader(f"sqlite:///{there.database}")) as reader:  # a callback that is answered 202 runs later
            until(lambda: reader.verify().deliveries.keys() == {"succeeded"})
    assert clients.failures == []
    assert clients.statuses.keys() <= {200, 202}
    with closing(sqlite3.connect(there.database)) as connection:
        versions = dict(connection.execute("SELECT plugin_version, count(*) FROM attempts GROUP BY 1").fetchall())
        states = connection.execute("SELECT state, count(*) FROM deliveries GROUP BY 1").fetchall()
    assert versions.keys() == {"0.1.0", "0.2.0"}
    parked = 2  # by the fixture
    assert states == [("succeeded", len(clients.sent) + parked)]
    assert sum(versions.values()) == len(clients.sent) + parked


def test_a_running_server_uses_its_loaded_plugins_until_a_restart(there, ledger):
    """A running server keeps its loaded plugins until a restart; a handler retired meanwhile stays retired."""
    with serving(there) as base:
        assert post(base, "early") == 202
        text = there.run("plugins", "install", there.wheel(), *PIP)
        assert "3 parked events will be delivered to leave:grant" in text
        assert "Restart the server to load the changes" in text
        assert post(base, "still-early") == 202
    with serving(there) as base:
        assert post(base, "in-time") == 200
        text = there.run("plugins", "uninstall", "leave", "--yes")
        assert "Retired leave:grant." in text
        assert "Restart the server: it still runs with the old plugins." in text
        assert known(there) == []
        assert post(base, "late") == 200
    assert there.ask("routes", "--key=leave_request", code=1)["result"] == "parked"
