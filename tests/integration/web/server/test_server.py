"""The server over real sockets: accepted and refused requests, timeouts and shutdown."""

from __future__ import annotations

import errno
import os
import resource as process
import socket
import struct
import threading
import time

import pytest
from structlog.testing import capture_logs

from flowhooks.errors import AddressInUse, SettingsError
from flowhooks.web.server.channel import Channel
from flowhooks.web.server.server import Limits, Server
from flowhooks.web.server.sockets import LISTEN_BACKLOG, open_listener
from flowhooks.web.server.thread_pool import spare_thread
from support.waiting import WAIT_TIMEOUT, until

GOOD = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"

TAKEN = {
    "GET": (GOOD, 200),
    "HTTP/1.0 without Host": (b"GET /x HTTP/1.0\r\n\r\n", 200),
    "empty lines before": (b"\r\n\r\n\r\n" + GOOD, 200),
    "body": (POST + b"Content-Length: 3\r\n\r\nabc", 200),
    "empty body": (POST + b"Content-Length: 0\r\n\r\n", 200),
    "zeros before the length": (POST + b"Content-Length: " + b"0" * 5000 + b"3\r\n\r\nabc", 200),
    "body of exactly the limit": (POST + b"Content-Length: 1000\r\n\r\n" + b"a" * 1000, 200),
    "chunks": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 200),
    "chunks of exactly the limit": (CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n", 200),
    "chunk extension": (CHUNKED + b'3;a=b;c="d"\r\nabc\r\n00\r\n\r\n', 200),
    "trailers": (CHUNKED + b"0\r\nA: b\r\nC: d\r\n\r\n", 200),
    "coding in capitals": (POST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200),
    "absolute target": (b"GET http://other/x?q=1 HTTP/1.1\r\nHost: h\r\n\r\n", 200),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "slashes within the path": (b"GET /nowhere//x HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "IPv6 host": (b"GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    "unknown path": (b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "other method": (b"DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    "no such method": (b"FOO /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "escaped controls": (b"GET /%00%0d%0a%ff%e2%80%ae HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "half an escape": (b"GET /%4 HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "name with an underscore": (b"GET /x HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\n\r\n", 200),
    "spaces round a value": (b"GET /x HTTP/1.1\r\nHost:\t h \t\r\n\r\n", 200),
    "headers of exactly the limit": (GOOD[:-2] + b"A: " + b"a" * (8192 - len(GOOD) - 5) + b"\r\n\r\n", 200),
}

REFUSED = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "one word": (b"hello\r\n\r\n", 400),
    "NUL": (b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no version": (b"GET /x\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /x HTTP/0.9\r\nHost: h\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /x HTTP/1.2\r\nHost: h\r\n\r\n", 400),
    "small letters": (b"get /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "method that is not a token": (b"G(T /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "space before": (b" GET /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "two spaces": (b"GET  /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "space at the end": (b"GET /x HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    "raw UTF-8": ("GET /流 HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 400),
    "two slashes before the path": (b"GET //x HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "many slashes before the path": (b"GET ////x HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "two slashes, one encoded": (b"GET /%2fx HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "two slashes after the host": (b"GET http://h//x HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "fragment": (b"GET /x#y HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "relative target": (b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "star with GET": (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "CONNECT": (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "another scheme": (b"GET ftp://h/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "half a bracket": (b"GET http://[::1/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "port that is no number": (b"GET /x HTTP/1.1\r\nHost: h:x\r\n\r\n", 400),
    "absolute without host": (b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "user in the host": (b"GET http://u@h/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no Host": (b"GET /x HTTP/1.1\r\n\r\n", 400),
    "Host twice": (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "Host with a path": (b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "folded line": (b"GET /x HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400),
    "line that starts with a space": (b"GET /x HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "no colon": (b"GET /x HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", 400),
    "no name": (b"GET /x HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400),
    "space before the colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "name with a space": (b"GET /x HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n", 400),
    "name that is not ASCII": (b"GET /x HTTP/1.1\r\nHost: h\r\n\xc3\xa4: c\r\n\r\n", 400),
    "control in a value": (b"GET /x HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", 400),
    "bare CR": (b"GET /x HTTP/1.1\r\nHost: h\r\nA: b\rc: d\r\n\r\n", 400),
    "bare LF": (b"GET /x HTTP/1.1\r\nHost: h\r\nA: b\nc: d\r\n\r\n", 400),
    "LF for CRLF": (b"GET /x HTTP/1.1\nHost: h\n\n", 400),
    "length and coding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "coding twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, chunked": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "no coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "odd space in the coding": (POST + b"Transfer-Encoding: \x85chunked\r\n\r\n0\r\n\r\n", 400),
    "coding in HTTP/1.0": (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "lengths that differ": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "length with a sign": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nabc", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "length in other digits": (POST + b"Content-Length: \xb2\r\n\r\nab", 400),
    "length of 5,000 digits": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
    "body larger than the limit": (POST + b"Content-Length: 1001\r\n\r\n", 413),
    "chunks larger than the limit": (CHUNKED + b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\n", 413),
    "one chunk larger than the limit": (CHUNKED + b"ffffffffffffffff\r\n", 413),
    "size that is no number": (CHUNKED + b"xyz\r\n", 400),
    "size with a sign": (CHUNKED + b"-1\r\n", 400),
    "size with 0x": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "size with a LF": (CHUNKED + b"3\n\r\nabc\r\n0\r\n\r\n", 400),
    "size of 17 digits": (CHUNKED + b"00000000000000003\r\nabc\r\n0\r\n\r\n", 400),
    "no size": (CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunk that ends with LF": (CHUNKED + b"3\r\nabc\n0\r\n\r\n", 400),
    "chunk line that never ends": (CHUNKED + b"3;" + b"a" * 300, 400),
    "trailer that is no field": (CHUNKED + b"0\r\nGET /x HTTP/1.1\r\n\r\n", 400),
    "trailers without end": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 2000, 400),
    "headers larger than the limit": (b"GET /x HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 8192, 431),
    "headers one byte larger": (GOOD[:-2] + b"A: " + b"a" * (8192 - len(GOOD) - 4) + b"\r\n\r\n", 431),
    "target larger than the limit": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
}


@pytest.fixture
def server(start):
    """A server with small limits and long timeouts."""
    return start(max_body_bytes=1000, max_header_bytes=8192, read_timeout=20)


@pytest.mark.parametrize("name", TAKEN)
def test_taken(server, connect, name):
    """A request that RFC 9112 permits reaches the application, and the connection serves the next request."""
    raw, status = TAKEN[name]
    client = connect(server).send(raw)
    assert client.answer().status == status
    if not raw.startswith(b"GET /x HTTP/1.0"):
        assert client.send(GOOD).answer().status == 200


def test_head_and_body_are_sent_together(server, connect, monkeypatch):
    """A response is one system call, not one for its head and one for its body."""
    sent, send = [], Channel.send

    def counted(self, data, **options):
        sent.append(len(data))
        return send(self, data, **options)

    monkeypatch.setattr(Channel, "send", counted)
    client = connect(server)
    for number in (1, 2):
        assert client.send(POST + b"Content-Length: 3\r\n\r\nabc").answer().status == 200
        assert len(sent) == number


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server, connect, ask, name):
    """Any other request is answered with the envelope, the connection is closed, and the server continues."""
    raw, status = REFUSED[name]
    client = connect(server).send(raw)
    answer = client.answer()
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["server"] == "flowhooks"
    assert answer.json["success"] is False
    assert answer.json["status"] == status
    assert answer.json["errorInfo"] == {"message": answer.json["message"]}
    assert answer.headers["connection"] == "close"
    assert client.closed()
    assert ask(server, GOOD).status == 200


@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_bytes_one_at_a_time(server, connect, name):
    """The response is the same for any splitting of the request's bytes."""
    raw, status = (TAKEN | REFUSED)[name]
    client = connect(server)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for at in range(min(len(raw), 300)):
            client.send(raw[at : at + 1])
        client.send(raw[300:])
    except ConnectionError:
        pass  # the request is refused before its end
    assert client.answer().status == status


@pytest.mark.parametrize(
    ("language", "sentence"),
    [(b"", "larger than 1000 bytes"), (b"Accept-Language: zh-CN,zh;q=0.9\r\n", "超过 1000 字节")],
)
def test_refused_in_the_callers_language(server, ask, language, sentence):
    """A refusal before the application follows Accept-Language too, and has the original path."""
    answer = ask(server, b"POST /a%20b?c HTTP/1.1\r\nHost: h\r\n" + language + b"Content-Length: 1001\r\n\r\n")
    assert sentence in answer.json["message"]
    assert answer.json["path"] == "/a%20b"
    assert answer.json["error"] == "Content Too Large"


def test_refused_head_is_read_as_far_as_it_can_be(server, ask):
    """Path and language are known even if the head is malformed or too large."""
    malformed = b"GET /p HTTP/1.1\r\nno colon\r\nAccept-Language: zh\r\n\r\n"
    too_large = b"GET /p HTTP/1.1\r\nAccept-Language: zh\r\nA: " + b"a" * 9000
    for raw, status in ((malformed, 400), (too_large, 431)):
        answer = ask(server, raw)
        assert (answer.status, answer.json["path"]) == (status, "/p")
        assert "请求" in answer.json["message"]


def test_http_2_is_refused_in_words(server, ask):
    """The preface of HTTP/2, with the frames that follow it, is answered over HTTP/1.1 with what to use instead."""
    frames = bytes.fromhex("000012040000000000000300000064000402000000000200000000")
    answer = ask(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
    assert (answer.status, answer.json["error"]) == (505, "HTTP Version Not Supported")
    assert "use HTTP/1.1" in answer.json["message"]


def test_refused_head_request(server, connect):
    """HEAD gets no body, not even of an error."""
    client = connect(server).send(b"HEAD /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
    answer = client.answer(head_only=True)
    assert answer.status == 413
    assert int(answer.headers["content-length"]) > 0
    assert client.closed()


@pytest.mark.timeout(60)  # with waitress's pattern these take two minutes on an idle machine
def test_no_field_costs_a_second(server, ask):
    """Thousands of spaces are parsed quickly; the time of waitress's own pattern grows with their square."""
    raw = b"GET /x HTTP/1.1\r\nHost: h\r\nA:" + b" " * 8000 + b"a\r\n\r\n"
    ask(server, GOOD)
    for _ in range(400):
        assert ask(server, raw).status == 200


def test_absolute_target(server, ask):
    """An absolute target gives the host, the path and the query."""
    answer = ask(server, b"GET http://other:81/x?q=1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.json == {"host": "other", "query": "q=1"}


def test_body_reaches_the_application(server, ask):
    """The application reads the same body, chunked or not."""
    plain = ask(server, POST + b"Content-Length: 5\r\n\r\nhello")
    chunked = ask(server, CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    assert plain.json == chunked.json == {"length": 5, "start": "hello"}


def test_large_body(start, ask):
    """A body above the memory limit arrives complete."""
    server = start(max_body_bytes=1_000_000)
    answer = ask(server, POST + b"Content-Length: 1000000\r\n\r\n" + b"a" * 1_000_000)
    assert answer.json["length"] == 1_000_000


@pytest.mark.parametrize("head", [POST + b"Content-Length: 10000000\r\n\r\n", CHUNKED + b"989680\r\n"])
def test_client_that_sends_on_reads_its_answer(server, connect, head):
    """A client that sends all of 10 MB before it reads still receives the refusal."""
    client = connect(server)
    client.send(head).send(b"a" * 10_000_000)
    assert client.answer().status == 413
    assert client.closed()


def test_client_that_never_stops_sending(server, connect, monkeypatch):
    """The server reads from a refused client only for a limited time."""
    monkeypatch.setattr("flowhooks.web.server.channel.MAX_LINGER_BYTES", 1_000_000)
    client = connect(server).send(POST + b"Content-Length: 10000000\r\n\r\n")

    def send_on():
        for _ in range(1000):
            client.send(b"a" * 1_000_000)

    with pytest.raises(ConnectionError):
        send_on()


def test_client_that_stays_after_a_refusal(start, connect, monkeypatch):
    """The connection of a refused client that neither sends nor closes is closed."""
    monkeypatch.setattr("flowhooks.web.server.channel.LINGER_SECONDS", 0.1)
    server = start(read_timeout=0.3)
    connect(server).send(b"x\r\n\r\n").answer()
    assert server.drain(WAIT_TIMEOUT)


def test_continue(server, connect):
    """A client that asks before sending a body gets 100 Continue."""
    client = connect(server).send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"abc").answer().json["length"] == 3
    client.send(POST + b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"1\r\na\r\n0\r\n\r\n").answer().json["length"] == 1


def test_continue_is_not_said_to_what_is_refused(server, connect):
    """A client that asks before sending too large a body gets only the error."""
    client = connect(server).send(POST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 413
    assert client.closed()


def test_continue_without_a_body(server, connect):
    """An expectation without a body is ignored."""
    client = connect(server).send(POST + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().json["length"] == 0


def test_continue_behind_another_request(server, connect, resource):
    """Requests sent while an earlier one runs are answered after it."""
    client = connect(server).send(SLOW + POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    resource.go.set()
    assert client.answer().json == {"slow": True}
    assert client.answer().status == 100
    assert client.send(b"abc").answer().json["length"] == 3


def test_pipelined_requests(server, connect):
    """Pipelined requests are answered in order."""
    requests = [POST + b"Content-Length: %d\r\n\r\n" % length + b"a" * length for length in range(50)]
    client = connect(server).send(b"".join(requests))
    assert [client.answer().json["length"] for _ in requests] == list(range(50))


def test_nothing_after_a_refusal_is_run(server, connect):
    """Bytes after a malformed request on its connection are not parsed."""
    client = connect(server).send(GOOD + POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + GOOD)
    assert client.answer().status == 200
    assert client.answer().status == 400
    assert client.closed()


@pytest.mark.parametrize(
    ("version", "option", "open_after"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: TE, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: TE, Keep-Alive\r\n", True),
    ],
)
def test_keep_alive(server, connect, version, option, open_after):
    """A connection stays open according to the client's version and options."""
    client = connect(server).send(b"GET /x HTTP/" + version + b"\r\nHost: h\r\n" + option + b"\r\n")
    assert client.answer().status == 200
    if open_after:
        assert client.send(GOOD).answer().status == 200
    else:
        assert client.closed()


@pytest.mark.parametrize("start_of_request", [b"GET /x", GOOD[:-2], POST + b"Content-Length: 900\r\n\r\n", CHUNKED])
def test_slow_drip(start, connect, ask, start_of_request):
    """A request that arrives byte by byte is ended at its deadline with a response."""
    server = start(read_timeout=0.3)
    client = connect(server).send(b"\r\n" + start_of_request)
    byte = b"a" if start_of_request is not CHUNKED else b"0"
    client.socket.settimeout(0.02)

    def answered():
        client.send(byte)
        try:
            return client.answer()
        except TimeoutError:
            return None

    answer = until(answered)
    assert answer.status == 408
    assert answer.json["status"] == 408
    assert answer.json["path"] == ("/x" if b"\r\n" in start_of_request else "")
    assert ask(server, GOOD).status == 200


def test_deadline_does_not_run_while_the_server_works(start, connect, resource):
    """The deadline of a request behind a slow one starts when the slow one is answered."""
    server = start(read_timeout=2)
    client = connect(server).send(SLOW + GOOD[:-4])
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    other = connect(server).send(GOOD[:-4])
    assert other.answer().status == 408
    resource.go.set()
    assert client.answer().json == {"slow": True}
    assert client.send(GOOD[-4:]).answer().status == 200


@pytest.mark.parametrize("raw", [b"", b"\r\n" * 10, GOOD])
def test_idle_connection(start, connect, raw):
    """A connection without a request is closed, also after earlier requests; empty lines are no request."""
    server = start(read_timeout=10 * WAIT_TIMEOUT, idle_timeout=1)
    client = connect(server).send(raw)
    if raw == GOOD:
        assert client.answer().status == 200
    assert client.closed()


def test_client_that_goes_away(start, connect, resource, caplog):
    """A client that disconnects before its response causes no error, and its path is not logged."""
    caplog.set_level("INFO")
    server = start(threads=1)
    client = connect(server).send(b"GET /slow?%0a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a TCP reset
    resource.go.set()
    assert connect(server).send(GOOD).answer().status == 200
    assert not caplog.records


def test_refusal_that_had_to_wait(start, connect, resource):
    """A client can read a refusal that waited for a thread longer than the idle timeout."""
    server = start(threads=1, idle_timeout=1)
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client = connect(server).send(b"x\r\n\r\n")
    watch = connect(server)
    assert watch.closed()
    resource.go.set()
    assert client.answer().status == 400
    assert client.closed()


@pytest.mark.parametrize("raw", [SLOW, b"x\r\n\r\n"], ids=["answer", "refusal"])
def test_answer_that_took_longer_than_connections_may_be_idle(start, connect, resource, monkeypatch, raw):
    """A long response is not cut off; the idle timeout starts when it is sent."""
    send = Channel._flush_some

    def looked_at_meanwhile(channel, **given):
        channel.check(time.monotonic())
        return send(channel, **given)

    monkeypatch.setattr(Channel, "_flush_some", looked_at_meanwhile)
    server = start(threads=1, idle_timeout=1)
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    client = connect(server).send(raw)
    assert connect(server).closed()
    resource.go.set()
    assert client.answer().status == (200 if raw == SLOW else 400)


def test_client_that_does_not_read(start, connect):
    """A client that does not read its response blocks neither its connection nor the writing thread."""

    def flood(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"a" * 1_000_000 for _ in range(40))

    server = start(flood, threads=1, idle_timeout=1)
    connect(server).send(GOOD)
    other = connect(server)
    assert other.send(b"x\r\n\r\n").answer().status == 400


def test_a_step_of_the_clock_closes_no_connection_that_is_answered(start, connect, monkeypatch, eventually):
    """If the clock is set forward by an hour, a client that reads its response keeps its connection."""
    size, checked = 40_000_000, threading.Semaphore(0)

    def large(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
        return (b"a" * 1_000_000 for _ in range(size // 1_000_000))

    check, now = Channel.check, time.time

    def check_and_count(channel, at):
        check(channel, at)
        checked.release()

    server = start(large, threads=1, idle_timeout=20)
    client = connect(server).send(GOOD[:-2] + b"Connection: close\r\n\r\n")
    listener = server._listener
    # The writing thread waits at this mark: no more is sent until the client reads.
    mark = listener.adj.outbuf_high_watermark
    eventually(lambda: any(channel.total_outbufs_len > mark for channel in list(listener.active_channels.values())))
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    monkeypatch.setattr(Channel, "check", check_and_count)
    assert checked.acquire(timeout=WAIT_TIMEOUT)
    assert checked.acquire(timeout=WAIT_TIMEOUT)
    received = 0
    while data := client.socket.recv(1_000_000):
        received += len(data)
    assert received > size


def test_connection_limit(start, connect, monkeypatch):
    """Connections beyond the limit wait until another one closes, if none has been idle for some seconds."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start(max_connections=2)
    first, second = connect(server), connect(server)
    assert first.send(GOOD).answer().status == 200
    assert second.send(GOOD).answer().status == 200
    third = connect(server).send(GOOD)
    third.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        third.answer()
    first.close()
    third.socket.settimeout(WAIT_TIMEOUT)
    assert third.answer().status == 200


def test_a_connection_whose_thread_waits_is_not_asked(start, connect, monkeypatch):
    """However many callbacks wait for their outcome, the loop looks only at the other connections."""
    asked, readable = [], Channel.readable
    entered, go = threading.Event(), threading.Event()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            with spare_thread(environ):
                entered.set()
                assert go.wait(WAIT_TIMEOUT)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    monkeypatch.setattr(Channel, "readable", lambda self: asked.append(self) or readable(self))
    server = start(application)
    slow, other = connect(server).send(SLOW), connect(server)
    assert entered.wait(WAIT_TIMEOUT)
    (waiting,) = server._dispatcher.waiting_tasks
    assert other.send(GOOD).answer().status == 200
    asked.clear()
    assert other.send(GOOD).answer().status == 200
    assert waiting not in asked
    assert asked
    go.set()
    assert slow.answer().status == 200
    assert slow.send(GOOD).answer().status == 200
    assert waiting in asked


@pytest.fixture
def far_clients(monkeypatch):
    """Clients of a test count as clients of other machines."""
    monkeypatch.setattr("flowhooks.web.server.server.is_loopback", lambda _address: False)


def test_a_connection_that_has_sent_nothing(start, connect):
    """It may stay open as long as a request may take to arrive, not as long as a connection that has been used."""
    server = start(read_timeout=0.4, idle_timeout=WAIT_TIMEOUT * 2)
    used = connect(server).send(GOOD)
    assert used.answer().status == 200
    silent, half_sent = connect(server), connect(server).send(b"\r\n")
    assert silent.closed()
    assert half_sent.closed()
    assert used.send(GOOD).answer().status == 200


def test_a_silent_connection_is_closed_for_a_new_one(start, connect, resource, eventually, monkeypatch):
    """When the limit is reached, the longest silent connection makes room; one that is used, or busy, does not."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    server = start(max_connections=4)
    used, busy = connect(server).send(GOOD), connect(server).send(SLOW)
    assert used.answer().status == 200
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    first, second = connect(server), connect(server)
    eventually(lambda: len(server._listener.active_channels) == 4)
    assert connect(server).send(GOOD).answer().status == 200
    assert first.closed()
    assert connect(server).send(GOOD).answer().status == 200
    assert second.closed()
    assert used.send(GOOD).answer().status == 200
    resource.go.set()
    assert busy.answer().status == 200


def test_the_connection_limit_is_logged(start, connect, resource, monkeypatch, caplog):
    """Once a minute at most, in a record of flowhooks, and not in one of waitress, which would close no connection."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    server = start(max_connections=2)
    busy = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    silent = [connect(server)]
    with capture_logs() as logs:
        for _ in range(2):
            silent.append(connect(server))
            assert silent[-2].closed()
    assert [(one["event"], one["max_connections"]) for one in logs] == [("connections_exhausted", 2)]
    assert not [record for record in caplog.records if record.name == "waitress"]
    resource.go.set()
    assert busy.answer().status == 200


def test_the_longest_idle_connection_is_closed_for_a_new_one(start, connect, monkeypatch, eventually):
    """Connections that have been used make room after some seconds, the longest idle one first."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.0)
    server = start(max_connections=2)
    first, second = connect(server), connect(server)
    channels = server._listener.active_channels
    for number, client in enumerate((second, first), start=1):
        assert client.send(GOOD).answer().status == 200
        # The answer is sent before the wait for the client starts.
        eventually(lambda number=number: sum(one.answered for one in list(channels.values())) == number)
    assert connect(server).send(GOOD).answer().status == 200
    assert second.closed()
    assert first.send(GOOD).answer().status == 200


def test_one_address_has_a_share_of_the_connections(start, connect, resource, far_clients, monkeypatch):
    """Beyond it a new connection takes the place of an idle one of the same client, and is closed if none is idle."""
    monkeypatch.setattr("flowhooks.web.server.server.MIN_SILENCE", 0.0)
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start(max_connections=40, threads=12)  # the share is a quarter
    busy = [connect(server).send(SLOW) for _ in range(9)]
    for _ in busy:
        assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    silent = connect(server)
    with capture_logs() as logs:
        tenth = connect(server).send(GOOD)
        assert tenth.answer().status == 200
        assert silent.closed()
        assert connect(server).closed()
        server.reconfigure(Limits(max_connections_per_address=11))
        assert connect(server).send(GOOD).answer().status == 200
    assert [(one["address"], one["max_connections"]) for one in logs] == [("127.0.0.1", 10)]
    resource.go.set()
    assert {client.answer().status for client in busy} == {200}
    assert tenth.send(GOOD).answer().status == 200


def test_a_client_over_its_share_closes_no_connection_of_others(start, connect, resource, far_clients, monkeypatch):
    """When all connections are in use, its new one is closed. A client with a place takes that of an idle one."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.0)
    server = start(max_connections=4, max_connections_per_address=2)
    idle = [connect(server, source="127.0.0.2").send(GOOD) for _ in range(2)]
    assert [client.answer().status for client in idle] == [200, 200]
    busy = [connect(server).send(SLOW) for _ in range(2)]
    for _ in busy:
        assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert connect(server).closed()
    assert [client.send(GOOD).answer().status for client in idle] == [200, 200]
    assert connect(server, source="127.0.0.3").send(GOOD).answer().status == 200
    assert server._listener.connections_by_network == {"127.0.0.1": 2, "127.0.0.2": 1, "127.0.0.3": 1}
    resource.go.set()
    assert {client.answer().status for client in busy} == {200}


@pytest.mark.parametrize("proxy", ["", "127.0.0.1"])
def test_proxies_have_no_share(start, connect, monkeypatch, proxy):
    """The trusted proxy, and programs on this machine, may have all connections."""
    if proxy:
        monkeypatch.setattr("flowhooks.web.server.server.is_loopback", lambda _address: False)
    server = start(max_connections=4, trusted_proxy=proxy)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        assert client.send(GOOD).answer().status == 200


def test_closed_connections_are_not_counted(start, connect, far_clients, eventually):
    """However a connection ends, its place is free again."""
    server = start(max_connections=8, read_timeout=0.4)  # the share is two
    for _ in range(5):
        clients = [connect(server).send(raw) for raw in (GOOD, REFUSED["one word"][0])]
        assert [client.answer().status for client in clients] == [200, 400]
        for client in clients:
            client.close()
        eventually(lambda: not server._listener.connections_by_network)
    silent = connect(server)
    assert silent.closed()
    eventually(lambda: not server._listener.connections_by_network)


def test_out_of_files(start, connect):
    """Without a free file handle the server waits without spinning, and accepts again later."""
    server = start(read_timeout=0.4)
    client = connect(server)
    assert client.send(GOOD).answer().status == 200
    waiting = socket.socket()
    soft, hard = process.getrlimit(process.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 (numbers, not paths)
    spare = []
    with capture_logs() as logs:
        process.setrlimit(process.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                spare.extend(os.dup(0) for _ in range(highest + 1))
            host, _, port = server.address.rpartition(":")
            waiting.connect((host, int(port)))
            waiting.sendall(GOOD)
            used = time.process_time()
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            assert time.process_time() - used < 0.1
            assert client.send(GOOD).answer().status == 200
            until(lambda: logs)
        finally:
            for number in spare:
                os.close(number)
            process.setrlimit(process.RLIMIT_NOFILE, (soft, hard))
        waiting.settimeout(WAIT_TIMEOUT)
        assert waiting.recv(12) == b"HTTP/1.1 200"
        waiting.close()
    assert logs[0]["event"] == "accept_failed"


@pytest.mark.parametrize("error", [RuntimeError("secret"), OSError("secret"), SystemExit("secret")])
def test_error_outside_the_application(start, connect, error):
    """An exception without an error handler is an envelope to the caller and a traceback in the log."""

    def broken(environ, start_response):
        raise error

    server = start(broken)
    with capture_logs() as logs:
        answer = connect(server).send(b"GET /p?q HTTP/1.1\r\nHost: h\r\nAccept-Language: zh\r\n\r\n").answer()
    assert answer.status == 500
    assert answer.json["message"].startswith("服务器内部错误")
    assert answer.json["path"] == "/p"
    assert b"secret" not in answer.body
    assert logs[0]["exc_info"] is error


def test_error_in_the_middle_of_an_answer(start, connect):
    """A response that breaks off does not look complete."""

    def broken(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a" * 10
        raise RuntimeError("secret")

    server = start(broken)
    with capture_logs() as logs:
        client = connect(server).send(GOOD)
        raw = b""
        while data := client.socket.recv(65536):
            raw += data
    assert b"aaaaaaaaaa" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert len(logs) == 1


def test_nothing_is_said_of_the_software(start, connect):
    """The Server header has no version, and headers for proxies only are ignored."""
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    server = start(app)
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nRemote_Addr: 1\r\n\r\n"
    assert connect(server).send(raw).answer().headers["server"] == "flowhooks"
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert not [name for name in seen if "FORWARDED" in name]


def test_drain(start, connect, resource, caplog):
    """Running and queued requests are answered with Connection: close; idle connections are closed."""
    caplog.set_level("INFO")
    server = start(threads=2)
    idle = connect(server)
    assert idle.send(GOOD).answer().status == 200
    busy = [connect(server).send(SLOW) for _ in range(6)]
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    result = []
    drain = threading.Thread(target=lambda: result.append(server.drain(WAIT_TIMEOUT)))
    drain.start()
    assert idle.closed()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    resource.go.set()
    for client in busy:
        answer = client.answer()
        assert answer.json == {"slow": True}
        assert answer.headers["connection"] == "close"
        assert client.closed()
        client.close()
    drain.join(WAIT_TIMEOUT)
    assert result == [True]
    assert not caplog.records  # waitress would warn about every queued request


def test_closing_is_announced_while_new_connections_are_accepted(start, connect, resource, eventually):
    """A client learns it from its next response. The server knows whether clients do not know, and when it is quiet."""
    server = start(threads=2)
    kept = connect(server)
    assert "connection" not in kept.send(GOOD).answer().headers
    eventually(server.has_kept_connections)
    server.announce_closing()
    assert kept.send(GOOD).answer().headers["connection"] == "close"
    assert kept.closed()
    kept.close()
    later = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert not server.has_kept_connections()
    assert not server.is_quiet(0.0)
    resource.go.set()
    assert later.answer().headers["connection"] == "close"
    later.close()
    eventually(lambda: server.is_quiet(0.0))


def test_a_copy_of_the_socket_keeps_what_waits(start, connect, resource):
    """Connections that a retired server has not accepted are answered by the next one, on a copy of its socket."""
    server = start(threads=1)
    copy = server.duplicate_socket()
    server.retire()
    server.stop_accepting()
    client = connect(server).send(GOOD)
    start(threads=1, inherited=copy)
    assert client.answer().status == 200
    client.close()


def test_drain_answers_what_is_pipelined_or_arriving(start, connect, resource):
    """All requests of a connection are answered, also an arriving one; only the last response says close."""
    server = start(threads=1)
    client = connect(server).send(SLOW + GOOD + GOOD[:10])
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    drain = threading.Thread(target=server.drain, args=(WAIT_TIMEOUT,))
    drain.start()
    resource.go.set()
    assert "connection" not in client.answer().headers
    assert "connection" not in client.answer().headers
    assert client.send(GOOD[10:]).answer().headers["connection"] == "close"
    assert client.closed()
    client.close()
    drain.join(WAIT_TIMEOUT)
    assert not drain.is_alive()


def test_drain_takes_what_was_waiting_to_be_accepted(start, connect):
    """A request sent before the stop is answered, even on a connection not yet accepted."""
    held = threading.Event()
    server = start()
    server._listener.trigger.pull_trigger(lambda: held.wait(WAIT_TIMEOUT))
    clients = [connect(server).send(GOOD) for _ in range(5)]
    drain = threading.Thread(target=server.drain, args=(WAIT_TIMEOUT,))
    drain.start()
    held.set()
    for client in clients:
        assert client.answer().status == 200
        client.close()
    drain.join(WAIT_TIMEOUT)
    assert not drain.is_alive()


def test_refused_connections_do_not_delay_the_stop(app, monkeypatch):
    """A client over its share that connects repeatedly keeps no server from closing its listening socket."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    listener, n_refused = server._listener, 0

    def refuse():
        nonlocal n_refused
        n_refused += 1
        listener._n_accepted += 1
        assert n_refused < LISTEN_BACKLOG * 2, "the server still accepts connections"

    monkeypatch.setattr(listener, "handle_accept", refuse)
    server.stop_accepting()
    assert n_refused >= LISTEN_BACKLOG  # those that waited before the stop
    server.close()


def test_drain_gives_up(start, connect, resource):
    """A request that does not end in time is reported, then cut off."""
    server = start(read_timeout=20)
    connect(server).send(GOOD[:10]).socket.sendall(b"a")
    connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    assert server.drain(0.1) is False
    resource.go.set()
    server.close()


def test_retire_leaves_new_connections_to_others(start, connect):
    """Of two servers on one socket, the stopping one accepts nothing more, even if it waits; the other does."""
    holds, held = threading.Event(), threading.Event()
    with open_listener("127.0.0.1:0") as socket_of_both:
        one = start(inherited=socket_of_both.dup())
        one._listener.trigger.pull_trigger(lambda: holds.set() or held.wait(WAIT_TIMEOUT))
        assert holds.wait(WAIT_TIMEOUT)
        clients = [connect(one).send(GOOD) for _ in range(5)]
        one.retire()
        held.set()
        assert one.wait_closed(WAIT_TIMEOUT)
        other = start(inherited=socket_of_both.dup())
    assert other.address == one.address
    for client in clients:
        assert client.answer().headers.keys().isdisjoint({"connection"})


def test_retire_says_that_it_closes(start, connect, resource, monkeypatch):
    """A connection is closed after a response with Connection: close; an idle one after a while."""
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", WAIT_TIMEOUT)
    server = start()
    idle, active, busy = connect(server), connect(server), connect(server)
    for client in (idle, active):
        assert client.send(GOOD).answer().status == 200
    busy.send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    server.retire()
    assert server._stopped.wait(WAIT_TIMEOUT)
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert active.send(GOOD).answer().headers["connection"] == "close"
    assert active.closed()
    active.close()
    idle.socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # the connection is still open
        idle.closed()
    idle.socket.settimeout(WAIT_TIMEOUT)
    monkeypatch.setattr("flowhooks.web.server.server.RETIRING_IDLE_TIMEOUT", 0.1)
    assert idle.closed()
    assert not server.wait_closed(0)
    resource.go.set()
    assert busy.answer().headers["connection"] == "close"
    assert busy.closed()
    busy.close()
    assert server.wait_closed(WAIT_TIMEOUT)
    assert server.drain(WAIT_TIMEOUT)


def test_close_does_not_wait_for_a_thread_that_hangs(start, connect, resource, monkeypatch):
    """A request that hangs does not block the close; its client's connection ends."""
    monkeypatch.setattr("flowhooks.web.server.server.STOP_TIMEOUT", 0.1)
    server = start()
    client = connect(server).send(SLOW)
    assert resource.entered.acquire(timeout=WAIT_TIMEOUT)
    server.close()
    assert client.closed()  # without the response, which exists when the request ends
    resource.go.set()


def test_stop_accepting(start, connect):
    """New connections are refused, old ones are served as before."""
    server = start()
    client = connect(server)
    assert client.send(GOOD).answer().status == 200
    server.stop_accepting()
    server.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    answer = client.send(GOOD).answer()
    assert answer.status == 200
    assert "connection" not in answer.headers


def test_stops_from_within_the_loop(app):
    """A function that a signal handler calls in the serving thread does not wait for itself."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    refused = []

    def handler():
        server.stop_accepting()
        try:
            server.drain(1)
        except RuntimeError as error:
            refused.append(error)
        server.close()

    server._listener.trigger.pull_trigger(handler)
    server.serve()
    assert len(refused) == 1
    server.close()


def test_never_served(app):
    """A bound server that never served can be drained and closed repeatedly, and then does not serve."""
    server = Server(app, listen="127.0.0.1:0", threads=1, limits=Limits(), name="test")
    assert server.drain(WAIT_TIMEOUT)
    server.close()
    server.close()
    server.serve()


def test_two_servers_in_one_process(start, connect):
    """Two servers in one process are independent."""
    one, other = start(), start()
    assert connect(one).send(GOOD).answer().status == 200
    one.close()
    assert connect(other).send(GOOD).answer().status == 200


def test_address_in_use(server, app):
    """A used address is a clear error at once."""
    with pytest.raises(AddressInUse) as caught:
        Server(app, listen=server.address, threads=1, limits=Limits(), name="test")
    assert str(caught.value) == (
        f"cannot listen on {server.address}: address already in use (is another server running?)"
    )


@pytest.mark.parametrize("listen", ["", "8080", "localhost", "h:x", "127.0.0.1:65536", "127.0.0.1:-1", "192.0.2.1:0"])
def test_address_that_cannot_be(app, listen):
    """An invalid or foreign address is a clear error at once."""
    with pytest.raises(SettingsError, match=f"^cannot listen on {listen}: "):
        Server(app, listen=listen, threads=1, limits=Limits(), name="test")


@pytest.mark.parametrize("listen", ["localhost:0", "*:0", ":0", "[::1]:0"])
def test_address(app, listen):
    """Names, all addresses, and IPv6 are accepted; the assigned port is reported."""
    server = Server(app, listen=listen, threads=1, limits=Limits(), name="test")
    server.close()
    host, _, port = server.address.rpartition(":")
    assert int(port) > 0
    assert host in {"127.0.0.1", "0.0.0.0", "[::1]", "[::]"}
