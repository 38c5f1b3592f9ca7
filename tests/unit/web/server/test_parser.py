"""The parser alone: any bytes in any splitting end in a request or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from flowhooks.web.errors import LocalizedHTTPError
from flowhooks.web.server.parser import RequestParser

ADJUSTMENTS = Adjustments(max_request_header_size=300, max_request_body_size=50, inbuf_overflow=20)
PIECES = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET /a HTTP/1.0\r\n",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 60\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close, TE\r\n",
    b"A_b: c\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"5\r\nhello\r\n",
    b"30;x=y\r\n",
    b"0\r\n\r\n",
    b"T: u\r\n",
    b"hello",
]
STREAMS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=12).map(b"".join)


def read(pieces):
    """The result of the first request of a stream, and its number of bytes; or the status of its rejection."""
    parser = RequestParser(ADJUSTMENTS)
    taken = 0
    for piece in pieces:
        end = taken + len(piece)
        # As a channel does: a head takes no bytes of the body that follows it.
        while taken < end and not parser.completed:
            taken += parser.received(piece[taken - end :])
    body = parser.get_body_stream().read() if parser.completed and not parser.error else None
    parser.close()
    if parser.error:
        return parser.error.status_code
    return parser.completed, parser.command, parser.request_uri, parser.headers, body, taken


@settings(max_examples=300)
@given(STREAMS, st.lists(st.integers(1, 40), min_size=1))
def test_splitting_a_stream_does_not_change_the_result(stream, sizes):
    """No bytes raise, and the splitting of a stream does not change the result."""
    cuts, at = [], 0
    while at < len(stream):
        size = sizes[len(cuts) % len(sizes)]
        cuts.append(stream[at : at + size])
        at += size
    whole, cut = read([stream]), read(cuts)
    if 431 in (whole, cut):
        # If a head is too large and malformed, the received part determines which fault is found first.
        assert all(status in {400, 431} for status in (whole, cut))
    else:
        assert cut == whole


@settings(max_examples=200)
@given(st.binary(max_size=50), st.lists(st.integers(1, 20), min_size=1))
def test_chunks_are_the_body(body, sizes):
    """For any chunks the same body is read, and the bytes after it are not consumed."""
    chunks, at = [], 0
    while at < len(body):
        part = body[at : at + sizes[len(chunks) % len(sizes)]]
        chunks.append(b"%x\r\n%b\r\n" % (len(part), part))
        at += len(part)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = RequestParser(ADJUSTMENTS)
    assert parser.received(head + b"NEXT") == len(head)
    tail = b"".join(chunks) + b"0\r\n\r\n"
    assert parser.received(tail + b"NEXT") == len(tail)
    assert parser.completed
    assert parser.get_body_stream().read() == body
    assert parser.headers["CONTENT_LENGTH"] == str(len(body))
    parser.close()


def test_a_closed_parser_ignores_further_bytes():
    """A parser of a closed connection ignores further bytes."""
    parser = RequestParser(ADJUSTMENTS)
    parser.received(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n")
    parser.received(b"a" * 30)
    parser.close()
    assert parser.received(b"a" * 30) == 30
    assert not parser.completed


def test_a_complete_request_consumes_no_more_bytes():
    """A complete request consumes no more bytes."""
    parser = RequestParser(ADJUSTMENTS)
    parser.received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert parser.received(b"more") == 0


@pytest.mark.parametrize("head", [b"", b"GET /p HT", b"GET /p HTTP/1.1\r\nAccept-Language: zh\r\nA"])
def test_a_request_can_be_rejected_at_any_time(head):
    """A request can be refused at any time; the known parts are kept."""
    parser = RequestParser(ADJUSTMENTS)
    parser.received(head)
    parser.reject(LocalizedHTTPError(408, "request_timeout"))
    assert parser.completed
    assert parser.error.status_code == 408
    assert parser.request_uri == ("/p" if b"\r\n" in head else "")
    assert parser.headers == ({"ACCEPT_LANGUAGE": "zh"} if b"\r\n" in head else {})


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_repeated_headers_are_joined_and_listed(size):
    """A header that is there twice is joined, as the standard says, and named, in any case of its letters."""
    stream = b"GET / HTTP/1.1\r\nHost: h\r\nX-User: a\r\nOther: b\r\nx-user: c\r\nX-USER:\r\n\r\n"
    parser = RequestParser(ADJUSTMENTS)
    for start in range(0, len(stream), size):
        parser.received(stream[start : start + size])
    assert parser.completed
    assert parser.headers["X_USER"] == "a, c, "
    assert parser.repeated == {"X_USER"}
    assert RequestParser(ADJUSTMENTS).repeated == frozenset()
