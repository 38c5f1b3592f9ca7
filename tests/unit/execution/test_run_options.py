"""Run options: the operator's setting for the handler, its own declaration, the general setting, in this order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import handler
from flowhooks.execution.run_options import resolve_run_options
from flowhooks.settings import HandlerSettings, RunnerSettings, Settings


def found(declared, said, general):
    """The option that decides where a handler runs."""
    given = {} if declared is None else {"isolation": declared}
    made = replace(handler(process_key="k", name="h", **given)(lambda event: None), plugin="p")
    handlers = {} if said is None else {"p:h": HandlerSettings(isolation=said)}
    return resolve_run_options(made, Settings(runner=RunnerSettings(isolation=general), handlers=handlers)).isolation


@pytest.mark.parametrize("general", ["thread", "process"])
@pytest.mark.parametrize("declared", [None, "thread", "process"])
@pytest.mark.parametrize("said", [None, "thread", "process"])
def test_precedence_of_the_run_options(said, declared, general):
    """A handler that declares `thread`, such as for `delivery.transaction()`, runs in one unless it is overridden."""
    assert found(declared, said, general) == (said or declared or general)
