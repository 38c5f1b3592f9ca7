"""Failpoints kill a process by name and number, only with the variable set, and never by a typing error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import flowhooks
from flowhooks import failpoints
from flowhooks.errors import SettingsError

PACKAGE = Path(flowhooks.__file__).parent
DELIVERY = PACKAGE.parent / "docs" / "explanation" / "delivery.md"


def ran(program, at=None):
    """A new Python process that runs this program, with the variable set to `at`."""
    environ = {name: value for name, value in os.environ.items() if name != failpoints.ENV_VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", f"from flowhooks.failpoints import hit\n{program}"],
        env=environ | ({} if at is None else {failpoints.ENV_VARIABLE: at}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_process_is_killed_at_the_nth_visit_of_the_failpoint():
    """No code runs after the kill, not even exit handlers, and the output names the point."""
    program = """
import atexit
atexit.register(print, "ended", flush=True)
try:
    for count in range(5):
        print(count, flush=True)
        hit("accept.begun")
        hit("settle.written")
finally:
    print("cleaned up", flush=True)
"""
    killed = ran(program, "settle.written:3")
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split() == ["0", "1", "2"]
    assert killed.stderr.strip() == "killed at settle.written:3, as FLOWHOOKS_FAILPOINT says"
    assert ran(program, "settle.written:6").stdout.split() == ["0", "1", "2", "3", "4", "cleaned", "up", "ended"]


def test_visits_are_counted_over_all_threads():
    """Visits of a point are counted over all threads."""
    program = """
import threading
def work():
    for _ in range(100):
        hit("answer.made")
threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
print("alive")
"""
    assert ran(program, "answer.made:800").returncode == -signal.SIGKILL
    assert ran(program, "answer.made:801").stdout == "alive\n"


def test_a_failpoint_without_the_variable_does_nothing():
    """Without the variable a point is a function that does nothing."""
    assert ran("hit('accept.begun'); hit('no such point'); print('alive')").stdout == "alive\n"
    assert failpoints.bind({})("accept.begun") is None


@pytest.mark.parametrize("text", ["", "accept", "accept.writen:1", "accept.written", "accept.written:"])
@pytest.mark.parametrize("number", ["", "0", "x", "-1", "1.5", "1 ", "٣"])
def test_an_unknown_name_or_a_missing_number_is_refused(text, number):
    """An unknown name or a missing number is refused; the message lists the failpoints."""
    whole = text + number
    if whole.startswith("accept.written:") and not number:
        whole = "accept.written:"
    with pytest.raises(SettingsError) as refused:
        failpoints.parse_env(whole)
    assert "FLOWHOOKS_FAILPOINT" in str(refused.value)
    if not whole.startswith("accept.written"):
        assert all(name in str(refused.value) for name in failpoints.FAILPOINTS)


def test_every_command_with_failpoints_refuses_a_wrong_variable(tmp_path):
    """A wrong variable is wrong usage in one line, before anything is opened."""
    environ = os.environ | {failpoints.ENV_VARIABLE: "accept.writen:1"}
    for words in (["serve"], ["db", "upgrade"], ["events", "list"]):
        refused = subprocess.run(
            [sys.executable, "-m", "flowhooks", *words, "--database", str(tmp_path / "flowhooks.db")],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert refused.returncode == 2, refused
        assert refused.stderr.startswith("Error: FLOWHOOKS_FAILPOINT names no failpoint; the failpoints are: ")
        assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_failpoint_outside_the_list_raises():
    """A point outside the list raises, because no test could name it."""
    fault = ran("hit('accept.writen')", "accept.written:1")
    assert fault.returncode == 1
    assert "there is no failpoint accept.writen" in fault.stderr


def test_the_list_and_the_code_name_the_same_failpoints():
    """Each point in the code is listed, and each listed point is in the code."""
    named = {
        name
        for file in PACKAGE.rglob("*.py")
        if file.name != "failpoints.py"
        for name in re.findall(r'(?:hit\(|hit, |failpoint=)"([^"]*)"', file.read_text())
    }
    assert named == set(failpoints.FAILPOINTS)


def test_the_documentation_names_the_result_of_a_crash_at_each_failpoint():
    """Each point is in the table of the crashes, by its name or as `group.*`, and each name there is a point."""
    table = DELIVERY.read_text().partition("| killed | result | point |")[2].partition("\n\n")[0]
    names = re.findall(r"`([a-z_]+\.[a-z_*]+)`", "\n".join(row.split("|")[3] for row in table.splitlines()[2:]))
    points = {name: {point for point in failpoints.FAILPOINTS if fnmatch(point, name)} for name in names}
    assert all(points.values()), points
    assert set().union(*points.values()) == set(failpoints.FAILPOINTS)
