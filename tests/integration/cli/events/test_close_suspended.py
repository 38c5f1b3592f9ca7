"""`flowhooks events close --state suspended`: close the deliveries of a removed handler."""

from __future__ import annotations

from contextlib import closing

import pytest

from flowhooks import handler, hookimpl
from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.settings import Settings


class Plugin:
    """A plugin that is removed later."""

    @hookimpl
    def handlers(self):
        """Its handler."""
        return [handler(process_key="leave")(grant_leave)]


def grant_leave(event):
    """Do nothing."""


@pytest.fixture
def database(tmp_path):
    """A ledger with three deliveries of the handler `gone:grant_leave`, which was removed."""
    settings = Settings(database=str(tmp_path / "ledger.db"), plugins_allow=("gone",))
    with closing(App(settings, objects={"gone": Plugin()})) as app:
        for number in range(3):
            body = {"processDefinitionKey": "leave"}
            given = Callback(source="default", kind="complete", flow_instance_id=f"i{number}", body=body, text="{}")
            app.intake.accept(given, wait=0)
    App(Settings(database=settings.database, plugins_allow=("none",))).close()
    return {"FLOWHOOKS_DATABASE": settings.database}


def test_the_deliveries_of_a_removed_handler_are_closed(database, run, run_json):
    """The dry run has the count, the command closes what the list shows, and the audit log has the note."""
    selection = ("--state", "suspended", "--handler", "gone:grant_leave")
    assert len(run_json("events", "list", *selection, **database)["events"]) == 3
    dry = run("events", "close", *selection, "--dry-run", **database)
    assert dry.exit_code == 0
    assert dry.stdout.startswith("3 waiting deliveries will be closed.")
    done = run("events", "close", *selection, "--note", "done by hand", "--yes", **database)
    assert done.exit_code == 0
    assert done.stdout.endswith("has finished: 3 closed.\n")
    assert run_json("events", "list", "--state", "suspended", **database)["events"] == []
    (entry,) = run_json("audit", **database)["entries"]
    assert (entry["action"], entry["detail"]["deliveries"]) == ("operation", 3)
    expected = "(--handler gone:grant_leave --state suspended): done by hand"
    said = " ".join(run("audit", **database).stdout.split())
    assert "by a command started an operation on 3 deliveries to close" in said
    assert expected in said
    again = run_json("events", "close", *selection, "--yes", **database)
    assert (again["planned"], again["state"], again["server"]) == (0, "planned", False)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "Select events: give IDs or a filter, or --all"),
        (("--state", "running", "--yes"), "Only waiting, suspended, dead and unknown deliveries can be closed"),
        (("--all",), "There is no terminal to ask for confirmation: give --yes"),
    ],
)
def test_an_ambiguous_selection_is_refused(database, run, arguments, error):
    """Without a selection, with another state, or without a terminal to confirm, nothing changes."""
    result = run("events", "close", *arguments, **database)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in " ".join(result.stderr.split())


def test_the_prompt_states_that_a_closed_delivery_does_not_run(database, run, monkeypatch):
    """The question has the count and says that a closed delivery does not run; "n" cancels."""
    monkeypatch.setattr("flowhooks.cli.events.bulk.require_terminal", lambda unless: None)
    result = run("events", "close", "--all", given="n\n", **database)
    assert result.exit_code == 1
    assert "3 waiting deliveries will be closed." in result.output
    assert "This is final: a closed delivery does not run again. Start it?" in result.output
