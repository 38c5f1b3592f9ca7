"""The log of an attempt: its bounds, and hostile text."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from flowhooks.model.attempt_log import MAX_BYTES, MAX_LINE_CHARS, MAX_RECORDS, AttemptLog


def text_of(*lines):
    """The text of a log with these records."""
    log = AttemptLog()
    for line in lines:
        log.add(line)
    return log.text()


def test_an_attempt_without_records_has_no_log():
    """Nothing is stored of it."""
    assert text_of() is None
    assert text_of("") == ""


def test_the_last_records_are_stored_and_earlier_records_counted():
    """The first line says how many are left out; exactly the maximum needs no such line."""
    lines = [f"record {number}" for number in range(10_000)]
    assert text_of(*lines[:MAX_RECORDS]) == "\n".join(lines[:MAX_RECORDS])
    assert text_of(*lines) == "\n".join(["(9,950 earlier records left out)", *lines[-MAX_RECORDS:]])


def test_the_size_of_an_attempt_log_is_limited():
    """Records of many bytes displace earlier ones; a long one is cut and displaces only some."""
    wide = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 1_000_000
    stored = text_of(*(["short"] * 3), wide, *(["short"] * 3))
    assert stored.split("\n") == [*(["short"] * 3), wide[: MAX_LINE_CHARS - 1] + "…", *(["short"] * 3)]
    stored = text_of(*([wide] * MAX_RECORDS))
    assert MAX_BYTES - 3 * MAX_LINE_CHARS - 64 < len(stored.encode()) <= MAX_BYTES
    first, *others = stored.split("\n")
    assert first == f"({MAX_RECORDS - len(others)} earlier records left out)"
    assert len(text_of(*(["x" * MAX_LINE_CHARS] * 9)).encode()) <= MAX_BYTES


def test_hostile_text_is_one_printable_line():
    """Escape sequences, NUL, lone surrogates, line separators and marks that reverse text are escaped."""
    stored = text_of("\x1b[2J\0\ud800\n(1 earlier records left out)\r\u2028\u202e", "\0" * 1_000_000)
    first, second = stored.split("\n")
    assert first == r"\u001b[2J\u0000\ud800\n(1 earlier records left out)\r\u2028\u202e"
    assert second.startswith(r"\u0000\u0000")
    assert len(second) == MAX_LINE_CHARS


def test_several_threads_add_records_to_an_attempt_log():
    """None is lost or counted twice, and the log can be read meanwhile."""
    log, ready = AttemptLog(), threading.Barrier(5)

    def write(number):
        ready.wait()
        for _ in range(1_000):
            log.add(str(number))

    with ThreadPoolExecutor() as threads:
        written = [threads.submit(write, number) for number in range(4)]
        ready.wait()
        while not all(future.done() for future in written):
            log.text()
        for future in written:
            future.result()
    assert log.text().startswith("(3,950 earlier records left out)\n")
