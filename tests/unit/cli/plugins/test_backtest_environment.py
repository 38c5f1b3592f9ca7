"""The requirements that are installed into a trial environment, and its plugins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowhooks.cli.plugins.backtest.environment import TrialEnvironment, missing_requirements


@pytest.fixture
def environment(tmp_path):
    """An environment in which no package is installed yet."""
    return TrialEnvironment(python=Path(sys.executable), packages=tmp_path, environ={})


def install(environment, name, version, *, requires=(), plugins=()):
    """Put the metadata of a package into an environment."""
    folder = environment.packages / f"{name}-{version}.dist-info"
    folder.mkdir()
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (folder / "entry_points.txt").write_text(
        "[flowhooks]\n" + "".join(f"{entry_point} = {entry_point}\n" for entry_point in plugins)
    )


@pytest.mark.parametrize(
    ("requirement", "is_missing"),
    [
        ("click", False),
        ("Click>=8", False),
        ("click>=999", True),
        ("acme-none", True),
        ("acme-none; python_version < '3'", False),
        ("acme-none; extra == 'pdf'", False),
        ("acme-days>=2", False),
        ("acme-days>=3", True),
        ("click[more]", True),
        ("acme @ https://example.com/acme.whl", True),
        ("flowhooks>=999", False),
        ("no requirement", True),
    ],
)
def test_only_unmet_requirements_are_installed(environment, requirement, is_missing):
    """Packages of both environments meet it; one of flowhooks is never installed, and pip names an invalid one."""
    install(environment, "acme_days", "2.0")
    install(environment, "acme_leave", "1.0", requires=[requirement, requirement])
    assert missing_requirements(environment) == ([requirement] if is_missing else [])


def test_only_plugins_of_the_trial_environment_are_tried(environment):
    """Plugins of the other environment are not tried."""
    assert environment.plugins() == {}
    install(environment, "acme_leave", "1.0", plugins=["leave", "travel"])
    install(environment, "acme_days", "2.0")
    assert environment.plugins() == {"leave": "acme_leave 1.0", "travel": "acme_leave 1.0"}
