"""A span, a count and a duration for every attempt, as OpenTelemetry."""

from __future__ import annotations

import logging
import traceback
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from flowhooks import Delivery, Event, Handler, HandlerRaised, Outcome, OutcomeKind, Reject, hookimpl
from flowhooks_opentelemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

log: Final = logging.getLogger(__name__)

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds, from OpenTelemetry's semantic conventions for `messaging.process.duration`."""


class Telemetry:
    """Wraps every attempt.

    Args:
        traces: makes the tracer; default: the process's own provider, whenever it is set.
        measures: makes the meter; default: likewise.
    """

    def __init__(self, traces: TracerProvider | None = None, measures: MeterProvider | None = None) -> None:
        self._traces = traces
        self._measures = measures
        self._export = False
        self._instruments: _Instruments | None = None
        self._lock = Lock()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Give the schema of the section `[plugins.opentelemetry]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take `[plugins.opentelemetry]`.

        Raises:
            ValueError: it is to export, and what does that is not installed.
        """
        self._export = settings.get("export", False)
        if self._export and not all(map(_installed, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
            raise ValueError(
                "[plugins.opentelemetry] export needs more packages: pip install 'flowhooks-opentelemetry[otlp]'"
            )

    # First means outermost: what other plugins wrap round the function is part of the attempt, and may fail it.
    @hookimpl(wrapper=True, tryfirst=True)
    def run_handler(self, handler: Handler, event: Event, delivery: Delivery) -> Generator[None, Outcome, Outcome]:
        """Trace and measure the attempt, whichever way it ends; what was returned or raised goes on as it came."""
        instruments = self._instruments or self._started()
        began = perf_counter()
        kind, error_type = OutcomeKind.FAILED, "_OTHER"
        with instruments.tracer.start_as_current_span(
            f"{attributes.OPERATION} {handler.id}",
            kind=SpanKind.CONSUMER,
            attributes=attributes.of_span(handler, event, delivery),
            links=attributes.links_of(event),
            record_exception=False,  # done here, for not every error can be recorded as the SDK would
            set_status_on_exception=False,
        ) as span:
            try:
                outcome = yield
            except BaseException as error:
                kind = OutcomeKind.REJECTED if isinstance(error, Reject) else OutcomeKind.FAILED
                error_type = _name(error)
                _record(span, error)
                raise
            else:
                # A broken wrapper may give anything: flowhooks takes that for a failed attempt.
                kind = outcome.kind if isinstance(outcome, Outcome) else OutcomeKind.FAILED
                if kind is not OutcomeKind.SUCCEEDED:
                    said = outcome.error if isinstance(outcome, Outcome) else None
                    span.set_status(Status(StatusCode.ERROR, said and _utf8(said)))
                return outcome
            finally:
                ended = attributes.of_end(kind, error_type)
                span.set_attributes(ended)
                instruments.count(handler, ended, seconds=perf_counter() - began)

    def _started(self) -> _Instruments:
        """The instruments, made at the first attempt: an exporter has threads, which no hook at start may begin."""
        with self._lock:
            if self._instruments is None:
                traces, measures = self._traces, self._measures
                if self._export:
                    traces, measures = _exporting()
                self._instruments = _Instruments(traces, measures)
            return self._instruments


class _Instruments:
    """The instruments: a tracer, a counter and a histogram."""

    def __init__(self, traces: TracerProvider | None, measures: MeterProvider | None) -> None:
        name, ours = __name__, version("flowhooks-opentelemetry")
        self.tracer = trace.get_tracer(name, ours, traces, attributes.SCHEMA_URL)
        meter = metrics.get_meter(name, ours, measures, attributes.SCHEMA_URL)
        self._attempts = meter.create_counter(
            "flowhooks.delivery.attempts", unit="{attempt}", description="Number of attempts that have ended."
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def count(self, handler: Handler, ended: Mapping[str, str], *, seconds: float) -> None:
        """Count an attempt that has ended."""
        measured = {**attributes.of_measure(handler), **ended}
        self._attempts.add(1, measured)
        self._duration.record(seconds, measured)


def _exporting() -> tuple[TracerProvider, MeterProvider]:
    """The exporting providers, configured by the environment; none if the SDK rejects it or cannot be imported."""
    try:
        from flowhooks_opentelemetry.export import providers  # noqa: PLC0415 (an extra)

        return providers()
    except Exception as error:  # noqa: BLE001 (whatever it is: it would fail every attempt of every handler)
        log.error("nothing is traced or measured: %s", error)  # noqa: TRY400 (one line: the operator's setting, not a fault)
        return trace.NoOpTracerProvider(), metrics.NoOpMeterProvider()


def _record(span: Span, error: BaseException) -> None:
    """The same as `span.record_exception`, whatever the error is: what went wrong here would take its place."""
    try:
        text = str(error)
    except BaseException as worse:  # noqa: BLE001 (a plugin's own __str__ may do anything)
        text = f"(its text cannot be read: {type(worse).__name__})"
    try:
        stacktrace = "".join(traceback.format_exception(error))
    except BaseException as worse:  # noqa: BLE001 (the same for its other attributes, such as __notes__)
        stacktrace = f"(its traceback cannot be formatted: {type(worse).__name__})"
    name, module = _name(error), type(error).__module__
    span.add_event(
        "exception",
        {
            "exception.type": name if module == "builtins" or isinstance(error, HandlerRaised) else f"{module}.{name}",
            "exception.message": _utf8(text),
            "exception.stacktrace": _utf8(stacktrace),
        },
    )
    span.set_status(Status(StatusCode.ERROR, _utf8(text)))


def _name(error: BaseException) -> str:
    """The name of the exception's class, as the handler raised it."""
    return error.name if isinstance(error, HandlerRaised) else type(error).__qualname__


def _utf8(text: str) -> str:
    """A text that can be sent: of one that cannot, an exporter would throw away the whole batch."""
    return text.encode(errors="backslashreplace").decode()


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


plugin: Final = Telemetry()
"""The object that the entry point names."""
