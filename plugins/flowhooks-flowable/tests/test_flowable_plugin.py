"""flowhooks-flowable against a server that answers like Flowable, and with hostile answers.

`tests/engines/test_flowable_history.py` runs the same suite against a real Flowable.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import flowhooks_flowable
import pytest
from flowhooks_flowable import rest_api
from flowhooks_flowable.client import FlowableClient

from flowhooks import EndState, EngineConfig, EngineError, FinishedInstance, InstanceStatus, ProcessDefinition
from flowhooks.testing import EngineClientContract, EngineDriver, HttpClientContract
from support.flowable_stand_in import (  # type: ignore[import-not-found]  # of `tests/`
    FlowableStandIn,
    Reply,
    flowable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowhooks import EngineClient

SECRET = "the-secret-of-this-test"
AT = "2026-11-27T09:00:00.{:03}Z"
SINCE = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=1)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowableStandIn]:
    """A Flowable that is none."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with flowable() as stand_in:
        yield stand_in


@pytest.fixture
def config(engine: FlowableStandIn) -> EngineConfig:
    """The settings of the stand-in."""
    return EngineConfig(source="oa", url=engine.url, username="rest", password="secret", page_size=10)


@pytest.fixture
def client(config: EngineConfig) -> Iterator[FlowableClient]:
    """A client of the stand-in, with pages of 10."""
    with closing(FlowableClient(config)) as client:
        yield client


def read(client: FlowableClient, since: datetime = SINCE, until: datetime = UNTIL) -> list[list[FinishedInstance]]:
    """All pages of a window."""
    pages, cursor = [], None
    while True:
        page = client.finished(since, until, cursor)
        pages.append(list(page.instances))
        cursor = page.cursor
        if cursor is None:
            return pages
        assert len(pages) < 1000, "the pages have no end"


def ids(pages: list[list[FinishedInstance]]) -> list[str]:
    """The ids of all pages, in order."""
    return [instance.id for page in pages for instance in page]


def failure(client: FlowableClient) -> EngineError:
    """The error of the next question."""
    with pytest.raises(EngineError) as raised:
        client.finished(SINCE, UNTIL)
    return raised.value


# The suites of flowhooks


class StandInDriver(EngineDriver):
    """Starts and ends instances of the stand-in."""

    def __init__(self, stand_in: FlowableStandIn) -> None:
        self._stand_in = stand_in
        self._seconds = 0
        self._definitions = {tenant: stand_in.define("leave", 1, tenant) for tenant in ("north", "south")}
        stand_in.define("leave", 1)
        self._definitions[""] = stand_in.define("leave", 2)

    def client(self, config: EngineConfig) -> EngineClient:
        """Return a client."""
        return FlowableClient(config)

    def config(self) -> EngineConfig:
        """Return the settings of the stand-in."""
        return EngineConfig(source="oa", url=self._stand_in.url, username="rest", password="secret")

    def start(
        self,
        *,
        business_key: str | None = None,
        variables: Mapping[str, Any] | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start an instance."""
        tenant = tenant_id or ""
        more = {"businessKey": business_key, "tenantId": tenant}
        instance: str = self._stand_in.start(self._definitions[tenant], dict(variables or {}), **more)
        return instance

    def end(self, instance_id: str, end_state: EndState) -> str | None:
        """End an instance."""
        activity, reason = {
            EndState.COMPLETED: ("approved", None),
            EndState.CANCELLED: (None, "process instance deleted"),
            EndState.ERROR: ("fraud", "ERROR_EVENT fraud"),
            EndState.TERMINATED: ("stopped", "terminate end event (stopped)"),
        }[end_state]
        self._stand_in.end(instance_id, self._next_time(), activity=activity, reason=reason)
        return activity

    def definition(self) -> tuple[str, int]:
        """Return the key and the latest version."""
        return "leave", 2

    def end_together(self, instance_ids: Sequence[str]) -> None:
        """End instances at one time."""
        time = self._next_time()
        for instance_id in instance_ids:
            self._stand_in.end(instance_id, time)

    def start_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance and another one that it calls."""
        parent = self._stand_in.start(self._definitions[""], dict(variables))
        child = self._stand_in.start(self._definitions[""], superProcessInstanceId=parent)
        self._stand_in.end(parent, self._next_time())
        return parent, child

    def start_copying_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance and another one that it calls, both with the same variables."""
        parent = self._stand_in.start(self._definitions[""], dict(variables))
        child = self._stand_in.start(self._definitions[""], dict(variables), superProcessInstanceId=parent)
        self._stand_in.end(parent, self._next_time())
        return parent, child

    def delete_history(self, instance_id: str) -> None:
        """Delete an instance."""
        self._stand_in.rows.pop(instance_id, None)

    def deploy_many(self, count: int) -> list[str]:
        """Deploy definitions."""
        keys = [f"key{number}" for number in range(count)]
        for key in keys:
            self._stand_in.define(key)
        return keys

    def _next_time(self) -> str:
        self._seconds += 1
        time = datetime(2026, 11, 27, 8, 30, tzinfo=UTC) + timedelta(milliseconds=self._seconds)
        return time.isoformat(timespec="milliseconds")


class TestContract(EngineClientContract):
    """The suite of flowhooks, against the stand-in."""

    @pytest.fixture
    def engine(self) -> Iterator[EngineDriver]:
        """A driver of a stand-in."""
        with flowable() as stand_in:
            yield StandInDriver(stand_in)


class TestOverHttp(HttpClientContract):
    """The suite of flowhooks about HTTP."""

    @pytest.fixture
    def factory(self) -> type[FlowableClient]:
        """The function that the hook offers."""
        return FlowableClient


def test_the_entry_point_names_the_plugin() -> None:
    """Its entry point names the module, which offers the client `flowable`."""
    (entry,) = (point for point in entry_points(group="flowhooks") if point.name == "flowable")
    assert entry.load() is flowhooks_flowable
    assert flowhooks_flowable.engine_clients() == {"flowable": FlowableClient}


# Settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "ftp://h/x"}, "http:// or https://"),
        ({"url": "http://"}, "http:// or https://"),
        ({"url": f"http://u:{SECRET}@h/"}, "must not contain a password"),
        ({"url": f"http://h/?k={SECRET}"}, "must not contain ?"),
        ({"url": f"http://h:{SECRET}/"}, "cannot be read"),
        ({"token": f"{SECRET}\n"}, "printable ASCII"),
        ({"username": f"a:{SECRET}"}, "colon"),
    ],
)
def test_unusable_settings_are_rejected(config: EngineConfig, change: dict[str, Any], words: str) -> None:
    """The factory refuses them, without a secret in the message."""
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        FlowableClient(replace(replace(config, username=""), **change))
    assert SECRET not in str(raised.value)


def test_a_token_is_sent(engine: FlowableStandIn, config: EngineConfig) -> None:
    """A bearer token stands in the header, and in no representation of the client."""
    engine.credential = f"Bearer {SECRET}"
    with closing(FlowableClient(replace(config, username="", password="", token=SECRET))) as client:
        assert client.check().product == "Flowable"
        assert SECRET not in repr(client)
        engine.credential = "another"
        error = failure(client)
    assert error.reason == "refused"
    assert SECRET not in f"{error!r}{error.__context__ and error.__suppress_context__}"


# Pages


def test_pages_have_each_instance_once_in_order(engine: FlowableStandIn, client: FlowableClient) -> None:
    """100 instances, some with equal end times, take at most three requests per page."""
    for number in range(100):
        engine.end(engine.start(), AT.format(number // 3))
    found = read(client)
    assert ids(found) == sorted(engine.rows)
    assert len(engine.requests) <= 3 * 100 / 10 + 2


@pytest.mark.parametrize(("count", "size"), [(10, 10), (11, 10), (20, 10), (21, 10), (3, 1), (3003, 1000)])
def test_more_instances_than_a_page_end_at_once(
    engine: FlowableStandIn, config: EngineConfig, count: int, size: int
) -> None:
    """Thousands of equal end times take one request per page, with neighbours before and after."""
    before = engine.end(engine.start(), AT.format(6))
    equal = [engine.end(engine.start(), AT.format(7)) for _ in range(count)]
    after = engine.end(engine.start(), AT.format(8))
    with closing(FlowableClient(replace(config, page_size=size))) as client:
        found = read(client)
    assert list(dict.fromkeys(ids(found))) == [before, *equal, after]
    assert max(map(len, found)) <= size
    assert len(engine.requests) <= 3 * len(engine.rows) / size + 2


@pytest.mark.parametrize("total", [True, False])
def test_exactly_one_page_of_instances(engine: FlowableStandIn, client: FlowableClient, total: bool) -> None:
    """Exactly one page of instances has no second page with results, even if the engine does not count them."""
    engine.reports_total = total
    expected = [engine.end(engine.start(), AT.format(number)) for number in range(10)]
    assert list(dict.fromkeys(ids(read(client)))) == expected


def test_a_row_that_is_deleted_before_the_rows_are_counted(engine: FlowableStandIn, client: FlowableClient) -> None:
    """A full answer is not the last one, even if the engine counts no further rows."""
    expected = [engine.end(engine.start(), AT.format(number)) for number in range(11)]
    first = [engine.rows[instance] for instance in expected[:10]]
    engine.replies.append(Reply(body=json.dumps({"data": first, "total": 10}).encode()))
    assert list(dict.fromkeys(ids(read(client)))) == expected


def test_an_engine_that_gives_fewer_rows(engine: FlowableStandIn, client: FlowableClient) -> None:
    """If the engine limits the size of its answers, the pages are smaller, and nothing is missing."""
    engine.max_rows = 3
    expected = [engine.end(engine.start(), AT.format(number // 2)) for number in range(20)]
    assert ids(read(client)) == expected


def test_both_ends_of_the_window_are_included(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Microseconds of the window do not matter; a millisecond before and after does."""
    rows = [engine.end(engine.start(), AT.format(number)) for number in range(5)]
    window = SINCE + timedelta(milliseconds=1), SINCE + timedelta(milliseconds=3)
    assert ids(read(client, *window)) == rows[1:4]
    assert ids(read(client, window[0], window[1] + timedelta(microseconds=900))) == rows[1:4]
    assert ids(read(client, UNTIL, UNTIL + timedelta(days=1))) == []


def test_rows_that_change_between_pages(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Deleted rows and late rows shift no other row, in one millisecond and across."""
    expected = [engine.end(engine.start(), AT.format(5 if number < 40 else number)) for number in range(60)]
    doomed = iter([*expected[0:4], *expected[45:47]])

    def change() -> None:
        engine.rows.pop(next(doomed, ""), None)
        engine.end(engine.start(), AT.format(900))

    first = client.finished(SINCE, UNTIL)
    engine.before_answer = change
    found = [instance.id for instance in first.instances]
    cursor = first.cursor
    while cursor is not None and len(found) < 1000:
        page = client.finished(SINCE, UNTIL, cursor)
        found += [instance.id for instance in page.instances]
        cursor = page.cursor
        engine.before_answer = change if page.instances else lambda: None
    assert set(expected) & engine.rows.keys() <= set(found)


def test_rereads_of_a_changing_millisecond_are_limited(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Reading one millisecond begins again only a few times."""
    for _ in range(60):
        engine.end(engine.start(), AT.format(5))
    engine.before_answer = lambda: engine.rows.pop(min(engine.rows))
    with pytest.raises(EngineError, match="change while they are read"):
        read(client)
    assert len(engine.requests) < 20


def test_equal_rows_are_one_instance(engine: FlowableStandIn, client: FlowableClient) -> None:
    """A row that is twice in an answer is one instance."""
    row = engine.rows[engine.end(engine.start(), AT.format(1))]
    engine.replies.append(Reply(body=json.dumps({"data": [row, row], "total": 2}).encode()))
    assert ids([list(client.finished(SINCE, UNTIL).instances)]) == [row["id"]]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (["2026-11-26T09:00:00.000Z"], "another end time"),
        (["2026-11-27T11:00:00.001Z"], "another end time"),
        ([AT.format(3), AT.format(2)], "another order"),
        ([None], "without endTime"),
        (["yesterday" * 100], "cannot be read (endTime is not a time with a zone)"),
        (["2026-11-27T09:00:00"], "cannot be read (endTime is not a time with a zone)"),
    ],
)
def test_rows_that_do_not_match_the_query_are_rejected(
    engine: FlowableStandIn, client: FlowableClient, ends: list[str | None], words: str
) -> None:
    """Yesterday's page, unsorted rows and rows without an end are refused: they would hide instances."""
    rows = [engine.rows[engine.start()] | {"id": "9" * 1000, "endTime": end} for end in ends]
    engine.replies.append(Reply(body=json.dumps({"data": rows, "total": len(rows)}).encode()))
    error = failure(client)
    assert (error.reason, words in error.why) == ("invalid", True), error.why
    assert len(error.why) < 300


@pytest.mark.parametrize(
    ("minutes", "hours"),
    [(90, 0), (60, 1), (40, 1), (4, 1), (-10, 0)],
    ids=["before", "at the begin", "in the hour", "at the end", "after"],
)
def test_instances_ended_during_a_clock_change(
    engine: FlowableStandIn, client: FlowableClient, minutes: int, hours: int
) -> None:
    """Flowable mistakes an end by an hour while its local time goes back: it is not refused, and read an hour later."""
    engine.clocks_back_at = SINCE + timedelta(minutes=minutes)
    ended = [engine.end(engine.start(), AT.format(number)) for number in range(25)]
    found = ids(all_pages(client, SINCE, SINCE + timedelta(minutes=3)))
    assert sorted(found) == ([] if hours else ended)
    pages = all_pages(client, SINCE - timedelta(minutes=130), SINCE + timedelta(minutes=70))
    assert sorted(ids(pages)) == ended
    assert pages[0][0].ended_at == SINCE + timedelta(hours=hours)


def all_pages(client: FlowableClient, since: datetime, until: datetime) -> list[list[FinishedInstance]]:
    """The instances of all pages of a window."""
    pages: list[list[FinishedInstance]] = []
    cursor: str | None = None
    while True:
        page = client.finished(since, until, cursor)
        pages.append(list(page.instances))
        if (cursor := page.cursor) is None:
            return [instances for instances in pages if instances]


def test_an_empty_page_with_a_positive_total_is_rejected(engine: FlowableStandIn, client: FlowableClient) -> None:
    """An answer without rows that counts some is refused instead of read again without end."""
    engine.replies.append(Reply(body=json.dumps({"data": [], "total": 5}).encode()))
    assert failure(client).reason == "invalid"


# The end and the values of an instance


@pytest.mark.parametrize(
    ("activity", "reason", "state"),
    [
        ("approved", None, EndState.COMPLETED),
        ("last_task", None, EndState.COMPLETED),
        (None, None, EndState.UNDECIDED),
        ("stopped", "terminate end event (stopped)", EndState.TERMINATED),
        ("stopped", "terminate end event", EndState.TERMINATED),
        (None, "terminate end event (stopped)", EndState.CANCELLED),
        ("fraud", "ERROR_EVENT fraud", EndState.ERROR),
        (None, "ERROR_EVENT fraud", EndState.CANCELLED),
        (None, "process instance deleted", EndState.CANCELLED),
        (None, "不再需要", EndState.CANCELLED),
        ("timer", "boundary event (timer)", EndState.CANCELLED),
    ],
)
def test_end_state_of_an_instance(
    engine: FlowableStandIn, client: FlowableClient, activity: str | None, reason: str | None, state: EndState
) -> None:
    """The end activity and the reason decide; what they do not tell is undecided."""
    instance = engine.end(engine.start(), AT.format(1), activity=activity, reason=reason)
    found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    assert found.end_state is state


def model(key: str, *ends: str) -> dict[str, Any]:
    """A model with terminate end events, one of them in a sub-process, and with a data object."""
    events = [{"id": end, "eventDefinitions": [{"terminateAll": False}]} for end in ends]
    error = {"id": "fraud", "eventDefinitions": [{"errorCode": "fraud"}]}
    return {
        "processes": [
            {"id": "another", "flowElements": [{"id": "elsewhere", "eventDefinitions": [{"terminateAll": True}]}]},
            {
                "id": key,
                "flowElements": [error, *events[:1], {"id": "sub", "flowElements": events[1:]}],
                "dataObjects": [
                    {"name": "callBackProcessClass", "value": "com.example.Own"},
                    {"name": "n", "value": 5},
                ],
            },
        ]
    }


@pytest.mark.parametrize(
    ("activity", "state"),
    [
        ("stopped", EndState.TERMINATED),
        ("inner", EndState.TERMINATED),
        ("elsewhere", EndState.CANCELLED),
        ("fraud", EndState.CANCELLED),
    ],
)
def test_a_called_instance_ended_by_its_caller(
    engine: FlowableStandIn, client: FlowableClient, activity: str, state: EndState
) -> None:
    """Only a terminate end event of its own diagram terminates a called instance. The diagram is read once."""
    definition = engine.define("child")
    engine.models[definition] = model("child", "stopped", "inner")
    caller = engine.start()
    for number in range(3):
        child = engine.start(definition, superProcessInstanceId=caller)
        engine.end(child, AT.format(number), activity=activity, reason=f"terminate end event ({activity})")
    (page,) = read(client)
    assert [instance.end_state for instance in page] == [state] * 3
    assert [path for _, path, _ in engine.requests].count(f"repository/process-definitions/{definition}/model") <= 1
    assert len(engine.requests) == 2


def test_a_called_instance_without_a_diagram(engine: FlowableStandIn, client: FlowableClient) -> None:
    """If the definition was deleted, a called instance with a terminate reason is undecided, and has no class."""
    child = engine.start(superProcessInstanceId="i0", variables={"callBackProcessClass": "of the caller"})
    engine.end(child, AT.format(1), activity="stopped", reason="terminate end event (stopped)")
    ((found,),) = read(client)
    assert (found.end_state, found.callback_class, found.parent_id) == (EndState.UNDECIDED, None, "i0")


@pytest.mark.parametrize("status", [400, 500])
def test_a_diagram_that_the_engine_cannot_read(
    engine: FlowableStandIn, client: FlowableClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """While the engine cannot read a diagram, its called instance is undecided. Other instances are not affected."""
    definition = engine.define("child")
    engine.models[definition] = model("child", "stopped")
    child = engine.start(definition, superProcessInstanceId="i0")
    engine.end(child, AT.format(1), activity="stopped", reason="terminate end event (stopped)")
    engine.end(engine.start(), AT.format(2), activity="approved")
    answer = engine.answer

    def fail(method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        return (status, {}) if path.endswith("/model") else answer(method, path, given)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "answer", fail)
        (page,) = read(client)
    assert [found.end_state for found in page] == [EndState.UNDECIDED, EndState.COMPLETED]
    assert page[0].callback_class is None
    ((again, _),) = read(client)
    assert (again.end_state, again.callback_class) == (EndState.TERMINATED, "com.example.Own")


@pytest.mark.parametrize("ids", [["x" * 256], [str(number) for number in range(100)]], ids=["long", "many"])
def test_a_diagram_with_too_many_ids_is_not_remembered(
    engine: FlowableStandIn, client: FlowableClient, ids: list[str]
) -> None:
    """A hostile engine cannot fill the memory with diagrams: a called instance is undecided then, and has no class."""
    definition = engine.define("child")
    engine.models[definition] = model("child", "stopped", *ids)
    child = engine.start(definition, superProcessInstanceId="i0")
    engine.end(child, AT.format(1), activity="stopped", reason="terminate end event (stopped)")
    ((found,),) = read(client)
    assert (found.end_state, found.callback_class) == (EndState.UNDECIDED, None)


def test_variables_of_a_called_instance_may_be_copies(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Variables of a called instance may be copies: its class is a data object, and it has no conclusion."""
    definition = engine.define("child")
    engine.models[definition] = model("child")
    variables = {"callBackProcessClass": "of the caller", "conclusion": "approved"}
    child = engine.end(engine.start(definition, variables, superProcessInstanceId="i0"), AT.format(1))
    found = client.instance(child)
    assert isinstance(found, FinishedInstance)
    assert (found.callback_class, found.conclusion) == ("com.example.Own", None)


@pytest.mark.parametrize(
    ("value", "conclusion"),
    [
        ("approved", "approved"),
        ("拒绝", "拒绝"),
        (2, "2"),
        (False, "false"),
        (2.5, "2.5"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("", None),
        (None, None),
        ({"a": 1}, None),
    ],
)
def test_a_variable_is_the_conclusion(
    engine: FlowableStandIn, client: FlowableClient, value: object, conclusion: str | None
) -> None:
    """Texts, numbers and booleans are a conclusion as text; others are none."""
    instance = engine.end(engine.start(variables={"conclusion": value}), AT.format(1))
    found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    assert found.conclusion == conclusion


def test_a_date_is_no_conclusion(engine: FlowableStandIn, client: FlowableClient) -> None:
    """The text of a date or of another type is not a conclusion; it is a value of the data."""
    instance = engine.end(engine.start(variables={"conclusion": "2026-11-27T09:00:00Z"}), AT.format(1))
    engine.rows[instance]["variables"][0]["type"] = "date"
    found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    assert found.conclusion is None


@pytest.mark.parametrize(("source", "conclusion"), [("end_event", "rejected"), ("business_status", "GRANTED")])
def test_other_sources_of_the_conclusion(
    engine: FlowableStandIn, config: EngineConfig, source: Any, conclusion: str
) -> None:
    """The end event or the business status is the conclusion if the settings say so; then no variable is asked for."""
    instance = engine.start(variables={"conclusion": "approved"}, businessStatus="GRANTED")
    engine.end(instance, AT.format(1), activity="rejected")
    with closing(FlowableClient(replace(config, conclusion_from=source, class_variable=""))) as client:
        found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    assert found.conclusion == conclusion
    assert "includeProcessVariables" not in engine.requests[-1][2]


@pytest.mark.parametrize("knows_names", [True, False])
def test_only_named_variables_are_read(engine: FlowableStandIn, config: EngineConfig, knows_names: bool) -> None:
    """Older engines send all variables; the instance has the named ones. Values that are no JSON are left out."""
    engine.knows_names = knows_names
    given = {"amount": 12.5, "lines": [{"n": 1}], "other": 1, "object": None, "none": None}
    instance = engine.end(engine.start(variables=given), AT.format(1))
    engine.rows[instance]["variables"][3]["type"] = "serializable"
    names = ("amount", "lines", "object", "none", "missing")
    with closing(FlowableClient(replace(config, variables=names))) as client:
        found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    assert found.variables == {"amount": 12.5, "lines": [{"n": 1}], "none": None}


def test_ids_versions_and_times(engine: FlowableStandIn, client: FlowableClient) -> None:
    """The key and the version are in the definition's id, or are asked for once. Times may have any zone."""
    long_key = "合同" * 40
    engine.definitions.append({"id": "d-0815", "key": long_key, "version": 7})
    for number, definition in enumerate(["contract:3:d1", "d-0815", "d-0815", "gone"]):
        instance = engine.start(definition, businessKey="HT-1", tenantId="north")
        engine.end(instance, f"2026-11-27T17:00:00.{number:03}+08:00")
    ((first, *others),) = read(client)
    assert (first.process_definition_key, first.process_definition_version) == ("contract", 3)
    assert [(instance.process_definition_key, instance.process_definition_version) for instance in others] == [
        (long_key, 7),
        (long_key, 7),
        (None, None),
    ]
    assert (first.ended_at, first.business_key, first.tenant_id) == (SINCE, "HT-1", "north")
    assert len(engine.requests) == 3


def test_a_bad_answer_about_a_definition_is_not_remembered(
    engine: FlowableStandIn, client: FlowableClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a proxy redirects to its login page, the page fails. Afterwards its instances have their key."""
    engine.definitions.append({"id": "d-0815", "key": "leave", "version": 7})
    engine.end(engine.start("d-0815"), AT.format(1))
    answer = engine.answer

    def redirect(method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        return (302, {}) if path.startswith("repository/") else answer(method, path, given)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "answer", redirect)
        with pytest.raises(EngineError, match="redirects are not followed"):
            read(client)
    ((found,),) = read(client)
    assert (found.process_definition_key, found.process_definition_version) == ("leave", 7)


def test_the_status_of_instances(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Running, absent, and running before the history has it."""
    running = engine.start()
    assert client.instance(running) is InstanceStatus.RUNNING
    assert len(engine.requests) == 1
    assert client.instance("a/b?c=d") is InstanceStatus.ABSENT
    assert len(engine.requests) == 3
    engine.keeps_history = False
    assert client.instance(running) is InstanceStatus.RUNNING
    assert len(engine.requests) == 5


def test_an_answer_about_another_instance_is_an_error(engine: FlowableStandIn, client: FlowableClient) -> None:
    """An answer about another instance than the one asked for is an error."""
    row = engine.rows[engine.end(engine.start(), AT.format(1))]
    engine.replies.append(Reply(body=json.dumps({"data": [row], "total": 1}).encode()))
    with pytest.raises(EngineError, match="another process instance"):
        client.instance("i999")


def test_tenants_are_selected(engine: FlowableStandIn, config: EngineConfig) -> None:
    """With tenants, only their instances and definitions are read."""
    for tenant in ("north", "south", ""):
        engine.define("leave", tenant=tenant)
        engine.end(engine.start(tenantId=tenant), AT.format(1))
    with closing(FlowableClient(replace(config, tenants=("north", "south")))) as client:
        assert {instance.tenant_id for page in read(client) for instance in page} == {"north", "south"}
        assert {definition.tenant_id for definition in client.definitions()} == {"north", "south"}


def test_all_pages_of_definitions_are_read(engine: FlowableStandIn, client: FlowableClient) -> None:
    """All pages are read, even if the engine gives fewer rows than asked for; each key has its latest version."""
    engine.max_rows = 2
    for number in range(5):
        engine.define(f"key{number}")
    engine.define("key0", version=2)
    found = sorted(client.definitions(), key=lambda definition: definition.key)
    assert [(definition.key, definition.version) for definition in found] == [
        ("key0", 2),
        *((f"key{n}", 1) for n in range(1, 5)),
    ]
    assert found[0] == ProcessDefinition(key="key0", version=2, name="Key0")


# The engine's description of itself


def test_check_reports_the_engine_version(engine: FlowableStandIn, client: FlowableClient) -> None:
    """The version, even without the right to ask for it, and no problem."""
    engine.start(variables={"a": 1})
    assert (client.check().version, client.check().problem) == ("7.2.0", "")
    engine.replies.append(Reply(403))
    assert (client.check().version, client.check().problem) == ("", "")


def test_check_reports_an_empty_history(engine: FlowableStandIn, client: FlowableClient) -> None:
    """If instances run and the history is empty, the level is too low. If none runs, an empty history is normal."""
    engine.keeps_history = False
    assert client.check().problem == ""
    engine.start()
    assert "flowable.history-level=audit" in client.check().problem


def test_check_reports_a_history_without_variables(engine: FlowableStandIn, client: FlowableClient) -> None:
    """If the history has no variables of instances that have some, the level is too low."""
    engine.keeps_variables = False
    engine.start()
    assert client.check().problem == ""
    engine.start(variables={"a": 1})
    assert "variables" in client.check().problem


def test_the_clock_of_the_engine(engine: FlowableStandIn, client: FlowableClient) -> None:
    """The header Date is the engine's time; without one it is unknown."""
    page = client.finished(SINCE, UNTIL)
    assert page.engine_time is not None
    assert abs(page.engine_time - datetime.now(UTC)) < timedelta(minutes=5)


# Hostile answers


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (Reply(401), "refused", "401 Unauthorized"),
        (Reply(403), "refused", "403 Forbidden"),
        (Reply(500), "unreachable", "500 Internal Server Error"),
        (Reply(503), "unreachable", "503"),
        (Reply(429), "unreachable", "429"),
        (Reply(404), "invalid", "check that url is the base"),
        (Reply(400), "invalid", "400"),
        (Reply(299), "invalid", "299"),
        (Reply(302, headers={"Location": "http://127.0.0.1:9/"}), "invalid", "redirects are not followed"),
        (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), "invalid", "text/html"),
        (Reply(headers={}), "invalid", "not with JSON"),
        (Reply(body=b"{"), "invalid", "not valid JSON"),
        (Reply(body=b"\xff"), "invalid", "not valid JSON"),
        (Reply(body=b'{"data": [NaN]}'), "invalid", "not valid JSON"),
        (Reply(body=b'{"data": [1e999]}'), "invalid", "not valid JSON"),
        (Reply(body=b"[" * 100_000), "invalid", "not valid JSON"),
        (Reply(body=b"[]"), "invalid", "list"),
        (Reply(body=b"{}"), "invalid", "without a list"),
        (Reply(body=b'{"data": [1], "total": 1}'), "invalid", "without a list"),
        (Reply(body=b'{"data": [{}], "total": 1}'), "invalid", "cannot be read"),
        (Reply(body=b'{"data": [{"id": 5}], "total": 1}'), "invalid", "cannot be read"),
        (Reply(body=b'{"data": [{"id": "5", "variables": 7}], "total": 1}'), "invalid", "cannot be read"),
        (
            Reply(body=b"x", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}),
            "invalid",
            "compressed",
        ),
    ],
)
def test_unusable_answers_are_errors(
    engine: FlowableStandIn, client: FlowableClient, reply: Reply, reason: str, words: str
) -> None:
    """Each is an error with its reason, the path and no secret, and is asked for once."""
    engine.replies.append(reply)
    error = failure(client)
    assert (error.reason, words in error.why) == (reason, True), error.why
    assert "secret" not in str(error)
    assert "127.0.0.1" not in str(error)
    assert len(engine.requests) == 1


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(drips=True)])
def test_endless_answers_are_cut_off(engine: FlowableStandIn, config: EngineConfig, reply: Reply) -> None:
    """An answer that never ends is cut off, whether bytes arrive or not."""
    engine.replies.append(reply)
    with closing(FlowableClient(replace(config, timeout=0.2))) as client:
        error = failure(client)
    assert (error.reason, "within 0.2 s" in error.why) == ("unreachable", True), error.why
    assert not engine.stopping.is_set()


def test_a_refused_connection_is_unreachable(engine: FlowableStandIn, config: EngineConfig) -> None:
    """A refused connection is `unreachable`."""
    with closing(FlowableClient(replace(config, url="http://127.0.0.1:1/x"))) as client:
        assert failure(client).reason == "unreachable"


def test_a_page_that_is_too_large(
    engine: FlowableStandIn, client: FlowableClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller pages are asked for, with few requests, and nothing is missing."""
    monkeypatch.setattr(rest_api, "MAX_RESPONSE_BYTES", 3000)
    expected = [engine.end(engine.start(variables={"conclusion": "x" * 100}), AT.format(n)) for n in range(30)]
    assert ids(read(client)) == expected
    assert len(engine.requests) < 80


def test_one_instance_that_is_too_large(
    engine: FlowableStandIn, config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an instance with huge variables, the named ones are read one by one; one that is too large stops nothing."""
    monkeypatch.setattr(rest_api, "MAX_RESPONSE_BYTES", 3000)
    engine.knows_names = False
    given = {"conclusion": "approved", "huge": "x" * 5000, "unnamed": "x" * 5000}
    expected = [engine.end(engine.start(variables=given), AT.format(n)) for n in range(3)]
    with closing(FlowableClient(replace(config, variables=("huge",)))) as client:
        found = [instance for page in read(client) for instance in page]
    assert [instance.id for instance in found] == expected
    assert {instance.conclusion for instance in found} == {"approved"}
    assert all(len(instance.variables["huge"]) > 65_536 for instance in found)


def test_requests_are_not_logged(
    engine: FlowableStandIn, client: FlowableClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP library logs each request; rounds every few minutes would fill the log."""
    with caplog.at_level(logging.INFO):
        client.check()
    assert [record for record in caplog.records if record.name.startswith("http")] == []


def test_the_client_can_be_closed_and_used_again(engine: FlowableStandIn, client: FlowableClient) -> None:
    """Closing twice does no harm."""
    client.check()
    client.close()
    client.close()
    assert client.check().product == "Flowable"
