"""flowhooks-webhooks against a real receiver that verifies with the library."""

from __future__ import annotations

import base64
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from threading import Event as Flag
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import flowhooks_webhooks
import pytest
from flowhooks_webhooks import Webhooks
from flowhooks_webhooks.sender import NotDelivered
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from flowhooks import Delivery, FlowhooksError, Retry, RetryAfter
from flowhooks.testing import AppFactory, exactly_once, make_event
from flowhooks.testing.engines.hostile_server import HostileServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks import Handler
    from flowhooks.testing import AppFactory, AppHarness
    from flowhooks.testing.engines.hostile_server import Request

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
HANGS = 0
"""A response that never arrives."""
CLOSES = 1
"""A connection that is closed without a response."""


@dataclass(frozen=True)
class Message:
    """The messages that the receiver got, already verified."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id, equal in each repetition."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """A service that verifies each webhook with the library and answers as configured, afterwards with 204.

    Attributes:
        secret: the secret it verifies with.
        answers: the next responses, each a status and header fields.
        messages: the messages it received.
        refused: the messages whose signature was wrong.
        received: is set when there is a message.
    """

    secret: str = SECRET
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    refused: list[Message] = field(default_factory=list)
    port: int = 0
    over: Flag = field(default_factory=Flag)
    received: Flag = field(default_factory=Flag)
    lock: Lock = field(default_factory=Lock)

    def take(self, message: Message) -> tuple[int, dict[str, str]]:
        """Verify a message and return the response."""
        with self.lock:
            try:
                Webhook(self.secret).verify(message.body, dict(message.headers))
            except WebhookVerificationError:
                self.refused.append(message)
                return 401, {}
            self.messages.append(message)
            self.received.set()
            return self.answers.pop(0) if self.answers else (204, {})

    @property
    def url(self) -> str:
        """The address it listens on."""
        return f"http://127.0.0.1:{self.port}/hooks"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that listens on this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    receiver = Receiver()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, fields = receiver.take(Message({k.lower(): v for k, v in self.headers.items()}, body))
            if status == HANGS:
                receiver.over.wait(30)
            if status in {HANGS, CLOSES}:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in ({"content-length": "0"} | fields).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's own name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        receiver.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def plugin() -> Iterator[Webhooks]:
    """A plugin for each test."""
    plugin = Webhooks()
    yield plugin
    plugin.sender.close()


@pytest.fixture
def forwarding(plugin: Webhooks, receiver: Receiver, flowhooks_app: AppFactory) -> Callable[..., AppHarness]:
    """Start flowhooks with one endpoint, `crm`, at the receiver, or with the given endpoints."""

    def start(*endpoints: dict[str, Any], **changes: Any) -> AppHarness:
        endpoint = {"name": "crm", "url": receiver.url, "secret": SECRET, "process_key": "leave"} | changes
        return flowhooks_app(
            names={"webhooks": plugin}, settings={"webhooks": {"endpoints": list(endpoints) or [endpoint]}}
        )

    return start


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `webhooks`."""
    found = entry_points(group="flowhooks", name="webhooks")
    assert [entry_point.load() for entry_point in found] == [flowhooks_webhooks.plugin]


def test_an_event_is_forwarded_and_signed(forwarding: Callable[..., AppHarness], receiver: Receiver) -> None:
    """The receiver verifies the message, finds the event's members by the names of the contract, and is called once."""
    app = forwarding(headers={"X-Tenant": "north"})
    body: dict[str, Any] = {
        "processDefinitionKey": "leave",
        "businessKey": "合同-1",
        "processDefinitionVersion": 3,
        "conclusion": "approved",
        "more": [1],
    }
    answer = app.post("4711", **body)
    assert answer.status == 200
    delivery = app.delivery(answer.event_id)
    assert (delivery.handler, delivery.state, delivery.result) == ("webhooks:crm", "succeeded", {"status": 204})
    (message,) = receiver.messages
    assert message.id == delivery.id
    assert message.headers["content-type"] == "application/json"
    assert message.headers["user-agent"].startswith("flowhooks-webhooks/")
    assert message.headers["x-tenant"] == "north"
    assert abs(int(message.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 300
    assert message.json == {
        "type": "flow.completed",
        "timestamp": app.event(answer.event_id).received_at.isoformat(),
        "data": {
            "eventId": answer.event_id,
            "source": "default",
            "kind": "complete",
            "flowInstanceId": "4711",
            "businessKey": "合同-1",
            "callBackProcessClass": None,
            "processDefinitionId": None,
            "processDefinitionKey": "leave",
            "processDefinitionVersion": 3,
            "conclusion": "approved",
            "data": body,
        },
    }
    assert receiver.refused == []


def test_a_retry_is_the_same_message(forwarding: Callable[..., AppHarness], receiver: Receiver) -> None:
    """After a response 500 the message is sent again with the same id and body, verifies again, and has no cookie."""
    receiver.answers = [(500, {"set-cookie": "session=1; Path=/"}), (502, {})]
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    assert "endpoint crm answered 500 Internal Server Error" in app.delivery(event_id).error
    app.advance(seconds=6)
    assert "502 Bad Gateway" in app.wait_for(event_id, "waiting", attempt=2).error
    app.advance(minutes=6)
    assert app.wait_for(event_id, "succeeded").attempt == 3
    assert len(receiver.messages) == 3
    assert len({(message.id, message.body) for message in receiver.messages}) == 1
    assert not any("cookie" in message.headers for message in receiver.messages)


def test_each_endpoint_has_its_own_deliveries(forwarding: Callable[..., AppHarness], receiver: Receiver) -> None:
    """An endpoint that is down does not delay another endpoint, which gets its message once."""
    whole = {"secret": SECRET, "process_key": ["leave", "travel"]}
    app = forwarding(
        {"name": "away", "url": "http://127.0.0.1:1/", **whole}, {"name": "crm", "url": receiver.url, **whole}
    )
    event_id = app.post("1", processDefinitionKey="travel").event_id
    assert {delivery.handler: delivery.state.value for delivery in app.deliveries(event_id)} == {
        "webhooks:away": "waiting",
        "webhooks:crm": "succeeded",
    }
    app.settle(event_id)
    assert {delivery.handler: (delivery.state.value, delivery.attempt) for delivery in app.deliveries(event_id)} == {
        "webhooks:away": ("dead", 8),
        "webhooks:crm": ("succeeded", 1),
    }
    assert "endpoint away cannot be reached" in app.delivery(event_id, "away").error
    assert len(receiver.messages) == 1


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (301, "redirects are not followed"),
        (307, "redirects are not followed"),
        (400, "rejects this message"),
        (401, "rejects this message"),
        (404, "rejects this message"),
        (410, "accepts no more messages"),
        (422, "rejects this message"),
    ],
)
def test_a_permanent_failure_makes_the_delivery_dead(
    forwarding: Callable[..., AppHarness], receiver: Receiver, status: int, says: str
) -> None:
    """A permanent failure makes the delivery dead after one attempt, with the reason; a redirect is not followed."""
    receiver.answers = [(status, {"location": f"{receiver.url}/elsewhere"})]
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    delivery = app.delivery(event_id)
    assert (delivery.state, delivery.outcome, delivery.attempt) == ("dead", "rejected", 1)
    assert f"endpoint crm answered {status} " in delivery.error
    assert says in delivery.error
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_retry_after_sets_the_time_of_the_next_attempt(
    forwarding: Callable[..., AppHarness], receiver: Receiver, status: int
) -> None:
    """Retry-After is followed: the message is sent again at that time, not earlier."""
    receiver.answers = [(status, {"retry-after": "120"})]
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    delivery = app.delivery(event_id)
    assert delivery.due_at is not None
    assert (delivery.due_at - app.event(event_id).received_at).total_seconds() == 120
    app.advance(seconds=119)
    assert len(receiver.messages) == 1
    app.advance(seconds=2)
    assert app.wait_for(event_id, "succeeded").attempt == 2


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        ("1", 5, 5),
        ("0", 5, 5),
        ("99999999999", 86_400, 86_400),
        ("9" * 400, 86_400, 86_400),
        (timedelta(hours=2), 6_000, 7_200),
        (timedelta(hours=-2), 5, 5),
        ("soon", 5, 5.5),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 5, 5.5),
        ("-5", 5, 5.5),
        ("", 5, 5.5),
    ],
    ids=str,
)
def test_retry_after_is_parsed_and_bounded(
    forwarding: Callable[..., AppHarness], receiver: Receiver, after: str | timedelta, least: float, most: float
) -> None:
    """Seconds or a date, at least the schedule's delay, at most a day; otherwise the schedule decides."""
    if isinstance(after, timedelta):
        after = format_datetime(datetime.now(UTC) + after, usegmt=True)
    receiver.answers = [(429, {"retry-after": after})]
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    delivery = app.delivery(event_id)
    assert delivery.due_at is not None
    assert least <= (delivery.due_at - app.event(event_id).received_at).total_seconds() <= most
    assert delivery.error.endswith("endpoint crm answered 429 Too Many Requests")


def test_a_repeated_short_retry_after_follows_the_schedule(
    forwarding: Callable[..., AppHarness], receiver: Receiver
) -> None:
    """If the second response requests one second, the schedule's five minutes apply."""
    receiver.answers = [(429, {"retry-after": "1"})] * 2
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    app.advance(seconds=5)
    delivery = app.wait_for(event_id, "waiting", attempt=2)
    assert delivery.due_at is not None
    assert (delivery.due_at - app.event(event_id).received_at).total_seconds() == 305


def test_retry_after_has_a_minimum_after_a_replay(plugin: Webhooks, receiver: Receiver) -> None:
    """After a replay the receiver's Retry-After applies, with the schedule's first delay as the minimum."""
    receiver.answers = [(429, {"retry-after": "1"}), (429, {"retry-after": "60"})]
    (handler,) = handlers_of(plugin, section(url=receiver.url, every=True))
    for seconds in (5, 60):
        with pytest.raises(RetryAfter) as asked:
            handler(make_event(), Delivery(id="d1", event_id="e1", handler="webhooks:crm", attempt=9))
        assert asked.value.seconds == seconds


@pytest.mark.parametrize(("attempt", "seconds"), [(9, 5), (10, 300), (11, 1_800), (15, 36_000), (17, 5)])
def test_a_short_retry_after_follows_the_schedule_after_a_replay(
    plugin: Webhooks, receiver: Receiver, attempt: int, seconds: float
) -> None:
    """A replay starts the schedule again, although the attempts are numbered on."""
    receiver.answers = [(429, {"retry-after": "1"})]
    (handler,) = handlers_of(plugin, section(url=receiver.url, every=True))
    with pytest.raises(RetryAfter) as asked:
        handler(make_event(), Delivery(id="d1", event_id="e1", handler="webhooks:crm", attempt=attempt))
    assert asked.value.seconds == seconds


def timeout_for(answer: int) -> float:
    """The timeout of a test with this answer: on a busy machine, other answers arrive within it, too."""
    return 3 if answer == HANGS else 10


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (HANGS, "NotDelivered: endpoint crm did not answer within 3 s"),
        (CLOSES, "NotDelivered: endpoint crm did not answer (RemoteProtocolError)"),
    ],
)
def test_a_missing_answer_is_a_failed_attempt(
    forwarding: Callable[..., AppHarness], receiver: Receiver, answer: int, says: str
) -> None:
    """A missing or late response is a failed attempt, and the message is sent again with the same id."""
    receiver.answers = [(answer, {})]
    app = forwarding(timeout=timeout_for(answer))
    event_id = app.post("1", processDefinitionKey="leave").event_id
    assert app.delivery(event_id).error == says
    app.settle(event_id)  # on a busy machine, the next response may be late, too
    assert app.delivery(event_id).state == "succeeded"
    assert len(receiver.messages) > 1
    assert len({message.id for message in receiver.messages}) == 1


@pytest.mark.parametrize(
    ("start", "part"),
    [(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), (b"HTTP/1.1 204 No Content\r\nX-Long: ", b"x")],
    ids=["1xx", "header"],
)
@pytest.mark.usefixtures("receiver")  # which leaves no proxy in the environment
def test_timeout_of_an_answer_in_small_parts(plugin: Webhooks, start: bytes, part: bytes) -> None:
    """The timeout ends a request whose answer arrives in small parts, each in time."""

    def drip(request: Request) -> Iterator[bytes]:
        yield start
        for _ in range(1_200):  # a minute
            server.stopped.wait(0.05)
            yield part

    with HostileServer(drip) as server:
        url = f"http://127.0.0.1:{server.port}/"
        (handler,) = handlers_of(plugin, section(url=url, every=True, timeout=0.5))
        with pytest.raises(NotDelivered, match=r"^endpoint crm did not answer within 0\.5 s$"):
            handler(make_event(), Delivery(id="d1", event_id="e1", handler="webhooks:crm", attempt=1))


@pytest.mark.parametrize("knows", [SECRET, OTHER_SECRET])
def test_secrets_can_be_changed(forwarding: Callable[..., AppHarness], receiver: Receiver, knows: str) -> None:
    """With the new and the old secret in the settings, a receiver that has either one verifies the message."""
    receiver.secret = knows
    app = forwarding(secret=[OTHER_SECRET, SECRET])
    assert app.post("1", processDefinitionKey="leave").status == 200
    assert (len(receiver.messages), receiver.refused) == (1, [])


def test_a_receiver_with_another_secret_rejects_the_message(
    forwarding: Callable[..., AppHarness], receiver: Receiver
) -> None:
    """A receiver with another secret does not verify the message and responds 401."""
    receiver.secret = OTHER_SECRET
    app = forwarding()
    event_id = app.post("1", processDefinitionKey="leave").event_id
    assert app.delivery(event_id).state == "dead"
    assert (receiver.messages, len(receiver.refused)) == ([], 1)


def test_every_matches_events_without_another_handler(
    forwarding: Callable[..., AppHarness], receiver: Receiver
) -> None:
    """`every` takes events that match no other handler."""
    app = forwarding({"name": "all", "url": receiver.url, "secret": SECRET, "every": True})
    app.post("1", processDefinitionKey="unheard of")
    assert [message.json["data"]["flowInstanceId"] for message in receiver.messages] == ["1"]


@pytest.mark.parametrize("answer", [500, 404, HANGS, CLOSES])
def test_secrets_are_not_shown(
    forwarding: Callable[..., AppHarness], receiver: Receiver, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    """User info and query of the URL, secrets and header fields reach the receiver, but no error, traceback or log."""
    receiver.answers = [(answer, {})]
    caplog.set_level(logging.DEBUG)
    url = f"http://someone:pass-4711@127.0.0.1:{receiver.port}/hooks?token=query-4711"
    app = forwarding(url=url, timeout=timeout_for(answer), headers={"X-Key": "header-4711"})
    event_id = app.post("1", processDefinitionKey="leave").event_id
    assert receiver.received.wait(60)  # the attempt may have ended before
    (message,) = receiver.messages
    assert message.headers["authorization"] == "Basic " + base64.b64encode(b"someone:pass-4711").decode()
    assert message.headers["x-key"] == "header-4711"
    delivery = app.delivery(event_id)
    shown = "".join((delivery.error, delivery.traceback, repr(app.handlers), repr(app.app.plugins)))
    for secret in ("pass-4711", "query-4711", "header-4711", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in shown
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "send_request_headers.complete" in logged  # the whole log is checked, including the connection's records
    assert not [secret for secret in ("pass-4711", "query-4711", "header-4711", SECRET) if secret in logged]


def test_the_handler_summary_shows_only_the_host(plugin: Webhooks) -> None:
    """The handler's summary names the host; no printed text has the URL."""
    plugin.configure(settings={"endpoints": [section(url="https://me:pw@crm.example/x?y=z", process_key="leave")]})
    (handler,) = plugin.handlers()
    assert handler.summary == "Forward events to crm.example."
    assert "pw" not in repr(handler)


def test_many_events_are_forwarded_at_once(forwarding: Callable[..., AppHarness], receiver: Receiver) -> None:
    """Forty events from eight threads are forty verified messages, each with an id of its own."""
    app = forwarding()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: app.post(str(n), processDefinitionKey="leave"), range(40)))
    for answer in answers:
        app.wait_for(answer.event_id, "succeeded")
    assert len({message.id for message in receiver.messages}) == 40
    assert receiver.refused == []


@pytest.mark.parametrize("lines", [3, pytest.param(10, marks=pytest.mark.long)])
def test_all_messages_of_an_event_have_the_same_id(plugin: Webhooks, receiver: Receiver, lines: int) -> None:
    """After any number of kills and repeated callbacks, all messages of an event have one id."""
    report = exactly_once(
        plugin,
        name="webhooks",
        settings={"endpoints": [section(url=receiver.url, process_key="leave")]},
        make={"processDefinitionKey": "leave"},
        lines=lines,
        done=lambda event: len(
            {message.id for message in receiver.messages if message.json["data"]["eventId"] == event.id}
        ),
    )
    assert report.ok, str(report)


def section(**changes: Any) -> dict[str, Any]:
    """The settings of an endpoint, with changes."""
    return {"name": "crm", "url": "https://crm.example/hooks", "secret": SECRET} | changes


def handlers_of(plugin: Webhooks, *endpoints: dict[str, Any]) -> list[Handler]:
    """The handlers that the plugin makes of these endpoints."""
    plugin.configure(settings={"endpoints": list(endpoints)})
    return list(plugin.handlers())


def test_a_handler_has_the_selectors_of_its_endpoint(plugin: Webhooks) -> None:
    """A handler has the selectors of its endpoint, and is retried on the usual schedule."""
    crm, erp = handlers_of(
        plugin,
        section(process_key=["leave", "travel"], callback_class="com.example.Signed"),
        section(name="erp", every=True, kind="cancel"),
    )
    assert (crm.name, crm.retry, crm.selectors.kind, crm.selectors.every) == ("crm", Retry(), "complete", False)
    assert crm.selectors.process_keys == ("leave", "travel")
    assert crm.selectors.callback_classes == ("com.example.Signed",)
    assert (erp.name, erp.selectors.kind, erp.selectors.every) == ("erp", "cancel", True)


def test_message_types_of_additional_kinds(plugin: Webhooks, receiver: Receiver) -> None:
    """The type of a callback kind that a plugin added is `flow.` and the kind's name."""
    (handler,) = handlers_of(plugin, section(url=receiver.url, every=True, kind="cancel"))
    handler(make_event(kind="cancel"), Delivery(id="d1", event_id="e1", handler="webhooks:crm", attempt=1))
    assert [message.json["type"] for message in receiver.messages] == ["flow.cancel"]


@pytest.mark.parametrize("traceparent", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None])
def test_the_traceparent_is_forwarded(plugin: Webhooks, receiver: Receiver, traceparent: str | None) -> None:
    """The message has the callback's own traceparent in every attempt, and none if the callback had none."""
    (handler,) = handlers_of(plugin, section(url=receiver.url, every=True))
    event = make_event(traceparent=traceparent)
    for attempt in (1, 2):
        handler(event, Delivery(id="d1", event_id=event.id, handler="webhooks:crm", attempt=attempt))
    assert [message.headers.get("traceparent") for message in receiver.messages] == [traceparent, traceparent]
    assert receiver.refused == []


def test_plugin_without_settings_has_no_handlers(plugin: Webhooks) -> None:
    """The plugin loads without a section, and has no handlers."""
    plugin.configure(settings={})
    assert plugin.handlers() == []


SHORT = "whsec_" + base64.b64encode(b"k" * 23).decode()
LONG = "whsec_" + base64.b64encode(b"k" * 65).decode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"secret": "topsecret-4711"}, "its secret must be whsec_ followed by 24 to 64 bytes in base64"),
        ({"secret": "whsec_topsecret-4711!"}, "its secret must be whsec_ followed by"),
        ({"secret": SECRET.removeprefix("whsec_")}, "its secret must be whsec_ followed by"),
        ({"secret": SHORT}, "its secret must be whsec_ followed by"),
        ({"secret": LONG}, "its secret must be whsec_ followed by"),
        ({"secret": [SECRET, "topsecret-4711"]}, "its secret must be whsec_ followed by"),
        ({"process_key": []}, "give the events that it receives: process_key, callback_class or every = true"),
        ({"url": "ftp://me:topsecret-4711@crm.example/"}, "its url must begin with http:// or https:// and a host"),
        ({"url": "crm.example/hooks"}, "its url must begin with http:// or https:// and a host"),
        ({"url": "https:///topsecret-4711"}, "its url must begin with http:// or https:// and a host"),
        ({"url": "https://topsecret-4711:port/"}, "its url cannot be read"),
        ({"url": "https://crm.example:0/topsecret-4711"}, "its url cannot be read"),
        ({"url": "https://crm.example:65536/topsecret-4711"}, "its url cannot be read"),
        ({"url": f"https://{'topsecret-4711' * 5}.example/"}, "its url cannot be read"),
        ({"url": "https://topsecret-4711..example/"}, "its url cannot be read"),
        ({"headers": {"X Y": "1"}}, "'X Y' cannot be the name of a header field"),
        ({"headers": {"Webhook-Id": "1"}}, "the header field Webhook-Id is set by the message itself"),
        ({"headers": {"Traceparent": "1"}}, "the header field Traceparent is set by the message itself"),
        ({"headers": {"X-Key": "topsecret-4711\r\nX-Other: 1"}}, "the header field X-Key must be printable ASCII"),
        ({"headers": {"X-Key": "topsecret-4711\n"}}, "the header field X-Key must be printable ASCII"),
        ({"headers": {"X-Key": ""}}, "the header field X-Key must be printable ASCII"),
    ],
)
def test_wrong_settings_quarantine_the_plugin(
    plugin: Webhooks, flowhooks_app: AppFactory, changes: dict[str, Any], says: str
) -> None:
    """One line names the endpoint and the fault, without any secret."""
    endpoint = section(process_key="leave") | changes
    with pytest.raises(ValueError, match=r"^endpoint 'crm' in ") as refused:
        plugin.configure(settings={"endpoints": [endpoint]})
    assert says in str(refused.value)
    assert "topsecret-4711" not in str(refused.value)
    with pytest.raises(FlowhooksError) as quarantined:
        flowhooks_app(names={"webhooks": plugin}, settings={"webhooks": {"endpoints": [endpoint]}})
    assert "webhooks" in str(quarantined.value)
    assert "topsecret-4711" not in str(quarantined.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "name"),
        ({"secrt": SECRET}, "secrt"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"every": "yes"}, "every"),
    ],
)
def test_the_schema_rejects_wrong_settings(
    plugin: Webhooks, flowhooks_app: AppFactory, changes: dict[str, Any], says: str
) -> None:
    """The shipped schema finds a misspelt setting or a wrong type, and names it."""
    with pytest.raises(FlowhooksError, match=says):
        flowhooks_app(
            names={"webhooks": plugin},
            settings={"webhooks": {"endpoints": [section(process_key="leave") | changes]}},
        )


def test_a_secret_is_read_from_the_environment(
    forwarding: Callable[..., AppHarness], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`secret = {env = "CRM_SECRET"}` signs with the value of the variable."""
    monkeypatch.setenv("CRM_SECRET", OTHER_SECRET)
    receiver.secret = OTHER_SECRET
    app = forwarding(secret={"env": "CRM_SECRET"})
    app.post("1", processDefinitionKey="leave")
    assert (len(receiver.messages), receiver.refused) == (1, [])


def test_two_endpoints_with_the_same_name_are_rejected(plugin: Webhooks) -> None:
    """Two endpoints with the same name are refused, because their deliveries could not be distinguished."""
    with pytest.raises(ValueError, match=r"has two endpoints named crm$"):
        plugin.configure(settings={"endpoints": [section(every=True), section(every=True)]})
