"""Actions by clicks: a question, a form, one message; on both databases, over a real socket."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from flowhooks import AlertCause, Reject, Retry, State
from flowhooks.operations import registry
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router
from flowhooks.web.admin.console import action_page, parked
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.texts import text
from flowhooks.web.admin.operators import Operator, Role
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


@pytest.fixture
def repaired():
    """Whether the fault in the handler has been fixed."""
    return []


@pytest.fixture
def busy(harness, serve, listens, repaired):
    """A console whose handler fails until it is fixed, with a dead delivery, a succeeded one and parked events."""

    def archive(event):
        if event.business_key == "bad" and not repaired:
            raise Reject("the archive is full")

    flow = harness.open(listens(archive, process_key="contract"))
    flow.app.alerts.stop(WAIT_TIMEOUT)  # a check at any moment would change what tests compare
    flow.take("4711", key="contract", businessKey="bad")
    flow.take("4712", key="contract", businessKey="good")
    flow.take("4713", key="nobody", businessKey="good")
    flow.take("4714", key="nobody", callback_class="com.example.Other")
    return serve(flow)


def event_of(console, instance):
    """The id of the event of a flow instance."""
    return console.flow.events(flow_instance_id=instance)[0]


def audit(console):
    """The audit log, oldest entry first."""
    return [
        (actor, interface, action, target, json.loads(detail))
        for actor, interface, action, target, detail in console.flow.sql(
            "SELECT actor, interface, action, target, detail FROM audit_log ORDER BY id"
        )
    ]


def everything(flow):
    """All stored data about events and actions. Exports, which are links, are in the audit log."""
    tables = {"events": "id", "deliveries": "id", "attempts": "delivery_id, number", "alerts": "id"}
    tables |= {"operations": "id", "operation_items": "operation_id, delivery_id"}
    return {name: flow.sql(f"SELECT * FROM {name} ORDER BY {order}") for name, order in tables.items()} | {
        "audit_log": flow.sql("SELECT * FROM audit_log WHERE action <> 'export' ORDER BY id"),
        "handlers": flow.sql("SELECT id, retired_at, paused_at FROM handlers ORDER BY id"),
    }


def unknown(console, instance="4711"):
    """Make an event's delivery *unknown*, as after a kill."""
    flow = console.flow
    delivery_status = flow.only(event_of(console, instance))
    flow.sql("UPDATE deliveries SET state = 'unknown' WHERE id = ?", delivery_status.delivery_id)
    flow.sql("UPDATE attempts SET outcome = 'lost' WHERE delivery_id = ?", delivery_status.delivery_id)
    return delivery_status.delivery_id


def test_a_dead_delivery_is_replayed_from_its_event_page(busy, repaired):
    """The event's page leads to a plan, its form replays, and the event's page shows the message once."""
    event = event_of(busy, "4711")
    (address,) = busy.page(f"/events/{event}").to_do("replay")
    before = everything(busy.flow)
    first = busy.get(address, root="").page
    assert "Nothing is changed before you confirm it" in first.text
    assert everything(busy.flow) == before
    asking = busy.ask(address).page
    assert "Deliveries to replay: 1" in asking.text
    assert "cannot be undone" in asking.text
    assert all(rows == before[name] for name, rows in everything(busy.flow).items() if "operation" not in name)
    repaired.append(True)
    answer, _ = busy.act(address)
    assert answer.headers["Location"] == f"/console/events/{event}"
    there = busy.follow(answer)
    assert "Deliveries replayed: 1" in there.page.text
    assert "flowhooks_done" in there.headers["Set-Cookie"]
    assert "Deliveries replayed" not in busy.page(f"/events/{event}").text
    assert busy.flow.settled(event, State.SUCCEEDED, attempt=2)
    ((actor, interface, action, target, detail),) = audit(busy)
    assert (actor, interface, action) == ("local", "console", "operation")
    assert (detail["operation"], detail["deliveries"]) == ("replay", 1)
    assert f"/console/operations/{target}" in there.page.links()
    assert f"/console/operations/{target}" in busy.page(f"/events/{event}").links()


def test_a_form_sent_twice_acts_once(busy, repaired):
    """A form sent twice works once, and the second response says that the state has changed."""
    event = event_of(busy, "4711")
    (address,) = busy.page(f"/events/{event}").to_do("replay")
    to, hidden = busy.ask(address).page.form()
    repaired.append(True)
    assert busy.submit(to, **hidden).status == 303
    busy.flow.settled(event, State.SUCCEEDED, attempt=2)
    again = busy.submit(to, **hidden)
    assert again.status == 409
    assert "The state has changed" in again.page.text
    assert busy.flow.only(event).attempt == 2
    assert len(audit(busy)) == 1
    # A new plan is empty, and has no form.
    asked = busy.ask(address).page
    assert "There is nothing to do" in asked.text
    assert asked.form() is None


def test_two_operators_at_the_same_time_cause_one_change(busy, repaired, together):
    """Two operators who send the same form at the same time cause one change."""
    event = event_of(busy, "4711")
    (address,) = busy.page(f"/events/{event}").to_do("replay")
    to, hidden = busy.ask(address).page.form()
    repaired.append(True)
    answers = together(*[lambda: busy.submit(to, **hidden)] * 4)
    assert sorted(answer.status for answer in answers) == [303, 409, 409, 409]
    busy.flow.settled(event, State.SUCCEEDED, attempt=2)
    assert len(audit(busy)) == 1


def test_replay_of_a_succeeded_delivery_needs_a_confirmation(busy):
    """Without the checkbox nothing changes and the page asks again; with it the work is done a second time."""
    event = event_of(busy, "4712")
    (address,) = busy.page(f"/events/{event}").to_do("replay_again")
    answer, asking = busy.act(address)
    assert "twice" in asking.text
    assert answer.status == 422
    assert "Tick the box" in answer.page.text
    assert busy.flow.only(event).attempt == 1
    answer, _ = busy.act(address, sure="yes")
    assert "Deliveries that run a second time: 1" in busy.follow(answer).page.text
    assert busy.flow.settled(event, State.SUCCEEDED, attempt=2)


@pytest.mark.parametrize(
    ("name", "state"), [("did", State.SUCCEEDED), ("did_not", State.SUCCEEDED), ("close", State.CLOSED)]
)
def test_an_unknown_delivery_is_resolved(busy, repaired, name, state):
    """The operator records did, did-not or closed with a note; a second operator sees that it changed."""
    delivery = unknown(busy)
    event = event_of(busy, "4711")
    (address,) = busy.page(f"/events/{event}").to_do(name)
    repaired.append(True)
    to, _ = busy.get(address, root="").page.form()
    answer, asking = busy.act(address, note="asked\r\n  the archive ")
    assert "unknown" in asking.text
    there = busy.follow(answer)
    assert "asked the archive" in there.page.text
    assert busy.flow.settled(event, state).delivery_id == delivery
    assert audit(busy)[0][2:4] == ("resolve", event)
    late = busy.submit(to, language="zh")
    assert late.status == 409
    assert "状态已经变化" in late.page.text
    assert f"/console/events/{event}" in late.page.links()


def test_a_dead_and_a_waiting_delivery_are_closed(harness, serve, listens):
    """Both can be closed on the event's page, and then have only the buttons of a settled delivery."""

    def sleeps(event):
        raise RuntimeError("the archive sleeps") if event.business_key == "later" else Reject("never")

    flow = harness.open(listens(sleeps, process_key="contract", retry=Retry(attempts=3)))
    flow.take("1", key="contract", businessKey="later", wait=0)
    flow.take("2", key="contract", businessKey="never")
    flow.settled(flow.events(flow_instance_id="1")[0], State.WAITING, attempt=1)
    console = serve(flow)
    for instance in ("1", "2"):
        event = event_of(console, instance)
        (address,) = console.page(f"/events/{event}").to_do("close")
        answer, asking = console.act(address, note="done by hand")
        assert "cannot be undone" in asking.text
        assert "done by hand" in console.follow(answer).page.text
        assert flow.only(event).state is State.CLOSED
        assert not console.page(f"/events/{event}").to_do("close")


def test_all_dead_deliveries_of_a_search_are_replayed(harness, serve, listens, repaired):
    """The plan has the events page's filter; deliveries that arrive or die elsewhere do not change."""

    def fails(event):
        if not repaired:
            raise Reject("not yet")

    flow = harness.open(listens(fails, process_key=("a", "b")))
    for number in range(5):
        flow.take(f"a{number}", key="a")
    flow.take("b1", key="b")
    console = serve(flow)
    (address,) = console.page("/events?key=a").to_do("replay")
    assert "key=a" in address
    repaired.append(True)
    answer, asking = console.act(address)
    assert "Deliveries to replay: 5" in asking.text
    for number in range(5):
        flow.settled(event_of(console, f"a{number}"), State.SUCCEEDED)
    assert flow.only(event_of(console, "b1")).state is State.DEAD
    assert "Deliveries executed: 5 of 5" in console.get(answer.headers["Location"], root="").page.text


OFFERED = {
    "": {"replay": "dead"},
    "dead": {"replay": "dead", "close_all": "dead"},
    "succeeded": {"replay_again": "succeeded"},
    "parked": {"reroute": "parked", "dismiss": "parked"},
    "dismissed": {"reroute": "dismissed"},
    "unknown": {"mark_done": "unknown", "mark_not_done": "unknown", "close_all": "unknown"},
    "waiting": {"run_now": "waiting", "close_all": "waiting"},
    "suspended": {"close_all": "suspended"},
    "running": {},
    "closed": {},
}
"""The actions that a search for a state offers for all its results, and the state that they change."""


@pytest.mark.parametrize("state", OFFERED)
def test_a_search_offers_actions_with_its_own_filter(busy, harness, state):
    """A search offers the possible actions for its list, and passes its filter unchanged."""
    harness.check_at_end = False
    due = busy.flow.app.clock.now() + 10**10
    for instance in ("4711", "4713"):
        event = event_of(busy, instance)
        if state == "suspended" and instance == "4711":
            busy.flow.sql("UPDATE deliveries SET state = 'waiting', due_at = NULL WHERE event_id = ?", event)
        elif state and state not in {"parked", "dismissed"} and instance == "4711":
            busy.flow.sql("UPDATE deliveries SET state = ? WHERE event_id = ?", state, event)
        if state == "waiting":
            busy.flow.sql("UPDATE deliveries SET due_at = ? WHERE event_id = ?", due, event)
        if state == "dismissed":
            busy.flow.sql("UPDATE events SET state = 'dismissed' WHERE id = ? AND state = 'parked'", event)
    given = {"key": "nobody" if state in {"parked", "dismissed"} else "contract", "state": state}
    page = busy.page(f"/events?{urlencode({name: value for name, value in given.items() if value})}")
    found = {name: page.to_do(name) for name in ACTIONS if page.to_do(name)}
    assert found.keys() == OFFERED[state].keys()
    assert {name for name in ACTIONS if page.to_do(name, "rows")} == OFFERED[state].keys()
    for name, (address,) in found.items():
        query = dict(parse_qsl(urlsplit(address).query))
        del query["back"]
        assert query == {"key": given["key"], "state": OFFERED[state][name]}
        listed = len(busy.flow.events(state=OFFERED[state][name], process_key=given["key"]))
        assert listed
        asking = busy.ask(address).page
        if ACTIONS[name].bulk:
            assert text(f"do.{name}.would", "en", count=listed) in asking.text
        elif form := asking.form():  # no button if there is nothing to do
            assert form[1]["total"] == str(listed)


def test_an_alert_links_to_its_events_or_its_cause(busy):
    """Each alert links to the events in an existing state, or to the page of its cause."""
    for cause, subject in [(cause.value, "p:archive") for cause in AlertCause] + [("dead", "(others)")]:
        busy.flow.sql(
            "INSERT INTO alerts (id, cause, subject, message, started_at, count, event_id, opened_at, notified)"
            " VALUES (?, ?, ?, '', 0, 1, '', 0, '[]')",
            f"{cause} {subject}", cause, subject,
        )  # fmt: skip
    links = [link for link in busy.page("/alerts").links() if "state=" in link or "handler=" in link]
    assert sorted(links) == [
        "/console/events?state=dead",
        "/console/events?state=dead&handler=p%3Aarchive",
        "/console/events?state=running&handler=p%3Aarchive",
        "/console/events?state=unknown&handler=p%3Aarchive",
        "/console/events?state=waiting&handler=p%3Aarchive",
        "/console/events?state=waiting&handler=p%3Aarchive",
    ]


def test_actions_on_all_events_are_not_offered(busy):
    """Actions on all events are only available on the command line; without a selected row nothing is selected."""
    assert not busy.page("/events").to_do("replay")
    (rows,) = busy.page("/events").to_do("replay", "rows")
    for query in ("", "?back=/console/", "?flow=", "?stat=dead", "?flow=4711&hander=x", f"?{urlsplit(rows).query}"):
        answer = busy.get(f"/do/replay{query}")
        assert answer.status == 422, query
        assert busy.submit(f"/console/do/replay{query}").status == 422
    assert audit(busy) == []


def test_events_stored_after_the_question_are_not_changed(busy):
    """Events that arrive between the question and its form are not changed."""
    (address,) = busy.page("/events?state=parked").to_do("dismiss")
    to, hidden = busy.get(address, root="").page.form()
    busy.flow.advance(5)
    busy.flow.take("4799", key="nobody")
    assert "dismissed: 2" in busy.follow(busy.submit(to, **hidden)).page.text
    assert busy.flow.app.ledger.event(event_of(busy, "4799")).state == "parked"


def test_parked_events_are_dismissed_and_rerouted(busy):
    """An event is dismissed on its page, a group in its row, and both are rerouted; each reports the result."""
    event = event_of(busy, "4713")
    answer, _ = busy.act(busy.page(f"/events/{event}").to_do("dismiss")[0], note="a trial")
    assert "dismissed: 1" in busy.follow(answer).page.text
    assert busy.flow.app.ledger.event(event).state == "dismissed"
    answer, asking = busy.act(busy.page("/parked").to_do("dismiss")[0])
    assert "com.example.Other" in asking.text
    assert answer.headers["Location"] == "/console/parked"
    assert busy.flow.app.ledger.event(event_of(busy, "4714")).state == "dismissed"
    assert audit(busy)[0][4]["note"] == "a trial"
    # The event matches no handler, so it is parked again, which counts as a change.
    answer, asking = busy.act(busy.page(f"/events/{event}").to_do("reroute")[0])
    assert "Parked again" in asking.text
    assert "Parked again" in busy.follow(answer).page.text
    assert busy.flow.app.ledger.event(event).state == "parked"


def test_a_group_that_shares_its_key_has_no_dismiss_button(busy):
    """A group that shares its key with another has no button, because its filter would match both."""
    busy.flow.take("4715", key="nobody", callback_class="com.example.Other", source="elsewhere")
    groups = busy.page("/parked")
    assert "com.example.Other" in groups.text
    assert groups.to_do("dismiss") == []


def test_a_group_whose_class_ends_with_a_space_is_dismissed_alone(busy, monkeypatch):
    """Its number and its button mean its own events, not those of the group without the space."""
    for number, name in enumerate(("com.x.Foo ", "com.x.Foo", "com.x.Foo")):
        busy.flow.take(f"800{number}", key="typo", callback_class=name)
    page = busy.page("/parked")
    (address,) = [address for address in page.to_do("dismiss") if "class=com.x.Foo+&" in address]
    (listed,) = [address for address in page.links() if "/events?" in address and "class=com.x.Foo+&" in address]
    misspelt = event_of(busy, "8000")
    assert [f"/console/events/{misspelt}"] == [
        address for address in busy.get(listed, root="").page.links() if address.startswith("/console/events/0")
    ]
    answer, asking = busy.act(address)
    assert "Parked events to dismiss: 1" in asking.text
    assert answer.status == 303
    assert busy.flow.events(state="dismissed") == [misspelt]
    # Groups that were not read, because there are too many parked events, may match the filter of any group.
    assert busy.page("/parked").to_do("dismiss")
    monkeypatch.setattr(parked, "MAX_GROUPED", 4)
    assert busy.page("/parked").to_do("dismiss") == []


def test_parked_events_are_drained_to_a_new_handler(busy, listens, eventually):
    """Once a handler is registered in any process, the parked page delivers its events."""
    assert busy.page("/parked").to_do("reroute_parked") == []
    app = busy.flow.app
    eventually(lambda: app._parked_rerouter._is_waiting)  # its first time would deliver them without a click
    wanted = Candidate("p:archive", listens(lambda event: None, process_key="nobody").selectors)
    app._live.current = replace(app._live.current, router=Router([wanted]))
    (address,) = busy.page("/parked").to_do("reroute_parked")
    answer, asking = busy.act(address, language="zh")
    assert "将补投的暂存事件：2 个" in asking.text
    assert "已补投的暂存事件：2 个" in busy.follow(answer, "zh").page.text
    assert busy.flow.settled(event_of(busy, "4713"), State.SUCCEEDED)
    assert busy.flow.settled(event_of(busy, "4714"), State.SUCCEEDED)


def test_a_handler_is_paused_and_resumed(busy):
    """Its page has the operator and time of the pause, and its events mention it; after the resume they run."""
    (address,) = busy.page("/handlers").to_do("pause")
    answer, asking = busy.act(address, note="the archive moves")
    assert "Handlers to pause: 1" in asking.text
    there = busy.follow(answer).page
    assert "Handlers paused: 1" in there.text
    assert "Paused since" in there.text
    assert "by local" in there.text
    busy.flow.take("4720", key="contract", wait=0)
    event = event_of(busy, "4720")
    waiting = busy.page(f"/events/{event}")
    assert "Paused since" in waiting.text
    (address,) = there.to_do("resume")
    assert [url.partition("&")[0] for url in waiting.to_do("resume")] == [address.partition("&")[0]]
    answer, asking = busy.act(address, language="zh")
    assert "将恢复的处理器：1 个" in asking.text
    assert "等待该处理器的投递：1 个" in asking.text
    assert busy.flow.settled(event, State.SUCCEEDED)
    assert "Paused since" not in busy.follow(answer).page.text
    assert [entry[2:4] for entry in audit(busy)] == [("pause", "p:archive"), ("resume", "p:archive")]


def test_the_deliveries_of_a_removed_handler_are_closed(harness, serve, listens, eventually):
    """The page of handlers offers it for a removed handler; the plan has the number, and a note is recorded."""
    gone, here = listens(lambda event: None, name="gone"), listens(lambda event: None, name="here")
    flow = harness.open(gone, here, start=False)
    for number in range(3):
        flow.take(f"i{number}", wait=0)
    flow.close()
    console = serve(harness.open(here))
    (address,) = console.page("/handlers").to_do("close_all")
    listed = console.page("/events?state=suspended&handler=p:gone")
    assert [address.partition("&back=")[0] for address in listed.to_do("close_all")] == [
        "/console/do/close_all?handler=p%3Agone&state=suspended"
    ]
    answer, asking = console.act(address, language="zh", note="由人工办理")
    assert "将关闭的投递：3 个" in asking.text
    assert "无法撤销" in asking.text
    assert "缺失" in asking.text
    assert answer.status == 303
    closed = "SELECT DISTINCT state, comment FROM deliveries WHERE handler = 'p:gone'"
    eventually(lambda: flow.sql(closed) == [("closed", "由人工办理")])
    assert not console.page("/handlers").to_do("close_all")
    ((*_, action, target, detail),) = audit(console)
    assert (action, detail["operation"], detail["deliveries"], detail["note"]) == (
        "operation",
        "close",
        3,
        "由人工办理",
    )
    page = console.page("/audit")
    assert "bulk operation" in page.text
    assert f"/console/operations/{target}" in page.links()


def test_a_stopped_action_names_its_command(harness, serve, listens):
    """The page of a stopped action has the command that continues it, as the command line spells it."""
    console = serve(harness.open(listens(lambda event: None)))

    def stopped(address):
        return console.submit(f"/console/do/{address}", stop="yes", after="1", events="1", total="3").page

    page = stopped("dismiss?id=a&id=b&key=nobody")
    assert "flowhooks events dismiss --key=nobody --id=a --id=b --after=1" in page.text
    assert "flowhooks events reroute --parked" in stopped("reroute_parked").text
    page = stopped("dismiss?q=PO-1&field=/vendor%3DACME&field=/amount%3D1")
    assert "flowhooks events dismiss --query=PO-1 --field=/vendor=ACME --field=/amount=1 --until=" in page.text


def test_an_alert_is_acknowledged(busy):
    """The alert shows the operator who clicked."""
    busy.flow.app.alerts.poll()
    (address, *_) = busy.page("/alerts").to_do("acknowledge")
    answer, asking = busy.act(address, note="I call the archive")
    assert "dead" in asking.text
    there = busy.follow(answer).page
    assert "not yet local 20" in there.text
    assert there.to_do("acknowledge") == []
    assert audit(busy)[0][2] == "acknowledge"


def test_long_work_continues_request_by_request(harness, serve, listens, monkeypatch):
    """A form works for some seconds; the response has the progress, and its form continues to the end."""
    flow = harness.open(listens(lambda event: None))
    for number in range(7):
        flow.take(f"p{number}", key="nobody")
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 2)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", WAIT_TIMEOUT)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    console = serve(flow)
    answer, asking = console.act("/console/do/dismiss?key=nobody&back=/console/parked", note="over\0<all>")
    assert "Parked events to dismiss: 7" in asking.text
    seen = []
    while answer.status == 200:
        bar = next(attrs for tag, attrs in answer.page.tags if tag == "progress")
        seen.append((bar["value"], bar["max"]))
        forms = [attrs for tag, attrs in answer.page.tags if tag == "form" and attrs["method"] == "post"]
        assert "data-go-on" in next(attrs for attrs in forms if "action" in attrs)
        to, hidden = answer.page.form()
        answer = console.submit(to, **hidden)
    assert seen == [("2", "7"), ("4", "7"), ("6", "7")]
    assert "dismissed: 7" in console.follow(answer).page.text
    assert not flow.events(state="parked")
    # NUL, which no database stores, is replaced.
    assert {detail["note"] for *_, detail in audit(console)} == {"over\ufffd<all>"}


def test_a_stopped_action_continues_with_the_rest(busy, monkeypatch):
    """An operation without repeats continues with the rest; its figures and its note go on."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    answer, _ = busy.act("/console/do/dismiss?state=parked&back=/console/parked", note="it's over")
    to, hidden = answer.page.form()
    landed = busy.submit(to, **hidden | {"skipped": 7}, stop="yes").page
    assert "dismissed: at least 1" in landed.text
    assert "of their state: at least 7" in landed.text
    assert "it's over" in landed.text
    assert len(busy.flow.events(state="parked")) == 1
    assert "The button continues with the rest" in landed.text
    assert "flowhooks events dismiss --state=parked" in landed.text
    to, hidden = landed.form()
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", WAIT_TIMEOUT)
    done = busy.follow(busy.submit(to, **hidden)).page.text
    assert "dismissed: 2" in done
    assert "of their state: 7" in done
    assert not busy.flow.events(state="parked")
    # Without a position nothing was done, and the page asks as at the beginning.
    asking = busy.submit("/console/do/dismiss?state=dismissed", stop="yes")
    assert (asking.status, "There is nothing to do" in asking.page.text) == (200, True)


def test_the_count_of_long_work_is_limited_in_time(busy, monkeypatch):
    """If counting takes longer the page shows a minimum, and still handles all."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", -1.0)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", WAIT_TIMEOUT)
    answer, asking = busy.act("/console/do/dismiss?state=parked")
    assert "at least 1" in asking.text
    assert "There are more than the number above" in asking.text
    assert "dismissed: 2" in busy.follow(answer).page.text


def test_an_action_continues_after_the_browser_is_closed(busy, monkeypatch):
    """A closed browser leaves the rest unchanged; a second start does the rest, and two at once do it once."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", WAIT_TIMEOUT)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    answer, _ = busy.act("/console/do/dismiss?state=parked")
    assert len(busy.flow.events(state="parked")) == 1
    to, hidden = answer.page.form()
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", WAIT_TIMEOUT)
    other, asking = busy.act("/console/do/dismiss?state=parked")
    assert "Parked events to dismiss: 1" in asking.text
    assert other.status == 303
    assert busy.submit(to, **hidden).status == 303
    assert len(audit(busy)) == 2


def test_an_action_on_an_unwritable_ledger_changes_nothing(busy):
    """The page says that nothing changed, and its form works when the ledger can be written again."""
    to, hidden = busy.get("/do/dismiss?state=parked").page.form()
    with busy.flow.locked(timeout=0.5):
        answer = busy.submit(to, language="zh", **hidden)
    assert answer.status == 503
    assert "暂时无法写入台账" in answer.page.text
    assert not [attrs for tag, attrs in answer.page.tags if "data-go-on" in attrs]
    to, hidden = answer.page.form()
    assert busy.submit(to, **hidden).status == 303
    assert not busy.flow.events(state="parked")


def test_only_forms_change_anything(busy):
    """Requests for every page and link change no stored data."""
    unknown(busy)
    busy.flow.app.alerts.poll()
    left = ["/console/", *(f"/console/do/{name}" for name in ACTIONS), "/console/events?state=parked"]
    left += [f"/console/do/{name}?flow=4711&handler=p:archive&delivery=x&alert=x" for name in ACTIONS]
    before, seen, asked = everything(busy.flow), set(), 0
    while left:
        address = left.pop()
        if address in seen or "lang=" in address or address.startswith("#"):
            continue
        seen.add(address)
        for method in ("GET", "HEAD"):
            answer = busy.get(address, root="", method=method)
            assert answer.status < 500, address
        answer = busy.get(address, root="")
        if answer.headers["Content-Type"].startswith("text/html"):
            left += answer.page.links()
            if answer.page.form():
                asked += 1
                left.append(answer.page.form()[0])
    assert asked > 10
    assert everything(busy.flow) == before
    for method in ("PUT", "PATCH", "DELETE"):
        assert busy.get("/do/reroute_parked", method=method, Sec_Fetch_Site="same-origin").status == 405


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "given",
    [
        "https://evil.example/",
        "//evil.example/console/",
        "/console//evil.example",
        "/console/../api",
        "/console/%2e%2e/healthz",
        "/console/.%2E/healthz",
        "/console/\\evil.example",
        "/console/%5c%5cevil.example",
        "/healthz",
        "/consoles/",
        "javascript:alert(1)",
        "/console/\r\nSet-Cookie: a=b",
        "/console/do/reroute_parked",
        "/console/#x",
        " /console/",
    ],
)
def test_redirects_stay_within_the_console(busy, given):
    """With any address the browser is redirected only to a reading page of the console."""
    to = f"/console/do/dismiss?state=parked&back={quote(given, safe='')}"
    asking = busy.get(to, root="").page
    assert given not in asking.links()
    answer = busy.submit(to)
    assert answer.status == 303
    assert answer.headers["Location"] == "/console/"


def test_an_action_returns_to_its_search_unchanged(busy):
    """The address after an action has the search with any characters."""
    query = f"business_key={quote('合同 &#+%/?=', safe='')}&state=parked"
    busy.flow.take("5000", key="nobody", businessKey="合同 &#+%/?=")
    (address,) = busy.page(f"/events?{query}").to_do("dismiss")
    answer, asking = busy.act(address)
    assert "合同 &#+%/?=" in asking.text
    assert "dismissed: 1" in busy.follow(answer).page.text
    back = busy.get(answer.headers["Location"], root="").page
    assert [attrs["value"] for tag, attrs in back.tags if attrs.get("id") == "f-business_key"] == ["合同 &#+%/?="]


def test_an_action_on_a_missing_object_changes_nothing(busy):
    """A missing delivery, alert or action is a page with the next step, and changes nothing."""
    for language, words in (("en", "Nothing was changed"), ("zh", "没有做任何更改")):
        answer = busy.submit("/console/do/close?delivery=nothing", language=language)
        assert answer.status == 404
        assert words in answer.page.text
    assert busy.get("/do/explode").status == 404
    assert busy.submit("/console/do/explode").status == 404
    assert "There is nothing to do" in busy.get("/do/acknowledge?alert=nothing").page.text
    assert busy.submit("/console/do/close?delivery=nothing", note="x" * 70_000).status == 422
    assert busy.submit("/console/do/close?delivery=nothing", **{f"f{n}": "1" for n in range(200)}).status == 422
    assert audit(busy) == []


def test_the_role_view_has_no_buttons(busy, monkeypatch):
    """With the role view no page has a button, and the question has no form."""
    monkeypatch.setattr("flowhooks.web.admin.auth.LOCAL", Operator(name="visitor", role=Role.VIEW))
    for path in ("/events?key=contract", f"/events/{event_of(busy, '4711')}", "/parked", "/handlers", "/alerts"):
        assert not [link for link in busy.page(path).links() if link.startswith("/console/do/")]
    asking = busy.page("/do/dismiss?state=parked")
    assert asking.form() is None
    assert "role operate" in asking.text


def test_every_action_matches_an_operation():
    """Each action names an existing operation and only its arguments."""
    of = {
        "events": {"event_filter"},
        "delivery": {"delivery_id"},
        "handler": {"handlers"},
        "source": {"source"},
        "alert": {"alerts"},
        "conflict": {"event_id", "digest"},
        "": set(),
    }
    for action in ACTIONS.values():
        _, takes = registry.OPERATIONS[action.operation]
        given = of[action.target] | set(action.arguments) | ({"note"} if action.note else set())
        given |= {"action"} if action.bulk else {"dry_run"}
        assert given | ({"after"} if action.paged else set()) <= set(takes)
        assert action.bulk or not action.twice, "only the form of a plan asks twice"


def test_the_audit_log_page(busy):
    """The page lists actions with their operators, newest first, by page, for one object or all."""
    event = event_of(busy, "4713")
    busy.act(busy.page(f"/events/{event}").to_do("dismiss")[0], note="no need")
    busy.act(busy.page("/parked").to_do("dismiss")[0])
    text = busy.page("/audit").text
    assert "no need" in text
    assert text.count("local in the console") == 2
    assert f"/console/events/{event}" in busy.page("/audit").links()
    assert busy.page(f"/audit?target={event}").text.count("local in the console") == 1
    assert "没有操作记录" in busy.page("/audit?target=nothing", "zh").text
    for number in range(150):
        busy.flow.sql("INSERT INTO audit_log VALUES (?, 1, 'o', 'api', 'odd', ?, '{}')", f"0-{number:03}", f"s{number}")
    page = busy.page("/audit")
    (older,) = [link for link in page.links() if "before=" in link]
    rest = busy.get(older, root="").page
    assert len(page.texts) > 300
    assert "s149" in page.text
    assert "s0" in rest.text
    assert "s149" not in rest.text


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "given",
    ["", "x", "W10", "bnVsbA", "WyJyZXBsYXkiLCAxXQ", "WyJyZXBsYXkiLCB7ImRlbGl2ZXJpZXMiOiAiPGI-In1d", "=" * 5000],
)
def test_a_forged_cookie_causes_no_error(busy, given):
    """With any cookie the page is served, and shows at most wrong figures."""
    answer = busy.get("/", Cookie=f"flowhooks_done={given}")
    assert answer.status == 200
    assert "b" not in {tag for tag, _ in answer.page.tags}


def test_a_count_without_a_text_is_omitted():
    """A count of an operation without words in the console is left out rather than an error."""
    from flowhooks.web.admin.console.flash import figures

    assert figures({"events": 2, "novel": 3, "dry_run": True, "handlers": ("a", "b"), "next": ""}) == {
        "events": 2,
        "handlers": 2,
    }
