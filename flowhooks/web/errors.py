"""Every error as HTTP has it: its status and the body of the HTTP contract."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

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
"""The status of each refusal."""

HEADERS: Final = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)
"""What every error is sent with."""

MAX_PATH_CHARS: Final = 2048
"""Characters of the path that an error repeats."""

_MESSAGE_KEYS: Final[Mapping[int, str]] = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    415: "media_type",
    501: "not_implemented",
}
"""What is said of Falcon's own errors; of others `bad_request` or `internal`."""

_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_log = structlog.get_logger(__name__)


class LocalizedHTTPError(falcon.HTTPError):
    """A request that HTTP itself does not let through, with one of our sentences.

    Args:
        status: the HTTP status.
        key: the sentence, a key of `flowhooks.messages.MESSAGES`.
        **params: what the sentence names. Never a value out of the request's body.
    """

    def __init__(self, status: int, key: str, /, **params: Any) -> None:
        super().__init__(status)
        self.key = key
        self.params = params


def envelope(*, status: int, message: str, path: str) -> dict[str, Any]:
    """The body of an error; what follows `errorInfo` are Spring MVC's names.

    Args:
        status: the HTTP status.
        message: the sentence, in the caller's language.
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
    """`body` as JSON in UTF-8. A lone surrogate, which UTF-8 does not have, becomes a question mark."""
    return _JSON.encode(body).encode(errors="replace")


def raw_path(environ: Mapping[str, Any]) -> str:
    """The path of a request, as it was sent where the WSGI server tells (most do), else decoded."""
    target: str | None = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    return target.partition("?")[0] if target else str(environ.get("PATH_INFO", ""))


def respond(request: falcon.Request, response: falcon.Response, *, status: int, message: str) -> None:
    """Make `response` an error.

    Args:
        request: whose path is named.
        response: what is changed.
        status: the HTTP status.
        message: the sentence, in the caller's language.
    """
    response.status = status
    response.data = encode(envelope(status=status, message=message, path=raw_path(request.env)))
    response.set_headers(HEADERS)


ErrorLog: TypeAlias = "Callable[[falcon.Request, int, Callable[[str], str]], None]"
"""Is told of a request, the status that it was answered, and what an operator is told of it, by its language."""


def install(app: falcon.App[Any, Any], error_log: ErrorLog | None = None) -> None:
    """Have every error of `app` answered with the body of the contract, in the caller's language.

    That is every `falcon.HTTPError`, every `Refusal`, and whatever nobody expected: the last is logged with
    its traceback, of which the caller sees nothing.

    Args:
        app: whose errors they are.
        error_log: is told of every error but the last kind.
    """

    def say(
        request: falcon.Request,
        response: falcon.Response,
        status: int,
        text: Callable[[str], str],
        note: Callable[[str], str],
    ) -> None:
        respond(request, response, status=status, message=text(_language(request)))
        if error_log is not None:
            error_log(request, status, note)

    def serialize(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
        # Falcon has set the status and the error's headers before it calls this.
        key, params = _message(request, response, error)

        def text(language: str) -> str:
            return messages.text(key, language, **params)

        say(request, response, error.status_code, text, text)

    def refused(
        request: falcon.Request, response: falcon.Response, error: CallbackRejected, _params: dict[str, Any]
    ) -> None:
        say(request, response, _status(response, error), error.text, error.operator_text)

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
