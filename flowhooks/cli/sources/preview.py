"""Preview a request to the fixed URL of a source: what it becomes, where it goes, and what the sender is answered.

Nothing is stored, no server is called, and no credential is checked, except by the plugin of a source with a receiver.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from flowhooks import messages
from flowhooks.cli import routes_text
from flowhooks.errors import CallbackRejected, InvalidCallback, SettingsError, Unauthorized, Unavailable
from flowhooks.intake.ingress_request import FORM, decode, is_batch
from flowhooks.intake.mapping import IgnoredRequest, MappedCallback, map_request
from flowhooks.model.event import ParkedBy, from_body
from flowhooks.model.receiver import ReceivedRequest, ReceiverResponse
from flowhooks.plugins.error_text import error_line
from flowhooks.schema.cloud_events import BATCH, STRUCTURED
from flowhooks.settings.secrets import settings_redactor
from flowhooks.web import errors
from flowhooks.web.callback.authentication import check_size
from flowhooks.web.callback.receivers import CALL_TIMEOUT
from flowhooks.web.negotiation import check_content_encoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowhooks.cli.route_lookup import RouteLookup
    from flowhooks.model.receiver import ReceivedCallback
    from flowhooks.routing.router import Explanation
    from flowhooks.settings import IngressSettings, Settings

MEDIA_TYPES: Final = {
    "json": "application/json",
    "form": FORM,
    "cloudevent": STRUCTURED,
}
"""`Content-Type` of a request by the format of its source, if the user gives none."""
_REJECTIONS: Final = {ParkedBy.HANDLER: "no_handler", ParkedBy.NAME: "no_name"}
_PROBLEM_STATUS: Final = 400


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
        names = {header: header.upper().replace("-", "_") for header in self.headers}
        return {
            name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}": self.headers[header]
            for header, name in names.items()
        }


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
    """What one request, or one event of a batch, becomes.

    Attributes:
        mapped: the callback, or the rule that ignores the request.
        route: where the callback goes; None: it is ignored, or the request is rejected.
    """

    mapped: MappedCallback | IgnoredRequest
    route: PreviewRoute | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderAnswer:
    """What the sender is answered: status, media type and body."""

    status: int
    media_type: str
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether the sender takes it for an error."""
        return self.status >= _PROBLEM_STATUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The result of a preview.

    Attributes:
        items: what was made of the request, as far as it was read before an error.
        answer: what the sender is answered.
        problem: what only the operator may know, such as the exception of a receiver; `""`: nothing.
        by_receiver: whether a receiver read the request.
    """

    items: tuple[PreviewItem, ...] = ()
    answer: SenderAnswer
    problem: str = ""
    by_receiver: bool = False


class _ReceiverProblem(Exception):
    """A receiver cannot be called, or raised an exception; the arguments are the message's key and the problem."""


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


class Previewer:
    """Previews the requests of one source, whose settings have a section `ingress`.

    Args:
        settings: the settings.
        loaded: the plugins, and the look-up of routes.
        name: the name of the source.
        language: language of an error for the sender, `"en"` or `"zh"`.
    """

    def __init__(self, settings: Settings, loaded: RouteLookup, name: str, *, language: str) -> None:
        source = settings.sources[name]
        if source.ingress is None:
            raise ValueError(f"{name} has no section ingress")
        self._settings, self._loaded, self._name, self._language = settings, loaded, name, language
        self._source, self._ingress = source, source.ingress

    def preview(self, request: ExampleRequest) -> Preview:
        """Preview a request."""
        return replace(self._preview(request), by_receiver=bool(self._ingress.receiver))

    def _preview(self, request: ExampleRequest) -> Preview:
        items: list[PreviewItem] = []
        try:
            answer = self._read(request, items)
        except _ReceiverProblem as error:
            key, problem = error.args
            return Preview(answer=self._rejection(Unavailable(key)), problem=problem)
        except Unauthorized as error:
            return Preview(answer=self._rejection(error), problem="the plugin does not accept the credential")
        except (CallbackRejected, errors.LocalizedHTTPError) as error:
            return Preview(items=tuple(items), answer=self._rejection(error))
        return Preview(items=tuple(items), answer=answer)

    def _read(self, request: ExampleRequest, items: list[PreviewItem]) -> SenderAnswer:
        http = self._settings.http
        check_size(request.body, self._source.max_body_bytes or http.max_body_bytes)
        answer = SenderAnswer(
            status=200, media_type=self._ingress.answer_media_type, body=self._ingress.answer.encode()
        )
        if self._ingress.receiver:
            received = self._receive(request)
            if isinstance(received, ReceiverResponse):
                answer = _to_answer(received)
                if not answer.is_error:
                    items.append(PreviewItem(mapped=IgnoredRequest(rule=received.rule)))
                return answer
            mapped: MappedCallback | IgnoredRequest = MappedCallback(
                kind=received.kind, flow_instance_id=received.flow_instance_id, data=received.data
            )
            items.append(PreviewItem(mapped=mapped))
            if received.response is not None:
                answer = _to_answer(received.response)
        else:
            check_content_encoding(request.headers.get("content-encoding"))
            content_type = request.headers.get("content-type")
            in_batch = is_batch(self._ingress, content_type)
            decoded = decode(self._ingress, body=request.body, content_type=content_type, headers=request.environ)
            for index, members in enumerate(decoded):
                with _located(index if in_batch else None):
                    items.append(PreviewItem(mapped=map_request(self._ingress, members)))
                    self._check(items[-1].mapped)
        self._route_all(items)
        return answer

    def _receive(self, request: ExampleRequest) -> ReceivedCallback | ReceiverResponse:
        plugin, receivers = self._ingress.receiver, self._loaded.plugins.receivers
        if plugin not in receivers.names:
            raise _ReceiverProblem("receiver_unavailable", self._why_unavailable(plugin))
        received_request = ReceivedRequest(
            method=request.method,
            query={name: tuple(values) for name, values in parse_qs(request.query, keep_blank_values=True).items()},
            headers=MappingProxyType(dict(request.headers)),
            body=request.body,
            received_at=datetime.now(UTC),
        )
        started = time.monotonic()
        try:
            with redirect_stdout(sys.stderr):
                received = receivers.call(plugin, self._name, received_request)
        except CallbackRejected:
            raise
        except Exception as error:
            redact = settings_redactor(self._settings, os.environ)
            text = error_line(
                error, top_module=plugin, redact=lambda message: self._loaded.plugins.redact(redact(message))
            )
            raise _ReceiverProblem("receiver_failed", f"the plugin {plugin} failed: {text}") from error
        if (seconds := time.monotonic() - started) > CALL_TIMEOUT:
            raise _ReceiverProblem("receiver_slow", f"the plugin {plugin} took {seconds:.1f} s")
        if received is None:
            raise Unauthorized("unauthorized")
        return received

    def _why_unavailable(self, plugin: str) -> str:
        info = next((info for info in self._loaded.plugins.infos if info.name == plugin), None)
        if info is None:
            return f"no installed plugin is named {plugin}, so a server does not start with these settings"
        if info.state != "loaded":
            return f"the plugin {plugin} is {info.state}: {info.error or 'see `flowhooks plugins list`'}"
        return f"the plugin {plugin} has no hook receive_request, so a server does not start with these settings"

    def _check(self, mapped: MappedCallback | IgnoredRequest) -> None:
        if isinstance(mapped, MappedCallback):
            schemas = self._loaded.schemas
            if mapped.kind not in schemas.kinds:
                raise SettingsError(
                    f"there is no kind of callback {mapped.kind!r}; the kinds are {', '.join(schemas.kinds)}"
                )
            schemas.check_flow_instance_id(mapped.flow_instance_id)
            schemas.check_body(mapped.kind, mapped.data)

    def _route_all(self, items: list[PreviewItem]) -> None:
        """Add the route to each callback, once the whole request is known to be accepted."""
        routed = [
            PreviewItem(mapped=item.mapped, route=self._route(item.mapped))
            if isinstance(item.mapped, MappedCallback)
            else item
            for item in items
        ]
        items[:] = routed
        for item in routed:
            route = item.route.explanation.route if item.route else None
            if item.route and route and item.route.result == "rejected" and route.parked_by in _REJECTIONS:
                raise InvalidCallback(_REJECTIONS[route.parked_by])

    def _route(self, callback: MappedCallback) -> PreviewRoute:
        event = from_body(
            callback.data,
            id="",
            source=self._name,
            kind=callback.kind,
            flow_instance_id=callback.flow_instance_id,
            received_at=datetime.now(UTC),
            conclusions=self._source.conclusion,
            origin="ingress",
        )
        example = routes_text.Example(
            event=event, sent_conclusion=callback.data.get("conclusion") or None, schema_error=""
        )
        explanation = self._loaded.lookup.router.explain_event(event)
        return PreviewRoute(
            example=example,
            explanation=explanation,
            result=routes_text.outcome(self._settings, example, explanation.route),
            hints=routes_text.hints(self._settings, self._loaded.schemas, example, explanation),
        )

    def _rejection(self, error: CallbackRejected | errors.LocalizedHTTPError) -> SenderAnswer:
        if isinstance(error, CallbackRejected):
            status = next(errors.STATUS_OF[kind] for kind in type(error).__mro__ if kind in errors.STATUS_OF)
            message = error.text(self._language)
        else:
            status = error.status_code
            message = messages.text(error.key, self._language, **error.params)
        body = errors.encode(errors.envelope(status=status, message=message, path=f"/in/{self._name}"))
        return SenderAnswer(status=status, media_type=dict(errors.HEADERS)["Content-Type"], body=body)


def _to_answer(response: ReceiverResponse) -> SenderAnswer:
    return SenderAnswer(status=response.status, media_type=response.media_type, body=response.body)


@contextmanager
def _located(index: int | None) -> Iterator[None]:
    """Let the pointers of violations start with the index of the event in its batch."""
    try:
        yield
    except InvalidCallback as error:
        if index is None:
            raise
        located = [(f"/{index}{pointer}", key, params) for pointer, key, params in error.violations]
        raise InvalidCallback(error.key, located, **error.params) from None
