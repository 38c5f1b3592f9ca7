"""The resource that sends the events of a search as a file."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, Final

import structlog

from flowhooks.clock import to_datetime
from flowhooks.errors import FlowhooksError, LedgerUnusable, Unavailable
from flowhooks.operations.context import Actor
from flowhooks.operations.event_export import MAX_EVENTS, Bodies, EventExport, ExportFormat, ExportRequest
from flowhooks.operations.export_audit import ExportAudit
from flowhooks.web import errors
from flowhooks.web.admin.api.parameters import AFTER, FILTER, cursor_from_query, searched_filter
from flowhooks.web.admin.api.query import Parameter, parse_boolean, parse_integer, parse_query
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.admin.console.urls import EXPORT_PATH
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import is_page
from flowhooks.web.server.thread_pool import spare_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.operations.access import Access

MAX_EXPORTS: Final = 4
"""Maximum number of exports that a process sends at once. Each one has a thread while its client reads."""
_MEDIA_TYPES: Final[Mapping[ExportFormat, str]] = {
    ExportFormat.CSV: "text/csv",
    ExportFormat.JSON_LINES: "application/x-ndjson",
}

_log = structlog.get_logger(__name__)


class FileResource(Resource):
    """A resource that is answered with a file.

    Attributes:
        media_types: the media types of its files.
        console_path: its path for the links of the console.
    """

    media_types: ClassVar[tuple[str, ...]]
    console_path: ClassVar[str]


class EventExportResource(FileResource):
    """`GET /api/events/export`, and the download of the console."""

    path = "/api/events/export"
    console_path = EXPORT_PATH
    description = (
        "The events of a search with their deliveries as a file, newest first, at most 100,000. If there are more, the "
        "last line says after which event to continue. / 查询到的事件及其投递，以文件形式返回，最新的在前，"
        "最多 100,000 个。如有更多，最后一行注明从哪个事件之后继续。"
    )
    parameters = (
        Parameter(
            name="format",
            description="csv: one row for each delivery, for spreadsheets. jsonl: one event on each line, as JSON. / "
            "csv：每次投递一行，用于电子表格；jsonl：每行一个事件，JSON 格式。",
            schema={"type": "string", "enum": [item.value for item in ExportFormat], "default": "jsonl"},
        ),
        Parameter(
            name="bodies",
            description="Whether to include the bodies. / 是否包含请求体。",
            schema={"type": "boolean", "default": False},
        ),
        Parameter(
            name="masked",
            description="Whether to include the bodies with other values of the same shape, and other ids. / "
            "是否包含脱敏的请求体：值被替换，形式不变，ID 也被替换。",
            schema={"type": "boolean", "default": False},
        ),
        Parameter(
            name="limit",
            description="Maximum number of events, the newest ones. / 最多返回的事件数，从最新的开始。",
            schema={"type": "integer", "minimum": 1, "maximum": MAX_EVENTS},
        ),
        *FILTER,
        AFTER,
    )
    media_types = tuple(_MEDIA_TYPES.values())
    for_limited_roles = for_masked_roles = True

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._free = threading.BoundedSemaphore(MAX_EXPORTS)

    def on_get(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        """Send the file while it is written."""
        query = parse_query(request, self.parameters)
        if not self._free.acquire(blocking=False):
            raise Unavailable("too_many_exports", limit=MAX_EXPORTS)
        body = _FileBody(self._free.release)
        try:
            export = self._export(query, operator_of(request).access)
            body.parts = self._parts(export, request)
            # The audit entry is stored and the first page is read before the response starts, so that an error still
            # has its status.
            body.start()
            response.set_headers(self._headers(query))
            response.stream = body
        except LedgerUnusable as error:
            body.close()
            _log.warning("api_request_failed", path=errors.raw_path(request.env), why=str(error))
            raise Unavailable("ledger_unread") from None
        except BaseException:
            body.close()
            raise

    def on_head(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        """Answer with the headers of the file."""
        response.set_headers(self._headers(parse_query(request, self.parameters)))

    def _export(self, query: Mapping[str, list[str]], access: Access) -> EventExport:
        masked, criteria = _flag(query, "masked"), {name: query[name] for name in _FILTER_NAMES if name in query}
        event_filter = searched_filter(criteria, self.app, access)
        request = ExportRequest(
            event_filter=event_filter,
            export_format=_format(query),
            # A caller that asks for both gets no value of a body.
            bodies=Bodies.MASKED if masked else Bodies.STORED if _flag(query, "bodies") else Bodies.NONE,
            max_events=parse_integer("limit", query["limit"][0], low=1, high=MAX_EVENTS)
            if "limit" in query
            else MAX_EVENTS,
            before=cursor_from_query(query),
        )
        return EventExport(self.app.ledger, request, access=access)

    def _parts(self, export: EventExport, request: falcon.Request) -> Generator[bytes, None, None]:
        audit = self._audit(export, request)
        is_complete = False
        # A client that reads slowly must take no thread from other requests.
        with spare_thread(request.env):
            try:
                audit.start()
            except FlowhooksError:
                raise Unavailable("export_not_recorded") from None
            try:
                yield from export
                yield export.cut_mark()
                is_complete = True
            finally:
                _log.info(
                    "events_exported",
                    operator=operator_of(request).name,
                    address=request.remote_addr or "",
                    bodies=export.request.bodies.value,
                    events=export.written,
                    complete=is_complete,
                )
                audit.end(events=export.written, is_complete=is_complete)

    def _audit(self, export: EventExport, request: falcon.Request) -> ExportAudit:
        operator = operator_of(request)
        return ExportAudit(
            self.app.ledger,
            self.app.clock,
            Actor(operator.name, "console" if is_page(request.path) else "api"),
            role=operator.role_name or operator.role.value,
            address=request.remote_addr or "",
            request=export.request,
        )

    def _headers(self, query: Mapping[str, list[str]]) -> dict[str, str]:
        export_format = _format(query)
        name = f"flowhooks-events-{to_datetime(self.app.clock.now()):%Y%m%dT%H%M%SZ}.{export_format}"
        return {
            **dict(errors.HEADERS),
            "Content-Type": f"{_MEDIA_TYPES[export_format]}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
        }


FILES: Final[tuple[type[FileResource], ...]] = (EventExportResource,)
"""All resources that are answered with a file."""
_FILTER_NAMES: Final = tuple(parameter.name for parameter in FILTER)


class _FileBody:
    """The parts of a response, of which the first one is known. `close` is called once the response has ended."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close: Callable[[], None] | None = on_close
        self._first = b""
        self.parts: Generator[bytes, None, None] = _no_parts()

    def start(self) -> None:
        self._first = next(self.parts, b"")

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self.parts

    def close(self) -> None:
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        try:
            self.parts.close()
        finally:
            on_close()


def _no_parts() -> Generator[bytes, None, None]:
    yield from ()


def _format(query: Mapping[str, list[str]]) -> ExportFormat:
    value = query.get("format", [ExportFormat.JSON_LINES.value])[0]
    if value not in set(ExportFormat):
        raise errors.LocalizedHTTPError(422, "query_choice", name="format", values=", ".join(ExportFormat))
    return ExportFormat(value)


def _flag(query: Mapping[str, list[str]], name: str) -> bool:
    return name in query and parse_boolean(name, query[name][0])
