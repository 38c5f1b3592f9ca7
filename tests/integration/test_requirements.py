"""Installed packages are locked with hashes for all requirements of the project, and a release lists them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "tests/data/requirements"
FILES = ("dev", "run", "upkeep")
OURS = {file.parent.name for file in (CHECKOUT / "plugins").glob("flowhooks-*/pyproject.toml")} | {"flowhooks"}


def program(name):
    """A program of `tests/data/requirements/`, as a module."""
    spec = importlib.util.spec_from_file_location(f"requirements_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(name):
    """The requirements that a file locks, by name; a name may have several for different versions of Python."""
    found = {}
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        if re.match(r"[\w.-]+==", line):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def pinned(requirement):
    """The only version that a locked requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_has_a_version_and_hashes(name):
    """Each requirement has one version and at least one SHA-256, without an index, a link or a folder."""
    whole = (FOLDER / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in whole.splitlines() if not line.startswith("#")))
    assert len(entries) > 20
    for entry in entries:
        first, *others = entry.replace(" \\", "").splitlines()
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.!+]+( ; .+)?", first), first
        assert others
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in others), first
    assert "://" not in whole


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_of_the_project_is_locked(name):
    """Each dependency, extra, group and build requirement, of the project and its plugins, at a version it allows."""
    asked = program("lock").requirements()[name]
    assert len(asked) >= 2
    has = locked(name)
    for text in asked:
        requirement = Requirement(text)
        versions = [pinned(locked_requirement) for locked_requirement in has[canonicalize_name(requirement.name)]]
        assert all(requirement.specifier.contains(pinned_version, prereleases=True) for pinned_version in versions), (
            text,
            versions,
        )


def test_the_lock_covers_every_project_file():
    """The lock covers every list of every project file, also of groups and plugins that are added later."""
    told = [
        tomllib.loads(file.read_text())
        for file in (CHECKOUT / "pyproject.toml", *CHECKOUT.glob("plugins/flowhooks-*/pyproject.toml"))
    ]
    lists = []
    for pyproject in told:
        lists += [pyproject["project"]["dependencies"], pyproject["build-system"]["requires"]]
        lists += [
            *pyproject["project"].get("optional-dependencies", {}).values(),
            *pyproject.get("dependency-groups", {}).values(),
        ]
    asked = {canonicalize_name(Requirement(text).name) for some in lists for text in some} - OURS
    assert asked <= locked("dev").keys() | locked("upkeep").keys()


def test_the_environment_has_the_locked_versions():
    """These tests run with the locked versions and no packages except the project and its plugins."""
    has = locked("dev")
    for name, requirements in has.items():
        wanted = [
            pinned(requirement)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate()
        ]
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = None
        assert [installed] == (wanted or [None]), name


def test_run_time_and_development_have_the_same_versions():
    """The wheel's dependencies have the versions with which it was tested."""
    dev, run = locked("dev"), locked("run")
    assert {name: [pinned(requirement) for requirement in some] for name, some in run.items()} == {
        name: [pinned(requirement) for requirement in dev[name]] for name in run
    }
    assert not run.keys() & {"ruff", "mypy", "hypothesis", "playwright"}


@pytest.fixture(scope="module")
def sbom(tmp_path_factory):
    """The SBOM of a folder with a wheel in it, as `make release` writes it."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "flowhooks-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    ran = subprocess.run(
        [sys.executable, FOLDER / "sbom.py", folder], capture_output=True, text=True, check=False, cwd=folder
    )
    assert ran.returncode == 0, ran.stderr
    (file,) = folder.glob("*.cdx.json")
    return json.loads(file.read_text())


def test_the_sbom_lists_the_requirements_of_the_wheel(sbom):
    """The SBOM has each package with version, purl, hashes and dependents, and is valid for its schema."""
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    root = sbom["metadata"]["component"]
    assert (root["name"], root["purl"]) == ("flowhooks", f"pkg:pypi/flowhooks@{root['version']}")
    assert root["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"a wheel").hexdigest()}]
    listed = {component["name"]: component for component in sbom["components"]}
    assert {name: component["version"] for name, component in listed.items()} == {
        name: pinned(requirements[0]) for name, requirements in locked("run").items()
    }
    for name, component in listed.items():
        assert component["purl"] == f"pkg:pypi/{name}@{component['version']}"
        assert component["externalReferences"][0]["hashes"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = [text for some in project["optional-dependencies"].values() for text in some]
    asked = {canonicalize_name(Requirement(text).name) for text in [*project["dependencies"], *extras]}
    (edges,) = (dependency["dependsOn"] for dependency in sbom["dependencies"] if dependency["ref"] == root["bom-ref"])
    assert set(edges) == {listed[name]["bom-ref"] for name in asked}
    assert {bom_ref for some in sbom["dependencies"] for bom_ref in some.get("dependsOn", ())} == {
        component["bom-ref"] for component in sbom["components"]
    }
    assert listed["falcon"]["licenses"][0]["license"]["id"] == "Apache-2.0"


def test_every_run_time_dependency_has_a_stated_reason():
    """The decision on run-time dependencies has a paragraph with licence and alternative for each."""
    page = (CHECKOUT / "docs/decisions/0009-run-time-dependencies.md").read_text()
    paragraphs = {}
    for paragraph in page.split("\n\n"):
        for name in re.findall(r"\*\*([\w-]+)\*\*", paragraph.partition("(")[0]):
            paragraphs[name] = " ".join(paragraph.split())
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {Requirement(text).name: None for text in project["dependencies"]}
    asked |= {Requirement(text).name: extra for extra, some in extras.items() for text in some}
    assert paragraphs.keys() == asked.keys()
    for name, extra in asked.items():
        assert re.search(r"MIT|Apache|BSD|LGPL|ZPL", paragraphs[name]), name
        assert re.search(r"release|active|maintained|mature", paragraphs[name]), f"{name}: how alive is it?"
        assert "ithout " in paragraphs[name], f"{name}: what would it cost to do without?"
        assert extra is None or f"extra `{extra}`" in paragraphs[name], name


def audited(folder, does):
    """The result of `audit.py` with a tool that is this shell script."""
    tool = folder / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{does}\n")
    tool.chmod(0o755)
    said = "import runpy, sys; sys.executable = sys.argv[1]; runpy.run_path(sys.argv[2], run_name='__main__')"
    words = [sys.executable, "-c", said, folder / "python", FOLDER / "audit.py"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_audit_fails_without_access_to_the_advisories(tmp_path):
    """If the advisories cannot be reached, `make audit` says that and does not succeed."""
    ran = audited(tmp_path, "echo 'requests.exceptions.ProxyError: Max retries exceeded' >&2\nexit 1")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("The advisories cannot be reached from here, so nothing is known of what is locked")
    ran = audited(tmp_path, "echo 'waitress 3.0.2 PYSEC-1'\necho 'Found 1 known vulnerability' >&2\nexit 1")
    assert (ran.returncode, ran.stdout) == (1, "waitress 3.0.2 PYSEC-1\nFound 1 known vulnerability\n")


def test_the_audit_fails_for_unknown_packages(tmp_path):
    """If the service does not know the locked packages, `make audit` fails."""
    skipped = "Dependency not found on PyPI and could not be audited"
    ran = audited(tmp_path, f"echo 'attrs {skipped}: attrs (1)'\necho 'idna {skipped}: idna (3)'\nexit 0")
    assert (ran.returncode, ran.stderr) == (2, "Nothing is known of 2 packages that are locked: see the list above.\n")
    ran = audited(tmp_path, f"echo 'attrs {skipped}: attrs (1)'\necho 'waitress 3.0.2 PYSEC-1'\nexit 1")
    assert ran.returncode == 1
    assert "PYSEC-1" in ran.stdout
    assert ran.stderr == "Nothing is known of 1 package that is locked: see the list above.\n"
    ran = audited(tmp_path, "echo 'No known vulnerabilities found' >&2\nexit 0")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "No known vulnerabilities found\n", "")
