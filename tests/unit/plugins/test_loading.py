"""Finding and importing plugins, and the effect of a plugin that fails."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowhooks import hookimpl
from flowhooks.errors import SettingsError
from flowhooks.plugins.discovery import discover
from flowhooks.plugins.plugins import Plugins

BROKEN = {
    "a module that is not there": (
        "import nope_not_there",
        r"ModuleNotFoundError: No module named 'nope_not_there' \(\S*bad_plugin\.py:1\)",
    ),
    "sys.exit at import": ("import sys\nsys.exit(3)", r"it called sys\.exit\(\) \(\S*bad_plugin\.py:2\)"),
    "a syntax error": ("x = 1\ndef broken(:\n    pass", r"SyntaxError: .*\(\S*bad_plugin\.py:2\)"),
    "GeneratorExit": ("raise GeneratorExit", r"GeneratorExit \(\S*bad_plugin\.py:1\)"),
    "an asyncio cancellation": (
        "import asyncio\nraise asyncio.CancelledError",
        r"CancelledError \(\S*bad_plugin\.py:2\)",
    ),
    "a BaseException of its own": (
        "class Stop(BaseException): pass\nraise Stop('halt')",
        r"Stop: halt \(\S*bad_plugin\.py:2\)",
    ),
    "an exception that cannot be read": (
        "class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd",
        r"Odd: its message cannot be read \(\S*bad_plugin\.py:3\)",
    ),
    "an exception that exits when it is read": (
        "import sys\nclass Odd(Exception):\n    def __str__(self): sys.exit(3)\nraise Odd",
        r"Odd: its message cannot be read \(\S*bad_plugin\.py:4\)",
    ),
    "a message of several lines, with an escape sequence": (
        r"raise ValueError('one\ntwo\x1b[31m')",
        r"ValueError: one two\ufffd\[31m \(\S*bad_plugin\.py:1\)$",
    ),
    "an error within a library": (
        "import json\njson.loads('{')",
        r"JSONDecodeError: .* \(\S*bad_plugin\.py:2\)",
    ),
    "endless recursion": ("def f():\n    f()\nf()", r"RecursionError: .* \(\S*bad_plugin\.py:2\)"),
}


@pytest.mark.parametrize(("source", "expected"), BROKEN.values(), ids=BROKEN)
def test_an_import_failure_quarantines_only_its_plugin(source, expected, site, good, info_of):
    """For any exception at import, the facts name error and place, and the other plugins are loaded."""
    site.install("bad", source)
    site.install("early", good)
    site.install("late", good)
    plugins = site.load()
    assert {info.name: info.state for info in plugins.infos} == {
        "bad": "quarantined",
        "early": "loaded",
        "late": "loaded",
    }
    bad = info_of(plugins, "bad")
    assert bad.error.startswith("plugin 'bad' (entry point bad_plugin of flowhooks-bad): ")
    assert re.search(expected, bad.error)
    assert len(bad.error.splitlines()) == 1
    assert "bad_plugin.py" in bad.traceback
    assert "importlib" not in bad.traceback
    assert list(plugins.handlers) == ["early:grant", "late:grant"]
    assert "bad_plugin" not in sys.modules


def test_an_interrupt_during_import_is_raised(site):
    """Ctrl-C during a plugin's import ends the command."""
    site.install("bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.load()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("gone_plugin", r"ModuleNotFoundError: No module named 'gone_plugin'$"),
        ("bad_plugin:nothing", r"AttributeError: module 'bad_plugin' has no attribute 'nothing'$"),
        ("bad plugin!", r"its entry point is not of the form package\.module:attribute$"),
        ("bad_plugin:nil", r"a plugin must be a module or an object, not None$"),
        ("bad_plugin:Class", r"a plugin must be a module or an object, not <class 'bad_plugin\.Class'>$"),
    ],
)
def test_an_entry_point_without_a_target_is_quarantined(target, expected, site, good, info_of):
    """An entry point must lead to a module or an object."""
    site.install("bad", "nil = None\nclass Class: pass", target=target)
    site.install("good", good)
    plugins = site.load()
    assert re.search(expected, info_of(plugins, "bad").error)
    assert info_of(plugins, "good").state == "loaded"


def test_facts_of_a_distribution(site, good, info_of):
    """An installed plugin is known by its distribution, version and entry point."""
    site.install("good", good, version="3.1")
    info = info_of(site.load(), "good")
    assert (info.distribution, info.version, info.origin) == ("flowhooks-good", "3.1", "entry point good_plugin")
    assert (info.state, info.error, info.traceback, info.hooks) == ("loaded", "", "", ("handlers",))
    assert [handler.id for handler in info.handlers] == ["good:grant"]


def test_installed_distributions_are_found(site, good, info_of):
    """By default the entry points of all distributions on `sys.path` are loaded."""
    site.install("good", good)
    plugins = Plugins.load(dirs=(), allow=["good"], deny=(), safe_mode=False, sections={})
    assert info_of(plugins, "good").state == "loaded"


def test_a_damaged_distribution_does_not_affect_plugins(site, good, info_of):
    """A package with unreadable entry points causes a warning and affects no plugin."""
    site.install("good", good)
    spoilt = site.path / "spoilt-1.dist-info"
    spoilt.mkdir()
    (spoilt / "entry_points.txt").write_bytes(b"[flowhooks]\n\xff\xfe = \xff")
    plugins = Plugins.load(dirs=(), allow=["good"], deny=(), safe_mode=False, sections={})
    assert info_of(plugins, "good").state == "loaded"
    assert any("cannot be read" in warning and str(site.path) in warning for warning in plugins.warnings)


def test_the_first_copy_of_a_distribution_counts(site, good, info_of):
    """A second copy of a distribution further down `sys.path` is not a second plugin."""
    site.install("good", good, version="2.0")
    older = site.path.parent / "older"
    older.mkdir()
    sys.path.append(str(older))
    try:
        copy = older / "Flowhooks.Good-1.0.dist-info"
        copy.mkdir()
        (copy / "METADATA").write_text("Metadata-Version: 2.1\nName: Flowhooks.Good\nVersion: 1.0\n")
        (copy / "entry_points.txt").write_text("[flowhooks]\ngood = good_plugin\n")
        plugins = Plugins.load(dirs=(), allow=["good"], deny=(), safe_mode=False, sections={})
    finally:
        sys.path.remove(str(older))
    assert info_of(plugins, "good").version == "2.0"


def test_entry_points_of_a_hidden_older_copy_do_not_count(site, monkeypatch):
    """An older copy further down `sys.path` is no plugin if the first copy has no entry points any more."""
    newer = site.path / "acme_leave-2.0.dist-info"
    newer.mkdir()
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-leave\nVersion: 2.0\n")
    folder = site.path.parent / "older"
    older = folder / "Acme.Leave-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme.Leave\nVersion: 1.0\n")
    (older / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    assert "leave" not in {plugin.name for plugin in discover(objects={}, entry_points=None, dirs=())[0]}
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    assert "leave" in {plugin.name for plugin in discover(objects={}, entry_points=None, dirs=())[0]}


@pytest.mark.parametrize("metadata", ["", "Metadata-Version: 2.1\nName: another-name\nVersion: 1\n"])
def test_a_package_that_its_name_does_not_find_counts(metadata, site):
    """The entry points of a package count, even if its metadata is missing or has another name than its folder."""
    folder = site.path / "acme_leave-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")
    if metadata:
        (folder / "METADATA").write_text(metadata)
    assert "leave" in {plugin.name for plugin in discover(objects={}, entry_points=None, dirs=())[0]}


def test_the_remains_of_a_removed_copy_hide_no_plugin(site, monkeypatch):
    """A folder without metadata is no package, although it has the name and is first; a warning names both folders."""
    remains = site.path.parent / "removed"
    (remains / "acme_leave-1.9.dist-info").mkdir(parents=True)
    folder = site.path / "acme_leave-2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-leave\nVersion: 2.0\n")
    (folder / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")
    monkeypatch.setattr(sys, "path", [str(remains), *sys.path])
    plugins, warnings = discover(objects={}, entry_points=None, dirs=())
    assert "leave" in {plugin.name for plugin in plugins}
    (warning,) = (text for text in warnings if "acme-leave" in text)
    assert str(remains) in warning
    assert str(site.path) in warning


@pytest.mark.parametrize("has_new_version", [True, False])
def test_the_remains_of_an_interrupted_pip_run_are_no_plugin(has_new_version, site):
    """A folder that pip has renamed in order to remove it is no package, as for pip; a warning names it."""
    versions = {"~cme_leave-1.0.dist-info": "1.0"} | ({"acme_leave-2.0.dist-info": "2.0"} if has_new_version else {})
    for folder, version in versions.items():
        (site.path / folder).mkdir()
        (site.path / folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-leave\nVersion: {version}\n")
        (site.path / folder / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")
    plugins, warnings = discover(objects={}, entry_points=None, dirs=())
    assert [plugin.version for plugin in plugins if plugin.name == "leave"] == (["2.0"] if has_new_version else [])
    (warning,) = (text for text in warnings if "~cme_leave" in text)
    assert warning.startswith(f"{site.path / '~cme_leave-1.0.dist-info'} is left of a pip run that was interrupted")


def test_two_plugins_with_the_same_name(site, good):
    """The second plugin of a name is quarantined, even if the first failed, and both origins are named."""
    site.install("twin", "raise ValueError")
    file = site.single_file("twin", good)
    first, second = site.load().infos
    assert (first.state, second.state) == ("quarantined", "quarantined")
    assert second.origin == f"file {file}"
    assert second.error == (
        f"plugin 'twin' (file {file}): there are two plugins with this name; the other one is entry point "
        "twin_plugin of flowhooks-twin; rename or remove this one"
    )


def test_one_object_under_two_names(site, good):
    """The second of two entry points to one module is quarantined."""
    site.install("one", good)
    site.install("two", "", target="one_plugin")
    one, two = site.load().infos
    assert (one.state, two.state) == ("loaded", "quarantined")
    assert "it is the same object as plugin 'one'" in two.error


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"deny": ["spy"]}, "it is in plugins_deny"),
        ({"allow": ["good"]}, "it is not in plugins_allow"),
        ({"allow": ["good", "spy"], "deny": ["spy"]}, "it is in plugins_deny"),
    ],
)
def test_a_denied_plugin_is_not_imported(given, error, site, good, info_of):
    """A denied plugin is not imported."""
    site.install("spy", "raise AssertionError('imported')")
    site.install("good", good)
    plugins = site.load(**given)
    assert info_of(plugins, "spy").state == "denied"
    assert info_of(plugins, "spy").error == f"plugin 'spy' (entry point spy_plugin of flowhooks-spy): {error}"
    assert info_of(plugins, "good").state == "loaded"


def test_safe_mode_imports_no_plugin(site, good):
    """In safe mode no plugin of any origin is imported."""
    site.install("good", good)
    site.single_file("single", good)
    plugins = site.load(safe_mode=True, objects={"direct": SimpleNamespace()})
    assert [(info.name, info.state) for info in plugins.infos] == [
        ("direct", "denied"),
        ("good", "denied"),
        ("single", "denied"),
    ]
    assert not plugins.handlers
    assert not {"good_plugin", "flowhooks-file:single"} & set(sys.modules)


def test_single_file_plugins(site, good, info_of):
    """Each file of a folder is a plugin, except those that begin with `_` or `.`; a broken one is quarantined."""
    file = site.single_file("archive", f"__version__ = '7'\n{good.replace(chr(10) + '    ', chr(10))}")
    site.single_file("broken", "raise OSError('no disk')")
    site.single_file("_helper", "raise AssertionError")
    site.single_file(".hidden", "raise AssertionError")
    (file.parent / "folder.py").mkdir()
    (file.parent / "notes.txt").write_text("not Python")
    plugins = site.load(dirs=[*site.dirs, site.dirs[0] / ".." / "files"])
    assert [(info.name, info.state) for info in plugins.infos] == [("archive", "loaded"), ("broken", "quarantined")]
    info = info_of(plugins, "archive")
    assert (info.origin, info.distribution, info.version) == (f"file {file}", "", "7")
    assert list(plugins.handlers) == ["archive:grant"]
    assert info_of(plugins, "broken").error.endswith(f"OSError: no disk ({file.parent / 'broken.py'}:1)")


def test_a_single_file_saved_twice_in_a_second(site, monkeypatch):
    """The source is loaded, and not the compiled file of an earlier source with the same size and time."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    source = """
        from flowhooks import handler, hookimpl

        @handler(process_key="leave", name="NAME")
        def work(event):
            pass

        @hookimpl
        def handlers():
            return [work]
    """
    for name in ("one", "two"):
        file = site.single_file("shop", source.replace("NAME", name))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert set(site.load().handlers) == {f"shop:{name}"}


def test_a_file_named_like_a_module_does_not_hide_the_module(site, good):
    """A single file is loaded under a private name, and a failed one leaves nothing in `sys.modules`."""
    import json

    site.single_file("json", good)
    site.single_file("gone", "raise ValueError")
    site.load()
    assert sys.modules["json"] is json
    assert "flowhooks-file:json" in sys.modules
    assert "flowhooks-file:gone" not in sys.modules


def test_a_file_that_cannot_be_examined_is_quarantined(site, good, monkeypatch):
    """A link into a locked folder, or to no file, is a plugin that cannot be used; the others are used."""
    site.single_file("good", good)
    folder = site.single_file("locked", good).parent
    (folder / "broken.py").symlink_to("nowhere")
    stat = Path.stat

    def examine(path, **named):
        if path.name == "locked.py":
            raise PermissionError(13, "Permission denied")
        return stat(path, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", examine)
        plugins = site.load()
    assert {"good", "locked", "broken"} == {info.name for info in plugins.infos}
    (broken,) = [info for info in plugins.infos if info.name == "broken"]
    assert "FileNotFoundError" in broken.error


@pytest.mark.parametrize("name", ["nowhere", "file", "loop"])
def test_a_missing_plugins_folder_is_rejected(name, tmp_path):
    """A missing folder in the settings is refused, because a start without its plugins would park their events."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match=f"plugins folder .*{name} cannot be read"):
        Plugins.load(dirs=[tmp_path / name], allow=(), deny=(), safe_mode=True, sections={}, entry_points=())


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("flowhooks", "the name 'flowhooks' is reserved"),
        ("two words", "its name must have 1 to 100 letters"),
        ("a:b", "its name must have 1 to 100 letters"),
        ("a\nb", "its name must have 1 to 100 letters"),
    ],
)
def test_invalid_plugin_names(name, error, load):
    """A plugin's name is part of its handlers' ids, and the built-in's name is reserved."""
    (info,) = load(**{name: SimpleNamespace()}).infos
    assert info.state == "quarantined"
    assert error in info.error
    assert len(info.error.splitlines()) == 1


def test_order_of_registration(site, good):
    """Objects come first, then entry points by name, then files by folder and name: the same at every start."""
    for name in ("zulu", "alpha"):
        site.install(name, good)
    site.single_file("bravo", good, folder="second")
    site.single_file("zebra", good, folder="first")
    site.single_file("ant", good, folder="first")
    plugins = site.load(objects={"direct": SimpleNamespace(handlers=hookimpl(nothing))})
    assert [info.name for info in plugins.infos] == ["direct", "alpha", "zulu", "bravo", "ant", "zebra"]


def test_settings_of_an_unknown_plugin_are_reported(site, good):
    """A name in the settings without a plugin is reported, because it may be misspelt."""
    site.install("contracts", good)
    plugins = site.load(sections={"contract": {}, "contracts": {}}, allow=["contracts", "leave"], deny=["pay"])
    assert plugins.warnings == (
        "the settings have a section [plugins.contracts], but plugin 'contracts' has no settings",
        "plugins_allow names 'leave', but there is no such plugin",
        "plugins_deny names 'pay', but there is no such plugin",
        "[plugins.NAME] names 'contract', but there is no such plugin; did you mean 'contracts'?",
    )


def test_entry_points_without_a_distribution(good, site, info_of):
    """An entry point made by hand belongs to no distribution."""
    site.install("good", good)
    plugins = site.load(entry_points=[EntryPoint("hand", "good_plugin", "flowhooks")])
    info = info_of(plugins, "hand")
    assert (info.state, info.distribution, info.version) == ("loaded", "", "")


def test_relative_plugin_folders_are_resolved(site, good, monkeypatch, info_of):
    """A relative folder is resolved, so that facts name a file that can be opened from anywhere."""
    file = site.single_file("archive", good)
    monkeypatch.chdir(file.parent.parent)
    assert info_of(site.load(dirs=[Path("files")]), "archive").origin == f"file {file}"


def nothing():
    """A plugin without handlers."""
    return []
