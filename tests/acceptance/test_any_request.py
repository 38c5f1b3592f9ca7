"""Requests of good, odd and wrong parts get a response of the contract or a closed connection.

test_bad_input.py changes bytes of good requests. This file changes the parts of which requests are made, so that more
requests pass the parser.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from support import raw_http

PLUGIN = '''
from flowhooks import Reject, handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@handler(process_key="bad")
def bad(event):
    """Never done."""
    raise Reject("no")

@hookimpl
def handlers():
    return [good, bad]
'''
SEED = 20261125
AT_ONCE = 40
METHODS = [
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "CONNECT",
    "post",
    "P@ST",
    "",
    "X" * 300,
]
ADMIN = [
    *("/", "/console", "/console/", "/console/events", "/console/login", "/console/static/x", "/console/../etc/passwd"),
    *("/healthz", "/readyz", "/metrics", "/openapi.json", "/api/overview", "/api/events", "/api/parked"),
    *("/api/events/x", "/api/handlers", "/api/rejected-requests", "/api/audit", "/api/alerts"),
    *("/api/operations/dismiss", "/api/operations/reroute_parked", "/api/operations/purge"),
    *("/api/operations/nothing", "/api/"),
]  # fmt: skip
IDS = [
    "%N",
    "%N",
    "%N",
    "a%2Fb",
    "%00",
    "%ff",
    "..",
    "%2e",
    "a b",
    "a" * 255,
    "a" * 256,
    "\u540d",
    "%e5%90%8d",
    "%",
    "",
    "~",
    "a;b",
]
KINDS = ["revoke", "cancel", "", "COMPLETE", "complete/", "%63omplete"]
QUERIES = [
    "",
    "",
    "",
    "?",
    "?a=b",
    "?state=dead",
    "?since=3d&until=1h",
    "?id=x",
    "?limit=1&limit=2",
    "?q=%ff",
    "?" + "&" * 500,
    "?%00=%00",
]
VERSIONS = ["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2", "", "http/1.1"]
HEADERS = {
    "Host": ["h", "h:1", "", "[::1]", "h,h", "h/", "\xff"],
    "Content-Type": ["application/json", "application/json; charset=utf-8", "application/json;charset=gbk",
                     "text/plain", ";", "\xff", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                     "a/b+json", "application/json, text/plain"],
    "Content-Encoding": ["identity", "gzip", "br, gzip", ""],
    "Accept": ["*/*", "application/xml", "text/html", "q", "\xff", ";q=2"],
    "Accept-Language": ["zh", "en;q=0", "zh;q=nan", "*", ",,,", "zh" * 500, "\xff"],
    "Authorization": ["Bearer x", "Bearer", "Basic Og==", "Basic \xff", "Bearer \xff\xfe", "Digest a=b", ""],
    "Prefer": ["wait=1", "wait=0", "wait=-1", "wait=1e9", "wait=1, respond-async", "=", "wait=" + "9" * 500],
    "Expect": ["100-continue", "100-Continue", "x", ""],
    "Connection": ["close", "keep-alive", "upgrade", "close, x", "Host", "", "\xff"],
    "Transfer-Encoding": ["chunked", "chunked", "Chunked", "gzip", "chunked, chunked", "identity", ""],
    "Cookie": ["a=b", "session=x; " * 50, "=", ";", "flowhooks=\xff", '"'],
    "Origin": ["http://evil", "null", "\xff", ""],
    "Sec-Fetch-Site": ["cross-site", "same-origin", "x"],
    "If-None-Match": ["*", '"x"', "x"],
    "If-Modified-Since": ["yesterday", "Wed, 21 Oct 2015 07:28:00 GMT", "\xff"],
    "Range": ["bytes=0-0", "bytes=-1", "bytes=" + "0-1," * 200, "x"],
    "X-Forwarded-For": ["10.0.0.1", "unix:", "\xff", "a, b"],
    "Forwarded": ["for=x", 'for="', ";"],
    "Traceparent": ["00-" + "0" * 32 + "-" + "0" * 16 + "-00", "x"],
    "Webhook-Id": ["msg_1", "", "\xff"],
    "Webhook-Timestamp": ["0", "x", "9" * 400],
    "Webhook-Signature": ["v1,x", "v1,", "v1," + "A" * 44, ","],
    "X-" + "x" * 200: ["y" * 2000],
}  # fmt: skip
BODIES = [
    *(b'{"processDefinitionKey": "good"}', b'{"processDefinitionKey": "good"}', b'{"processDefinitionKey": "bad"}'),
    *(b'{"processDefinitionKey": "good", "a": "%N"}', b"{}", b'{"event_filter": {}}'),
    b'{"event_filter": {"ids": ["x"]}}',
    *(b"", b"{", b"[]", b"null", b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b"\xff"),
    *(b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", b"name=li&password=x", b"<x/>"),
    *(b'{"a": "' + b"x" * 100_000 + b'"}', b'{"processDefinitionVersion": 1e99}'),
    b'{"businessKey": "' + b"k" * 600 + b'"}',
]  # fmt: skip
CHUNKINGS = [
    "%x\r\n",
    "%X\r\n",
    "00%x\r\n",
    "%x;a=b\r\n",
    "%x ;a\r\n",
    "+%x\r\n",
    "0x%x\r\n",
    "%x\n",
    " %x\r\n",
    "%x\r\n\r\n",
]
ENDS = [b"", b"0\r\nA: b\r\n\r\n", b"0\r\n", b"0;x\r\n\r\n", b"00\r\n\r\n"]
STATUSES = {100, 200, 202, 301, 302, 303, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 431, 500, 501, 503}


class Maker:
    """Makes random requests, the same ones for the same seed; most parts of each request are correct."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.made = 0

    def odd(self, often=0.15):
        """Whether the next part is made incorrect."""
        return self.chance.random() < often

    def request(self, *, admin):
        """One request, complete or not."""
        chance = self.chance
        self.made += 1
        if admin:
            path = chance.choice(ADMIN)
        else:
            kind = chance.choice(KINDS) if self.odd() else "complete"
            path = f"/flow/{chance.choice(IDS) if self.odd(0.3) else '%N'}/call-back/{kind}"
        usual = "GET" if admin and not path.startswith("/api/operations") else "POST"
        method = chance.choice(METHODS) if self.odd() else usual
        target = ("http://h" if self.odd(0.05) else "") + path + chance.choice(QUERIES)
        lines = [" ".join((method, target, chance.choice(VERSIONS)))]
        body = chance.choice(BODIES)
        named = {name: chance.choice(values) for name, values in HEADERS.items() if self.odd(0.1)}
        named.setdefault("Host", "localhost")
        if self.odd(0.3):
            named["Transfer-Encoding"] = "chunked"
            body = self.chunked(body)
        elif usual == "POST" or self.odd():
            named["Content-Length"] = str(len(body) + (chance.choice([1, -1, 1_000_000]) if self.odd(0.05) else 0))
        lines += [f"{name}: {value}" for name, value in named.items()]
        if self.odd(0.05):
            lines.insert(
                chance.randrange(1, len(lines) + 1),
                chance.choice([lines[-1], " folded", "nothing", ": x", "A : b", "\x00: a"]),
            )
        end = "\n" if self.odd(0.02) else "\r\n"
        sent = (end.join(lines) + end * 2).encode("latin-1", "backslashreplace") + body
        if self.odd(0.04):
            sent = sent[: chance.randrange(len(sent) + 1)]
        return sent.replace(b"%N", b"any-%d" % (self.made if self.odd(0.7) else 1))

    def chunked(self, body):
        """A body in chunks."""
        chance, parts = self.chance, []
        while body:
            part, body = body[: (size := chance.choice([1, 7, 100, 70_000]))], body[size:]
            opening = chance.choice(CHUNKINGS) if self.odd(0.05) else "%x\r\n"
            parts.append((opening % len(part)).encode() + part + (b"\r\n" if not self.odd(0.01) else b"\n"))
            if len(parts) > 200:
                break
        return b"".join(parts) + chance.choice(
            [b"0\r\n\r\n"] * 9 + [b"", b"0\r\nA: b\r\n\r\n", b"0\r\n", b"0;x\r\n\r\n", b"00\r\n\r\n"]
        )


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with two handlers."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    return site


@pytest.fixture(scope="module")
def server(site):
    """The server that receives all requests."""
    return site.start(answer_wait=20, http__read_timeout=0.5, http__idle_timeout=1, http__threads=8)


def ask(server, maker, *, times, admin):
    """Send `times` requests and check each result; return how often each status was received."""
    place = server.admin if admin else server.address

    def one(sent):
        began = time.monotonic()
        came = raw_http.exchange(place, sent)
        if admin and b"text/html" in came:
            status = int(came[9:12])  # the request was for a page
            assert status != 500, why(server, sent, came)
            return [status]
        found = raw_http.parse_responses(came, request=sent)
        for answer in found:
            # A 500 must come from a handler, and say so.
            assert answer.status != 500 or "flowhooks-event" in answer.headers, why(server, sent, came)
            assert answer.status in STATUSES, (sent, answer)
            assert answer.status != 503 or "retry-after" in answer.headers, (sent, answer)
        # The server reads from a refused client for two seconds: did the client take longer to send?
        assert found or not sent.strip(b"\r\n"), (f"no answer, after {time.monotonic() - began:.1f} s", sent)
        return [answer.status for answer in found]

    seen = Counter()
    while times > 0:
        requests = [maker.request(admin=admin) for _ in range(min(times, 10 * AT_ONCE))]
        times -= len(requests)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for statuses in pool.map(one, requests):
                seen.update(statuses)
        assert server.process.poll() is None
    return seen


def why(server, sent, came):
    """The facts about a 500 that no handler caused: the response and its log records.

    The response can be received before the line is in the log.
    """
    with suppress(AssertionError):
        server.until_logged("request_failed", within=5)
    told = [line for line in list(server.lines) if "traceback" in line or "_failed" in line or "waitress" in line]
    return "\n".join(
        ["a 500 of ours", f"sent {sent!r}", f"came {came!r}", "logged:", *told, "and last:", *server.lines[-5:]]
    )


def see_that_it_is_well(server, site):
    """Check that the server responds, has logged no traceback, and that its counts balance."""
    answer = server.post("well", {"processDefinitionKey": "good"}, Prefer="wait=20")
    assert answer.body == b'{"success": true}'
    assert json.loads(server.ask("GET", "/healthz", admin=True).body) == {"alive": True}
    server.check_log()
    assert not [record for record in server.records if record["event"] in {"request_failed", "application_failed"}]
    site.balance()


@pytest.mark.parametrize(
    ("listener", "wanted"),
    [("call-backs", {200, 202, 400, 404, 405, 408, 409, 415, 422, 500}), ("admin", {200, 400, 401, 404, 405})],
)
def test_any_request_gets_an_answer_of_the_contract(server, site, listener, wanted):
    """Hundreds of fixed requests, many at a time: a 500 only from handlers, no hang and no crash."""
    seen = ask(server, Maker(SEED), times=400, admin=listener == "admin")
    assert wanted <= seen.keys(), seen
    see_that_it_is_well(server, site)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("listener", ["call-backs", "admin"])
def test_twenty_thousand_random_requests(server, site, listener):
    """Twenty thousand requests, different ones in each run."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"{listener}, seed {seed}")  # noqa: T201 (shown where it fails: the same seed makes the same requests)
    seen = ask(server, Maker(seed), times=20_000, admin=listener == "admin")
    print(dict(sorted(seen.items())))  # noqa: T201 (what `make test-long` is to show)
    see_that_it_is_well(server, site)
