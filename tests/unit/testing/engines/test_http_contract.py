"""The suite for engine clients over HTTP: each careless client fails it with a clear message."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import ssl
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from http.client import HTTPException

import pytest

from flowhooks import EngineError, InstanceStatus
from flowhooks.testing import HttpClientContract
from flowhooks.testing.engines import hostile_server, http_contract

SUITE = HttpClientContract()


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects."""

    def redirect_request(self, *given):
        """No further request."""


class Careful:
    """A client of the standard library. It is careful about all things that the tests below make it careless about."""

    tries = 1
    limit = 100_000
    handlers = (NoRedirects,)
    context = None

    def __init__(self, config):
        self.config = config

    def close(self):
        """Nothing is open."""

    def check(self):
        """Ask for the version."""
        return self.ask("version")["version"]

    def finished(self, since, until, cursor=None):
        """Ask for instances."""
        return [item["id"] for item in self.ask("instances")]

    def instance(self, instance_id):
        """Ask for an instance."""
        return [item["id"] for item in self.ask("instances?" + urllib.parse.urlencode({"id": instance_id}))]

    def definitions(self):
        """Ask for definitions."""
        return [item["key"] + "" for item in self.ask("definitions")]

    def ask(self, path):
        """Send a request; all failures are an EngineError."""
        try:
            return self.parse(self.send(path))
        except urllib.error.HTTPError as error:
            with error:
                found = self.refused(error)
            raise found from found.__cause__
        except (OSError, HTTPException) as error:
            raise EngineError("unreachable", f"{path}: {type(error).__name__}") from None

    def refused(self, error):
        """The error of a status."""
        reason = "refused" if error.code in {401, 403} else "unreachable" if error.code >= 500 else "invalid"
        return EngineError(reason, f"status {error.code}")

    def send(self, path):
        """Send a request, with the credential."""
        request = urllib.request.Request(f"{self.config.url}/{path}")
        if self.config.password:
            given = f"{self.config.username}:{self.config.password}".encode()
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(given).decode())
        if self.config.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.config.token}")
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=self.context), *self.handlers)
        for _ in range(self.tries - 1):
            try:
                opener.open(request, timeout=self.config.timeout).close()
            except urllib.error.HTTPError as error:
                error.close()
        with opener.open(request, timeout=self.config.timeout) as answer:
            return self.read(answer)

    def read(self, answer):
        """Read a bounded part of an answer."""
        text = answer.read(self.limit)
        if len(text) == self.limit:
            raise EngineError("invalid", "too large")
        return text

    def parse(self, text):
        """Parse JSON, a list of objects."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise EngineError("invalid", "no JSON") from None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise EngineError("invalid", "no list of objects")
        raise EngineError("invalid", "the members have wrong types")  # as all answers of the hostile server


class Careless(Careful):
    """Lets the library's own errors pass."""

    def ask(self, path):
        """Send a request."""
        try:
            return self.parse(self.send(path))
        except urllib.error.HTTPError as error:
            error.close()
            raise LookupError(path) from None


class Following(Careful):
    """Follows redirects with its credential."""

    handlers = ()


class Talkative(Careful):
    """Shows the answer of the server in its errors."""

    def refused(self, error):
        """The error of a status, with the page of the server."""
        return EngineError(super().refused(error).reason, f"status {error.code}: {error.read()!r}")


class Logging(Careful):
    """Logs its credential."""

    def send(self, path):
        """Log, and send."""
        logging.getLogger("careless").info("as %s with %s", self.config.username, self.config.password)
        return super().send(path)


class Shown(Careful):
    """Shows its credential in its repr."""

    def __repr__(self):
        return f"Shown({self.config.password})"


class Chained(Careful):
    """Chains an error that has the credential in it."""

    def refused(self, error):
        """The error of a status, with a cause."""
        found = super().refused(error)
        found.__cause__ = ValueError(self.config.password)
        return found


class Silent(Careful):
    """Sends no credential."""

    def send(self, path):
        """Send without a header."""
        with urllib.request.urlopen(f"{self.config.url}/{path}", timeout=self.config.timeout) as answer:
            return self.read(answer)


class Connecting(Careful):
    """Connects when it is made."""

    def __init__(self, config):
        super().__init__(config)
        with suppress(EngineError):
            self.ask("version")


class Stubborn(Careful):
    """Repeats each request many times."""

    tries = 20


class Absent(Careful):
    """Takes each 404 for an absent instance."""

    def instance(self, instance_id):
        """Ask for an instance."""
        try:
            return super().instance(instance_id)
        except EngineError as error:
            if "404" in error.why:
                return InstanceStatus.ABSENT
            raise


class WrongReason(Careful):
    """Does not know a refused credential."""

    def refused(self, error):
        """One error for all."""
        return EngineError("unreachable", f"status {error.code}")


class Unlimited(Careful):
    """Reads an answer to its end."""

    def read(self, answer):
        """Read everything."""
        return answer.read()


class Unpacking(Careful):
    """Decompresses without a limit."""

    def read(self, answer):
        """Decompress everything."""
        try:
            return gzip.decompress(answer.read())
        except (OSError, EOFError):
            raise EngineError("invalid", "no gzip") from None


class Unverified(Careful):
    """Accepts each certificate."""

    context = ssl._create_unverified_context()


class Patient(Careful):
    """Waits for an answer without a limit: a byte from time to time is enough."""

    limit = 10**9


class Trusting(Careful):
    """Takes each JSON for the right one."""

    def parse(self, text):
        """Parse without a look at the types."""
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise EngineError("invalid", "no JSON") from None
        return [{"id": 1, "key": "a", "version": 1}]


class Forgetful(Trusting):
    """Reads one page of any size."""

    limit = 10**9


class InPath(Careful):
    """Puts the id into the path as it is."""

    def instance(self, instance_id):
        """Ask for an instance."""
        self.ask(f"instances/{instance_id}")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small hostile answers."""
    mib = hostile_server.MIB
    monkeypatch.setattr(http_contract, "MAX_READ_BYTES", 4 * mib)
    monkeypatch.setattr(http_contract, "MAX_MEMORY_BYTES", 24 * mib)
    monkeypatch.setattr(hostile_server, "ENDLESS_BYTES", 32 * mib)
    monkeypatch.setattr(hostile_server, "BOMB_BYTES", 32 * mib)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hostile_server.bomb.cache_clear()
    yield
    hostile_server.bomb.cache_clear()


@pytest.mark.parametrize(
    ("name", "factory", "arguments", "match"),
    [
        ("making_a_client_does_not_connect", Connecting, (), "must not connect"),
        ("the_credential_is_sent", Careless, ({},), "must raise EngineError"),
        ("the_credential_is_sent", Silent, ({"token": http_contract.TOKEN},), "wrong header Authorization"),
        ("the_credential_is_sent", Silent, (http_contract._WITH_PASSWORD,), "wrong header Authorization"),
        ("a_refused_credential", WrongReason, (401,), "must be refused, not unreachable"),
        ("a_refused_credential", Talkative, (403,), "the error has the credential in it"),
        ("a_refused_credential", Chained, (403,), "the error's traceback has the credential in it"),
        ("a_refused_credential", Logging, (403,), "the log has the credential in it"),
        ("a_refused_credential", Shown, (403,), "the repr of the client has the credential in it"),
        ("a_failing_engine", Stubborn, (503,), "sent 20 requests for one call"),
        ("a_failing_engine", Careless, (500,), "must raise EngineError"),
        ("a_wrong_url", Absent, (), "instance: the call must raise EngineError"),
        ("a_redirect_to_another_host", Following, (302,), "must not follow a redirect to another host"),
        ("an_unreadable_answer", Trusting, ("list-of-numbers",), "must raise EngineError"),
        ("an_answer_that_is_cut_off", Careless, ("before",), "must raise EngineError"),
        ("an_endless_answer", Unlimited, ("body",), "read a bounded part|stop at a limit"),
        ("definitions_without_an_end", Forgetful, ("list",), "must raise EngineError"),
        ("a_compressed_bomb", Unpacking, (), "read a bounded part of an answer"),
        ("an_unknown_certificate", Unverified, (), "must be unreachable|must verify"),
        ("an_id_stays_in_its_place", InPath, ("../../admin",), "leads to another path"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_a_careless_client_fails(name, factory, arguments, match):
    """A client that is careless in one way fails the test about it, with a message that names the fault."""
    test = getattr(SUITE, f"test_{name}")
    with pytest.raises((AssertionError, pytest.fail.Exception), match=match):
        test(factory, *arguments)


def test_a_call_that_never_ends_fails(monkeypatch):
    """A client that waits for each byte alone is stopped by the suite."""
    monkeypatch.setattr(http_contract, "END_TIMEOUT", 1.0)
    monkeypatch.setattr(http_contract, "SHORT_TIMEOUT", 60.0)  # for each byte
    with pytest.raises(pytest.fail.Exception, match="check: no end within 1 s"):
        SUITE.test_a_slow_answer(Patient, "body")


@pytest.mark.parametrize("status", http_contract.REFUSED)
def test_a_careful_client_passes(status):
    """The suite can be passed without a library for HTTP."""
    SUITE.test_a_refused_credential(Careful, status)
    SUITE.test_a_redirect_to_another_host(Careful, 307)
    SUITE.test_an_unreadable_answer(Careful, "html")
    SUITE.test_an_endless_answer(Careful, "body")
