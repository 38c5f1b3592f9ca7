"""The part of every path of the administration listener that limited roles and masked roles get."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import quote

import falcon
import pytest

from flowhooks import Reject
from flowhooks.errors import IdentityConflict
from flowhooks.ledger import alert_queries, stats
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations import server_audit
from flowhooks.operations.access import Access
from flowhooks.operations.context import Actor
from flowhooks.operations.masks import mask_filter
from flowhooks.operations.registry import OPERATIONS, run_operation
from flowhooks.settings import LoginSettings, MaskingSettings, OperatorSettings, RoleSettings, Source
from flowhooks.settings.engine import EngineSettings
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.operations import STEPS, selection_values
from support import engine_ledger
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.either

TOKENS = {name: f"{name}-token-0123456789abcdefghij" for name in ("boss", "payer", "clerk", "both")}
ROLES = {
    "payments": RoleSettings(may="operate", plugins=("pay",)),
    "clerks": RoleSettings(may="operate", masked=True),
    "pay-clerks": RoleSettings(may="view", plugins=("pay",), masked=True),
}
OPERATORS = {
    name: OperatorSettings(role=role, token_sha256=(hashlib.sha256(TOKENS[name].encode()).hexdigest(),))
    for name, role in (("boss", "operate"), ("payer", "payments"), ("clerk", "clerks"), ("both", "pay-clerks"))
}
MASKING = MaskingSettings(fields=("/salary", "/businessKey", "/bank/account"))
HIDDEN = ("secretive", "covert")
"""Parts of every name and value that belongs to the other plugin only."""
VALUE = "Confidential"
"""A part of every value that is hidden from masked roles."""

OPEN, PART, REFUSED = "open", "part", "refused"
"""A role gets the path as everybody, or only its part of it, or is refused."""
PATHS = {
    # path: what limited roles get, what masked roles get, the kind of object in the path
    "/": (OPEN, OPEN, None),
    "/healthz": (OPEN, OPEN, None),
    "/readyz": (OPEN, OPEN, None),
    "/metrics": (REFUSED, OPEN, None),
    "/openapi.json": (OPEN, OPEN, None),
    "/api/alerts": (PART, PART, None),
    "/api/audit": (PART, PART, None),
    "/api/coverage": (REFUSED, REFUSED, None),
    "/api/engines": (REFUSED, OPEN, None),
    "/api/engines/instances/{id:path}": (REFUSED, REFUSED, "flow"),
    "/api/errors": (PART, REFUSED, None),
    "/api/errors/{id}": (PART, REFUSED, "error"),
    "/api/errors/{id}/trend": (PART, REFUSED, "error"),
    "/api/events": (PART, PART, None),
    "/api/events/export": (PART, PART, None),
    "/api/events/{id}": (PART, PART, "event"),
    "/api/events/{id}/explanation": (REFUSED, REFUSED, "event"),
    "/api/handlers": (PART, PART, None),
    "/api/handlers/{id}/trend": (PART, PART, "handler"),
    "/api/operations": (PART, PART, None),
    "/api/operations/{id}": (PART, PART, "operation"),
    "/api/operations/{id}/items": (PART, PART, "operation"),
    "/api/overview": (REFUSED, REFUSED, None),
    "/api/parked": (REFUSED, REFUSED, None),
    "/api/rejected-requests": (REFUSED, REFUSED, None),
    "/api/sources": (REFUSED, REFUSED, None),
    "/api/sources/{name}/trend": (REFUSED, REFUSED, "source"),
    "/api/storage": (REFUSED, REFUSED, None),
    "/console": (OPEN, OPEN, None),
    "/console/": (OPEN, OPEN, None),
    "/console/alerts": (PART, PART, None),
    "/console/audit": (PART, PART, None),
    "/console/do/{name}": (PART, PART, "action"),
    "/console/engines": (REFUSED, OPEN, None),
    "/console/errors": (PART, REFUSED, None),
    "/console/errors/{error_id}": (PART, REFUSED, "error"),
    "/console/events": (PART, PART, None),
    "/console/events/export": (PART, PART, None),
    "/console/events/{event_id}": (PART, PART, "event"),
    "/console/events/{event_id}/body": (PART, PART, "event"),
    "/console/handlers": (PART, PART, None),
    "/console/handlers/{handler_id}": (PART, PART, "handler"),
    "/console/live": (REFUSED, REFUSED, None),
    "/console/login": (OPEN, OPEN, None),
    "/console/logout": (OPEN, OPEN, None),
    "/console/operations": (PART, PART, None),
    "/console/operations/{operation_id}": (PART, PART, "operation"),
    "/console/operations/{operation_id}/live": (PART, PART, "operation"),
    "/console/operations/{operation_id}/{step}": (PART, PART, "step"),
    "/console/parked": (REFUSED, REFUSED, None),
    "/console/rejected-requests": (REFUSED, REFUSED, None),
    "/console/sources": (REFUSED, REFUSED, None),
    "/console/sources/{name}": (REFUSED, REFUSED, "source"),
    "/console/storage": (REFUSED, REFUSED, None),
    "/console/static/{name}": (OPEN, OPEN, "file"),
    **{f"/api/operations/{name}": (PART, PART, "post") for name in OPERATIONS},
}
"""Every path. A path that is added has to be classified here, and tested by the walk."""
FOUND_BY_NAME = {"source": "default", "file": "console.css"}


@pytest.fixture
def routes(monkeypatch):
    """The paths of the administration listeners that are made during the test."""
    found = set()
    add_route = falcon.App.add_route

    def adding(self, uri_template, resource, **given):
        found.add(uri_template)
        add_route(self, uri_template, resource, **given)

    monkeypatch.setattr(falcon.App, "add_route", adding)
    return found


@pytest.fixture
def console(harness, serve, listens, make_plugin, routes):
    """A console with events of two plugins, of which the role `payments` has one, and with secret values."""

    def book(event):
        if event.flow_instance_id == "pay-1":
            raise Reject(f"cannot book {event.data['salary']}")
        return {"booked": event.data.get("salary")}

    def watch(event):
        raise Reject("covert error of secretive")

    plugins = {
        "pay": make_plugin(
            listens(book, process_key=("pay", "shared")),
            listens(lambda event: None, name="rare", process_key="pay-rare", when={"/salary": "other"}),
            listens(lambda event: None, name="odd", process_key="pay-odd", when={"/salary": {"minimum": 1}}),
        ),
        "secretive": make_plugin(listens(watch, process_key=("covert", "shared"))),
    }
    flow = harness.open(plugins=plugins, operators=OPERATORS, roles=ROLES, masking=MASKING)
    flow.app.alerts.stop(WAIT_TIMEOUT)
    secret = {
        "businessKey": f"{VALUE}-key",
        "salary": f"{VALUE}-salary",
        "bank": [{"account": f"{VALUE}-account", "name": "b"}],
    }
    flow.take("pay-1", key="pay", **secret)
    flow.take("covert-1", key="covert", businessKey="covert-key")
    flow.take("shared-1", key="shared", **secret)
    with pytest.raises(IdentityConflict):
        flow.take("pay-1", key="pay", **secret | {"salary": f"{VALUE}-other"})
    flow.take("covert-parked", key="covert-parked", businessKey="covert-parked-key")
    flow.take("pay-rare", key="pay-rare", **secret)
    flow.take("pay-odd", key="pay-odd", **secret)
    flow.sql("UPDATE attempts SET log = ? WHERE error = ?", f"booking {VALUE}-log", f"cannot book {VALUE}-salary")
    flow.app.alerts.poll()
    return serve(flow)


def ids_of(console, plugin, instance):
    """The ids of the objects of a plugin: an event, its delivery, its error, an operation, an alert."""
    flow, app = console.flow, console.flow.app
    (event_id,) = flow.events(flow_instance_id=instance)
    (status,) = flow.delivery_statuses(event_id)
    context = dataclasses.replace(app.operation_context, by=Actor("boss", "api"))
    key = app.ledger.event(event_id).event.business_key
    about = {"handler": status.handler, "business_key": key}
    planned = run_operation(
        context, "plan_operation", {"action": "replay", "event_filter": about, "note": f"replay {key}"}
    )
    run_operation(context, "pause", {"handlers": [status.handler], "note": f"{instance} note"})
    run_operation(context, "resume", {"handlers": [status.handler]})
    with app.ledger.connection() as connection:
        alert = next(found.id for found in alert_queries.open_alerts(connection) if found.subject == status.handler)
    return {
        "event": event_id,
        "delivery": status.delivery_id,
        "handler": status.handler,
        "error": status.error_group,
        "operation": planned["id"],
        "flow": instance,
        "alert": alert,
        "plugin": plugin,
    }


@pytest.fixture
def mine(console):
    """The ids of objects of the plugin `pay`."""
    return ids_of(console, "pay", "pay-1")


@pytest.fixture
def others(console):
    """The ids of objects of the other plugin."""
    return ids_of(console, "secretive", "covert-1")


def get(console, path, who):
    """Request a path with an operator's token."""
    return console.get(path, root="", Authorization=f"Bearer {TOKENS[who]}")


def post(console, path, who, body=None, **form):
    """Post JSON to the API, or a form to the console as its pages do."""
    headers = {"Authorization": f"Bearer {TOKENS[who]}"}
    if path.startswith("/api/"):
        return console.get(path, root="", method="POST", body=json.dumps(body), **headers)
    return console.post(path.removeprefix("/console"), form, **headers)


def filled(path, kind, ids):
    """The addresses of a path with these objects."""
    if kind == "action":
        about = {"events": "id", "delivery": "delivery", "handler": "handler", "alert": "alert"}
        return [
            f"/console/do/{name}?{about[action.target]}={ids['event' if action.target == 'events' else action.target]}"
            for name, action in ACTIONS.items()
            if action.target in about
        ]
    if kind == "step":
        return [f"/console/operations/{ids['operation']}/{step}" for step in STEPS]
    value = FOUND_BY_NAME.get(kind) or ids.get(kind, "")
    start, brace, rest = path.partition("{")
    return [f"{start}{value}{rest.partition('}')[2]}" if brace else path]


def shown(answer, address):
    """The text that a response reveals: its body and its headers, but not the address that was asked for."""
    text = answer.body.decode("utf-8", "replace") + str(answer.headers)
    path, _, query = address.partition("?")
    for part in sorted({address, path, query, *path.split("/"), query.partition("=")[2]}, key=len, reverse=True):
        if len(part) >= 8:
            text = text.replace(part, "").replace(quote(part, safe=""), "")
    return text


def test_every_path_is_classified_for_restricted_roles(routes, console):
    """A path that is added must be classified: what it shows to limited and to masked roles."""
    assert routes == set(PATHS)


@pytest.mark.parametrize("who", ["payer", "both"])
def test_a_limited_role_sees_nothing_of_other_plugins(console, mine, others, who):
    """Each path shows a limited role its part, refuses it, or has no such object; nothing names the other plugin."""
    for path, (limited, masked, kind) in PATHS.items():
        if kind == "post":
            continue
        refused = REFUSED in ((limited, masked) if who == "both" else (limited,))
        for address in filled(path, kind, others):
            answer = get(console, address, who)
            if refused:
                assert answer.status == 403, (address, answer.body)
            elif limited == PART and kind is not None:
                assert answer.status in {403, 404} or kind == "action", (address, answer.body)
            text = shown(answer, address)
            for word in (*HIDDEN, others["event"], others["delivery"], others["error"], others["operation"]):
                assert word not in text, (address, word, text)
        for address in () if refused else filled(path, kind, mine):
            answer = get(console, address, who)
            assert answer.status < 400 or kind == "action", (address, answer.body)
            text = shown(answer, address)
            assert not [word for word in HIDDEN if word in text], (address, text)


def test_a_limited_role_sees_objects_of_its_plugins(console, mine, monkeypatch):
    """Events, deliveries, errors, handlers, alerts, operations and audit entries of the plugin are shown."""
    events = json.loads(get(console, "/api/events", "payer").body)["events"]
    assert [event["flow_instance_id"] for event in events] == ["shared-1", "pay-1"]
    assert [[delivery["handler"] for delivery in event["deliveries"]] for event in events] == [
        ["pay:book"],
        ["pay:book"],
    ]
    assert [list(event["route"]) for event in events] == [["pay:book"], ["pay:book"]]
    whole = json.loads(get(console, f"/api/events/{mine['delivery']}", "payer").body)
    assert whole["id"] == mine["event"]
    assert VALUE in whole["body"]
    assert len(whole["conflicts"]) == 1
    assert json.loads(get(console, "/api/errors", "payer").body)["errors"][0]["id"] == mine["error"]
    (plugin,) = json.loads(get(console, "/api/handlers", "payer").body)["plugins"]
    assert plugin["name"] == "pay"
    assert [found["id"] for found in json.loads(get(console, "/api/alerts", "payer").body)["alerts"]] == [mine["alert"]]
    assert [
        operation["id"] for operation in json.loads(get(console, "/api/operations", "payer").body)["operations"]
    ] == [mine["operation"]]
    entries = json.loads(get(console, "/api/audit", "payer").body)["entries"]
    assert [entry["action"] for entry in entries] == ["resume", "pause"]
    page = get(console, "/console/events", "payer").page
    assert {"shared-1", "pay-1"} <= set(page.text.split())
    links = page.links()
    assert {"/console/events", "/console/errors", "/console/handlers", "/console/alerts"} <= set(links)
    assert not {"/console/parked", "/console/sources", "/console/engines"} & set(links)
    assert get(console, "/console/", "payer").headers["Location"] == "/console/handlers"
    # One of the three dead deliveries is the plugin's, but those of all plugins are counted.
    monkeypatch.setattr(stats, "MAX_GROUPED", 3)
    assert json.loads(get(console, "/api/handlers", "payer").body)["backlog_truncated"]
    assert "At most 3 of each kind are counted" in get(console, "/console/handlers", "payer").page.text


def test_parked_events_are_counted_without_a_link_for_a_limited_role(console, harness):
    """All roles see how many parked events a handler matches now; a limited one gets no link to its empty list."""
    harness.check_at_end = False
    console.flow.sql("UPDATE events SET process_definition_key = 'pay' WHERE flow_instance_id = 'covert-parked'")
    for who, links in (
        ("payer", []),
        ("both", []),
        ("boss", ["/console/parked"]),
        ("clerk", ["/console/events?state=parked"]),
    ):
        for path in ("/console/handlers", "/console/handlers/pay%3Abook"):
            (counted,) = re.findall(r"<li>(?:(?!</li>).)*>parked<.*?</li>", get(console, path, who).body.decode())
            assert counted.endswith((" 1</li>", " 1</a></li>"))
            assert re.findall(r'href="([^"]+)"', counted) == links, (who, path)


def test_export_audit_entries_have_the_restriction_of_the_role(console):
    """The audit entry of an export has the restriction of the role; other roles see it only if it is theirs."""
    for who in ("boss", "payer", "clerk"):
        assert get(console, "/api/events/export?bodies=true", who).status == 200
    query = "SELECT actor, detail FROM audit_log WHERE action = 'export' ORDER BY id"

    def ended():
        found = {actor: json.loads(detail) for actor, detail in console.flow.sql(query)}
        return found if all("events" in detail for detail in found.values()) else None

    details = until(ended)
    assert {who: (detail["role"], detail["event_filter"]) for who, detail in details.items()} == {
        "boss": ("operate", {}),
        "payer": ("payments", {"handler_plugins": ["pay"]}),
        "clerk": ("clerks", {}),
    }
    assert details["payer"]["events"] < details["boss"]["events"] == details["clerk"]["events"]

    def seen(who):
        entries = json.loads(get(console, "/api/audit?action=export", who).body)["entries"]
        return [(entry["actor"], bool(entry["detail"])) for entry in entries]

    assert seen("boss") == [("clerk", True), ("payer", True), ("boss", True)]
    assert seen("payer") == [("payer", True)]
    assert seen("clerk") == [("clerk", False), ("payer", False), ("boss", False)]


def test_filters_find_nothing_of_other_plugins(console, others):
    """A filter that names objects of another plugin finds nothing, in lists and in plans."""
    for query in (
        f"handler={others['handler']}",
        f"id={others['event']}",
        f"error_group={others['error']}",
        "plugin=secretive",
        "ran_by=secretive",
        "flow=covert-1",
        "business_key=covert-key",
        "state=parked",
        "key=covert",
    ):
        answer = get(console, f"/api/events?{query}", "payer")
        assert answer.status == 404 or json.loads(answer.body)["events"] == [], query
    for state, found in (("dead", ["pay-1"]), ("succeeded", ["shared-1"])):
        events = json.loads(get(console, f"/api/events?state={state}", "payer").body)["events"]
        assert [event["flow_instance_id"] for event in events] == found
    for chosen in (["secretive"], ["pay", "secretive"]):
        body = {"action": "replay", "event_filter": {"handler_plugins": chosen}}
        answer = post(console, "/api/operations/plan_operation", "payer", body)
        if chosen == ["secretive"]:
            assert answer.status == 403
        else:
            planned = json.loads(answer.body)
            assert (planned["planned"], planned["event_filter"]) == (1, {"handler_plugins": ["pay"]})


def test_a_delivery_id_of_another_plugin_finds_no_event(console):
    """The delivery that another plugin has of a shared event finds nothing, with and without a state."""
    (event_id,) = console.flow.events(flow_instance_id="shared-1")
    names = {status.handler: status.delivery_id for status in console.flow.delivery_statuses(event_id)}
    for handler, who, is_found in (
        ("secretive:watch", "boss", True),
        ("secretive:watch", "payer", False),
        ("pay:book", "payer", True),
    ):
        name = names[handler]
        for path in (f"/api/events/{name}", f"/console/events/{name}", f"/console/events/{name}/body"):
            assert get(console, path, who).status == (200 if is_found else 404), (path, who)
        for query in (f"q={name}", f"q={name}&state={'dead' if who == 'boss' else 'succeeded'}"):
            for path in ("/api/events", "/console/events", "/api/events/export"):
                answer = get(console, f"{path}?{query}", who)
                text = answer.body.decode() + answer.headers.get("Location", "")
                assert (event_id in text) is is_found, (path, query, who)
        body = {"action": "rerun", "event_filter": {"query": name}}
        planned = json.loads(post(console, "/api/operations/plan_operation", who, body).body)["planned"]
        assert bool(planned) is is_found, who


def kept(console):
    """Everything in the ledger that an operation could change for the other plugin."""
    return [
        console.flow.sql(statement)
        for statement in (
            "SELECT id, state, attempt FROM deliveries WHERE handler = 'secretive:watch' ORDER BY id",
            "SELECT id, paused_at FROM handlers WHERE id = 'secretive:watch'",
            "SELECT id, acknowledged_at FROM alerts WHERE subject = 'secretive:watch'",
            "SELECT id, state, note FROM operations WHERE actor = 'boss' ORDER BY id",
            "SELECT id, state FROM events ORDER BY id",
            "SELECT count(*) FROM audit_log WHERE action NOT IN ('login', 'operation')",
        )
    ]


def test_a_limited_role_changes_nothing_of_other_plugins(console, mine, others):
    """No operation of the API, no action and no step of the console changes anything of another plugin."""
    only = {"event_filter": {"handler": others["handler"]}}
    arguments = {
        "resolve": {"delivery_id": others["delivery"], "verdict": "close"},
        "accept_correction": {"event_id": others["event"], "digest": "0" * 64, "note": "n"},
        "reroute_parked": {},
        "reroute": only,
        "dismiss": {"event_filter": {"state": "parked"}},
        "acknowledge": {"alerts": [others["alert"]]},
        "record_backup": {"name": "b", "size": 1},
        "record_change": {"kind": "restart", "plugins": []},
        "test_alerts": {"route": ""},
        "purge": {"event_filter": {"until": 2**60}},
        "index_fields": {},
        "retire": {"handlers": [others["handler"]]},
        "pause": {"handlers": [others["handler"], "secretive:*", "*"]},
        "resume": {"handlers": ["secretive:*"]},
        "reconcile": {"source": "default"},
        "confirm_reconciliation": {"source": "default"},
        "decline_reconciliation": {"source": "default"},
        "close_gaps": {"source": "default"},
        "ask_engine": {"instance": "covert-1"},
        "read_definitions": {"source": "default"},
        "plan_operation": {"action": "close", **only},
        "start_operation": {"operation_id": others["operation"]},
        "pause_operation": {"operation_id": others["operation"]},
        "resume_operation": {"operation_id": others["operation"]},
        "cancel_operation": {"operation_id": others["operation"]},
        "set_operation_rate": {"operation_id": others["operation"], "rate": 1},
    }
    assert set(arguments) == set(OPERATIONS)
    run_operation(console.flow.app.operation_context, "pause", {"handlers": ["pay:book"]})
    before = kept(console)
    for name, given in arguments.items():
        answer = post(console, f"/api/operations/{name}", "payer", given)
        text = shown(answer, f"/api/operations/{name}")
        if name in {"acknowledge", "pause", "resume", "plan_operation"}:
            assert answer.status == 200, (name, text)
        else:
            assert answer.status in {403, 404}, (name, text)
        if name == "plan_operation":
            assert json.loads(answer.body)["planned"] == 0
        elif name not in {"pause", "resume"}:  # these two repeat the patterns that they were given
            assert not [word for word in HIDDEN if word in text.replace(others["handler"], "")], (name, text)
    assert console.flow.sql("SELECT paused_at FROM handlers WHERE id = 'secretive:watch'") == [(None,)]
    for address in filled("", "action", others):
        post(console, address, "payer", note="n", sure="yes")
    for address in filled("", "step", others):
        assert post(console, address, "payer").status == 404
    assert kept(console)[:5] == before[:5]


def test_a_limited_role_changes_objects_of_its_plugins(console, mine):
    """An operator of a limited role resolves, pauses, replays and acknowledges what is theirs."""
    assert post(console, "/api/operations/acknowledge", "payer", {"alerts": [mine["alert"]]}).status == 200
    paused = json.loads(post(console, "/api/operations/pause", "payer", {"handlers": ["*"]}).body)
    assert paused["handlers"] == ["pay:book", "pay:odd", "pay:rare"]
    assert json.loads(post(console, "/api/operations/resume", "payer", {"handlers": ["*"]}).body)["handlers"]
    body = {"action": "replay", "event_filter": {"state": "dead"}}
    planned = json.loads(post(console, "/api/operations/plan_operation", "payer", body).body)
    assert planned["planned"] == 1
    seen = json.loads(get(console, f"/api/operations/{planned['id']}/items", "payer").body)
    assert [item["handler"] for item in seen["items"]] == ["pay:book"]
    started = post(console, "/api/operations/start_operation", "payer", {"operation_id": planned["id"]})
    assert started.status == 200
    until(lambda: console.flow.sql("SELECT attempt FROM deliveries WHERE id = ?", mine["delivery"]) == [(2,)])
    until(console.flow.is_idle)
    body = {"delivery_id": mine["delivery"], "verdict": "close", "note": "done by hand"}
    assert post(console, "/api/operations/resolve", "payer", body).status == 200
    actions = [entry["action"] for entry in json.loads(get(console, "/api/audit", "payer").body)["entries"]]
    assert {"resolve", "pause", "resume", "operation"} <= set(actions)


def test_purged_events_of_other_plugins_are_reported_as_missing(console, others):
    """A limited role cannot tell an event that was purged from one that never existed."""
    context = dataclasses.replace(console.flow.app.operation_context, by=Actor("boss", "api"))
    body = {"delivery_id": others["delivery"], "verdict": "close"}
    run_operation(context, "resolve", body)
    run_operation(context, "purge", {"event_filter": {"ids": [others["event"]], "until": 2**57}})
    unknown = f"/console/events/{'0' * 36}"
    purged = f"/console/events/{others['event']}"
    assert get(console, purged, "boss").page.text != get(console, unknown, "boss").page.text
    assert get(console, purged, "payer").page.text == get(console, unknown, "payer").page.text


@pytest.mark.parametrize("path", ["/api/events/export?format=csv", "/console/events/export?format=jsonl"])
@pytest.mark.parametrize("bodies", ["bodies=true", "masked=true"])
def test_exports_are_restricted(console, mine, others, path, bodies):
    """A file has the events of the operator's plugins only, and no hidden value."""
    address = f"{path}&{bodies}"
    texts = {who: get(console, address, who).body.decode() for who in ("boss", "payer", "clerk", "both")}
    assert "secretive:watch" in texts["boss"]
    assert "secretive:watch" in texts["clerk"]
    assert (f"{VALUE}-salary" in texts["payer"]) == (bodies == "bodies=true")
    for who in ("payer", "both"):
        assert "pay:book" in texts[who]
        assert not [word for word in (*HIDDEN, others["event"], others["delivery"]) if word in texts[who]]
    for who in ("clerk", "both"):
        assert VALUE not in texts[who]


@pytest.mark.parametrize("who", ["clerk", "both"])
def test_a_masked_role_sees_no_value(console, mine, who):
    """No path shows a masked role a hidden value: not in bodies, names, errors, results, logs and tracebacks."""
    assert VALUE in get(console, f"/api/events/{mine['event']}", "boss").body.decode()
    others = [console.flow.events(flow_instance_id=name)[0] for name in ("shared-1", "pay-rare", "pay-odd")]
    reason = f"cannot book {VALUE}"
    console.flow.sql(
        "UPDATE handlers SET paused_at = 1, circuit_opened_at = 1, circuit_retry_at = 1, circuit_reason = ?"
        " WHERE id = ?",
        reason,
        "pay:book",
    )
    now = console.flow.clock.now()
    engine_ledger.position(console.flow, "default", failed_since=now, reason="invalid", error=reason, failures=1)
    engine_ledger.gap(console.flow, "default", 1, 2, "invalid", detail=reason)
    for address in ("/api/handlers", "/api/engines", "/console/engines"):
        assert VALUE in get(console, address, "boss").body.decode()
    assert all(VALUE in get(console, f"/console/events/{other}", "boss").page.text for other in others)
    for path, (limited, masked, kind) in PATHS.items():
        if kind == "post":
            continue
        refused = REFUSED in ((limited, masked) if who == "both" else (masked,))
        for ids in (mine, *(mine | {"event": other} for other in others)):
            for address in filled(path, kind, ids):
                answer = get(console, address, who)
                unseen = who == "both" and ids["event"] in others[1:] and kind == "event"
                expected = {403} if refused else {404} if unseen else {200, 302, 303}
                assert answer.status in expected or kind == "action", (address, answer.status)
                assert VALUE not in answer.body.decode("utf-8", "replace"), (address, answer.body.decode())
                assert VALUE not in str(answer.headers)


def test_no_link_points_to_a_forbidden_page(console, mine):
    """Sources are not linked for masked roles, nor operations of attempts for limited ones, which may not open them."""
    app, source = console.flow.app, "/console/sources/default"
    engine = EngineSettings(client="flowable", url="http://oa:8080")
    app._live.change_settings(dataclasses.replace(app.settings, sources={"default": Source(engine=engine)}))
    console.flow.sql("INSERT INTO audit_log VALUES ('z', 1, 'boss', 'api', 'reconcile', 'default', '{}')")
    for page in ("engines", "audit"):
        assert source in get(console, f"/console/{page}", "boss").page.links()
        assert source not in get(console, f"/console/{page}", "clerk").page.links()
    console.flow.sql("UPDATE attempts SET operation_id = 'o', trigger = 'replay'")
    pages = {who: get(console, f"/console/events/{mine['event']}", who).page for who in TOKENS}
    linked = {who for who, page in pages.items() if "/console/operations/o" in page.links()}
    assert linked == {"boss", "clerk"}


def test_a_masked_role_sees_the_rest_of_a_body(console, mine):
    """The rest of a body stays readable, and the page says that something was there."""
    engine_ledger.position(console.flow, "default", error="401")
    engine_ledger.gap(console.flow, "default", 1, 2, "invalid", detail="401")
    whole = json.loads(get(console, f"/api/events/{mine['event']}", "clerk").body)
    body = json.loads(whole["body"])
    assert (
        body
        == whole["data"]
        == {
            "processDefinitionKey": "pay",
            "businessKey": "•••",
            "salary": "•••",
            "bank": [{"account": "•••", "name": "b"}],
        }
    )
    assert whole["business_key"] == "•••"
    (delivery,) = whole["deliveries"]
    (attempt,) = delivery["attempts"]
    assert (delivery["error"], attempt["error"], attempt["log"], delivery["error_group"]) == ("•••", "•••", "•••", None)
    assert json.loads(whole["conflicts"][0]["body"])["salary"] == "•••"
    page = get(console, f"/console/events/{mine['event']}", "clerk")
    assert "•••" in page.page.text
    assert get(console, f"/console/events/{mine['event']}/body", "clerk").body.decode() == whole["body"]
    stored = dataclasses.replace(console.flow.app.ledger.event(mine["event"]), damage=f"kind is {VALUE}")
    assert Access(masked=()).stored_event(stored).damage == "•••"
    (engine,) = json.loads(get(console, "/api/engines", "clerk").body)["engines"]
    assert (engine["error"], [gap["detail"] for gap in engine["gaps"]]) == ("•••", ["•••"])
    assert selection_values(mask_filter({"fields": ["/salary=1"]}, ())) == (("field", "•••"),)
    # The form of a plan does not have the hidden note, so the start keeps it.
    plan = f"/console/operations/{mine['operation']}"
    assert re.search(r'name="note"[^>]*></textarea>', get(console, plan, "clerk").body.decode())
    assert post(console, f"{plan}/start", "clerk").status == 303
    assert console.flow.sql("SELECT note FROM operations") == [(f"replay {VALUE}-key",)]


def test_a_masked_role_cannot_search_for_values(console):
    """A filter by a hidden member is refused everywhere, because its answer would reveal the value."""
    for query in (f"business_key={VALUE}-key", "business_key=x"):
        assert get(console, f"/api/events?{query}", "clerk").status == 403
        answer = get(console, f"/console/events?{query}", "clerk")
        assert (answer.status, "hidden from your role" in answer.page.text) == (403, True)
        assert get(console, f"/api/events?{query}", "payer").status == 200
    body = {"action": "replay", "event_filter": {"business_key": f"{VALUE}-key"}}
    assert post(console, "/api/operations/plan_operation", "clerk", body).status == 403
    assert get(console, "/api/events?key=pay", "clerk").status == 200


def test_a_masked_role_cannot_guess_error_texts(console, mine):
    """The id of an error group is a digest of the error's text: it is neither a filter, nor shown."""
    for group in (mine["error"], "0" * 64):
        for path in ("/api/events", "/api/events/export", "/console/events"):
            assert get(console, f"{path}?error_group={group}", "clerk").status == 403
        plan = {"action": "replay", "event_filter": {"error_group": group}}
        assert post(console, "/api/operations/plan_operation", "clerk", plan).status == 403
    assert get(console, f"/api/events?error_group={mine['error']}", "boss").status == 200
    plan = {"action": "replay", "event_filter": {"error_group": mine["error"]}}
    assert post(console, "/api/operations/plan_operation", "boss", plan).status == 200
    assert mine["error"] in get(console, "/api/operations", "boss").body.decode()
    assert mine["error"] not in get(console, "/api/operations", "clerk").body.decode()


def test_a_masked_role_sees_no_error_of_a_notifier(console, mine):
    """The refusal of a mail or chat server may quote the alert, whose message is hidden."""
    errors = json.dumps({"mail": f"400: cannot send {VALUE}"})
    console.flow.sql("UPDATE alerts SET notification_errors = ? WHERE id = ?", errors, mine["alert"])
    for path in ("/api/alerts", "/console/alerts"):
        assert VALUE in get(console, path, "boss").body.decode()
        assert VALUE not in get(console, path, "clerk").body.decode()


def test_no_operation_shows_a_masked_role_a_hidden_value(console, mine):
    """Each operation is classified for masked roles, and its result, also as a preview, has no hidden value."""
    # The handler is paused, so that the operation does not end before it is cancelled.
    run_operation(console.flow.app.operation_context, "pause", {"handlers": [mine["handler"]]})
    planned = {"operation_id": mine["operation"]}
    refused = {"accept_correction", "ask_engine", "index_fields", "reconcile", "read_definitions"}
    about = {
        "resolve": {"delivery_id": mine["delivery"], "verdict": "close", "dry_run": True},
        "reroute_parked": {"dry_run": True},
        "reroute": {"event_filter": {"state": "dismissed"}, "dry_run": True},
        "dismiss": {"event_filter": {"state": "parked"}, "dry_run": True},
        "acknowledge": {"alerts": [mine["alert"]], "dry_run": True},
        "purge": {"event_filter": {"until": 2**57}, "dry_run": True},
        "retire": {"handlers": [mine["handler"]], "dry_run": True},
        "pause": {"handlers": ["*"], "dry_run": True},
        "resume": {"handlers": ["*"], "dry_run": True},
        "plan_operation": {"action": "replay", "event_filter": {"handler": mine["handler"]}},
        "start_operation": planned,
        "pause_operation": planned,
        "resume_operation": planned,
        "set_operation_rate": planned | {"rate": 1},
        "cancel_operation": planned,
    }
    for name in (*about, *(OPERATIONS.keys() - about)):
        answer = post(console, f"/api/operations/{name}", "clerk", about.get(name, {}))
        assert (answer.status == 403) == (name in refused), (name, answer.body)
        assert name not in about or answer.status == 200, (name, answer.body)
        assert VALUE not in answer.body.decode(), (name, answer.body)


def test_a_masked_role_accepts_no_correction(console, mine):
    """An operator who cannot see two bodies cannot choose between them."""
    (conflict,) = json.loads(get(console, f"/api/events/{mine['event']}", "boss").body)["conflicts"]
    body = {"event_id": mine["event"], "digest": conflict["digest"], "note": "n"}
    assert post(console, "/api/operations/accept_correction", "clerk", body).status == 403
    masked = json.loads(get(console, f"/api/events/{mine['event']}", "clerk").body)["conflicts"][0]
    assert conflict["digest"] not in json.dumps(masked)


def test_an_operator_with_a_removed_role_has_no_access(console):
    """An operator whose role the settings do not have is nobody."""
    app = console.flow.app
    app._live.change_settings(dataclasses.replace(app.settings, roles={}))
    assert get(console, "/api/events", "payer").status == 401
    assert get(console, "/api/events", "boss").status == 200


def test_lists_and_route_explanations_stay_restricted(console, mine):
    """The list that an event was opened from, and the explanation of a route, show a restricted role nothing more."""
    page = f"/console/events/{mine['event']}"
    walked = get(console, f"{page}?list=state%3Ddead", "payer")
    assert walked.status == 200
    assert not [word for word in HIDDEN if word in shown(walked, page)]
    # The other delivery of this event is dead, that of the role is not.
    assert "shared-1" in get(console, f"{page}?list=state%3Ddead", "boss").page.text
    assert "shared-1" not in walked.page.text
    explained = get(console, f"{page}?explain=1", "payer")
    assert (explained.status, "explanation" in explained.body.decode()) == (200, False)
    assert "explanation" in get(console, f"{page}?explain=1", "boss").body.decode()
    assert get(console, f"{page}?list=business_key%3Dx", "clerk").status == 403
    assert VALUE not in get(console, f"{page}/body?raw=1", "clerk").body.decode()


def test_a_list_cursor_skips_hidden_entries(console, mine, others):
    """A page with few entries of a role leads to the next one until the end, and repeats nothing."""
    context = dataclasses.replace(console.flow.app.operation_context, by=Actor("boss", "api"))
    for number in range(6):
        name = "pause" if number % 2 == 0 else "resume"
        run_operation(context, name, {"handlers": [others["handler"]]})
    run_operation(context, "pause", {"handlers": [mine["handler"]]})
    for path, member, expected in (("/api/audit", "entries", 3), ("/api/operations", "operations", 1)):
        found, after = [], ""
        while True:
            answer = json.loads(get(console, f"{path}?limit=1{after and f'&after={after}'}", "payer").body)
            found += [item["id"] for item in answer[member]]
            if not (after := answer["next"]):
                break
        assert len(found) == len(set(found)) == expected, path
    assert get(console, "/console/audit", "payer").page.text.count("paused") >= 1


def test_a_group_of_the_proxy_has_a_limited_role(harness, serve, make_plugin, listens):
    """Users whom the proxy names get the same restrictions as operators of the settings."""
    login = LoginSettings(proxy="127.0.0.1", groups={"payers": "payments", "clerks": "clerks"})
    plugins = {name: make_plugin(listens(lambda event: None, process_key=name)) for name in ("pay", "secretive")}
    flow = harness.open(plugins=plugins, login=login, roles=ROLES, masking=MASKING)
    flow.take("pay-1", key="pay", salary=f"{VALUE}-salary")
    flow.take("covert-1", key="secretive", salary=f"{VALUE}-salary")
    console = serve(flow)
    for groups, seen in (("payers", ["pay-1"]), ("clerks", ["covert-1", "pay-1"])):
        headers = {"X_Forwarded_User": "li", "X_Forwarded_Groups": groups}
        events = json.loads(console.get("/api/events", root="", **headers).body)["events"]
        assert [event["flow_instance_id"] for event in events] == seen
        assert console.get("/parked", **headers).status == 403
        whole = console.get(f"/api/events/{events[-1]['id']}", root="", **headers).body.decode()
        assert (VALUE in whole) is (groups == "payers")


def test_trends_of_a_handler_are_restricted(console, mine):
    """A limited role sees no versions of other plugins in the marks, and a masked role no errors of the handler."""
    flow = console.flow
    for number in ("1.0", "2.0"):
        versions = {name: PluginVersion(number, "") for name in ("pay", "secretive")}
        server_audit.record_start(flow.app.ledger, flow.clock, flow.app.settings, versions, kind="server")
        flow.clock.advance(60)
    marks = {}
    for who in ("boss", "payer"):
        trend = json.loads(get(console, f"/api/handlers/{mine['handler']}/trend", who).body)
        marks[who] = {mark["text"] for mark in trend["marks"]}
    assert {"pay 2.0", "secretive 2.0"} <= marks["boss"]
    assert marks["payer"] == marks["boss"] - {"secretive 2.0"}
    pages = {who: get(console, "/console/handlers/pay%3Abook", who).body.decode() for who in TOKENS}
    for shown_to_unmasked in ("cannot book", "/console/errors", "Last errors"):
        assert {who for who, page in pages.items() if shown_to_unmasked in page} == {"boss", "payer"}


def test_every_operation_has_the_access_of_its_operator():
    """Wherever a request becomes an operator's operation, the context gets the access of the operator, too."""
    acting = [
        re.sub(r"\s+", " ", call)
        for file in sorted((Path(__file__).parents[4] / "flowhooks/web").rglob("*.py"))
        for call in re.findall(r"replace\([^()]*operation_context,[^\n]*", file.read_text("utf-8"))
    ]
    assert len(acting) == 2
    assert all("by=" in call and "access=operator.access" in call for call in acting), acting
