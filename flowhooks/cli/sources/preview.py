"""Preview a request to the fixed URL of a source: what it becomes, where it goes, and what the sender is answered.

The server's own resource answers the request. Its neighbours are replaced: the authenticator accepts every request, and
the intake routes callbacks but stores nothing. So the answer is that of a server, word for word.
"""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import falcon

from flowhooks.cli import routes_text
from flowhooks.clock import Clock
from flowhooks.errors import CallbackRejected, InvalidCallback, MalformedRequest, Unavailable
from flowhooks.intake.callback import Answer, AnswerStatus
from flowhooks.intake.config import IntakeConfig
from flowhooks.intake.ingress_request import FORM, check_media_type, decode
from flowhooks.intake.mapping import IgnoredRequest, MappedCallback, map_request
from flowhooks.model.event import ParkedBy, from_body
from flowhooks.plugins.error_text import error_line
from flowhooks.schema.cloud_events import BATCH, STRUCTURED
from flowhooks.settings import SignatureSettings
from flowhooks.settings.secrets import settings_redactor
from flowhooks.web import errors
from flowhooks.web.callback.authentication import AuthenticatedRequest, check_size
from flowhooks.web.callback.ingress import IngressResource
from flowhooks.web.callback.receivers import CALL_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flowhooks.cli.route_lookup import RouteLookup
    from flowhooks.intake.accept import Intake
    from flowhooks.intake.callback import Callback
    from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
    from flowhooks.model.receiver import ReceivedCallback, ReceivedRequest, ReceiverResponse
    from flowhooks.routing.router import Explanation
    from flowhooks.settings import IngressSettings, Settings
    from flowhooks.web.callback.authentication import Authenticator
    from flowhooks.web.callback.receivers import ReceiverCalls

MEDIA_TYPES: Final = {"json": "application/json", "form": FORM, "cloudevent": STRUCTURED}
"""`Content-Type` of a request by the format of its source, if the user gives none."""
_REJECTIONS: Final = {ParkedBy.HANDLER: "no_handler", ParkedBy.NAME: "no_name"}
_FIRST_ERROR: Final = 400
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleRequest:
    """A request to preview.

    Attributes:
        method: `"GET"` or `"POST"`.
        query: the query, percent-encoded.
        headers: values by names in lower case.
        body: the body.
    """

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def environ(self) -> dict[str, str]:
        """The headers, as WSGI names them."""
        return {SignatureSettings.environ_name(header): value for header, value in self.headers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewRoute:
    """Where a callback goes.

    Attributes:
        example: its event.
        explanation: which handlers take it, and why.
        result: as of `routes_text.outcome`.
        hints: hints at what was meant.
    """

    example: routes_text.Example
    explanation: Explanation
    result: str
    hints: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewItem:
    """The callback that one request, or one event of a batch, becomes.

    Attributes:
        mapped: the callback, or the rule that ignores the request.
        route: where the callback goes; None: it is ignored, or the request is rejected.
    """

    mapped: MappedCallback | IgnoredRequest
    route: PreviewRoute | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderAnswer:
    """The response to the sender: status, media type and body."""

    status: int
    media_type: str
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether the sender takes it for an error."""
        return self.status >= _FIRST_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The result of a preview.

    Attributes:
        items: what was made of the request, as far as it was read before an error.
        answer: what the sender is answered.
        problem: a text for the operator only, such as the exception of a receiver; `""`: nothing.
        by_receiver: whether a receiver read the request.
    """

    items: tuple[PreviewItem, ...]
    answer: SenderAnswer
    problem: str
    by_receiver: bool


def default_media_type(ingress: IngressSettings, *, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the `Content-Type` that senders of this format send; None: not known, for a receiver."""
    if ingress.format is None:
        return None
    if ingress.format == "cloudevent":
        if "ce-specversion" in headers:
            return MEDIA_TYPES["json"]
        if body.lstrip().startswith(b"["):
            return BATCH
    return MEDIA_TYPES[ingress.format]


def preview(settings: Settings, loaded: RouteLookup, name: str, request: ExampleRequest) -> Preview:
    """Preview a request to a source, whose settings have a section `ingress`.

    Args:
        settings: the settings.
        loaded: the plugins, and the look-up of routes.
        name: the name of the source.
        request: the request. Its `Accept-Language` is that of an error.
    """
    ingress = settings.sources[name].ingress
    if ingress is None:
        raise ValueError(f"{name} has no section ingress")
    intake = _RoutingIntake(settings, loaded)
    receivers = _DirectReceivers(settings, loaded)
    notes: list[str] = []

    def record(_request: falcon.Request, _status: int, text: Callable[[str], str], _event_id: str) -> None:
        notes.append(text("en"))

    def log_error(request: falcon.Request, status: int, text: Callable[[str], str], event_id: str) -> None:
        if status == _UNAUTHORIZED:  # only then is there more for operators than for the sender
            record(request, status, text, event_id)

    resource = IngressResource(
        schemas=loaded.schemas,
        # Only the methods that the resource calls are replaced.
        authenticator=cast("Authenticator", _AnyRequest()),
        intake=cast("Intake", intake),
        receivers=cast("ReceiverCalls", receivers),
        clock=Clock(),
        record_rejected=record,
    )
    web: falcon.App[Any, Any] = falcon.App()
    errors.install(web, log_error)
    web.add_route("/in/{source}", resource)
    answer = _call(web, f"/in/{name}", request)
    problem = receivers.problem or "".join(notes)
    mapped = _received(intake) if ingress.receiver else _mapped(ingress, request)
    routes = iter(intake.routes)
    return Preview(
        items=tuple(
            PreviewItem(mapped=item, route=next(routes, None) if isinstance(item, MappedCallback) else None)
            for item in mapped
        ),
        answer=answer,
        problem=problem,
        by_receiver=bool(ingress.receiver),
    )


def _call(web: falcon.App[Any, Any], path: str, request: ExampleRequest) -> SenderAnswer:
    environ = {
        **request.environ,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "REQUEST_URI": path,
        "QUERY_STRING": request.query,
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": True,
    }
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], _error: object = None, /
    ) -> Callable[[bytes], object]:
        started.append((status, headers))
        return io.BytesIO().write

    body = b"".join(web(environ, start_response))
    ((status, headers),) = started
    media_type = {name.lower(): value for name, value in headers}.get("content-type", "")
    return SenderAnswer(status=int(status.partition(" ")[0]), media_type=media_type, body=body)


def _received(intake: _RoutingIntake) -> Iterator[MappedCallback | IgnoredRequest]:
    """Yield what a receiver made of the request."""
    for callback in intake.callbacks:
        yield MappedCallback(kind=callback.kind, flow_instance_id=callback.flow_instance_id, data=callback.body)
    for record in intake.ignored:
        yield IgnoredRequest(rule=record.rule)


def _mapped(ingress: IngressSettings, request: ExampleRequest) -> Iterator[MappedCallback | IgnoredRequest]:
    """Yield what the mapping makes of each object of the request, until an error, which is in the answer."""
    try:
        content_type = request.headers.get("content-type")
        check_media_type(ingress, content_type, request.environ)
        for members in decode(ingress, body=request.body, content_type=content_type, headers=request.environ):
            yield map_request(ingress, members)
    except CallbackRejected:
        return


class _AnyRequest:
    """An authenticator that accepts every request of a source."""

    def admit_to_receiver(self, request: falcon.Request, body: bytes, name: str, settings: Settings) -> bool:
        """Check the size only."""
        source = settings.sources[name]
        request.context.source = name
        if source.ingress is None or not source.ingress.receiver:
            return False
        check_size(body, _max_body_bytes(settings, name))
        return True

    def authenticate_source(
        self, request: falcon.Request, _body: bytes, name: str, settings: Settings
    ) -> AuthenticatedRequest:
        """Accept the request."""
        request.context.source = name
        source = settings.sources[name]
        has_token = bool(source.token_sha256 or source.token_file)
        return AuthenticatedRequest(name, _max_body_bytes(settings, name), body_only=not has_token)


class _RoutingIntake:
    """An intake that routes callbacks and stores nothing.

    Attributes:
        callbacks: the accepted callbacks.
        routes: where each of them goes.
        ignored: the ignored requests.
    """

    def __init__(self, settings: Settings, loaded: RouteLookup) -> None:
        self.config = IntakeConfig(settings=settings, router=loaded.lookup.router, missing_handlers=frozenset())
        self._schemas = loaded.schemas
        self.callbacks: list[Callback] = []
        self.routes: list[PreviewRoute] = []
        self.ignored: list[IgnoredRequestRecord] = []

    def accept(self, callback: Callback, **_options: object) -> Answer:
        """Route a callback, and reject it if the settings reject such events."""
        (answer,) = self.accept_all([callback], [])
        return answer

    def accept_all(
        self, callbacks: Sequence[Callback], ignored: Sequence[IgnoredRequestRecord], **_options: object
    ) -> list[Answer]:
        """Route the callbacks of a request."""
        self.callbacks += callbacks
        self.ignored += ignored
        routes = [self._route(callback) for callback in callbacks]
        self.routes += routes
        for route in routes:
            parked_by = route.explanation.route.parked_by
            if route.result == "rejected" and parked_by in _REJECTIONS:
                raise InvalidCallback(_REJECTIONS[parked_by])
        return [Answer(event_id="", status=AnswerStatus.DONE, delivery_statuses=()) for _ in callbacks]

    def _route(self, callback: Callback) -> PreviewRoute:
        settings = self.config.settings
        event = from_body(
            callback.body,
            id="",
            source=callback.source,
            kind=callback.kind,
            flow_instance_id=callback.flow_instance_id,
            received_at=datetime.now(UTC),
            conclusions=settings.sources[callback.source].conclusion,
            origin=callback.origin,
            traceparent=callback.traceparent,
        )
        sent = callback.body.get("conclusion") or None
        example = routes_text.Example(event=event, sent_conclusion=sent, schema_error="")
        explanation = self.config.router.explain_event(event)
        return PreviewRoute(
            example=example,
            explanation=explanation,
            result=routes_text.outcome(settings, example, explanation.route),
            hints=routes_text.hints(settings, self._schemas, example, explanation),
        )


class _DirectReceivers:
    """Calls receivers in this thread, and remembers why one cannot be called or failed.

    Attributes:
        problem: the reason; `""`: none.
    """

    def __init__(self, settings: Settings, loaded: RouteLookup) -> None:
        self._settings, self._plugins = settings, loaded.plugins
        self.problem = ""

    def call(self, plugin: str, source: str, request: ReceivedRequest) -> ReceivedCallback | ReceiverResponse | None:
        """Call a receiver as a server does, but wait for its end."""
        if plugin not in self._plugins.receivers.names:
            state = next((info for info in self._plugins.infos if info.name == plugin), None)
            self.problem = f"the plugin {plugin} is {state.state}: {state.error}" if state else f"there is no {plugin}"
            raise Unavailable("receiver_unavailable")
        started = time.monotonic()
        try:
            with redirect_stdout(sys.stderr):
                received = self._plugins.receivers.call(plugin, source, request)
        except MalformedRequest:
            raise
        except (Exception, SystemExit) as error:
            self.problem = f"the plugin {plugin} failed: {error_line(error, top_module=plugin, redact=self._redact)}"
            raise Unavailable("receiver_failed") from error
        if (seconds := time.monotonic() - started) > CALL_TIMEOUT:
            self.problem = f"the plugin {plugin} took {seconds:.1f} s, but may take {CALL_TIMEOUT:g} s"
            raise Unavailable("receiver_slow")
        return received

    def _redact(self, text: str) -> str:
        return self._plugins.redact(settings_redactor(self._settings, os.environ)(text))


def _max_body_bytes(settings: Settings, name: str) -> int:
    return settings.sources[name].max_body_bytes or settings.http.max_body_bytes
