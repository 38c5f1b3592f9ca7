"""Each package of `plugins/` is a wheel that works alone with its own requirements."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGES = sorted(file.parent for file in (CHECKOUT / "plugins").glob("*/pyproject.toml"))
USES = {
    "audit": {"handlers", "delivery_settled"},
    "camunda": {"engine_clients"},
    "contracts": {"handlers", "schemas"},
    "feishu": {"receive_request", "schemas"},
    "flowable": {"engine_clients"},
    "notice": {"alert_raised", "alert_resolved"},
    "opentelemetry": {"run_handler"},
    "timings": {"run_handler", "event_accepted", "delivery_settled"},
    "webhooks": {"handlers"},
}
"""The hooks for which each plugin exists, besides `configure` and `schemas`, which most plugins have."""
ALIKE = {"flowhooks-notice", "flowhooks-timings"}
"""Plugins that require only flowhooks, like another tested one: in the long set."""


@pytest.mark.parametrize(
    "package",
    [
        pytest.param(package, marks=pytest.mark.long if package.name in ALIKE else (), id=package.name)
        for package in PACKAGES
    ],
)
def test_each_wheel_works_alone(package, environment_with_flowhooks, built, tmp_path):
    """The wheel has all its files and declares all its imports, and flowhooks accepts the plugin."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    wheel = built(package)
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    sources = (file for file in (package / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert {file.relative_to(package / "src").as_posix() for file in sources} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests/")]

    environment = environment_with_flowhooks
    environment.install(wheel)
    (name,) = project["entry-points"]["flowhooks"]
    listed = json.loads(environment.run("flowhooks", "plugins", "list", "--json", cwd=tmp_path))["plugins"]
    (plugin,) = listed
    assert (plugin["name"], plugin["package"]) == (name, project["name"])
    assert (plugin["version"], plugin["state"], plugin["error"]) == (project["version"], "loaded", "")
    assert set(plugin["hooks"]) >= USES[name]
    environment.run("flowhooks", "check", cwd=tmp_path)
    assert (package / "README.md").read_text().startswith(f"# {project['name']}\n")
    assert list((package / "tests").glob("test_*.py"))


def test_every_hook_is_used():
    """Each hook is used by a plugin."""
    from flowhooks.plugins.registration import HOOKS

    assert {package.name.removeprefix("flowhooks-") for package in PACKAGES} == USES.keys()
    assert set().union(*USES.values()) | {"configure"} == set(HOOKS)
