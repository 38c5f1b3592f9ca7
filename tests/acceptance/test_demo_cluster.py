"""`make demo-cluster` shows what its text announces, and leaves no process running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "tests/support/demo_cluster.py"]

pytestmark = pytest.mark.postgresql


@pytest.fixture
def demonstration():
    """The running demonstration; after a time limit it is interrupted, so that it cleans up."""
    process = subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    too_long = threading.Timer(240, process.send_signal, [signal.SIGINT])
    too_long.start()
    yield process
    too_long.cancel()
    process.send_signal(signal.SIGINT)
    process.wait()
    process.stdout.close()


def is_running(pid):
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_other_workers_rerun_attempts_of_a_killed_worker(demonstration):
    """Other workers rerun a killed worker's attempts, every callback has an outcome, and the counts balance."""
    said, _ = demonstration.communicate()
    assert demonstration.returncode == 0, said
    assert "The counts balance." in said
    counts = {what.strip(): int(count.replace(",", "")) for what, count in re.findall(r"│ (.+?) │ +([\d,]+) │", said)}
    assert counts["callbacks sent"] == counts["received and stored"] > 0
    assert counts["deliveries tried again"] > 0
    assert not [pid for pid in map(int, re.findall(r"process (\d+)", said)) if is_running(pid)]


@pytest.mark.long
def test_the_demonstration_can_be_stopped_at_any_time(demonstration):
    """Ctrl-C at any time ends all processes of the demonstration and removes the database."""
    said = []
    for line in demonstration.stdout:
        said.append(line)
        if "worker 3: process" in line:
            demonstration.send_signal(signal.SIGINT)
    assert demonstration.wait() == 130, said
    pids = [int(pid) for pid in re.findall(r"process (\d+)", "".join(said))]
    assert len(pids) == 5
    assert not [pid for pid in pids if is_running(pid)]
    assert "Traceback" not in "".join(said)
    for folder in re.findall(r"/\S*/flowhooks-pg-[^/\s]*", "".join(said)):
        assert not Path(folder).exists()
