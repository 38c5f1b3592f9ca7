"""Without their plugin, deliveries of a removed plugin and events that match no handler wait."""

from __future__ import annotations

GOOD = """
from flowhooks import handler, hookimpl

@handler(process_key=("good", "faulty"))
def good(event):
    return event.flow_instance_id

@hookimpl
def handlers():
    return [good]
"""


def states(ledger, answer):
    """The states of a response's deliveries."""
    return {delivery_status.state.value for delivery_status in ledger.delivery_statuses(answer.event_id)}


def test_deliveries_wait_until_a_missing_plugin_is_reinstalled(site):
    """Handlers of a removed plugin still get deliveries; the log reports it, and other work continues."""
    site.plugin("good", GOOD)
    site.plugin("gone", GOOD.replace('("good", "faulty")', '("good", "gone")'))
    server = site.start(answer_wait=20)
    assert server.post("a", {"processDefinitionKey": "good"}).status == 200
    server.stop()
    site.remove("gone")
    server = site.start(answer_wait=20)
    server.until_logged("handler_missing", handler="gone:good", level="warning")
    both = server.post("b", {"processDefinitionKey": "good"})
    assert (both.status, "1 waiting" in both.json["message"]) == (202, True)
    alone = server.post("c", {"processDefinitionKey": "gone"})
    assert alone.status == 202
    assert server.post("a", {"processDefinitionKey": "good"}).status == 200
    with site.ledger() as ledger:
        states = {
            delivery_status.handler: (delivery_status.state.value, delivery_status.attempt)
            for delivery_status in ledger.delivery_statuses(both.event_id)
        }
    assert states == {"good:good": ("succeeded", 1), "gone:good": ("waiting", 0)}
    server.stop()
    site.plugin("gone", GOOD.replace('("good", "faulty")', '("good", "gone")'))
    server = site.start(answer_wait=20)
    for answer in (both, alone):
        site.until(
            lambda ledger, of=answer: (
                {delivery_status.state.value for delivery_status in ledger.delivery_statuses(of.event_id)}
                == {"succeeded"}
            )
        )
    assert server.post("b", {"processDefinitionKey": "good"}).body == b'{"success": true}'
    server.stop()
    server.check_log()
    assert site.balance().deliveries == {"succeeded": 5}


EVERY = """
from flowhooks import handler, hookimpl

@handler(every=True)
def audit(event):
    return "seen"

@hookimpl
def handlers():
    return [audit]
"""


def test_events_are_parked_until_a_handler_is_installed(site):
    """The next start delivers parked events, oldest first; an `every` handler neither unparks nor repeats them."""
    site.plugin("watcher", EVERY)
    server = site.start(answer_wait=20)
    parked = [server.post(f"p-{number}", {"processDefinitionKey": "good"}) for number in range(5)]
    other = server.post("p-other", {"processDefinitionKey": "nobody"})
    assert {answer.status for answer in (*parked, other)} == {202}
    assert "no handler is installed" in other.json["message"]
    server.stop()
    site.plugin("good", GOOD)
    server = site.start(answer_wait=20)
    assert server.until_logged("parked_events_rerouted")["delivered"] == 5
    for answer in parked:
        site.until(lambda ledger, of=answer: len(ledger.delivery_statuses(of.event_id)) == 2)
    site.until(lambda ledger: ledger.count_by_state()["waiting"] + ledger.count_by_state()["running"] == 0)
    for number, answer in enumerate(parked):
        again = server.post(f"p-{number}", {"processDefinitionKey": "good"})
        assert (again.status, again.event_id) == (200, answer.event_id)
    assert server.post("p-other", {"processDefinitionKey": "nobody"}).status == 202
    with site.ledger() as ledger:
        for answer in parked:
            states = {
                delivery_status.handler: (delivery_status.state.value, delivery_status.attempt)
                for delivery_status in ledger.delivery_statuses(answer.event_id)
            }
            assert states == {"watcher:audit": ("succeeded", 1), "good:good": ("succeeded", 1)}
        created = [
            delivery_status.delivery_id
            for answer in parked
            for delivery_status in ledger.delivery_statuses(answer.event_id)
            if delivery_status.handler == "good:good"
        ]
    # The attempts may begin in another order, because several threads run them.
    assert created == sorted(created)
    server.stop()
    books = site.balance()
    assert books.events == {"parked": 1, "routed": 5}
