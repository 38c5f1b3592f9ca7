"""The HTTP resource that engines call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import falcon

from flowhooks import messages, schema
from flowhooks.failpoints import hit
from flowhooks.intake.callback import AnswerStatus, Callback
from flowhooks.model.delivery import State
from flowhooks.model.event import ParkedBy, has_only_digits
from flowhooks.model.trace_context import parse_traceparent
from flowhooks.text import escape_control
from flowhooks.web import errors, negotiation
from flowhooks.web.callback.authentication import check_size, read_body
from flowhooks.web.server.thread_pool import thread_pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.intake.accept import Intake
    from flowhooks.intake.callback import Answer
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings
    from flowhooks.web.callback.authentication import Authenticator

_SUCCESS: Final = errors.encode({"success": True})
_PARKED_MESSAGES: Final[dict[ParkedBy | None, str]] = {
    ParkedBy.NAME: "parked_name",
    ParkedBy.CONDITION: "parked_condition",
}
MAX_REASON_CHARS: Final = 500
"""Maximum number of characters of a handler's error in a response."""


class CallbackResource:
    """The resource of one kind of callback.

    flowhooks' own server rejects a body that is too large before it calls this resource. Other WSGI servers may not, so
    the size is checked here, too.

    Args:
        kind: the last part of the path.
        schemas: the schemas that bodies are checked against.
        authenticator: authenticates requests.
        intake: accepts callbacks, and has the current settings.

    Attributes:
        kind: as given.
    """

    def __init__(
        self,
        *,
        kind: str,
        schemas: Schemas,
        authenticator: Authenticator,
        intake: Intake,
    ) -> None:
        self.kind = kind
        self._schemas = schemas
        self._authenticator = authenticator
        self._intake = intake

    def on_post(self, request: falcon.Request, response: falcon.Response, flow_instance_id: str) -> None:
        """Accept a callback."""
        environ = request.env
        config = self._intake.config  # read once, because the settings may change at any moment
        settings = config.settings
        raw_body = read_body(request, settings.http.max_body_bytes)
        authenticated = self._authenticator.authenticate(request, raw_body, settings)
        instance_id = schema.decode_flow_instance_id(flow_instance_id)
        self._schemas.check_flow_instance_id(instance_id)
        negotiation.check_media_type(environ.get("CONTENT_TYPE"), environ.get("HTTP_CONTENT_ENCODING"))
        check_size(raw_body, authenticated.max_body_bytes)
        body = schema.parse_callback(raw_body)
        self._schemas.check_body(self.kind, body)
        seconds, applied = negotiation.parse_prefer_wait(
            environ.get("HTTP_PREFER"), _answer_wait(settings, authenticated.source)
        )
        answer = self._intake.accept(
            Callback(
                source=authenticated.source,
                kind=self.kind,
                flow_instance_id=instance_id,
                body=body,
                text=raw_body.decode(),
                webhook_id=authenticated.webhook_id,
                traceparent=parse_traceparent(environ.get("HTTP_TRACEPARENT")),
            ),
            wait=seconds,
            config=config,
            spare_threads=thread_pool(environ),
        )
        hit("answer.made")
        response.set_header("Flowhooks-Event", answer.event_id)
        if applied is not None:
            response.set_header("Preference-Applied", applied)
        _respond(request, response, answer, body)


def _answer_wait(settings: Settings, name: str) -> float:
    """Return for how long a source waits for the handlers if a request does not say it."""
    source = settings.sources.get(settings.source_name(name))
    return settings.answer_wait if source is None or source.answer_wait is None else source.answer_wait


def _respond(request: falcon.Request, response: falcon.Response, answer: Answer, body: Mapping[str, Any]) -> None:
    response.set_headers(errors.HEADERS)
    if answer.status is AnswerStatus.DONE:
        response.data = _SUCCESS
        return
    language = negotiation.parse_accept_language(request.env.get("HTTP_ACCEPT_LANGUAGE"))
    if answer.status is AnswerStatus.DEAD:
        dead = [delivery for delivery in answer.delivery_statuses if delivery.state is State.DEAD]
        params: dict[str, Any] = {
            "handler": dead[0].handler,
            "why": escape_control(dead[0].error, MAX_REASON_CHARS),
        }
        key = "dead" if len(dead) == 1 else "dead_several"
        message = messages.text(key, language, count=len(dead), **params)
        errors.respond(request, response, status=500, message=message)
        return
    response.status = falcon.HTTP_202
    if answer.status is AnswerStatus.PARKED:
        key = _PARKED_MESSAGES.get(answer.parked_by, "parked")
        if key == "parked" and has_only_digits(body.get("processDefinitionKey")):
            key = "parked_digits"
        message = messages.text(key, language, member=answer.undecided)
        response.data = errors.encode({"success": True, "message": message})
    else:
        states = [delivery.state for delivery in answer.delivery_statuses]
        counts = (states.count(State.WAITING), states.count(State.RUNNING), states.count(State.UNKNOWN))
        response.data = _encode_pending(language, *counts)


@lru_cache(maxsize=256)
def _encode_pending(language: str, waiting: int, running: int, unknown: int) -> bytes:
    message = messages.text("pending", language, waiting=waiting, running=running, unknown=unknown)
    return errors.encode({"success": True, "message": message})
