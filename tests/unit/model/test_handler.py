"""Handlers: the functions that `@handler` accepts and refuses, and their selectors."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks import Event, Handler, Retry, handler
from flowhooks.errors import HandlerError
from flowhooks.model.selectors import Selectors


def one(event):
    """One argument.

    And a second line.
    """
    return event


def two(event, delivery):
    return event, delivery


def passing_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def with_session(function):
    """A decorator that passes an argument of its own."""

    @functools.wraps(function)
    def wrapper(event):
        return function(event, "session")

    return wrapper


def make_event(**given_):
    return Event(id="e", flow_instance_id="i", data={}, received_at=datetime(2026, 1, 1, tzinfo=UTC), **given_)


class Callable:
    """An object that can be called."""

    def __call__(self, event, delivery):
        """Accept both arguments."""
        return event, delivery

    def method(self, event):
        """Accept the event."""
        return event


class Async:
    """An object whose call is asynchronous."""

    async def __call__(self, event):
        """Accept the event asynchronously."""
        return event


async def coroutine(event):
    return event


async def async_generator(event):
    yield event


def generator(event):
    yield event


@pytest.mark.parametrize(
    ("function", "takes_delivery"),
    [
        (one, False),
        (two, True),
        (lambda event, *, extra=1: event, False),
        (lambda event, extra=1: event, False),
        (lambda event, delivery=None: event, True),
        (lambda event, anything: event, True),
        (lambda *args: args, False),
        (lambda *args, **kwargs: args, False),
        (lambda event, *args: event, False),
        (functools.partial(two, delivery=1), False),
        (functools.partial(lambda first, event, delivery: event, 1), True),
        (Callable(), True),
        (Callable().method, False),
        (passing_on(one), False),
        (passing_on(two), True),
        (passing_on(passing_on(two)), True),
        (with_session(two), False),
        (passing_on(with_session(two)), False),
        (print, False),
    ],
)
def test_a_function_is_called_with_the_event_and_the_delivery(function, takes_delivery):
    """A function is called with the event, and with the delivery if it has a parameter for it."""
    made = handler(every=True, name="h")(function)
    assert made.takes_delivery is takes_delivery
    made(*(["event", "delivery"] if takes_delivery else ["event"]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "it takes 0 arguments; it is called as (event) or (event, delivery)"),
        (lambda a, b, c: None, "it takes 3 arguments"),
        (lambda event, *, must: None, "it has keyword-only arguments without a default"),
        (lambda event, *, delivery=None: None, "delivery is keyword-only, but it is called as (event, delivery)"),
        (lambda **kwargs: None, "it takes 0 arguments"),
        (coroutine, "`async def` and generators are not supported"),
        (async_generator, "`async def` and generators are not supported"),
        (generator, "`async def` and generators are not supported"),
        (passing_on(coroutine), "`async def` and generators are not supported"),
        (functools.partial(coroutine), "`async def` and generators are not supported"),
        (Async(), "`async def` and generators are not supported"),
        (Callable, "@handler must decorate a function, not <class"),
        (handler(every=True)(one), "@handler must decorate a function, not Handler("),
        (3, "@handler must decorate a function, not 3"),
        (None, "@handler must decorate a function, not None"),
    ],
)
def test_functions_that_could_not_run_are_rejected(function, message):
    """A handler that could only fail, or never run, is refused when it is declared."""
    with pytest.raises(HandlerError, match=re.escape(message)):
        handler(every=True, name="h")(function)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "it listens to nothing: give callback_class=, process_key= or every=True"),
        ({"callback_class": []}, "it listens to nothing"),
        ({"versions": ">=3"}, "it listens to nothing"),
        ({"callback_class": ""}, "selectors must be strings that are not empty, not ''"),
        ({"callback_class": ["a", ""]}, "selectors must be strings that are not empty, not ''"),
        ({"process_key": 3}, "process_key= must be a string or a list of strings, not 3"),
        ({"process_key": [3]}, "process_key= must be a string or a list of strings, not [3]"),
        ({"process_key": [["a"]]}, "process_key= must be a string or a list of strings, not [['a']]"),
        ({"process_key": {"a"}}, "process_key= must be a string or a list of strings, not {'a'}"),
        ({"process_key": None}, "process_key= must be a string or a list of strings, not None"),
        ({"every": True, "source": [None]}, "source= must be a string or a list of strings, not [None]"),
        ({"every": True, "kind": ""}, "selectors must be strings that are not empty, not ''"),
        ({"every": True, "kind": None}, "selectors must be strings that are not empty, not None"),
        ({"every": 1}, "every= must be a bool, not 1"),
        ({"every": True, "versions": 3}, 'versions= must be a string such as ">=3,<5", not 3'),
        ({"every": True, "versions": "3"}, "versions= cannot be read at '3'"),
        ({"every": True, "versions": ">=3;<5"}, "versions= cannot be read at '>=3;<5'"),
        ({"every": True, "versions": ">=3,"}, "versions= cannot be read at ''"),
        ({"every": True, "versions": "~=3"}, "versions= cannot be read at '~=3'"),
        ({"every": True, "versions": ">=3.1"}, "versions= cannot be read at '>=3.1'"),
        (
            {"every": True, "retry": Retry},
            "retry= must be a Retry, not <class 'flowhooks.model.retry.Retry'>: write Retry()",
        ),
        ({"every": True, "retry": 3}, "retry= must be a Retry, not 3"),
        ({"every": True, "retry": True}, "retry= must be a Retry, not True"),
        ({"every": True, "name": "a:b"}, "name= must have 1 to 100 letters"),
        ({"every": True, "name": ""}, "name= must have 1 to 100 letters"),
        ({"every": True, "name": "x" * 101}, "name= must have 1 to 100 letters"),
        ({"every": True, "name": "a\n"}, "name= must have 1 to 100 letters"),
        ({"every": True, "name": 3}, "name= must have 1 to 100 letters"),
        ({"every": True, "probe": 3}, "probe= must be a function of (event, delivery), not 3"),
        ({"every": True, "probe": one}, "probe= is called as (event, delivery)"),
        ({"every": True, "probe": coroutine}, "`async def` and generators are not supported"),
        ({"every": True, "order_by": "x"}, "order_by= must be 'business_key' or 'process_key', not 'x'"),
        ({"every": True, "order_by": ""}, "order_by= must be 'business_key' or 'process_key', not ''"),
        ({"every": True, "order_by": 1}, "order_by= must be 'business_key' or 'process_key', not 1"),
        ({"every": True, "order_by": ["process_key"]}, "order_by= must be 'business_key' or 'process_key', not ['proc"),
        ({"every": True, "concurrency": 0}, "concurrency= must be a whole number from 1 to 1000, not 0"),
        ({"every": True, "concurrency": -1}, "concurrency= must be a whole number from 1 to 1000, not -1"),
        ({"every": True, "concurrency": True}, "concurrency= must be a whole number from 1 to 1000, not True"),
        ({"every": True, "concurrency": "2"}, "concurrency= must be a whole number from 1 to 1000, not '2'"),
        ({"every": True, "concurrency": 2.0}, "concurrency= must be a whole number from 1 to 1000, not 2.0"),
        ({"every": True, "concurrency": 1001}, "concurrency= must be a whole number from 1 to 1000, not 1001"),
        ({"every": True, "rate": "10"}, 'such as "10/s", "0.5/m" or "100/h", from one a day to 1000/s, not \'10\''),
        ({"every": True, "rate": 10}, "rate= must be a number of attempts per second, minute or hour"),
        ({"every": True, "isolation": "x"}, "isolation= must be 'thread' or 'process', not 'x'"),
        ({"every": True, "isolation": ["process"]}, "isolation= must be 'thread' or 'process', not ['process']"),
        ({"every": True, "timeout": 0}, "timeout= must be a number of seconds, more than 0 and at most 86400, not 0"),
        (
            {"every": True, "timeout": True},
            "timeout= must be a number of seconds, more than 0 and at most 86400, not True",
        ),
        ({"every": True, "timeout": float("nan")}, "timeout= must be a number of seconds"),
        ({"every": True, "timeout": "3"}, "timeout= must be a number of seconds"),
        ({"every": True, "memory_mib": 128}, 'memory_mib= needs isolation="process"'),
        (
            {"every": True, "isolation": "process", "memory_mib": 63},
            "memory_mib= must be a whole number of mebibytes from",
        ),
        (
            {"every": True, "isolation": "process", "memory_mib": 64.0},
            "memory_mib= must be a whole number of mebibytes",
        ),
    ],
)
def test_invalid_declarations(given_, message):
    """The error names the function, its place and the mistake."""
    with pytest.raises(HandlerError) as raised:
        handler(**given_)(one)
    assert message in str(raised.value)
    assert f"({__file__}:{one.__code__.co_firstlineno}): " in str(raised.value)


def test_a_lambda_needs_an_explicit_name():
    """A lambda needs an explicit name."""
    with pytest.raises(HandlerError, match="name= must have 1 to 100 letters"):
        handler(every=True)(lambda event: None)


def test_a_declared_handler_can_still_be_called():
    """The result is a Handler that can still be called like the function."""
    made = handler(
        callback_class=["C", "D", "C"],
        process_key="k",
        versions=" >= 3 , < 5 ",
        source=("hr",),
        kind="cancel",
        retry=Retry(attempts=2),
        probe=two,
    )(one)
    assert isinstance(made, Handler)
    assert (made.name, made.id, made.retry, made.probe) == ("one", ":one", Retry(attempts=2), two)
    assert made.selectors == Selectors(
        callback_classes=("C", "D"), process_keys=("k",), versions=" >= 3 , < 5 ", sources=("hr",), kind="cancel"
    )
    assert made.summary == "One argument."
    assert made.source_location == f"{__file__}:{one.__code__.co_firstlineno}"
    assert made("event") == "event"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a:b"},
        {"selectors": "k"},
        {"retry": "x"},
        {"probe": one},
        {"order_by": "key"},
        {"concurrency": 2**70},
        {"rate": "x/y"},
        {"isolation": "fork"},
        {"timeout": -1},
        {"memory_mib": 1},
        {"function": coroutine},
    ],
)
def test_a_copy_of_a_handler_is_checked(changes):
    """A copy of a handler can be changed only to what `@handler` accepts, because a plugin may return the copy."""
    declared = handler(process_key="k", isolation="process")(one)
    with pytest.raises(HandlerError):
        replace(declared, **changes)


def test_a_copy_with_another_function_uses_its_parameters():
    """A copy passes the delivery if its own function takes it."""
    assert replace(handler(every=True)(one), function=two).takes_delivery


def test_a_function_without_source_or_docstring():
    """Without Python code the function itself is shown; without a docstring the summary is empty."""
    made = handler(every=True, name="h")(Callable())
    assert "Callable object" in made.source_location
    assert handler(every=True, name="h")(lambda event: None).summary == ""


@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        ("", {None, 0, 1, 2, 3, 4, 5}),
        ("  ", {None, 0, 1, 2, 3, 4, 5}),
        (">=3,<5", {3, 4}),
        (">3", {4, 5}),
        ("<=1", {0, 1}),
        ("==2", {2}),
        ("!=2", {0, 1, 3, 4, 5}),
        (" >= 1 , != 3 , < 5 ", {1, 2, 4}),
        (">5,<2", set()),
    ],
)
def test_version_terms(versions, taken):
    """All terms must hold; an absent version satisfies none."""
    selectors = Selectors(every=True, versions=versions)
    found = {
        v for v in (None, *range(6)) if selectors.why_filtered_out(make_event(process_definition_version=v)) is None
    }
    assert found == taken


def test_reason_of_an_event_that_does_not_match():
    """The reason describes the first condition that fails."""
    selectors = Selectors(process_keys=("k",), versions=">=3", sources=("hr", "it"))
    wanted = {"source": "hr", "process_definition_version": 3}
    assert selectors.why_filtered_out(make_event(**wanted)) is None
    assert selectors.why_filtered_out(make_event(**wanted, kind="cancel")) == "kind is 'cancel', not 'complete'"
    assert selectors.why_filtered_out(make_event(**wanted | {"source": "x"})) == "source 'x' is not one of hr, it"
    assert (
        selectors.why_filtered_out(make_event(**wanted | {"process_definition_version": 2})) == "version 2 is not >=3"
    )


texts = st.text(min_size=1, max_size=5)


@given(
    classes=st.lists(texts, max_size=3),
    keys=st.lists(texts, max_size=3),
    versions=st.sampled_from(["", ">=3,<5"]),
    sources=st.lists(texts, max_size=3),
    kind=texts,
)
def test_selectors_read_from_json_are_equal(classes, keys, versions, sources, kind):
    """Selectors read from JSON text are equal, and refuse the same events."""
    selectors = Selectors(
        callback_classes=tuple(classes),
        process_keys=tuple(keys),
        versions=versions,
        sources=tuple(sources),
        kind=kind,
        every=True,
    )
    again = Selectors.from_json(json.loads(json.dumps(selectors.to_json())))
    assert again == selectors
    event = make_event(kind=kind, source=sources[0] if sources else "x", process_definition_version=5)
    assert again.why_filtered_out(event) == selectors.why_filtered_out(event)
