"""The lines of a handler that are traced, and the lines before which an exception is raised."""

from __future__ import annotations

import sys
import threading

import pytest

from flowhooks import handler
from flowhooks.testing.fault_injection.line_tracer import Failure, Killed, LineTracer, belongs_to, is_test_code
from support.waiting import WAIT_TIMEOUT

CODE = """
    import json
    import threading
    from contextlib import contextmanager

    lock = threading.Lock()

    def other():
        json.dumps([1])

    class Held:
        def __enter__(self):
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    def work():
        with Held():
            other()
        lock.acquire()
        try:
            other()
        except ZeroDivisionError:
            pass
        finally:
            lock.release()
        return 1
"""


def lines_of(module, **given):
    """Lines of one module."""
    return LineTracer(module.__name__.__eq__, **given)


def test_lines_of_the_handler_are_traced(module):
    """The lines of the function and its package are traced in order, but not a library's or clean-up lines."""
    acme = module("lines", CODE)
    lines = lines_of(acme)
    with lines.trace():
        acme.work()
    text = acme.__loader__.get_source("acme_lines").split("\n")
    said = [text[int(place.rpartition(":")[2]) - 1].strip() for place in lines.places]
    assert said == [
        "with Held():",
        "lock.acquire()",
        "other()",
        "json.dumps([1])",
        "lock.acquire()",
        "other()",
        "json.dumps([1])",
        "return 1",
    ]


@pytest.mark.parametrize("error", [Killed, Failure])
def test_an_exception_before_any_line_leaves_no_lock(module, error):
    """For an exception at any line, `with` and `finally` release their locks."""
    acme = module("lines", CODE)
    for at in range(1, 9):
        lines = lines_of(acme, at=at, error=error)
        with pytest.raises(error), lines.trace():
            acme.work()
        assert len(lines.places) == at
        assert lines.reached
        assert not acme.lock.locked(), lines.places[-1]
    lines = lines_of(acme, at=9, error=error)
    with lines.trace():
        assert acme.work() == 1
    assert not lines.reached


GENERATORS = """
    import asyncio
    import threading
    from contextlib import asynccontextmanager, contextmanager

    lock = threading.Lock()

    class Held:
        async def __aenter__(self):
            lock.acquire()

        async def __aexit__(self, *_):
            lock.release()

    @contextmanager
    def held():
        with lock:
            yield

    @asynccontextmanager
    async def held_async():
        async with Held():
            await asyncio.sleep(0)
            yield

    async def wait():
        async with held_async():
            await asyncio.sleep(0)

    def work():
        with held():
            len("work")
        asyncio.run(wait())
"""


@pytest.mark.parametrize("error", [Killed, Failure])
def test_an_exception_leaves_no_lock_of_a_generator(module, error):
    """A resumed generator or coroutine exits its `with` blocks, too: the line of `with` is traced on entry only."""
    acme = module("generators", GENERATORS)
    lines = lines_of(acme)
    with lines.trace():
        acme.work()
    executed = lines.places
    text = acme.__loader__.get_source("acme_generators").split("\n")
    shown = [text[int(place.rpartition(":")[2]) - 1].strip() for place in executed]
    assert [line for line in shown if "with " in line] == [
        "with held():",
        "with lock:",
        "async with held_async():",
        "async with Held():",
    ]
    for at in range(1, len(executed) + 1):
        lines = lines_of(acme, at=at, error=error)
        with pytest.raises(error), lines.trace():
            acme.work()
        assert lines.places == executed[:at]
        assert not acme.lock.locked(), lines.places[-1]


def test_a_generator_that_outlives_its_tracer(module):
    """A generator that another tracer has started is traced by the tracer that is active when it is resumed."""
    acme = module(
        "lasting",
        """
        def numbers():
            yield 1
            yield 2
    """,
    )
    numbers = acme.numbers()
    first, second = lines_of(acme), lines_of(acme)
    for lines in (first, second):
        with lines.trace():
            next(numbers)
    assert [len(lines.places) for lines in (first, second)] == [1, 1]


def test_the_trace_function_is_restored(module):
    """An earlier tracer, such as coverage, continues; other threads are never traced."""
    acme = module("lines", CODE)
    before = sys.gettrace()
    seen = []

    def mine(frame, event, argument):
        seen.append(event)

    sys.settrace(mine)
    try:
        with lines_of(acme).trace():
            acme.other()
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)
    lines = lines_of(acme)
    with lines.trace():
        thread = threading.Thread(target=acme.work)
        thread.start()
        thread.join(WAIT_TIMEOUT)
    assert lines.places == []


def test_selection_of_traced_modules(module):
    """All modules of a plugin's package count except its tests; a test is only its own module."""
    acme = module("lines", "def work(event): ...\n")
    mine = belongs_to(handler(every=True)(acme.work))
    assert [mine(name) for name in ("acme_lines", "acme_lines.deep", "acme_lines.tests.test_it", "acme_line")] == [
        True,
        True,
        False,
        False,
    ]
    named = belongs_to(handler(every=True)(acme.work), "acme_lines")
    assert [named(name) for name in ("acme_lines.deep", "acme_lines.tests.test_it")] == [True, False]
    here = belongs_to(handler(every=True, name="here")(lambda event: None))
    assert here(__name__)
    assert not here(f"{__name__}.more")


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("acme.leave", False),
        ("acme.tests.fakes", True),
        ("test_leave", True),
        ("leave_test", True),
        ("acme.conftest", True),
        ("__main__", True),
        ("contest.latest", False),
    ],
)
def test_tests_are_recognised_by_name(name, is_test):
    """A test is recognised by its name."""
    assert is_test_code(name) is is_test


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("leave_test", False),
        ("leave_test.work", False),
        ("leave_test.tests.fakes", True),
        ("leave_test.leave_test", True),
        ("other.leave_test", True),
    ],
)
def test_the_name_of_the_plugin_does_not_make_a_test(name, is_test):
    """Only the parts below the plugin's own package are compared."""
    assert is_test_code(name, "leave_test") is is_test
