"""Log-in by the headers of a proxy, over real connections from the proxy's address and from others."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import socket
from contextlib import closing

import pytest

from flowhooks.ledger import audit
from flowhooks.settings import LoginSettings, OperatorSettings
from support.waiting import WAIT_TIMEOUT

pytestmark = [pytest.mark.either, pytest.mark.sqlite]

PROXY, OTHER = "127.0.0.2", "127.0.0.3"
LOGIN = LoginSettings(proxy=PROXY, groups={"ops": "operate", "dev": "view"})
TOKEN = "a-token-of-an-operator-0123456789"
ROBOT = {"robot": OperatorSettings(role="operate", token_sha256=(hashlib.sha256(TOKEN.encode()).hexdigest(),))}
SAME_ORIGIN = ("Sec-Fetch-Site", "same-origin")
USER, GROUPS = "X-Forwarded-User", "X-Forwarded-Groups"


@pytest.fixture
def console(harness, serve, listens):
    """A console behind a proxy, with an operator who has a token, and a handler."""
    return serve(harness.open(listens(lambda event: None, name="h"), login=LOGIN, operators=ROBOT))


def ask(console, *headers, path="/console/handlers", peer=PROXY, method="GET", body=None):
    """Send a request from an address with headers that may be repeated; return the status and the body."""
    host, _, port = console.address.rpartition(":")
    with closing(
        http.client.HTTPConnection(host, int(port), timeout=WAIT_TIMEOUT, source_address=(peer, 0))
    ) as connection:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value.encode() if isinstance(value, str) else value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def logins(console):
    """The log-ins in the audit log, oldest first: actor, interface and detail."""
    with console.flow.app.ledger.connection() as connection:
        found = audit.entries(connection, limit=100, action="login")
    return [(entry.actor, entry.interface, entry.detail) for entry in found][::-1]


def test_the_proxy_logs_operators_in(console):
    """The first group in the settings decides the role; who may only read changes nothing."""
    status, page = ask(console, (USER, "li"), (GROUPS, "dev,ops"))
    assert status == 200
    assert "full access" in page
    assert ask(console, (USER, "wang"), (GROUPS, "dev"))[0] == 200
    pause = "/console/do/pause?handler=p:h"
    form = {"path": pause, "method": "POST", "body": b""}
    assert ask(console, (USER, "wang"), (GROUPS, "dev"), SAME_ORIGIN, **form)[0] == 403
    assert ask(console, (USER, "li"), (GROUPS, "ops"), SAME_ORIGIN, **form)[0] == 303
    with console.flow.app.ledger.connection() as connection:
        (entry,) = audit.entries(connection, limit=9, action="pause")
    assert (entry.actor, entry.interface) == ("li", "console")


def test_a_user_without_a_role_is_403(console):
    """A user whose groups have no role gets 403 with a page that says what to do, and no page else."""
    for groups in ((), ((GROUPS, "")), ((GROUPS, "guests,OPS,op s"))):
        status, page = ask(console, (USER, "mallory"), *([groups] if groups else []))
        assert status == 403
        assert "none of your groups has a role" in page
    status, error = ask(console, (USER, "mallory"), (GROUPS, "x"), ("Accept-Language", "zh"), path="/api/events")
    assert (status, "没有角色" in json.loads(error)["message"]) == (403, True)
    assert ask(console, (USER, "mallory"), path="/console/static/console.css")[0] == 200


@pytest.mark.parametrize("path", ["/console/", "/console/login", "/api/events", "/metrics", "/openapi.json", "/none"])
def test_headers_from_other_addresses_are_rejected(console, path):
    """A header from another address is refused, whatever other credential the request has."""
    named = ((USER, "li"), (GROUPS, "ops"))
    assert ask(console, *named, path=path, peer=OTHER)[0] == 403
    assert ask(console, *named, ("Authorization", f"Bearer {TOKEN}"), path=path, peer=OTHER)[0] == 403
    assert ask(console, *named, ("X-Forwarded-For", PROXY), path=path, peer=OTHER)[0] == 403
    assert ask(console, path="/healthz", peer=OTHER)[0] == 200


def test_the_forwarded_client_address_is_not_the_proxy(harness, serve):
    """The connection counts, not the client's address that a trusted proxy forwards."""
    console = serve(harness.open(login=LOGIN), trusted_proxy=OTHER)
    named = ((USER, "li"), (GROUPS, "ops"))
    assert ask(console, *named, ("X-Forwarded-For", PROXY), peer=OTHER)[0] == 403
    assert ask(console, *named, ("X-Forwarded-For", "192.0.2.9"))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ((USER, "li"), (USER, "root"), (GROUPS, "ops")),
        ((USER, "li"), (USER.upper(), "li"), (GROUPS, "ops")),
        ((USER, "li"), (GROUPS, "guests"), (GROUPS, "ops")),
        ((USER, "li,root"), (GROUPS, "ops")),
        ((USER, ""), (GROUPS, "ops")),
        ((USER, b"l\xffi"), (GROUPS, "ops")),
        ((USER, "l\u202ei"), (GROUPS, "ops")),
        ((USER, "x" * 101), (GROUPS, "ops")),
        ((USER, "flowhooks"), (GROUPS, "ops")),
        ((USER, "li"), (GROUPS, b"ops\xff")),
        ((GROUPS, "ops"),),
    ],
)
def test_hostile_headers_are_rejected(console, headers):
    """Repeated headers, several names, control characters and empty or long names are refused with 403."""
    assert ask(console, *headers)[0] == 403
    assert ask(console, *headers, path="/api/events")[0] == 403
    assert logins(console) == []


@pytest.mark.parametrize("line", [b"X-Forwarded-User: l\x00i", b"X-Forwarded-User : li", b"X-Forwarded-User: l\x1bi"])
def test_malformed_headers_are_rejected_by_the_parser(console, line):
    """Bytes that no header may have never reach the log-in."""
    host, _, port = console.address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT_TIMEOUT, source_address=(PROXY, 0)) as connection:
        connection.sendall(b"GET /console/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-Groups: ops\r\n" + line + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_headers_with_underscores_are_ignored(console):
    """A client cannot bypass the proxy's filter with a name that differs by an underscore."""
    assert ask(console, ("X_Forwarded_User", "li"), ("X_Forwarded_Groups", "ops"))[0] == 401


def test_other_credentials_are_still_accepted(console):
    """Without the headers, tokens are accepted, also through the proxy; a token of the proxy's own does no harm."""
    bearer = ("Authorization", f"Bearer {TOKEN}")
    for peer in (PROXY, OTHER):
        assert ask(console, bearer, path="/api/events", peer=peer)[0] == 200
        assert ask(console, peer=peer)[0] == 401
    foreign = ("Authorization", "Bearer eyJhbGciOiJub25lIn0.e30.x")
    assert ask(console, foreign, path="/api/events")[0] == 401
    assert ask(console, foreign, (USER, "li"), (GROUPS, "ops"))[0] == 200
    assert ask(console, bearer, (USER, "mallory"), (GROUPS, "guests"))[0] == 403


def test_a_form_of_another_site_is_rejected(console):
    """The proxy knows the browser by a cookie, so a form of another site is refused, and the API needs a token."""
    named = ((USER, "li"), (GROUPS, "ops"))
    pause = {"path": "/console/do/pause?handler=p:h", "method": "POST", "body": b""}
    assert ask(console, *named, ("Sec-Fetch-Site", "cross-site"), **pause)[0] == 403
    assert ask(console, *named, **pause)[0] == 403
    api = {"path": "/api/operations/pause", "method": "POST", "body": b'{"handlers": ["p:h"]}'}
    assert ask(console, *named, SAME_ORIGIN, **api)[0] == 401
    with console.flow.app.ledger.connection() as connection:
        assert audit.entries(connection, limit=9, action="pause") == []


def test_the_login_page_redirects_to_the_console(console):
    """Whom the proxy names is led from the login page to the console, and sees no button to log out."""
    named = ((USER, "li"), (GROUPS, "ops"))
    assert ask(console, *named, path="/console/login")[0] == 303
    assert "Log out" not in ask(console, *named)[1]


def test_only_the_proxy_is_configured(harness, serve):
    """With a proxy and no operators, nothing is open on this machine."""
    console = serve(harness.open(login=LOGIN))
    for path, status in (("/console/", 401), ("/api/events", 401), ("/metrics", 401), ("/healthz", 200)):
        assert ask(console, path=path, peer="127.0.0.1")[0] == status


def test_changed_settings_apply_to_the_next_request(console):
    """Another group or another proxy applies to the next request."""
    app = console.flow.app
    named = ((USER, "li"), (GROUPS, "ops"))
    assert ask(console, *named)[0] == 200
    app._live.change_settings(
        dataclasses.replace(app.settings, login=dataclasses.replace(LOGIN, groups={"dev": "view"}))
    )
    assert ask(console, *named)[0] == 403
    app._live.change_settings(dataclasses.replace(app.settings, login=dataclasses.replace(LOGIN, proxy=OTHER)))
    assert ask(console, *named)[0] == 403
    assert ask(console, *named, peer=OTHER)[0] == 200
