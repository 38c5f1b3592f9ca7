"""Accepted and rejected requests over real sockets."""

from __future__ import annotations

import re
import socket
import time
from email.utils import parsedate_to_datetime

import pytest

from flowhooks.web.server.channel import Channel
from support.raw_requests import CHUNKED, GOOD, POST, SLOW
from support.waiting import WAIT_TIMEOUT

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
    "absolute target of HTTP/1.0": (b"GET http://other/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
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
    "absolute, two Host fields": (b"GET http://h/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "absolute, Host with a space": (b"GET http://h/x HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "absolute, no Host": (b"GET http://h/x HTTP/1.1\r\n\r\n", 400),
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


@pytest.mark.parametrize("name", TAKEN)
def test_valid_requests_are_accepted(server, connect, name):
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


@pytest.mark.parametrize("raw", [GOOD, b"hello\r\n\r\n"], ids=["accepted", "rejected"])
def test_a_response_has_its_date(server, raw):
    """A response has one `Date`, the second in which its request was started."""
    before = int(time.time())
    with socket.create_connection(server.address.split(":"), WAIT_TIMEOUT) as connection:
        connection.sendall(raw)
        head = connection.recv(65536).decode()
    (date,) = re.findall(r"^Date: (.+)\r$", head, re.MULTILINE)
    assert before <= parsedate_to_datetime(date).timestamp() <= time.time()
    assert date.endswith(" GMT")


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_requests_are_rejected(server, connect, ask, name):
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
def test_requests_arriving_byte_by_byte(server, connect, name):
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
def test_rejections_are_in_the_language_of_the_caller(server, ask, language, sentence):
    """A refusal before the application follows Accept-Language too, and has the original path."""
    answer = ask(server, b"POST /a%20b?c HTTP/1.1\r\nHost: h\r\n" + language + b"Content-Length: 1001\r\n\r\n")
    assert sentence in answer.json["message"]
    assert answer.json["path"] == "/a%20b"
    assert answer.json["error"] == "Content Too Large"


def test_path_and_language_of_a_malformed_head_are_parsed(server, ask):
    """Path and language are known even if the head is malformed or too large."""
    malformed = b"GET /p HTTP/1.1\r\nno colon\r\nAccept-Language: zh\r\n\r\n"
    too_large = b"GET /p HTTP/1.1\r\nAccept-Language: zh\r\nA: " + b"a" * 9000
    for raw, status in ((malformed, 400), (too_large, 431)):
        answer = ask(server, raw)
        assert (answer.status, answer.json["path"]) == (status, "/p")
        assert "请求" in answer.json["message"]


def test_http_2_is_rejected_with_an_explanation(server, ask):
    """The preface of HTTP/2, with the frames that follow it, is answered over HTTP/1.1 with what to use instead."""
    frames = bytes.fromhex("000012040000000000000300000064000402000000000200000000")
    answer = ask(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
    assert (answer.status, answer.json["error"]) == (505, "HTTP Version Not Supported")
    assert "use HTTP/1.1" in answer.json["message"]


def test_rejected_head_requests_get_no_body(server, connect):
    """HEAD gets no body, not even of an error."""
    client = connect(server).send(b"HEAD /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
    answer = client.answer(head_only=True)
    assert answer.status == 413
    assert int(answer.headers["content-length"]) > 0
    assert client.closed()


def test_header_fields_with_many_spaces_are_parsed_quickly(server, ask):
    """Thousands of spaces are parsed quickly; the time of waitress's own pattern grows with their square."""
    raw = b"GET /x HTTP/1.1\r\nHost: h\r\nA:" + b" " * 8000 + b"a\r\n\r\n"
    ask(server, GOOD)
    began = time.process_time()
    for _ in range(400):
        assert ask(server, raw).status == 200
    assert time.process_time() - began < 60  # with waitress's pattern these take two minutes


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
def test_a_client_receives_the_rejection_after_sending_its_body(server, connect, monkeypatch, head):
    """A client that sends all of 10 MB before it reads still receives the refusal."""
    monkeypatch.setattr("flowhooks.web.server.channel.LINGER_SECONDS", WAIT_TIMEOUT)
    client = connect(server)
    client.send(head).send(b"a" * 10_000_000)
    assert client.answer().status == 413
    assert client.closed()


def test_a_rejected_client_that_never_stops_sending(server, connect, monkeypatch):
    """The server reads from a refused client only for a limited time."""
    monkeypatch.setattr("flowhooks.web.server.channel.MAX_LINGER_BYTES", 1_000_000)
    client = connect(server).send(POST + b"Content-Length: 10000000\r\n\r\n")

    def send_on():
        for _ in range(1000):
            client.send(b"a" * 1_000_000)

    with pytest.raises(ConnectionError):
        send_on()


def test_a_rejected_client_that_never_closes(start, connect, monkeypatch):
    """The connection of a refused client that neither sends nor closes is closed."""
    monkeypatch.setattr("flowhooks.web.server.channel.LINGER_SECONDS", 0.1)
    server = start(read_timeout=WAIT_TIMEOUT)
    connect(server).send(b"x\r\n\r\n").answer()
    assert server.drain(WAIT_TIMEOUT)


def test_an_expect_header_is_answered_with_100_continue(server, connect):
    """A client that asks before sending a body gets 100 Continue."""
    client = connect(server).send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"abc").answer().json["length"] == 3
    client.send(POST + b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n")
    assert client.answer().status == 100
    assert client.send(b"1\r\na\r\n0\r\n\r\n").answer().json["length"] == 1


def test_no_100_continue_for_rejected_requests(server, connect):
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


def test_bytes_after_a_rejected_request_are_not_parsed(server, connect):
    """Bytes after a malformed request on its connection are not parsed."""
    client = connect(server).send(GOOD + POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + GOOD)
    assert client.answer().status == 200
    assert client.answer().status == 400
    assert client.closed()
