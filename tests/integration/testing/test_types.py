"""A type checker finds the mistakes of plugin authors, and nothing in correct plugins."""

from __future__ import annotations

import re
import subprocess
import sys

PLUGIN = """\
from typing import Any

from flowhooks import Delivery, Event, Retry, handler
from flowhooks.testing import AppFactory, stored_events


@handler(process_key="a", order_by="business_key", isolation="process", retry=Retry())
def one(event: Event) -> None: ...


@handler(process_key="b")
def two(event: Event, delivery: Delivery) -> dict[str, int]:
    return {}


@handler(process_key="c")
def untyped(event, delivery=None):  # type: ignore[no-untyped-def]
    ...


@handler(process_key="d", order_by="bussiness_key")  # wrong
def order(event: Event) -> None: ...


@handler(process_key="e", isolation="proces")  # wrong
def isolated(event: Event) -> None: ...


@handler(process_key="f")  # wrong
def other_types(event: int, delivery: str) -> None: ...


@handler(process_key="g")  # wrong
def three(event: Event, delivery: Delivery, more: str) -> None: ...


@handler(process_key="h")  # wrong
def swapped(delivery: Delivery, event: Event) -> None: ...


def test_example(flowhooks_app: AppFactory) -> None:
    app = flowhooks_app(one, settings={"one": {"url": "x"}}, sources=("erp",), receivers={"cloud": "one"})
    members: dict[str, Any] = {"kind": "annual", "days": 3}
    answer = app.post("1", kind="complete", data=members, conclusion="approved")
    app.wait_for(answer, "dead")
    app.wait_for(answer, "suceeded")  # wrong
    for event in stored_events("events.jsonl"):
        one(event)
        app.wait_for(app.post_event(event), "succeeded")
        app.post_event(event.data)  # wrong
    flowhooks_app(one, setings={})  # wrong
"""


def test_mypy_reports_exactly_the_wrong_lines(tmp_path, request):
    """Strict mypy reports each wrong line, and no other one."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    cache = request.config.cache.mkdir("mypy-of-the-template")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "plugin.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(r"^plugin\.py:(\d+): error:", ran.stdout, re.MULTILINE)}
    wrong = {number for number, line in enumerate(PLUGIN.splitlines(), start=1) if "# wrong" in line}
    assert found == wrong, ran.stdout + ran.stderr
