"""The lines that the log of an attempt has for the records of its handler."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import threading

import pytest
import structlog

from flowhooks.model.invocation import Invocation, current_invocation
from flowhooks.observability.logging import AttemptLogHandler

OWN = {"handler": "p:h", "delivery": "d", "event_id": "e", "business_key": "4711", "attempt": 2}


@pytest.fixture
def attempt():
    """An attempt that runs in this thread."""
    invocation = Invocation("d", 2, log_fields=lambda: OWN)
    with invocation:
        yield invocation


def lines_of(attempt):
    """The records in its log without their times."""
    return [line.partition(" ")[2] for line in (attempt.log.text() or "").split("\n")]


@pytest.mark.parametrize("form", ["text", "json"])
def test_records_of_both_logging_libraries(form, attempt, stream, configure):
    """One line each with level, logger and values, without the fields of the attempt; secrets are masked."""
    configure("info", form, stream, redact=lambda text: text.replace("hunter2", "…"), pid=os.getpid())
    logging.getLogger("pay").info("paid %d of %s", 3, "hunter2", extra={"account": "hunter2", "to": "two words"})
    structlog.get_logger("pay.bank").warning("declined", business_key="4711", delivery="other", attempt=2, code=None)
    logging.getLogger("pay").debug("not logged")
    assert lines_of(attempt) == [
        "info pay: paid 3 of … account=… to='two words'",
        "warning pay.bank: declined code=None delivery_=other",
    ]
    assert attempt.log.text()[:10] in stream.getvalue()


def test_a_value_does_not_replace_a_field_of_the_attempt(attempt, stream, configure):
    """The server's log has the attempt's own fields, and a value of the same name with the suffix `_`."""
    configure("info", "json")
    logging.getLogger("pay").info("paid", extra={"handler": "mine", "business_key": ["4711"], "attempt": 2})
    record = json.loads(stream.getvalue())
    assert {name: record[name] for name in OWN} == OWN
    assert (record["handler_"], record["business_key_"]) == ("mine", ["4711"])
    assert "attempt_" not in record


def test_an_exception_has_its_traceback_in_the_server_log(attempt, configure):
    """The line has the error; the traceback is in the server's log."""
    configure("info", "json")
    try:
        {}["no such account"]
    except KeyError:
        logging.getLogger("pay").exception("failed")
    for text in ("Traceback (most recent call last):\n  nothing else", "\n"):
        structlog.get_logger("pay").error("failed", traceback=text)
    assert lines_of(attempt) == [
        "error pay: failed exception=\"KeyError: 'no such account'\"",
        "error pay: failed exception=''",
        "error pay: failed",
    ]


def test_hostile_records_add_no_line_and_no_failure(attempt, stream, configure):
    """Nothing that is logged makes a second line, or fails the handler."""

    class Logs:
        """Logs while it is shown."""

        def __repr__(self):
            logging.getLogger("pay").info("inner")
            return "shown"

    class Raises:
        """Cannot be shown."""

        def __repr__(self):
            raise ValueError("no")

    configure("info", "json")
    log = logging.getLogger("pay")
    log.info("\x1b[2J\0\ud800\nforged: line", extra={"a\nb": "c\u202e"})
    log.info("shows %s", Logs())
    log.info("shows", extra={"what": Raises()})
    log.info("takes %d", "no number")
    log.info("x" * 1_000_000)
    *lines, long = lines_of(attempt)
    assert lines == [
        r"info pay: \u001b[2J\u0000\ud800\nforged: line a\nb='c\u202e'",
        "info pay: inner",
        "info pay: shows shown",
        "info pay: shows what='<Raises that cannot be shown>'",
        "info pay: log_record_unreadable template='takes %d' arguments=['no number'] problem=TypeError",
    ]
    assert long.startswith("info pay: xxx")
    assert len(attempt.log.text()) < 3_000


def test_a_value_that_logs_itself_recursively(attempt, configure):
    """It fails as without flowhooks, and the log stays within its bounds."""

    class Endless:
        """Logs itself while it is shown."""

        def __repr__(self):
            logging.getLogger("pay").info("again", extra={"what": self})
            return "shown"

    configure("info", "json")
    logging.getLogger("pay").info("first", extra={"what": Endless()})
    assert len(lines_of(attempt)) <= 51


def test_a_thread_needs_a_copy_of_the_context(attempt, configure):
    """A thread of the handler adds records only if it was started with a copy of the context."""
    configure("info", "json")
    log = logging.getLogger("pay")
    for run in (contextvars.Context().run, contextvars.copy_context().run):
        thread = threading.Thread(target=run, args=(lambda: log.info("%s", current_invocation() is not None),))
        thread.start()
        thread.join()
    assert lines_of(attempt) == ["info pay: True"]


def test_a_record_outside_of_an_attempt(configure):
    """A record is only logged."""
    configure("info", "json")
    logging.getLogger("pay").info("here")
    assert current_invocation() is None


def test_records_in_the_test_kit_without_the_server_log(attempt, configure):
    """The handler of the test kit adds each record once, whether or not the log is configured, too."""
    root = logging.getLogger()
    first, second = AttemptLogHandler(lambda text: text.replace("hunter2", "…")), AttemptLogHandler(str)
    configure("info", "json")
    server = root.handlers[:]
    for handlers in ([first, second], [*server, first]):
        root.handlers[:] = handlers
        logging.getLogger("pay").warning("is %s", "hunter2")
        logging.getLogger("pay").warning("is %d", "no number")
    assert lines_of(attempt) == [
        "warning pay: is …",
        "warning pay: log_record_unreadable template='is %d' arguments=['no number'] problem=TypeError",
        "warning pay: is hunter2",
        "warning pay: log_record_unreadable template='is %d' arguments=['no number'] problem=TypeError",
    ]
