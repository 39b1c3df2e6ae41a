"""Traces across every hop and the metrics of a process; the names of all of them in one table."""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter, Gauge, Histogram

_PROPAGATOR = TraceContextTextMapPropagator()
# Delegates to the provider that `configure` sets; looking it up for every span costs as much as the span.
_TRACER = trace.get_tracer("strata")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)

BUILD = Gauge("strata_build_info", "Version that runs; always 1.", ["service", "version"])
RPC_SECONDS = Histogram("strata_rpc_server_duration_seconds", "Time of a gRPC call at its server.", ["method", "status"], buckets=_SECONDS)
MESSAGE_SECONDS = Histogram("strata_message_handle_duration_seconds", "Time to handle a message.", ["durable", "outcome"], buckets=_SECONDS)
MESSAGES_IN_FLIGHT = Gauge("strata_messages_in_flight", "Messages being handled.", ["durable"])
PUBLISHED = Counter("strata_messages_published_total", "Messages the bus acknowledged.", ["subject"])
BUS_ERRORS = Counter("strata_bus_errors_total", "Errors the bus reported, such as denied permissions.")
OLDEST_RUN = Gauge("strata_orchestrator_oldest_run_age_seconds", "Age of the oldest run in progress here; 0 when there is none.")
OVERDUE_RUNS = Gauge("strata_orchestrator_overdue_runs", "Runs in progress here beyond their deadline; should be 0.")
MIRROR_SYNCED = Gauge("strata_mirror_synced", "Whether a bucket is held in memory completely.", ["bucket"])
STEP_SECONDS = Histogram("strata_step_duration_seconds", "Time of a workflow's step.", ["step", "outcome"], buckets=_SECONDS)


def configure(service: str, version: str = "0.1.0") -> None:
    """Set up tracing: spans are exported over OTLP where OTEL_EXPORTER_OTLP_ENDPOINT is set, else only propagated."""
    BUILD.labels(service=service, version=version).set(1)
    exporting = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"strata-{service}", "service.version": version}),
        sampler=ParentBased(ALWAYS_ON) if exporting else ALWAYS_OFF,
    )
    if exporting:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def inject(headers: MutableMapping[str, str]) -> None:
    """Write the current `traceparent` into `headers`."""
    _PROPAGATOR.inject(headers)


def extract(headers: Mapping[str, str] | None) -> Context:
    """Return the context that the headers carry, whatever the case of their names."""
    return _PROPAGATOR.extract({k.lower(): v for k, v in (headers or {}).items()})


@contextmanager
def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, parent: Context | None = None, **attributes: str | float
) -> Iterator[trace.Span]:
    """Run the block in a span that is the parent of whatever it calls."""
    with _TRACER.start_as_current_span(name, context=parent, kind=kind, attributes=attributes) as current:
        yield current


def current_trace_id() -> str:
    """Return the trace id as 32 hexadecimal digits; zeros outside of a span."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"
