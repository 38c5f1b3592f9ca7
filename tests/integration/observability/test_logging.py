"""Log records: one line each, with the same fields from every logger."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog

from flowhooks import Delivery
from flowhooks.model.invocation import Invocation
from flowhooks.model.log_fields import MAX_CHARS, delivery_log_fields
from flowhooks.observability import logging as logs
from flowhooks.settings.secrets import redactor
from flowhooks.testing import make_event

LIBRARY = """
import structlog

from flowhooks.observability import logging as logs
from flowhooks.settings.secrets import redactor
log = structlog.get_logger("flowhooks.somewhere")
def work(value):
    log.info("event_name", key=value)
"""


def run(program: str, **options) -> subprocess.CompletedProcess:
    """The output of a new process that runs `program`."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_fields_of_a_record(stream, records, configure):
    """A record has time, level, logger and event, in this order, then its values."""
    before = dt.datetime.now(dt.UTC)
    configure("info", "json")

    structlog.get_logger("flowhooks.web").warning("request_refused", status=401, path="/flow", tries=[1, None])

    (record,) = records()
    time = dt.datetime.fromisoformat(record.pop("time"))
    assert list(record.items()) == [
        ("level", "warning"),
        ("logger", "flowhooks.web"),
        ("event", "request_refused"),
        ("status", 401),
        ("path", "/flow"),
        ("tries", [1, None]),
    ]
    assert stream.getvalue().startswith('{"time": "')
    assert re.search(r'"time": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', stream.getvalue())
    assert before - dt.timedelta(milliseconds=1) <= time <= dt.datetime.now(dt.UTC)


def test_each_record_has_the_pid_of_its_process(records, configure):
    """If several processes write to one stream, each record has one pid; another value of that name is kept."""
    configure("info", "json", pid=4711)

    log = structlog.get_logger("flowhooks.web")
    log.info("one")
    log.info("two", pid=4711)
    log.info("three", pid=4712)

    assert [{name: value for name, value in record.items() if "pid" in name} for record in records()] == [
        {"pid": 4711},
        {"pid": 4711},
        {"pid": 4711, "pid_": 4712},
    ]


def test_records_of_libraries_have_the_same_form(records, configure):
    """Records of libraries that use the standard library have the same form, with their extra values."""
    configure("info", "json")

    logging.getLogger("some.library").info("took %d of %s", 3, "them", extra={"key": "value"})

    (record,) = records()
    assert record | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "some.library",
        "event": "took 3 of them",
        "key": "value",
    }


def test_bound_values(records, configure):
    """Values bound to a logger or to the context are in each record, and arguments of an event are filled in."""
    configure("info", "json")

    with structlog.contextvars.bound_contextvars(delivery="d1"):
        structlog.get_logger("flowhooks.x").bind(handler="a:b").info("run %s", "it")

    (record,) = records()
    assert (record["event"], record["delivery"], record["handler"]) == ("run it", "d1", "a:b")


def test_records_in_a_handler_name_the_delivery_and_event(records, configure):
    """Records of any library in the handler's call have the delivery and the event, and do not replace them."""
    configure("info", "json")
    event = make_event(flow_instance_id="4711", business_key="B-17\n" + "x" * 500, source="oa")
    delivery = Delivery(id="d1", event_id=event.id, handler="p:h", attempt=2)
    invocation = Invocation("d1", 2, log_fields=lambda: {**delivery_log_fields(event, delivery), "attempt": 2})
    with invocation:
        logging.getLogger("library").warning("called")
        structlog.get_logger("p").info("mine", source="own")
    logging.getLogger("library").warning("outside")
    library, own, outside = records()
    expected = {
        "handler": "p:h",
        "delivery": "d1",
        "event_id": event.id,
        "flow_instance_id": "4711",
        "business_key": event.business_key[: MAX_CHARS - 1] + "…",
        "source": "oa",
        "attempt": 2,
    }
    assert {name: library[name] for name in expected} == expected
    assert {name: own[name] for name in expected} == expected
    assert own["source_"] == "own"
    assert outside.keys() & expected.keys() == set()


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("critical", ["critical"]),
    ],
)
@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger])
def test_levels(level, heard, get_logger, records, configure):
    """Records below the level are not logged, from flowhooks or libraries."""
    configure(level, "json")

    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(get_logger("flowhooks.x"), method)("said")

    assert [record["level"] for record in records()] == heard


def test_verbose_libraries_have_a_higher_level(records, configure):
    """Verbose libraries are logged only from a higher level, even at the level debug."""
    configure("debug", "json")

    for name in ("waitress.queue", "alembic.runtime.migration", "sqlalchemy.engine.Engine", "waitress"):
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "said")

    assert [(record["logger"], record["level"]) for record in records()] == [
        ("waitress.queue", "error"),
        ("alembic.runtime.migration", "warning"),
        ("alembic.runtime.migration", "error"),
        ("sqlalchemy.engine.Engine", "warning"),
        ("sqlalchemy.engine.Engine", "error"),
        ("waitress", "info"),
        ("waitress", "warning"),
        ("waitress", "error"),
    ]


def test_a_second_configure_replaces_stream_level_and_format(records, configure):
    """Configuring again replaces the stream, the level and the format, also for loggers already in use."""
    log = structlog.get_logger("flowhooks.x")
    log.debug("before")
    configure("debug", "json")
    log.debug("first")
    second = io.StringIO()
    configure("info", "text", second)
    log.debug("unheard")
    log.info("second")

    assert [record["event"] for record in records()] == ["first"]
    assert "second" in second.getvalue()
    assert len(second.getvalue().splitlines()) == 1


def test_tracebacks(records, configure):
    """An exception is a traceback in the same line, in each way to pass it and from every logger."""
    configure("info", "json")
    ours, theirs = structlog.get_logger("flowhooks.x"), logging.getLogger("some.library")

    try:
        raise ValueError("the reason")  # noqa: TRY301 (a traceback is wanted)
    except ValueError as error:
        ours.exception("failed")
        ours.error("failed", exc_info=error)
        theirs.exception("failed")
    ours.error("failed", exc_info=True)

    *three, none = records()
    assert all(record["traceback"].startswith("Traceback (most recent call last):\n") for record in three)
    assert all(record["traceback"].endswith("\nValueError: the reason") for record in three)
    assert "traceback" not in none


def test_a_traceback_passed_as_text(records, configure):
    """A traceback passed as text, because its secrets were masked, is logged and cut like any other."""
    configure("info", "json")
    structlog.get_logger("flowhooks.x").error("failed", traceback="Traceback …\nValueError: …")
    structlog.get_logger("flowhooks.x").error("failed", traceback="x" * 1_000_000)
    structlog.get_logger("flowhooks.x").error("failed", traceback=["no text"])

    made, long, other = records()
    assert made["traceback"] == "Traceback …\nValueError: …"
    assert len(long["traceback"]) < 100_000
    assert other["traceback_"] == ["no text"]


def test_text_format(stream, configure):
    """Text for people has time, level, event, logger and values, unescaped."""
    configure("info", "text")

    structlog.get_logger("flowhooks.x").info("event_parked", key="leave", why="no handler", 原因="无", count=2, none="")

    assert re.fullmatch(
        r"\S+Z \[info     \] event_parked +\[flowhooks.x\] key=leave why='no handler' 原因=无 count=2 none=''\n",
        stream.getvalue(),
    )


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("text", False, False)],
)
def test_the_format_fits_the_stream(form, terminal, is_json, monkeypatch, configure):
    """People at a terminal read text, programs read JSON, and the setting decides if it names one of them."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    configure("info", form, stream)

    structlog.get_logger("flowhooks.x").info("said", value=1)

    assert stream.getvalue().startswith("{") is is_json
    assert "said" in stream.getvalue()


def test_colors(monkeypatch, configure):
    """Text is coloured for a terminal, unless NO_COLOR is set; the values' own escape sequences stay inert."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    configure("info", "text", coloured)
    structlog.get_logger("flowhooks.x").info("said", value="\x1b[31mred")
    monkeypatch.setenv("NO_COLOR", "1")
    configure("info", "text", plain)
    structlog.get_logger("flowhooks.x").info("said", value="\x1b[31mred")

    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[31mred" not in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_an_exception_that_ends_a_thread_is_logged(records, configure):
    """An exception that ends a thread is logged, once; SystemExit is not."""
    configure("info", "json")

    def fail():
        raise ValueError("the reason")

    for target in (fail, sys.exit):
        thread = threading.Thread(target=target, name="worker-1")
        thread.start()
        thread.join()

    (record,) = records()
    assert (record["level"], record["event"], record["thread"]) == ("error", "thread_died", "worker-1")
    assert record["traceback"].endswith("ValueError: the reason")


def test_records_of_many_threads_do_not_mix(records, configure):
    """Records of many threads do not mix."""
    configure("info", "json")

    def say():
        for number in range(50):
            structlog.get_logger("flowhooks.x").info("said", number=number, text="x" * 500)

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(record["number"] for record in records()) == sorted(list(range(50)) * 8)


def test_records_before_configure_are_printed():
    """Library code may log before configuration, and its records are printed."""
    done = run(f"{LIBRARY}\nwork('value')")

    assert (done.returncode, done.stderr) == (0, "")
    assert "event_name" in done.stdout


def test_loggers_used_before_configure_use_its_settings():
    """A logger used before `configure` follows it afterwards."""
    done = run(
        f"{LIBRARY}\nfrom flowhooks.observability import logging as logs\n"
        "logs.configure('info', 'json')\nwork('流程')\nlogs.configure('warning', 'json')\nwork('unheard')"
    )

    assert (done.returncode, done.stdout) == (0, "")
    record = json.loads(done.stderr)
    assert (record["logger"], record["event"], record["key"]) == ("flowhooks.somewhere", "event_name", "流程")


def test_warnings_and_uncaught_errors_are_records():
    """Warnings, ignored errors and the error that ends the process are records too."""
    done = run(
        "import warnings\nfrom flowhooks.observability import logging as logs\nlogs.configure('info', 'json')\n"
        "class Leaky:\n    def __del__(self): raise ValueError('in del')\n"
        "warnings.warn('careful\\nnow')\nLeaky()\nraise KeyError('the end')"
    )

    assert done.returncode == 1
    assert done.stdout == ""
    warning, ignored, crashed = map(json.loads, done.stderr.splitlines())
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert "UserWarning: careful\nnow" in warning["event"]
    assert (ignored["event"], ignored["traceback"].split("\n")[-1]) == ("unraisable_exception", "ValueError: in del")
    assert (crashed["level"], crashed["event"]) == ("critical", "process_crashed")
    assert crashed["traceback"].endswith("KeyError: 'the end'")


def test_a_broken_pipe_does_not_stop_the_program():
    """A program continues when its log is no longer read."""
    program = (
        f"{LIBRARY}\nimport logging\n"
        "from flowhooks.observability import logging as logs\nlogs.configure('info', 'json')\n"
        "for number in range(1000): work('x' * 1000)\nlogging.shutdown()\nprint('done')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)

    # Python exits with 120 if it cannot write the rest of standard error, which it has unless PYTHONUNBUFFERED is set.
    assert done.returncode in {0, 120}
    assert done.stdout == b"done\n"


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_masked(form, stream):
    """Secrets are masked in every part of a record, from every logger, before truncation."""
    secret = "hunter2-v\u00e4rde"
    logs.configure("debug", form, stream, redact=redactor([secret]))
    ours, theirs = structlog.get_logger("flowhooks.x"), logging.getLogger("some.library")
    ours.info("sent", to=f"https://me:{secret}@example.com", headers={secret: [secret]}, raw=secret.encode())
    theirs.info("using %s", secret, extra={"key": Path(secret)})
    theirs.info("x" * (logs.MAX_VALUE_CHARS - 3) + secret)
    theirs.error("failed", exc_info=ValueError(secret))
    ours.info("sent", body=b"x" * (logs.MAX_VALUE_CHARS - 5) + secret.encode())
    ours.error("failed", traceback="y" * (logs.MAX_TRACEBACK_CHARS // 2 - 3) + secret + "z" * logs.MAX_TRACEBACK_CHARS)
    said = stream.getvalue()
    assert "hun" not in said
    assert "using \u2026" in said or "using \\u2026" in said
    assert len(said.splitlines()) >= 5
