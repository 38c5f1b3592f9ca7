"""Access to the administration API: the allowed requests of each credential, and the recorded operator."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from contextlib import closing

import pytest

from flowhooks.clock import DAY
from flowhooks.ledger import audit
from flowhooks.settings import OperatorSettings
from flowhooks.testing import ManualClock
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.login_throttle import FREE_ADDRESS_FAILURES, MAX_COUNTED, MAX_ENTRIES, LoginThrottle
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

LOCK = "the-token-in-the-lock-file"
TOKENS = {"li": "li-token-0123456789abcdefghij", "prometheus": "prometheus-token-0123456789ab"}
OPERATORS = {
    name: OperatorSettings(role=role, token_sha256=(hashlib.sha256(TOKENS[name].encode()).hexdigest(),))
    for name, role in (("li", "operate"), ("prometheus", "view"))
}


class Something:
    """A resource for the tests."""

    def on_get(self, request, response):
        """Return the client."""
        response.media = {"operator": request.context.operator and request.context.operator.name}


@pytest.fixture
def ask(harness):
    """A function that returns `request(method, path, token, body, **headers)` for a flow's administration listener."""
    running = []

    def ask(flow):
        admin = create_admin(flow.app, LOCK)
        admin.add_route("/api/something", Something())
        server = Server(admin, listen="127.0.0.1:0", threads=4, limits=Limits(), name="admin")
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        host, _, port = server.address.rpartition(":")

        def request(method, path, token=None, body=None, **headers):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            given |= {"Authorization": f"Bearer {token}"} if token else {}
            with closing(http.client.HTTPConnection(host, int(port), timeout=WAIT_TIMEOUT)) as connection:
                connection.request(method, path, None if body is None else json.dumps(body), given)
                answer = connection.getresponse()
                text = answer.read()
                return answer.status, json.loads(text) if text[:1] == b"{" else text

        return request

    yield ask
    for server, thread in running:
        server.close()
        thread.join(WAIT_TIMEOUT)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/healthz", (200, 200, 200, 200)),
        ("/readyz", (200, 200, 200, 200)),
        ("/metrics", (401, 200, 200, 401)),
        ("/api/something", (401, 200, 200, 200)),
        ("/api/none", (401, 404, 404, 404)),
        ("/none", (401, 404, 404, 401)),
        ("/openapi.json", (401, 200, 200, 401)),
        ("/console/events", (401, 200, 200, 401)),
    ],
)
def test_every_path_except_liveness_needs_a_credential(harness, ask, path, answers):
    """With operators everything except liveness needs a credential; the role view suffices for reading."""
    request = ask(harness.open(operators=OPERATORS))
    nobody = answers[0]
    for token, status in zip((None, TOKENS["prometheus"], TOKENS["li"], LOCK), answers, strict=True):
        assert request("GET", path, token, Host="ops.example.com")[0] == status, token
    if nobody == 401 and not path.startswith("/console"):
        assert request("GET", path, Accept_Language="zh")[1]["message"].endswith("运维人员的令牌。")


@pytest.mark.sqlite
def test_the_operator_of_an_action_is_recorded(harness, ask, listens):
    """An operator's token or a command identifies the operator; the role view changes nothing."""
    flow = harness.open(listens(lambda event: None, name="h"), operators=OPERATORS)
    request = ask(flow)
    handlers = {"handlers": ["p:h"]}
    assert request("POST", "/api/operations/pause", None, handlers)[0] == 401
    status, error = request("POST", "/api/operations/pause", TOKENS["prometheus"], handlers)
    assert (status, error["message"].split(";")[0]) == (403, "This operator may only read")
    status, error = request("POST", "/api/operations/pause", TOKENS["li"], handlers | {"by": "wang"})
    assert (status, error["message"].split(":")[0]) == (422, "leave out by")
    with flow.app.ledger.connection() as connection:
        assert {entry.action for entry in audit.entries(connection, limit=9)} == {"login"}
    assert request("POST", "/api/operations/pause", TOKENS["li"], handlers)[0] == 200
    assert request("POST", "/api/operations/resume", LOCK, handlers | {"by": "zhao"})[0] == 200
    with flow.app.ledger.connection() as connection:
        done = [
            (entry.actor, entry.interface) for entry in audit.entries(connection, limit=9) if entry.action != "login"
        ]
    assert done == [("zhao", "cli"), ("li", "api")]


@pytest.mark.sqlite
def test_requests_of_other_sites_are_rejected(harness, ask):
    """A request with a token needs no page of the console; a browser without one may change nothing."""
    request = ask(harness.open(operators=OPERATORS))
    sent = {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"}
    assert request("POST", "/api/operations/reroute_parked", TOKENS["li"], {}, **sent)[0] == 200
    assert request("POST", "/api/operations/reroute_parked", None, {}, Sec_Fetch_Site="same-origin")[0] == 401
    assert request("DELETE", "/api/something", None, Sec_Fetch_Site="same-origin")[0] == 401


@pytest.mark.sqlite
def test_access_without_operators(harness, ask):
    """Without operators this machine may read the API under a loopback name, and commands may make changes."""
    request = ask(harness.open())
    assert request("GET", "/api/something")[1] == {"operator": "local"}
    status, error = request("GET", "/api/something", Host="evil.example")
    assert (status, "localhost" in error["message"]) == (403, True)
    assert request("GET", "/metrics")[0] == 200
    for token in (None, "wrong", TOKENS["li"]):
        assert request("POST", "/api/operations/reroute_parked", token, {})[0] == 401
        assert request("POST", "/api/operations/reroute_parked", token, {}, Sec_Fetch_Site="same-origin")[0] == 401
    assert request("POST", "/api/operations/reroute_parked", LOCK, {})[0] == 200


@pytest.mark.sqlite
def test_a_public_listener_without_operators(harness, ask):
    """With `insecure` and no operators the API gives other machines nothing; readers of the lock file may operate."""
    request = ask(harness.open(admin="0.0.0.0:8081", insecure=True))
    assert request("GET", "/api/something")[0] == 403
    assert request("GET", "/api/something", LOCK)[0] == 200
    assert request("POST", "/api/operations/reroute_parked", None, {})[0] == 401
    assert request("POST", "/api/operations/reroute_parked", LOCK, {})[0] == 200


@pytest.mark.sqlite
def test_a_token_file_is_read_again_at_reload(harness, ask, tmp_path):
    """A changed token file takes effect at the next reload; a missing one does not."""
    file = tmp_path / "token"
    file.write_text("first-token-0123456789abcdef\n")
    file.chmod(0o600)
    given = {"robot": OperatorSettings(role="view", token_file=str(file))}
    flow = harness.open(operators=given)
    request = ask(flow)
    assert request("GET", "/metrics", "first-token-0123456789abcdef")[0] == 200
    file.write_text("second-token-0123456789abcde")
    assert request("GET", "/metrics", "second-token-0123456789abcde")[0] == 401
    flow.app._live.change_settings(harness.settings(operators=given))
    assert request("GET", "/metrics", "second-token-0123456789abcde")[0] == 200
    assert request("GET", "/metrics", "first-token-0123456789abcdef")[0] == 401
    file.unlink()
    flow.app._live.change_settings(harness.settings(operators=given))
    assert request("GET", "/metrics", "second-token-0123456789abcde")[0] == 200
    assert 'outcome="refused_token"} 2.0' in flow.app.metrics.text().decode()


@pytest.fixture
def attempts():
    """Attempts and the clock that they use."""
    clock = ManualClock()
    attempts = LoginThrottle(clock)
    attempts.clock = clock
    return attempts


def test_failed_logins_delay_an_address(attempts):
    """A client that guesses names must wait longer each time, up to a quarter of an hour, for any next name."""
    for number in range(FREE_ADDRESS_FAILURES):
        assert attempts.check(f"n{number}", "192.0.2.1") == 0
    waits = []
    for number in range(12):
        waits.append(attempts.check(f"m{number}", "192.0.2.1"))
        attempts.clock.advance(waits[-1])
        assert attempts.check(f"m{number}", "192.0.2.1") == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    assert attempts.check("m", "192.0.2.2") == 0
    attempts.clock.advance(3601)
    assert attempts.check("m", "192.0.2.1") == 0
    assert attempts.check("m", "192.0.2.1") == 0


def test_a_clock_set_back_does_not_extend_login_delays(attempts):
    """Failures before the clock was set back delay a name and an address as if they had just happened."""
    for number in range(FREE_ADDRESS_FAILURES):
        assert attempts.check(f"n{number % 2}", "192.0.2.1") == 0
    attempts.clock.time -= DAY
    wait = attempts.check("n0", "192.0.2.1")
    assert wait == 1
    attempts.clock.advance(wait)
    assert attempts.check("n0", "192.0.2.1") == 0


def test_addresses_of_one_network_are_delayed_together(attempts):
    """A client that changes its address within a /64 of IPv6 counts as the same client; another network does not."""
    for number in range(FREE_ADDRESS_FAILURES):
        assert attempts.check(f"n{number}", f"2001:db8:1:1::{number:x}") == 0
    assert attempts.check("m", "2001:db8:1:1:ffff::1") == 1
    assert attempts.check("m", "2001:db8:1:2::1") == 0


def test_a_login_does_not_reset_failures_for_other_names(attempts):
    """A successful login removes its own attempt, but not those for other names from the same address."""
    for number in range(FREE_ADDRESS_FAILURES - 1):
        attempts.check(f"n{number}", "192.0.2.1")
        assert attempts.check("mine", "192.0.2.1") == 0
        attempts.reset("mine", "192.0.2.1")
    attempts.check("n", "192.0.2.1")
    assert attempts.check("mine", "192.0.2.1") == 1


def test_a_login_does_not_renew_a_delay(attempts):
    """After logins and withdrawn attempts, also at the same time, a delay counts from the last failure as before."""
    for number in range(2 * FREE_ADDRESS_FAILURES):
        attempts.clock.advance(900)
        assert attempts.check(f"n{number}", "192.0.2.1") == 0
    attempts.clock.advance(900)
    for end in (attempts.reset, attempts.cancel):
        assert attempts.check("li", "192.0.2.1") == 0
        # The attempt in progress counts.
        assert attempts.check("wang", "192.0.2.1") == 900
        end("li", "192.0.2.1")
    attempts.clock.advance(2701)
    assert attempts.check("li", "192.0.2.1") == attempts.check("wang", "192.0.2.1") == 0
    for name in ("li", "wang"):
        attempts.reset(name, "192.0.2.1")
    assert ("address", "192.0.2.1") not in attempts._failures


def test_concurrent_login_attempts_are_limited_like_sequential_ones(attempts):
    """An attempt counts from its start, so a hundred at once are limited like a hundred in turn."""
    begun = [attempts.check("li", "") for _ in range(100)]
    assert begun.count(0) == 5


def test_remembered_failures_are_limited(attempts):
    """With ever new names or failures the oldest are forgotten."""
    for number in range(MAX_ENTRIES + 10):
        attempts.check(f"n{number}", "127.0.0.1")
    assert len(attempts._failures) == MAX_ENTRIES
    for number in range(MAX_COUNTED + 10):
        attempts.clock.advance(900)
        assert attempts.check(f"n{number}", "192.0.2.1") == 0
    assert len(attempts._failures["address", "192.0.2.1"]) == MAX_COUNTED


def test_a_listener_without_the_console_authenticates_every_path(harness, ask, monkeypatch):
    """The listener itself authenticates, so a listener without pages is as closed as one with them."""
    monkeypatch.setattr("flowhooks.web.admin.app.console.install", lambda *_args, **_more: None)
    request = ask(harness.open(operators=OPERATORS, start=False))
    for path in ("/api/events", "/metrics", "/api/something", "/api/no-such-path"):
        assert request("GET", path)[0] == 401
    assert request("POST", "/api/operations/dismiss", body={})[0] == 401
    assert request("GET", "/api/events", TOKENS["li"])[0] == 200
