"""Names that plugins may import: each is explained, and no page or plugin of the project needs others."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import sys
from pathlib import Path

import pytest

import flowhooks

ROOT = Path(__file__).parents[2]
PROMISED = {
    "Alert",
    "AlertCause",
    "AlertSeverity",
    "Delivery",
    "EndState",
    "EngineClient",
    "EngineConfig",
    "EngineError",
    "EngineInfo",
    "Event",
    "FinishedInstance",
    "FinishedPage",
    "FlowhooksError",
    "Handler",
    "HandlerError",
    "HandlerRaised",
    "InstanceStatus",
    "Outcome",
    "OutcomeKind",
    "ProcessDefinition",
    "ReceivedCallback",
    "ReceivedRequest",
    "ReceiverResponse",
    "Reject",
    "Retry",
    "RetryAfter",
    "State",
    "handler",
    "hookimpl",
}
"""Removing a name breaks plugins, and adding one is a promise. Both need a decision."""
FENCED = re.compile(r"```(?:py|python)\n(.*?)```", re.DOTALL)


def test_dunder_all_has_exactly_the_public_names():
    """`__all__` has exactly the public names in order, and each exists."""
    assert set(flowhooks.__all__) == PROMISED
    assert flowhooks.__all__ == sorted(flowhooks.__all__)
    assert all(hasattr(flowhooks, name) for name in PROMISED)


def test_other_visible_names_are_submodules_or_private():
    """Other visible names of the package are submodules or begin with an underscore."""
    others = {name for name in vars(flowhooks) if not name.startswith("_")} - PROMISED - {"annotations"}
    assert {name for name in others if not inspect.ismodule(vars(flowhooks)[name])} == set()


def test_modules_of_public_names_have_no_internal_protocol():
    """A protocol beside public data would look like something that plugins implement."""
    modules = {inspect.getmodule(getattr(flowhooks, name)) for name in PROMISED - {"hookimpl"}}
    protocols = {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and getattr(value, "_is_protocol", False)
    }
    assert protocols == {"EngineClient"}
    assert sys.modules["flowhooks.model.delivery"] in modules


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_every_public_name_is_explained(name):
    """Each public name and its public methods and properties have docstrings."""
    thing = getattr(flowhooks, name)
    if name != "hookimpl":  # made by pluggy, explained in the manual of the hooks
        assert (thing.__doc__ or "").strip()
        assert not thing.__doc__.startswith(f"{name}(")
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert inspect.getdoc(value), method


def test_the_version_is_the_installed_version():
    """`flowhooks.__version__` is the installed version."""
    assert flowhooks.__version__ == importlib.metadata.version("flowhooks")


def imports(source):
    """The names that a Python text imports from flowhooks, as (module, name)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flowhooks":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "flowhooks")


def test_example_plugins_import_only_from_flowhooks():
    """The example plugins import only from `flowhooks` itself."""
    sources = [path for path in (ROOT / "plugins").rglob("src/**/*.py") if "{{" not in str(path)]
    assert sources
    for path in sources:
        for module, name in imports(path.read_text()):
            assert module in {"flowhooks", "flowhooks.testing"}, path
            assert module != "flowhooks" or name in PROMISED, (path, name)


def test_documentation_examples_import_only_public_names():
    """Names that the examples in README and documentation import from `flowhooks` itself are public."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert pages
    for page in pages:
        for example in FENCED.findall(page.read_text()):
            for name in re.findall(r"^\s*from flowhooks import (.+)$", example, re.MULTILINE):
                assert {
                    imported_name.strip(" ()").partition(" as ")[0]
                    for imported_name in name.split(",")
                    if imported_name.strip(" ()")
                } <= PROMISED
