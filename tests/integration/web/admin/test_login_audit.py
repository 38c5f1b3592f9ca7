"""Log-ins by tokens and by a proxy in the audit log: once an hour for each address, whatever happens."""

from __future__ import annotations

import hashlib

import pytest

from flowhooks.clock import DAY
from flowhooks.ledger import audit
from flowhooks.settings import LoginSettings, OperatorSettings
from flowhooks.web.admin import login_audit
from flowhooks.web.admin.login_audit import MAX_REMEMBERED, LoginMethod, LoginRecorder, RefusalLog
from flowhooks.web.admin.operators import Operator, Role

pytestmark = pytest.mark.either

TOKEN = "a-token-of-an-operator-0123456789"
ROBOT = {"robot": OperatorSettings(role="view", token_sha256=(hashlib.sha256(TOKEN.encode()).hexdigest(),))}
LOGIN = LoginSettings(proxy="127.0.0.1", groups={"ops": "operate", "dev": "view"})


@pytest.fixture
def console(harness, serve):
    """A console with a token and a proxy."""
    return serve(harness.open(login=LOGIN, operators=ROBOT))


def logins(console):
    """The log-ins in the audit log, oldest first."""
    with console.flow.app.ledger.connection() as connection:
        found = audit.entries(connection, limit=100, action="login")
    return [(entry.actor, entry.interface, entry.detail) for entry in found][::-1]


def by_token(console, path="/api/events"):
    """Send a request with the token."""
    return console.get(path, root="", Authorization=f"Bearer {TOKEN}").status


def by_proxy(console, user="li", groups="ops", path="/console/handlers"):
    """Send a request with the headers of the proxy."""
    return console.get(path, root="", X_Forwarded_User=user, X_Forwarded_Groups=groups).status


def test_the_first_use_of_a_token_is_a_login_entry(console):
    """The first use within an hour is an entry with the method, the role and the address."""
    assert [by_token(console), by_token(console), by_token(console, "/metrics")] == [200, 200, 200]
    detail = {"address": "127.0.0.1", "by": "token", "role": "view"}
    assert logins(console) == [("robot", "api", detail)]
    console.flow.clock.advance(3599)
    assert by_token(console) == 200
    assert len(logins(console)) == 1
    console.flow.clock.advance(2)
    assert by_token(console, "/console/handlers") == 200
    assert logins(console) == [("robot", "api", detail), ("robot", "console", detail)]
    console.flow.clock.time -= DAY
    assert by_token(console) == 200
    _, (_, _, detail) = logins(console)
    assert detail["count"] == 2


def test_a_login_through_the_proxy_is_an_entry(console):
    """Each user, and each role that a user gets, is an entry; the page of the audit log shows it."""
    for user, groups in (("li", "ops"), ("li", "ops,dev"), ("li", "dev"), ("wang", "ops")):
        assert by_proxy(console, user, groups) == 200
    assert [(actor, detail["by"], detail["role"]) for actor, _, detail in logins(console)] == [
        ("li", "proxy", "operate"),
        ("li", "proxy", "view"),
        ("wang", "proxy", "operate"),
    ]
    assert by_proxy(console, "mallory", "guests") == 403
    assert len(logins(console)) == 3
    shown = console.get("/audit?action=login", X_Forwarded_User="li", X_Forwarded_Groups="ops").page.text
    assert "header of the proxy" in shown


def test_processes_share_an_entry(console):
    """The logins that another process of the same ledger sees within the hour are counted in the same entry."""
    assert by_token(console) == 200
    other = LoginRecorder(console.flow.app)
    other.record(Operator(name="robot", role=Role.VIEW), LoginMethod.TOKEN, "127.0.0.1", "api")
    ((actor, _, detail),) = logins(console)
    assert (actor, detail["count"]) == ("robot", 2)


@pytest.mark.sqlite
def test_an_unwritable_ledger_does_not_prevent_a_login(console, logged, monkeypatch):
    """An operator is admitted when the disk is full, and the log-in is recorded a minute after the next chance."""
    with console.flow.locked(), monkeypatch.context() as patch:
        patch.setattr(login_audit, "WRITE_TIMEOUT", 0.05)
        assert by_proxy(console, path="/console/login") == 303
    assert [record["operator"] for record in logged if record["event"] == "login_not_recorded"] == ["li"]
    console.flow.clock.advance(61)
    assert by_proxy(console) == 200
    assert ("li", "proxy") in {(actor, detail["by"]) for actor, _, detail in logins(console)}
    assert len([record for record in logged if record["event"] == "login_succeeded"]) == 1


@pytest.mark.sqlite
def test_remembered_addresses_are_limited(console, monkeypatch):
    """With ever new addresses the oldest are forgotten."""
    recorder = LoginRecorder(console.flow.app)
    monkeypatch.setattr(console.flow.app.ledger, "write", lambda *_args, **_more: None)
    for number in range(MAX_REMEMBERED + 10):
        recorder.record(Operator(name="robot", role=Role.VIEW), LoginMethod.TOKEN, f"a{number}", "api")
    assert len(recorder._due) == MAX_REMEMBERED


@pytest.mark.sqlite
def test_addresses_are_escaped(console):
    """A client that pretends to have another address cannot forge an entry."""
    recorder = LoginRecorder(console.flow.app)
    recorder.record(Operator(name="robot", role=Role.VIEW), LoginMethod.TOKEN, "x\n\x1b[31m" + "y" * 500, "api")
    ((_, _, detail),) = logins(console)
    assert detail["address"].isprintable()
    assert len(detail["address"]) <= 101


@pytest.mark.sqlite
def test_rejected_headers_do_not_fill_the_log(console, logged):
    """Refused headers of one client are one record a minute for each reason, with the number of requests."""
    for _ in range(5):
        assert by_proxy(console, "mallory", "guests") == 403
        assert by_proxy(console, "", "ops") == 403
    console.flow.clock.advance(60)
    assert by_proxy(console, "mallory", "guests") == 403
    refused = [(record["operator"], record["requests"]) for record in logged if record["event"] == "login_refused"]
    assert refused == [("mallory", 1), ("", 1), ("mallory", 5)]
    console.flow.clock.time -= DAY
    assert by_proxy(console, "mallory", "guests") == 403
    assert len([record for record in logged if record["event"] == "login_refused"]) == 4
    assert 'outcome="refused_no_role"} 7.0' in console.flow.app.metrics.text().decode()


@pytest.mark.sqlite
def test_remembered_addresses_of_rejections_are_limited(console):
    """With ever new addresses the oldest are forgotten."""
    refusals = RefusalLog(console.flow.clock)
    for number in range(MAX_REMEMBERED + 10):
        refusals.add("", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", "why")
    assert len(refusals._refused) == MAX_REMEMBERED
