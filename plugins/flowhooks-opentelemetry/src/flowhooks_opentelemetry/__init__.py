"""Record a span, a count and a duration of every attempt with OpenTelemetry: a flowhooks plugin."""

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

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bounds in seconds, from OpenTelemetry's semantic conventions for `messaging.process.duration`."""
EXPORT_MODULES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
"""Modules of the extra `otlp`."""


class Telemetry:
    """Traces and measures every attempt.

    Args:
        tracer_provider: creates the tracer; default: the provider of the process, which may be set later.
        meter_provider: creates the meter; default: the provider of the process, which may be set later.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._export = False
        self._instruments: _Instruments | None = None
        self._lock = Lock()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the folder with the schema of the section `[plugins.opentelemetry]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply `[plugins.opentelemetry]`.

        Raises:
            ValueError: `export` is set, and the packages of the extra `otlp` are not installed.
        """
        self._export = settings.get("export", False)
        if self._export and not all(_is_installed(module) for module in EXPORT_MODULES):
            raise ValueError(
                "[plugins.opentelemetry] export needs more packages: pip install 'flowhooks-opentelemetry[otlp]'"
            )

    # `tryfirst` makes this wrapper the outermost one: wrappers of other plugins are part of the attempt, and may fail.
    @hookimpl(wrapper=True, tryfirst=True)
    def run_handler(self, handler: Handler, event: Event, delivery: Delivery) -> Generator[None, Outcome, Outcome]:
        """Trace and measure the attempt, and pass on its result or exception unchanged."""
        instruments = self._instruments or self._get_instruments()
        started_at = perf_counter()
        kind, error_type = OutcomeKind.FAILED, "_OTHER"
        with instruments.tracer.start_as_current_span(
            f"{attributes.OPERATION} {handler.id}",
            kind=SpanKind.CONSUMER,
            attributes=attributes.for_span(handler, event, delivery),
            links=attributes.span_links(event),
            record_exception=False,  # recorded below, because the SDK cannot record every error
            set_status_on_exception=False,
        ) as span:
            try:
                outcome = yield
            except BaseException as error:
                kind = OutcomeKind.REJECTED if isinstance(error, Reject) else OutcomeKind.FAILED
                error_type = _error_name(error)
                _record_exception(span, error)
                raise
            else:
                # A wrapper with a bug may return another type, which flowhooks treats as a failed attempt.
                kind = outcome.kind if isinstance(outcome, Outcome) else OutcomeKind.FAILED
                if kind is not OutcomeKind.SUCCEEDED:
                    text = outcome.error if isinstance(outcome, Outcome) else None
                    span.set_status(Status(StatusCode.ERROR, text and _escape_invalid(text)))
                return outcome
            finally:
                outcome_attributes = attributes.for_outcome(kind, error_type)
                span.set_attributes(outcome_attributes)
                instruments.record(handler, outcome_attributes, seconds=perf_counter() - started_at)

    def _get_instruments(self) -> _Instruments:
        """Return the instruments. The first attempt creates them, because hooks at start must not start threads."""
        with self._lock:
            if self._instruments is None:
                tracer_provider, meter_provider = self._tracer_provider, self._meter_provider
                if self._export:
                    tracer_provider, meter_provider = _create_exporting_providers()
                self._instruments = _Instruments(tracer_provider, meter_provider)
            return self._instruments


class _Instruments:
    """A tracer, a counter and a histogram."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        name, package_version = __name__, version("flowhooks-opentelemetry")
        self.tracer = trace.get_tracer(name, package_version, tracer_provider, attributes.SCHEMA_URL)
        meter = metrics.get_meter(name, package_version, meter_provider, attributes.SCHEMA_URL)
        self._attempts = meter.create_counter(
            "flowhooks.delivery.attempts", unit="{attempt}", description="Number of attempts that have ended."
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )

    def record(self, handler: Handler, outcome_attributes: Mapping[str, str], *, seconds: float) -> None:
        """Record the count and the duration of an attempt that has ended."""
        metric_attributes = {**attributes.for_metrics(handler), **outcome_attributes}
        self._attempts.add(1, metric_attributes)
        self._duration.record(seconds, metric_attributes)


def _create_exporting_providers() -> tuple[TracerProvider, MeterProvider]:
    """Return providers that the environment configures. If the SDK cannot start, they record nothing."""
    try:
        from flowhooks_opentelemetry.export import create_providers  # noqa: PLC0415 (an optional extra)

        return create_providers()
    except Exception as error:  # noqa: BLE001 (any error would fail every attempt of every handler)
        log.error("nothing is traced or measured: %s", error)  # noqa: TRY400 (a wrong setting needs no traceback)
        return trace.NoOpTracerProvider(), metrics.NoOpMeterProvider()


def _record_exception(span: Span, error: BaseException) -> None:
    """Do the same as `span.record_exception`, but raise no exception, which would replace the error of the attempt."""
    try:
        text = str(error)
    except BaseException as text_error:  # noqa: BLE001 (the `__str__` of a plugin may raise anything)
        text = f"(its text cannot be read: {type(text_error).__name__})"
    try:
        stacktrace = "".join(traceback.format_exception(error))
    except BaseException as format_error:  # noqa: BLE001 (other attributes, such as `__notes__`, may raise anything)
        stacktrace = f"(its traceback cannot be formatted: {type(format_error).__name__})"
    name, module = _error_name(error), type(error).__module__
    span.add_event(
        "exception",
        {
            "exception.type": name if module == "builtins" or isinstance(error, HandlerRaised) else f"{module}.{name}",
            "exception.message": _escape_invalid(text),
            "exception.stacktrace": _escape_invalid(stacktrace),
        },
    )
    span.set_status(Status(StatusCode.ERROR, _escape_invalid(text)))


def _error_name(error: BaseException) -> str:
    """Return the class name of the exception that the handler raised, even in another process."""
    return error.name if isinstance(error, HandlerRaised) else type(error).__qualname__


def _escape_invalid(text: str) -> str:
    """Escape characters that UTF-8 cannot encode, because an exporter drops the whole batch with such a text."""
    return text.encode(errors="backslashreplace").decode()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


plugin: Final = Telemetry()
"""The plugin object that the entry point names."""
