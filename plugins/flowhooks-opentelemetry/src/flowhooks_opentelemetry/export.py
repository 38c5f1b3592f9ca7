"""Send spans and metrics over OTLP, as configured by environment variables.

This module needs the extra `otlp`. The SDK reads the environment variables, such as `OTEL_SERVICE_NAME` and
`OTEL_EXPORTER_OTLP_ENDPOINT`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if TYPE_CHECKING:
    from opentelemetry import metrics, trace


def create_providers() -> tuple[trace.TracerProvider, metrics.MeterProvider]:
    """Return new providers for this plugin only. The global providers of the process are not changed.

    Both providers send their remaining data when the interpreter exits.
    """
    # Arguments of `create` override the environment, so the attributes of the environment are passed as well.
    resource = Resource.create({"service.name": "flowhooks", **OTELResourceDetector().detect().attributes})
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracer_provider, MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
