"""Follow a callback: which functions of the package it enters, in which threads and in which order."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import flowhooks
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from flowhooks.app import App

PACKAGE: Final = Path(flowhooks.__file__).parent
BODY: Final = '{"businessKey": "b", "processDefinitionKey": "leave"}'
"""A callback for a handler of the key `leave`."""


class Visit(NamedTuple):
    """A call of a function, or its return.

    Attributes:
        event: `"call"` or `"return"`.
        thread: the name of the thread, with `N` for its number.
        file: the file below `flowhooks/`.
        function: the qualified name of the function.
        caller: the file of the calling function; `""` if that is not of the package.
    """

    event: str
    thread: str
    file: str
    function: str
    caller: str


class CallbackTrace:
    """The calls and returns of the package's functions, in order, in threads that start in its `with` block.

    Attributes:
        visits: the calls and returns.
    """

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self._files: dict[CodeType, str] = {}
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = threading.getprofile()
        threading.setprofile(self._profile)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        threading.setprofile(self._previous)

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event not in {"call", "return"} or not (file := self._file(frame)):
            return
        thread = re.sub(r"-\d+$", "-N", threading.current_thread().name)
        caller = self._file(frame.f_back) if frame.f_back else ""
        self.visits.append(Visit(event, thread, file, frame.f_code.co_qualname, caller))

    def _file(self, frame: FrameType) -> str:
        code = frame.f_code
        if (file := self._files.get(code)) is None:
            path = Path(code.co_filename)
            file = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else ""
            self._files[code] = file
        return file


@contextmanager
def callback_server(app: App) -> Iterator[Callable[[str], int]]:
    """Serve callbacks for an app; yield a function that sends the callback of an instance and returns the status."""
    server = Server(create_app(app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    loop = threading.Thread(target=server.serve, name="io")
    loop.start()
    connection = http.client.HTTPConnection(server.address, timeout=WAIT_TIMEOUT)

    def send(instance: str) -> int:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/flow/{instance}/call-back/complete", BODY, headers)
        response = connection.getresponse()
        response.read()
        return response.status

    try:
        yield send
    finally:
        connection.close()
        server.close()
        loop.join(WAIT_TIMEOUT)
