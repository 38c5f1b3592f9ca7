"""No memory of a server or worker is written to a file when it crashes."""

from __future__ import annotations

import re
from pathlib import Path

CORE_LIMIT = re.compile(r"^Max core file size +(\S+) +(\S+)", re.MULTILINE)


def core_limits(pid):
    """The soft and the hard limit of core files of a process."""
    return CORE_LIMIT.search(Path(f"/proc/{pid}/limits").read_text()).groups()


def test_a_server_writes_no_core_file(server):
    """Neither limit allows a core file."""
    assert core_limits(server.process.pid) == ("0", "0")
