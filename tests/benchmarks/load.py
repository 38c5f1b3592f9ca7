"""Load by wrk: many concurrent callbacks, and the results."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

SCRIPT = Path(__file__).with_name("callbacks.lua")
INSTALL_HINT = "wrk is not installed: apt-get install wrk (Debian, Ubuntu) or brew install wrk (macOS)"
RESULT = "RESULT "
PATH = ("/flow/", "/call-back/complete")
"""The parts before and after the flowInstanceId in a path of the contract."""


class LoadError(Exception):
    """The load failed, or its responses make its figures worthless."""


class NoResponses(LoadError):
    """No response arrived in the time of the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of one run of wrk.

    Attributes:
        counted: the counted responses: all, or with status 200 alone if requested.
        later: responses with status 202 if responses were counted by status; otherwise 0.
        seconds: the duration of the run.
        p50: milliseconds within which half of the responses arrived.
        p99: milliseconds within which 99 of 100 responses arrived.
        processor: microseconds of processor time for each request, until all work was done; 0 if it was not measured.
    """

    counted: int
    later: int
    seconds: float
    p50: float
    p99: float
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Counted responses per second."""
        return self.counted / self.seconds


def is_installed() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(
    url: str,
    *,
    connections: int,
    seconds: float,
    prefer: str = "",
    classes: int = 1,
    only_200: bool = False,
    path: tuple[str, str] = PATH,
    size: int = 0,
    token: str = "",
    values: bool = False,
    cores: Collection[int] = (),
) -> Load:
    """Post callbacks over `connections` connections for about `seconds` seconds.

    Args:
        url: root of the server, such as `http://127.0.0.1:8080`.
        connections: persistent connections; each waits for its response before it posts again.
        seconds: the duration, rounded to whole seconds, at least 1.
        prefer: value of the `Prefer` header; none by default.
        classes: how many `callBackProcessClass`es to spread the callbacks over, the first one plain.
        only_200: count responses with status 200 alone.
        path: the parts of the path before and after the flowInstanceId. Without a second part the path is a fixed URL:
            the id is the member `id` of the body, beside the status 2.
        size: the approximate bytes of each body; larger bodies have more variables. Minimum and default: about 230.
        token: a bearer token; by default none.
        values: whether each body has the members `amount` and `vendor`, with values that differ; not at a fixed URL.
        cores: the cores on which wrk runs; default: all.

    Raises:
        LoadError: a response was an error (no 4xx or 5xx is ever counted), or a connection broke.
    """
    count = "count" if only_200 else ""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
    mode = [secrets.token_hex(6), prefer, str(classes), count, *path, str(size), token, "values" if values else ""]
    arguments = ["-s", str(SCRIPT), url, "--", *mode]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        try:
            output, problems = process.communicate(timeout=seconds + 120)
        except BaseException:
            process.kill()
            raise
    return parse_output(output, only_200=only_200, problems=problems)


def parse_output(output: str, *, only_200: bool, problems: str = "") -> Load:
    """Parse the output of wrk.

    Raises:
        LoadError: see `run`.
    """
    line = next((line for line in output.splitlines() if line.startswith(RESULT)), None)
    if line is None:
        raise LoadError(f"wrk printed no result: {(problems or output).strip()[-500:]}")
    result = json.loads(line.removeprefix(RESULT))
    if result["refused"] or result["broken"] or result["other"]:
        raise LoadError(f"{result['refused']} answers were errors, {result['broken']} connections broke: {line}")
    if not result["requests"]:
        raise NoResponses("nothing was answered")
    return Load(
        counted=result["ok"] if only_200 else result["requests"],
        later=result["accepted"],
        seconds=result["microseconds"] / 1e6,
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
    )
