"""flowhooks-opentelemetry with the real SDK, whose spans and measurements stay in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from threading import Thread
from typing import TYPE_CHECKING, Any

import flowhooks_opentelemetry
import pytest
from flowhooks_opentelemetry import Telemetry
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flowhooks import (
    Delivery,
    Event,
    FlowhooksError,
    Handler,
    HandlerRaised,
    Outcome,
    OutcomeKind,
    Reject,
    Retry,
    RetryAfter,
    handler,
    hookimpl,
)
from flowhooks.testing import AppFactory, make_event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from flowhooks.testing import AppFactory, AppHarness


class Recorded:
    """A plugin with an SDK of its own, and the spans and measurements that the SDK recorded."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self.measures = MeterProvider([self._reader], shutdown_on_exit=False)
        self.plugin = Telemetry(self.traces, self.measures)

    @property
    def spans(self) -> list[ReadableSpan]:
        """All spans that have ended."""
        return list(self._spans.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        """The data points of one instrument."""
        data = self._reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def counts(self) -> dict[tuple[Any, Any, Any], Any]:
        """The number of counted attempts, by handler, outcome and type of error."""
        return {
            (
                point.attributes["messaging.destination.name"],
                point.attributes["flowhooks.outcome"],
                point.attributes.get("error.type"),
            ): point.value
            for point in self.points("flowhooks.delivery.attempts")
        }

    def close(self) -> None:
        """Shut the SDK down."""
        self.traces.shutdown()
        self.measures.shutdown()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """An SDK for this test: the process's providers do not change."""
    recorded = Recorded()
    yield recorded
    recorded.close()


class Leave:
    """A plugin with a handler for each way in which an attempt can end, and a wrapper that can change the result."""

    def __init__(self, spoil: object = None) -> None:
        self.spoil = spoil
        self.raised = ValueError("the database is away")

    @hookimpl
    def handlers(self) -> list[Handler]:
        """One handler for each way."""

        @handler(process_key="fine", name="fine", retry=Retry())
        def fine(event: Event) -> str:
            with trace.get_tracer("leave").start_as_current_span("inner"):
                return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)

        @handler(process_key="broken", name="broken")
        def broken(event: Event) -> None:
            raise self.raised

        @handler(process_key="refused", name="refused")
        def refused(event: Event) -> None:
            raise Reject("there is no such leave")

        @handler(process_key="later", name="later")
        def later(event: Event, delivery: Delivery) -> None:
            if delivery.attempt == 1:
                raise RetryAfter(60, "payroll is closed")

        @handler(process_key="isolated", name="isolated")
        def isolated(event: Event) -> None:
            raise HandlerRaised("TimeoutError", "no answer", "")  # as from a process of its own

        return [fine, broken, refused, later, isolated]

    @hookimpl(wrapper=True)
    def run_handler(self) -> Generator[None, Outcome, Any]:
        """Change the attempt as the test requests."""
        outcome = yield
        if isinstance(self.spoil, BaseException):
            raise self.spoil
        return outcome if self.spoil is None else self.spoil


@pytest.fixture
def leave(recorded: Recorded, flowhooks_app: AppFactory) -> Callable[..., AppHarness]:
    """Start flowhooks with the plugin and the handlers of `Leave`."""

    def start(spoil: object = None) -> AppHarness:
        return flowhooks_app(names={"opentelemetry": recorded.plugin, "leave": Leave(spoil)})

    return start


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `opentelemetry`."""
    found = entry_points(group="flowhooks", name="opentelemetry")
    assert [entry_point.load() for entry_point in found] == [flowhooks_opentelemetry.plugin]


def test_a_success_is_a_span(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """The span's name and attributes follow the messaging conventions and identify the delivery."""
    app = leave()
    body: dict[str, Any] = {
        "processDefinitionKey": "fine",
        "callBackProcessClass": "com.example.Leave",
        "businessKey": "secret",
        "conclusion": "approved",
    }
    event_id = app.post("4711", **body).event_id
    delivery = app.wait_for(event_id, "succeeded")
    (span,) = recorded.spans
    assert (span.name, span.kind) == ("process leave:fine", SpanKind.CONSUMER)
    assert dict(span.attributes or {}) == {
        "messaging.system": "flowhooks",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "leave:fine",
        "messaging.message.id": delivery.id,
        "messaging.message.conversation_id": "4711",
        "flowhooks.handler": "leave:fine",
        "flowhooks.plugin": "leave",
        "flowhooks.attempt": 1,
        "flowhooks.event.id": event_id,
        "flowhooks.event.kind": "complete",
        "flowhooks.event.source": "default",
        "flowhooks.flow_instance.id": "4711",
        "flowhooks.process_definition.key": "fine",
        "flowhooks.callback_class": "com.example.Leave",
        "flowhooks.conclusion": "approved",
        "flowhooks.outcome": "succeeded",
    }
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "flowhooks_opentelemetry"
    assert recorded.counts() == {("leave:fine", "succeeded", None): 1}


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("traceparent", "sampled"), [(TRACEPARENT, True), (TRACEPARENT[:-1] + "0", False)])
def test_the_span_is_linked_to_the_engine_span(recorded: Recorded, traceparent: str, sampled: bool) -> None:
    """The span is the root of a trace of its own, with a link to the span that the callback names."""
    fine, event, delivery = attempt()
    wrapper = recorded.plugin.run_handler(fine, replace(event, traceparent=traceparent), delivery)
    next(wrapper)
    with pytest.raises(StopIteration):
        wrapper.send(Outcome(kind=OutcomeKind.SUCCEEDED))
    (span,) = recorded.spans
    assert span.parent is None
    assert span.context is not None
    (link,) = span.links
    assert trace.format_trace_id(link.context.trace_id) == "0af7651916cd43dd8448eb211c80319c"
    assert trace.format_span_id(link.context.span_id) == "b7ad6b7169203331"
    assert (link.context.is_remote, link.context.trace_flags.sampled) == (True, sampled)
    assert span.context.trace_id != link.context.trace_id


def test_without_a_traceparent_there_is_no_link(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """An engine that traces nothing is no error."""
    app = leave()
    app.wait_for(app.post("1", processDefinitionKey="fine").event_id, "succeeded")
    (span,) = recorded.spans
    assert span.links == ()


def test_spans_of_a_handler_belong_to_the_attempt_span(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """Inside the handler the attempt's span is the current span."""
    app = leave()
    delivery = app.wait_for(app.post("1", processDefinitionKey="fine").event_id, "succeeded")
    (span,) = recorded.spans
    assert span.context is not None
    assert delivery.result == trace.format_trace_id(span.context.trace_id)


@pytest.mark.parametrize(
    ("key", "ends"),
    [
        ("broken", ("failed", "ValueError", "the database is away")),
        ("refused", ("rejected", "Reject", "there is no such leave")),
        ("later", ("failed", "RetryAfter", "payroll is closed")),
        ("isolated", ("failed", "TimeoutError", "TimeoutError: no answer")),
    ],
)
def test_an_exception_is_recorded(
    leave: Callable[..., AppHarness], recorded: Recorded, key: str, ends: tuple[str, str, str]
) -> None:
    """Status, outcome and type of error match the ledger, and the span has the exception."""
    outcome, error_type, description = ends
    app = leave()
    event_id = app.post("1", processDefinitionKey=key).event_id
    delivery = app.delivery(event_id)
    (span,) = recorded.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, description)
    assert span.attributes is not None
    assert span.attributes["flowhooks.outcome"] == outcome == delivery.outcome
    assert span.attributes["error.type"] == error_type
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.message"] == description
    assert str(event.attributes["exception.type"]).rpartition(".")[2] == error_type
    assert recorded.counts() == {(f"leave:{key}", outcome, error_type): 1}
    assert description in delivery.error


class Speechless(Reject):
    """An error whose text and notes cannot be read."""

    def __str__(self) -> str:
        """Fail."""
        raise LookupError("no words")

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # as a plugin may do
        """Fail in a way that `traceback` does not expect."""
        raise SystemExit("no notes")


def test_a_recording_error_does_not_replace_the_attempt_error(
    leave: Callable[..., AppHarness], recorded: Recorded
) -> None:
    """An error while recording does not replace the attempt's own error: a rejected attempt is not retried."""
    app = leave(spoil=Speechless("x"))
    delivery = app.delivery(app.post("1", processDefinitionKey="fine").event_id)
    assert (delivery.state, delivery.outcome) == ("dead", "rejected")
    (span,) = recorded.spans
    assert [event.name for event in span.events] == ["exception"]
    assert span.status.status_code is StatusCode.ERROR


def test_an_error_that_is_not_utf8_can_be_exported(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """A file name can hold bytes that are not UTF-8; without care the exporter would drop the whole batch."""
    app = leave(spoil=ValueError("no " + os.fsdecode(b"\xe4.txt")))
    app.post("1", processDefinitionKey="fine")
    (span,) = recorded.spans
    assert encode_spans([span]).SerializeToString()
    assert span.status.description == "no \\udce4.txt"


def test_each_attempt_has_its_span_and_duration(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """A retried delivery has two spans, one message id, two counts and two durations in seconds."""
    app = leave()
    event_id = app.post("1", processDefinitionKey="later").event_id
    app.advance(seconds=61)
    app.wait_for(event_id, "succeeded")
    found = [dict(span.attributes or {}) for span in recorded.spans]
    assert [(attributes["flowhooks.attempt"], attributes["flowhooks.outcome"]) for attributes in found] == [
        (1, "failed"),
        (2, "succeeded"),
    ]
    assert len({attributes["messaging.message.id"] for attributes in found}) == 1
    assert recorded.counts() == {("leave:later", "failed", "RetryAfter"): 1, ("leave:later", "succeeded", None): 1}
    durations = recorded.points("messaging.process.duration")
    assert [point.count for point in durations] == [1, 1]
    assert all(0 <= point.sum < 60 for point in durations)
    assert durations[0].explicit_bounds[:2] == (0.005, 0.01)


def test_errors_of_other_wrappers_are_part_of_the_attempt(leave: Callable[..., AppHarness], recorded: Recorded) -> None:
    """An attempt whose function returned and whose transaction failed is failed here and in the ledger."""
    app = leave(spoil=LookupError("the commit failed"))
    delivery = app.delivery(app.post("1", processDefinitionKey="fine").event_id)
    assert recorded.counts() == {("leave:fine", "failed", "LookupError"): 1}
    assert delivery.outcome == "failed"


@pytest.mark.parametrize(
    ("spoil", "outcome", "description"),
    [
        (Outcome(kind=OutcomeKind.FAILED, error="counted as failed"), "failed", "counted as failed"),
        (Outcome(kind=OutcomeKind.REJECTED, error="not wanted"), "rejected", "not wanted"),
        ("no outcome at all", "failed", None),
    ],
)
def test_a_failure_set_by_a_wrapper_is_recorded(
    leave: Callable[..., AppHarness], recorded: Recorded, spoil: object, outcome: str, description: str | None
) -> None:
    """A failure without an exception has attributes of its own, which agree with the ledger."""
    app = leave(spoil)
    delivery = app.delivery(app.post("1", processDefinitionKey="broken" if spoil is None else "fine").event_id)
    assert delivery.outcome == outcome
    assert recorded.counts() == {("leave:fine", outcome, "_OTHER"): 1}
    (span,) = recorded.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, description)


def test_exceptions_pass_through_unchanged(recorded: Recorded) -> None:
    """The wrapper raises the same exception object that it received."""
    error = KeyboardInterrupt("an operator's")
    wrapper = recorded.plugin.run_handler(*attempt())
    next(wrapper)
    with pytest.raises(KeyboardInterrupt) as raised:
        wrapper.throw(error)
    assert raised.value is error
    assert recorded.counts() == {("leave:fine", "failed", "KeyboardInterrupt"): 1}


def test_without_an_sdk_the_result_is_returned_unchanged() -> None:
    """With only the API installed the wrapper returns the result unchanged."""
    wrapper = Telemetry(trace.NoOpTracerProvider()).run_handler(*attempt())
    next(wrapper)
    given = Outcome(kind=OutcomeKind.SUCCEEDED, value=1)
    with pytest.raises(StopIteration) as returned:
        wrapper.send(given)
    assert returned.value.value is given


def attempt() -> tuple[Handler, Event, Delivery]:
    """The arguments of the hook."""
    event = make_event(process_key="fine")

    @handler(process_key="fine", name="fine")
    def fine(event: Event) -> None:
        """Do nothing."""

    named = replace(fine, plugin="leave")
    return named, event, Delivery(id="d1", event_id=event.id, handler=named.id, attempt=1)


# A process of its own, because an SDK that exports belongs to a whole process and is shut down at its end.
EXPORTS = """
from flowhooks_opentelemetry import Telemetry
from opentelemetry import trace
from flowhooks import Delivery, Event, Outcome, OutcomeKind, handler
from flowhooks.testing import AppFactory, make_event

@handler(process_key="fine")
def fine(event):
    pass

plugin = Telemetry()
plugin.configure(settings={"export": True})
event = make_event(process_key="fine")
wrapper = plugin.run_handler(fine, event, Delivery(id="d1", event_id=event.id, handler="leave:fine", attempt=1))
next(wrapper)
try:
    wrapper.send(Outcome(kind=OutcomeKind.SUCCEEDED))
except StopIteration:
    pass
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "the process's own provider was set"
"""


@pytest.mark.parametrize(("given", "service"), [({}, "flowhooks"), ({"OTEL_SERVICE_NAME": "callbacks"}, "callbacks")])
def test_export_uses_the_environment_settings(given: dict[str, str], service: str) -> None:
    """With `export = true` a collector gets spans and measurements under the service's name when the process ends."""
    received: dict[str, bytes] = {}

    class Collects(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received[self.path] = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's own name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collects) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "NO_PROXY": "127.0.0.1",
            **given,
        }
        ran = subprocess.run([sys.executable, "-c", EXPORTS], env=environ, capture_output=True, text=True, check=False)
        server.shutdown()
        thread.join()
    assert ran.returncode == 0, ran.stderr
    traces = ExportTraceServiceRequest.FromString(received["/v1/traces"])
    (sent,) = traces.resource_spans
    assert [span.name for scope in sent.scope_spans for span in scope.spans] == ["process :fine"]
    assert service in {
        attribute.value.string_value for attribute in sent.resource.attributes if attribute.key == "service.name"
    }
    measures = ExportMetricsServiceRequest.FromString(received["/v1/metrics"])
    (measured,) = measures.resource_metrics
    assert {metric.name for scope in measured.scope_metrics for metric in scope.metrics} == {
        "flowhooks.delivery.attempts",
        "messaging.process.duration",
    }


@pytest.mark.parametrize("named", ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "flowhooks_opentelemetry.export"])
def test_handlers_run_if_the_sdk_cannot_start(
    flowhooks_app: AppFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: str
) -> None:
    """If the SDK rejects the environment, or cannot be imported, this is logged once and handlers run without it."""
    if named.startswith("OTEL"):
        monkeypatch.setenv(named, "many")
    else:
        monkeypatch.setitem(sys.modules, named, None)
    app = flowhooks_app(
        names={"opentelemetry": Telemetry(), "leave": Leave()}, settings={"opentelemetry": {"export": True}}
    )
    for instance in ("1", "2"):
        assert app.delivery(app.post(instance, processDefinitionKey="fine").event_id).state == "succeeded"
    (record,) = [record for record in caplog.records if record.name == "flowhooks_opentelemetry"]
    assert named in record.getMessage()


def test_export_requires_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the plugin reports which packages are missing."""
    for module in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(ValueError, match=r"pip install 'flowhooks-opentelemetry\[otlp\]'"):
        Telemetry().configure(settings={"export": True})


def test_a_misspelt_setting_is_rejected(flowhooks_app: AppFactory) -> None:
    """The schema of the settings reports a misspelt name."""
    with pytest.raises(FlowhooksError, match="exprot"):
        flowhooks_app(names={"opentelemetry": Telemetry()}, settings={"opentelemetry": {"exprot": True}})
