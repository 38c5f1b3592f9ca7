"""flowhooks-camunda with a stand-in for the engine's REST API, which also answers as no real engine can be made to."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import flowhooks_camunda
import pytest
from flowhooks_camunda import definitions, ends, rest
from flowhooks_camunda.client import CamundaClient
from flowhooks_camunda.times import format_time
from flowhooks_camunda.variables import TOO_LARGE

from flowhooks import EndState, EngineConfig, EngineError, FinishedInstance, InstanceStatus
from flowhooks.model.engine import MAX_VARIABLES_BYTES
from flowhooks.testing import EngineClientContract, EngineDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flowhooks import EngineClient

TIMES = ("2026-01-31T09:30:00.000+0000", "2026-01-31T09:30:00.001+0000")
EVENTS = {EndState.COMPLETED: "noneEndEvent", EndState.ERROR: "errorEndEvent", EndState.TERMINATED: "terminateEndEvent"}


@dataclass
class StandIn:
    """The history of an engine, and the part of its REST API that the client uses.

    Attributes:
        instances: the rows of process instances, by id.
        activities: the rows of activity instances.
        variables: the rows of variables.
        definitions: the rows of process definitions.
        asked: the requests that were received, as (path, query with body).
        hides: paths that answer with an empty list.
        diagrams: the XML of process definitions, by id. Other definitions have a diagram without properties.
        statuses: the statuses of paths that are not answered with 200.
        pads: the number of blanks after each answer.
        date: the header `Date`; None: the time of this machine.
    """

    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    activities: list[dict[str, Any]] = field(default_factory=list)
    variables: list[dict[str, Any]] = field(default_factory=list)
    definitions: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    hides: set[str] = field(default_factory=set)
    diagrams: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    pads: dict[str, int] = field(default_factory=dict)
    date: str | None = None
    version: str = "7.24.0"
    made: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/engine-rest"

    def answer(self, path: str, query: dict[str, Any]) -> Any:
        """Answer a request as the engine does."""
        self.asked.append((path, query))
        if path == "version":
            return {"version": self.version}
        if path in self.hides:
            return []
        if path.endswith("/xml"):
            definition_id = unquote(path.split("/")[1])
            return {"id": definition_id, "bpmn20Xml": self.diagrams.get(definition_id, "<definitions/>")}
        read: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
            "history/process-instance": self._finished,
            "history/activity-instance": self._activities,
            "history/variable-instance": self._variables,
            "process-definition": lambda _: self.definitions,
            "process-instance": lambda _: [row for row in self.instances.values() if row["endTime"] is None],
            "variable-instance": lambda _: self.variables,
        }
        found = read[path](query)
        first = int(query.get("firstResult", 0))
        return found[first : first + int(query["maxResults"])]

    def _finished(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = [row for row in self.instances.values() if row["id"] in query.get("processInstanceIds", self.instances)]
        if "finished" in query:
            assert query["sorting"] == [
                {"sortBy": "endTime", "sortOrder": "asc"},
                {"sortBy": "instanceId", "sortOrder": "asc"},
            ]
            found = [row for row in found if row["endTime"] is not None and _between(row, query)]
            found.sort(key=lambda row: (_time(row), row["id"]))
        tenants = query.get("tenantIdIn")
        return [row for row in found if tenants is None or row["tenantId"] in tenants]

    def _activities(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            row
            for row in self.activities
            if row["processInstanceId"] == query.get("processInstanceId", row["processInstanceId"])
            and row["completeScope"] >= query.get("completeScope", False)
            and row["canceled"] >= query.get("canceled", False)
            and _between(row, query)
        ]

    def _variables(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            row
            for row in self.variables
            if row["processInstanceId"] in query.get("processInstanceIdIn", [row["processInstanceId"]])
            and row["activityInstanceId"] in query.get("activityInstanceIdIn", [row["activityInstanceId"]])
            and row["name"] in query.get("variableNameIn", [row["name"]])
        ]

    def start(self, **members: Any) -> str:
        """Start an instance."""
        self.made += 1
        instance_id = f"instance-{self.made:04d}"
        self.instances[instance_id] = {
            "id": instance_id,
            "businessKey": None,
            "processDefinitionId": "expense:2:17",
            "processDefinitionKey": "expense",
            "processDefinitionVersion": 2,
            "startTime": format_time(datetime.now(UTC)),
            "endTime": None,
            "state": "ACTIVE",
            "superProcessInstanceId": None,
            "tenantId": None,
        } | members
        return instance_id

    def end(
        self, instance_id: str, state: str = "COMPLETED", *activities: dict[str, Any], at: datetime | None = None
    ) -> datetime:
        """End an instance whose history has these activities."""
        time = format_time(at or datetime.now(UTC))
        self.instances[instance_id] |= {"endTime": time, "state": state}
        for activity in activities:
            given = {"parentActivityInstanceId": instance_id, "endTime": time} | activity
            self.activities.append({"processInstanceId": instance_id} | given)
        return datetime.fromisoformat(time)

    def set(self, instance_id: str, name: str, value: Any, kind: str = "", **members: Any) -> None:
        """Set a variable."""
        row = {"name": name, "value": value, "type": kind, "processInstanceId": instance_id, "valueInfo": {}}
        self.variables.append(row | {"activityInstanceId": instance_id} | members)


def activity(kind: str = "noneEndEvent", name: str = "end", **members: Any) -> dict[str, Any]:
    """The row of an activity that completed its scope."""
    made = {"id": f"{name}:1", "activityId": name, "activityType": kind, "canceled": False, "completeScope": True}
    return made | members


def _time(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["endTime"])


def _between(row: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    after, before = query.get("finishedAfter"), query.get("finishedBefore")
    return (after is None or _time(row) >= datetime.fromisoformat(after)) and (
        before is None or _time(row) <= datetime.fromisoformat(before)
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that listens on this machine."""
    yield from listen(monkeypatch)


def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Start a stand-in."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    delivery_status = StandIn()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            path = address.path.removeprefix("/engine-rest/")
            answer = json.dumps(delivery_status.answer(path, query | (json.loads(body) if body else {}))).encode()
            answer += b" " * delivery_status.pads.get(path, 0)
            self.send_response_only(delivery_status.statuses.get(path, 200))
            self.send_header("Date", self.date_time_string() if delivery_status.date is None else delivery_status.date)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's own name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        delivery_status.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield delivery_status
        server.shutdown()
        thread.join()


class StandInDriver(EngineDriver):
    """Drives the stand-in for the suite."""

    def __init__(self, delivery_status: StandIn) -> None:
        self.delivery_status = delivery_status
        delivery_status.definitions = [
            {"key": "expense", "version": 2, "name": None, "tenantId": None},
            {"key": "expense", "version": 1, "name": "Expense", "tenantId": "north"},
        ]

    def client(self, config: EngineConfig) -> EngineClient:
        """A client of the stand-in."""
        return CamundaClient(config)

    def config(self) -> EngineConfig:
        """The address."""
        return EngineConfig(source="oa", url=self.delivery_status.url)

    def start(
        self,
        *,
        business_key: str | None = None,
        variables: Mapping[str, Any] | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start an instance."""
        instance_id = self.delivery_status.start(businessKey=business_key, tenantId=tenant_id)
        for name, value in (variables or {}).items():
            is_json = isinstance(value, dict | list)
            self.delivery_status.set(
                instance_id, name, json.dumps(value) if is_json else value, "Json" if is_json else ""
            )
        return instance_id

    def end(self, instance_id: str, end_state: EndState, at: datetime | None = None) -> str | None:
        """End an instance, and its parent."""
        if end_state is EndState.CANCELLED:
            self.delivery_status.end(instance_id, "EXTERNALLY_TERMINATED", at=at)
            return None
        self.delivery_status.end(instance_id, "COMPLETED", activity(EVENTS[end_state], f"end_{end_state}"), at=at)
        if parent := self.delivery_status.instances[instance_id]["superProcessInstanceId"]:
            self.end(parent, EndState.COMPLETED)
        return f"end_{end_state}"

    def definition(self) -> tuple[str, int]:
        """The definition without a tenant."""
        return "expense", 2

    def end_together(self, instance_ids: Sequence[str]) -> None:
        """End instances with one end time."""
        now = datetime.now(UTC)
        for instance_id in instance_ids:
            self.end(instance_id, EndState.COMPLETED, at=now)

    def start_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start a parent and its child."""
        parent, child = self.start(variables=variables), self.start()
        self.delivery_status.instances[child]["superProcessInstanceId"] = parent
        return parent, child

    def start_copying_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start a parent and its child, both with the same variables."""
        parent, child = self.start(variables=variables), self.start(variables=variables)
        self.delivery_status.instances[child]["superProcessInstanceId"] = parent
        return parent, child

    def delete_history(self, instance_id: str) -> None:
        """Delete an instance."""
        del self.delivery_status.instances[instance_id]

    def deploy_many(self, count: int) -> list[str]:
        """Deploy definitions."""
        keys = [f"many_{number}" for number in range(count)]
        self.delivery_status.definitions += [{"key": key, "version": 1, "name": None, "tenantId": None} for key in keys]
        return keys


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineDriver]:
    """The stand-in for the whole suite."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for delivery_status in listen(monkeypatch):
            yield StandInDriver(delivery_status)


class TestCamundaClient(EngineClientContract):
    """The client passes the suite with the stand-in; tests/engines runs the suite with real engines."""


def client_of(delivery_status: StandIn, **changes: Any) -> CamundaClient:
    """A client of the stand-in."""
    return CamundaClient(EngineConfig(source="oa", url=delivery_status.url, **changes))


def read(delivery_status: StandIn, instance_id: str, **changes: Any) -> FinishedInstance:
    """An instance that has ended."""
    with closing(client_of(delivery_status, **changes)) as client:
        instance = client.instance(instance_id)
    assert isinstance(instance, FinishedInstance)
    return instance


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces the module as the plugin `camunda`, with a client of the same name."""
    (entry_point,) = (point for point in entry_points(group="flowhooks") if point.name == "camunda")
    assert entry_point.load() is flowhooks_camunda
    assert flowhooks_camunda.engine_clients() == {"camunda": CamundaClient}


@pytest.mark.parametrize(
    ("activities", "state", "event"),
    [
        ([activity()], EndState.COMPLETED, "end"),
        ([activity("messageEndEvent")], EndState.COMPLETED, "end"),
        ([activity("errorEndEvent")], EndState.ERROR, "end"),
        ([activity("terminateEndEvent"), activity(name="other")], EndState.TERMINATED, "end"),
        ([activity("errorEndEvent"), activity(name="other")], EndState.UNDECIDED, None),
        ([activity(), activity(name="other")], EndState.COMPLETED, None),
        ([activity("task")], EndState.UNDECIDED, None),
        ([activity("serviceTask"), activity(name="other")], EndState.UNDECIDED, None),
        ([], EndState.UNDECIDED, None),
        ([activity("subProcess", "sub"), activity(parentActivityInstanceId="sub:1")], EndState.COMPLETED, "end"),
        (
            [activity("subProcess", "sub"), activity("errorEndEvent", parentActivityInstanceId="sub:1")],
            EndState.ERROR,
            "end",
        ),
        ([activity("subProcess", "sub")], EndState.UNDECIDED, None),
        (
            [
                activity("subProcess", "sub"),
                activity(parentActivityInstanceId="sub:1"),
                activity("serviceTask", "failed", parentActivityInstanceId="sub:1"),
            ],
            EndState.UNDECIDED,
            None,
        ),
        (
            [
                activity("subProcess", "sub"),
                activity(parentActivityInstanceId="sub:1"),
                activity("subProcess", "inner", parentActivityInstanceId="sub:1"),
                activity("errorEndEvent", "refused", parentActivityInstanceId="inner:1"),
            ],
            EndState.UNDECIDED,
            None,
        ),
        (
            [
                activity("subProcess", "sub"),
                activity("subProcess", "inner", parentActivityInstanceId="sub:1"),
                activity(parentActivityInstanceId="inner:1"),
            ],
            EndState.COMPLETED,
            "end",
        ),
        (
            [activity("subProcess", "sub"), activity("subProcess", "sub", parentActivityInstanceId="sub:1")],
            EndState.UNDECIDED,
            None,
        ),
        ([activity(parentActivityInstanceId="sub:1")], EndState.UNDECIDED, None),
    ],
)
def test_the_activity_history_decides_the_end_state(
    stand_in: StandIn, activities: list[dict[str, Any]], state: EndState, event: str | None
) -> None:
    """Alone and on a page of two, an instance ends as its last activities tell."""
    ids = [stand_in.start(), stand_in.start()]
    times = [stand_in.end(instance_id, "COMPLETED", *activities) for instance_id in ids]
    single = read(stand_in, ids[0], conclusion_from="end_event")
    assert (single.end_state, single.conclusion) == (state, event)
    with closing(client_of(stand_in, conclusion_from="end_event")) as client:
        instances = client.finished(times[0], times[1]).instances
    assert [(instance.end_state, instance.conclusion) for instance in instances] == [(state, event)] * 2


@pytest.mark.parametrize(
    ("activities", "state"),
    [
        ([], EndState.CANCELLED),
        ([activity("userTask", canceled=True, completeScope=False)], EndState.CANCELLED),
        ([activity("errorEndEvent", canceled=True, completeScope=False)], EndState.ERROR),
        ([activity("escalationEndEvent", canceled=True, completeScope=False)], EndState.UNDECIDED),
        # An event sub-process caught the error, and the caller ended the instance later.
        (
            [
                activity("errorEndEvent", canceled=True, completeScope=False, endTime=TIMES[0]),
                activity("subProcess", "sub", canceled=True, completeScope=False, startTime=TIMES[0]),
            ],
            EndState.UNDECIDED,
        ),
        # A sub-process began before the error, which ended it.
        (
            [
                activity("errorEndEvent", canceled=True, completeScope=False, endTime=TIMES[1]),
                activity("subProcess", "sub", canceled=True, completeScope=False, startTime=TIMES[0]),
            ],
            EndState.ERROR,
        ),
        # An error of a sub-process: a boundary event may have caught it, or the caller.
        (
            [
                activity("subProcess", "sub", canceled=True, completeScope=False),
                activity("errorEndEvent", canceled=True, completeScope=False, parentActivityInstanceId="sub:1"),
            ],
            EndState.UNDECIDED,
        ),
    ],
)
def test_a_called_instance_ended_by_its_parent(
    stand_in: StandIn, activities: list[dict[str, Any]], state: EndState
) -> None:
    """A called instance is cancelled by its parent, unless it threw the error itself."""
    instance_id = stand_in.start()
    stand_in.end(instance_id, "INTERNALLY_TERMINATED", *activities)
    assert read(stand_in, instance_id).end_state is state


def test_an_end_event_long_before_the_end_is_found(stand_in: StandIn) -> None:
    """An instance whose end event is not in the window of the page is asked about alone."""
    now = datetime.now(UTC)
    early = activity(endTime=format_time(now - timedelta(hours=1)))
    ids = [stand_in.start(startTime=format_time(now - timedelta(hours=2))) for _ in range(2)]
    end = stand_in.end(ids[0], "COMPLETED", early, at=now)
    stand_in.end(ids[1], "COMPLETED", activity(), at=now)
    with closing(client_of(stand_in)) as client:
        page = client.finished(end, end)
    assert [instance.end_state for instance in page.instances] == [EndState.COMPLETED] * 2
    assert sum(path == "history/activity-instance" for path, _ in stand_in.asked) == 2


def test_an_empty_window_decides_no_instance(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window in the engine's local time can be empty: then each instance is asked about alone."""
    answer = StandIn.answer

    def hide_windows(self: StandIn, path: str, query: dict[str, Any]) -> Any:
        found = answer(self, path, query)
        return [] if path == "history/activity-instance" and "finishedAfter" in query else found

    monkeypatch.setattr(StandIn, "answer", hide_windows)
    ids = [stand_in.start(), stand_in.start()]
    times = [stand_in.end(instance_id, "COMPLETED", activity()) for instance_id in ids]
    with closing(client_of(stand_in)) as client:
        page = client.finished(times[0], times[1])
    assert [instance.end_state for instance in page.instances] == [EndState.COMPLETED] * 2


@pytest.mark.parametrize("early", ["errorEndEvent", "serviceTask"])
def test_an_earlier_activity_of_another_branch_counts(stand_in: StandIn, early: str) -> None:
    """On a page, too: an instance that started before the window of the page is asked about alone."""
    now = datetime.now(UTC)
    for _ in range(2):
        instance_id = stand_in.start(startTime=format_time(now - timedelta(hours=2)))
        failed = activity(early, "early", endTime=format_time(now - timedelta(hours=1)))
        stand_in.end(instance_id, "COMPLETED", failed, activity(), at=now)
    short = [stand_in.start(startTime=format_time(now - timedelta(seconds=5))) for _ in range(3)]
    for instance_id in short:
        end = stand_in.end(instance_id, "COMPLETED", activity(), at=now)
    assert read(stand_in, "instance-0001").end_state is EndState.UNDECIDED
    stand_in.asked.clear()
    with closing(client_of(stand_in)) as client:
        page = client.finished(end, end)
    assert [instance.end_state for instance in page.instances] == [EndState.UNDECIDED] * 2 + [EndState.COMPLETED] * 3
    assert sum(path == "history/activity-instance" for path, _ in stand_in.asked) == 3


def test_a_slow_engine_shortens_the_pages(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time for a page is used up, it ends before the next instance that needs a request of its own."""
    monkeypatch.setattr("flowhooks_camunda.client.PAGE_TIME_FACTOR", 0)
    now = datetime.now(UTC)
    begun = [now - timedelta(hours=2)] * 3 + [now] * 3
    ids = [stand_in.start(startTime=format_time(time)) for time in begun]
    for instance_id in ids:
        end = stand_in.end(instance_id, "COMPLETED", activity(), at=now)
    stand_in.end(ids[1], "INTERNALLY_TERMINATED", at=now)
    with closing(client_of(stand_in)) as client:
        page = client.finished(end, end)
        pages = [[instance.id for instance in page.instances]]
        while page.cursor is not None:
            page = client.finished(end, end, page.cursor)
            pages.append([instance.id for instance in page.instances])
    assert pages == [ids[:1], ids[1:2], ids[2:]]


def test_an_instance_with_truncated_activities_is_undecided(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An activity that is missing could be an error. A terminate end event is the last one, so it is not missing."""
    monkeypatch.setattr(ends, "MAX_ROWS", 2)
    states = []
    for kind in ("noneEndEvent", "terminateEndEvent"):
        instance_id = stand_in.start()
        stand_in.end(instance_id, "COMPLETED", activity(kind), activity(name="other"), activity("errorEndEvent", "bad"))
        states.append(read(stand_in, instance_id).end_state)
    assert states == [EndState.UNDECIDED, EndState.TERMINATED]


def test_too_many_activities_are_read_in_parts(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an answer may be cut, no instance is decided by it: here it would have the normal end only."""
    monkeypatch.setattr(ends, "MAX_ROWS", 5)
    now = datetime.now(UTC)
    for at in (now - timedelta(minutes=1), now):
        for _ in range(2):
            instance_id = stand_in.start(startTime=format_time(at))
            stand_in.end(instance_id, "COMPLETED", activity(), activity("errorEndEvent", "error"), at=at)
    with closing(client_of(stand_in)) as client:
        page = client.finished(now - timedelta(minutes=2), now)
        assert [instance.end_state for instance in page.instances] == [EndState.UNDECIDED] * 4
        assert sum(path == "history/activity-instance" for path, _ in stand_in.asked) == 3
        stand_in.asked.clear()
        monkeypatch.setattr("flowhooks_camunda.client.PAGE_TIME_FACTOR", 0)
        page = client.finished(now - timedelta(minutes=2), now)
    assert [instance.id for instance in page.instances] == ["instance-0001"]
    assert sum(path == "history/activity-instance" for path, _ in stand_in.asked) == 2


def test_a_burst_of_ended_activities_is_read_by_instance(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activities that all ended within seconds are not read in parts: each part would be cut, too."""
    monkeypatch.setattr(ends, "MAX_ROWS", 3)
    now = datetime.now(UTC)
    for _ in range(5):
        stand_in.end(stand_in.start(), "COMPLETED", activity(), at=now)
    with closing(client_of(stand_in)) as client:
        page = client.finished(now - timedelta(seconds=1), now)
    assert [instance.end_state for instance in page.instances] == [EndState.COMPLETED] * 5
    assert sum(path == "history/activity-instance" for path, _ in stand_in.asked) == 6


def test_rows_that_appear_in_the_same_millisecond_are_found(stand_in: StandIn) -> None:
    """A slow transaction adds an instance before the last one that was read: that millisecond is read again."""
    now = datetime.now(UTC)
    ids = [stand_in.start() for _ in range(5)]
    for instance_id in ids[1:]:
        stand_in.end(instance_id, "COMPLETED", activity(), at=now)
    with closing(client_of(stand_in, page_size=2)) as client:
        page = client.finished(now - timedelta(seconds=1), now)
        stand_in.end(ids[0], "COMPLETED", activity(), at=now)
        found = {instance.id for instance in page.instances}
        while page.cursor is not None:
            page = client.finished(now - timedelta(seconds=1), now, page.cursor)
            found |= {instance.id for instance in page.instances}
    assert found == set(ids)


@pytest.mark.parametrize(("version", "expected"), [("7", 7), ("9" * 5000, None)])
def test_the_version_of_a_deleted_definition_is_in_its_id(
    stand_in: StandIn, version: str, expected: int | None
) -> None:
    """The engine then gives no version. A version with too many digits is none."""
    instance_id = stand_in.start(processDefinitionVersion=None, processDefinitionId=f"expense:{version}:abc")
    stand_in.end(instance_id, "COMPLETED", activity())
    assert read(stand_in, instance_id).process_definition_version == expected


def test_each_type_of_variable(stand_in: StandIn) -> None:
    """JSON is parsed; files, bytes and serialized Java objects are left out; local variables are not read."""
    instance_id = stand_in.start()
    json_object = {"objectTypeName": "Order", "serializationDataFormat": "application/json"}
    java_object = {"objectTypeName": "Order", "serializationDataFormat": "application/x-java-serialized-object"}
    stand_in.set(instance_id, "json", '{"a": [1]}', "Json")
    stand_in.set(instance_id, "object", '{"b": 2}', "Object", valueInfo=json_object)
    stand_in.set(instance_id, "java", "rO0AB", "Object", valueInfo=java_object)
    stand_in.set(instance_id, "broken", "{", "Json")
    stand_in.set(instance_id, "file", None, "File")
    stand_in.set(instance_id, "date", "2026-01-31T09:30:00.000+0100", "Date")
    stand_in.set(instance_id, "local", "x", "String", activityInstanceId="task:1")
    stand_in.end(instance_id, "COMPLETED", activity())
    names = ("json", "object", "java", "broken", "file", "date", "local")
    instance = read(stand_in, instance_id, variables=names)
    assert instance.variables == {"json": {"a": [1]}, "object": {"b": 2}, "date": "2026-01-31T09:30:00.000+0100"}


DIAGRAM_PATH = "process-definition/expense%3A2%3A17/xml"


def diagram(key: str, *properties: str, prolog: str = "", namespace: str = "camunda.org") -> str:
    """A diagram whose process `key` has these properties; another process and a task have others."""
    return f"""{prolog}<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
        xmlns:x="http://{namespace}/schema/1.0/bpmn">
      <bpmn:process id="other"><bpmn:extensionElements><x:properties>
        <x:property name="callBackProcessClass" value="com.example.Other"/>
      </x:properties></bpmn:extensionElements></bpmn:process>
      <bpmn:process id="{key}"><bpmn:extensionElements><x:properties>{"".join(properties)}</x:properties>
        </bpmn:extensionElements>
        <bpmn:task><bpmn:extensionElements><x:properties>
          <x:property name="callBackProcessClass" value="com.example.Task"/>
        </x:properties></bpmn:extensionElements></bpmn:task>
      </bpmn:process></bpmn:definitions>"""


def class_property(value: str, name: str = "callBackProcessClass") -> str:
    """An extension property."""
    return f'<x:property name="{name}" value="{value}"/>'


def ended(stand_in: StandIn, **members: Any) -> str:
    """An instance that ended at an end event."""
    instance = stand_in.start(**members)
    stand_in.end(instance, "COMPLETED", activity())
    return instance


@pytest.mark.parametrize("namespace", ["camunda.org", "operaton.org"])
def test_the_class_is_an_extension_property_of_the_process(stand_in: StandIn, namespace: str) -> None:
    """Without the variable the class is that of the process, which is read once. A variable overrides it."""
    stand_in.diagrams["expense:2:17"] = diagram(
        "expense", class_property("x", "a"), class_property("com.example.Expense"), namespace=namespace
    )
    instances = [ended(stand_in) for _ in range(3)]
    stand_in.set(instances[1], "callBackProcessClass", "com.example.Special", "String")
    stand_in.set(instances[2], "callBackProcessClass", None, "Null")
    with closing(client_of(stand_in)) as client:
        found = [client.instance(instance) for instance in instances + instances[:1]]
    classes = [instance.callback_class for instance in found if isinstance(instance, FinishedInstance)]
    assert classes == ["com.example.Expense", "com.example.Special", None, "com.example.Expense"]
    assert [path for path, _ in stand_in.asked].count(DIAGRAM_PATH) == 1


def test_variables_of_a_called_instance_may_be_copies(stand_in: StandIn) -> None:
    """The class of a called instance is that of its own process, and its variables are no conclusion."""
    stand_in.diagrams["expense:2:17"] = diagram("expense", class_property("com.example.Expense"))
    called = ended(stand_in, superProcessInstanceId="instance-0815")
    other = ended(stand_in, superProcessInstanceId="instance-0815", processDefinitionId="leave:1:5")
    for instance in (called, other):
        stand_in.set(instance, "callBackProcessClass", "com.example.Caller", "String")
        stand_in.set(instance, "conclusion", "approved", "String")
    found = [read(stand_in, instance, conclusion_from="variable") for instance in (called, other)]
    assert [instance.callback_class for instance in found] == ["com.example.Expense", None]
    assert [instance.conclusion for instance in found] == [None, None]
    assert read(stand_in, called, conclusion_from="end_event").conclusion == "end"


@pytest.mark.parametrize(
    "xml",
    [
        diagram("expense", class_property("&e;"), prolog='<!DOCTYPE d [<!ENTITY e "com.example.Expense">]>'),
        diagram("expense", class_property("com.example.Expense")) + "</end>",
        diagram("expense", class_property("x" * 513)),
        diagram("expense", class_property("com.example.Expense")).replace("<bpmn:task>", "<a>" * 250),
        diagram("another", class_property("com.example.Another")),
        "not XML",
        "",
    ],
    ids=["document-type", "not-well-formed", "too-long", "too-deep", "another-process", "text", "empty"],
)
def test_an_unusable_diagram_has_no_class(stand_in: StandIn, xml: str) -> None:
    """A diagram without a usable property gives no class, and the instance is read."""
    stand_in.diagrams["expense:2:17"] = xml
    assert read(stand_in, ended(stand_in)).callback_class is None


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_refused_diagram_is_read_again_later(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A diagram that the engine does not give is no error. It is read again a minute later."""
    stand_in.diagrams["expense:2:17"] = diagram("expense", class_property("com.example.Expense"))
    instance = ended(stand_in)
    seconds = 100.0
    monkeypatch.setattr(definitions, "monotonic", lambda: seconds)
    with closing(client_of(stand_in)) as client:

        def callback_class() -> str | None:
            found = client.instance(instance)
            assert isinstance(found, FinishedInstance)
            return found.callback_class

        stand_in.statuses[DIAGRAM_PATH] = status
        assert callback_class() is None
        del stand_in.statuses[DIAGRAM_PATH]
        assert callback_class() is None
        seconds += definitions.RETRY_SECONDS
        assert callback_class() == "com.example.Expense"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "refused"), (407, "refused"), (425, "unreachable"), (503, "unreachable")]
)
def test_an_engine_that_is_not_available_gives_no_diagram(stand_in: StandIn, status: int, reason: str) -> None:
    """Errors of the connection fail the page, which is then read again: the class may be in the diagram."""
    instance = ended(stand_in)
    stand_in.statuses[DIAGRAM_PATH] = status
    with pytest.raises(EngineError) as raised:
        read(stand_in, instance)
    assert raised.value.reason == reason


def test_only_the_latest_diagrams_are_remembered(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of classes in memory is limited."""
    monkeypatch.setattr(definitions, "MAX_CACHED_DEFINITIONS", 2)
    instances = [ended(stand_in, processDefinitionId=f"expense:{number}:17") for number in range(3)]
    with closing(client_of(stand_in)) as client:
        for instance in [*instances, instances[2], instances[0]]:
            client.instance(instance)
    assert len([path for path, _ in stand_in.asked if path.endswith("/xml")]) == 4


@pytest.mark.parametrize(
    ("value", "conclusion"), [("approved", "approved"), ("", None), (True, "true"), (7, "7"), ([], None), (None, None)]
)
def test_a_conclusion_is_a_text(stand_in: StandIn, value: Any, conclusion: str | None) -> None:
    """Numbers and truth values become their JSON text; other values are no conclusion."""
    instance_id = stand_in.start()
    stand_in.set(instance_id, "conclusion", value)
    stand_in.end(instance_id, "COMPLETED", activity())
    assert read(stand_in, instance_id).conclusion == conclusion


def test_large_variables_are_read_in_parts(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the variables of a page are too large for an answer, fewer instances are asked about."""
    monkeypatch.setattr(rest, "MAX_RESPONSE_BYTES", 20_000)
    now = datetime.now(UTC)
    ids = [stand_in.start() for _ in range(4)]
    for instance_id in ids:
        stand_in.set(instance_id, "text", "x" * 8000, "String")
        stand_in.end(instance_id, "COMPLETED", activity(), at=now)
    with closing(client_of(stand_in, variables=("text",))) as client:
        page = client.finished(now - timedelta(seconds=1), now)
    assert [len(instance.variables["text"]) for instance in page.instances] == [8000] * 4


def test_one_instance_with_huge_variables(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is too large for an answer does not stop the page: its instance alone is skipped as too large."""
    monkeypatch.setattr(rest, "MAX_RESPONSE_BYTES", 20_000)
    now = datetime.now(UTC)
    ids = [stand_in.start() for _ in range(4)]
    for instance_id in ids:
        stand_in.set(instance_id, "conclusion", "approved", "String")
        stand_in.end(instance_id, "COMPLETED", activity(), at=now)
    stand_in.set(ids[2], "huge", "x" * 20_000, "String")
    with closing(client_of(stand_in, variables=("huge",))) as client:
        page = client.finished(now - timedelta(seconds=1), now)
    assert {instance.id for instance in page.instances} == set(ids)
    assert [instance.conclusion for instance in page.instances] == ["approved"] * 4
    (huge,) = (instance for instance in page.instances if instance.id == ids[2])
    assert len(huge.variables["huge"]) > MAX_VARIABLES_BYTES
    assert len(read(stand_in, ids[2], variables=("huge",)).variables["huge"]) > MAX_VARIABLES_BYTES
    conclusion = read(stand_in, ids[2], conclusion_variable="huge").conclusion
    assert conclusion is not None
    assert len(conclusion) > MAX_VARIABLES_BYTES, "without a conclusion, the wrong handlers would run"


def test_oversized_variables_do_not_fill_the_memory(stand_in: StandIn) -> None:
    """A page of instances with megabytes of variables does not fill the memory; each is skipped as too large."""
    instance_id = stand_in.start()
    stand_in.set(instance_id, "json", json.dumps("x" * 1_000_000), "Json")
    stand_in.end(instance_id, "COMPLETED", activity())
    assert read(stand_in, instance_id, variables=("json",)).variables == {"json": TOO_LARGE}
    stand_in.variables.clear()
    for name in "ab":
        stand_in.set(instance_id, name, "x" * 40_000, "String")
    values = read(stand_in, instance_id, variables=("a", "b")).variables
    assert sum(map(len, values.values())) == 40_000 + len(TOO_LARGE)


def test_more_instances_than_requested_are_an_error(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ignores the size of a page would cause a request for each of any number of instances."""
    for _ in range(3):
        stand_in.end(stand_in.start(), "COMPLETED", activity())
    answer = StandIn.answer
    monkeypatch.setattr(StandIn, "answer", lambda self, path, query: answer(self, path, query | {"maxResults": 9}))
    now = datetime.now(UTC)
    with (
        closing(client_of(stand_in, page_size=2)) as client,
        pytest.raises(EngineError, match="lists 3 rows instead of 2"),
    ):
        client.finished(now - timedelta(hours=1), now)
    assert [path for path, _ in stand_in.asked] == ["history/process-instance"]


def test_the_history_level_is_inferred(stand_in: StandIn) -> None:
    """An empty history beside running instances, or no variables in it, is a problem; an empty engine has none."""
    with closing(client_of(stand_in)) as client:
        assert client.check().problem == ""
        instance_id = stand_in.start()
        stand_in.set(instance_id, "conclusion", "x")
        assert client.check().problem == ""
        stand_in.hides = {"history/variable-instance"}
        assert "history level to audit or full" in client.check().problem
        stand_in.hides = {"history/process-instance"}
        assert "empty history" in client.check().problem


def test_a_large_row_is_a_row(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history whose first row is larger than the limit of a response is not empty."""
    monkeypatch.setattr(rest, "MAX_RESPONSE_BYTES", 10_000)
    stand_in.set(stand_in.start(), "conclusion", "x")
    stand_in.pads = {"history/variable-instance": 10_000}
    with closing(client_of(stand_in)) as client:
        assert client.check().problem == ""


@pytest.mark.parametrize(("version", "product"), [("7.24.0", "Camunda 7"), ("1.0.3", "Operaton or CIB seven")])
def test_the_version_identifies_the_product(stand_in: StandIn, version: str, product: str) -> None:
    """The version tells Camunda from its forks."""
    stand_in.version = version
    with closing(client_of(stand_in)) as client:
        info = client.check()
    assert (info.product, info.version) == (product, version)


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Nov 2026 20:01:38 GMT"])
def test_an_invalid_date_header_gives_no_engine_time(stand_in: StandIn, date: str) -> None:
    """Without a readable header `Date` the engine's time is not known."""
    stand_in.date = date
    now = datetime.now(UTC)
    with closing(client_of(stand_in)) as client:
        assert client.finished(now, now).engine_time is None


@pytest.mark.parametrize("member", ["endTime", "startTime", "processDefinitionVersion", "state", "businessKey"])
@pytest.mark.parametrize("value", [7.5, [], {}, "x", "2026-01-01T00:00:00"])
def test_members_of_a_wrong_type_are_invalid(stand_in: StandIn, member: str, value: Any) -> None:
    """An answer with a member of another type is an error that names the member; a text is right for some members."""
    instance_id = stand_in.start()
    stand_in.end(instance_id, "COMPLETED", activity())
    stand_in.instances[instance_id][member] = value
    with closing(client_of(stand_in)) as client:
        if isinstance(value, str) and member in {"state", "businessKey"}:
            assert isinstance(client.instance(instance_id), FinishedInstance)
            return
        with pytest.raises(EngineError, match=member) as caught:
            client.instance(instance_id)
    assert caught.value.reason == "invalid"


def test_an_answer_with_another_id_means_an_absent_instance(stand_in: StandIn) -> None:
    """An answer with another id, as from a cache, is not the instance."""
    other = stand_in.start()
    stand_in.instances = {"x": stand_in.instances[other]}
    with closing(client_of(stand_in)) as client:
        assert client.instance("x") is InstanceStatus.ABSENT


@pytest.mark.parametrize(
    ("changes", "match"), [({"conclusion_from": "business_status"}, "no business status"), ({"token": "ü"}, "ASCII")]
)
def test_unusable_settings_are_rejected(changes: dict[str, Any], match: str) -> None:
    """The factory refuses them, so the server does not start."""
    with pytest.raises(ValueError, match=match):
        CamundaClient(EngineConfig(source="oa", url="http://127.0.0.1:1/engine-rest", **changes))


def test_endless_pages_of_definitions_are_an_error(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ignores the offset does not keep the client busy without end."""
    stand_in.definitions = [{"key": "a", "version": 1, "name": None, "tenantId": None}]
    monkeypatch.setattr(StandIn, "answer", lambda self, path, query: self.definitions)
    monkeypatch.setattr("flowhooks_camunda.client.MAX_DEFINITION_PAGES", 3)
    with closing(client_of(stand_in, page_size=1)) as client, pytest.raises(EngineError, match="no end"):
        client.definitions()
