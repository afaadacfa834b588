"""Traces: what an event sets going, seen as one, from the request that brought it to the ends of its runs.

`contexts` is the W3C's trace context and needs nothing; `spans` makes spans, by OpenTelemetry, where tracing is on.
"""

from __future__ import annotations

from engine.traces.contexts import Parent, parse, plain_traceparent
from engine.traces.tracing import Tracing

__all__ = ["Parent", "Tracing", "parse", "plain_traceparent"]
