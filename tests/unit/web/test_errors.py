"""Errors as callers see them: one format, their language, no internals."""

from __future__ import annotations

import json
import re

import falcon
import pytest
from falcon.testing import TestClient
from structlog.testing import capture_logs

from flowhooks import messages
from flowhooks.errors import (
    CallbackRejected,
    Forbidden,
    IdentityConflict,
    InvalidCallback,
    MalformedRequest,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from flowhooks.web import errors

REFUSALS = [
    (MalformedRequest("bad_request"), 400),
    (Unauthorized("unauthorized"), 401),
    (Forbidden("forbidden"), 403),
    (IdentityConflict("event-1"), 409),
    (UnsupportedMedia("media_type", given="text/plain"), 415),
    (InvalidCallback("bad_request", violations=[("/a", "not_implemented", {})]), 422),
    (Unavailable("draining", retry_after=7), 503),
    (type("Later", (Unavailable,), {})("draining"), 503),
    (CallbackRejected("bad_request"), 400),
]

FALCONS = [
    (falcon.HTTPBadRequest(title="secret", description="secret"), 400, ("bad_request", {})),
    (falcon.HTTPNotFound(description="secret"), 404, ("not_found", {})),
    (falcon.HTTPMethodNotAllowed(["GET", "PUT"]), 405, ("method_not_allowed", {"allowed": "GET, PUT"})),
    (falcon.HTTPContentTooLarge(), 413, ("bad_request", {})),
    (falcon.HTTPUnsupportedMediaType(), 415, ("media_type", {"given": "text/x"})),
    (falcon.HTTPTooManyRequests(), 429, ("bad_request", {})),
    (falcon.HTTPInternalServerError(title="secret"), 500, ("internal", {})),
    (falcon.HTTPNotImplemented(), 501, ("not_implemented", {})),
    (falcon.HTTPGatewayTimeout(), 504, ("internal", {})),
    (falcon.HTTPError(422, title="secret"), 422, ("bad_request", {})),
    (errors.LocalizedHTTPError(413, "too_large", limit=5), 413, ("too_large", {"limit": 5})),
]


class Raises:
    """A resource that raises a given exception after it has set another response."""

    def __init__(self, error):
        self.error = error

    def on_get(self, req, resp):
        """Raise."""
        resp.text = "half an answer"
        resp.content_type = "text/html"
        raise self.error


@pytest.fixture
def ask():
    """Ask an application whose resource raises `error`."""

    def ask(error, path="/x", *, method="GET", **headers):
        app = falcon.App()
        app.add_route("/x", Raises(error))
        errors.install(app)
        return TestClient(app).simulate_request(method, path, headers=headers)

    return ask


def test_envelope():
    """The envelope has exactly the members of the contract, and a time that any client can parse."""
    body = errors.envelope(status=422, message="m", path="/p")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", body.pop("timestamp"))
    assert body == {
        "success": False,
        "message": "m",
        "errorInfo": {"message": "m"},
        "status": 422,
        "error": "Unprocessable Entity",
        "path": "/p",
    }


def test_encode():
    """Chinese is not escaped, characters that could break a line are, and lone surrogates do no harm."""
    encoded = errors.encode({"a": '流程\n"\x00', "b": "\ud800"})
    assert "流程" in encoded.decode()
    assert b"\n" not in encoded
    assert b"\x00" not in encoded
    assert json.loads(encoded) == {"a": '流程\n"\x00', "b": "?"}


def test_every_rejection_has_a_status():
    """Each kind of refusal has a status."""
    assert set(errors.STATUS_OF) == set(CallbackRejected.__subclasses__())


@pytest.mark.parametrize(("error", "status"), REFUSALS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_status_and_sentence_of_rejections(ask, error, status, language):
    """Each has its status, its sentence in the caller's language, and the headers of every error."""
    result = ask(error, **{"Accept-Language": language})
    assert result.status_code == status
    assert result.json["message"] == error.text(language)
    assert result.json["status"] == status
    assert result.headers["content-type"] == "application/json; charset=utf-8"
    assert result.headers["cache-control"] == "no-store"
    assert result.headers["x-content-type-options"] == "nosniff"


def test_headers_of_rejections(ask):
    """The facts for the caller's next step are in the headers that HTTP defines."""
    assert ask(Unavailable("draining", retry_after=7)).headers["retry-after"] == "7"
    assert ask(Unauthorized("unauthorized")).headers["www-authenticate"] == "Bearer"
    assert ask(IdentityConflict("event-1")).headers["flowhooks-event"] == "event-1"
    assert not {"retry-after", "www-authenticate", "flowhooks-event"} & set(
        ask(MalformedRequest("bad_request")).headers
    )


@pytest.mark.parametrize(("error", "status", "said"), FALCONS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_falcons_own_errors(ask, error, status, said, language):
    """Falcon's errors have flowhooks' sentences and keep their headers."""
    key, params = said
    result = ask(error, **{"Accept-Language": language, "Content-Type": "text/x"})
    assert result.status_code == status
    assert result.json["message"] == messages.text(key, language, **params)
    assert "secret" not in result.text
    assert result.headers.get("allow") == params.get("allowed")


def test_not_found(ask):
    """An unknown path is an envelope too."""
    result = ask(None, "/nowhere")
    assert result.status_code == 404
    assert result.json["message"] == messages.text("not_found", "en")


def test_method_not_allowed(ask):
    """Another method is refused with the allowed ones in the sentence and in Allow."""
    result = ask(None, method="DELETE")
    assert result.status_code == 405
    assert result.headers["allow"] == "GET, OPTIONS"
    assert "GET, OPTIONS" in result.json["message"]


def test_a_slash_at_the_end(ask):
    """The message about a path that does not exist says that it must not end with a slash, if it does."""
    for path in ("/nowhere/", "/nowhere/?a=b"):
        result = ask(None, path)
        assert result.status_code == 404
        assert result.json["message"] == messages.text("not_found_slash", "en")


def test_response_to_a_head_request(ask):
    """HEAD gets only the headers of the error."""
    result = ask(None, "/nowhere", method="HEAD")
    assert result.status_code == 404
    assert result.text == ""
    assert result.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("error", [RuntimeError("secret"), KeyError("secret"), RecursionError(), MemoryError()])
def test_an_unexpected_exception_is_logged(ask, error):
    """An unexpected exception is logged with its traceback, which the caller does not see."""
    with capture_logs() as logs:
        result = ask(error, "/x?secret=1", **{"Accept-Language": "zh"})
    assert result.status_code == 500
    assert result.json["message"] == messages.text("internal", "zh")
    assert "secret" not in result.text
    assert logs == [{"event": "request_failed", "log_level": "error", "method": "GET", "path": "/x", "exc_info": error}]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/%E6%B5%81", "/%E6%B5%81"),
        ("/a?b=c", "/a"),
        ("/%00%0d%0a%22%3Cscript%3E", "/%00%0d%0a%22%3Cscript%3E"),
        ("/%ff%ed%a0%80", "/%ff%ed%a0%80"),
        ("/" + "a" * 5000, "/" + "a" * 2047),
    ],
)
def test_path(ask, path, shown):
    """The path is repeated as sent, without its query, and up to a maximum length."""
    assert ask(None, path).json["path"] == shown


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"REQUEST_URI": "/a%20b?c", "PATH_INFO": "/a b"}, "/a%20b"),
        ({"RAW_URI": "/a%20b?c", "PATH_INFO": "/a b"}, "/a%20b"),
        ({"PATH_INFO": "/a b"}, "/a%20b"),
        (
            {"PATH_INFO": "/flow/\xe6\xb5\x81 100%25/call-back/complete"},
            "/flow/%E6%B5%81%20100%2525/call-back/complete",
        ),
        ({}, ""),
    ],
)
def test_raw_path(environ, path):
    """WSGI servers provide the original path under two names, or not at all."""
    assert errors.raw_path(environ) == path
