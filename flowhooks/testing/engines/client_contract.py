"""The suite that every engine client must pass, with a real engine or a stand-in behind it."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from flowhooks.model.engine import (
    MAX_PAGE_INSTANCES,
    MAX_VARIABLES_BYTES,
    EndState,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.model.engine import EngineClient
    from flowhooks.testing.engines.driver import EngineDriver

MAX_PAGES: Final = 100
"""Limit of the pages that a test reads, because a client whose cursor makes no progress has no last page."""
RESOLUTION: Final = timedelta(milliseconds=1)
"""The resolution of end times in the engines that flowhooks knows."""
UNKNOWN_IDS: Final = ("no-such-instance", "a/b", "..", "a?b=c", "a b", "ü%2F", "x" * 200)
"""Ids that no engine has, some with characters that have a meaning in a URL."""
VARIABLES: Final = {"text": "审批 ü", "number": 1234, "fraction": 2.5, "truth": True, "nothing": None}


class EngineClientContract:
    """The tests of an engine client, with an engine behind it.

    Subclass it in a test module with a fixture `engine`:

        @pytest.fixture(scope="module")
        def engine() -> EngineDriver:
            return MyDriver()


        class TestMyClient(EngineClientContract):
            pass

    Each test works with instances of its own, so that one engine can serve all of them.
    """

    # About the engine.

    def test_check_describes_the_engine(self, engine: EngineDriver) -> None:
        """`check` names the product, and finds no problem in an engine whose history is complete."""
        with _client(engine) as client:
            info = client.check()
        assert isinstance(info, EngineInfo), f"check() must return an EngineInfo, not {info!r}"
        assert info.product, "check() must name the product"
        assert info.problem == "", f"check() reports a problem of an engine that has none: {info.problem}"

    def test_a_client_can_be_closed_twice(self, engine: EngineDriver) -> None:
        """`close` may be called twice, and without any other call before."""
        client = engine.client(engine.config())
        client.close()
        client.close()

    def test_definitions_have_the_latest_version(self, engine: EngineDriver) -> None:
        """`definitions` has each definition once, with its latest version."""
        key, version = engine.definition()
        with _client(engine) as client:
            definitions = client.definitions()
        _check_definitions(definitions)
        versions = [item.version for item in definitions if (item.key, item.tenant_id) == (key, None)]
        assert versions == [version], (
            f"definitions() must have {key!r} once, with its latest version {version}; it has the versions {versions}"
        )

    def test_definitions_are_read_to_the_end(self, engine: EngineDriver) -> None:
        """`definitions` also has the definitions after the first page of the engine's answer."""
        keys = set(_try(engine.deploy_many, 5))
        with _client(engine, page_size=2) as client:
            definitions = client.definitions()
        _check_definitions(definitions)
        missing = keys - {item.key for item in definitions}
        assert not missing, f"definitions() misses {sorted(missing)}: it must read all pages"

    # One instance.

    def test_a_running_instance_is_not_finished(self, engine: EngineDriver) -> None:
        """An instance that waits is RUNNING, and on no page."""
        instance_id = engine.start()
        with _client(engine) as client:
            _check_status(client, instance_id, InstanceStatus.RUNNING)
            other = _finished(client, _end(engine, engine.start()))
            page = _read(client, other.ended_at - timedelta(hours=1), other.ended_at + timedelta(hours=1))
        assert instance_id not in _ids(page), "finished() must not have instances that still run"

    @pytest.mark.parametrize("instance_id", UNKNOWN_IDS)
    def test_an_unknown_instance_is_absent(self, engine: EngineDriver, instance_id: str) -> None:
        """An id that the engine does not know is ABSENT, whatever characters it has."""
        with _client(engine) as client:
            _check_status(client, instance_id, InstanceStatus.ABSENT)

    def test_an_instance_has_its_ids(self, engine: EngineDriver) -> None:
        """A finished instance has its business key, and the key, the version and the id of its definition."""
        key, version = engine.definition()
        instance_id = _end(engine, engine.start(business_key="HT-2026/17 审批"))
        with _client(engine) as client:
            instance = _finished(client, instance_id)
        _check_field(instance, "business_key", "HT-2026/17 审批")
        _check_field(instance, "process_definition_key", key)
        _check_field(instance, "process_definition_version", version)
        _check_field(instance, "parent_id", None)
        assert isinstance(instance.process_definition_id, str), f"no process_definition_id: {instance!r}"

    def test_an_instance_without_a_business_key_has_none(self, engine: EngineDriver) -> None:
        """The business key of an instance without one is None, not an empty text."""
        instance_id = _end(engine, engine.start())
        with _client(engine) as client:
            _check_field(_finished(client, instance_id), "business_key", None)

    def test_times_are_aware(self, engine: EngineDriver) -> None:
        """Start, end and the engine's time have a time zone, and are in order."""
        instance_id = _end(engine, engine.start())
        with _client(engine) as client:
            instance = _finished(client, instance_id)
            now = datetime.now(UTC)
            page = client.finished(now - timedelta(hours=1), now)
        for name, time in {"started_at": instance.started_at, "ended_at": instance.ended_at}.items():
            assert isinstance(time, datetime), f"{name} must be a datetime, not {time!r}"
            assert time.utcoffset() is not None, f"{name} must be an aware time: {time!r}"
        assert instance.started_at is not None
        assert instance.started_at <= instance.ended_at, f"the instance ends before it starts: {instance!r}"
        if page.engine_time is not None:
            assert page.engine_time.utcoffset() is not None, f"engine_time must be an aware time: {page.engine_time!r}"
            # The header Date has whole seconds.
            assert page.engine_time + timedelta(seconds=1) >= instance.ended_at, "engine_time is before the last end"

    @pytest.mark.parametrize(
        "end_state", [EndState.COMPLETED, EndState.CANCELLED, EndState.ERROR, EndState.TERMINATED], ids=str
    )
    def test_the_way_an_instance_ends_is_read(self, engine: EngineDriver, end_state: EndState) -> None:
        """Completed, cancelled, error and terminate ends are distinguished, on pages and by `instance`."""
        instance_id = _end(engine, engine.start(), end_state)
        with _client(engine) as client:
            instance = _finished(client, instance_id)
        assert instance.end_state is end_state, f"the instance ended as {end_state}, not {instance.end_state}"

    def test_pages_and_single_instances_are_equal(self, engine: EngineDriver) -> None:
        """`instance` and `finished` return equal instances."""
        instance_id = _end(engine, engine.start(business_key="HT-1", variables={"text": "a", "conclusion": "approved"}))
        with _client(engine, variables=("text",)) as client:
            single = _finished(client, instance_id)
            (listed,) = (i for i in _read(client, single.ended_at, single.ended_at) if i.id == instance_id)
        assert listed == single, f"finished() says {listed!r}, instance() says {single!r}"

    # Windows and pages.

    def test_both_ends_of_the_window_are_included(self, engine: EngineDriver) -> None:
        """An instance that ended exactly at `since` or at `until` is on the page."""
        instance_id = _end(engine, engine.start())
        with _client(engine) as client:
            end = _finished(client, instance_id).ended_at
            hour = timedelta(hours=1)
            for since, until in ((end, end), (end, end + hour), (end - hour, end)):
                found = _ids(_read(client, since, until))
                assert instance_id in found, (
                    f"the instance ended at {end.isoformat()}, and the window from {since.isoformat()} to "
                    f"{until.isoformat()} must include it: both ends belong to the window"
                )

    def test_a_window_has_only_its_instances(self, engine: EngineDriver) -> None:
        """An instance that ended a millisecond before or after the window is not on the page."""
        instance_id = _end(engine, engine.start())
        with _client(engine) as client:
            end = _finished(client, instance_id).ended_at
            hour = timedelta(hours=1)
            for since, until in ((end - hour, end - RESOLUTION), (end + RESOLUTION, end + hour)):
                found = _ids(_read(client, since, until))
                assert instance_id not in found, (
                    f"the instance ended at {end.isoformat()}, outside of the window from {since.isoformat()} to "
                    f"{until.isoformat()}"
                )

    def test_an_empty_window_has_one_empty_page(self, engine: EngineDriver) -> None:
        """A window in which nothing ended has one page without instances and without a cursor."""
        long_ago = datetime.fromisoformat("2001-01-01T00:00:00+00:00")
        with _client(engine) as client:
            page = client.finished(long_ago, long_ago + timedelta(days=1))
        assert list(page.instances) == [], f"nothing ended in this window, and the page has {page.instances!r}"
        assert page.cursor is None, "a page without a next page must not have a cursor"

    def test_the_window_may_be_in_another_time_zone(self, engine: EngineDriver) -> None:
        """The time zone of `since` and `until` does not matter."""
        instance_id = _end(engine, engine.start())
        with _client(engine) as client:
            end = _finished(client, instance_id).ended_at
            local = end.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:45").tzinfo)
            assert instance_id in _ids(_read(client, local, local)), "the time zone of the window was ignored"

    def test_pages_are_ordered_and_complete(self, engine: EngineDriver) -> None:
        """Seven instances are on pages of two, by end time and then by id, and none is missing."""
        ids = [_end(engine, engine.start()) for _ in range(7)]
        with _client(engine, page_size=2) as client:
            since, until = _span(client, ids)
            instances = _read(client, since, until)
        _check_order(instances)
        missing = set(ids) - _ids(instances)
        assert not missing, f"the pages miss {len(missing)} of {len(ids)} instances"

    def test_many_instances_with_one_end_time(self, engine: EngineDriver) -> None:
        """More instances than a page can end in the same millisecond: the pages have all of them, by id."""
        ids = [engine.start() for _ in range(7)]
        _try(engine.end_together, ids)
        with _client(engine, page_size=2) as client:
            since, until = _span(client, ids)
            assert since == until, "the driver's end_together() must end all instances at one time"
            instances = [i for i in _read(client, since, until) if i.id in ids]
            before = _read(client, since - timedelta(hours=1), until + timedelta(hours=1))
        missing = set(ids) - _ids(instances)
        assert not missing, (
            f"{len(ids)} instances have the same end time, and the pages of two miss {len(missing)} of them: a client "
            "pages by end time and then by id"
        )
        _check_order(instances)
        assert set(ids) <= _ids(before), "a wider window must have them, too"

    def test_a_cursor_can_be_used_again(self, engine: EngineDriver) -> None:
        """A cursor is a text, and the page after it does not depend on calls between."""
        ids = [_end(engine, engine.start()) for _ in range(4)]
        with _client(engine, page_size=1) as client:
            since, until = _span(client, ids)
            cursor = _page(client, since, until, None).cursor
            assert isinstance(cursor, str), f"more than one page must have a cursor, a str, not {cursor!r}"
            first = _page(client, since, until, cursor)
            pages = [_page(client, since, until, cursor)]
            client.instance(ids[0])
            _page(client, since, until, None)
            pages.append(_page(client, since, until, cursor))
        for page in pages:
            assert list(page.instances) == list(first.instances), "the same cursor must give the same page again"

    def test_an_instance_that_ends_between_two_pages(self, engine: EngineDriver) -> None:
        """An instance that ends while pages are read does not displace the others."""
        ids = [_end(engine, engine.start()) for _ in range(5)]
        with _client(engine, page_size=2) as client:
            since, until = _span(client, ids)
            instances = _read(client, since, until + timedelta(hours=1), lambda: _end(engine, engine.start()))
        missing = set(ids) - _ids(instances)
        assert not missing, f"an instance ended between two pages, and the pages miss {len(missing)} others"

    def test_history_deleted_between_two_pages(self, engine: EngineDriver) -> None:
        """Rows that are deleted while pages are read do not displace the others: no paging by an offset."""
        ids = [_end(engine, engine.start()) for _ in range(6)]
        with _client(engine, page_size=2) as client:
            since, until = _span(client, ids)
            instances = _read(client, since, until, lambda: _try(engine.delete_history, ids[0]))
            _check_status(client, ids[0], InstanceStatus.ABSENT)
        missing = set(ids[1:]) - _ids(instances)
        assert not missing, (
            f"the history of an instance on the first page was deleted, and the pages miss {len(missing)} others: "
            "a client does not page by an offset across end times"
        )

    # Settings.

    def test_only_named_variables_are_read(self, engine: EngineDriver) -> None:
        """`variables` has the named variables that the instance has, with their JSON values, and no others."""
        instance_id = _end(engine, engine.start(variables={**VARIABLES, "other": "x"}))
        names = (*VARIABLES, "missing")
        with _client(engine, variables=names) as client:
            instance = _finished(client, instance_id)
        read = dict(instance.variables)
        assert "other" not in read, "a variable that the settings do not name must not be read"
        assert "missing" not in read, "a variable that the instance does not have must be left out"
        # Some engines do not store null: leaving the name out is the same for handlers.
        expected = VARIABLES if "nothing" in read else {k: v for k, v in VARIABLES.items() if k != "nothing"}
        assert json.dumps(read, sort_keys=True) == json.dumps(expected, sort_keys=True), (
            f"the variables must be the JSON values {expected!r}, not {read!r}"
        )

    def test_structured_variables_are_json(self, engine: EngineDriver) -> None:
        """Objects and lists are read as JSON values, not as text."""
        value = {"lines": [{"amount": 2.5, "name": "ü"}, {}], "none": None}
        instance_id = _end(engine, _try(engine.start, variables={"order": value}))
        with _client(engine, variables=("order",)) as client:
            read = _finished(client, instance_id).variables.get("order")
        assert read == value, f"the variable must be {value!r}, not {read!r}"

    def test_a_large_variable_does_not_stop_the_others(self, engine: EngineDriver) -> None:
        """An instance with variables above 64 KiB is returned whole, and so are the instances beside it.

        Reconciliation skips it with the rule `too_large`.
        """
        value = ["x" * 100] * (MAX_VARIABLES_BYTES // 100 + 1)
        large = _end(engine, _try(engine.start, variables={"order": value}))
        ids = [large, _end(engine, engine.start(variables={"order": 1}))]
        with _client(engine, variables=("order",)) as client:
            since, until = _span(client, ids)
            instances = {instance.id: instance for instance in _read(client, since, until)}
        assert set(ids) <= instances.keys(), "a large variable must not hide instances"
        assert instances[large].variables.get("order") == value, "a large variable must not be cut"

    def test_the_conclusion_is_a_variable(self, engine: EngineDriver) -> None:
        """With `conclusion_from = "variable"` the conclusion is the variable that the settings name."""
        approved = _end(engine, engine.start(variables={"result": "approved", "conclusion": "wrong"}))
        none = _end(engine, engine.start(variables={"conclusion": "wrong"}))
        with _client(engine, conclusion_variable="result") as client:
            _check_field(_finished(client, approved), "conclusion", "approved")
            _check_field(_finished(client, none), "conclusion", None)

    def test_the_conclusion_is_an_end_event(self, engine: EngineDriver) -> None:
        """With `conclusion_from = "end_event"` the conclusion is the id of the end event."""
        instance_id = engine.start(variables={"conclusion": "wrong"})
        event = engine.end(instance_id, EndState.COMPLETED)
        if event is None:
            pytest.skip("the driver does not know the end event")
        with _client(engine, conclusion_from="end_event") as client:
            _check_field(_finished(client, instance_id), "conclusion", event)

    def test_the_class_is_a_variable(self, engine: EngineDriver) -> None:
        """`callback_class` is the variable that `class_variable` names; without a name it is None."""
        instance_id = _end(engine, engine.start(variables={"callBackProcessClass": "com.example.Leave"}))
        with _client(engine) as client:
            _check_field(_finished(client, instance_id), "callback_class", "com.example.Leave")
        with _client(engine, class_variable="") as client:
            _check_field(_finished(client, instance_id), "callback_class", None)

    def test_a_called_instance_names_its_parent(self, engine: EngineDriver) -> None:
        """An instance that another one called has that one as `parent_id`."""
        parent, child = _try(engine.start_parent, {})
        _end(engine, child)
        with _client(engine) as client:
            _check_field(_finished(client, child), "parent_id", parent)
            _check_field(_finished(client, parent), "parent_id", None)

    def test_a_called_instance_inherits_nothing(self, engine: EngineDriver) -> None:
        """Class, conclusion and variables of the parent are not those of the called instance."""
        values = {"callBackProcessClass": "com.example.Leave", "conclusion": "approved", "text": "a"}
        parent, child = _try(engine.start_parent, values)
        _end(engine, child)
        with _client(engine, variables=("text",)) as client:
            called, caller = _finished(client, child), _finished(client, parent)
        _check_field(caller, "callback_class", "com.example.Leave")
        assert called.callback_class is None, "callBackProcessClass must not be inherited from the parent"
        assert called.conclusion is None, "the conclusion must not be inherited from the parent"
        assert dict(called.variables) == {}, "variables must not be inherited from the parent"

    def test_copies_of_the_parents_variables_are_no_class_or_conclusion(self, engine: EngineDriver) -> None:
        """A called instance with copies of the parent's variables takes neither class nor conclusion from them."""
        values = {"callBackProcessClass": "com.example.Leave", "conclusion": "approved", "text": "a"}
        parent, child = _try(engine.start_copying_parent, values)
        _end(engine, child)
        with _client(engine, variables=("text",)) as client:
            called = _finished(client, child)
        _check_field(called, "parent_id", parent)
        _check_field(called, "variables", {"text": "a"})
        assert called.callback_class is None, "callBackProcessClass may be a copy of the parent's variable"
        assert called.conclusion is None, "the conclusion may be a copy of the parent's variable"

    def test_tenants_are_selected(self, engine: EngineDriver) -> None:
        """An instance has its tenant, and `tenants` selects the tenants that are read."""
        tenants: tuple[str | None, ...] = ("north", "south", None)
        ids = {tenant: _end(engine, _try(engine.start, tenant_id=tenant)) for tenant in tenants}
        with _client(engine) as client:
            for tenant, instance_id in ids.items():
                _check_field(_finished(client, instance_id), "tenant_id", tenant)
            since, until = _span(client, list(ids.values()))
            assert set(ids.values()) <= _ids(_read(client, since, until)), "without `tenants` all tenants are read"
        with _client(engine, tenants=("north",)) as client:
            found = _ids(_read(client, since, until))
        assert ids["north"] in found, "the instance of the selected tenant is missing"
        assert not {ids["south"], ids[None]} & found, "instances of other tenants must not be read"


# Helpers of the tests.


@contextmanager
def _client(engine: EngineDriver, **changes: Any) -> Iterator[EngineClient]:
    with closing(engine.client(replace(engine.config(), **changes))) as client:
        yield client


def _try(act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Do what an engine may not be able to do; skip the test if it cannot."""
    try:
        return act(*arguments, **options)
    except NotImplementedError as error:
        pytest.skip(str(error) or f"the driver does not implement {act.__name__}()")


def _end(engine: EngineDriver, instance_id: str, end_state: EndState = EndState.COMPLETED) -> str:
    _try(engine.end, instance_id, end_state)
    return instance_id


def _finished(client: EngineClient, instance_id: str) -> FinishedInstance:
    instance = client.instance(instance_id)
    assert isinstance(instance, FinishedInstance), (
        f"the instance {instance_id!r} has ended: instance() must return a FinishedInstance, not {instance!r}"
    )
    assert instance.id == instance_id, f"instance({instance_id!r}) returned another instance: {instance!r}"
    return instance


def _check_field(instance: FinishedInstance, name: str, expected: object) -> None:
    found = getattr(instance, name)
    assert found == expected, f"{name} must be {expected!r}, not {found!r}"


def _check_status(client: EngineClient, instance_id: str, status: InstanceStatus) -> None:
    found = client.instance(instance_id)
    assert found is status, f"instance({instance_id!r}) must return {status!r}, not {found!r}"


def _span(client: EngineClient, ids: list[str]) -> tuple[datetime, datetime]:
    """The smallest window with all of these instances."""
    ends = [_finished(client, instance_id).ended_at for instance_id in ids]
    return min(ends), max(ends)


def _page(client: EngineClient, since: datetime, until: datetime, cursor: str | None) -> FinishedPage:
    page = client.finished(since, until, cursor)
    assert isinstance(page, FinishedPage), f"finished() must return a FinishedPage, not {page!r}"
    assert len(page.instances) <= MAX_PAGE_INSTANCES, f"a page has {len(page.instances)} instances"
    for instance in page.instances:
        assert isinstance(instance, FinishedInstance), f"a page has {instance!r}, which is no FinishedInstance"
        assert since <= instance.ended_at <= until, f"{instance!r} ended outside of the window"
    return page


def _read(
    client: EngineClient, since: datetime, until: datetime, between: Callable[[], object] | None = None
) -> list[FinishedInstance]:
    """Read all pages, and call `between` once, after the first page."""
    instances: list[FinishedInstance] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = _page(client, since, until, cursor)
        instances += page.instances
        if (cursor := page.cursor) is None:
            return instances
        if between is not None:
            between()
            between = None
    pytest.fail(f"finished() has no last page: after {MAX_PAGES} pages there still is a cursor")


def _ids(instances: list[FinishedInstance]) -> set[str]:
    return {instance.id for instance in instances}


def _check_order(instances: list[FinishedInstance]) -> None:
    seen: dict[str, FinishedInstance] = {instance.id: instance for instance in instances}
    firsts = list(seen.values())
    ordered = sorted(firsts, key=lambda instance: (instance.ended_at, instance.id))
    shown = [(instance.ended_at.isoformat(), instance.id) for instance in firsts]
    assert firsts == ordered, f"instances must be ordered by end time and then by id, not {shown}"


def _check_definitions(definitions: Any) -> None:
    for item in definitions:
        assert isinstance(item, ProcessDefinition), f"definitions() has {item!r}, which is no ProcessDefinition"
    names = [(item.key, item.tenant_id) for item in definitions]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    assert not twice, f"definitions() has {', '.join(twice)} more than once: only the latest version counts"
