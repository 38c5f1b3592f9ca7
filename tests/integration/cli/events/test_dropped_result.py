"""`flowhooks events show` says that a result was not stored, and why; so do the API, the console and the test kit."""

from __future__ import annotations

from contextlib import closing

from flowhooks import handler, hookimpl
from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.settings import Settings

REASON = (
    "handler grant_leave of plugin leave returned a value of type dict, whose member /days is of type set, which is "
    "not JSON; return text, numbers, True, False, None, or lists and dicts of them with text as keys"
)


class Plugin:
    """A plugin whose handler returns a set."""

    @hookimpl
    def handlers(self):
        """Its handler."""

        def grant_leave(event):
            return {"days": {3}}

        return [handler(process_key="leave")(grant_leave)]


def test_a_dropped_result_is_shown(tmp_path, run, run_json):
    """The text has one line with the reason, and JSON has a member of the attempt."""
    settings = Settings(database=str(tmp_path / "ledger.db"), plugins_allow=("leave",))
    given = Callback(
        source="default", kind="complete", flow_instance_id="4711", body={"processDefinitionKey": "leave"}, text="{}"
    )
    with closing(App(settings, objects={"leave": Plugin()})) as app:
        app.start()
        assert app.intake.accept(given, wait=10).status == "done"
    env = {"FLOWHOOKS_DATABASE": settings.database}
    (event,) = run_json("events", "show", "4711", **env)["events"]
    (attempt,) = event["deliveries"][0]["attempts"]
    assert (attempt["outcome"], attempt["result"], attempt["result_dropped"]) == ("succeeded", None, REASON)
    assert f"    result not stored: {REASON}\n" in run("events", "show", "4711", **env).stdout
