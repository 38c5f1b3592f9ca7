"""The kit finds the faults of wrong handlers, and none in correct ones."""

from __future__ import annotations

import sqlite3
import sys
import threading

import flowhooks_contracts
import pytest

from flowhooks import FlowhooksError, Reject, Retry, State, handler, hookimpl
from flowhooks.testing import exactly_once
from flowhooks.testing.fault_injection.runner import ExactlyOnceRunner
from support.waiting import WAIT_TIMEOUT

LEAVE = {"processDefinitionKey": "leave"}

PLUGIN = """
    import sqlite3
    import threading
    from contextlib import closing
    from flowhooks import Retry, handler, hookimpl

    chosen = {{}}

    def connect():
        return sqlite3.connect(chosen["database"], timeout=20)

    def book(event):
        with closing(connect()) as connection, connection:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))

    def booked(event):
        with closing(connect()) as connection:
            query = "SELECT count(*) FROM bookings WHERE flow = ?"
            return connection.execute(query, (event.flow_instance_id,)).fetchone()[0] > 0

    def mark(delivery):
        with closing(connect()) as connection, connection:
            connection.execute("INSERT INTO seen VALUES (?)", (delivery.id,))

    def marked(delivery):
        with closing(connect()) as connection:
            return connection.execute("SELECT 1 FROM seen WHERE delivery = ?", (delivery.id,)).fetchone()

    {code}

    @hookimpl
    def configure(settings):
        chosen.clear()
        chosen.update(settings)

    @hookimpl
    def handlers():
        return [grant]
"""


ORDERED = """
newest = None

def late(event):
    return False

@handler(process_key="leave", order_by="ORDER", retry=Retry())
def grant(event, delivery):
    global newest
    if late(event):
        return
    with closing(connect()) as connection, connection:
        if connection.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (delivery.id,)).rowcount:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))
    newest = event.received_at
"""
COUNTS_ON_THE_ORDER = """

def late(event):
    return newest is not None and event.received_at < newest
"""

WORK_IN_MEMORY = """
import sqlite3
from contextlib import closing

seen = set()

def book(database, event, delivery):
    if delivery.id not in seen:
        seen.add(delivery.id)
        with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))
        len("work")
"""
CALLS_WORK = """
from flowhooks import Retry, handler, hookimpl

from acme_test.work import book

chosen = {}

@hookimpl
def configure(settings):
    chosen.update(settings)

@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    book(chosen["database"], event, delivery)

@hookimpl
def handlers():
    return [grant]
"""

IN_TURN = "change places: the earlier event, which still ran first because it is ordered, the later event, which waited"


@pytest.fixture
def tried(module, world):
    """Try a plugin whose handler `grant` is this code, killed at a few of its lines unless the test sets others."""

    def run(code, **given):
        lines = "\n".join(f"    {line}" if line else line for line in code.strip("\n").split("\n"))
        plugin = module("leave", PLUGIN.format(code=lines.strip()))
        given = {"done": world.booked, "make": LEAVE, "settings": {"database": str(world.file)}, "lines": 4} | given
        return exactly_once(plugin, **given)

    return run


def bad(report):
    """The scenarios with a fault, each with the number of times that the work was done."""
    return {(finding.scenario, finding.times, finding.verdict) for finding in report.findings if not finding.ok}


def test_a_handler_that_stores_the_id_with_its_work(tried):
    """With work and delivery id in one transaction, every scenario ran and did the work once."""
    report = tried(
        """
@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    with closing(connect()) as connection, connection:
        if connection.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (delivery.id,)).rowcount:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))
""",
        lines=20,
    )
    assert report.exactly_once, str(report)
    assert report.ok
    assert report.notes == ()
    assert list(dict.fromkeys(finding.scenario for finding in report.findings)) == [
        "baseline",
        "failure",
        "duplicate",
        "concurrent",
        "reordered",
        "crash-before",
        "crash-during",
        "crash-after",
    ]
    assert {finding.state for finding in report.findings} == {State.SUCCEEDED}
    lines = [finding.place for finding in report.findings if finding.scenario == "crash-during"]
    assert len(lines) >= 4  # including those of `connect`
    assert all(place.startswith("acme_leave.py:") for place in lines)
    assert str(report).startswith("acme_leave:grant: the work was done exactly once in every scenario\n")


def test_retry_on_work_that_is_not_idempotent(tried):
    """With `retry=` on work that is not idempotent, a kill after the work makes it twice."""
    report = tried(
        """
@handler(process_key="leave", retry=Retry())
def grant(event):
    book(event)
"""
    )
    assert not report.ok
    assert ("crash-after", 2, "twice") in bad(report)
    assert {scenario for scenario, _, _ in bad(report)} == {"crash-after"}
    said = str(report)
    assert "!  2 x  succeeded  the process is killed when the handler has returned [1]" in said
    assert (
        "[1] The business work is done twice. Its retry= declares that running it twice is safe, but it is not."
    ) in said
    assert "pass `delivery.id` as the idempotency key" in said


@pytest.mark.parametrize(
    ("steps", "times", "verdict", "words"),
    [
        pytest.param(
            *(("book(event)", "mark(delivery)"), 2, "twice", "commit both in one transaction"), marks=pytest.mark.long
        ),
        (("mark(delivery)", "book(event)"), 0, "lost", "when the handler ran again, it assumed that the work was done"),
    ],
)
def test_work_in_two_steps(tried, steps, times, verdict, words):
    """With the mark in its own transaction, a kill or failure between the two makes the work twice or never."""
    report = tried(
        f"""
@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    if marked(delivery):
        return
    {steps[0]}
    {steps[1]}
""",
        lines=20,
    )
    assert {(scenario, times, verdict) for scenario in ("crash-during", "failure")} <= bad(report)
    assert {scenario for scenario, _, _ in bad(report)} == {"crash-during", "failure"}
    assert words in str(report)


def test_deduplication_in_memory_fails_after_a_kill(tried):
    """A set in the plugin's module prevents duplicates, but not after a kill."""
    report = tried(
        """
granted = set()

@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    if delivery.id not in granted:
        granted.add(delivery.id)
        book(event)
"""
    )
    assert ("crash-after", 2, "twice") in bad(report)


def test_a_plugin_package_may_be_named_like_a_test(module, world, tmp_path):
    """Other modules of a package that is the plugin are traced and reset, although its name ends with `_test`."""
    package = tmp_path / "acme_test"
    package.mkdir()
    (package / "work.py").write_text(WORK_IN_MEMORY)
    (package / "__init__.py").write_text(CALLS_WORK)
    plugin = module("test")
    settings = {"database": str(world.file)}
    report = exactly_once(plugin, done=world.booked, make=LEAVE, settings=settings)
    assert ("crash-after", 2, "twice") in bad(report), str(report)
    twice = {finding.place for finding in report.findings if finding.verdict == "twice"}
    assert any(place.startswith("work.py:") for place in twice), str(report)


def test_data_of_a_test_module_survives_kills():
    """For a handler in a test module, the test's data survives kills, except what `forget` clears."""
    granted, bookings = set(), []

    @handler(process_key="leave", retry=Retry())
    def grant(event, delivery):
        if delivery.id not in granted:
            bookings.append(event.flow_instance_id)
            granted.add(delivery.id)

    def booked(event):
        return bookings.count(event.flow_instance_id)

    assert exactly_once(grant, done=booked, make=LEAVE, forget=granted.clear, lines=2).ok is False
    assert ("crash-during", 2, "twice") in bad(exactly_once(grant, done=booked, make=LEAVE))


def test_a_handler_that_swallows_an_error(tried):
    """The handler returns without an error, so failed work is lost without a notice."""
    report = tried(
        """
@handler(process_key="leave")
def grant(event):
    try:
        book(event)
    except Exception:
        print("never mind")
"""
    )
    assert ("failure", 0, "lost") in bad(report)
    assert {scenario for scenario, _, _ in bad(report)} == {"failure"}
    assert "Do not catch it: flowhooks then records a failed attempt." in str(report)


def test_a_handler_without_retry_needs_an_operator_after_a_kill(tried):
    """After a kill an operator must decide: the work is neither done twice nor silently lost."""
    report = tried(
        """
@handler(process_key="leave")
def grant(event):
    book(event)
"""
    )
    assert report.ok, str(report)
    assert not report.exactly_once
    held = {
        (finding.scenario, finding.times, finding.state) for finding in report.findings if finding.verdict == "held"
    }
    assert ("crash-before", 0, State.UNKNOWN) in held
    assert ("crash-after", 1, State.UNKNOWN) in held
    assert ("failure", 0, State.DEAD) in held
    said = str(report)
    assert "never done twice and never lost unnoticed; in some scenarios an operator must decide" in said
    assert "The work was done, but this is not known: the delivery is unknown" in said
    assert "declare retry=; if the handler can find out whether its work was done, give a probe=" in said


def test_a_handler_that_depends_on_the_order_of_events(tried):
    """The handler ignores older events, so of two events in the wrong order the earlier one's work is lost."""
    report = tried(
        """
newest = None

@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    global newest
    if newest is not None and event.received_at < newest:
        return
    with closing(connect()) as connection, connection:
        if connection.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (delivery.id,)).rowcount:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))
    newest = event.received_at
""",
        lines=1,
    )
    assert bad(report) == {("reordered", 0, "lost")}
    said = str(report)
    assert "!  0 x  succeeded  two events change places: the event that ran last [1]" in said
    assert "[1] The work is lost unnoticed: a later event had been delivered before it" in said


@pytest.mark.parametrize(
    ("order_by", "said"),
    [
        ("process_key", IN_TURN),
        ("business_key", "change places: the event that ran last, the event that ran first"),
    ],
)
def test_an_ordered_handler_keeps_the_order_of_its_key(tried, order_by, said):
    """Two events of one key keep their order, which the report says; events of two keys do not."""
    report = tried(ORDERED.replace("ORDER", order_by), lines=2)
    assert report.exactly_once, str(report)
    assert f"   1 x  succeeded  two events {said}\n" in str(report)


def test_an_ordered_handler_that_depends_on_the_order_of_other_keys(tried):
    """Events ordered by key may still be lost, because each event of the kit has its own key."""
    report = tried(ORDERED.replace("ORDER", "business_key") + COUNTS_ON_THE_ORDER, lines=1)
    assert bad(report) == {("reordered", 0, "lost")}
    said = str(report)
    assert "order_by= orders only events with the same business_key: other events are delivered in any order." in said


def test_an_ordered_handler_may_depend_on_the_order_of_its_key(tried):
    """An event that is lost without ordering is not lost here."""
    assert tried(ORDERED.replace("ORDER", "process_key") + COUNTS_ON_THE_ORDER, lines=1).exactly_once


def test_a_handler_that_depends_on_hidden_state(tried):
    """A handler that depends on hidden state is reported with results of unknown cause."""
    report = tried(
        """
first = None

@handler(process_key="leave", retry=Retry())
def grant(event):
    global first
    first = first or event.received_at
    if (event.received_at - first).total_seconds() < 90:
        book(event)
""",
        lines=1,
    )
    assert ("concurrent", 0, "lost") in bad(report)
    assert "the handler returned without doing the work, but does it when no fault occurs" in str(report)


def test_repeated_callbacks_are_the_same_event(tried, monkeypatch):
    """Three repeats in turn and the given number at once are all the same event."""
    came = {}
    judged = ExactlyOnceRunner._finding

    def finding(trial, scenario, event_id, *more, **named):
        came.setdefault(scenario, trial._app.app.ledger.event(event_id).repeats + 1)
        return judged(trial, scenario, event_id, *more, **named)

    monkeypatch.setattr(ExactlyOnceRunner, "_finding", finding)
    report = tried(
        """
@handler(process_key="leave", retry=None)
def grant(event):
    book(event)
""",
        lines=1,
        duplicates=5,
    )
    assert {
        finding.scenario: finding.times
        for finding in report.findings
        if finding.scenario in {"duplicate", "concurrent"}
    } == {
        "duplicate": 1,
        "concurrent": 1,
    }
    assert (came["baseline"], came["duplicate"], came["concurrent"]) == (1, 3, 5)


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        ("booked(event)", set(), "never done twice and never lost unnoticed"),
        pytest.param("None", set(), "its probe= cannot tell", marks=pytest.mark.long),
        pytest.param(
            *(
                "True",
                {("crash-before", 0, "lost"), ("crash-during", 0, "lost")},
                "returned that the work had been done",
            ),
            marks=pytest.mark.long,
        ),
        ("False", {("crash-after", 2, "twice")}, "returned False, although the work had been done"),
    ],
)
def test_correct_wrong_and_undecided_probes(tried, answer, expected, words):
    """A correct probe gives one run; a wrong one is reported, and one without an answer needs an operator."""
    report = tried(
        f"""
@handler(process_key="leave", retry=None, probe=lambda event, delivery: {answer})
def grant(event):
    book(event)
"""
    )
    assert bad(report) == expected
    assert words in str(report)
    crashed = [finding for finding in report.findings if finding.scenario.startswith("crash")]
    assert all(finding.verdict == "once" for finding in crashed) == (answer == "booked(event)")


def test_a_handler_that_catches_everything(tried):
    """A handler that catches the simulated kill continues; the report says so with the effect."""
    report = tried(
        """
@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    if delivery.attempt > 1:
        return
    try:
        book(event)
    except BaseException:
        pass
    len("more")
""",
        lines=20,
    )
    assert ("crash-during", 0, "lost") in bad(report)
    assert "it continued after the simulated kill" in str(report)


def test_locks_and_transactions_are_released_after_a_kill(tried):
    """Locks in `with` and `finally` and a transaction on an open connection are released after a kill."""
    report = tried(
        """
from contextlib import contextmanager

lock = threading.Lock()
kept = None

@contextmanager
def locked():
    with lock:
        yield

def transaction():
    global kept
    if kept is None:
        kept = sqlite3.connect(chosen["database"], timeout=20, check_same_thread=False)
    return kept

@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    with locked():
        connection = transaction()
        if connection.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (delivery.id,)).rowcount:
            connection.execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))
        connection.commit()
    lock.acquire()
    try:
        len("more")
    finally:
        lock.release()
""",
        lines=20,
    )
    crashed = [finding for finding in report.findings if finding.scenario.startswith("crash")]
    assert all(finding.verdict == "once" for finding in crashed), str(report)
    assert len(crashed) >= 10


def test_a_kill_before_a_committing_wrapper_repeats_the_work(module, world):
    """After a kill between the function and its plugin's committing wrapper, the work is not done, and repeated."""
    plugin = module(
        "wrapped",
        """
        import sqlite3
        from contextlib import closing
        from contextvars import ContextVar
        from flowhooks import Retry, handler, hookimpl

        chosen = {}
        here = ContextVar("here")

        @hookimpl
        def configure(settings):
            chosen.update(settings)

        @hookimpl(wrapper=True)
        def run_handler():
            with closing(sqlite3.connect(chosen["database"], timeout=20)) as connection:
                here.set(connection)
                outcome = yield
                connection.commit()
                return outcome

        @handler(process_key="leave", retry=Retry())
        def grant(event, delivery):
            if here.get().execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (delivery.id,)).rowcount:
                here.get().execute("INSERT INTO bookings VALUES (?)", (event.flow_instance_id,))

        @hookimpl
        def handlers():
            return [grant]
        """,
    )
    report = exactly_once(plugin, done=world.booked, make=LEAVE, settings={"database": str(world.file)}, duplicates=2)
    assert report.exactly_once, str(report)
    (commit,) = [
        f"acme_wrapped.py:{number}"
        for number, line in enumerate(sys.modules["acme_wrapped"].__loader__.get_source("acme_wrapped").split("\n"), 1)
        if "commit()" in line
    ]
    assert commit in {finding.place for finding in report.findings if finding.scenario == "crash-during"}


def test_each_kill_at_a_line_uses_a_new_process(tried):
    """Each kill is in a new process, so its place is true, and each line of the first run is reached."""
    report = tried(
        """
kept = None

def connection():
    global kept
    if kept is None:
        kept = connect()
        kept.close()
        kept = "done"
    return kept

@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    connection()
    book(event)
    return
""",
        lines=20,
    )
    assert "Not tried" not in str(report)
    killed = [finding for finding in report.findings if finding.scenario == "crash-during"]
    assert len(killed) == 12
    twice = [finding for finding in killed if finding.times == 2]
    assert twice == killed[-1:], str(report)  # only the line after the booking


def test_kills_of_a_long_handler_are_spread_evenly(world):
    """A long handler is killed at the given number of lines, including the first and the last."""

    @handler(process_key="leave", retry=Retry())
    def grant(event):
        for _ in range(50):
            len("work")
        with world.open() as connection, connection:
            query = "INSERT INTO bookings SELECT ? WHERE NOT EXISTS (SELECT 1 FROM bookings WHERE flow = ?)"
            connection.execute(query, (event.flow_instance_id,) * 2)

    report = exactly_once(grant, done=world.booked, make=LEAVE, lines=3)
    places = [finding.place for finding in report.findings if finding.scenario == "crash-during"]
    first = grant.function.__code__.co_firstlineno
    assert len(places) == 3
    assert places[0] == f"test_exactly_once.py:{first + 2}"
    assert places[-1] == f"test_exactly_once.py:{first + 6}"
    assert report.exactly_once, str(report)


@pytest.mark.parametrize(
    ("name", "key"),
    [("archive_contract", "test_flow_key"), pytest.param(None, "contract_announcement", marks=pytest.mark.long)],
)
def test_the_example_plugin(tmp_path, name, key):
    """Both contract handlers match their docstrings: one may run twice, the other has a correct probe."""
    files = {"database": str(tmp_path / "contracts.db"), "outbox": str(tmp_path / "outbox.txt")}

    def archived(event):
        if not (tmp_path / "contracts.db").exists():
            return 0
        connection = sqlite3.connect(tmp_path / "contracts.db", timeout=20)
        try:
            query = "SELECT count(*) FROM contracts WHERE flow_instance_id = ?"
            return connection.execute(query, (event.flow_instance_id,)).fetchone()[0]
        finally:
            connection.close()

    def announced(event):
        outbox = tmp_path / "outbox.txt"
        return outbox.read_text().count(f"Contract {event.business_key} was") if outbox.exists() else 0

    report = exactly_once(
        flowhooks_contracts,
        handler=name,
        done=archived if name else announced,
        make={"processDefinitionKey": key},
        settings=files,
        lines=4,
    )
    assert report.ok, str(report)
    crashed = [finding for finding in report.findings if finding.scenario.startswith("crash")]
    assert all(finding.verdict == "once" for finding in crashed), str(report)
    flowhooks_contracts.configure({})


def test_a_handler_gets_its_kind_and_source(world):
    """A handler gets the kind and source that it listens to."""

    @handler(every=True, source="hr")
    def grant(event):
        world.book(event.flow_instance_id)

    with pytest.raises(ValueError, match="no handler matches it"):
        exactly_once(grant, done=world.booked, make={})
    assert exactly_once(grant, done=world.booked, make={}, source="hr", lines=1).ok
    with pytest.raises(ValueError, match="the callback was not accepted: 404"):
        exactly_once(grant, done=world.booked, make={}, source="hr", kind="cancelled")


# Mistakes in the test itself


def test_work_that_is_not_counted_ends_the_trial(world):
    """If a plain run counts no work, nothing else is tried, and the finding states the reason."""

    @handler(process_key="leave")
    def grant(event): ...

    report = exactly_once(grant, done=world.booked, make=LEAVE)
    (finding,) = report.findings
    assert (finding.scenario, finding.verdict, report.ok) == ("baseline", "lost", False)
    assert "either the handler did nothing, or `done` does not count its work" in str(report)


def test_a_failing_plain_run_is_shown_with_its_error(world):
    """A plain run that fails is shown with its error, and is not ok: no fault was tried."""

    @handler(process_key="leave")
    def grant(event):
        raise OSError("payroll does not answer")

    report = exactly_once(grant, done=world.booked, make=LEAVE)
    assert [finding.state for finding in report.findings] == [State.DEAD]
    assert "it does not succeed even without a fault; nothing else was tried" in str(report)
    assert "OSError: payroll does not answer" in str(report)
    assert not report.ok


def test_a_rejected_plain_run_is_not_ok(world):
    """An event that the handler rejects, such as one without a field, is no event to try faults with."""

    @handler(process_key="leave")
    def grant(event):
        if "days" not in event.data:
            raise Reject("The callback has no days.")
        world.book(event.flow_instance_id)

    report = exactly_once(grant, done=world.booked, make=LEAVE)
    assert [(finding.times, finding.verdict) for finding in report.findings] == [(0, "held")]
    assert "The callback has no days." in str(report)
    assert not report.ok
    assert exactly_once(grant, done=world.booked, make=LEAVE | {"days": 3}, lines=1).ok


def test_a_plain_run_that_fails_after_its_work_is_not_ok(world):
    """A plain run that does the work and then fails is not ok either."""

    @handler(process_key="leave")
    def grant(event):
        world.book(event.flow_instance_id)
        raise TypeError("no message can be made")

    report = exactly_once(grant, done=world.booked, make=LEAVE)
    assert [(finding.times, finding.verdict) for finding in report.findings] == [(1, "held")]
    assert "TypeError: no message can be made" in str(report)
    assert not report.ok


def test_done_must_count_one_event(world):
    """A count over all events or a value that is no number is refused with a remedy."""

    @handler(process_key="leave")
    def grant(event):
        world.book("all")

    def everything(_event):
        with world.open() as connection:
            return connection.execute("SELECT count(*) FROM bookings").fetchone()[0]

    with pytest.raises(ValueError, match=r"returned 1 for an event that was not sent yet.* event.flow_instance_id"):
        exactly_once(grant, done=everything, make=LEAVE)
    with pytest.raises(ValueError, match="not True"):
        exactly_once(grant, done=lambda event: True, make=LEAVE)


def test_one_of_several_handlers_must_be_named(world):
    """One of several handlers must be named; an unknown name is reported; bodies can differ by event."""

    @handler(process_key="leave", name="one")
    def one(event):
        world.book(event.business_key)

    @handler(process_key="leave", name="two")
    def two(event): ...

    class Plugin:
        """Two handlers."""

        __slots__ = ()

        @hookimpl
        def handlers(self):
            return [one, two]

    plugin = Plugin()

    def booked(event):
        with world.open() as connection:
            query = "SELECT count(*) FROM bookings WHERE flow = ?"
            return connection.execute(query, (event.business_key,)).fetchone()[0]

    with pytest.raises(ValueError, match="choose one with handler=, one of p:one, p:two"):
        exactly_once(plugin, done=booked, make=LEAVE, name="p")
    with pytest.raises(ValueError, match="handler 'three' does not match this event"):
        exactly_once(plugin, done=booked, make=LEAVE, handler="three")
    report = exactly_once(
        plugin, done=booked, make=lambda number: LEAVE | {"businessKey": f"L-{number}"}, handler="one", lines=1
    )
    assert report.handler == "plugin:one"
    assert report.ok, str(report)


@pytest.mark.parametrize("given", [{"lines": 0}, {"duplicates": 1}])
def test_zero_lines_or_duplicates_are_refused(world, given):
    """Zero lines or duplicates are refused."""
    with pytest.raises(ValueError, match="lines must be at least 1, and duplicates at least 2"):
        exactly_once(None, done=world.booked, make=LEAVE, **given)


def test_a_quarantined_plugin_is_reported_first(tried):
    """A fault of a plugin is reported before a fault of its handler."""
    with pytest.raises(FlowhooksError, match="NameError"):
        tried("pass")


def test_no_thread_or_trace_function_remains(tried):
    """No thread and no trace function of the kit stays."""
    before = set(threading.enumerate())
    tried(
        """
@handler(process_key="leave")
def grant(event):
    book(event)
""",
        lines=2,
    )
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_TIMEOUT)
        assert not thread.is_alive(), thread.name
    assert sys.gettrace() is None or "flowhooks" not in repr(sys.gettrace())
