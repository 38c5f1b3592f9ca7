"""Log records of values, events and streams that would break a line, fill the disk or raise."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import io
import json
import logging
import re
import uuid
from pathlib import Path

import pytest
import structlog

from flowhooks.observability import logging as logs


class Word(enum.StrEnum):
    """A subclass of str."""

    ONE = "one"


class Nasty:
    """A value whose methods all raise."""

    def __repr__(self):
        raise RuntimeError("no")


class NastyDict(dict):
    """A dict whose items cannot be read."""

    def items(self):
        """Fails."""
        raise RuntimeError("no")


CIRCLE: list = []
CIRCLE.append(CIRCLE)

VALUES = [
    ("text", "text"),
    ("line\r\nend\x00\x1b[31m\x7f\x85\u2028\u202e", "line\r\nend\x00\x1b[31m\x7f\x85\u2028\u202e"),
    ("流程", "流程"),
    ("\ud800", "\ud800"),
    (True, True),
    (None, None),
    (1.5, 1.5),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    (2**63, 2**63),
    (10**5000, "<a number of 16610 bits>"),
    (b"\x00\xff", "b'\\x00\\xff'"),
    ({1: {"a": (1, 2)}}, {"1": {"a": [1, 2]}}),
    ({1}, "{1}"),
    (Word.ONE, "one"),
    (Path("/a"), "/a"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (decimal.Decimal("1.50"), "1.50"),
    (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02 00:00:00+00:00"),
    (ValueError("no"), "ValueError('no')"),
    (Nasty(), "<Nasty that cannot be shown>"),
    ([1, Nasty()], "<list that cannot be shown>"),
    (NastyDict(a=1), "<NastyDict that cannot be shown>"),
    (CIRCLE, [[[[[["…"]]]]]]),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=map(str, range(len(VALUES))))
def test_every_value_becomes_json_on_one_line(value, shown, records, configure):
    """Every value becomes JSON on the same line; a value that JSON lacks is shown by its repr."""
    configure("info", "json")

    structlog.get_logger("flowhooks.x").info("said", value=value)

    (record,) = records()
    assert record["value"] == shown


MARKS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u200e\u200f\u2028\u2029"]
MARKS += ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\ufeff"]
MARKS += ["\ud800", "\udfff", "\U000e0041"]


@pytest.mark.parametrize("mark", MARKS, ids=ascii)
def test_characters_that_could_forge_a_line_are_escaped(mark, stream, records, configure):
    """Controls, line separators, direction marks and lone surrogates are escaped in values and names."""
    configure("info", "json")

    structlog.get_logger("flowhooks.x").info(f"said{mark}供", value=f"应{mark}商", **{f"name{mark}": mark})

    (record,) = records()
    assert (record["event"], record["value"], record[f"name{mark}"]) == (f"said{mark}供", f"应{mark}商", mark)
    assert mark not in stream.getvalue().rstrip("\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_text_of_any_language_is_found_by_a_search(stream, form, configure):
    """A search for words of an error finds its line, in an event, a value, a name or a traceback."""
    configure("info", form)
    log = structlog.get_logger("flowhooks.x")

    log.info("供应商不存在")
    log.info("said", error="ValueError: 供应商不存在", 原因=["供应商不存在"])
    log.error({"供应商不存在": 1})
    try:
        raise ValueError("供应商不存在 😀")  # noqa: TRY301 (a traceback is wanted)
    except ValueError:
        log.exception("failed")

    records = stream.getvalue().splitlines() if form == "json" else stream.getvalue().split(" [")[1:]
    assert stream.getvalue().count("供应商不存在") >= 5
    assert "😀" in stream.getvalue()
    assert "\\u" not in stream.getvalue()
    if form == "json":
        assert all("供应商不存在" in record for record in records)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_json_is_ascii_on_a_stream_that_is_not_utf_8(encoding, errors, configure):
    """On a stream that is not UTF-8 the JSON is ASCII, because Python's escapes are not JSON's."""
    raw = io.BytesIO()
    configure("info", "json", io.TextIOWrapper(raw, encoding=encoding, errors=errors))

    structlog.get_logger("flowhooks.x").info("said", value="供应商 é 😀")

    assert raw.getvalue().isascii()
    assert json.loads(raw.getvalue())["value"] == "供应商 é 😀"


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=map(str, range(len(VALUES))))
def test_every_value_becomes_one_printable_line_of_text(stream, value, shown, configure):
    """Any value as text is one printable line too."""
    configure("info", "text")

    structlog.get_logger("flowhooks.x").info("said", value=value)

    assert stream.getvalue().endswith("\n")
    assert stream.getvalue()[:-1].isprintable()
    assert " value=" in stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        "\x1b" * 10_000_000,
        b"x" * 10_000_000,
        ["x" * 5000] * 5000,
        [[[["x"] * 1000] * 1000] * 1000] * 1000,
        {f"key{number}": number for number in range(100_000)},
        {"x" * 10_000_000: 1},
        range(10**9),
    ],
    ids=["text", "escapes", "bytes", "list", "deep", "dict", "key", "range"],
)
def test_long_values_are_truncated(value, records, configure):
    """A very long value of any structure is truncated."""
    configure("info", "json")

    structlog.get_logger("flowhooks.x").info("said", value=value, after="it")

    (record,) = records()
    assert len(json.dumps(record["value"], ensure_ascii=False).replace("\\u001b", "?")) < 8 * logs.MAX_VALUE_CHARS
    assert record["after"] == "it"


def test_a_truncated_string_states_its_length(records, configure):
    """A truncated string states its length."""
    configure("info", "json")

    structlog.get_logger("flowhooks.x").info("said", value="x" * 9000, whole="y" * 8000)

    (record,) = records()
    assert re.fullmatch(r"x{8191}… \(9000 characters\)", record["value"])
    assert record["whole"] == "y" * 8000


def test_values_do_not_replace_reserved_fields(stream, configure):
    """A value with the name of a record's field does not replace it."""
    given = {"time": 1, "level": 2, "logger": 3, "traceback": 4, "exception": 5, "stack": 6, "_record": 7}

    for form in ("json", "text"):
        configure("info", form)
        structlog.get_logger("flowhooks.x").info("said", **given)

    first, text = stream.getvalue().splitlines()
    record = json.loads(first)
    assert (record["level"], record["logger"], record["event"]) == ("info", "flowhooks.x", "said")
    assert [record[f"{name}_"] for name in ("time", "level", "logger", "traceback")] == [1, 2, 3, 4]
    assert (record["exception"], record["stack"]) == (5, 6)
    assert all(f"{name}_={value}" in text for name, value in list(given.items())[:-1])


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_input_can_forge_a_record(stream, form, configure):
    """No event, name or exception can produce a line that looks like another record."""
    forged = '\n2026-01-01T00:00:00.000Z [info     ] forged\r\n{"level": "info"}\x1b[2J\u2028'
    configure("info", form)

    structlog.get_logger(f"flowhooks{forged}").info(f"said{forged}", **{f"name{forged}": forged})
    try:
        raise RuntimeError(forged)  # noqa: TRY301 (a traceback is wanted)
    except RuntimeError:
        structlog.get_logger("flowhooks.x").exception("failed")

    lines = stream.getvalue().split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if not line.startswith("    ")]) == 2


def test_a_long_traceback_is_truncated_in_the_middle(records, configure):
    """A long traceback keeps its beginning and its end."""
    configure("info", "json")

    try:
        raise ValueError("x" * 1_000_000 + "the end")  # noqa: TRY301 (a traceback is wanted)
    except ValueError:
        structlog.get_logger("flowhooks.x").exception("failed")

    (record,) = records()
    assert len(record["traceback"]) < logs.MAX_TRACEBACK_CHARS + 100
    assert record["traceback"].startswith("Traceback")
    assert record["traceback"].endswith("the end")


@pytest.mark.parametrize("form", ["json", "text"])
def test_records_with_arguments_that_do_not_fit(stream, capfd, form, configure):
    """A record whose arguments do not fit its text is logged as such, and nothing else is written."""
    configure("info", form)

    logging.getLogger("some.library").warning("%d of %d", "x")  # noqa: PLE1206 (the mistake that is tried)
    structlog.get_logger("flowhooks.x").warning("%d", "x")

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert all("log_record_unreadable" in line and "%d" in line and "TypeError" in line for line in lines)
    assert capfd.readouterr() == ("", "")


class Broken(logging.Handler):
    """A handler whose log server is down."""

    def emit(self, record):
        """Raise."""
        raise ConnectionError("the log server is down")


def test_exceptions_of_other_log_handlers_are_logged(records, configure):
    """Their exceptions are logged, and do not reach the code that logs."""
    configure("info", "json")
    logging.getLogger().addHandler(Broken())

    structlog.get_logger("flowhooks.x").info("said", value=1)

    said, failed = records()
    assert (said["event"], said["value"]) == ("said", 1)
    assert (failed["event"], failed["level"], failed["record"]) == ("log_handler_failed", "error", "said")
    assert failed["traceback"].endswith("ConnectionError: the log server is down")


def test_characters_the_stream_cannot_encode_are_escaped(configure):
    """A character that the stream cannot encode is escaped."""
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    configure("info", "text", narrow)

    structlog.get_logger("flowhooks.x").info("said", value="流程")

    assert rb"value=\u6d41\u7a0b" in raw.getvalue()


def test_logging_to_a_closed_stream_does_nothing(stream, configure):
    """Logging to a closed stream does nothing."""
    configure("info", "json")
    stream.close()

    structlog.get_logger("flowhooks.x").info("said")
    logging.getLogger("some.library").error("said")
