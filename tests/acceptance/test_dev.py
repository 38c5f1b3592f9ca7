"""`flowhooks dev` prints callbacks and outcomes, and loads plugins again when a file is saved."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from flowhooks.cli.dev.saved_files import import_watcher, saved_files
from support.waiting import WAIT_TIMEOUT, until

PLUGIN = """
from flowhooks import RetryAfter, handler, hookimpl

@handler(process_key="leave")
def grant(event):
    if event.flow_instance_id == "4710":
        raise RetryAfter(600, "closed")
    return 1

@hookimpl
def handlers():
    return [grant]
"""


class Development:
    """A running `flowhooks dev` in a folder, with the lines that it printed."""

    def __init__(self, folder):
        self.folder = folder
        # These tests may run under `nohup`, and child processes inherit ignored signals.
        ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "flowhooks",
                "dev",
                "--plugins-dir=.",
                "--listen=127.0.0.1:0",
                "--admin=127.0.0.1:0",
            ],
            cwd=folder,
            env=environ | {"FLOWHOOKS_PLUGINS_ALLOW": "shop"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        signal.signal(signal.SIGHUP, ignored)
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        self.lines.extend(self.process.stdout)

    def until_printed(self, pattern, *, times=1):
        """Wait until a line matches a pattern this many times; return the last match."""

        def look():
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            return found[times - 1] if len(found) >= times else None

        return until(look, why=lambda: "".join(self.lines[-20:]))

    def save(self, name, text):
        """Replace a file at once, so that no restart reads a part of it and no second one follows."""
        new = self.folder / f"{name}.new"  # which is not watched
        new.write_text(text)
        new.replace(self.folder / name)

    def post(self, instance, *, key="leave", start=1):
        """Send a callback to the server of this start."""
        address = self.until_printed(r"server_started .*call_backs=(http://\S+)", times=start)[1]
        request = urllib.request.Request(
            f"{address}/flow/{instance}/call-back/complete",
            data=json.dumps({"processDefinitionKey": key}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_TIMEOUT) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stop(self, number=signal.SIGTERM):
        """Stop it as a service manager or a closed terminal does, with its server; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WAIT_TIMEOUT)
        self._reader.join(WAIT_TIMEOUT)
        assert not self._reader.is_alive(), "the server still runs"
        self.process.stdout.close()
        return code


@pytest.fixture
def development(tmp_path):
    """A `flowhooks dev` in a folder with a plugin, and with a file that has the name of a standard module."""
    (tmp_path / "shop.py").write_text(PLUGIN)
    (tmp_path / "calendar.py").write_text("raise ImportError('this is not the standard library')\n")
    running = Development(tmp_path)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_a_changed_plugin_is_reloaded(development):
    """Outcomes are printed; a saved file is loaded; a broken plugin is quarantined until it is corrected."""
    assert development.post("4710") == 202
    development.until_printed(r"4710  shop:grant: waiting \(attempt 1\): .*closed; next attempt in \d+ min \d+ s$")
    assert development.post("4711") == 200
    development.until_printed(r"4711  complete, leave -> shop:grant$")
    development.until_printed(r"4711  shop:grant: succeeded \(attempt 1\)$")
    development.save("shop.py", PLUGIN.replace("return 1", 'raise ValueError("no days left")'))
    development.until_printed(r"^Saved: shop\.py\. Restarting the server\.$")
    assert development.post("4712", start=2) == 500
    development.until_printed(r"4712  shop:grant: dead \(attempt 1\): ValueError: no days left$")
    assert development.post("4713", key="other", start=2) == 202
    development.until_printed(r"4713  complete, other -> parked: no matching handler$")
    development.save("shop.py", "def (")
    development.until_printed(r"plugin_quarantined .*SyntaxError")
    development.until_printed(r"server_started .*quarantined=1", times=1)
    development.save("shop.py", PLUGIN)
    assert development.post("4714", start=4) == 200
    assert development.stop() == 0
    assert "Traceback" not in "".join(development.lines)


def test_unusable_settings_stop_the_server_until_corrected(development):
    """The server exits with the reason, and starts again when the settings file is corrected."""
    assert development.post("4711") == 200
    development.until_printed(r"4711  shop:grant: succeeded")  # by the process that watches files from now on
    development.save("flowhooks.toml", "nonsense = 1\n")
    development.until_printed(r"nonsense is not a setting")
    development.until_printed(r"^The server has exited with 2\. It starts again when a file is saved\.$")
    (development.folder / "flowhooks.toml").unlink()
    development.until_printed("server_started", times=2)
    assert development.stop(signal.SIGHUP) == 0


def test_a_watched_file_may_be_replaced(tmp_path):
    """Editors put a new file in the place of the old one. Other files of the folder are not watched."""
    settings, table, plugins = tmp_path / "flowhooks.toml", tmp_path / "prices.csv", tmp_path / "plugins"
    plugins.mkdir()
    for file in (settings, table):
        file.touch()
    stopping = threading.Event()
    saved = saved_files(*import_watcher(), [plugins, settings, table], stopping)
    assert next(saved) == []  # it watches from now on
    names = set()
    for file in (settings, settings, plugins / "shop.py", plugins / "shop.py", table, table):
        (new := tmp_path / "other.py").touch()
        new.replace(file)
        names.update(until(lambda name=file.name: name in (found := next(saved)) and found))
    assert names == {"flowhooks.toml", "shop.py", "prices.csv"}
    stopping.set()
    assert list(saved) == []


def test_the_error_names_the_missing_extra(tmp_path, monkeypatch):
    """Without watchfiles, the error names the extra, and no server is left running."""
    from click.testing import CliRunner

    from flowhooks.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    result = CliRunner(env={"FLOWHOOKS_PLUGINS_ALLOW": "none"}).invoke(main, ["dev", "--listen", "127.0.0.1:0"])
    assert result.exit_code == 2
    assert "pip install 'flowhooks[dev]'" in result.output
    assert not (tmp_path / "flowhooks.db").exists()
