"""The head of a response is what waitress writes, to the byte."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from waitress.task import WSGITask

from flowhooks.web.server.channel import _WaitressTask

PLAIN = [
    ("flowhooks-event", "01a"),
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-length", "17"),
]
WITHOUT_LENGTH = PLAIN[:-1]


def task(kind, status, headers, *, version="1.1", connection=None, length=17, closes=False, draining=False):
    """A task of a kind whose application has given a response."""
    asked = {} if connection is None else {"CONNECTION": connection}
    ours = SimpleNamespace(closing=draining, announces_closing=False, adj=SimpleNamespace(ident="flowhooks"))
    made = kind(SimpleNamespace(server=ours), SimpleNamespace(version=version, headers=asked))
    made.status, made.response_headers, made.content_length = status, list(headers), length
    made.start_time = 1_796_000_000.5
    made.close_on_finish = closes
    return made


def outcome(made):
    """The head that a task writes, and what it decides about the connection and the body."""
    return made.build_response_header(), made.close_on_finish, made.chunked_response


@pytest.mark.parametrize(
    "status", ["200 OK", "202 Accepted", "204 No Content", "304 Not Modified", "100 Continue", "500 {} %s", "299"]
)
@pytest.mark.parametrize(
    "headers",
    [
        PLAIN,
        [*PLAIN, ("set-cookie", "b=1"), ("x-y", "é{0}%s"), ("Set-Cookie", "a=2"), ("vary", "")],
        [*PLAIN, ("CONTENT-length", "17")],
        [*PLAIN, ("dATE", "today")],
        [*PLAIN, ("server", "other")],
        [*PLAIN, ("server", "")],
        [*PLAIN, ("connection", "close")],
        [*PLAIN, ("transfer-encoding", "gzip")],
        [*PLAIN, ("x-{}%s", "v"), ("-", "v"), ("", "v"), ("zz-top", "last")],
        WITHOUT_LENGTH,
        [("Content-Length", "0")],
        [],
    ],
)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"length": None},
        {"connection": "close"},
        {"connection": "CLOSE"},
        {"connection": "keep-alive"},
        {"connection": "upgrade"},
        {"version": "1.0"},
        {"version": "1.0", "connection": "Keep-Alive"},
        {"version": "2.0"},
        {"closes": True},
    ],
)
def test_a_head_is_the_same_as_of_waitress(status, headers, more):
    """Status, headers, their order, the connection and the coding of the body are the same for every response."""
    theirs = task(WSGITask, status, [*headers, ("Date", "Mon, 30 Nov 2026 00:53:20 GMT")], **more)
    assert outcome(task(_WaitressTask, status, headers, **more)) == outcome(theirs)


def test_the_head_of_an_answer_is_not_written_by_waitress(monkeypatch):
    """The response to a callback is written in one pass; one that closes its connection is written by waitress."""
    monkeypatch.setattr(WSGITask, "build_response_header", lambda self: b"waitress")
    assert task(_WaitressTask, "200 OK", PLAIN).build_response_header().endswith(b"\r\n\r\n")
    assert task(_WaitressTask, "200 OK", PLAIN, connection="close").build_response_header() == b"waitress"


def test_a_value_that_is_not_latin_1_is_an_error_as_in_waitress():
    """Such a value cannot be sent; the server answers 500."""
    for kind in (_WaitressTask, WSGITask):
        with pytest.raises(UnicodeEncodeError):
            task(kind, "200 OK", [*PLAIN, ("x-name", "中")]).build_response_header()


@pytest.mark.parametrize("breaking", ["200 OK\r\nx: y", "200 OK\n"])
def test_a_line_end_in_a_status_or_a_header_is_refused(breaking):
    """Waitress refuses it in `start_response`, before a head is written."""

    def application(_environ, start_response):
        for status, headers in ((breaking, []), ("200 OK", [("x", breaking)]), ("200 OK", [(breaking, "x")])):
            made.complete = False
            with pytest.raises(ValueError, match="carriage return"):
                start_response(status, headers)
        return []

    made = task(WSGITask, "200 OK", [], length=None)
    made.environ = {}
    made.channel.server.application = application
    made.execute()
