"""The suite for engine clients: the fake engine passes it, and each wrong client fails it with a clear message."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from flowhooks import (
    EndState,
    EngineConfig,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks.testing import EngineClientContract, EngineDriver, FakeEngine

NUMBERS = itertools.count()
DEFINITION = ProcessDefinition(key="expense", version=2)


class FakeDriver(EngineDriver):
    """Drives a fake engine; `wrong` makes its clients wrong."""

    def __init__(self, wrong=lambda client: client):
        self.engine = FakeEngine()
        self.engine.deploy("expense", 3)
        self.wrong = wrong
        self.given = {}

    def client(self, config):
        """A client of the fake engine."""
        return self.wrong(self.engine.client(config))

    def config(self):
        """Settings without an address."""
        return EngineConfig(source="oa", url="http://127.0.0.1:0")

    def start(self, *, business_key=None, variables=None, tenant_id=None):
        """Start an instance."""
        instance_id = self.engine.start()
        self.given[instance_id] = {"business_key": business_key, "variables": variables, "tenant_id": tenant_id}
        return instance_id

    def end(self, instance_id, end_state, **fields):
        """End an instance, and the parent that waits for it."""
        more = self.given[instance_id]
        definition = {"process_definition_id": "expense:3:17", "process_definition_key": "expense"}
        self.engine.finish(
            instance_id,
            end_state=end_state,
            end_event="end_ok",
            process_definition_version=3,
            **definition,
            **more,
            **fields,
        )
        if more.get("parent_id"):
            self.end(more["parent_id"], EndState.COMPLETED)
        return "end_ok"

    def definition(self):
        """The only definition."""
        return "expense", 3

    def end_together(self, instance_ids):
        """End instances with one end time."""
        now = self.engine.now()
        for instance_id in instance_ids:
            self.end(instance_id, EndState.COMPLETED, ended_at=now)

    def start_parent(self, variables):
        """Start a parent and its child."""
        parent, child = self.start(variables=variables), self.start()
        self.given[child]["parent_id"] = parent
        return parent, child

    def start_copying_parent(self, variables):
        """Start a parent and its child, both with the same variables."""
        parent, child = self.start(variables=variables), self.start(variables=variables)
        self.given[child]["parent_id"] = parent
        return parent, child

    def delete_history(self, instance_id):
        """Delete an instance."""
        self.engine.delete(instance_id)

    def deploy_many(self, count):
        """Deploy definitions."""
        keys = [f"many-{number}" for number in range(count)]
        for key in keys:
            self.engine.deploy(key)
        return keys


@pytest.fixture(scope="module")
def engine():
    """A fake engine for the whole suite."""
    return FakeDriver()


class TestFakeEngine(EngineClientContract):
    """The fake engine passes the whole suite."""


class Wrong:
    """A client that passes all calls on; its subclasses are wrong in one way each."""

    def __init__(self, client):
        self.inner = client
        self.config = client.config

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def finished(self, since, until, cursor=None):
        """Read a page, and change its instances."""
        page = self.inner.finished(since, until, cursor)
        return replace(page, instances=tuple(self.changed(instance) for instance in page.instances))

    def instance(self, instance_id):
        """Read an instance, and change it."""
        found = self.inner.instance(instance_id)
        return self.changed(found) if isinstance(found, FinishedInstance) else found

    def changed(self, instance):
        """The instance as it is."""
        return instance

    def all(self, since, until):
        """All instances of a window."""
        return self.inner._engine.client(replace(self.config, page_size=1000)).finished(since, until).instances


def changes(**fields):
    """A client that replaces fields of instances, each by the result of a function of the instance."""
    return type(
        "Changes",
        (Wrong,),
        {
            "changed": lambda self, instance: replace(
                instance, **{name: change(self, instance) for name, change in fields.items()}
            )
        },
    )


class ByOffset(Wrong):
    """Pages by an offset."""

    def finished(self, since, until, cursor=None):
        """Skip as many rows as were read."""
        first, size = int(cursor or 0), self.config.page_size
        found = self.all(since, until)[first : first + size]
        return FinishedPage(instances=found, cursor=str(first + size) if len(found) == size else None)


class ByTime(Wrong):
    """Pages by the end time alone."""

    def finished(self, since, until, cursor=None):
        """Skip the end time that was read."""
        after = datetime.fromisoformat(cursor) if cursor else since - timedelta(days=1)
        found = [instance for instance in self.all(since, until) if instance.ended_at > after][: self.config.page_size]
        more = len(found) == self.config.page_size
        return FinishedPage(instances=found, cursor=found[-1].ended_at.isoformat() if more else None)


class Stateful(Wrong):
    """Remembers its position instead of using the cursor."""

    position = None

    def finished(self, since, until, cursor=None):
        """Continue where the last call ended."""
        page = self.inner.finished(since, until, self.position if cursor else None)
        self.position = page.cursor
        return page


class Endless(Wrong):
    """Has a next page always."""

    def finished(self, since, until, cursor=None):
        """Give a cursor with the last page, too."""
        page = self.inner.finished(since, until, None)
        return replace(page, cursor="next")


class Reversed(Wrong):
    """Has the latest instance of a page first."""

    def finished(self, since, until, cursor=None):
        """Reverse a page."""
        page = self.inner.finished(since, until, cursor)
        return replace(page, instances=page.instances[::-1])


def window(move_since, move_until):
    """A client that asks for another window."""

    def finished(self, since, until, cursor=None):
        millisecond = timedelta(milliseconds=1)
        return self.inner.finished(since + move_since * millisecond, until + move_until * millisecond, cursor)

    return type("Window", (Wrong,), {"finished": finished})


def status(**given):
    """A client that returns or raises other things for ids without a finished instance."""

    def instance(self, instance_id):
        found = self.inner.instance(instance_id)
        answer = given.get(str(found), found)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return type("Status", (Wrong,), {"instance": instance})


def method(name, function):
    """A client with one other method."""
    return type("Method", (Wrong,), {name: function})


def variables(instance, client):
    """All variables of an instance."""
    return next(row.variables for row in client.inner._engine._rows() if row.instance.id == instance.id)


def parents_class(client, instance):
    """The class of the instance, or that of its parent."""
    parent = client.inner.instance(instance.parent_id) if instance.parent_id else instance
    return (
        instance.callback_class
        or getattr(parent, "callback_class", None)
        or "com.example.Leave" * bool(instance.parent_id)
    )


WRONG = [
    ("check_describes_the_engine", method("check", lambda self: EngineInfo(product="")), "must name the product"),
    ("check_describes_the_engine", method("check", lambda self: "7.24"), "must return an EngineInfo"),
    ("definitions_have_the_latest_version", method("definitions", lambda self: [DEFINITION]), "latest version 3"),
    (
        "definitions_have_the_latest_version",
        method("definitions", lambda self: [*self.inner.definitions(), DEFINITION]),
        "more than once",
    ),
    (
        "definitions_are_read_to_the_end",
        method("definitions", lambda self: self.inner.definitions()[:2]),
        "must read all pages",
    ),
    (
        "a_running_instance_is_not_finished",
        status(running=InstanceStatus.ABSENT),
        "must return <InstanceStatus.RUNNING",
    ),
    (
        "an_instance_has_its_ids",
        changes(process_definition_version=lambda _, instance: None),
        "process_definition_version",
    ),
    (
        "an_instance_has_its_ids",
        changes(business_key=lambda _, instance: instance.business_key[:10]),
        "business_key must be",
    ),
    (
        "an_instance_without_a_business_key_has_none",
        changes(business_key=lambda _, instance: ""),
        "must be None",
    ),
    ("times_are_aware", changes(ended_at=lambda _, instance: instance.ended_at.replace(tzinfo=None)), "an aware time"),
    (
        "times_are_aware",
        changes(started_at=lambda _, instance: instance.ended_at + timedelta(1)),
        "ends before it starts",
    ),
    ("pages_and_single_instances_are_equal", changes(conclusion=lambda *_: str(next(NUMBERS))), r"instance\(\) says"),
    ("both_ends_of_the_window_are_included", window(1, 0), "both ends belong to the window"),
    ("both_ends_of_the_window_are_included", window(0, -1), "both ends belong to the window"),
    ("a_window_has_only_its_instances", window(-1, 0), "outside of the window"),
    ("a_window_has_only_its_instances", window(0, 1), "outside of the window"),
    ("an_empty_window_has_one_empty_page", Endless, "must not have a cursor"),
    ("pages_are_ordered_and_complete", Reversed, "must be ordered by end time"),
    ("pages_are_ordered_and_complete", Endless, "no last page"),
    ("many_instances_with_one_end_time", ByTime, "the same end time, and the pages of two miss"),
    ("a_cursor_can_be_used_again", Stateful, "the same cursor must give the same page"),
    ("history_deleted_between_two_pages", ByOffset, "does not page by an offset"),
    ("only_named_variables_are_read", changes(variables=lambda c, instance: variables(instance, c)), "do not name"),
    (
        "only_named_variables_are_read",
        changes(variables=lambda _, instance: dict.fromkeys(["missing"]) | instance.variables),
        "must be left out",
    ),
    (
        "only_named_variables_are_read",
        changes(variables=lambda _, instance: {name: str(value) for name, value in instance.variables.items()}),
        "must be the JSON values",
    ),
    (
        "structured_variables_are_json",
        changes(variables=lambda _, instance: {name: str(value) for name, value in instance.variables.items()}),
        "the variable must be",
    ),
    ("a_large_variable_does_not_stop_the_others", changes(variables=lambda *_: {}), "must not be cut"),
    ("the_conclusion_is_a_variable", changes(conclusion=lambda *_: "wrong"), "conclusion must be 'approved'"),
    ("the_conclusion_is_an_end_event", changes(conclusion=lambda *_: "wrong"), "conclusion must be 'end_ok'"),
    ("the_class_is_a_variable", changes(callback_class=lambda *_: "com.example.Leave"), "callback_class must be None"),
    ("a_called_instance_names_its_parent", changes(parent_id=lambda *_: None), "parent_id must be"),
    ("a_called_instance_inherits_nothing", changes(callback_class=parents_class), "must not be inherited"),
    (
        "copies_of_the_parents_variables_are_no_class_or_conclusion",
        changes(callback_class=lambda _, instance: "com.example.Leave"),
        "may be a copy of the parent's variable",
    ),
    (
        "copies_of_the_parents_variables_are_no_class_or_conclusion",
        changes(conclusion=lambda _, instance: "approved"),
        "may be a copy of the parent's variable",
    ),
    (
        "tenants_are_selected",
        lambda client: client._engine.client(replace(client.config, tenants=())),
        "of other tenants must not be read",
    ),
]
"""The test, the wrong client, and a part of the message."""


@pytest.mark.parametrize(("name", "wrong", "match"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_client_fails(name, wrong, match):
    """A client that is wrong in one way fails the test about it, with a message that names the fault."""
    with pytest.raises((AssertionError, pytest.fail.Exception), match=match):
        getattr(EngineClientContract(), f"test_{name}")(FakeDriver(wrong))


@pytest.mark.parametrize("end_state", [EndState.CANCELLED, EndState.ERROR, EndState.TERMINATED])
def test_a_client_that_reports_each_end_as_completed_fails(end_state):
    """The test of each end finds it."""
    wrong = changes(end_state=lambda *_: EndState.COMPLETED)
    with pytest.raises(AssertionError, match=f"ended as {end_state}, not completed"):
        EngineClientContract().test_the_way_an_instance_ends_is_read(FakeDriver(wrong), end_state)


def test_a_client_that_raises_for_an_unknown_instance_fails():
    """An error is not the answer to an id that the engine does not know."""
    contract = EngineClientContract()
    with pytest.raises(KeyError):
        contract.test_an_unknown_instance_is_absent(FakeDriver(status(absent=KeyError("a/b"))), "a/b")
    with pytest.raises(AssertionError, match=r"must return <InstanceStatus\.ABSENT"):
        contract.test_an_unknown_instance_is_absent(FakeDriver(status(absent=None)), "a/b")


def test_a_driver_gives_the_reason_for_a_skipped_test():
    """A driver that cannot do something skips the tests that need it, with its reason."""
    driver = FakeDriver()
    driver.end_together = lambda ids: EngineDriver.end_together(driver, ids)
    with pytest.raises(pytest.skip.Exception, match="cannot end instances at the same time"):
        EngineClientContract().test_many_instances_with_one_end_time(driver)
