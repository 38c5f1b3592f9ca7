"""The twelve steps of docs/contributing/path-of-a-callback.md are what a callback does."""

from __future__ import annotations

import http.client
import re
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

import flowhooks
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "path-of-a-callback.md"
PACKAGE = Path(flowhooks.__file__).parent
LINE = re.compile(r"^(?:▶ (.+)| ?(\d+)  (\S+\.py) +(\S+)  .+)$", re.MULTILINE)


class Step(NamedTuple):
    """One step of the page."""

    thread: str
    file: str
    function: str


def steps():
    """The steps of the page, in order."""
    found, numbers, thread = [], [], ""
    for named, number, file, function in LINE.findall(PAGE.read_text("utf-8")):
        if named:
            thread = named
        else:
            numbers.append(int(number))
            found.append(Step(thread, file, function))
    assert numbers == list(range(1, 13))
    return found


def thread_kind(name):
    """The name of a thread as on the page."""
    return "I/O loop" if name == "io" else re.sub(r"-\d+$", "-N", name)


@pytest.fixture
def calls():
    """The calls and returns of the page's functions in threads that start from now on, in order."""
    wanted = {(step.file, step.function) for step in steps()}
    seen = []

    def profile(frame, event, _argument):
        code = frame.f_code
        if event not in {"call", "return"} or not code.co_filename.startswith(str(PACKAGE)):
            return
        place = Path(code.co_filename).relative_to(PACKAGE).as_posix(), code.co_qualname
        if place in wanted:
            seen.append((event, Step(thread_kind(threading.current_thread().name), *place)))

    before = threading.getprofile()
    threading.setprofile(profile)
    yield seen
    threading.setprofile(before)


@pytest.mark.sqlite
def test_a_callback_takes_the_steps_of_the_page(calls, harness, listens):
    """Each function is entered in the page's order and in its thread; the last one returns after the outcome."""
    flow = harness.open(listens(lambda event: 1, name="h"))
    server = Server(create_app(flow.app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    loop = threading.Thread(target=server.serve, name="io")
    loop.start()
    try:
        connection = http.client.HTTPConnection(server.address, timeout=WAIT_TIMEOUT)
        body = '{"businessKey": "b", "processDefinitionKey": "leave"}'
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/flow/i1/call-back/complete", body, headers)
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.close()
        loop.join(WAIT_TIMEOUT)
    *before, last = steps()
    entered = [step for event, step in calls if event == "call" and step in before]
    assert [step for index, step in enumerate(entered) if step not in entered[:index]] == before
    recorded = [index for index, (event, step) in enumerate(calls) if event == "call" and step == before[-1]]
    assert calls.index(("return", last)) > recorded[0]
    assert sys.getprofile() is None
