"""The output of handler processes is logged within limits."""

import os
from types import SimpleNamespace

import pytest

from flowhooks.execution.isolation import output_capture
from flowhooks.execution.isolation.output_capture import MAX_LINES_PER_SECOND, Output


@pytest.fixture
def at(monkeypatch):
    """A function that sets the time at which output is read, in seconds."""

    def set_time(seconds):
        monkeypatch.setattr(output_capture, "time", SimpleNamespace(monotonic=lambda: seconds))

    return set_time


def test_lines_beyond_the_limit_per_second_are_counted(logged, at):
    """Of 250 lines in a second, 100 are logged; the record of the others comes with the first line after it."""
    read_end, write_end = os.pipe()
    output = Output(read_end, handler="noisy:prints")
    at(10.0)
    os.write(write_end, b"line\n" * (MAX_LINES_PER_SECOND + 150))
    assert output.read_chunk()
    assert [record["event"] for record in logged] == ["handler_output"] * MAX_LINES_PER_SECOND
    at(11.5)
    os.write(write_end, b"later\n")
    assert output.read_chunk()
    truncated, later = logged[MAX_LINES_PER_SECOND:]
    assert (truncated["event"], truncated["lines_left_out"]) == ("handler_output_truncated", 150)
    assert (later["event"], later["text"], later["handler"]) == ("handler_output", "later", "noisy:prints")
    os.close(write_end)
    output.close()
