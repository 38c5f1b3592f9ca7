"""Login and logout: who is admitted, for how long, and which requests of other sites are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs

from flowhooks.errors import SettingsError, Unavailable
from flowhooks.ledger import audit, sessions
from flowhooks.ledger.ledger import Ledger
from flowhooks.settings import OperatorSettings
from flowhooks.web.admin import login_audit, passwords
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.console.login import _safe_next
from flowhooks.web.admin.passwords import PasswordVerifier, TooManyVerifications, hash_password
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

PASSWORD = "correct horse battery staple"
OTHER = "another long password"
CHEAP = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$3UPxMsu+d2YsnSd4VSAWb3eKQJgQTFaVJRm2bXFn4d8"
"""A hash that is quick to compare, and that matches no password here."""
HASHES = {}
PAGES = (
    "/",
    "/live",
    "/events",
    "/events/1",
    "/events/1/body",
    "/handlers",
    "/handlers/p:h",
    "/parked",
    "/sources",
    "/sources/default",
    "/engines",
    "/rejected-requests",
    "/alerts",
    "/storage",
    "/none",
)


def settings(name, password=PASSWORD, role="operate"):
    """An operator's settings, with a hash that is quick to compute."""
    known = HASHES.get(password) or HASHES.setdefault(password, PasswordHasher(1, 8, 1).hash(password))
    return {name: OperatorSettings(role=role, password=known)}


@pytest.fixture
def console(harness, serve):
    """A console with an operator of the role operate and one of the role view."""
    return serve(harness.open(operators=settings("li") | settings("wang", OTHER, "view")))


def kept(console):
    """The stored sessions."""
    return console.flow.sql("SELECT digest, operator, created_at, used_at FROM sessions")


def as_now(console, **changed):
    """Apply other settings, as after a reload."""
    app = console.flow.app
    app._live.change_settings(dataclasses.replace(app.settings, **changed))


def test_no_page_is_served_without_a_login(console):
    """Each page, even on this machine, is the login page with 401, which returns to the requested page."""
    for path in PAGES:
        answer = console.get(f"{path}?q=%E8%AF%B7")
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
        (form,) = (attributes for tag, attributes in answer.page.tags if tag == "form")
        assert form["action"].startswith("/console/login?next=%2Fconsole%2F")
        assert "Content-Security-Policy" in answer.headers
        assert [link for link in answer.page.links() if "lang=" not in link] == ["#main", "/console/"]
    # A form that was sent without a session: its own address asks again, other forms lead to the overview.
    for path, after in (("/do/dismiss?id=a", "/console/do/dismiss?id=a"), ("/logout", "/console/")):
        (form,) = (attributes for tag, attributes in console.post(path).page.tags if tag == "form")
        answer = console.post(form["action"].removeprefix("/console"), {"name": "li", "password": PASSWORD})
        assert answer.headers["Location"] == after
    for root in ("/", "/console"):
        assert console.get("", root=root).status == 401
    assert console.get("/static/console.css").status == 200
    assert console.get("/login").status == 200
    assert "登录" in console.get("/", Accept_Language="zh").page.text
    assert [console.get("", root=path).status for path in ("/healthz", "/readyz", "/metrics", "/x")] == [
        *(200, 200, 401, 401),
    ]


def test_logging_in_and_out(console):
    """Name and password start a session with a cookie that scripts and other sites cannot use; a logout ends it."""
    answer = console.post("/login?next=/console/events%3Fkey%3Dx", {"name": "li", "password": PASSWORD})
    assert (answer.status, answer.headers["Location"]) == (303, "/console/events?key=x")
    cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert {attribute.lower() for attribute in attributes} == {"httponly", "path=/", "samesite=strict"}
    secret = cookie.partition("=")[2]
    assert re.fullmatch(r"flowhooks_session=[\w-]{43}", cookie)
    ((digest, operator, *_),) = kept(console)
    assert operator == "li"
    assert secret not in digest
    page = console.get("/events", Cookie=cookie).page
    assert "li full access Log out" in page.text
    assert console.get("/login", Cookie=cookie).status == 303
    assert "退出登录" in console.get("/", Cookie=cookie, Accept_Language="zh").page.text
    assert console.get("/logout", Cookie=cookie).status == 303
    assert len(kept(console)) == 1
    out = console.post("/logout", Cookie=cookie)
    assert (out.status, out.headers["Location"]) == (303, "/console/login")
    assert "expires=Fri, 02 Jan 1970" in out.headers["Set-Cookie"]
    assert kept(console) == []
    assert console.get("/events", Cookie=cookie).status == 401


def test_a_session_is_valid_after_restart_and_in_other_processes(harness, console, serve):
    """Another process on the same ledger has the same sessions; a logout there is a logout here."""
    cookie = console.log_in("li", PASSWORD)
    if not harness.url:
        console.flow.close()
    other = serve(harness.open(operators=console.flow.app.settings.operators))
    assert other.get("/", Cookie=cookie).status == 200
    other.post("/logout", Cookie=cookie)
    assert other.get("/", Cookie=cookie).status == 401
    if harness.url:
        assert console.get("/", Cookie=cookie).status == 401


def test_each_login_starts_a_new_session(console):
    """A new login gets another secret, and ends the earlier session of the browser, of any origin."""
    first = console.log_in("li", PASSWORD)
    second = console.log_in("li", PASSWORD, Cookie=first)
    assert first != second
    assert console.get("/", Cookie=first).status == 401
    assert console.get("/", Cookie=second).status == 200
    chosen = f"flowhooks_session={'a' * 43}"
    assert chosen not in console.log_in("li", PASSWORD, Cookie=chosen)
    assert console.get("/", Cookie=chosen).status == 401


def test_sessions_expire(console):
    """A session ends after twelve idle hours or seven days; the next login deletes it."""
    cookie = console.log_in("li", PASSWORD)
    for _ in range(14):
        console.flow.clock.advance(hours=11.9)
        assert console.get("/", Cookie=cookie).status == 200
    console.flow.clock.advance(hours=2)
    assert console.get("/", Cookie=cookie).status == 401
    idle = console.log_in("li", PASSWORD)
    assert len(kept(console)) == 1
    console.flow.clock.advance(hours=12)
    assert console.get("/", Cookie=idle).status == 401
    console.log_in("wang", OTHER)
    assert [row[1] for row in kept(console)] == ["wang"]


def test_operators_with_the_same_password_hash_have_own_sessions(harness, serve):
    """Two operators with the very same hash in the settings both log in and stay logged in, each as themselves."""
    console = serve(harness.open(operators=settings("li") | settings("wang", role="view")))
    for name in ("li", "wang"):
        page = console.get("/", Cookie=console.log_in(name, PASSWORD))
        assert page.status == 200
        assert name in page.page.text
    assert [operator for _, operator, _, _ in kept(console)] == ["li", "wang"]


def test_the_session_time_stamp_is_written_once_a_minute(console):
    """Requests for pages write nothing except one time stamp a minute."""
    cookie = console.log_in("li", PASSWORD)
    before = kept(console)
    console.flow.clock.advance(59)
    console.get("/events", Cookie=cookie)
    assert kept(console) == before
    console.flow.clock.advance(1)
    console.get("/events", Cookie=cookie)
    assert kept(console)[0][3] - before[0][3] == 60_000_000


@pytest.mark.sqlite
def test_hanging_session_writes_delay_few_requests(console, monkeypatch):
    """A request waits a second for the time stamp, the next ones of a minute do not; a refusal waits a second, too."""
    cookie, ledger, tried = console.log_in("li", PASSWORD), console.flow.app.ledger, []

    def write(function, timeout=None, **more):
        if timeout != login_audit.WRITE_TIMEOUT:
            return Ledger.write(ledger, function, timeout, **more)
        tried.append(timeout)
        raise Unavailable("ledger_unwritten")

    monkeypatch.setattr(ledger, "write", write)
    monkeypatch.setattr(login_audit, "WRITE_TIMEOUT", 59.5)
    for number in (1, 2):
        console.flow.clock.advance(60)
        assert [console.get("/events", Cookie=cookie).status for _ in range(3)] == [200] * 3
        assert len(tried) == number
    assert console.post("/login", {"name": "li", "password": OTHER}).status == 401
    assert len(tried) == 3


@pytest.mark.sqlite
def test_changed_operator_settings_apply_to_the_next_request(console):
    """A removed role, a new password and a removed operator take effect at the next request."""
    cookie = console.log_in("li", PASSWORD)
    assert console.post("/events", Cookie=cookie).status == 405
    as_now(console, operators=settings("li", PASSWORD, "view"))
    assert console.post("/events", Cookie=cookie).status == 403
    as_now(console, operators=settings("li", OTHER))
    assert console.get("/", Cookie=cookie).status == 401
    as_now(console, operators=settings("li"))
    assert console.get("/", Cookie=cookie).status == 200
    as_now(console, operators=settings("wang"))
    assert console.get("/", Cookie=cookie).status == 401


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "changed",
    [
        settings("li", OTHER),
        {"li": OperatorSettings(role="view", token_sha256=("0" * 64,))},
        settings("wang"),
    ],
    ids=["new password", "token only", "removed"],
)
def test_a_reload_ends_a_login_in_flight(console, monkeypatch, changed):
    """A password that was right when its verification began, and is no longer valid at its end, lets nobody in."""
    verify = PasswordVerifier.verify

    def verify_during_reload(*args, **options):
        matches = verify(*args, **options)
        as_now(console, operators=changed)
        return matches

    monkeypatch.setattr(PasswordVerifier, "verify", verify_during_reload)
    answer = console.post("/login", {"name": "li", "password": PASSWORD})
    assert answer.status in {303, 401}
    assert console.get("/", Cookie=answer.headers.get("Set-Cookie", "").partition(";")[0]).status == 401


@pytest.mark.sqlite
def test_the_role_view_changes_nothing(console):
    """With the role view every page is shown, every change is a 403 page with the reason, and logout works."""
    cookie = console.log_in("wang", OTHER)
    assert "wang read-only" in console.get("/", Cookie=cookie).page.text
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = console.get("/events", method=method, Cookie=cookie, Sec_Fetch_Site="same-origin")
        assert answer.status == 403
        assert "an operator who has the role operate" in answer.page.text
    assert console.post("/logout", Cookie=cookie).status == 303


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 405),
        ({"Sec-Fetch-Site": "none"}, 405),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Sec-Fetch-Site": "same-origin, cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://HOST"}, 403),
        ({"Origin": "http://HOST"}, 405),
        ({"Origin": "https://HOST"}, 403),
        ({"Origin": "http://HOST.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Referer": "http://HOST/console/"}, 403),
        ({}, 403),
    ],
)
def test_changes_from_other_sites_are_rejected(console, headers, status):
    """A change is refused unless the browser sends an origin of the console, logged in or not."""
    cookie = console.log_in("li", PASSWORD)
    given = {name.replace("-", "_"): value.replace("HOST", console.address) for name, value in headers.items()}
    answer = console.get("/events", method="POST", Cookie=cookie, **given)
    assert answer.status == status
    assert status == 405 or "Nothing was changed" in answer.page.text
    for path in ("/login", "/logout"):
        answer = console.get(path, method="POST", Cookie=cookie, **given)
        assert (answer.status == 403) == (status == 403)
    assert console.get("/", Cookie=cookie, Sec_Fetch_Site="cross-site").status == (200 if status == 403 else 401)


@pytest.mark.sqlite
def test_changes_from_other_sites_are_rejected_without_operators(harness, serve):
    """Without operators there is no login, and a web site in the same browser still cannot change anything."""
    console = serve(harness.open())
    assert console.get("/events", method="POST", Sec_Fetch_Site="cross-site").status == 403
    assert console.get("/events", method="POST").status == 403
    assert console.get("/login").status == 303
    assert "Log out" not in console.page("/").text


@pytest.mark.sqlite
def test_the_address_behind_a_proxy(harness, serve):
    """With an https address the cookie is sent over TLS only; other names are refused, except loopback's."""
    console = serve(harness.open(operators=settings("li"), public_url="https://ops.example.com"))
    for host, status in (
        ("ops.example.com", 401),
        ("OPS.example.com", 401),
        ("127.0.0.1:1", 401),
        ("evil.example", 403),
    ):
        assert console.get("/", host=host).status == status, host
    assert "public_url" in console.get("/", host="evil.example").page.text
    for path in ("/metrics", "/api/events"):
        answer = console.get("", root=path, host="evil.example")
        assert (answer.status, "public_url" in json.loads(answer.body)["message"]) == (403, True)
    cookie = console.log_in("li", PASSWORD, host="ops.example.com")
    assert cookie.startswith("__Host-flowhooks_session=")
    for headers, status in (
        ({"Origin": "https://ops.example.com"}, 405),
        ({"Origin": "http://ops.example.com"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 405),
    ):
        assert console.get("/events", method="POST", host="ops.example.com", Cookie=cookie, **headers).status == status
    plain = cookie.replace("__Host-", "")
    assert console.get("/", host="ops.example.com", Cookie=plain).status == 401
    out = console.post("/logout", host="ops.example.com", Cookie=cookie)
    assert "Secure" in out.headers["Set-Cookie"]


@pytest.mark.sqlite
def test_a_public_console_is_served_under_any_host_name(harness, serve):
    """With operators the console is served to other machines under any host name."""
    console = serve(harness.open(admin="0.0.0.0:8081", operators=settings("li")))
    cookie = console.log_in("li", PASSWORD, host="192.0.2.7:8081")
    assert console.get("/", host="192.0.2.7:8081", Cookie=cookie).status == 200


WRONG = [
    {"name": "li", "password": OTHER},
    {"name": "nobody", "password": PASSWORD},
    {"name": "li", "password": ""},
    {"name": "", "password": ""},
    {"name": "li"},
    {"name": "LI", "password": PASSWORD},
    {"name": "li", "password": PASSWORD + " "},
    {"name": "li", "password": "x" * 60_000},
    {"name": "l" * 60_000, "password": "x"},
    {"name": "li\0", "password": "\0"},
    {"name": "<script>alert(1)</script>", "password": "' OR 1=1 --"},
    {"name": "\u202eli", "password": "密码"},
    {},
]


@pytest.mark.sqlite
def test_wrong_login_forms_get_the_login_page(harness, serve):
    """Any wrong form gets the login page with 401 and the same text, never an error."""
    console = serve(harness.open(operators=settings("li")))
    for form in WRONG:
        console.flow.clock.advance(60)
        answer = console.post("/login", form)
        assert answer.status == 401, form
        assert "Wrong name or password." in answer.page.text
        assert "Set-Cookie" not in answer.headers
        assert PASSWORD not in answer.body.decode()
    for body, kind in (
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"name=%FF&password=%ED%A0%80", "application/x-www-form-urlencoded"),
        (b"&" * 50_000, "application/x-www-form-urlencoded"),
        (b"a" * 200_000, "application/x-www-form-urlencoded"),
        (b'{"name": "li"}', "application/json"),
        (b"", "multipart/form-data; boundary=x"),
        (b"", ""),
    ):
        console.flow.clock.advance(60)
        sent = {"method": "POST", "body": body, "Content_Type": kind, "Sec_Fetch_Site": "same-origin"}
        assert console.get("/login", **sent).status == 401, body[:20]
    assert kept(console) == []


COOKIES = [
    *("flowhooks_session=", "flowhooks_session", "flowhooks_session=x", f"flowhooks_session={'a' * 43}"),
    *(f"flowhooks_session={'a' * 5000}", 'flowhooks_session="', "=", ";;;", "\xff\xfe", "flowhooks_session=%00"),
    *(f"flowhooks_session={'é' * 43}", f"flowhooks_session={'a' * 43}; flowhooks_session={'b' * 43}", "a=b; $c"),
    *(f"__Host-flowhooks_session={'a' * 43}", "flowhooks_session=' OR 1=1 --", "flowhooks_session=../../etc"),
]
TOKENS = [
    *(
        "Bearer",
        "Bearer ",
        "bearer x",
        "Bearer é",
        "Bearer a, Bearer b",
        f"Bearer {'a' * 2000}",
        "BEARER\t",
        "Bearer =",
    ),
    *(
        "Basic bGk6eA==",
        "Digest username=li",
        "x",
        "",
        "Bearer null",
        "Bearer \xff",
        f"Bearer {hash_password(PASSWORD)}",
    ),
]


@pytest.mark.sqlite
def test_malformed_credentials_are_401(console):
    """An invalid cookie or header is 401 on a page and elsewhere, never 500."""
    for headers in [*({"Cookie": cookie} for cookie in COOKIES), *({"Authorization": token} for token in TOKENS)]:
        for root, path in (("/console", "/"), ("/console", "/events"), ("", "/metrics"), ("", "/api/events")):
            assert console.get(path, root=root, **headers).status == 401, (headers, path)
        posted = console.get("", method="POST", root="/api/operations/reroute_parked", body="{}", **headers)
        assert posted.status == 401, headers


@pytest.mark.sqlite
def test_failed_logins_delay_further_logins(harness, serve):
    """After five failures a name must wait, longer each time, even with the right password; the page says so."""
    console = serve(harness.open(operators=settings("li") | settings("wang", OTHER)))
    for _ in range(5):
        assert console.post("/login", {"name": "li", "password": "wrong"}).status == 401
    answer = console.post("/login", {"name": "li", "password": PASSWORD})
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    assert "Try again in 1 s." in answer.page.text
    assert "1 秒" in console.post("/login", {"name": "li", "password": "x"}, Accept_Language="zh").page.text
    console.log_in("wang", OTHER)
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        console.flow.clock.advance(seconds)
        assert console.post("/login", {"name": "li", "password": "wrong"}).status == 401
        assert console.post("/login", {"name": "li", "password": "wrong"}).status == 429
    console.flow.clock.advance(30)
    console.log_in("li", PASSWORD)
    assert console.post("/login", {"name": "li", "password": "wrong"}).status == 401
    text = console.flow.app.metrics.text().decode()
    for outcome, count in (("succeeded", 2), ("failed", 13), ("delayed", 9)):
        assert f'flowhooks_logins_total{{outcome="{outcome}"}} {count}.0' in text


@pytest.mark.sqlite
def test_logins_above_the_concurrency_limit_wait(console, monkeypatch):
    """While the limit of concurrent password checks is reached, further logins must wait, and are no failures."""

    def busy(*_, **_named):
        raise TooManyVerifications

    monkeypatch.setattr(PasswordVerifier, "verify", busy)
    for _ in range(9):
        answer = console.post("/login", {"name": "li", "password": PASSWORD})
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


@pytest.mark.sqlite
def test_a_flood_of_logins_does_not_block_an_operator(console, monkeypatch, eventually):
    """A login that comes while others are verified gets its turn, and other requests are answered meanwhile."""
    slow, verify, begin, verifiers = threading.Event(), PasswordHasher.verify, PasswordVerifier._begin, set()

    def verify_slowly(self, known, password):
        slow.wait(WAIT_TIMEOUT)
        return verify(self, known, password)

    def begin_seen(self, *given):
        verifiers.add(self)
        begin(self, *given)

    def waiting():
        return sum(len(verifier._waiting) for verifier in verifiers)

    monkeypatch.setattr(PasswordHasher, "verify", verify_slowly)
    monkeypatch.setattr(PasswordVerifier, "_begin", begin_seen)
    monkeypatch.setattr(passwords, "MAX_WAIT_SECONDS", WAIT_TIMEOUT)
    with ThreadPoolExecutor(9) as clients:
        flood = [clients.submit(console.post, "/login", {"name": f"n{number}", "password": "x"}) for number in range(8)]
        eventually(lambda: waiting() == 6)
        operator = clients.submit(console.log_in, "li", PASSWORD)
        eventually(lambda: waiting() == 7)
        assert console.get("", root="/healthz").status == 200
        slow.set()
        assert operator.result()
        assert {future.result().status for future in flood} == {401}


@pytest.mark.sqlite
def test_logs_have_failed_logins_but_no_secrets(console):
    """Failures are logged with name and address; no password or session is logged."""
    with capture_logs() as logged:
        console.post("/login", {"name": "li\nforged", "password": "my-secret-password"})
        cookie = console.log_in("li", PASSWORD)
        console.get("/", Cookie=cookie)
    assert [(entry["event"], entry["operator"], entry["address"]) for entry in logged] == [
        ("login_failed", "li\nforged", "127.0.0.1"),
        ("login_succeeded", "li", "127.0.0.1"),
    ]
    assert logged[1]["by"] == "password"
    for secret in ("my-secret-password", PASSWORD, cookie.partition("=")[2]):
        assert secret not in repr(logged)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ("/console/events?key=x&a=%2F", "/console/events?key=x&a=%2F"),
        ("/console/events/0%00a", "/console/events/0%00a"),
        *(
            (address, "/console/")
            for address in ("", "//evil.example/console/", "https://evil.example/console/", "/events")
        ),
        *(
            (address, "/console/")
            for address in ("/console/\r\nX: y", "/\\evil.example", "/console/login", "/console/logout")
        ),
        *(
            (address, "/console/")
            for address in ("javascript:alert(1)", "/console/请", "/console/live", "/console", "http://[")
        ),
        ("/console/" + "a" * 3000, "/console/"),
        *(
            # Browsers resolve these steps, also encoded, before they send the request.
            (address, "/console/")
            for address in ("/console/../other", "/console/%2e%2E/other", "/console/events/.%2e/a", "/console/..?a=b")
        ),
        ("/console/events/a..b?a=../b", "/console/events/a..b?a=../b"),
    ],
)
def test_a_login_redirects_only_to_a_console_page(given, then):
    """After a login the browser goes to a page of the console, whatever the link's address has."""
    assert _safe_next(given) == then


@pytest.mark.sqlite
def test_a_login_with_an_unusable_ledger_is_503(console, monkeypatch):
    """While it cannot be read or written, each login gets 503, and none succeeds."""
    cookie = console.log_in("li", PASSWORD)

    def fails(*_args, **_named):
        from flowhooks.errors import LedgerUnusable

        raise LedgerUnusable("gone")

    monkeypatch.setattr(sessions, "find", fails)
    assert console.get("/", Cookie=cookie).status == 503
    assert console.get("", root="/metrics", Cookie=cookie).status == 503
    monkeypatch.setattr(sessions, "create", fails)
    assert console.post("/login", {"name": "li", "password": PASSWORD}).status == 503


@pytest.mark.sqlite
def test_an_unreadable_token_stops_the_start(harness):
    """An unreadable token stops the start."""
    flow = harness.open(operators={"li": OperatorSettings(role="view", token_file="/nowhere")})
    with pytest.raises(SettingsError, match=r"operators\.li\.token_file"):
        create_admin(flow.app, "t")


def test_password_hashes_match_in_any_unicode_form():
    """A password matches its hash in any Unicode form; too long or too short ones do not."""
    verifier = PasswordVerifier()
    known = hash_password("Passwort für alle")
    assert verifier.verify("Passwort für alle", known)
    assert verifier.verify("Passwort fu\u0308r alle", known)
    assert not verifier.verify("passwort für alle", known)
    assert not verifier.verify("", None, known)
    assert not verifier.verify("x" * 10_000, known)
    assert not verifier.verify("\ud800", CHEAP)
    assert not verifier.verify(PASSWORD, None, CHEAP)
    for short in ("x" * 11, "x" * 257, ""):
        with pytest.raises(SettingsError, match="12 to 256"):
            hash_password(short)


def test_the_session_hash_depends_on_secret_and_password():
    """The stored hash depends on the secret and the password, so a new password ends the session."""
    from flowhooks.web.admin.sessions import _digest

    assert len({_digest("s", "n", "p"), _digest("s", "n", "q"), _digest("s", "m", "p"), _digest("t", "n", "p")}) == 4
    assert _digest("s", "n", "p") != hashlib.sha256(b"s").hexdigest()


def audited(console):
    """The audit entries: actor, action and detail, oldest first."""
    with console.flow.app.ledger.connection() as connection:
        return [(entry.actor, entry.action, entry.detail) for entry in audit.entries(connection, limit=100)][::-1]


def test_logins_are_in_the_audit_log(console):
    """A login and a logout are entries of their operator, with the address; a login also has method and role."""
    cookie = console.log_in("li", PASSWORD)
    console.post("/logout", Cookie=cookie)
    address = {"address": "127.0.0.1"}
    assert audited(console) == [
        ("li", "login", {**address, "by": "password", "role": "operate"}),
        ("li", "logout", address),
    ]


def test_failed_logins_do_not_fill_the_audit_log(console):
    """Refused logins are one entry for each operator, and one for all names that no operator has."""
    for number in range(4):
        console.post("/login", {"name": f"nobody{number}", "password": OTHER})
    console.post("/login", {"name": "li", "password": OTHER})
    first, second = audited(console)
    assert first[:2] == ("unknown", "login_refused")
    assert (first[2]["count"], first[2]["address"]) == (4, "127.0.0.1")
    assert second == ("li", "login_refused", {"address": "127.0.0.1"})
    assert OTHER not in str(console.flow.sql("SELECT detail FROM audit_log"))
    shown = console.get("/audit?action=login_refused&actor=li", Cookie=console.log_in("wang", OTHER)).page.text
    assert re.search(r"li in the console login refused", shown)
    assert "unknown in the console" not in shown
