"""The administration API over a real socket: equal to console and command line, and as published."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes, urlencode

import falcon.testing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from flowhooks import Reject, Retry, State, hookimpl
from flowhooks.errors import IdentityConflict, LedgerUnusable, SettingsError
from flowhooks.ledger import rejected_requests
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations import bulk
from flowhooks.operations.context import Actor
from flowhooks.operations.json.events import event_to_json, whole_event_to_json
from flowhooks.operations.purge import cutoffs_from_filter
from flowhooks.operations.registry import OPERATIONS, filter_from_json
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.schema.schemas import Schemas
from flowhooks.settings import IngressSettings, OperatorSettings, Secret, Source
from flowhooks.settings.engine import EngineSettings
from flowhooks.web.admin.api import resources
from flowhooks.web.admin.api.export_resource import FILES
from flowhooks.web.admin.api.openapi import openapi
from flowhooks.web.admin.api.resources import RESOURCES
from flowhooks.web.admin.app import create_admin
from support import engine_ledger, ingress
from support.engine_fakes import FakeReconciler, engine_plugin
from support.run_bulk import replay
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

TOKEN = "t"
TAKES = [(resource.path, parameter.name) for resource in (*RESOURCES, *FILES) for parameter in resource.parameters]
HOSTILE = {
    "nul": "%00",
    "surrogate": "%ed%a0%80",
    "not utf-8": "%ff",
    "raw bytes": "\xff\xfe",
    "long": "x" * 10_000,
    "sql": quote("'; DROP TABLE events; -- \" OR 1=1"),
    "percent": "%",
    "half": "%zz%4",
    "line": "%0d%0aSet-Cookie:%20pwned=1",
    "like": "%25_%25",
    "number": "9" * 400,
    "minus": "-1",
    "other digits": quote("٣"),
    "direction": quote("\u202egpj.exe"),
    "json": quote('{"$gt": ""}'),
    "space": "+",
    "empty": "",
}
PAYLOAD = "<script>alert(1)</script>\"';--\r\nSet-Cookie: pwned=1\x1b[2J\u202e\u2028%00 Z\u0351"


def path_of(resource, event_id, error_id="0" * 8, operation_id="", handler="shop:archive"):
    """The path of a resource, for this event, this error group, this operation or this handler."""
    path = resource.path.replace("errors/{id}", f"errors/{error_id}")
    path = path.replace("handlers/{id}", f"handlers/{handler}").replace("{name}", "default")
    return path.replace("operations/{id}", f"operations/{operation_id}").replace("{id}", event_id)


class Answer(NamedTuple):
    """One response as it was received."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        """The body, read as JSON."""
        return json.loads(self.body)


class Api:
    """A served API, and its client."""

    def __init__(self, flow, address):
        self.flow = flow
        self.address = address

    def ask(self, path, *, method="GET", body=None, **headers):
        """Send a request."""
        name, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(name, int(port), timeout=WAIT_TIMEOUT)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for header, value in headers.items():
                connection.putheader(header.replace("_", "-"), value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **query):
        """The stored data."""
        answer = self.ask(f"{path}?{urlencode(query, doseq=True)}" if query else path)
        assert answer.status == 200, answer.body
        return answer.json


@pytest.fixture
def serve(start):
    """Serve a flow's API: `serve(flow)`."""
    return lambda flow: Api(flow, start(create_admin(flow.app, TOKEN)).address)


BULK_CHANGES = ("start_operation", "set_operation_rate", "pause_operation", "resume_operation", "cancel_operation")


def plan_to_change(app, change):
    """The id of a bulk operation in a state in which it can be changed so."""
    context = replace(app.operation_context, by=Actor("ann", "cli"))
    plan = bulk.plan_operation(context, BulkAction.CLOSE, EventFilter(flow_instance_id="none"))
    if change in {"pause_operation", "resume_operation"}:
        bulk.start_operation(context, plan.id)
    if change == "resume_operation":
        bulk.pause_operation(context, plan.id)
    return plan.id


def archive(event):
    """Move it into the archive."""
    if event.business_key == "B-bad":
        raise Reject("no such contract")
    if event.business_key == "B-later":
        raise RuntimeError("the archive sleeps")
    return {"archived": event.business_key}


@pytest.fixture
def busy(harness, serve, listens, make_plugin):
    """An API with some data of every kind."""

    def broken():
        raise ValueError("payroll needs a table")

    flow = harness.open(
        plugins={
            "shop": make_plugin(
                listens(archive, process_key="contract", retry=Retry(attempts=3)),
                listens(lambda event: None, name="idle", callback_class="com.example.Idle"),
            ),
            "payroll": SimpleNamespace(handlers=hookimpl(broken)),
        }
    )
    flow.take("4711", key="contract", businessKey="B-1", processDefinitionVersion=3)
    flow.take("4712", key="contract", businessKey="B-bad")
    flow.take("4713", key="contract", businessKey="B-later", wait=0)
    flow.take("4714", key="leave", callback_class="com.example.Leave")
    flow.take("4711", key="contract", businessKey="B-1", processDefinitionVersion=3)
    with pytest.raises(IdentityConflict):
        flow.take("4711", key="contract", businessKey="B-other")
    flow.settled(flow.events(flow_instance_id="4713")[0], State.WAITING, attempt=1)
    flow.dead = flow.events(flow_instance_id="4712")[0]
    engine_ledger.position(flow, "oa", skew=1_500_000, definitions=engine_ledger.definitions(("leave", 3)))
    engine_ledger.instance(flow, "oa", "4711")
    engine_ledger.gap(flow, "oa", flow.clock.now() - 9_000_000, flow.clock.now(), "deleted")
    for _ in range(2):
        replay(replace(flow.app.operation_context, by=Actor("ann", "console")), EventFilter(ids=(flow.dead,)))
        flow.settled(flow.dead, State.DEAD)
    flow.app.alerts.stop(WAIT_TIMEOUT)  # a check would close an alert without a cause
    for closed in ("NULL", "1"):
        flow.sql(
            "INSERT INTO alerts "
            "(id, cause, subject, message, started_at, count, event_id, opened_at, notified, closed_at) "
            f"VALUES (?, 'parked', ?, 'look', 1, 1, ?, 1, '[\"p\"]', {closed})",
            *(f"alert {closed}", "leave", flow.dead),
        )
    flow.sql(
        "INSERT INTO alerts (id, cause, subject, message, started_at, count, event_id, opened_at, notified, "
        "acknowledged_at, acknowledged_by) VALUES ('s', 'source_silent', 'crm', 'silent', 1, 1, '', 1, '[]', 2, 'ann')"
    )
    for number in range(3):
        refusal = rejected_requests.RejectedRequest(
            id=flow.clock.new_id(),
            rejected_at=flow.clock.now(),
            first_rejected_at=flow.clock.now(),
            path=f"/flow/{number}/call-back/complete",
            address="127.0.0.1",
            status=400,
            reason_en="no",
            reason_zh="否",
        )
        flow.app.ledger.write(lambda transaction, request=refusal: rejected_requests.store(transaction, [request]))
    return serve(flow)


@pytest.fixture(scope="module")
def document():
    """The published description, as a client reads it."""
    return json.loads(json.dumps(openapi(Schemas.load())))


def strict(document):
    """The published description, which permits no undescribed member."""
    schemas = document["components"]["schemas"]
    ours = {name: schema | {"additionalProperties": False} for name, schema in schemas.items() if "$ref" not in schema}
    return document["components"] | {"schemas": schemas | ours | {"answer": schemas["answer"]}}


def check(document, schema, value):
    """Check that a value matches its schema, and has no undescribed member."""
    whole = {"components": strict(document)} | schema
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]
    assert errors == []


def answered(document, path, method="get"):
    """The schema of a response."""
    return document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]


def assert_not_cached(answer):
    """A response is JSON that nothing stores."""
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_document_is_valid_openapi(document):
    """The document is valid OpenAPI 3.1, and describes each path and operation."""
    validate(document)
    assert list(document["paths"]) == [
        *(resource.path for resource in (*RESOURCES, *FILES)),
        *(f"/api/operations/{name}" for name in OPERATIONS),
    ]
    for path in document["paths"].values():
        for method, operation in path.items():
            assert operation["security"] == ([{}, {"bearer": []}] if method == "get" else [{"bearer": []}])
            assert {"400", "401", "403", "404", "405", "422", "500", "503"} <= set(operation["responses"])
    events = document["paths"]["/api/events"]["get"]["parameters"]
    repeatable = {given["name"]: given["schema"]["maxItems"] for given in events if "maxItems" in given["schema"]}
    assert repeatable == {"id": 100, "field": 20}
    for name, schema in document["components"]["schemas"].items():
        for member, its in schema["properties"].items():
            assert its.get("description") or "$ref" in its or name in {"answer", "error"}, (name, member)


def test_paths_and_parameters_are_described_in_both_languages(document):
    """Descriptions are in English, then in Chinese."""
    for path in document["paths"].values():
        for operation in path.values():
            said = [parameter["description"] for parameter in operation["parameters"]]
            for text in said + ([operation["summary"]] if operation["operationId"].startswith("get-") else []):
                english, chinese = text.split(" / ")
                assert english.isascii()
                assert not chinese.isascii()


def test_published_operation_arguments_have_types(document):
    """Each argument has a type, and those without a default are required."""
    for name, (_, takes) in OPERATIONS.items():
        body = document["paths"][f"/api/operations/{name}"]["post"]["requestBody"]["content"]["application/json"]
        assert list(body["schema"]["properties"]) == list(takes)
        for schema in body["schema"]["properties"].values():
            assert {"type", "$ref", "anyOf", "allOf"} & schema.keys()
    resolve = document["paths"]["/api/operations/resolve"]["post"]["requestBody"]["content"]["application/json"]
    assert resolve["schema"]["required"] == ["delivery_id", "verdict"]
    assert resolve["schema"]["properties"]["verdict"]["enum"] == ["did", "did-not", "close"]
    assert "required" not in document["components"]["schemas"]["EventFilter"]


def test_invalid_operation_arguments_are_rejected(document):
    """Unknown arguments, states and times and empty lists of ids are refused; null counts as absent."""
    bodies = {
        name: document["paths"][f"/api/operations/{name}"]["post"]["requestBody"]["content"]["application/json"]
        for name in OPERATIONS
    }

    def takes(name, body):
        schema = {**bodies[name]["schema"], "components": document["components"]}
        return Draft202012Validator(schema).is_valid(body)

    assert all(not takes(name, {"nonsense": 1}) for name in OPERATIONS)
    assert takes("reroute_parked", {"dry_run": None, "after": None})
    assert takes("resolve", {"delivery_id": "x", "verdict": "did", "note": None})
    assert not takes("resolve", {"delivery_id": None, "verdict": "did"})
    assert all(takes("dismiss", {"event_filter": {name: None}}) for name in ("ids", "state", "since", "handler"))
    plugins = [f"p{number}" for number in range(101)]
    assert takes("dismiss", {"event_filter": {"handler_plugins": plugins[1:]}})
    assert filter_from_json("event_filter", {"handler_plugins": plugins[1:]})
    for wanted in (
        {"handler_plugins": plugins},
        {"ids": []},
        {"state": "ded"},
        {"since": 2**61},
        {"until": -(2**61)},
        {"nonsense": 1},
        {"ids": "x"},
    ):
        assert not takes("dismiss", {"event_filter": wanted}), wanted
        with pytest.raises(SettingsError):
            filter_from_json("event_filter", wanted)
    assert takes("reconcile", {"declined": True, "since": 1})
    assert takes("reconcile", {"declined": None, "since": None})
    assert takes("decline_reconciliation", {"source": "oa", "instances": 0})
    for name, body in (
        ("reconcile", {"declined": True}),
        ("reconcile", {"declined": True, "since": None}),
        ("reconcile", {"since": 2**61}),
        ("confirm_reconciliation", {"source": "oa", "instances": -1}),
        ("decline_reconciliation", {"source": "oa", "instances": -1}),
        ("decline_reconciliation", {"source": "oa", "seen_until": -(2**61)}),
        ("close_gaps", {"source": "oa", "found_until": 2**61}),
    ):
        assert not takes(name, body), (name, body)
    assert takes("purge", {"event_filter": {"until": 1, "state": None}})
    for wanted in ({}, {"until": None}, {"until": 1, "state": "running"}):
        assert not takes("purge", {"event_filter": wanted}), wanted
        with pytest.raises(SettingsError):
            cutoffs_from_filter(filter_from_json("event_filter", wanted))


def test_every_path_responds_as_published(busy, document):
    """Each path on a ledger with data of every kind responds as its own document describes."""
    published = busy.ask("/openapi.json")
    assert published.json == document
    assert_not_cached(published)
    (event,) = busy.get("/api/events", flow="4712")["events"]
    plan = bulk.plan_operation(busy.flow.app.operation_context, BulkAction.CLOSE, EventFilter(state="dead"))
    for resource in RESOURCES:
        answer = busy.ask(path_of(resource, event["id"], event["deliveries"][0]["error_group"], plan.id))
        assert answer.status == 200
        assert_not_cached(answer)
        check(document, answered(document, resource.path), answer.json)
    refused = busy.ask("/api/events?stat=dead")
    check(document, {"$ref": "#/components/schemas/error"}, refused.json)


def test_every_operation_responds_as_published(busy, document):
    """A dry run of each operation responds as published."""
    (delivery_status,) = busy.flow.delivery_statuses(busy.flow.dead)
    (conflicting,) = busy.flow.events(flow_instance_id="4711")
    (conflict,) = busy.flow.app.ledger.conflicts(conflicting)
    given = {
        "accept_correction": {"event_id": conflicting, "digest": conflict.digest, "note": "the sum was wrong"},
        "resolve": {"delivery_id": delivery_status.delivery_id, "verdict": "close"},
        "reroute_parked": {},
        "retire": {"handlers": ["shop:idle"]},
        "index_fields": {},
        "reroute": {"event_filter": {"ids": [busy.flow.dead]}, "handler": "shop:idle"},
        "dismiss": {"event_filter": {"state": "parked"}, "note": "not needed"},
        "acknowledge": {"alerts": ["alert NULL"]},
        "test_alerts": {},
        "record_backup": {"name": "flowhooks-1.db", "size": 4096},
        "record_change": {"kind": "install", "plugins": ["contracts 1.3 -> 1.4"]},
        "pause": {"handlers": ["shop:idle"]},
        "resume": {"handlers": ["shop:idle"]},
        "purge": {"event_filter": {"until": busy.flow.clock.now()}},
        "reconcile": {"source": "oa", "since": 1},
        **{name: {"source": "oa"} for name in ("confirm_reconciliation", "decline_reconciliation", "close_gaps")},
        "ask_engine": {"instance": "4711"},
        "read_definitions": {},
        "plan_operation": {"action": "close", "event_filter": {"state": "dead"}, "rate": 5, "note": "not needed"},
        "start_operation": {"rate": 0.5, "note": "not needed"},
        "set_operation_rate": {},
        "pause_operation": {},
        "resume_operation": {},
        "cancel_operation": {},
    }
    FakeReconciler("oa").install(busy.flow.app)
    assert given.keys() == OPERATIONS.keys()
    busy.flow.app.bulk_operations.stop(WAIT_TIMEOUT)  # it would finish an operation before it is paused
    for name in BULK_CHANGES:
        given[name]["operation_id"] = plan_to_change(busy.flow.app, name)
    for name in OPERATIONS:
        body = json.dumps(given[name] | ({"dry_run": True} if "dry_run" in OPERATIONS[name][1] else {}))
        schema = document["paths"][f"/api/operations/{name}"]["post"]["requestBody"]["content"]["application/json"]
        check(document, schema["schema"], json.loads(body))
        answer = busy.ask(f"/api/operations/{name}", method="POST", body=body.encode(), Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200, answer.body
        assert_not_cached(answer)
        check(document, answered(document, f"/api/operations/{name}", "post"), answer.json)


def test_events_equal_the_output_of_the_command_line(busy):
    """`flowhooks events list --json` and `show --json` have the same members with the same values."""
    reader = busy.flow.app.ledger
    found = reader.find(EventFilter(), limit=100)
    assert busy.get("/api/events")["events"] == json.loads(
        json.dumps([event_to_json(stored_event) for stored_event in found])
    )
    for stored_event in found:
        whole = json.loads(json.dumps(whole_event_to_json(reader, stored_event)))
        assert busy.get(f"/api/events/{stored_event.event.id}") == whole


def test_events_are_filtered(busy):
    """Each filter of the console and ids narrow the list, and several narrow it more."""
    for query, instances in (
        ({}, {"4711", "4712", "4713", "4714"}),
        ({"flow": "4711"}, {"4711"}),
        ({"business_key": "B-bad"}, {"4712"}),
        ({"class": "com.example.Leave"}, {"4714"}),
        ({"class": "com.example.Leave "}, set()),
        ({"state": " dead "}, {"4712"}),
        ({"key": "contract", "state": "waiting"}, {"4713"}),
        ({"handler": "shop:archive", "state": "dead"}, {"4712"}),
        ({"state": "parked"}, {"4714"}),
        ({"since": "2025-12-31", "until": "2026-01-02T00:00+08:00"}, {"4711", "4712", "4713", "4714"}),
        ({"until": "2025-12-31"}, set()),
        ({"since": "2h"}, {"4711", "4712", "4713", "4714"}),  # by the clock of the ledger
        ({"until": "2h"}, set()),
        ({"id": busy.flow.events()[:2]}, {"4711", "4712"}),
        ({"id": busy.flow.events()[:2], "state": "dead"}, {"4712"}),
        ({"flow": "'; DROP TABLE events"}, set()),
    ):
        found = busy.get("/api/events", **query)
        assert {event["flow_instance_id"] for event in found["events"]} == instances, query
        assert (found["next"], found["searched_until"]) == ("", None)


def test_events_are_filtered_by_their_attempts(busy):
    """Plugin, version, trigger and time are those of one attempt; `ran_by` is about the last attempt."""
    flow = busy.flow
    last, of_4711 = "delivery_id = ? AND number = 3", "delivery_id = ?"
    flow.sql("UPDATE attempts SET plugin_version = '1.4'")
    flow.sql(f"UPDATE attempts SET plugin_version = '2.0' WHERE {last}", flow.only(flow.dead).delivery_id)
    (old,) = flow.events(flow_instance_id="4711")
    two_days = 2 * 86_400_000_000
    flow.sql(f"UPDATE attempts SET started_at = started_at - {two_days} WHERE {of_4711}", flow.only(old).delivery_id)
    for query, instances in (
        ({"plugin": "shop"}, {"4711", "4712", "4713"}),
        ({"plugin": "payroll"}, set()),
        ({"plugin": "shop==1.4"}, {"4711", "4712", "4713"}),
        ({"plugin": "shop==2.0"}, {"4712"}),
        ({"plugin": "shop==2"}, set()),
        ({"ran_by": "shop"}, {"4711", "4712", "4713"}),
        ({"ran_by": "shop==1.4"}, {"4711", "4713"}),
        ({"ran_by": "shop==2.0"}, {"4712"}),
        ({"trigger": "first"}, {"4711", "4712", "4713"}),
        ({"trigger": "replay"}, {"4712"}),
        ({"trigger": "probe"}, set()),
        ({"trigger": "replay", "plugin": "shop==2.0"}, {"4712"}),
        ({"trigger": "first", "plugin": "shop==2.0"}, set()),
        ({"attempted_since": "2025-12-31"}, {"4712", "4713"}),
        ({"attempted_since": "2025-12-29", "trigger": "first"}, {"4711", "4712", "4713"}),
        ({"attempted_since": "2026-01-02"}, set()),
    ):
        found = busy.get("/api/events", **query)
        assert {event["flow_instance_id"] for event in found["events"]} == instances, query


def test_an_event_has_all_its_details(busy):
    """An event by its id or a delivery's id has its routing, original body, attempts, tracebacks and actions."""
    (event,) = busy.get("/api/events", flow="4712")["events"]
    ann = replace(busy.flow.app.operation_context, by=Actor("ann", "console"))
    resolve(ann, event["deliveries"][0]["id"], Resolution.CLOSE)
    whole = busy.get(f"/api/events/{event['id']}")
    assert busy.get(f"/api/events/{event['deliveries'][0]['id']}") == whole
    assert whole["body"] == '{"processDefinitionKey": "contract", "businessKey": "B-bad"}'
    assert whole["route"] == {"shop:archive": "key contract"}
    (delivery,) = whole["deliveries"]
    assert [attempt["number"] for attempt in delivery["attempts"]] == [1, 2, 3]
    assert "no such contract" in delivery["attempts"][0]["error"]
    assert [(entry["actor"], entry["interface"], entry["action"]) for entry in whole["audit_entries"]] == [
        ("ann", "console", "resolve"),
        *[("ann", "console", "operation")] * 2,  # the fixture has replayed it
    ]
    (later,) = busy.get("/api/events", flow="4713")["events"]
    (delivery,) = busy.get(f"/api/events/{later['id']}")["deliveries"]
    assert delivery["attempts"][0]["traceback"].startswith("Traceback")
    (repeated,) = busy.get("/api/events", flow="4711")["events"]
    assert repeated["repeats"] == 1
    (conflict,) = busy.get(f"/api/events/{repeated['id']}")["conflicts"]
    assert json.loads(conflict["body"])["businessKey"] == "B-other"


def test_a_response_omits_and_counts_older_attempts(busy, harness, listens, serve, monkeypatch):
    """The response has the last attempts and the open deliveries, and the number left out."""
    monkeypatch.setattr(resources, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(resources, "MAX_DELIVERIES", 0)
    whole = busy.get(f"/api/events/{busy.flow.dead}")
    assert (whole["deliveries"], whole["deliveries_left_out"]) == ([], 1)
    monkeypatch.setattr(resources, "MAX_DELIVERIES", 1)
    (delivery,) = busy.get(f"/api/events/{busy.flow.dead}")["deliveries"]
    assert [attempt["number"] for attempt in delivery["attempts"]] == [2, 3]


def test_plugins_and_handlers(busy):
    """Broken plugins with errors come first; handlers have selectors, states and names."""
    found = busy.get("/api/handlers")
    assert [(plugin["name"], plugin["state"]) for plugin in found["plugins"][:2]] == [
        ("payroll", "quarantined"),
        ("shop", "loaded"),
    ]
    assert {plugin["state"] for plugin in found["plugins"][2:]} <= {"denied"}  # plugins installed in this environment
    assert "payroll needs a table" in found["plugins"][0]["error"]
    archive, idle = found["plugins"][1]["handlers"]
    assert archive["selectors"]["process_keys"] == ["contract"]
    assert (archive["availability"], archive["paused_at"]) == ("present", None)
    assert archive["backlog"] == {"waiting": 1, "running": 0, "unknown": 0, "dead": 1, "parked": 0}
    assert idle["backlog"]["waiting"] == 0
    assert found["recent_calls"]["shop:archive"]["deliveries"] == 3
    assert busy.get("/api/handlers", q="idle")["plugins"][0]["handlers"] == [idle]
    first = busy.get("/api/handlers", limit="1")
    assert (len(first["plugins"][1]["handlers"]), first["next"]) == (1, "1")
    second = busy.get("/api/handlers", limit="1", after="1")
    assert ([handler["id"] for handler in second["plugins"][0]["handlers"]], second["next"]) == (["shop:idle"], "")


def test_parked_events_are_grouped(busy):
    """Parked events are grouped by what they wait for, with similar names."""
    found = busy.get("/api/parked")
    (group,) = found["groups"]
    assert (group["callback_class"], group["process_definition_key"]) == ("com.example.Leave", "leave")
    assert (group["events"], group["deliverable"], found["counted"], found["more"]) == (1, False, 1, False)
    assert group["oldest_event_id"] == busy.flow.events(state="parked")[0]


def test_open_and_closed_alerts(busy):
    """Open alerts, and closed ones."""
    found = busy.get("/api/alerts")["alerts"]
    assert all(alert["closed_at"] is None for alert in found)
    (mine,) = [alert for alert in found if alert["id"] == "alert NULL"]
    assert (mine["cause"], mine["subject"], mine["started_at"]) == ("parked", "leave", "1970-01-01T00:00:00.000Z")
    everything = busy.get("/api/alerts", all="true")["alerts"]
    assert mine in everything
    assert mine in busy.get("/api/alerts", all="false")["alerts"]
    (over,) = [alert for alert in everything if alert["id"] == "alert 1"]
    assert (over["notified_plugins"], over["closed_at"]) == (["p"], "1970-01-01T00:00:00.000Z")


def test_overview_figures(busy):
    """The response has the figures of the console's overview."""
    found = busy.get("/api/overview")
    assert found["counts"] == {"waiting": 1, "handler_missing": 0, "running": 0, "unknown": 0, "dead": 1, "parked": 1}
    assert found["oldest"]["dead"]["event_id"] == busy.flow.dead
    assert found["performance"][0]["success_rate"] == pytest.approx(1 / 3)
    assert found["alerts"] >= 1  # the server may have raised alerts of its own
    assert found["problems"] == []
    assert sum(found["waiting"].values()) == 1
    assert found["failing"]["circuits"] == found["failing"]["paused"] == []
    condition = {"alert": "s", "cause": "source_silent", "subject": "crm", "message": "silent"}
    condition |= {"since": "1970-01-01T00:00:00.000Z", "acknowledged_by": "ann"}
    assert condition in found["failing"]["conditions"]
    assert found["failing"]["left_out"] == 0
    assert [group["last_hour"] for group in found["failing"]["error_groups"]] == [3, 1]
    assert found["started_at"] is not None


@pytest.mark.parametrize(("word", "total"), [("events", 4), ("rejected-requests", 3), ("audit", 2)])
def test_next_pages_through_all_events(busy, word, total):
    """The pages have each event once, newest first."""
    found, query = [], {"limit": "1"}
    while True:
        page = busy.get(f"/api/{word}", **query)
        found += [entry["id"] for entry in page["entries" if word == "audit" else word.replace("-", "_")]]
        if not page["next"]:
            break
        query["after"] = page["next"]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found) == total


def test_the_audit_of_one_subject(busy):
    """The response has only entries about the subject."""
    first, second = busy.get("/api/audit")["entries"]
    assert busy.get("/api/audit", target=first["target"])["entries"] == [first] != [second]
    assert busy.get("/api/audit", target="shop:archive")["entries"] == []
    assert busy.get("/api/audit", since="2h")["entries"] == [first, second]


def test_rejected_requests_are_filtered(busy):
    """The filter has the names of the console's URLs; an invalid value is refused by name."""

    def paths(**query):
        found = busy.get(f"/api/rejected-requests?{urlencode(query)}")
        return [request["path"][:7] for request in found["rejected_requests"]]

    assert paths(status="400", source="(none)", since="2020-01-01") == ["/flow/2", "/flow/1", "/flow/0"]
    assert paths(since="2h") == ["/flow/2", "/flow/1", "/flow/0"]
    assert paths(flow="1") == paths(path="/flow/1/") == ["/flow/1"]
    assert paths(source="oa") == paths(until="2020-01-01") == paths(status="409") == []
    for name, value in (("status", "200"), ("status", "x"), ("since", "x"), ("until", "x")):
        answer = busy.ask(f"/api/rejected-requests?{name}={value}")
        assert (answer.status, name in answer.json["message"]) == (422, True)


def test_a_search_without_an_index_stops_and_continues(busy, monkeypatch):
    """The search stops after a short time, and `next` continues from there."""
    monkeypatch.setitem(search_events.__kwdefaults__, "window", 1)
    monkeypatch.setitem(search_events.__kwdefaults__, "time_budget", 0)
    page = busy.get("/api/events", key="contract")
    seen, steps = page["events"], 0
    while page["next"]:
        assert page["searched_until"] is not None
        page = busy.get("/api/events", key="contract", after=page["next"])
        seen, steps = seen + page["events"], steps + 1
    assert [event["flow_instance_id"] for event in seen] == ["4713", "4712", "4711"]
    assert steps >= 3


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("events?stat=dead", 400, ("no parameter stat here; the parameters are: id, q, field, flow,", "没有参数 stat")),
        ("events?State=dead", 400, ("no parameter State", "没有参数 State")),
        ("events?=dead", 400, ("no parameter ", "没有参数")),
        ("events?state=dead&state=parked", 400, ("state is given twice", "重复")),
        ("events?flow=%ff", 400, ("not percent-encoded UTF-8", "UTF-8")),
        ("events?flow=", 422, ("flow is empty", "为空")),
        ("events?flow", 422, ("flow is empty", "为空")),
        ("events?flow=%00", 422, ("NUL", "NUL")),
        ("events?flow=" + "x" * 1001, 422, ("longer than 1000", "1000")),
        ("events?state=asleep", 422, ("state must be one of: waiting,", "应为以下值之一")),
        (
            "events?dismissed_by=nobody",
            422,
            ("dismissed_by must be one of: condition, kind,", "dismissed_by 应为以下值"),
        ),
        ("events?ran_by=a%20b", 422, ("ran_by must be one of: NAME, NAME==VERSION", "ran_by 应为以下值")),
        ("events?trigger=again", 422, ("trigger must be one of: first, retry", "trigger 应为以下值")),
        ("events?attempted_since=soon", 422, ("attempted_since is not a time", "不是时间")),
        ("events?since=soon", 422, ("since is not a time", "不是时间")),
        ("events?until=0001-01-01T00:00%2B23:59", 422, ("is not a time", "不是时间")),
        ("events?since=2026-01-02&until=2026-01-01", 422, ("since must be before until", "早于")),
        ("events?limit=0", 422, ("limit must be a whole number from 1 to 200", "1 到 200")),
        ("events?limit=201", 422, ("from 1 to 200", "1 到 200")),
        ("events?limit=1.0", 422, ("from 1 to 200", "1 到 200")),
        ("events?after=yesterday", 422, ("after must be an id", "应为 ID")),
        ("events?id=4711", 422, ("id must be an id", "应为 ID")),
        ("events?" + "&".join(["id=x"] * 101), 422, ("more than 100 times", "100")),
        ("handlers?after=x", 422, ("after must be a whole number", "整数")),
        ("alerts?all=yes", 422, ("all must be true or false", "true 或 false")),
        ("alerts?state=open", 400, ("no parameter state", "没有参数 state")),
        ("events/4711", 404, ("no event and no delivery", "没有该 ID")),
        ("events/%00%ff", 404, ("no event and no delivery", "没有该 ID")),
        ("nothing", 404, ("GET /openapi.json lists", "openapi.json")),
        ("/flow/1/call-back/complete", 404, ("administration listener", "管理监听地址")),
        ("/in/oa/", 404, ("administration listener", "管理监听地址")),
        ("errors/" + "0" * 64, 404, ("no error group with this id", "没有该 ID 的错误分组")),
        ("errors/" + "0" * 64 + "/trend", 404, ("no error group with this id", "没有该 ID 的错误分组")),
        ("events?error_group=" + "0" * 64, 404, ("no error group with this id", "没有该 ID 的错误分组")),
        ("events/export?error_group=" + "0" * 64, 404, ("no error group with this id", "没有该 ID 的错误分组")),
        ("events/4711/more", 404, ("GET /openapi.json lists", "openapi.json")),
    ],
)
@pytest.mark.sqlite
def test_invalid_parameters_are_rejected(api, document, query, status, words):
    """An invalid parameter is refused in the caller's language and the contract's form, and selects nothing."""
    for language, its in zip(("en", "zh-CN"), words, strict=True):
        path = query if query.startswith("/") else f"/api/{query}"
        answer = api.ask(path, Accept_Language=language)
        assert answer.status == status
        assert its in answer.json["message"]
        assert answer.json["errorInfo"] == {"message": answer.json["message"]}
        assert answer.headers["Cache-Control"] == "no-store"
        check(document, {"$ref": "#/components/schemas/error"}, answer.json)


@pytest.fixture
def api(harness, serve):
    """An API with one event behind it."""
    flow = harness.open(start=False)
    flow.take("1", wait=0)
    return serve(flow)


@pytest.mark.sqlite
def test_allowed_methods(api):
    """HEAD is GET without a body; any other method is 405 with the allowed ones."""
    plan = bulk.plan_operation(api.flow.app.operation_context, BulkAction.CLOSE, EventFilter())
    for resource in RESOURCES:
        path = path_of(resource, api.flow.events()[0], operation_id=plan.id)
        head, get = api.ask(path, method="HEAD"), api.ask(path)
        assert (head.status, head.body) == (404 if re.search("/(errors|handlers)/", path) else 200, b"")
        assert abs(int(head.headers["Content-Length"]) - len(get.body)) < 10  # the overview contains the time
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = api.ask(path, method=method, body=b"", Authorization=f"Bearer {TOKEN}")
            assert answer.status == 405
            assert {"GET", "HEAD"} <= set(answer.headers["Allow"].split(", "))
            assert "GET" in answer.json["message"]
            assert api.ask(path, method=method, body=b"").status == 401
        assert set(api.ask(path, method="OPTIONS").headers["Allow"].split(", ")) == {"GET", "HEAD"}
    for method in ("GET", "PUT", "OPTIONS"):  # the name of an operation is no id
        answer = api.ask("/api/operations/dismiss", method=method, body=b"", Authorization=f"Bearer {TOKEN}")
        assert answer.status == (200 if method == "OPTIONS" else 405)
        assert set(answer.headers["Allow"].split(", ")) - {"OPTIONS"} == {"POST"}
    assert api.ask("/openapi.json", method="HEAD").status == 200


@pytest.mark.sqlite
@pytest.mark.parametrize("name", ["replay", "plan", "x" * 36, "%00", "%7Bnames%7D"])
def test_an_operation_that_does_not_exist_is_404(api, name):
    """A POST to an unknown name is 404 with the names that exist, in the language of the caller."""
    path, token = f"/api/operations/{name}", {"Authorization": f"Bearer {TOKEN}"}
    assert api.ask(path, method="POST", body=b"{}").status == 401
    english = api.ask(path, method="POST", body=b"{}", **token)
    chinese = api.ask(path, method="POST", body=b"{}", Accept_Language="zh", **token)
    assert (english.status, chinese.status) == (404, 404)
    for answer, start in ((english, "There is no such operation"), (chinese, "没有该操作")):
        assert answer.json["message"].startswith(start)
        assert all(known in answer.json["message"] for known in OPERATIONS)


@pytest.mark.sqlite
def test_only_host_names_of_this_machine_are_accepted(api):
    """A web site whose name resolves to this machine can read nothing; operations need a token."""
    for host in ("127.0.0.1", "localhost:9", "[::1]:8081"):
        assert api.ask("/api/events", Host=host).status == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:8081"):
        for path in ("/api/events", "/api/events/1", "/api/nothing", "/api/"):
            answer = api.ask(path, Host=host, Accept_Language="zh")
            assert answer.status == 403
            assert answer.json["errorInfo"]["message"]
    body = b'{"dry_run": true}'
    asked = {"method": "POST", "body": body, "Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}
    assert api.ask("/api/operations/reroute_parked", **asked).status == 200


@pytest.mark.sqlite
def test_a_public_listener_serves_no_data_without_a_login(harness, serve):
    """A public listener serves no data without a login."""
    api = serve(harness.open(admin="0.0.0.0:8081", insecure=True))
    answer = api.ask("/api/overview")
    assert answer.status == 403
    assert "add operators to the settings" in answer.json["message"]


@pytest.mark.sqlite
def test_an_unreadable_database_is_503(api, logged, monkeypatch):
    """The response is 503 with a Retry-After, without SQL or paths."""

    def fails():
        raise LedgerUnusable("the database cannot be read: SELECT secret FROM /var/lib")

    monkeypatch.setattr(api.flow.app.ledger, "connection", fails)
    for resource in RESOURCES:
        answer = api.ask(path_of(resource, "1"))
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "5"
        assert "SELECT" not in answer.body.decode()
    assert {record["event"] for record in logged} >= {"api_request_failed"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_cause_no_error_and_no_change(api, name):
    """Hostile values in every parameter of every path cause no 500 and no header, and do not change the ledger."""
    value = HOSTILE[name]
    for path, parameter in TAKES:
        answer = api.ask(f"{path}?{parameter}={value}") if name != "raw bytes" else raw(api, path, parameter, value)
        assert answer.status in {200, 400, 404, 422}, (path, parameter, answer.body)
        assert "pwned" not in str(answer.headers)
        assert b"Traceback" not in answer.body
    assert len(api.get("/api/events")["events"]) == 1


def raw(api, path, parameter, value):
    """The same without the client, which would not send such bytes."""
    client = falcon.testing.TestClient(create_admin(api.flow.app, TOKEN))
    answer = client.simulate_get(path, query_string=f"{parameter}={value}", headers={"Host": "127.0.0.1"})
    return Answer(answer.status_code, answer.headers, answer.content)


def test_payloads_are_returned_unchanged(harness, serve, listens):
    """A text from an engine, a plugin or an operator is returned in its member unchanged, and nowhere else."""

    def fail(event):
        raise RuntimeError(PAYLOAD.replace("%00", ""))

    fail.__doc__ = PAYLOAD
    text = PAYLOAD.replace("%00", "")
    flow = harness.open(listens(fail, process_key="k"), listens(fail, name="odd", process_key=f"{text}?"))
    body = {"businessKey": text, "processDefinitionId": text, "more": {text: [text]}}
    whole = flow.take("i1", key="k", callback_class=text, **body).event_id
    flow.take("i2", key=text, callback_class=text, **body)
    flow.sql("UPDATE deliveries SET comment = ?", text)
    flow.sql("UPDATE events SET source = ?, kind = ?", text, text)
    flow.sql("UPDATE attempts SET error = ?, traceback = ?", text, text)
    flow.sql("UPDATE error_groups SET error_type = ?, message = ?, frame = ?, handler = ?", *[text] * 4)
    error_group = flow.only(whole).error_group
    flow.sql("INSERT INTO rejected_requests VALUES ('r', 1, 1, 1, ?, ?, ?, 400, ?, ?, 'f', ?, ?)", *[text] * 7)
    flow.sql("INSERT INTO audit_log VALUES ('a', 1, ?, ?, ?, ?, ?)", *[text] * 4, json.dumps({text: text}))
    flow.app.alerts.stop(WAIT_TIMEOUT)  # a check would close an alert without a cause
    flow.sql(
        "INSERT INTO alerts (id, cause, subject, message, started_at, count, event_id, opened_at, notified) "
        "VALUES ('a', 'parked', ?, ?, 1, 1, ?, 1, ?)",
        *[text] * 3,
        json.dumps([text]),
    )
    api = serve(flow)
    answers = {}
    plan = bulk.plan_operation(api.flow.app.operation_context, BulkAction.CLOSE, EventFilter(), note=PAYLOAD)
    for resource in RESOURCES:
        answer = api.ask(path_of(resource, whole, error_group, plan.id, "p:fail"))
        assert answer.status == 200
        assert "pwned" not in str(answer.headers)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        answers[resource.path] = answer.json
    event = answers["/api/events/{id}"]
    assert (event["business_key"], event["callback_class"], event["source"]) == (text, text, text)
    assert event["data"]["more"] == {text: [text]}
    assert event["deliveries"][0]["attempts"][0]["traceback"] == text
    error = answers["/api/errors/{id}"]
    assert (error["message"], error["newest"]["attempt"]["traceback"]) == (text, text)
    assert answers["/api/rejected-requests"]["rejected_requests"][0]["path"] == text
    assert answers["/api/audit"]["entries"][0]["detail"] == {text: text}
    (alert,) = [
        alert for alert in answers["/api/alerts"]["alerts"] if alert["id"] == "a"
    ]  # the server may raise others
    assert alert["message"] == text
    assert api.get("/api/events", business_key=text)["events"][0]["id"]


@pytest.fixture(scope="module")
def names():
    """Names of query parameters, known and unknown."""
    return sorted({name for _, name in TAKES} | {"lang", "before", "x"})


@pytest.mark.sqlite
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_query_is_an_internal_error(client, names, data):
    """A query of any bytes is 200 or refused with the contract's body."""
    path = data.draw(st.sampled_from([path_of(resource, "1") for resource in RESOURCES]))
    value = st.one_of(st.text(), st.binary(), st.sampled_from(["1", "dead", "2h", "2026-01-01", *HOSTILE.values()]))
    pair = st.tuples(st.sampled_from(names) | st.text(), value)
    drawn = data.draw(st.lists(pair, max_size=6))
    encoded = [f"{quote(name, errors='replace')}={encode(value)}" for name, value in drawn]
    query = "&".join(encoded) if data.draw(st.booleans()) else data.draw(st.text(st.characters(max_codepoint=255)))
    environ = {"QUERY_STRING": query}
    answer = client.simulate_get(path, headers={"Host": "127.0.0.1"}, extras=environ)
    assert answer.status_code in {200, 400, 404, 422}
    if answer.status_code != 200:
        assert answer.json["status"] == answer.status_code


def encode(value):
    """A value in the encoding of a query."""
    return quote_from_bytes(value) if isinstance(value, bytes) else quote(value, errors="replace")


@pytest.fixture
def client(harness):
    """A client without a socket."""
    flow = harness.open(start=False)
    flow.take("1", wait=0)
    return falcon.testing.TestClient(create_admin(flow.app, TOKEN))


@pytest.fixture
def concluded(harness, serve, listens, make_plugin):
    """An API with events that were routed, parked and dismissed because of conclusions and conditions."""
    flow = harness.open(
        plugins={
            "books": make_plugin(
                listens(lambda event: None, name="book", process_key="expense", conclusion="approved"),
                listens(
                    lambda event: None,
                    name="audit",
                    process_key="expense",
                    conclusion="approved",
                    when={"/amount": {"minimum": 1000}},
                ),
                listens(lambda event: None, name="grant", process_key="leave", kind="cancel"),
            )
        }
    )
    flow.take("approved", key="expense", conclusion="approved", amount=10)
    flow.take("rejected", key="expense", conclusion="rejected")
    flow.take("silent", key="expense")
    flow.take("left", key="leave")
    return serve(flow)


def test_events_are_filtered_by_conclusion_and_dismissal(concluded):
    """Events are found by their conclusion and by the reason of their dismissal."""
    for query, instances in (
        ({"conclusion": "approved"}, {"approved"}),
        ({"conclusion": "Approved"}, set()),
        ({"dismissed_by": "condition"}, {"rejected"}),
        ({"dismissed_by": "kind"}, {"left"}),
        ({"dismissed_by": "operator"}, set()),
        ({"dismissed_by": "condition", "conclusion": "approved"}, set()),
    ):
        found = concluded.get("/api/events", **query)
        assert {event["flow_instance_id"] for event in found["events"]} == instances, query


def test_why_an_event_is_parked_or_dismissed(concluded):
    """The response has the reason, the conclusion, and why handlers of its class or key do not match."""
    (event,) = concluded.get("/api/events", flow="rejected")["events"]
    assert (event["state"], event["dismissed_by"], event["conclusion"]) == ("dismissed", "condition", "rejected")
    why = "conclusion 'rejected' is not one of approved"
    whole = concluded.get(f"/api/events/{event['id']}")
    assert whole["no_match"] == {"reasons": {"books:book": why, "books:audit": why}, "total": 2}
    (event,) = concluded.get("/api/events", flow="silent")["events"]
    assert (event["state"], event["parked_by"], event["conclusion"]) == ("parked", "condition", None)
    (group,) = concluded.get("/api/parked")["groups"]
    assert (group["conclusion"], group["undecided"], group["by_data"]) == (None, "conclusion", True)


def test_an_event_is_explained_with_the_current_routes(concluded, document):
    """The response has each candidate with its conditions as true, false or undecided; nothing changes."""
    found = {}
    for event in concluded.get("/api/events")["events"]:
        answer = concluded.get(f"/api/events/{event['id']}/explanation")
        check(document, answered(document, "/api/events/{id}/explanation"), answer)
        found[event["flow_instance_id"]] = answer
    assert (found["approved"]["state"], list(found["approved"]["handlers"])) == ("routed", ["books:book"])
    book, audit = found["approved"]["candidates"]
    assert (book["matched"], audit["matched"], audit["undecided"]) == (True, False, False)
    assert [(condition["member"], condition["holds"]) for condition in audit["conditions"]] == [
        ("conclusion", True),
        ("/amount", False),
    ]
    assert (found["silent"]["parked_by"], found["silent"]["undecided"]) == ("condition", "conclusion")
    assert [candidate["undecided"] for candidate in found["silent"]["candidates"]] == [True, True]
    assert (found["rejected"]["dismissed_by"], found["rejected"]["unknown_conclusion"]) == ("condition", True)
    assert (found["left"]["dismissed_by"], found["left"]["candidates"][0]["conditions"]) == ("kind", [])
    assert concluded.ask("/api/events/019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11/explanation").status == 404


def test_reroute_to_a_single_handler(concluded):
    """Only that handler gets deliveries; an unknown handler is 404."""

    def rerouted(handler):
        body = {"event_filter": {"dismissed_by": "condition"}, "handler": handler, "dry_run": True}
        return concluded.ask(
            "/api/operations/reroute",
            method="POST",
            body=json.dumps(body).encode(),
            Authorization=f"Bearer {TOKEN}",
        )

    assert (rerouted("books:book").json["events"], rerouted("books:book").json["skipped"]) == (1, 1)
    assert rerouted("books:nobody").status == 404


def test_routing_with_handlers_of_a_newer_version_is_503(concluded, monkeypatch):
    """With handlers of a newer version, routes and operations that route are 503; a command shows their ids."""
    app, token = concluded.flow.app, "robot-token-0123456789abcdefghij"
    robot = OperatorSettings(role="operate", token_sha256=(hashlib.sha256(token.encode()).hexdigest(),))
    app._live.change_settings(replace(app.settings, operators={"robot": robot}))
    monkeypatch.setattr(app.router, "unreadable_handlers", ("books:later",))
    operations = {"reroute": b'{"event_filter": {"state": "parked"}}', "reroute_parked": b"{}"}
    gets = (f"/api/events/{concluded.flow.events()[0]}/explanation", "/api/parked")
    answers = [concluded.ask(path, Authorization=f"Bearer {token}") for path in gets]
    for name, body in operations.items():
        given = {"method": "POST", "body": body}
        answers.append(concluded.ask(f"/api/operations/{name}", Authorization=f"Bearer {token}", **given))
        of_command = concluded.ask(f"/api/operations/{name}", Authorization=f"Bearer {TOKEN}", **given)
        assert (of_command.status, "books:later" in of_command.json["message"]) == (422, True)
    for answer in answers:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "newer" in answer.json["message"]


def test_engines_and_sources(harness, serve, document):
    """Engines, the book of an instance, coverage and sources are as published, and without secrets."""
    harness.check_at_end = False
    engine = EngineSettings(client="flowable", url="http://oa", password=Secret(env="OA_PASSWORD"))
    flow = harness.open(
        plugins={"p": engine_plugin()},
        environ={"OA_PASSWORD": "pa55word of the engine"},
        start=False,
        sources={
            "oa": Source(token_sha256=("5" * 64,), engine=engine),
            "hr": Source(engine=engine),
            "mapped": Source(token_sha256=("6" * 64,)),
        },
    )
    engine_ledger.position(flow, "oa", definitions=engine_ledger.definitions(("leave", 3)), skew=1_500_000)
    event_id = engine_ledger.taken_in(flow, "oa", "4711")
    engine_ledger.instance(flow, "oa", "4711", event_id=event_id)
    engine_ledger.late_callback(flow, event_id)
    api = serve(flow)
    for path in ("/api/engines", "/api/engines/instances/{id}", "/api/coverage", "/api/sources"):
        check(document, answered(document, path), api.get(path.replace("{id}", "4711")))
    never, asked = api.get("/api/engines")["engines"]
    assert (asked["source"], asked["state"], asked["skew_seconds"], asked["missed"]) == ("oa", "up_to_date", 1.5, 0)
    assert (never["source"], never["state"], never["position_at"]) == ("hr", "never_asked", None)
    instance = api.get("/api/engines/instances/4711")
    assert (instance["book"][0]["event_id"], instance["events"][0]["id"]) == (event_id, event_id)
    assert instance["late_callbacks"][event_id][0]["body"] == '{"conclusion": "approved"}'
    engine_ledger.instance(flow, "oa", "a/b%2Fc")
    (entry,) = api.get(f"/api/engines/instances/{quote('a/b%2Fc', safe='')}")["book"]
    assert entry["flow_instance_id"] == "a/b%2Fc"
    found = api.get("/api/coverage")
    assert ([definition["key"] for definition in found["definitions"]], found["unread"]) == (
        ["leave"], [{"source": "hr", "error": ""}],
    )  # fmt: skip
    assert api.get("/api/coverage", source="hr")["definitions"] == []
    for name in ("typo", "mapped"):
        answer = api.ask(f"/api/coverage?source={name}")
        assert (answer.status, answer.json["message"]) == (404, "There is no source with this name and an engine.")
    (source,) = api.get("/api/sources", name="oa")["sources"]
    assert (source["pull_only"], source["missed"], source["engine"]["source"]) == (False, 0, "oa")
    assert source["settings"]["engine.password"] == "env OA_PASSWORD"
    assert "5" * 64 not in json.dumps(source)
    assert [source["name"] for source in api.get("/api/sources")["sources"]] == ["hr", "mapped", "oa"]


def test_ignored_requests(harness, serve, document):
    """The fixed URL of a source, and its ignored requests by rule; a long body is cut."""
    mapped = IngressSettings(format="json", flow_instance_id=("/id",))
    flow = harness.open(
        start=False,
        sources={"oa": Source(token_sha256=("5" * 64,), ingress=mapped), "hr": Source(token_sha256=("6" * 64,))},
    )
    ingress.ignore(flow, "/status = 1", source="oa", body="x" * 5000, media_type="application/json", times=3)
    api = serve(flow)
    listed = api.get("/api/sources")
    check(document, answered(document, "/api/sources"), listed)
    hr, oa = listed["sources"]
    assert (hr["fixed_url"], hr["ignored"]) == (None, [])
    assert oa["fixed_url"] == {"path": "/in/oa", "format": "json", "receiver": None}
    (rule,) = oa["ignored"]
    assert (rule["rule"], rule["requests"], rule["media_type"]) == ("/status = 1", 3, "application/json")
    assert (len(rule["body"]), rule["body_truncated"]) == (4096, True)


def test_an_event_of_a_fixed_url(harness, serve, document):
    """It is found by its origin and its trace, and has its request as received."""
    flow = harness.open(start=False)
    ingress.take(flow, "i1", raw="id=i1", media_type="text/odd", wait=0)
    flow.take("called", wait=0)
    api = serve(flow)
    for query in ({"origin": "ingress"}, {"trace_id": ingress.TRACEPARENT[3:35]}):
        (event,) = api.get("/api/events", **query)["events"]
        assert (event["flow_instance_id"], event["origin"]) == ("i1", "ingress")
    whole = api.get(f"/api/events/{event['id']}")
    check(document, answered(document, "/api/events/{id}"), whole)
    assert (whole["raw_body"], whole["media_type"], whole["traceparent"]) == ("id=i1", "text/odd", ingress.TRACEPARENT)
    answer = api.ask("/api/events?trace_id=x")
    assert (answer.status, "32 hexadecimal digits" in answer.body.decode()) == (422, True)


def test_error_groups_and_their_events(busy):
    """Groups of failed attempts are listed and shown; events are found by the error of a last attempt."""
    listed = busy.get("/api/errors")
    assert listed["next"] == ""
    assert {(error["handler"], error["type"]) for error in listed["errors"]} >= {("shop:archive", "Reject")}
    for error in listed["errors"]:
        assert busy.get("/api/errors", handler=error["handler"], limit=1)["errors"][0]["handler"] == error["handler"]
        whole = busy.get(f"/api/errors/{error['id'][:8]}")
        assert {name: whole[name] for name in error} == error
        found = busy.get("/api/events", error_group=error["id"])["events"]
        assert len(found) == sum(error["open"].values())
        for event in found:
            assert error["id"] in {delivery["error_group"] for delivery in event["deliveries"]}
    assert busy.get("/api/errors", limit=1)["next"] == "1"
    assert busy.get("/api/errors", since="2999-01-01") == {"errors": [], "next": ""}
    assert busy.get("/api/errors", since="2h") == listed
    assert busy.ask(f"/api/errors/{'0' * 64}").status == 404
    assert busy.ask(f"/api/events?error_group={'0' * 64}").status == 404
    assert busy.ask("/api/events?error_group=x").status == 422
    assert busy.ask("/api/errors?after=-1").status == 422
