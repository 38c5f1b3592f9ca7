"""Send spans and measures over OTLP, configured by the environment.

It needs the extra `otlp`. The SDK reads `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_ENDPOINT` and its like itself.
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


def providers() -> tuple[trace.TracerProvider, metrics.MeterProvider]:
    """Providers of this plugin's own, not the process's: what others have set up stays as it is.

    Both send what is left when the interpreter ends.
    """
    # Arguments of `create` override the environment, so the environment's attributes are given once more.
    resource = Resource.create({"service.name": "flowhooks", **OTELResourceDetector().detect().attributes})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return traces, MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
