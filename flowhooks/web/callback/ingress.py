"""The fixed URL of a source, `/in/NAME`: its settings, or a plugin, make callbacks of its requests.

Senders often run the call in their own transaction. So the response to everything that is stored, kept or ignored is
200 with the body that this sender takes for success, also if a handler has failed or the event is a conflict. Nothing
is kept of the body of a conflict with a purged event: it is only recorded as a rejected request.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

import structlog

from flowhooks import messages
from flowhooks.clock import to_datetime
from flowhooks.errors import (
    IdentityConflict,
    InvalidCallback,
    MalformedRequest,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from flowhooks.failpoints import hit
from flowhooks.intake import ingress_request
from flowhooks.intake.callback import Callback
from flowhooks.intake.mapping import IgnoredRequest, map_request
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from flowhooks.model.event import Origin
from flowhooks.model.receiver import ReceivedRequest, ReceiverResponse
from flowhooks.model.trace_context import parse_traceparent
from flowhooks.schema import cloud_events
from flowhooks.web import errors, negotiation
from flowhooks.web.callback.authentication import check_size, read_body
from flowhooks.web.server.thread_pool import spare_thread, thread_pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import falcon

    from flowhooks.clock import Clock
    from flowhooks.intake.accept import Intake
    from flowhooks.intake.config import IntakeConfig
    from flowhooks.model.receiver import ReceivedCallback
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import IngressSettings
    from flowhooks.web.callback.authentication import Authenticator
    from flowhooks.web.callback.receivers import ReceiverCalls

MAX_QUERY_PARAMETERS: Final = 1000
"""Maximum number of parameters in the query of a request that a receiver reads."""
CONFLICT: Final = 409
"""The status under which operators find a conflict, although the response to it is 200."""
_FIRST_ERROR: Final = 300
_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_log = structlog.get_logger(__name__)


class _Incoming(NamedTuple):
    """A request of a known source. Without a receiver it is authenticated, with `webhook_id` and `body_only`."""

    request: falcon.Request
    source: str
    ingress: IngressSettings
    body: bytes
    config: IntakeConfig
    webhook_id: str | None = None
    body_only: bool = False

    @property
    def media_type(self) -> str | None:
        """The header `Content-Type`."""
        return self.request.env.get("CONTENT_TYPE") or None


class IngressResource:
    """The resource of all fixed URLs.

    Args:
        schemas: the schemas that callbacks are checked against.
        authenticator: authenticates requests.
        intake: accepts callbacks, and has the current settings.
        receivers: calls the plugins that read requests.
        clock: the clock.
        record_rejected: records a conflict, or the error response of a receiver, for operators.
    """

    def __init__(
        self,
        *,
        schemas: Schemas,
        authenticator: Authenticator,
        intake: Intake,
        receivers: ReceiverCalls,
        clock: Clock,
        record_rejected: errors.ErrorLog,
    ) -> None:
        self._schemas = schemas
        self._authenticator = authenticator
        self._intake = intake
        self._receivers = receivers
        self._clock = clock
        self._record_rejected = record_rejected

    def on_post(self, request: falcon.Request, response: falcon.Response, source: str) -> None:
        """Accept a request."""
        config = self._intake.config  # read once, because the settings may change at any moment
        limit = config.settings.http.max_body_bytes
        body = read_body(request, limit)
        check_size(body, limit)
        if self._authenticator.admit_to_receiver(request, body, source, config.settings):
            self._receive(_Incoming(request, source, _ingress_of(config, source), body, config), response)
            return
        authenticated = self._authenticator.authenticate_source(request, body, source, config.settings)
        ingress = _ingress_of(config, source)
        incoming = _Incoming(request, source, ingress, body, config, authenticated.webhook_id, authenticated.body_only)
        self._map(incoming, response, max_body_bytes=authenticated.max_body_bytes)

    def on_get(self, request: falcon.Request, response: falcon.Response, source: str) -> None:
        """Answer a handshake, which only a receiver can do."""
        config = self._intake.config
        if not self._authenticator.admit_to_receiver(request, b"", source, config.settings):
            known = config.settings.sources.get(source)
            is_mapped = known is not None and known.ingress is not None
            raise Unauthorized("unauthorized", cause="no_receiver" if is_mapped else "source_unknown")
        self._receive(_Incoming(request, source, _ingress_of(config, source), b"", config), response)

    # the mapping of the settings

    def _map(self, incoming: _Incoming, response: falcon.Response, *, max_body_bytes: int) -> None:
        ingress, body, environ = incoming.ingress, incoming.body, incoming.request.env
        negotiation.check_content_encoding(environ.get("HTTP_CONTENT_ENCODING"))
        ingress_request.check_media_type(ingress, incoming.media_type, environ)
        if incoming.body_only and ingress_request.is_binary(ingress, incoming.media_type):
            raise UnsupportedMedia("cloudevent_unsigned_headers")
        check_size(body, max_body_bytes)
        items = ingress_request.decode(ingress, body=body, content_type=incoming.media_type, headers=environ)
        if ingress_request.is_batch(ingress, incoming.media_type):
            self._store_batch(incoming, items)
        else:
            made = self._convert(incoming, items[0], _text_of(body), incoming.media_type)
            if isinstance(made, IgnoredRequestRecord):
                self._count_ignored(made, incoming.config)
            else:
                self._store(incoming, made, response)
        _succeed(response, ingress)

    def _convert(
        self, incoming: _Incoming, item: Mapping[str, Any], raw_body: str, media_type: str | None
    ) -> Callback | IgnoredRequestRecord:
        """Return what becomes of one object of a request.

        Args:
            incoming: the request.
            item: the object.
            raw_body: the text that is stored as received.
            media_type: the media type of that text.

        Raises:
            InvalidCallback: the mapping or the schema refuses the object.
        """
        ingress = incoming.ingress
        mapped = map_request(ingress, item)
        if isinstance(mapped, IgnoredRequest):
            return self._ignored(incoming.source, mapped.rule, raw_body, media_type)
        if mapped.kind not in self._schemas.kinds:  # in the safe mode, which loads no schema files of plugins
            raise Unavailable("ingress_kind_unavailable")
        try:
            self._schemas.check_flow_instance_id(mapped.flow_instance_id)
        except InvalidCallback as error:
            # The path has no id: name the pointers that lead to it.
            pointer = " + ".join(ingress.flow_instance_id)
            violations = [(pointer, key, params) for _, key, params in error.violations]
            raise InvalidCallback("ingress_refused", violations) from None
        self._check_data(mapped.kind, mapped.data)
        return Callback(
            source=incoming.source,
            kind=mapped.kind,
            flow_instance_id=mapped.flow_instance_id,
            body=mapped.data,
            text=_COMPACT.encode(mapped.data),
            webhook_id=incoming.webhook_id,
            webhook_digest=_digest(incoming),
            origin=Origin.INGRESS.value,
            raw_body=raw_body,
            media_type=media_type,
            traceparent=_traceparent(incoming.request.env, item if ingress.format == "cloudevent" else {}),
        )

    def _store_batch(self, incoming: _Incoming, items: list[dict[str, Any]]) -> None:
        callbacks: list[Callback] = []
        ignored: list[IgnoredRequestRecord] = []
        for index, item in enumerate(items):
            try:
                made = self._convert(incoming, item, _COMPACT.encode(item), cloud_events.STRUCTURED)
            except InvalidCallback as error:
                violations = [(f"/{index}{pointer}", key, params) for pointer, key, params in error.violations]
                raise InvalidCallback(error.key, violations, **error.params) from None
            if isinstance(made, Callback):
                callbacks.append(made)
            else:
                ignored.append(made)
        if callbacks:
            incoming.request.context.kind = callbacks[0].kind  # a request is counted once, even if it has several kinds
        answers = self._intake.accept_all(callbacks, ignored, config=incoming.config)
        for answer, callback in zip(answers, callbacks, strict=True):
            if isinstance(answer, IdentityConflict):
                self._record_conflict(incoming.request, answer, callback)
        hit("answer.made")

    # a plugin that reads the requests

    def _receive(self, incoming: _Incoming, response: falcon.Response) -> None:
        received = _received_request(incoming.request, incoming.body, self._clock.now())
        with spare_thread(incoming.request.env):
            result = self._receivers.call(incoming.ingress.receiver, incoming.source, received)
        if result is None:
            raise Unauthorized("unauthorized", cause="receiver_refused")
        if isinstance(result, ReceiverResponse):
            self._count_receiver_response(incoming, result)
            _send(response, result)
            return
        incoming.request.context.source = incoming.source
        self._store(incoming, self._received_callback(incoming, result), response)
        if result.response is None:
            _succeed(response, incoming.ingress)
        else:
            _send(response, result.response)

    def _received_callback(self, incoming: _Incoming, result: ReceivedCallback) -> Callback:
        if result.kind not in self._schemas.kinds:
            raise InvalidCallback("unknown_kind", kinds=", ".join(self._schemas.kinds))
        try:
            self._schemas.check_flow_instance_id(result.flow_instance_id)
        except InvalidCallback as error:
            raise InvalidCallback("callback_refused", error.violations) from None
        self._check_data(result.kind, result.data)
        return Callback(
            source=incoming.source,
            kind=result.kind,
            flow_instance_id=result.flow_instance_id,
            body=result.data,
            text=_COMPACT.encode(result.data),
            origin=Origin.INGRESS.value,
            raw_body=_text_of(incoming.body),
            media_type=incoming.media_type,
            traceparent=_traceparent(incoming.request.env, {}),
        )

    def _count_receiver_response(self, incoming: _Incoming, result: ReceiverResponse) -> None:
        """Count or record the response of a receiver, which stored nothing."""
        request, source = incoming.request, incoming.source
        if result.status < _FIRST_ERROR:
            request.context.source = source
            text = incoming.body.decode(errors="replace")
            self._count_ignored(self._ignored(source, result.rule, text, incoming.media_type), incoming.config)
            _log.info("request_ignored", source=source, rule=result.rule, method=request.method)
            return

        def text_for_operators(language: str) -> str:
            return messages.text("receiver_response", language, status=result.status, why=result.rule)

        self._record_rejected(request, result.status, text_for_operators, "")

    # both

    def _check_data(self, kind: str, data: Mapping[str, Any]) -> None:
        try:
            self._schemas.check_body(kind, data)
        except InvalidCallback as error:
            if not error.violations:
                raise
            # The body may be a form, or encrypted, so the message must not call it JSON.
            raise InvalidCallback("callback_refused", error.violations) from None

    def _ignored(self, source: str, rule: str, body: str, media_type: str | None) -> IgnoredRequestRecord:
        return IgnoredRequestRecord(source=source, rule=rule, body=body, media_type=media_type, at=self._clock.now())

    def _count_ignored(self, record: IgnoredRequestRecord, config: IntakeConfig) -> None:
        self._intake.accept_all([], [record], config=config)
        hit("answer.made")

    def _store(self, incoming: _Incoming, callback: Callback, response: falcon.Response) -> None:
        """Store a callback, or keep it as a conflict."""
        request, config = incoming.request, incoming.config
        request.context.kind = callback.kind
        default = config.settings.sources[callback.source].answer_wait or 0.0
        seconds, applied = negotiation.parse_prefer_wait(request.env.get("HTTP_PREFER"), default)
        try:
            event_id = self._intake.accept(
                callback, wait=seconds, config=config, spare_threads=thread_pool(request.env)
            ).event_id
        except IdentityConflict as conflict:
            self._record_conflict(request, conflict, callback)
            event_id, applied = conflict.event_id, None
        hit("answer.made")
        response.set_header("Flowhooks-Event", event_id)
        if applied is not None:
            response.set_header("Preference-Applied", applied)

    def _record_conflict(self, request: falcon.Request, conflict: IdentityConflict, callback: Callback) -> None:
        _log.warning(
            "callback_conflict",
            event_id=conflict.event_id,
            source=callback.source,
            flow_instance_id=callback.flow_instance_id,
            why="an earlier request for the same process instance had other data; it was answered 200, because the "
            "sender must not fail",
            next="that event has been purged, so nothing is kept of this body: ask the sender for it"
            if conflict.purged
            else f"`flowhooks events show {conflict.event_id}` shows both bodies",
        )
        self._record_rejected(request, CONFLICT, conflict.operator_text, conflict.event_id)


def _ingress_of(config: IntakeConfig, source: str) -> IngressSettings:
    ingress = config.settings.sources[source].ingress
    if ingress is None:  # the request was authenticated with these settings, so there is one
        raise Unauthorized("unauthorized", cause="source_unknown")
    return ingress


def _text_of(body: bytes) -> str:
    """Return a body as it is stored."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("body_not_utf8", byte=error.start + 1) from None
    if "\x00" in text:
        raise MalformedRequest("raw_body_nul")
    return text


def _digest(incoming: _Incoming) -> str | None:
    """Return what the id of a signed request is valid for: the source and the whole body."""
    if incoming.webhook_id is None:
        return None
    return hashlib.sha256(incoming.source.encode() + b"\x00" + incoming.body).hexdigest()


def _traceparent(headers: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Return the trace of an event: that of its own attribute, or that of the request."""
    own = attributes.get("traceparent")
    return parse_traceparent(own if isinstance(own, str) else None) or parse_traceparent(
        headers.get("HTTP_TRACEPARENT")
    )


def _received_request(request: falcon.Request, body: bytes, now: int) -> ReceivedRequest:
    return ReceivedRequest(
        method=request.method,
        query=_query(request.query_string),
        headers=dict(_headers(request.env)),
        body=body,
        received_at=to_datetime(now),
    )


def _query(text: str) -> dict[str, tuple[str, ...]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_PARAMETERS)
    except ValueError:
        raise MalformedRequest("query_too_long", limit=MAX_QUERY_PARAMETERS) from None
    query: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        query[name] = (*query.get(name, ()), value)
    return query


def _headers(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the headers of a WSGI environment, with their names in lower case."""
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-").lower(), str(value)
        elif name in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            yield name.replace("_", "-").lower(), str(value)


def _succeed(response: falcon.Response, ingress: IngressSettings) -> None:
    response.set_headers(errors.HEADERS)
    response.content_type = ingress.answer_media_type
    response.data = ingress.answer.encode(errors="replace")


def _send(response: falcon.Response, result: ReceiverResponse) -> None:
    response.status = result.status
    response.set_headers(errors.HEADERS)
    response.content_type = result.media_type
    response.data = result.body
