"""Permissions: engines by token and address, administrators by the lock file; no secret in a log or response."""

from __future__ import annotations

import hashlib
import http.client
import json
import stat
from contextlib import closing

import pytest

from flowhooks.ledger.queries import EventFilter
from support.waiting import WAIT_TIMEOUT

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    return event.source

@handler(process_key="only-hr", source="hr")
def only_hr(event):
    return event.source

@handler(process_key="fails")
def fails(event):
    raise ValueError("no")

@hookimpl
def handlers():
    return [good, only_hr, fails]
"""
TOKENS = {
    "oa": "oa-token-0123456789abcdefghijklmnopqrstuv",
    "hr": "hr-token-0123456789abcdefghijklmnopqrstuv",
    "hr-new": "hr-new-token-3456789abcdefghijklmnopqrstuv",
    "far": "far-token-123456789abcdefghijklmnopqrstuv",
    "near": "near-token-23456789abcdefghijklmnopqrstuv~/+=",
}
DIGESTS = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
CONFIG = f"""
[sources.oa]
token_sha256 = ["{DIGESTS["oa"]}"]
[sources.hr]
token_sha256 = ["{DIGESTS["hr"]}", "{DIGESTS["hr-new"].upper()}"]
[sources.far]
token_sha256 = ["{DIGESTS["far"]}"]
allow = ["10.0.0.0/8", "2001:db8::/32"]
[sources.near]
token_sha256 = ["{DIGESTS["near"]}"]
allow = ["10.0.0.0/8", "127.0.0.0/8"]
"""
GOOD = {"processDefinitionKey": "good"}
PATH = "/flow/x/call-back/complete"


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with one plugin, and a lock file that all users can read."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    lock = site.database.with_name("flowhooks.db.lock")
    lock.touch()
    lock.chmod(0o666)
    return site


@pytest.fixture(scope="module")
def server(site):
    """A server with four sources and the log level debug."""
    # A commit may take seconds on a busy machine.
    return site.start(config=CONFIG, log__level="debug", ledger__write_timeout=20)


@pytest.fixture(scope="module")
def answers():
    """Every response that these tests received."""
    return []


@pytest.fixture
def post(server, answers):
    """Send a callback with an Authorization header or none."""

    def post(instance, body, authorization=None, **headers):
        given = {} if authorization is None else {"Authorization": authorization}
        answers.append(server.post(instance, body, **given, **headers))
        return answers[-1]

    return post


def bearer(name):
    """The Authorization header of a source."""
    return f"Bearer {TOKENS[name]}"


def stored(site, answer):
    """The event of a response."""
    with site.ledger() as ledger:
        return ledger.event(answer.event_id)


@pytest.mark.parametrize("name", ["oa", "hr", "near"])
def test_a_token_names_its_source(post, site, name):
    """The event and the handler's argument have the name of the source."""
    answer = post(f"named-{name}", GOOD, bearer(name))
    assert answer.status == 200
    event = stored(site, answer)
    assert event.event.source == name
    with site.ledger() as ledger:
        assert json.loads(ledger.attempts(event.delivery_statuses[0].delivery_id)[0].result) == name


def test_old_and_new_token_are_accepted_during_a_replacement(post, site):
    """Old and new token belong to one source, so callbacks have one identity; the scheme's case does not matter."""
    first = post("both", GOOD, bearer("hr"))
    second = post("both", GOOD, f"bEARER   {TOKENS['hr-new']}")
    assert (first.status, second.status, second.event_id) == (200, 200, first.event_id)
    assert stored(site, second).event.source == "hr"


def test_one_instance_of_two_sources_is_two_events(post):
    """Two sources can use the same instance id."""
    assert post("two", GOOD, bearer("oa")).event_id != post("two", GOOD, bearer("hr")).event_id


def test_a_handler_can_select_one_source(post):
    """From another source the event matches no handler."""
    assert post("only", {"processDefinitionKey": "only-hr"}, bearer("hr")).status == 200
    assert "no handler is installed" in post("only", {"processDefinitionKey": "only-hr"}, bearer("oa")).json["message"]


WRONG = {
    "missing": None,
    "empty": "",
    "no token": "Bearer",
    "no token after a space": "Bearer ",
    "no scheme": TOKENS["oa"],
    "another scheme": f"Basic {TOKENS['oa']}",
    "wrong": "Bearer wrong",
    "the digest": f"Bearer {DIGESTS['oa']}",
    "cut": bearer("oa")[:-1],
    "longer": bearer("oa") + "A",
    "small letters": bearer("oa").upper().replace("BEARER", "Bearer"),
    "two in one": f"{bearer('oa')}, {bearer('oa')}",
    "two words": f"{bearer('oa')} {TOKENS['oa']}",
    "quoted": f'Bearer "{TOKENS["oa"]}"',
    "tab": f"Bearer\t{TOKENS['oa']}",
    "huge": "Bearer " + "A" * 12_000,
    "not ASCII": "Bearer \xfc\xff",
    "percent-encoded": bearer("oa").replace("-", "%2D"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_request_without_a_valid_token_is_401(post, site, name):
    """The response does not reveal the fault but names the required credential; nothing is stored."""
    answer = post("denied", GOOD, WRONG[name])
    assert "Authorization: Bearer" in answer.check_error(401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "凭证" in post("denied", GOOD, WRONG[name], Accept_Language="zh").check_error(401)
    with site.ledger() as ledger:
        assert ledger.find(EventFilter(flow_instance_id="denied"), limit=1) == []


def test_a_token_twice_is_401(server, answers):
    """Two Authorization headers are joined, and are no valid token."""
    with closing(http.client.HTTPConnection(*server.address, timeout=WAIT_TIMEOUT)) as connection:
        connection.putrequest("POST", PATH)
        for _ in range(2):
            connection.putheader("Authorization", bearer("oa"))
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"{}")
        assert connection.getresponse().status == 401


def test_an_unauthenticated_response_reveals_no_body_faults(post):
    """Without a credential the response does not reveal faults of the body or a repeat."""
    post("known", GOOD, bearer("oa"))
    for body in (b"{", b"[]", b'{"businessKey": 1}', GOOD, GOOD | {"a": 1}):
        post("known", body).check_error(401)
        post("%ff", body).check_error(401)
        post("known", body, Content_Type="text/plain").check_error(401)


def test_a_request_from_a_foreign_address_is_403(post):
    """A valid credential from a foreign address gets its own error; forwarding headers are ignored."""
    for headers in ({}, {"X_Forwarded_For": "10.0.0.1"}, {"Forwarded": "for=10.0.0.1"}, {"X_Real_IP": "10.0.0.1"}):
        answer = post("far", GOOD, bearer("far"), **headers)
        assert "is not allowed from this address" in answer.check_error(403)
        assert answer.headers["WWW-Authenticate"] is None


def test_the_contract_is_public(server, answers):
    """The public contract states which credential is required."""
    answers.append(server.ask("GET", "/openapi.json"))
    assert answers[-1].status == 200
    assert "bearer" in answers[-1].body.decode().lower()


def test_the_administration_requires_the_lock_file_token(server, site, answers):
    """The administration refuses engines' tokens; liveness and readiness are open to monitors."""
    path = "/api/operations/dismiss"
    body = json.dumps({"event_filter": {}})
    token = site.token()
    assert len(token) >= 40
    for given in (
        None,
        "",
        "Bearer ",
        "Bearer x",
        bearer("oa"),
        f"bearer {token}",
        f"Bearer {token}, Bearer {token}",
        f"Bearer  {token}",
        "Bearer \xff",
    ):
        headers = {} if given is None else {"Authorization": given}
        answers.append(server.ask("POST", path, body, headers, admin=True))
        answers[-1].check_error(401)
        assert answers[-1].headers["WWW-Authenticate"] == "Bearer"
    answers.append(server.operate(token, "dismiss", event_filter={}, dry_run=True))
    assert answers[-1].status == 200
    for path in ("/healthz", "/readyz"):
        answers.append(server.ask("GET", path, admin=True))
        assert answers[-1].status == 200


def test_the_listeners_do_not_serve_each_others_paths(server, site, answers):
    """The callback listener does not serve the administration, nor the other way round."""
    for path in ("/api/operations/dismiss", "/healthz", "/readyz"):
        for method in ("GET", "POST"):
            headers = {"Authorization": f"Bearer {site.token()}"}
            answers.append(server.ask(method, path, b"{}", headers))
            answers[-1].check_error(404)
    answers.append(server.ask("POST", PATH, json.dumps(GOOD), {"Authorization": bearer("oa")}, admin=True))
    answers[-1].check_error(404)


def test_only_the_owner_can_read_the_lock_file(server, site):
    """Only the owner can read the lock file, even if an open one existed before."""
    lock = site.database.with_name("flowhooks.db.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert json.loads(lock.read_text())["pid"] == server.process.pid


def test_no_response_or_log_contains_a_secret(post, server, site, answers):
    """No response or log has a token or digest."""
    post("fails", {"processDefinitionKey": "fails"}, bearer("oa")).check_error(500)
    server.check_log()
    assert answers  # those of the tests that ran in this process, which may run further ones of this file
    for secret in (*TOKENS.values(), *DIGESTS.values(), site.token()):
        assert not [line for line, _ in server.log() if secret in line]
        assert not [answer for answer in answers if secret.encode() in answer.body or secret in str(answer.headers)]
    site.balance()


def test_a_stopped_server_leaves_no_administration_token(make_site):
    """Neither the lock file nor the log of a server that was stopped has it."""
    site = make_site()
    server = site.start(config=CONFIG, log__level="debug")
    token = site.token()
    server.stop()
    for secret in (*TOKENS.values(), *DIGESTS.values(), token):
        assert not [line for line in server.lines if secret in line]
    assert token not in site.database.with_name("flowhooks.db.lock").read_text()


LEAKY = """
import logging, warnings
from flowhooks import handler, hookimpl

kept = {}

@handler(process_key="leaks")
def leak(event):
    logging.getLogger("some.library").warning("POST %s", kept["token"])
    logging.getLogger("some.library").error("failed", exc_info=ValueError(kept["token"]))
    warnings.warn(f"the token {kept['token']} is old")
    return {"used": kept["token"]}

@hookimpl
def configure(settings):
    kept.update(settings)
    logging.getLogger("some.library").warning("configured with %s", settings)

@hookimpl
def handlers():
    return [leak]
"""


def test_a_plugin_secret_is_masked_in_logs_and_listings(make_site, monkeypatch):
    """A secret of a plugin's section is masked in the log and in the output of commands."""
    monkeypatch.setenv("LEAKY_TOKEN", "hunter2-secret")
    site = make_site()
    site.plugin("leaky", LEAKY)
    server = site.start(config='[plugins.leaky]\ntoken = {env = "LEAKY_TOKEN"}\n', ledger__write_timeout=20)
    answer = server.post("1", {"processDefinitionKey": "leaks"})
    assert (answer.status, answer.body) == (200, b'{"success": true}')
    own = {"database": site.database, "plugins_dirs": site.plugins, "plugins_allow": "leaky"}
    for words in (("events", "show", answer.event_id), ("events", "list"), ("plugins", "show", "leaky"), ("check",)):
        for form in ((), ("--json",)):
            ran = site.run(*words, *form, **own)
            assert ran.returncode == 0, ran.stderr
            assert "hunter2" not in ran.stdout + ran.stderr, words
            assert words[0] == "check" or ran.stdout
    server.stop()
    assert len([line for line in server.lines if "some.library" in line]) == 3
    assert any("is old" in line for line in server.lines)
    assert not [line for line in server.lines if "hunter2" in line]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_a_public_listener_without_a_credential_stops_the_start(make_site, listen):
    """A public listener without a credential stops the start with exit code 2 and a remedy; no file changes."""
    site = make_site()
    server = site.start(ready=False, listen=listen, admin=listen.replace(":0", ":1"))
    assert server.wait() == 2
    assert [("--insecure" in line, listen[:-2] in line) for line in server.lines] == [(True, True)] * 2
    assert not site.database.exists()


def test_a_public_listener_serves_with_a_credential_or_insecure(make_site):
    """A public callback listener serves with a credential; a public administration listener needs `insecure`."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    server = site.start(listen="0.0.0.0:0", config=CONFIG, ledger__write_timeout=20)
    assert server.post("a", GOOD).status == 401
    assert server.post("a", GOOD, Authorization=bearer("oa")).status == 200
    server.stop()
    server = site.start("--insecure", listen="0.0.0.0:0", admin="0.0.0.0:0", ledger__write_timeout=20)
    assert server.post("a", GOOD).status == 200
    server.stop()


@pytest.mark.parametrize(
    "config",
    [
        "[sources.oa]\n",
        '[sources.oa]\ntoken_sha256 = "{token}"\n',
        '[sources.oa]\ntoken_sha256 = ["{digest}"]\n[sources.hr]\ntoken_sha256 = ["{digest}"]\n',
    ],
)
def test_an_invalid_source_stops_the_start(site, config):
    """An invalid source stops the start, and the error does not repeat the token."""
    text = config.replace("{token}", TOKENS["oa"]).replace("{digest}", DIGESTS["oa"])
    server = site.start(ready=False, config=text)
    assert server.wait() == 2
    assert "sources" in server.lines[0]
    assert not any(TOKENS["oa"] in line or DIGESTS["oa"] in line for line in server.lines)
