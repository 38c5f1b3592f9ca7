"""A server that responds like Flowable's REST API, with a history in memory, and with other responses on request."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CREDENTIAL = "Basic cmVzdDpzZWNyZXQ="
"""rest:secret"""
START = datetime(2026, 11, 27, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
END_EVENTS = {"completed": "approved", "terminate": "stopped", "error": "fraud"}
TYPES = {str: "string", bool: "boolean", int: "integer", float: "double", dict: "json", list: "json"}


@dataclass
class Reply:
    """A response in place of Flowable's.

    Attributes:
        status: its status.
        body: its body.
        headers: its header fields besides Content-Length and Date.
        hangs: whether the body's last byte never arrives.
        drips: whether bytes of the body arrive without end.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    hangs: bool = False
    drips: bool = False


class FlowableStandIn:
    """The state of the server. Attributes may be changed while it runs.

    Attributes:
        rows: the process instances by id, as the API shows them.
        definitions: the process definitions, as the API shows them.
        models: BPMN models by the id of their definition.
        requests: the requests that arrived: method, path, query or body.
        replies: the responses to the next requests, in place of Flowable's.
        knows_names: whether it reads `includeProcessVariablesNames`, as Flowable does since 7.2.
        max_rows: the maximum number of rows of a response; None: no maximum.
        reports_total: whether a response has the total number of results.
        keeps_history: whether it has a history.
        keeps_variables: whether its history has variables.
        before_answer: called before each response.
        clocks_back_at: when its local time goes back by an hour: as Flowable, it stores and compares local times, and
            interprets a time that exists twice as the later time; None: never.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.definitions: list[dict[str, Any]] = []
        self.models: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.replies: list[Reply] = []
        self.credential: str = CREDENTIAL
        self.knows_names = True
        self.max_rows: int | None = None
        self.reports_total = True
        self.keeps_history = True
        self.keeps_variables = True
        self.before_answer: Callable[[], object] = lambda: None
        self.clocks_back_at: datetime | None = None
        self.stopping = threading.Event()
        self.url = ""
        self._ids = 0

    def define(self, key: str, version: int = 1, tenant: str = "") -> str:
        """Deploy a definition; return its id."""
        self._ids += 1
        definition = f"{key}:{version}:d{self._ids}"
        self.definitions.append(
            {"id": definition, "key": key, "version": version, "name": key.title(), "tenantId": tenant}
        )
        return definition

    def start(
        self,
        definition: str = "leave:1:d0",
        variables: dict[str, Any] | None = None,
        *,
        instance: str = "",
        **members: Any,
    ) -> str:
        """Start an instance that waits; return its id."""
        self._ids += 1
        instance = instance or f"i{self._ids:06}"
        self.rows[instance] = {
            "id": instance,
            "businessKey": None,
            "businessStatus": None,
            "processDefinitionId": definition,
            "startTime": "2026-11-27T08:00:00.000Z",
            "endTime": None,
            "endActivityId": None,
            "deleteReason": None,
            "superProcessInstanceId": None,
            "variables": [
                {"name": name, "type": TYPES.get(type(value)), "value": value, "scope": "local"}
                for name, value in (variables or {}).items()
            ],
            "tenantId": "",
        } | members
        return instance

    def end(self, instance: str, at: str, *, activity: str | None = "approved", reason: str | None = None) -> str:
        """End an instance at a time such as `"2026-11-27T09:00:00.000Z"`; return its id."""
        self.rows[instance] |= {"endTime": at, "endActivityId": activity, "deleteReason": reason}
        return instance

    def answer(self, method: str, path: str, query: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the JSON of Flowable's response."""
        if match := re.fullmatch(r"repository/process-definitions/([^/]+)(/model)?", path):
            return self._definition(unquote(match[1]), model=bool(match[2]))
        results = {
            "GET management/engine": lambda: {"name": "default", "version": "7.2.0"},
            "GET repository/process-definitions": lambda: self._page(self._latest(), query),
            "POST query/historic-process-instances": lambda: self._history(query),
            "POST query/process-instances": lambda: self._running(query),
            "POST query/historic-variable-instances": lambda: self._variables(query),
        }
        answer = results.get(f"{method} {path}")
        return (200, answer()) if answer else (404, {"message": "Not found"})

    def _history(self, query: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in self.rows.values() if self.keeps_history and self._matches(row, query)]
        page = self._page(rows, query)
        return page | {"data": [self._with_variables(row, query) for row in page["data"]]}

    def _running(self, query: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in self.rows.values() if row["endTime"] is None and self._matches(row, query)]
        return self._page(rows, query)

    def _variables(self, query: dict[str, Any]) -> dict[str, Any]:
        found = [
            {"executionId": row["id"], "taskId": None, "variable": variable}
            for row in self.rows.values()
            if self.keeps_history and self.keeps_variables and self._matches(row, query)
            for variable in row["variables"]
            if query.get("variableName", variable["name"]) == variable["name"]
        ]
        return self._page(found, query)

    def _latest(self) -> list[dict[str, Any]]:
        latest = {
            (definition["key"], definition["tenantId"]): definition
            for definition in sorted(self.definitions, key=lambda definition: definition["version"])
        }
        return list(latest.values())

    def _definition(self, definition: str, *, model: bool) -> tuple[int, Any]:
        if model:
            return (200, self.models[definition]) if definition in self.models else (404, {"message": "Not found"})
        matching = [candidate for candidate in self.definitions if candidate["id"] == definition]
        return (200, matching[0]) if matching else (404, {"message": "Not found"})

    def _with_variables(self, row: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        if not query.get("includeProcessVariables"):
            return row | {"variables": []}
        names = query.get("includeProcessVariablesNames") if self.knows_names else None
        return row | {
            "variables": [variable for variable in row["variables"] if names is None or variable["name"] in names]
        }

    def _page(self, rows: list[dict[str, Any]], query: dict[str, Any]) -> dict[str, Any]:
        key = {"endTime": "endTime", "processInstanceId": "id", "id": "id"}.get(query.get("sort", ""))
        if key:
            rows = sorted(rows, key=lambda row: self._local_time(row[key]) if key == "endTime" else row[key])
        start, size = int(query.get("start", 0)), int(query.get("size", 10))
        if self.max_rows is not None:
            size = min(size, self.max_rows)
        data = [self._with_local_end_time(row) for row in rows[start : start + size]]
        return {"data": data, "start": start, "size": len(data)} | ({"total": len(rows)} if self.reports_total else {})

    def _local_time(self, text: str) -> datetime:
        """Return the local time of an instant, by the offset that applies before the clocks go back."""
        instant = datetime.fromisoformat(text)
        return instant if self.clocks_back_at is None or instant < self.clocks_back_at else instant - HOUR

    def _with_local_end_time(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.clocks_back_at is None or row["endTime"] is None:
            return row
        local = self._local_time(row["endTime"])
        moved = local + HOUR if local >= self.clocks_back_at - HOUR else local
        return row | {"endTime": moved.isoformat(timespec="milliseconds").replace("+00:00", "Z")}

    def _matches(self, row: dict[str, Any], query: dict[str, Any]) -> bool:
        ended = row["endTime"] and self._local_time(row["endTime"])
        after, before = (
            self._local_time(query[name]) if name in query else None for name in ("finishedAfter", "finishedBefore")
        )
        return (
            (not query.get("finished") or ended is not None)
            and query.get("processInstanceId", row["id"]) == row["id"]
            and row["id"] in query.get("processInstanceIds", [row["id"]])
            and (after is None or (ended is not None and ended >= after))
            and (before is None or (ended is not None and ended <= before))
        )


class _RequestHandler(BaseHTTPRequestHandler):
    """Answers requests."""

    server: _Server

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        self._answer("GET", split.path, {name: values[0] for name, values in parse_qs(split.query).items()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer("POST", self.path, body)

    def _answer(self, method: str, path: str, query: dict[str, Any]) -> None:
        stand_in = self.server.stand_in
        path = path.removeprefix("/flowable-rest/service/")
        stand_in.requests.append((method, path, query))
        stand_in.before_answer()
        if stand_in.replies:
            reply = stand_in.replies.pop(0)
        elif self.headers["authorization"] != stand_in.credential:
            reply = Reply(401)
        else:
            status, answer = stand_in.answer(method, path, query)
            reply = Reply(status, json.dumps(answer).encode())
        with suppress(OSError):  # the client has given up
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        stopping = self.server.stand_in.stopping
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.drips:
            self.end_headers()
            while not stopping.wait(0.02):
                self.wfile.write(b" ")
            return
        self.send_header("Content-Length", str(len(reply.body) + reply.hangs))
        self.end_headers()
        self.wfile.write(reply.body)
        if reply.hangs:
            stopping.wait(60)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    """The server of a stand-in."""

    def __init__(self, stand_in: FlowableStandIn, port: int) -> None:
        super().__init__(("127.0.0.1", port), _RequestHandler)
        self.stand_in = stand_in


@contextmanager
def flowable(port: int = 0) -> Iterator[FlowableStandIn]:
    """A running stand-in."""
    stand_in = FlowableStandIn()
    with _Server(stand_in, port) as server:
        stand_in.url = f"http://127.0.0.1:{server.server_port}/flowable-rest/service"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield stand_in
        finally:
            stand_in.stopping.set()
            server.shutdown()
            thread.join()
