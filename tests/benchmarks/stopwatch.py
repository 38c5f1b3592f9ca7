"""Run a server with a stopwatch at each station of a callback.

`python stopwatch.py FILE flowhooks serve …` or `… FILE bare --port …`: when the server ends, FILE has for each thread
and station the seconds of processor time that were spent there, and the number of passes, as JSON. Calls of a station
to another station are not counted twice. The figures are processor time: a thread that waits for a lock or for the
interpreter uses none, and other load of the machine has little influence.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NUMBER = re.compile(r"-?\d+( .*)?$")
"""The pattern that joins the names of threads with the same role."""

BOTH = {
    "waitress": (
        "waitress.channel:HTTPChannel.service",
        "waitress.channel:HTTPChannel.handle_read",
        "waitress.server:BaseWSGIServer.add_task",
        "waitress.server:BaseWSGIServer.pull_trigger",
    ),
    "send": ("waitress.wasyncore:dispatcher.send",),
    "receive": ("waitress.wasyncore:dispatcher.recv",),
    "Falcon": ("falcon.app:App.__call__",),
}
BARE = BOTH | {
    "parser": ("waitress.parser:HTTPRequestParser.received",),
    "resource": ("bare:CallBack.on_post",),
    "JSON": ("falcon.request:Request.get_media",),
}
FLOWHOOKS = BOTH | {
    "parser": ("flowhooks.web.server.parser:RequestParser.received",),
    "counting": (
        "flowhooks.web.callback.middleware:CallbackMiddleware.process_request",
        "flowhooks.web.callback.middleware:CallbackMiddleware.process_response",
    ),
    "resource": ("flowhooks.web.callback.resource:CallbackResource.on_post",),
    "JSON": ("flowhooks.schema:parse",),
    "JSON Schema": (
        "flowhooks.schema.schemas:Schemas.check_body",
        "flowhooks.schema.schemas:Schemas.check_flow_instance_id",
    ),
    "event and digest": ("flowhooks.intake.accept:Intake._build_event",),
    "route": ("flowhooks.routing.router:Router.route",),
    "intake": ("flowhooks.intake.accept:Intake.accept",),
    "handover to the writer": (
        "flowhooks.ledger.group_commit:GroupCommitWriter.submit",
        "flowhooks.ledger.ledger:Ledger.wait_for",
    ),
    "batch": ("flowhooks.ledger.group_commit:GroupCommitWriter._commit",),
    "notifying waiters": (
        "concurrent.futures:Future.set_result",
        "flowhooks.ledger.transaction:WriteTransaction.run_callbacks",
    ),
    "rows of accepting": ("flowhooks.ledger.events:EventInserter.__call__",),
    "rows of settling": ("flowhooks.ledger.attempts:ResultRecorder.__call__",),
    "rows of claiming": ("flowhooks.ledger.attempts:claim",),
    "SQLAlchemy": ("sqlalchemy.engine.base:Connection.execute", "sqlalchemy.engine.base:Connection.begin"),
    "SQLite": (
        "flowhooks.ledger.database.driver_statements:execute",
        "sqlalchemy.engine.default:DefaultDialect.do_execute",
        "sqlalchemy.engine.default:DefaultDialect.do_execute_no_params",
    ),
    "commit": ("sqlalchemy.engine.default:DefaultDialect.do_commit",),
    "runner": (
        "flowhooks.execution.runners.slots:SlotPool.take",
        "flowhooks.execution.runners.slots:SlotPool.give_back",
    ),
    "dispatch": (
        "flowhooks.execution.dispatcher:Dispatcher.execute",
        "flowhooks.execution.recorder:OutcomeRecorder._on_recorded",
    ),
    "loading the event": ("flowhooks.ledger.new_event:NewEvent.load",),
    "hook and handler": ("flowhooks.plugins.plugins:Plugins.run_handler",),
}
"""The functions of each station, as `module:path`. A test imports all of them, so that a missing one is noticed."""


class Stopwatches:
    """One stopwatch for each thread and station.

    Attributes:
        threads: the names of threads without their numbers, by the system's id.
        spent: for each thread, seconds of processor time and number of calls, by station.
    """

    def __init__(self) -> None:
        self.threads: dict[int, str] = {}
        self.spent: dict[int, dict[str, list[float]]] = {}
        self._local = threading.local()

    def install(self, stations: Mapping[str, Sequence[str]]) -> None:
        """Wrap the functions of each station in a stopwatch."""
        for station, function_paths in stations.items():
            for function_path in function_paths:
                owner, name = resolve(function_path)
                setattr(owner, name, self._wrap(station, getattr(owner, name)))

    def write(self, file: Path) -> None:
        """Write the measurements."""
        file.write_text(json.dumps({"threads": self.threads, "spent": self.spent}))

    def _wrap(self, station: str, function: Callable[..., Any]) -> Callable[..., Any]:
        local, clock = self._local, time.thread_time

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                running = local.running
            except AttributeError:
                running = self._register_thread()
            started = clock()
            if running:
                running[-1][1] += started - running[-1][0]  # the caller's stopwatch is paused
            entry = [started, 0.0]
            running.append(entry)
            try:
                return function(*args, **kwargs)
            finally:
                ended = clock()
                running.pop()
                if running:
                    running[-1][0] = ended
                total = local.spent[station]
                total[0] += entry[1] + ended - entry[0]
                total[1] += 1

        return watched

    def _register_thread(self) -> list[list[float]]:
        """Register the current thread at its first call; return its empty stack of running stopwatches."""
        thread = threading.get_native_id()
        self.threads[thread] = NUMBER.sub("", threading.current_thread().name)
        self._local.spent = self.spent[thread] = defaultdict(lambda: [0.0, 0])
        self._local.running = running = []
        return running


def resolve(function_path: str) -> tuple[Any, str]:
    """Resolve `module:path`; return the object that has the function as its attribute, and the attribute's name."""
    module, _, path = function_path.partition(":")
    *owners, name = path.split(".")
    owner = import_module(module)
    for attribute in owners:
        owner = getattr(owner, attribute)
    return owner, name


def main() -> None:
    """Serve, then write the measurements."""
    file, command, *arguments = sys.argv[1:]
    sys.argv = [command, *arguments]
    stopwatches = Stopwatches()
    try:
        if command == "bare":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # otherwise the process would end without output
            stopwatches.install(BARE)
            import_module("bare").main()
        else:
            stopwatches.install(FLOWHOOKS)
            import_module("flowhooks.cli.main").main()
    finally:
        stopwatches.write(Path(file))


if __name__ == "__main__":
    main()
