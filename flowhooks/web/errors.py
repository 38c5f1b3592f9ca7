"""Error responses: their HTTP status, headers and body."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

import falcon
import structlog

from flowhooks import messages
from flowhooks.errors import (
    CallbackRejected,
    Forbidden,
    IdentityConflict,
    InvalidCallback,
    MalformedRequest,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from flowhooks.text import escape_control
from flowhooks.web import negotiation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATUS_OF: Final[Mapping[type[CallbackRejected], int]] = {
    MalformedRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    IdentityConflict: 409,
    UnsupportedMedia: 415,
    InvalidCallback: 422,
    RateLimited: 429,
    Unavailable: 503,
}
"""HTTP status of each rejection."""

HEADERS: Final = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Headers of every error response."""

MAX_PATH_CHARS: Final = 2048
"""Maximum number of characters of the request's path in an error body."""

_MESSAGE_KEYS: Final[Mapping[int, str]] = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    415: "media_type",
    501: "not_implemented",
}
"""Messages for Falcon's own errors, by status. Other statuses use `bad_request` or `internal`."""

_PATH_SAFE: Final = "/:@!$&'()*+,;=~"
_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_log = structlog.get_logger(__name__)


class LocalizedHTTPError(falcon.HTTPError):
    """An HTTP error with a message from `flowhooks.messages`.

    Args:
        status: the HTTP status.
        key: the message, a key of `flowhooks.messages.MESSAGES`.
        **params: the values of the message's placeholders. Never a value from the request's body.
    """

    def __init__(self, status: int, key: str, /, **params: Any) -> None:
        super().__init__(status)
        self.key = key
        self.params = params


def envelope(*, status: int, message: str, path: str) -> dict[str, Any]:
    """Return the body of an error. The members after `errorInfo` have Spring MVC's names.

    Args:
        status: the HTTP status.
        message: the message, in the caller's language.
        path: the request's path, not decoded.
    """
    return {
        "success": False,
        "message": message,
        "errorInfo": {"message": message},
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "status": status,
        "error": falcon.code_to_http_status(status).partition(" ")[2],
        "path": path[:MAX_PATH_CHARS],
    }


def encode(body: Mapping[str, Any]) -> bytes:
    """Return `body` as JSON in UTF-8. A lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    return _JSON.encode(body).encode(errors="replace")


def raw_path(environ: Mapping[str, Any]) -> str:
    """Return the path of a request in percent-encoding.

    Most WSGI servers provide it as it was sent. With other servers an escaped slash cannot be distinguished from a
    slash.
    """
    target: str | None = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    # The decoded path is encoded again, so that a percent sign in an id is not decoded twice.
    return target.partition("?")[0] if target else quote(str(environ.get("PATH_INFO", "")), _PATH_SAFE, "latin-1")


def respond(request: falcon.Request, response: falcon.Response, *, status: int, message: str) -> None:
    """Turn `response` into an error.

    Args:
        request: the request, whose path is in the body.
        response: the response to change.
        status: the HTTP status.
        message: the message, in the caller's language.
    """
    response.status = status
    response.data = encode(envelope(status=status, message=message, path=raw_path(request.env)))
    response.set_headers(HEADERS)


ErrorLog: TypeAlias = "Callable[[falcon.Request, int, Callable[[str], str], str], None]"
"""Called with a request, the status of its response, a function from a language to the operator's message, and the id
of the event that the request contradicts, or `""`."""


def install(app: falcon.App[Any, Any], error_log: ErrorLog | None = None) -> None:
    """Register error handlers that answer with the body of the contract, in the caller's language.

    They handle every `falcon.HTTPError`, every `CallbackRejected`, and every unexpected exception. An unexpected
    exception is logged with its traceback, which the caller does not see.

    Args:
        app: the app.
        error_log: called for every error except unexpected exceptions.
    """

    def say(
        request: falcon.Request,
        response: falcon.Response,
        status: int,
        text: Callable[[str], str],
        note: Callable[[str], str],
        *,
        event_id: str = "",
    ) -> None:
        respond(request, response, status=status, message=text(_language(request)))
        if error_log is not None:
            error_log(request, status, note, event_id)

    def serialize(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
        # Falcon sets the status and the error's headers before it calls this function.
        key, params = _message(request, response, error)

        def text(language: str) -> str:
            return messages.text(key, language, **params)

        say(request, response, error.status_code, text, text)

    def refused(
        request: falcon.Request, response: falcon.Response, error: CallbackRejected, _params: dict[str, Any]
    ) -> None:
        event_id = error.event_id if isinstance(error, IdentityConflict) else ""
        say(request, response, _status(response, error), error.text, error.operator_text, event_id=event_id)

    app.set_error_serializer(serialize)
    app.add_error_handler(CallbackRejected, refused)
    app.add_error_handler(Exception, _unexpected)


def _language(request: falcon.Request) -> str:
    return negotiation.parse_accept_language(request.get_header("Accept-Language"))


def _message(
    request: falcon.Request, response: falcon.Response, error: falcon.HTTPError
) -> tuple[str, Mapping[str, Any]]:
    if isinstance(error, LocalizedHTTPError):
        return error.key, error.params
    status = error.status_code
    if status == 404 and raw_path(request.env).endswith("/"):  # noqa: PLR2004 (HTTP's "not found")
        return "not_found_slash", {}
    key = _MESSAGE_KEYS.get(status, "bad_request" if status < 500 else "internal")  # noqa: PLR2004 (server errors)
    content_type = escape_control(request.content_type or "", negotiation.MAX_SHOWN_CHARS)
    return key, {"allowed": response.get_header("Allow", default=""), "given": content_type}


def _status(response: falcon.Response, error: CallbackRejected) -> int:
    if isinstance(error, Unavailable | RateLimited):
        response.set_header("Retry-After", str(error.retry_after))
    elif isinstance(error, Unauthorized):
        response.set_header("WWW-Authenticate", "Bearer")
    elif isinstance(error, IdentityConflict):
        response.set_header("Flowhooks-Event", error.event_id)
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 400)


def _unexpected(request: falcon.Request, response: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    _log.error("request_failed", method=request.method, path=raw_path(request.env), exc_info=error)
    respond(request, response, status=500, message=messages.text("internal", _language(request)))
