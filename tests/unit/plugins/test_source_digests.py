"""The digest of a handler's source files, which tells one version of a plugin from another."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace

from flowhooks import handler
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.plugins.source_digests import plugin_versions, source_digests

SOURCE = "def decide(event):\n    return None\n"


def loaded(path):
    """The handlers of the function in a file, by id."""
    spec = importlib.util.spec_from_file_location("digested", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return listed(module.decide)


def listed(function):
    """A handler of the plugin `p` by its id."""
    return {"p:decide": replace(handler(process_key="k")(function), plugin="p")}


def sha256(text):
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_a_file(tmp_path):
    """The digest of a plugin in one file is that of the file, whatever is beside it."""
    (tmp_path / "alone.py").write_text(SOURCE)
    (tmp_path / "other.py").write_text("x = 1")
    assert source_digests(loaded(tmp_path / "alone.py")) == {"p:decide": sha256(SOURCE)}


def test_digest_of_a_package(tmp_path):
    """The digest of a package covers all its Python files: it is that of the output of `sha256sum`."""
    inner = tmp_path / "outside" / "contracts" / "inner"
    inner.mkdir(parents=True)
    files = {"__init__.py": "", "inner/__init__.py": "", "inner/rules.py": SOURCE, "other.py": "x = 1"}
    for name, text in files.items():
        (inner.parent / name).write_text(text)
    (inner.parent / "notes.txt").write_text("not code")
    handlers = loaded(inner / "rules.py")
    printed = "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files))
    assert source_digests(handlers) == {"p:decide": sha256(printed)}
    (inner.parent / "other.py").write_text("x = 2")
    assert source_digests(handlers) != {"p:decide": sha256(printed)}
    versions = plugin_versions(handlers, {"p": "1.4"}.__getitem__)
    assert versions == {"p:decide": PluginVersion("1.4", source_digests(handlers)["p:decide"])}


def test_no_digest_without_a_file(tmp_path, monkeypatch):
    """A function without a source file has no digest, even if the server is started in a package."""
    (tmp_path / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(SOURCE, "<nowhere>", "exec"), namespace)
    assert source_digests(listed(namespace["decide"])) == {"p:decide": ""}
