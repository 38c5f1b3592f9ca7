"""A package made by the wheel alone without a network, as after an installation from an index."""

from __future__ import annotations

import json

NEEDS = "Error: flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'\n"
BUILDS = ("pip", "hatchling", "editables")
"""The packages that pip would download to install a folder."""


def test_the_command_without_the_extra_names_the_missing_package(environment_with_flowhooks, tmp_path):
    """Without cookiecutter the command prints in one line how to install it, and creates nothing."""
    environment = environment_with_flowhooks
    assert not [path for path in environment.packages.iterdir() if path.name.startswith("cookiecutter")]
    into = tmp_path / "empty"
    into.mkdir()
    words = ("plugins", "new", "--domain", "Leave", "--key", "leave", "--no-input")
    assert environment.run("flowhooks", *words, cwd=into, code=2) == NEEDS
    assert list(into.iterdir()) == []


def test_pip_install_and_pytest(environment_with_flowhooks, tmp_path):
    """With the extra, `flowhooks plugins new` and `pip install -e . && pytest` work, and every test passes."""
    environment = environment_with_flowhooks
    environment.link("flowhooks[new]", *BUILDS)
    words = ("plugins", "new", "--domain", "\u5408\u540c\u5ba1\u6279", "--key", "approval", "--no-input")
    said = environment.run("flowhooks", *words, cwd=tmp_path)
    assert said.startswith("Created flowhooks-he-tong-shen-pi: the plugin he-tong-shen-pi.\n")
    folder = tmp_path / "flowhooks-he-tong-shen-pi"
    environment.run("pip", "install", "--no-build-isolation", "--no-index", "-e", ".", cwd=folder)
    said = environment.run("pytest", "-p", "no:cacheprovider", cwd=folder)
    assert " 6 passed" in said
    listed = environment.run("flowhooks", "plugins", "list", "--json", cwd=tmp_path)
    (plugin,) = json.loads(listed)["plugins"]
    assert (plugin["name"], plugin["version"], plugin["state"]) == ("he-tong-shen-pi", "0.1.0", "loaded")


def test_there_is_no_network(environment):
    """There is no network; otherwise the other tests of this file would show less."""
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    assert "there is no network here: socket." in environment.run("-c", code, command=[environment.python], code=1)
