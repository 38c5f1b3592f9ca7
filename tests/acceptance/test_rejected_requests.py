"""The HTTP contract from outside: which requests are refused, and the reasons in both languages."""

from __future__ import annotations

import json
import re

import pytest

from flowhooks.ledger.queries import EventFilter
from support.waiting import until

PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="done")
def done(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [done]
'''
WIDE = {"required": [f"member-{number:02}" for number in range(25)]}
DONE = {"processDefinitionKey": "done"}
SUCCESS = b'{"success": true}'


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with one plugin, and a kind of callback with many required members."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    kinds = site.folder / "schemas/call-back"
    kinds.mkdir(parents=True)
    (kinds / "wide.schema.json").write_text(json.dumps(WIDE))
    return site


@pytest.fixture(scope="module")
def server(site):
    """The server that the tests of this file call."""
    # A commit may take seconds on a busy machine.
    return site.start(schemas_dir=site.folder / "schemas", http__read_timeout=2, ledger__write_timeout=20)


@pytest.fixture(autouse=True)
def clean_log(server):
    """After each test the log has one JSON object per line and no traceback."""
    yield
    server.check_log()


def is_chinese(text):
    """Whether a sentence has Chinese characters."""
    return bool(re.search("[\u4e00-\u9fff]", text))


BODIES = {
    "not JSON": (b'{"a": 1,\n  "b" 2}', 400, "line 2, column 7"),
    "empty": (b"", 400, "empty"),
    "only white space": (b" \r\n", 400, "empty"),
    "array": (b"[]", 400, "object"),
    "string": (b'"a"', 400, "object"),
    "number": (b"12", 400, "object"),
    "null": (b"null", 400, "object"),
    "not UTF-8": (b'{"a": "\xff"}', 400, "byte 8 "),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400, "byte 1 "),
    "byte order mark": (b"\xef\xbb\xbf{}", 400, "byte order mark"),
    "duplicate keys": (b'{"a": 1, "a": 1}', 400, '"a"'),
    "duplicate keys within": (b'{"x": [{"b": null, "b": null}]}', 400, '"b"'),
    "NaN": (b'{"a": NaN}', 400, "NaN"),
    "minus infinity": (b'{"a": -Infinity}', 400, "-Infinity"),
    "1e400": (b'{"a": 1e400}', 400, "too large"),
    "NUL": (b'{"a": "\\u0000"}', 400, "NUL"),
    "lone surrogate": (b'{"a": "\\ud800"}', 400, "surrogate"),
    "too deep": (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", 400, "64 levels"),
    "rest after it": (b"{} {}", 400, "line 1, column 4"),
    "wrong type": (b'{"businessKey": true}', 422, "/businessKey: must be of type string"),
    "version as a string": (b'{"processDefinitionVersion": "1"}', 422, "/processDefinitionVersion: must be of type"),
    "version as a truth value": (b'{"processDefinitionVersion": true}', 422, "/processDefinitionVersion: must be of"),
    "half a version": (b'{"processDefinitionVersion": 1.5}', 422, "/processDefinitionVersion: must be of type"),
    "beyond int32": (b'{"processDefinitionVersion": 2147483648}', 422, "/processDefinitionVersion: must be at most"),
    "key too long": (b'{"businessKey": "%s"}' % (b"k" * 513), 422, "must not be longer than 512 characters"),
}


@pytest.mark.parametrize("name", BODIES)
def test_errors_in_a_body_are_reported(server, name):
    """Invalid JSON is 400, a violation of the schema 422, with a sentence in the caller's language."""
    body, status, says = BODIES[name]
    path = "/flow/bad/call-back/complete"
    assert says in server.post("bad", body).check_error(status, path=path)
    assert is_chinese(server.post("bad", body, Accept_Language="zh-CN,zh;q=0.9").check_error(status, path=path))


def test_the_first_twenty_violations_are_listed_and_no_value_is_repeated(server):
    """Each violation has its JSON Pointer, and the response states the total."""
    body = {"businessKey": ["secret-value"], "processDefinitionKey": 5, "processDefinitionVersion": "secret-value"}
    message = server.post("many", body, kind="wide").check_error(422)
    assert "28 violations; the first 20 are shown" in message
    assert message.count(": must ") == 20
    assert "secret-value" not in message
    message = server.post("many", body).check_error(422)
    names = ("/businessKey", "/processDefinitionKey", "/processDefinitionVersion")
    assert all(f"{name}: must be of type" in message for name in names)
    assert "secret-value" not in message


REQUESTS = {
    "unknown path": ("GET", "/nowhere", {}, 404, {}),
    "root": ("GET", "/", {}, 404, {}),
    "unknown kind": ("POST", "/flow/1/call-back/terminated", {}, 404, {}),
    "administration": ("POST", "/api/operations/dismiss", {}, 404, {}),
    "no id": ("POST", "/flow//call-back/complete", {}, 422, {}),
    "slash at the end": ("POST", "/flow/1/call-back/complete/", {}, 404, {}),
    "GET": ("GET", "/flow/1/call-back/complete", {}, 405, {"Allow": "POST"}),
    "PUT": ("PUT", "/flow/1/call-back/complete", {}, 405, {"Allow": "POST"}),
    "DELETE": ("DELETE", "/flow/1/call-back/complete", {}, 405, {"Allow": "POST"}),
    "POST to the contract": ("POST", "/openapi.json", {}, 405, {"Allow": "GET"}),
    "XML": ("POST", "/flow/1/call-back/complete", {"Content-Type": "application/xml"}, 415, {}),
    "a form": ("POST", "/flow/1/call-back/complete", {"Content-Type": "application/x-www-form-urlencoded"}, 415, {}),
    "GBK": ("POST", "/flow/1/call-back/complete", {"Content-Type": "application/json;charset=GBK"}, 415, {}),
    "compressed": ("POST", "/flow/1/call-back/complete", {"Content-Encoding": "gzip"}, 415, {}),
    "too large": ("POST", "/flow/1/call-back/complete", {"Content-Length": "1048577"}, 413, {}),
    "headers too large": ("POST", "/flow/1/call-back/complete", {"X-Long": "a" * 17000}, 431, {}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_http_errors_have_the_same_envelope(server, name):
    """HTTP errors have the same envelope."""
    method, path, headers, status, expected = REQUESTS[name]
    for language in ("en", "zh"):
        answer = server.ask(
            method, path, b"{}" if "Content-Length" not in headers else None, headers | {"Accept-Language": language}
        )
        assert is_chinese(answer.check_error(status, path=path)) == (language == "zh")
        for header, value in expected.items():
            assert set(value.split(", ")) <= set(answer.headers[header].split(", "))


RAW = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no Host": (b"POST /flow/1/call-back/complete HTTP/1.1\r\n\r\n", 400),
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        400,
    ),
    "negative length": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}", 400),
    "unknown coding": (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunks too large": (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 413),
    "late": (b"POST /flow/1/call-back/complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{", 408),
}


@pytest.mark.parametrize("name", RAW)
def test_requests_rejected_by_the_http_server_get_the_envelope(server, name):
    """Requests that the HTTP server refuses get the envelope too, and the connection is closed."""
    raw, status = RAW[name]
    head, _, body = server.send(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    said = json.loads(body)
    assert (said["success"], said["status"], said["errorInfo"]["message"]) == (False, status, said["message"])
    assert b"connection: close" in head.lower()


EARLY = {
    408: b"Content-Length: 20\r\n\r\n{",
    413: b"Content-Length: 2000000\r\n\r\n",
    431: b"A: " + b"a" * 20_000,
}
"""The rest of a callback that the HTTP server itself refuses, by status."""


def test_requests_rejected_by_the_http_server_are_recorded(server):
    """It is among the rejected requests, in the log and in the metric, with path, address and reason."""
    for status, rest in EARLY.items():
        head = b"POST /flow/early-%d/call-back/complete HTTP/1.1\r\nHost: localhost\r\n" % status
        assert server.send(head + rest).startswith(b"HTTP/1.1 %d " % status)

    def listed():
        found = json.loads(server.ask("GET", "/api/rejected-requests", admin=True).body)["rejected_requests"]
        return {
            rejected_request["status"]: rejected_request
            for rejected_request in found
            if rejected_request["path"].startswith("/flow/early-")
        }

    until(lambda: listed().keys() == EARLY.keys())
    for status, rejected_request in listed().items():
        assert rejected_request["path"] == f"/flow/early-{status}/call-back/complete"
        assert rejected_request["address"] == "127.0.0.1"
        assert rejected_request["reason_en"]
        assert is_chinese(rejected_request["reason_zh"])
        assert server.until_logged("requests_rejected", status=status)["why"]
        count = f'flowhooks_http_responses_total{{kind="(none)",source="(none)",status="{status}"}}'
        assert count in server.ask("GET", "/metrics", admin=True).body.decode()


GOOD_TYPES = [
    None,
    "application/json",
    "application/json;charset=UTF-8",
    'Application/JSON; charset="utf-8"',
    "application/vnd.flow+json",
]


@pytest.mark.parametrize("given", GOOD_TYPES)
def test_a_json_body_is_accepted_with_several_content_types(server, given):
    """A JSON body is accepted with several content types, and without one."""
    headers = {"Content-Type": given} if given else {}
    answer = server.ask("POST", "/flow/types/call-back/complete", json.dumps(DONE), headers)
    assert (answer.status, answer.body) == (200, SUCCESS)


IDS = {
    "%41bc": 200,
    "a%2Eb": 200,
    "a~b_c-d.e:f": 200,
    "..": 200,
    "a%2Fb": 200,
    "a%2561": 200,
    "a+b": 200,
    "a%2Bb": 200,
    "a%20b": 200,
    "a;b": 200,
    "a@b": 200,
    "%E6%B5%81": 200,
    "a" * 255: 200,
    "a" * 256: 422,
    "%61" * 255: 200,
    "%61" * 256: 422,
    "%E6%B5%81" * 170: 200,
    "%E6%B5%81" * 171: 422,
    "a%00b": 422,
    "a%0d%0aX-Evil:%20b": 422,
    "a%0A": 422,
    "a%0a%0A": 422,
    "a%C2%85": 422,
    "a%E2%80%A8b": 422,
    "%E2%80%AE": 422,
    "%20a": 422,
    "%ff": 422,
    "a%": 422,
    "a%4": 422,
    "a%zz": 422,
    "%c0%af": 422,
    "%ed%a0%80": 422,
}


@pytest.mark.parametrize("given", IDS)
def test_the_instance_id_is_decoded_once_and_validated(server, given):
    """An id that could break a line, a path or a header is refused, and is not decoded in the response."""
    answer = server.post(given, DONE)
    if IDS[given] == 200:
        assert (answer.status, answer.body) == (200, SUCCESS)
    else:
        answer.check_error(422, path=f"/flow/{given}/call-back/complete")
        assert answer.headers["X-Evil"] is None


def test_an_id_is_the_same_encoded_or_not(server):
    """A percent-encoded id is the same id."""
    assert server.post("same%2Did", DONE).event_id == server.post("same-id", DONE).event_id


def test_rejected_requests_are_not_stored(server, site):
    """Only accepted callbacks are stored, and the counts balance."""
    with site.ledger() as ledger:
        assert ledger.find(EventFilter(flow_instance_id="bad"), limit=1) == []
    assert site.balance().events.keys() <= {"routed"}  # of the tests above that ran in this process, if any did
