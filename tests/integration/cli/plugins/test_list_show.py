"""`flowhooks plugins list` and `show`."""

from __future__ import annotations

import json

import pytest

from support.waiting import WAIT_TIMEOUT

WORKS = '''
"""Grants leave; that is all.

And says more here.
"""

from pathlib import Path

from flowhooks import Retry, handler, hookimpl

__version__ = "1.2"

@handler(process_key=["leave", "sick"], callback_class="com.example.Leave", versions=">=2", source="erp",
         retry=Retry(attempts=3, delays=(10, 60)))
def grant(event):
    """Grant it.

    More.
    """

@handler(every=True, probe=lambda event, delivery: None, name="note-down")
def note(event):
    pass

@hookimpl
def configure(settings):
    pass

@hookimpl
def schemas():
    return [Path(__file__).with_name("works-schemas")]

@hookimpl
def handlers():
    return [grant, note]
'''
SETTINGS = {
    "type": "object",
    "required": ["payroll"],
    "additionalProperties": True,
    "properties": {
        "payroll": {"type": "string", "description": "Where leave is booked."},
        "days": {"type": "integer", "default": 30, "title": "Days at most"},
        "mode": {"enum": ["strict", "\u5bbd\u677e"]},
        "mail": {
            "type": "object",
            "required": ["from"],
            "properties": {"from": {"type": "string"}, "to": {"type": "array", "items": {"type": "string"}}},
        },
        "anything": True,
        "offices": {"type": "array", "items": {"$ref": "#/$defs/office"}},
    },
    "$defs": {
        "office": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": {"$ref": "#/$defs/name"},
                "floor": {"type": "integer"},
                "within": {"$ref": "#/$defs/office"},
            },
        },
        "name": {"type": "string", "title": "A name"},
    },
}
TOML = """
[plugins.works]
payroll = "https://secret.example/hidden-value"
mail = {from = "hidden-value"}
extra = "hidden-value"
offices = [{city = "hidden-value"}, {city = "hidden-value", floor = 3}]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a plugin that works and has schema files, one that raises, and one that is denied."""
    folder = tmp_path / "plugins"
    schemas = folder / "works-schemas"
    (schemas / "call-back").mkdir(parents=True)
    (schemas / "data/key").mkdir(parents=True)
    (schemas / "settings.schema.json").write_text(json.dumps(SETTINGS))
    (schemas / "call-back/withdraw.schema.json").write_text('{"type": "object"}')
    (schemas / "data/key/leave.schema.json").write_text('{"type": "object"}')
    (folder / "works.py").write_text(WORKS)
    (folder / "raises.py").write_text("def f():\n    1 / 0\nf()")
    (folder / "kept.py").write_text("raise SystemExit('never imported')")
    (tmp_path / "flowhooks.toml").write_text(TOML)
    return folder


@pytest.fixture
def env(folder):
    """The settings that find those plugins."""
    return {"FLOWHOOKS_PLUGINS_DIRS": str(folder), "FLOWHOOKS_PLUGINS_ALLOW": "works,raises"}


def by_name(found):
    """The plugins of a document by name, without those installed in this environment."""
    return {
        plugin["name"]: plugin
        for plugin in found["plugins"]
        if plugin["origin"].startswith("file ") or not plugin["origin"]
    }


def test_every_plugin_is_listed_in_any_state(run_json, env, folder):
    """Loaded, quarantined and denied plugins are listed with their facts; the exit code is 0."""
    found = run_json("plugins", "list", **env)
    plugins = by_name(found)
    assert {name: plugin["state"] for name, plugin in plugins.items()} == {
        "works": "loaded",
        "raises": "quarantined",
        "kept": "denied",
    }
    works = plugins["works"]
    assert (works["version"], works["package"], works["error"]) == ("1.2", "", "")
    assert works["hooks"] == ["configure", "schemas", "handlers"]
    assert [(handler["id"], handler["availability"]) for handler in works["handlers"]] == [
        ("works:grant", "present"),
        ("works:note-down", "present"),
    ]
    assert plugins["raises"]["error"].endswith(f"ZeroDivisionError: division by zero ({folder}/raises.py:2)")
    assert plugins["raises"]["handlers"] == []
    assert "plugins_allow" in plugins["kept"]["error"]
    assert found["ledger"] == {"read": False, "why": ""}


def test_list_as_table(run, env):
    """The table has one or two lines for each plugin, a total, and the complete errors below."""
    result = run("plugins", "list", **env)
    assert result.exit_code == 0
    assert "works\n" not in result.stdout.splitlines()[0]
    row = next(line for line in result.stdout.splitlines() if line.startswith("works"))
    assert row.split() == ["works", "-", "loaded", "2", "configure"]
    assert "1 loaded, 1 quarantined" in result.stdout.replace("1 quarantined, 1 loaded", "1 loaded, 1 quarantined")
    assert "Quarantined: plugin 'raises'" in result.stdout
    assert "ZeroDivisionError" in result.stdout


def test_list_without_plugins(run):
    """Without plugins the output says how to install one."""
    installed = run("plugins", "list", FLOWHOOKS_SAFE_MODE="yes").stdout
    assert "No plugin is installed" in installed or "denied" in installed


def test_a_missing_plugin_is_listed_from_the_ledger(server, run_json, run):
    """A missing plugin is listed with its handlers, their selectors, and the number of stored deliveries."""
    found = run_json("plugins", "list", server=server, FLOWHOOKS_PLUGINS_DIRS="")
    assert found["ledger"] == {"read": True, "why": ""}
    shop = by_name(found)["shop"]
    assert (shop["state"], shop["origin"], shop["package"]) == ("missing", "", "")
    handlers = {handler["id"]: handler for handler in shop["handlers"]}
    assert set(handlers) == {"shop:book", "shop:copy", "shop:grant", "shop:hang"}
    assert {handler["availability"] for handler in handlers.values()} == {"missing"}
    assert handlers["shop:book"]["selectors"]["process_keys"] == ["order"]
    assert handlers["shop:book"]["backlog"]["dead"] >= 1
    assert handlers["shop:hang"]["backlog"]["unknown"] >= 1
    text = run("plugins", "list", server=server, FLOWHOOKS_PLUGINS_DIRS="").stdout
    assert "Missing: shop." in text
    assert "flowhooks plugins uninstall NAME" in text


def test_a_removed_handler_is_listed_as_missing(server, run_json, tmp_path):
    """A removed handler is listed under its plugin as missing."""
    folder = tmp_path / "newer"
    folder.mkdir()
    (folder / "shop.py").write_text("from flowhooks import hookimpl\n@hookimpl\ndef handlers():\n    return []")
    found = run_json("plugins", "list", server=server, FLOWHOOKS_PLUGINS_DIRS=str(folder))
    assert by_name(found)["shop"]["state"] == "loaded"
    assert {handler["availability"] for handler in by_name(found)["shop"]["handlers"]} == {"missing"}


def test_a_ledger_that_cannot_be_read(run, run_json, env, tmp_path):
    """An unreadable ledger is reported, and the plugins are listed."""
    (tmp_path / "flowhooks.db").write_text("not a database, and long enough to be read as none\n" * 20)
    result = run("plugins", "list", **env)
    assert result.exit_code == 0
    assert "Without the registered handlers:" in result.stderr
    assert "file is not a database" in run_json("plugins", "list", **env)["ledger"]["why"]


def test_show_names_the_sources_of_a_receiver(run, run_json, tmp_path):
    """A receiver is shown with its hook and the fixed URLs that it reads, or with the setting that is missing."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "reader.py").write_text("from flowhooks import hookimpl\n@hookimpl\ndef receive_request(request): pass\n")
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(folder), "FLOWHOOKS_PLUGINS_ALLOW": "reader"}
    (tmp_path / "flowhooks.toml").write_text("")
    shown = " ".join(run("plugins", "show", "reader", **env).stdout.split())
    assert 'receives nothing: no source has [sources.NAME.ingress] receiver = "reader"' in shown
    sections = "".join(f'[sources.{name}.ingress]\nreceiver = "reader"\n' for name in ("lark", "feishu"))
    (tmp_path / "flowhooks.toml").write_text(sections)
    (plugin,) = run_json("plugins", "show", "reader", **env)["plugins"]
    assert (plugin["hooks"], plugin["receives_from"]) == (["receive_request"], ["lark", "feishu"])
    shown = " ".join(run("plugins", "show", "reader", **env).stdout.split())
    assert "receives /in/lark, /in/feishu" in shown


def test_show_as_json_has_all_data(run_json, env, folder):
    """JSON has the selectors, retries and file of each handler, the names of settings, and schema files."""
    (plugin,) = run_json("plugins", "show", "works", **env)["plugins"]
    assert plugin["documentation"] == "Grants leave; that is all."
    grant, note = plugin["handlers"]
    assert (grant["summary"], grant["has_probe"], grant["source_location"]) == (
        "Grant it.",
        False,
        f"{folder}/works.py:13",
    )
    assert grant["retry"] == {"attempts": 3, "delays": [10.0, 60.0], "jitter": 0.1}
    assert grant["selectors"] == {
        "callback_classes": ["com.example.Leave"],
        "process_keys": ["leave", "sick"],
        "versions": ">=2",
        "sources": ["erp"],
        "conclusions": [],
        "when": {},
        "kind": "complete",
        "every": False,
    }
    assert (note["id"], note["retry"], note["has_probe"]) == ("works:note-down", None, True)
    assert plugin["kinds"] == [{"kind": "withdraw", "file": f"{folder}/works-schemas/call-back/withdraw.schema.json"}]
    assert plugin["data"] == [
        {"by": "key", "value": "leave", "file": f"{folder}/works-schemas/data/key/leave.schema.json"}
    ]


def test_show_as_text(run, env, folder):
    """The same facts are printed as text."""
    lines = run("plugins", "show", "works", **env).stdout.splitlines()
    assert lines[:4] == [
        "plugin works 1.2: loaded",
        "  Grants leave; that is all.",
        f"  from       file {folder}/works.py",
        "  hooks      configure, schemas, handlers",
    ]
    for line in (
        "handler works:grant",
        "  Grant it.",
        "  listens to class com.example.Leave or key leave or key sick, versions >=2, from erp",
        "  retry      at most 3 attempts, after 10 s, 1 min",
        "  probe      none",
        "  listens to every event",
        "  retry      none: a failure is final",
        "  probe      yes",
        "kind of callback withdraw: POST /flow/{flowInstanceId}/call-back/withdraw",
        "data of key leave, for the handlers of this plugin",
    ):
        assert line in lines, line


def test_settings_are_shown_by_name_and_never_by_value(run, run_json, env):
    """Settings have type, default, description, required and set, without values; unknown names are listed too."""
    (plugin,) = run_json("plugins", "show", "works", **env)["plugins"]
    settings = {setting["name"]: setting for setting in plugin["settings"]}
    assert [name for name in settings if ".within." not in name] == [
        "payroll",
        "days",
        "mode",
        "mail.from",
        "mail.to",
        "anything",
        "offices",
        "offices[].city",
        "offices[].floor",
        "extra",
    ]
    assert (settings["offices"]["type"], settings["offices"]["set"]) == ("array of object", True)
    assert settings["offices[].city"] | {"set": None} == {
        "name": "offices[].city",
        "type": "string",
        "default": None,
        "description": "A name",
        "required": True,
        "set": None,
        "described": True,
    }
    assert (settings["offices[].floor"]["set"], settings["offices[].within.floor"]["set"]) == (True, False)
    assert max(name.count("within") for name in settings) < 6  # a recursive schema is displayed to a limited depth
    assert settings["payroll"] == {
        "name": "payroll",
        "type": "string",
        "default": None,
        "description": "Where leave is booked.",
        "required": True,
        "set": True,
        "described": True,
    }
    assert (settings["days"]["default"], settings["days"]["description"]) == (30, "Days at most")
    assert settings["mode"]["type"] == 'one of "strict", "\u5bbd\u677e"'
    assert (settings["mail.from"]["required"], settings["mail.from"]["set"]) == (True, True)
    assert (settings["mail.to"]["type"], settings["mail.to"]["set"]) == ("array of string", False)
    assert (settings["extra"]["set"], settings["extra"]["described"]) == (True, False)
    text = run("plugins", "show", "works", **env)
    assert "hidden-value" not in text.output + json.dumps(plugin)
    lines = text.stdout.splitlines()
    assert "  payroll: string, required, set" in lines
    assert "    Where leave is booked." in lines
    assert "  days: integer, default 30, not set" in lines
    assert "  extra: set; the plugin does not describe it" in lines


def test_the_schema_is_shown_beside_wrong_settings(run, env, tmp_path):
    """With wrong settings, the most frequent cause of a quarantine, the schema is shown."""
    (tmp_path / "flowhooks.toml").write_text('[plugins.works]\ndays = "hidden-value"\n')
    text = run("plugins", "show", "works", **env).stdout
    lines = text.splitlines()
    assert lines[:2] == ["plugin works 1.2: quarantined", "  Grants leave; that is all."]
    assert "[plugins.works]" in text
    assert "  payroll: string, required, not set" in lines
    assert "  days: integer, default 30, set" in lines
    assert "hidden-value" not in text


def test_show_of_a_broken_plugin_has_the_traceback(run, run_json, env, folder):
    """The traceback of a broken plugin is printed for its author; the exit code is 0."""
    result = run("plugins", "show", "raises", **env)
    assert result.exit_code == 0
    assert "plugin raises: quarantined" in result.stdout
    assert "    Traceback (most recent call last):" in result.stdout
    assert f'File "{folder}/raises.py", line 2, in f' in result.stdout
    (plugin,) = run_json("plugins", "show", "raises", **env)["plugins"]
    assert plugin["traceback"].startswith("Traceback")


def test_show_of_a_denied_or_missing_plugin(run, server, env):
    """The output says why the plugin is not in use, and how many deliveries wait for a missing one."""
    assert "it is not in plugins_allow" in run("plugins", "show", "kept", **env).stdout
    text = run("plugins", "show", "shop", server=server, FLOWHOOKS_PLUGINS_DIRS="").stdout
    assert text.startswith("plugin shop: missing\n")
    assert "handler shop:book: missing" in text
    assert "  listens to key order, versions >=2" in text


def test_an_unknown_name_is_wrong_usage(run, env):
    """An unknown name exits with 2, and suggests a similar name or lists all."""
    result = run("plugins", "show", "work", **env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no plugin 'work'; did you mean works?" in result.stderr
    result = run("plugins", "show", "zzzzzz\x1b[31m", **env)
    assert "works" in result.stderr
    assert "\x1b" not in result.stderr


def test_a_plugin_is_shown_by_the_name_of_its_package(run, run_json):
    """An installed plugin is shown by its package's name, with the description from its metadata."""
    from importlib.metadata import entry_points

    entry = next(iter(entry_points(group="flowhooks")))
    (plugin,) = run_json("plugins", "show", entry.dist.name, FLOWHOOKS_PLUGINS_ALLOW=entry.name)["plugins"]
    assert (plugin["name"], plugin["package"]) == (entry.name, entry.dist.name)
    assert plugin["summary"] == entry.dist.metadata["Summary"]
    shown = run("plugins", "show", entry.dist.name, FLOWHOOKS_PLUGINS_ALLOW=entry.name).stdout.splitlines()
    assert shown[1] == f"  {plugin['summary']}"
    assert plugin["documentation"] not in {line.strip() for line in shown}


def test_control_characters_of_a_plugin_are_not_printed(run, folder, env):
    """Docstrings, names in schemas and errors are printed without control characters."""
    (folder / "works-schemas/settings.schema.json").write_text(
        json.dumps({"properties": {"a\x1b[31m": {"type": "string", "description": "b\x1b[2Jc"}}})
    )
    (folder / "raises.py").write_text("raise ValueError('no\\x1b[31m')")
    for words in (("list",), ("show", "works"), ("show", "raises")):
        assert "\x1b" not in run("plugins", *words, **env).output


def test_a_plugin_that_prints_and_leaves_a_thread(spawn, tmp_path):
    """Nothing that it, its exit function or its process prints is in the result, and the command ends."""
    (tmp_path / "noisy.py").write_text(
        "import atexit, subprocess, threading\n"
        "print('loading')\n"
        "subprocess.run(['echo', 'started'])\n"
        "atexit.register(print, 'leaving')\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
    )
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path), "FLOWHOOKS_PLUGINS_ALLOW": "noisy"}
    env |= {"FLOWHOOKS_DATABASE": str(tmp_path / "none.db")}
    with spawn("plugins", "list", "--json", **env) as listing:
        printed, errors = listing.communicate(timeout=WAIT_TIMEOUT)
    assert "noisy" in [plugin["name"] for plugin in json.loads(printed)["plugins"]]
    assert errors.startswith("loading\nstarted\n")
    with spawn("plugins", "uninstall", "noisy", "--yes", **env) as uninstall:
        _, errors = uninstall.communicate(timeout=WAIT_TIMEOUT)
    assert "plugin noisy is the single file" in errors


@pytest.mark.parametrize("words", [("install", "./nowhere"), ("uninstall", "fatal", "--dry-run")])
def test_a_plugin_that_ends_the_process_is_reported(run, tmp_path, words):
    """A plugin that ends the process is reported, and without plugins the command works."""
    (tmp_path / "fatal.py").write_text("import os\nos._exit(3)\n")
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(tmp_path), "FLOWHOOKS_PLUGINS_ALLOW": "fatal"}
    result = run("plugins", *words, **env)
    assert result.exit_code == 1
    assert "exit code 3" in " ".join(result.output.split())
    assert "FLOWHOOKS_SAFE_MODE=true" in result.output
    result = run("plugins", "uninstall", "fatal", "--dry-run", FLOWHOOKS_SAFE_MODE="true", **env)
    assert "is the single file" in result.output
