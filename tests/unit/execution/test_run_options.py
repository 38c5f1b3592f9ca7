"""On what terms a handler runs: the operator's word on it, its own, the operator's on all, in this order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import handler
from flowhooks.execution.run_options import resolve_run_options
from flowhooks.settings import HandlerSettings, RunnerSettings, Settings


def found(declared, said, general):
    """Where a handler runs."""
    given = {} if declared is None else {"isolation": declared}
    one = replace(handler(process_key="k", name="h", **given)(lambda event: None), plugin="p")
    handlers = {} if said is None else {"p:h": HandlerSettings(isolation=said)}
    return resolve_run_options(one, Settings(runner=RunnerSettings(isolation=general), handlers=handlers)).isolation


@pytest.mark.parametrize("general", ["thread", "process"])
@pytest.mark.parametrize("declared", [None, "thread", "process"])
@pytest.mark.parametrize("said", [None, "thread", "process"])
def test_where_it_runs(said, declared, general):
    """A handler that says `thread`, perhaps for `delivery.transaction()`, is in one, unless it is overruled."""
    assert found(declared, said, general) == (said or declared or general)
