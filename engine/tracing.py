"""Tracing as the configuration has it."""

from __future__ import annotations

from engine.config.tracing import TracingTable
from engine.traces import Tracing


def tracing_of(settings: TracingTable, version: str) -> Tracing | None:
    """Return what traces, by the configuration; None where nothing is traced, and OpenTelemetry is not imported."""
    if settings.endpoint is None:
        return None
    from engine.traces.spans import SpanTracing, exporter_of

    exporter = exporter_of(settings.endpoint, settings.plain_headers())
    return SpanTracing(
        exporter, service=settings.service, version=version, sample=settings.sample
    )  # fmt: skip
