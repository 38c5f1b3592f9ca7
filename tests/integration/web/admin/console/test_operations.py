"""Bulk operations in the console: plan, start, progress, pause, resume, cancel; rows, and the next of a list."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import json
import re
from functools import partial
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from flowhooks import Reject, Retry, State
from flowhooks.ledger import search
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import ITEM_CHOICES
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.registry import run_operation
from flowhooks.web.admin.console import list_walk, operations
from flowhooks.web.admin.operators import Operator, Role
from support.run_bulk import replay
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


@pytest.fixture
def repaired():
    """Whether the fault in the handlers has been fixed."""
    return []


@pytest.fixture
def many(harness, serve, listens, repaired):
    """A console with five dead deliveries of a handler, and one of another."""

    def pay(event):
        if not repaired:
            raise Reject("the ERP <b>is down</b>")

    def archive(event):
        raise Reject("full")

    flow = harness.open(listens(pay, process_key="pay"), listens(archive, process_key="archive"))
    flow.app.alerts.stop(WAIT_TIMEOUT)
    for number in range(5):
        flow.take(f"p{number}", key="pay", businessKey="1")
    flow.take("a0", key="archive", businessKey="1")
    return serve(flow)


def event_of(console, instance):
    """The id of the event of a flow instance."""
    return console.flow.events(flow_instance_id=instance)[0]


def planned(console, query="business_key=1", action="replay", language="en", **rows):
    """The plan that a button of the events page makes, and the address of its operation."""
    answer = console.submit(f"/console/do/{action}?{query}", language=language, **rows)
    assert answer.status == 303, answer.body.decode()
    location = answer.headers["Location"]
    return console.get(location, root="", Accept_Language=language).page, location.partition("?")[0]


def attempts(console):
    """The number of attempts of each delivery by its flow instance."""
    return dict(
        console.flow.sql(
            "SELECT flow_instance_id, attempt FROM deliveries JOIN events ON events.id = event_id ORDER BY 1"
        )
    )


def state_of(console, address):
    """The state of an operation."""
    ((state,),) = console.flow.sql("SELECT state FROM operations WHERE id = ?", address.rpartition("/")[2])
    return state


def test_a_plan_lists_exactly_its_changes(many):
    """The plan has the exact number, the span, each handler with its state, and each error; nothing has run."""
    flow = many.flow
    flow.sql("UPDATE handlers SET paused_at = 1 WHERE id = 'p:pay'")
    page, address = planned(many)
    for words in ("Deliveries to replay: 6", "p:pay", "paused", "p:archive", "Oldest event received"):
        assert words in page.text
    assert attempts(many) == {"a0": 1, **{f"p{number}": 1 for number in range(5)}}
    assert state_of(many, address) == "planned"
    chinese = many.get(address, root="", Accept_Language="zh").page
    assert "将重放的投递：6 个" in chinese.text
    assert "该处理器已暂停" in chinese.text
    assert "not started" in many.page("/operations").text


def test_a_delivery_that_dies_after_the_plan_stays_dead(many, repaired, eventually):
    """A delivery that dies after the plan stays dead; one that another operator closed is listed as changed."""
    flow = many.flow
    page, address = planned(many)
    flow.take("p9", key="pay", businessKey="1")
    flow.sql("UPDATE deliveries SET state = 'closed' WHERE event_id = ?", event_of(many, "p0"))
    repaired.append(True)
    to, hidden = page.form()
    assert many.submit(to, **hidden).status == 303
    eventually(lambda: state_of(many, address) == "finished")
    assert attempts(many) == {"a0": 2, "p0": 1, "p9": 1, **{f"p{number}": 2 for number in range(1, 5)}}
    done = many.get(address, root="").page
    assert "finished" in done.text
    for words in ("executed: 5 of 5", "Succeeded 4", "Failed again 1", "Remaining 0", "Changed meanwhile 1"):
        assert words in done.text
    changed = many.get(f"{address}?items=changed", root="").page
    assert f"/console/events/{event_of(many, 'p0')}" in changed.links()
    assert f"/console/events/{event_of(many, 'p1')}" not in changed.links()
    assert {f"{address}?items={result}#items" for result in ("succeeded", "failed", "planned")} <= set(done.links())
    for result, instances in (("succeeded", ("p1", "p2", "p3", "p4")), ("failed", ("a0",))):
        shown = {
            link for link in many.get(f"{address}?items={result}", root="").page.links() if "/console/events/" in link
        }
        assert shown == {f"/console/events/{event_of(many, instance)}" for instance in instances}


def test_the_way_back_survives_each_link_of_an_operation(many, monkeypatch, eventually):
    """The tiles, the states and the pages of the deliveries lead back to the page from which it was planned."""
    monkeypatch.setattr(operations, "PAGE_SIZE", 2)
    pause(many.flow.app.operation_context, ["p:pay"])
    page, address = planned(many)
    assert many.submit(page.form()[0]).status == 303
    shown = f"{address}?back=/console/errors"
    running = many.get(f"{shown}&after=0", root="").page
    links = [link for link in running.links() if link.endswith("#items")]
    assert len(links) == 4 + 1 + len(ITEM_CHOICES) + 2  # tiles, states with "any", first and next page
    for link in links:
        assert dict(parse_qsl(urlsplit(link).query))["back"] == "/console/errors", link
        assert "/console/errors" in many.get(link.partition("#")[0], root="").page.links()
    # The table is not refreshed with the tiles, so it says from when it is.
    assert running.text.count("As of 20") == 2
    resume(many.flow.app.operation_context, ["p:pay"])
    eventually(lambda: state_of(many, address) == "finished")
    assert many.get(shown, root="").page.text.count("As of 20") == 1


def assert_tiles_agree(console, address):
    """Assert that each tile has the number of deliveries at its address; return the numbers by result."""
    body = console.get(address, root="").body.decode()
    tiles = re.findall(r'<li class="tile[^"]*"><a href="([^"]+)">.*?<span class="tile-count">(\d+)</span>', body)
    numbers = {}
    for link, number in tiles:
        shown = console.get(link.partition("#")[0], root="").page.links()
        events = [path for path in shown if path.startswith("/console/events/")]
        assert len(events) == int(number), link
        numbers[link.partition("items=")[2].partition("#")[0]] = int(number)
    return numbers


def test_each_tile_has_the_number_of_deliveries_at_its_address(many, eventually):
    """Released deliveries that wait for their paused handler remain; those that run again after the end do not."""
    flow = many.flow
    pause(flow.app.operation_context, ["p:pay"])
    page, address = planned(many)
    assert many.submit(page.form()[0]).status == 303
    eventually(lambda: attempts(many)["a0"] == 2 and flow.sql("SELECT released FROM operations") == [(6,)])
    eventually(lambda: "Failed again 1" in many.get(address, root="").page.text)
    assert assert_tiles_agree(many, address) == {"succeeded": 0, "failed": 1, "remaining": 5, "changed": 0}
    assert "剩余" in many.get(f"{address}?items=remaining", root="", Accept_Language="zh").page.text
    resume(flow.app.operation_context, ["p:pay"])
    eventually(lambda: state_of(many, address) == "finished")
    pause(flow.app.operation_context, ["p:pay"])
    replay(flow.app.operation_context, EventFilter(ids=(event_of(many, "p0"),)))
    assert "Remaining 0" in many.get(address, root="").page.text
    left = many.get(f"{address}?items=remaining", root="").page
    assert not [link for link in left.links() if link.startswith("/console/events/")]


def test_the_only_delivery_has_changed_since_the_plan(many, monkeypatch):
    """Nothing is reported as done. If that takes too long to tell, the next page is that of the operation."""
    event = event_of(many, "p0")
    (address,) = many.page(f"/events/{event}").to_do("replay")
    to, hidden = many.ask(address).page.form()
    many.flow.sql("UPDATE deliveries SET state = 'closed' WHERE event_id = ?", event)
    next_page = many.follow(many.submit(to, **hidden)).page
    assert "Nothing was done: the state had already changed." in next_page.text
    assert "Skipped because their state had changed: 1" in next_page.text
    operation = to.partition("?")[0].removesuffix("/start")
    assert operation in next_page.links()
    assert "Deliveries executed: 0 of 0" in many.get(operation, root="").page.text
    (address,) = many.page(f"/events/{event_of(many, 'p1')}").to_do("replay")
    monkeypatch.setattr(operations, "SINGLE_WAIT", 0)
    answer, _ = many.act(address)
    assert answer.headers["Location"].startswith("/console/operations/")


def test_an_operation_is_paused_and_resumed_with_another_rate(many, repaired, eventually):
    """A slow operation is paused, resumed without a limit, and finishes; each delivery runs once."""
    repaired.append(True)
    page, address = planned(many, "key=pay")
    answer = many.submit(page.form()[0], rate="0.001", note="slowly")
    to, _, came_from = answer.headers["Location"].partition("?")
    assert (to, dict(parse_qsl(came_from)).keys()) == (address, {"back"})
    assert "/console/" in many.get(answer.headers["Location"], root="").page.links()
    running = many.get(address, root="").page
    assert "0.001" in running.text
    assert "slowly" in running.text
    assert running.steps().keys() == {"pause", "cancel", "rate"}
    assert many.submit(running.steps()["pause"]).status == 303
    paused = many.get(address, root="").page
    assert paused.steps().keys() == {"resume", "cancel", "rate"}
    assert many.submit(running.steps()["pause"]).status == 409
    refused = many.submit(paused.steps()["rate"], rate="20000", language="zh")
    assert refused.status == 422
    assert "速率必须是 0.0001 到 10000 之间的数字" in refused.page.text
    (field,) = [attrs for tag, attrs in refused.page.tags if attrs.get("name") == "rate"]
    assert (field["value"], field["aria-invalid"]) == ("20000", "true")
    assert refused.page.steps() == paused.steps()
    assert many.submit(paused.steps()["rate"], rate="").status == 303
    assert many.submit(paused.steps()["resume"], language="zh").status == 303
    eventually(lambda: state_of(many, address) == "finished")
    assert attempts(many) == {"a0": 1, **{f"p{number}": 2 for number in range(5)}}
    done = many.get(address, root="").page
    assert done.steps() == {}
    (shown,) = [attrs for tag, attrs in done.tags if tag == "progress"]
    assert (shown["value"], shown["max"]) == ("5", "5")
    live = many.get(f"{address}/live", root="")
    assert live.status == 200
    assert "data-at-rest" in live.body.decode()
    changes = [json.loads(detail)["change"] for (detail,) in many.flow.sql("SELECT detail FROM audit_log ORDER BY id")]
    assert changes == ["started", "paused", "rate", "resumed"]


def test_a_cancelled_operation_leaves_its_other_deliveries_unchanged(many, repaired):
    """A cancelled operation leaves its other deliveries as they are; a plan can be cancelled, too."""
    repaired.append(True)
    page, address = planned(many, "key=pay")
    many.submit(page.form()[0], rate="0.001")
    steps = many.get(address, root="").page.steps()
    assert many.submit(steps["cancel"]).status == 303
    cancelled = many.get(address, root="").page
    assert "cancelled" in cancelled.text
    # Released deliveries that have not ended change the figures, so the page still refreshes itself.
    for released, refreshes in ((3, True), (0, False)):
        many.flow.sql("UPDATE operations SET released = ?", released)
        page = many.get(address, root="").page
        assert any("data-live" in attrs for _, attrs in page.tags) == refreshes
    assert sum(attempts(many).values()) <= 7
    assert "stay as they are" in cancelled.text
    _, other = planned(many, "key=archive")
    assert many.submit(f"{other}/cancel?back=/console/events").headers["Location"] == "/console/events"
    assert state_of(many, other) == "cancelled"


def test_the_form_of_a_plan_states_its_rate_and_note(many):
    """The plan of another interface starts as its form shows it: with its rate, or without one if it is deleted."""
    for entered in ("0.00025", ""):
        about = {"action": "replay", "event_filter": {"business_key": "1"}, "note": "ticket 4711", "rate": 0.00025}
        plan = run_operation(many.flow.app.operation_context, "plan_operation", about)
        page = many.page(f"/operations/{plan['id']}")
        (rate,) = [attrs["value"] for tag, attrs in page.tags if attrs.get("name") == "rate"]
        assert rate == "0.00025"
        assert "ticket 4711" in page.text
        assert many.submit(page.form()[0], rate=entered, note="ticket 4711").status == 303
        started = many.page(f"/operations/{plan['id']}").text
        assert ("no limit" in started) == (not entered)
        assert ("0.00025" in started) == bool(entered)
    changes = [json.loads(detail) for (detail,) in many.flow.sql("SELECT detail FROM audit_log ORDER BY id")]
    assert [(change["change"], change["rate"]) for change in changes] == [("started", 0.00025), ("started", None)]


def test_a_start_from_a_stale_plan_keeps_the_rate(many):
    """A start without a rate, from the page of a plan that already runs, does not remove the limit."""
    page, address = planned(many, "key=pay")
    to_start = page.form()[0]
    assert many.submit(to_start, rate="0.001").status == 303
    assert many.submit(to_start, rate="").status == 409
    assert state_of(many, address) == "running"
    assert many.flow.sql("SELECT release_interval FROM operations") == [(1_000_000_000,)]
    changes = [json.loads(detail)["change"] for (detail,) in many.flow.sql("SELECT detail FROM audit_log")]
    assert changes == ["started"]


@pytest.mark.parametrize("rate", ["0", "-1", "x", "1e3", "5/s", "10001", "1" * 50, "NaN"])
def test_an_invalid_rate_shows_the_plan_again(many, rate):
    """The plan is shown again with what was entered, and nothing is started."""
    page, address = planned(many)
    answer = many.submit(page.form()[0], rate=rate, note="kept <i>")
    assert answer.status == 422
    assert "The rate must be a number from 0.0001 to 10000" in answer.page.text
    assert "kept <i>" in answer.page.text
    assert state_of(many, address) == "planned"


def test_a_plan_of_selected_rows(many, repaired, eventually):
    """Only the deliveries of the selected events are planned, and within them only those of the filter."""
    repaired.append(True)
    page = many.page("/events?state=dead")
    boxes = [attrs for tag, attrs in page.tags if tag == "input" and attrs.get("form") == "rows"]
    assert {attrs["type"] for attrs in boxes} == {"checkbox"}
    assert len(boxes) == 6
    assert "Select p0" in {attrs["aria-label"] for attrs in boxes}
    chosen = [event_of(many, "p0"), event_of(many, "a0")]
    (address,) = page.to_do("replay", "rows")
    plan = many.ask(address, id=chosen).page
    assert "Deliveries to replay: 2" in plan.text
    many.submit(plan.form()[0])
    eventually(lambda: attempts(many) == {"a0": 2, "p0": 2, **{f"p{number}": 1 for number in range(1, 5)}})


def test_rows_of_parked_events_are_dismissed(harness, serve, listens):
    """Actions without a plan get the selected rows in their address, and ask first."""
    flow = harness.open(listens(lambda event: None, process_key="k"))
    for number in range(3):
        flow.take(f"n{number}", key="nobody")
    console = serve(flow)
    (address,) = console.page("/events?state=parked").to_do("dismiss", "rows")
    chosen = [event_of(console, "n0"), event_of(console, "n2")]
    selected = console.submit(address, rows="yes", id=chosen)
    assert selected.status == 303
    answer, asking = console.act(selected.headers["Location"])
    assert "Parked events to dismiss: 2" in asking.text
    assert answer.status == 303
    assert flow.events(state="parked") == [event_of(console, "n1")]


def test_unknown_deliveries_are_resolved_together(many, repaired, eventually):
    """All unknown deliveries of a search are marked as done, or run again."""
    repaired.append(True)
    flow = many.flow
    flow.sql("UPDATE deliveries SET state = 'unknown' WHERE handler = 'p:pay'")
    ours = "delivery_id IN (SELECT id FROM deliveries WHERE handler = 'p:pay')"
    flow.sql(f"UPDATE attempts SET outcome = 'lost' WHERE {ours}")
    listed = many.page("/events?state=unknown")
    (address,) = listed.to_do("mark_done")
    chosen = many.page("/events?state=unknown&flow=p0").to_do("mark_not_done")[0]
    answer, _ = many.act(chosen, note="not in the ERP")
    assert answer.headers["Location"] == "/console/events?state=unknown&flow=p0"
    flow.settled(event_of(many, "p0"), State.SUCCEEDED)
    answer, plan = many.act(address, language="zh")
    assert "将确认为已完成的投递：4 个" in plan.text
    eventually(lambda: not flow.events(state="unknown"))
    assert attempts(many) == {"a0": 1, "p0": 2, **{f"p{number}": 1 for number in range(1, 5)}}
    marked = answer.headers["Location"].partition("?")[0]
    for instance in attempts(many):
        links = many.page(f"/events/{event_of(many, instance)}").links()
        assert (marked in links) == (instance in {"p1", "p2", "p3", "p4"}), instance


def test_the_page_of_a_closed_event_links_to_the_operation(many, eventually):
    """An operation that closed deliveries is linked from each of their events, although no attempt names it."""
    page, address = planned(many, "key=pay", action="close_all")
    many.submit(page.form()[0], note="booked by hand")
    eventually(lambda: state_of(many, address) == "finished")
    closed = many.page(f"/events/{event_of(many, 'p2')}")
    assert address in closed.links()
    assert "booked by hand" in closed.text
    assert attempts(many)["p2"] == 1
    assert address not in many.page(f"/events/{event_of(many, 'a0')}").links()


def test_a_scheduled_retry_runs_now(harness, serve, listens, eventually):
    """The event's page runs a retry now; the same delivery does not wait for its time."""
    tried = []

    def later(event):
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("busy")

    flow = harness.open(listens(later, process_key="k", retry=Retry(attempts=3, delays=(86_400,))))
    flow.take("r1", key="k", wait=0)
    event = flow.events(flow_instance_id="r1")[0]
    flow.settled(event, State.WAITING, attempt=1)
    console = serve(flow)
    (address,) = console.page(f"/events/{event}").to_do("run_now")
    answer, asking = console.act(address)
    assert "Deliveries to run now: 1" in asking.text
    assert answer.headers["Location"] == f"/console/events/{event}"
    assert flow.settled(event, State.SUCCEEDED, attempt=2)


def test_an_event_links_to_the_next_event_of_its_list(many, repaired):
    """An event that was opened from a list of dead deliveries leads to the next one, also after acting on it."""
    flow = many.flow
    listed = [link for link in many.page("/events?state=dead&key=pay").links() if link.startswith("/console/events/0")]
    assert len(listed) == 5
    newest = many.get(listed[0], root="").page
    (following,) = [link for link in newest.links() if link.partition("?")[0] == listed[1].partition("?")[0]]
    assert following == listed[1]
    assert "/console/events?state=dead&key=pay" in newest.links() or any(
        dict(parse_qsl(urlsplit(link).query)) == {"state": "dead", "key": "pay"} for link in newest.links()
    )
    (address,) = newest.to_do("close")
    answer, _ = many.act(address)
    after = many.follow(answer).page
    assert following in after.links()
    # At the end of the list, the newest one that is left comes next.
    last = many.get(listed[4], root="").page
    assert listed[1] in last.links()
    flow.sql("UPDATE deliveries SET state = 'closed'")
    assert "No further event in the list" in many.get(listed[4], root="").page.text


def test_a_next_event_search_that_times_out_links_to_the_list(many, monkeypatch):
    """If no next event is found in time, the page leads to the rest of the list."""
    monkeypatch.setattr(search, "MAX_CANDIDATES", 1)
    monkeypatch.setattr(list_walk, "search_events", partial(search.search_events, window=1, time_budget=-1.0))
    path = f"/events/{event_of(many, 'p0')}?{urlencode({'list': 'state=dead&key=pay'})}"
    assert f"/console/events?state=dead&key=pay&before={event_of(many, 'a0')}" in many.page(path).links()
    assert "No further event in the list" not in many.page(path).text


@pytest.mark.parametrize(
    "given", ["x", "state=nothing", "since=never", "hander=x", "a=1&" * 99, "state=dead&flow=%00<b>"]
)
def test_a_forged_list_in_the_address_changes_nothing_on_the_page(many, given):
    """Any list in the address leaves the page as it is."""
    answer = many.get(f"/events/{event_of(many, 'p0')}?{urlencode({'list': given})}")
    assert answer.status == 200
    assert "b" not in {tag for tag, _ in answer.page.tags}


def test_a_missing_operation_is_an_error_page(many):
    """A missing operation, step or page of it is a page with a status, and changes nothing."""
    _, address = planned(many)
    for path in ("/operations/nothing", "/operations/%00%ff", "/operations/nothing/live"):
        assert many.get(path).status == 404, path
    assert many.submit("/console/operations/nothing/start").status == 404
    assert many.submit(f"{address}/explode").status == 404
    assert many.submit(f"{address}/resume").status == 409
    assert many.submit(f"{address}/start", note="x" * 70_000).status == 422
    assert many.get(f"{address}/start", root="").headers["Location"] == address
    assert many.get(f"{address}?items=<b>&after=%00", root="").status == 200
    assert many.page("/operations?before=%00<b>").texts
    assert state_of(many, address) == "planned"


def test_operations_are_listed_newest_first(many):
    """Operations are listed by page, newest first."""
    for number in range(51):
        many.flow.sql(
            "INSERT INTO operations (id, action, event_filter, note, state, actor, interface, created_at, changed_at,"
            " planned, released, changed, succeeded, failed) VALUES (?, 'close', '{}', ?, 'finished', 'ann', 'cli',"
            " 1, 1, 1, 1, 0, 1, 0)",
            f"0-{number:03}", f"note {number} <b>",
        )  # fmt: skip
    page = many.page("/operations", "zh")
    assert "note 50 <b>" in page.text
    (older,) = [link for link in page.links() if "before=" in link]
    rest = many.get(older, root="").page
    assert "note 0 <b>" in rest.text
    assert "note 50 <b>" not in rest.text


def test_the_role_view_has_no_forms(many, monkeypatch):
    """With the role view nobody plans or starts anything, and the pages have no forms."""
    _, address = planned(many)
    monkeypatch.setattr("flowhooks.web.admin.auth.LOCAL", Operator(name="visitor", role=Role.VIEW))
    shown = many.get(address, root="").page
    assert shown.form() is None
    assert "role operate" in shown.text
    assert not many.page("/events?state=dead").to_do("replay", "rows")
    assert not [attrs for tag, attrs in many.page("/events?state=dead").tags if attrs.get("form") == "rows"]
    assert "role operate" in many.page("/do/replay?state=dead").text


def test_a_form_of_another_origin_is_rejected(many):
    """A form of another origin is refused."""
    _, address = planned(many)
    answer = many.post(f"/operations/{address.rpartition('/')[2]}/start", Sec_Fetch_Site="cross-site")
    assert answer.status == 403
    assert many.post("/do/replay?state=dead", Sec_Fetch_Site="cross-site").status == 403
    assert many.flow.sql("SELECT count(*) FROM operations") == [(1,)]
    assert state_of(many, address) == "planned"
