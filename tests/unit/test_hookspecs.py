"""The manual of the hooks is complete and true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from flowhooks import hookspecs
from flowhooks.plugins import default_hooks
from flowhooks.plugins.registration import HOOKS

SPECS = {name: getattr(hookspecs, name) for name in HOOKS}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_test(hook):
    """For each hook there is a `test_hook_NAME` that uses it as a plugin does."""
    tests = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert re.search(rf"^def test_hook_{hook}\(", tests, re.MULTILINE)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_explained(hook):
    """Each hook states when it is called and explains its arguments; all arguments and results have types."""
    spec = SPECS[hook]
    text = inspect.getdoc(spec) or ""
    assert "Called" in text
    signature = inspect.signature(spec)
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation is not signature.empty


def test_the_exact_list_of_hooks():
    """The hooks are exactly these; a new one needs a decision."""
    assert list(HOOKS) == [
        "configure",
        "schemas",
        "handlers",
        "engine_clients",
        "receive_request",
        "run_handler",
        "event_accepted",
        "delivery_settled",
        "alert_raised",
        "alert_resolved",
    ]


def test_the_built_in_run_handler_has_the_hook_signature():
    """The implementation that runs a handler has the specification's signature."""
    assert list(inspect.signature(default_hooks.run_handler).parameters) == list(HOOKS["run_handler"])


def test_the_manuals_example_is_a_plugin():
    """The example at the top of the manual works unchanged."""
    from types import ModuleType

    from flowhooks.plugins.plugins import Plugins

    lines = inspect.cleandoc(hookspecs.__doc__).split("\n\n    from flowhooks", 1)[1].split("\n\nThis module")[0]
    module = ModuleType("example")
    exec(inspect.cleandoc("    from flowhooks" + lines), module.__dict__)
    plugins = Plugins.load(
        dirs=(), allow=(), deny=(), safe_mode=False, sections={}, entry_points=(), objects={"example": module}
    )
    assert [info.error for info in plugins.infos] == [""]
    assert list(plugins.handlers) == ["example:archive_contract"]
