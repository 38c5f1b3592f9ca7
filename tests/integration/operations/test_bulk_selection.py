"""Which of an event's deliveries the plan of a replay or a rerun has."""

from __future__ import annotations

import pytest

from flowhooks import handler, hookimpl
from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.delivery import State
from flowhooks.operations.bulk import plan_operation
from flowhooks.settings import Settings
from support.waiting import WAIT_TIMEOUT


class Plugin:
    """Two handlers of one key: one fails, one does not."""

    @hookimpl
    def handlers(self):
        """Both of them."""

        def fails(event):
            raise ValueError("not today")

        def works(event):
            pass

        return [handler(process_key="leave")(fails), handler(process_key="leave")(works)]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A started app with one event that has a dead and a succeeded delivery."""
    database = str(tmp_path_factory.mktemp("replay") / "ledger.db")
    app = App(Settings(database=database, plugins_allow=("two",)), objects={"two": Plugin()})
    app.start()
    call_back = Callback(
        source="default", kind="complete", flow_instance_id="1", body={"processDefinitionKey": "leave"}, text="{}"
    )
    answer = app.intake.accept(call_back, wait=WAIT_TIMEOUT)
    assert {delivery_status.handler: delivery_status.state for delivery_status in answer.delivery_statuses} == {
        "two:fails": State.DEAD,
        "two:works": State.SUCCEEDED,
    }
    yield app
    app.close(10)


@pytest.mark.parametrize(
    ("wanted", "action", "deliveries"),
    [
        (EventFilter(), BulkAction.REPLAY, 1),
        (EventFilter(), BulkAction.RERUN, 2),
        (EventFilter(state="dead"), BulkAction.RERUN, 1),
        (EventFilter(state="succeeded"), BulkAction.RERUN, 1),
        (EventFilter(handler="two:works"), BulkAction.RERUN, 1),
        (EventFilter(handler="two:works", state="dead"), BulkAction.RERUN, 0),
    ],
)
def test_a_plan_has_only_deliveries_that_match_the_whole_filter(app, wanted, action, deliveries):
    """A plan has the deliveries that meet all conditions of its filter, and not the other ones of their event."""
    assert plan_operation(app.operation_context, action, wanted).planned == deliveries
