"""Requests that two parsers might read differently, or that break off: one response each, and no request smuggling.

Single requests of tests/integration/web/server/test_requests.py go to the parser, these go to a server with a ledger:
a request that is no callback must not be stored. RFC 9110 is HTTP, RFC 9112 is HTTP/1.1.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import NamedTuple

import pytest

from support import raw_http

PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
BODY = b'{"processDefinitionKey": "good"}'
assert len(BODY) == 0x20
POST = b"POST /flow/ID/call-back/complete HTTP/1.1\r\nHost: localhost\r\n"
"""`ID` is replaced by the row's own id."""
LENGTH = b"Content-Length: 32\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"20\r\n" + BODY + b"\r\n0\r\n\r\n"
GOOD = POST + LENGTH + b"\r\n" + BODY
LAST = POST.replace(b"ID", b"ID-last") + LENGTH + b"Connection: close\r\n\r\n" + BODY
"""Sent after requests that leave the connection open: it is read as a separate request from its first byte."""
HONEST = LAST.replace(b"ID-last", b"honest")
WITHIN = GOOD.replace(b"ID", b"ID-smuggled")
"""A callback inside another request, or after a request behind which nothing may be read."""
SIZE = b"%d" % (len(WITHIN.replace(b"ID", b"row-000")))
TAKEN, BOTH, BEHIND, NONE = {"ID"}, {"ID", "ID-last"}, {"ID-last"}, set()


class Row(NamedTuple):
    """Bytes, and their expected result.

    Attributes:
        why: what the bytes are, with the section of the RFC.
        sent: the bytes.
        statuses: the statuses of the responses in order; after the last one the server closes.
        stored: the instances whose callbacks are stored.
    """

    why: str
    sent: bytes
    statuses: tuple[int, ...]
    stored: set[str]


def framed(why, fields, *, rest=b"0\r\n\r\n" + WITHIN, status=400):
    """Headers that leave the end of the body ambiguous, before bytes that can be read as a second request."""
    return Row(why, POST + fields + b"\r\n" + rest, (status,), NONE)


def length(why, value, status=400):
    """A Content-Length that some parsers read as 32, before a body of 32 bytes and a second request."""
    return Row(why, POST + b"Content-Length:" + value + b"\r\n\r\n" + BODY + WITHIN, (status,), NONE)


def chunks(why, rest, status=400):
    """A chunked body that some parsers read to an end, before a second request."""
    return Row(why, CHUNKED + rest + WITHIN, (status,), NONE)


def field(why, line, status=400):
    """A header line added to a valid callback."""
    return Row(why, POST + LENGTH + line + b"\r\n\r\n" + BODY + WITHIN, (status,), NONE)


def both(why, sent):
    """A callback that is accepted, followed by another one."""
    return Row(why, sent + LAST, (200, 200), BOTH)


def behind(why, sent, status):
    """Requests that are no callback and leave the connection open: the next callback is accepted."""
    return Row(why, sent + LAST, (status, 200), BEHIND)


def allowed(why, line):
    """A harmless header line: this callback and the next one are accepted."""
    return both(why, POST + LENGTH + line + b"\r\n\r\n" + BODY)


def first_line(why, line, status=400):
    """A different request line."""
    return Row(why, line + b"\r\nHost: localhost\r\n" + LENGTH + b"\r\n" + BODY + WITHIN, (status,), NONE)


def path(why, target, status):
    """A different target, which the server answers; the connection stays open."""
    return behind(why, b"POST " + target + POST[32:] + LENGTH + b"\r\n" + BODY, status)


TE, CL0 = b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"
ROWS = (
    # Two ways to mark the end of the body.
    framed("CL.TE, RFC 9112 §6.3: a length before a coding", b"Content-Length: 5\r\n" + TE),
    framed("CL.TE with the length of everything, §6.3", b"Content-Length: 200\r\n" + TE),
    framed("TE.CL, §6.3: a coding before a length", TE + b"Content-Length: 5\r\n"),
    framed("CL.TE with no length, §6.3", CL0 + TE),
    framed("TE.TE, §6.1: chunked twice", TE + TE),
    framed("TE.TE, §6.1: chunked, then an unknown coding", TE + b"Transfer-Encoding: x\r\n"),
    framed("TE.TE, §6.1: an unknown coding, then chunked", b"Transfer-Encoding: x\r\n" + TE, status=501),
    framed("TE.TE, §6.1: chunked, then identity", TE + b"Transfer-Encoding: identity\r\n"),
    framed("TE.TE, §6.1: identity, then chunked", b"Transfer-Encoding: identity\r\n" + TE, status=501),
    framed("a coding that only ends so, §6.1", b"Transfer-Encoding: xchunked\r\n"),
    framed("a coding with a parameter, §7.1", b"Transfer-Encoding: chunked;q=1\r\n"),
    framed("a coding in quotes, RFC 9110 §10.1.4", b'Transfer-Encoding: "chunked"\r\n'),
    framed("a coding with a space inside, RFC 9112 §7", b"Transfer-Encoding: chun ked\r\n"),
    framed("a comma behind it, RFC 9110 §5.6.1", b"Transfer-Encoding: chunked,\r\n"),
    framed("a comma before it, RFC 9110 §5.6.1", b"Transfer-Encoding: ,chunked\r\n", status=501),
    framed("a vertical tab before it, RFC 9110 §5.5", b"Transfer-Encoding:\x0bchunked\r\n"),
    framed("a form feed behind it, RFC 9110 §5.5", b"Transfer-Encoding: chunked\x0c\r\n"),
    framed("a NUL behind it, RFC 9110 §5.5", b"Transfer-Encoding: chunked\x00\r\n"),
    framed("a no-break space before it, RFC 9110 §5.6.3", b"Transfer-Encoding: \xa0chunked\r\n"),
    framed("a space before the colon, RFC 9112 §5.1", b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n"),
    framed("a tab before the colon, §5.1", b"Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n"),
    framed("a space before the name, §2.2", b"Content-Length: 5\r\n Transfer-Encoding: chunked\r\n"),
    framed("on a folded line, §5.2", b"Content-Length: 5\r\nA: b\r\n Transfer-Encoding: chunked\r\n"),
    framed("its value on a folded line, §5.2", b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n"),
    framed("behind a bare LF, §2.2", b"Content-Length: 5\r\nA: b\nTransfer-Encoding: chunked\r\n"),
    framed("behind a bare CR, §2.2", b"Content-Length: 5\r\nA: b\rTransfer-Encoding: chunked\r\n"),
    framed("a LF before the colon, §5.1", b"Content-Length: 5\r\nTransfer-Encoding\n: chunked\r\n"),
    Row("in HTTP/1.0, §6.1", CHUNKED.replace(b"1.1", b"1.0") + CHUNKS + WITHIN, (400,), NONE),
    both("a tab before the value, RFC 9110 §5.6.3", CHUNKED.replace(b": c", b":\tc") + CHUNKS),
    both("capitals, RFC 9112 §7", CHUNKED.replace(b"chunked", b"cHuNKED") + CHUNKS),
    allowed("an underscore, which CGI takes for a hyphen, RFC 3875 §4.1.18", b"Transfer_Encoding: chunked"),
    allowed("the same with a length", b"Content_Length: 5"),
    # Invalid lengths.
    framed("two lengths, RFC 9112 §6.3", CL0 + LENGTH, rest=BODY + WITHIN),
    framed("the same length twice, RFC 9110 §8.6", LENGTH + LENGTH, rest=BODY + WITHIN),
    framed("a folded length, RFC 9112 §5.2", b"Content-Length:\r\n 32\r\n", rest=BODY + WITHIN),
    length("a plus, RFC 9110 §8.6: digits only", b" +32"),
    length("minus nothing, §8.6", b" -0"),
    length("an underscore, §8.6", b" 3_2"),
    length("hexadecimal, §8.6", b" 0x20"),
    length("an exponent, §8.6", b" 32e0"),
    length("a fraction, §8.6", b" 32.0"),
    length("two with a space, §8.6", b" 3 2"),
    length("two with a comma, §8.6", b" 32, 32"),
    length("a comma behind it, §8.6", b" 32,"),
    length("a semicolon, §8.6", b" 32;"),
    length("in quotes, §8.6", b' "32"'),
    length("Arabic digits, §8.6", " ٣٢".encode()),
    length("a NUL behind it, §5.5", b" 32\x00"),
    length("a vertical tab before it, §5.5", b"\x0b32"),
    length("2**64 + 32, §8.6: no number overflows", b" 18446744073709551648", 413),
    length("2**32 + 32, §8.6", b" 4294967328", 413),
    length("one more than is taken, §15.5.14", b" 1048577", 413),
    both("leading zeros, §8.6", GOOD.replace(b": 32", b": 00032")),
    both("a tab behind it, §5.6.3", GOOD.replace(b": 32", b": 32\t")),
    # Chunks.
    chunks("no CRLF behind the data, RFC 9112 §7.1", b"20\r\n" + BODY + b"0\r\n\r\n"),
    chunks("more data than the size says, §7.1", b"20\r\n" + BODY + b"x\r\n0\r\n\r\n"),
    chunks("only a LF behind the data, §7.1", b"20\r\n" + BODY + b"\n0\r\n\r\n"),
    chunks("only a LF behind the size, §7.1", b"20\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("only a CR behind the size, §7.1", b"20\r" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a LF in an extension, §7.1.1", b"20;\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a CR in an extension, §7.1.1", b"20;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a NUL in an extension, §7.1.1", b"20;a=\x00\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("an extension of 10,000 bytes, §7.1.1", b"20;" + b"a" * 10_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("no last chunk, §7.1", b"20\r\n" + BODY + b"\r\n"),
    chunks("no line behind the last chunk, §7.1", b"20\r\n" + BODY + b"\r\n0\r\n"),
    chunks("a trailer without a colon, §7.1.2", b"20\r\n" + BODY + b"\r\n0\r\nGET / HTTP/1.1\r\n\r\n"),
    chunks("a folded trailer, §5.2", b"20\r\n" + BODY + b"\r\n0\r\nA: b\r\n c\r\n\r\n"),
    chunks("trailers of 20,000 bytes, §7.1.2", b"0\r\n" + b"A: b\r\n" * 3_400 + b"\r\n"),
    chunks("a size below zero, §7.1", b"-20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size with a plus, §7.1", b"+20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size with 0x, §7.1", b"0x20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size with an underscore, §7.1", b"2_0\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size with a space before it, §7.1", b" 20\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size with an h, §7.1", b"20h\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("no size, §7.1", b";a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size of 2**64 + 32, §7.1: no number overflows", b"10000000000000020\r\n" + BODY + b"\r\n0\r\n\r\n"),
    chunks("a size of 2**32 + 32, §7.1", b"100000020\r\n" + BODY + b"\r\n0\r\n\r\n", 413),
    chunks("more than is taken in two chunks, RFC 9110 §15.5.14", b"20\r\n" + BODY + b"\r\nfffff\r\n", 413),
    both("trailers are fields of nothing, §7.1.2", CHUNKED + CHUNKS[:-2] + LENGTH + TE + b"\r\n"),
    both("extensions, §7.1.1", CHUNKED + b'20;a;b="c\\"d";e=f\r\n' + CHUNKS[4:]),
    both("leading zeros of a size, §7.1", CHUNKED + b"00020\r\n" + CHUNKS[4:]),
    # Bodies that are not read must still be skipped.
    behind(
        "a body of GET, RFC 9110 §9.3.1",
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + SIZE + b"\r\n\r\n" + WITHIN,
        200,
    ),
    behind(
        "a body of GET in chunks, §9.3.1",
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
        + TE
        + b"\r\n%x\r\n" % int(SIZE)
        + WITHIN
        + b"\r\n0\r\n\r\n",
        200,
    ),
    behind(
        "a body of HEAD, §9.3.2",
        b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + SIZE + b"\r\n\r\n" + WITHIN,
        200,
    ),
    behind(
        "a body for no path, §15.5.5",
        b"POST /no HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + SIZE + b"\r\n\r\n" + WITHIN,
        404,
    ),
    behind(
        "a body of a wrong type, §15.5.16",
        POST + b"Content-Type: text/plain\r\nContent-Length: " + SIZE + b"\r\n\r\n" + WITHIN,
        415,
    ),
    behind(
        "a body for another method, §15.5.6", b"PUT" + POST[4:] + b"Content-Length: " + SIZE + b"\r\n\r\n" + WITHIN, 405
    ),
    behind("a body that is another request, §15.5.1", POST + b"Content-Length: " + SIZE + b"\r\n\r\n" + WITHIN, 400),
    # The Host.
    Row("no Host, RFC 9112 §3.2", GOOD.replace(b"Host: localhost\r\n", b"") + WITHIN, (400,), NONE),
    field("two Hosts, §3.2", b"Host: other"),
    field("two Hosts, one in capitals, §3.2", b"HOST: h"),
    *(
        Row(f"Host {host!r}, §3.2", GOOD.replace(b"Host: localhost", b"Host: " + host) + WITHIN, (400,), NONE)
        for host in (
            b"a, b",
            b"a b",
            b"u@h",
            b"h/x",
            b"h?x",
            b"h:x",
            b"h:1:2",
            b"[::1",
            b"http://h",
            b"h\\x",
            "hé".encode(),
            b"h\x00",
            b"h:123456",
            b"<script>",
            b'"h"',
        )
    ),
    both("an empty Host, §3.2", GOOD.replace(b"Host: localhost", b"Host:")),
    both("a Host in brackets, §3.2", GOOD.replace(b"Host: localhost", b"Host: [::1]:80")),
    # Fields.
    field("a folded line, §5.2", b"A: b\r\n c"),
    field("a line of one space, §5.2", b" "),
    field("a bare LF, §2.2", b"A: b\nC: d"),
    field("a bare CR, §2.2", b"A: b\rC: d"),
    field("a CR too many, §2.2", b"A: b\r"),
    field("a NUL in a value, RFC 9110 §5.5", b"A: \x00"),
    field("a NUL in a name, §5.1", b"A\x00: b"),
    field("an escape in a value, §5.5", b"A: \x1b[2J"),
    field("a delete in a value, §5.5", b"A: \x7f"),
    field("a tab before the colon, RFC 9112 §5.1", b"A\t: b"),
    field("no colon, §5", b"A"),
    field("no name, §5", b": b"),
    *(
        field(f"the name {name!r}, RFC 9110 §5.1", name + b": b")
        for name in (b"A b", b"A(b)", b"A@b", b'"A"', b"[A]", b"A/b", b"A=b", b"A,b", "Ä".encode(), b"A\x7f", b"\x0bA")
    ),
    field("a field of 16 KiB, RFC 6585 §5", b"A: " + b"a" * 16384, 431),
    field("a name of 16 KiB, RFC 6585 §5", b"a" * 16384 + b": b", 431),
    field("5,000 fields, RFC 6585 §5", b"\r\n".join([b"A: b"] * 5_000), 431),
    allowed("2,500 fields, RFC 9110 §5.4", b"\r\n".join([b"A:b"] * 2_500)),
    allowed("a field of Latin-1, §5.5", b"A: \xe4\xf6\xfc"),
    allowed("an empty field, §5.5", b"A:"),
    allowed("a credential that nobody asked for, twice, §11.6.2", b"Authorization: Bearer x\r\nAuthorization: Basic y"),
    allowed("Prefer on two lines, §5.3", b"Prefer: wait=5\r\nPrefer: foo=bar"),
    allowed(
        "Upgrade to HTTP/2, §7.8: may be ignored",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    ),
    allowed("Upgrade to WebSocket, §7.8", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA=="),
    allowed("a connection option of a framing field, §7.6.1", b"Connection: Content-Length, Host"),
    allowed("another expectation, §10.1.1: may be ignored", b"Expect: 200-maybe"),
    behind(
        "headers of proxies, while no source is configured, RFC 7239 §8.1",
        POST + LENGTH + b"X-Forwarded-Host: evil\r\nForwarded: host=evil\r\n\r\n" + BODY,
        403,
    ),
    allowed("another method in a header, which is not followed", b"X-HTTP-Method-Override: DELETE"),
    allowed("another path in a header, which is not followed", b"X-Original-URL: /x\r\nX-Rewrite-URL: /x"),
    behind(
        "Content-Type twice, RFC 9110 §8.3",
        POST + LENGTH + b"Content-Type: application/json\r\n" * 2 + b"\r\n" + BODY,
        415,
    ),
    behind("Content-Encoding, §8.4.1", POST + LENGTH + b"Content-Encoding: gzip\r\n\r\n" + BODY, 415),
    Row(
        "100-continue with the body behind it, §10.1.1",
        POST + LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY + LAST,
        (100, 200, 200),
        BOTH,
    ),
    Row(
        "100-continue for too much, §10.1.1",
        POST + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n" + WITHIN,
        (413,),
        NONE,
    ),
    Row(
        "100-continue in HTTP/1.0, §10.1.1",
        GOOD.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
        (200,),
        TAKEN,
    ),
    # The request line.
    *(
        first_line(f"version {version!r}, RFC 9112 §2.3", b"POST /flow/ID/call-back/complete " + version)
        for version in (
            b"HTTP/3.0",
            b"HTTP/2.0",
            b"HTTP/1.10",
            b"HTTP/01.1",
            b"HTTP/1",
            b"HTTP/1.1.1",
            b"http/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1\t",
            b"HTTP /1.1",
            b"HTTP/1,1",
            b"ICY/1.1",
            b"HTTP/-1.1",
            b"",
        )
    ),
    first_line("tabs for spaces, §3", b"POST\t/flow/ID/call-back/complete\tHTTP/1.1"),
    first_line("a space in the target, §3.2", b"POST /flow/ID/call-back/complete x HTTP/1.1"),
    first_line("a CR in the target, §2.2", b"POST /flow/ID/call-back/complete\rx HTTP/1.1"),
    first_line("another method in small letters, RFC 9110 §9.1", b"post /flow/ID/call-back/complete HTTP/1.1"),
    first_line("a method that is none, §9.1", b"PO(ST /flow/ID/call-back/complete HTTP/1.1"),
    first_line("a method of 20,000 letters, §9.1", b"P" * 20_000 + b" /flow/ID/call-back/complete HTTP/1.1", 431),
    first_line("a target of 20,000 letters, §15.5.15", b"POST /" + b"a" * 20_000 + b" HTTP/1.1", 431),
    first_line("authority-form, RFC 9112 §3.2.3: for CONNECT only", b"POST h:80 HTTP/1.1"),
    first_line("CONNECT, §3.2.3", b"CONNECT h:80 HTTP/1.1"),
    first_line("asterisk-form, §3.2.4: for OPTIONS only", b"POST * HTTP/1.1"),
    first_line("another scheme, RFC 9110 §4.2", b"POST file:///flow/ID/call-back/complete HTTP/1.1"),
    first_line("no scheme, RFC 9112 §3.2.2", b"POST //h@x:y/ HTTP/2"),
    first_line("a user in the target, RFC 9110 §4.2.4", b"POST http://u:p@h/flow/ID/call-back/complete HTTP/1.1"),
    first_line("a fragment, RFC 9112 §3.2", b"POST /flow/ID/call-back/complete#x HTTP/1.1"),
    first_line("the preface of HTTP/2, RFC 9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    first_line("TLS, RFC 8446 §5.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    first_line("HTTP/0.9, RFC 9112 §2.3", b"GET /flow/ID/call-back/complete"),
    first_line("the protocol of a proxy", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + POST[:41]),
    *(
        behind(f"{method.decode()}, RFC 9110 §9", method + POST[4:] + LENGTH + b"\r\n" + BODY, 405)
        for method in (b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE")
    ),
    behind("a method that nobody knows, §9.1", b"HACK" + POST[4:] + LENGTH + b"\r\n" + BODY, 400),
    behind("OPTIONS, §9.3.7", b"OPTIONS" + POST[4:] + b"\r\n", 200),
    behind("OPTIONS *, RFC 9112 §3.2.4", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    both(
        "absolute-form goes before Host, §3.2.2",
        GOOD.replace(b"POST /", b"POST http://127.0.0.1/").replace(b"Host: localhost", b"Host: other"),
    ),
    behind("absolute-form with a name of another machine, §3.2.2", GOOD.replace(b"POST /", b"POST http://other/"), 403),
    both("empty lines before, §2.2", b"\r\n\r\n" + GOOD + b"\r\n"),
    # Paths.
    Row(
        "an escaped slash is part of the id, RFC 3986 §2.2",
        GOOD.replace(b"/ID/", b"/ID%2Fcall-back%2Fcomplete/") + LAST,
        (200, 200),
        {"ID/call-back/complete", "ID-last"},
    ),
    Row(
        "dots are an id, escaped or not, §5.2.4: no path is resolved",
        GOOD.replace(b"/ID/", b"/%2e%2E/") + LAST,
        (200, 200),
        {"..", "ID-last"},
    ),
    path("dots in front, §5.2.4: no path is resolved", b"/flow/../flow/ID/call-back/complete", 404),
    Row(
        "an escape of an escape, §2.4: decoded once",
        GOOD.replace(b"/ID/", b"/ID%252F/") + LAST,
        (200, 200),
        {"ID%2F", "ID-last"},
    ),
    path("overlong UTF-8, RFC 3629 §3", b"/flow/ID%c0%af/call-back/complete", 422),
    path("half an escape, RFC 3986 §2.1", b"/flow/ID%4/call-back/complete", 422),
    path("no escape, §2.1", b"/flow/ID%u0041/call-back/complete", 422),
    path("an escaped NUL, §7.3", b"/flow/ID%00/call-back/complete", 422),
    path("an escaped line, RFC 9110 §5.5", b"/flow/ID%0d%0aSet-Cookie:%20a=b/call-back/complete", 422),
    path("an escaped name of the path, RFC 3986 §6.2.2.2: not taken for it", b"/%66low/ID/call-back/complete", 404),
    path("an escaped kind, §6.2.2.2", b"/flow/ID/call-back/%63omplete", 404),
    path("a slash at the end, §6.2.3", b"/flow/ID/call-back/complete/", 404),
    path("a parameter, §3.3", b"/flow/ID/call-back/complete;a=b", 404),
    path("two slashes, §6.2.3", b"/flow//ID/call-back/complete", 404),
    Row(
        "two slashes in front, §6.2.3: refused, as a proxy's rule for /flow/ may not have seen it",
        GOOD.replace(b"/flow", b"//flow") + WITHIN,
        (404,),
        NONE,
    ),
    path("a backslash, §2", b"/flow\\ID\\call-back\\complete", 404),
    path("no id, §3.3", b"/flow//call-back/complete", 422),
    path("an id of 256 letters", b"/flow/" + b"a" * 256 + b"/call-back/complete", 422),
    Row(
        "an escaped letter is that letter, §6.2.2.2",
        GOOD.replace(b"/ID/", b"/%49D/").replace(b"%49D", b"ID%2Dx") + LAST,
        (200, 200),
        {"ID-x", "ID-last"},
    ),
    both("a query, §3.4: not looked at", GOOD.replace(b"complete", b"complete?a=b&" + b"c" * 8_000)),
    # Several requests on one connection.
    Row("a good one before a bad one, RFC 9112 §9.3.2", GOOD + b"x\r\n\r\n" + WITHIN, (200, 400), TAKEN),
    Row("a bad one before a good one, §9.3.2", b"x\r\n\r\n" + WITHIN, (400,), NONE),
    Row(
        "ten, §9.3.2",
        b"".join(GOOD.replace(b"ID", b"ID-%d" % number) for number in range(10)) + LAST,
        (200,) * 11,
        {f"ID-{number}" for number in range(10)} | {"ID-last"},
    ),
    Row("behind one that closes, §9.6", LAST + WITHIN, (200,), BEHIND),
    Row("behind HTTP/1.0, which closes, §9.3", GOOD.replace(b"1.1", b"1.0") + WITHIN, (200,), TAKEN),
    both("behind HTTP/1.0 that stays, §9.3", GOOD.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n")),
    Row("behind a body that is too short, §9.3.2", GOOD.replace(b": 32", b": 31") + WITHIN, (400, 400), NONE),
    Row("behind a body that is too long, §9.3.2", GOOD.replace(b": 32", b": 33") + LAST, (400, 400), NONE),
    Row(
        "a refusal to HTTP/1.0 that would stay, §9.6: it says that it closes, and nothing else",
        GOOD.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\nA : b\r\n") + WITHIN,
        (400,),
        NONE,
    ),
    # Input that ends early, so that the read timeout applies.
    Row("half a request line, RFC 9110 §15.5.9", b"POST /flow/ID/ca", (408,), NONE),
    Row("half a head, §15.5.9", POST + b"A", (408,), NONE),
    Row("half a body, §15.5.9", GOOD[:-1], (408,), NONE),
    Row("half a chunk, §15.5.9", CHUNKED + CHUNKS[:20], (408,), NONE),
    Row("no last chunk, §15.5.9", CHUNKED + CHUNKS[:-5], (408,), NONE),
    Row("trailers without an end, §15.5.9", CHUNKED + CHUNKS[:-2] + b"A: b\r\n", (408,), NONE),
    Row("half of one behind a good one, §15.5.9", GOOD + WITHIN[:-1], (200, 408), TAKEN),
)


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with one plugin."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    return site


@pytest.fixture(scope="module")
def server(site):
    """The server that receives all requests."""
    # A busy machine delays the reading of a request of several parts, and a commit may take seconds.
    server = site.start(answer_wait=30, http__read_timeout=2, http__idle_timeout=5, ledger__write_timeout=20)
    check_honest(server)
    return server


def check_honest(server):
    """Check that the server answers an ordinary callback."""
    (answer,) = raw_http.parse_responses(raw_http.exchange(server.address, HONEST))
    assert (answer.status, answer.body) == (200, b'{"success": true}')


@pytest.fixture
def stored(site, server):
    """A function that returns newly stored instances, and afterwards checks that the server is well."""

    def look():
        with closing(sqlite3.connect(f"file:{site.database}?mode=ro", uri=True)) as connection:
            return {instance for (instance,) in connection.execute("SELECT flow_instance_id FROM events")}

    before = look()
    yield lambda: look() - before
    check_honest(server)
    assert server.process.poll() is None
    server.check_log()


def test_the_rows_differ():
    """No two rows are equal."""
    assert len({row.why for row in ROWS}) == len({row.sent for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row.why for row in ROWS])
def test_each_request_has_one_answer_and_nothing_is_smuggled(server, stored, number):
    """Each row has its statuses in the envelope, and the ledger has the row's callbacks and no other."""
    row = ROWS[number]
    own = f"row-{number:03}"
    sent = row.sent.replace(b"ID", own.encode())
    came = raw_http.parse_responses(raw_http.exchange(server.address, sent), request=sent)
    assert tuple(response.status for response in came) == row.statuses, (row.why, came)
    assert stored() == {instance.replace("ID", own) for instance in row.stored}, row.why
    if came[-1].status not in {200, 202}:
        assert came[-1].headers["connection"] == "close"


PHASES = {
    "before anything": b"",
    "in the request line": POST[:20],
    "in the headers": POST[:-5],
    "before the body": GOOD[: -len(BODY)],
    "in the body": GOOD[:-1],
    "before 100": POST + LENGTH + b"Expect: 100-continue\r\n\r\n",
    "in the size of a chunk": CHUNKED + b"2",
    "in a chunk": CHUNKED + CHUNKS[:10],
    "before the last chunk": CHUNKED + CHUNKS[:-5],
    "in the trailers": CHUNKED + CHUNKS[:-2] + b"A: b",
    "after a refusal": b"x\r\n\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_incomplete_request_stores_nothing(server, stored, phase, reset):
    """An incomplete request stores nothing, and the server closes the connection."""
    for _ in range(3):
        raw_http.disconnect(server.address, PHASES[phase].replace(b"ID", b"early"), reset=reset)
    check_honest(server)
    assert stored() == set()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_request_is_stored_at_most_once_after_a_disconnect(server, stored, reset):
    """A complete request is stored at most once after a disconnect, and can be repeated."""
    own = f"late-{reset}"
    sent = GOOD.replace(b"ID", own.encode())
    for _ in range(5):
        raw_http.disconnect(server.address, sent, reset=reset)
    (answer,) = raw_http.parse_responses(raw_http.exchange(server.address, LAST.replace(b"ID-last", own.encode())))
    assert answer.status == 200
    assert stored() == {own}
