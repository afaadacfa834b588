"""Spans by OpenTelemetry, of the extra `otel`; imported only where tracing is on.

The span of an event hangs from what its sender says, or begins a trace; that of an attempt hangs from its run's latest
event, and is linked to all others. They are sent by OpenTelemetry's own thread, out of a bounded queue: a receiver that
is slow or away costs spans, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from engine.clock import to_microseconds
from engine.events import Accepted, Event
from engine.plugin import Outcome
from engine.runs import FAILURES, Run
from engine.traces.contexts import Parent, parse, span_of_attempt, span_of_event, trace_of

log = logging.getLogger("engine.traces")

CLOSE_S = 3.0
"""So long the end of the engine waits for spans to be sent."""

SEND_WITHIN_S = 10.0
MOST_LINKS = 128
MOST_KNOWN = 10_000
"""So many of the latest attempts are known by their spans."""

_NO_IDS: tuple[str | None, str | None] = (None, None)
_IDS: ContextVar[tuple[str | None, str | None]] = ContextVar("span_ids", default=_NO_IDS)
"""The trace and span ids that the next span is to have."""


class _Ids(IdGenerator):
    """Gives spans the ids that are made of events and runs; others get random ones."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        given = _IDS.get()[0]
        return self._random.generate_trace_id() if given is None else int(given, 16)

    def generate_span_id(self) -> int:
        given = _IDS.get()[1]
        return self._random.generate_span_id() if given is None else int(given, 16)


def exporter_of(endpoint: str, headers: Mapping[str, str]) -> SpanExporter:
    """Return what sends spans to a receiver, by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, headers=dict(headers), timeout=SEND_WITHIN_S)


class Attempt:
    """The span of an attempt; see `engine.traces.tracing.AttemptSpan`."""

    def __init__(self, span: trace.Span, fallback: Parent) -> None:
        self._span = span
        found = span.get_span_context()
        # One that is not sampled has a context all the same, so that others do not sample it either.
        self._parent = _parent_of(found) if found.is_valid else fallback

    @property
    def traceparent(self) -> str:
        return self._parent.text()

    @property
    def trace(self) -> str:
        return self._parent.trace

    def ended(self, outcome: Outcome) -> None:
        self._span.set_attribute("engine.outcome", outcome.state.value)
        self._span.set_attribute("engine.code", outcome.code)
        if outcome.exit_code is not None:
            self._span.set_attribute("process.exit.code", outcome.exit_code)
        if outcome.state in FAILURES:
            self._span.set_status(Status(StatusCode.ERROR, outcome.reason))


class SpanTracing:
    """Makes spans, and has them sent; see `engine.traces.tracing.Tracing`.

    `sample` is the part of the traces that begin here that is sent, 0 to 1; of those that others began, what they say.
    """

    def __init__(self, exporter: SpanExporter, *, service: str, version: str, sample: float = 1.0) -> None:
        self._ratio = TraceIdRatioBased(sample)
        resource = Resource.create({"service.name": service, "service.version": version})
        self._provider = TracerProvider(
            sampler=ParentBased(self._ratio), id_generator=_Ids(), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, export_timeout_millis=SEND_WITHIN_S * 1000)
        )  # fmt: skip
        self._tracer = self._provider.get_tracer("trigger-engine", version)
        self._runs: OrderedDict[str, str] = OrderedDict()
        """The runs by the spans of their attempts."""
        self._latest: OrderedDict[str, str] = OrderedDict()
        """The traceparent of the latest attempt of each run."""

    # Events

    def origin(self, traceparent: str | None) -> str | None:
        found = parse(traceparent)
        if found is None:
            # What the code of a run hands in within this process goes on from there.
            here = trace.get_current_span().get_span_context()
            found = _parent_of(here) if here.is_valid else None
        return None if found is None else found.text()

    def accepted(self, event: Event, answer: Accepted) -> None:
        parent = parse(event.trace)
        ids = (trace_of(event.id), None if answer.duplicate else span_of_event(event.id))
        links = [Link(self._context_of(answer.event, None))] if answer.duplicate else []
        token = _IDS.set(ids)
        try:
            span = self._tracer.start_span(
                f"event {event.type}", context=_under(None if parent is None else _remote(parent)),
                kind=SpanKind.CONSUMER, start_time=_nanos(event.received_at), links=links,
                attributes={
                    "engine.event.id": answer.event, "engine.event.type": event.type,
                    "engine.event.source": event.source, "engine.duplicate": answer.duplicate,
                    "engine.outcomes": [
                        f"{one.trigger or '-'}: {one.outcome.value}" for one in answer.outcomes
                    ],
                },
            )  # fmt: skip
        finally:
            _IDS.reset(token)
        span.end()

    def _context_of(self, event_id: str, traced: str | None) -> SpanContext:
        """Return the context of an event's span, by what is stored with it."""
        parent = parse(traced)
        trace_id = trace_of(event_id) if parent is None else parent.trace
        sampled = self._samples(trace_id) if parent is None else parent.sampled
        return _remote(Parent(trace=trace_id, span=span_of_event(event_id), sampled=sampled))

    def _samples(self, trace_id: str) -> bool:
        return self._ratio.should_sample(None, int(trace_id, 16), "").decision is Decision.RECORD_AND_SAMPLE

    # Attempts

    @contextmanager
    def attempt(self, run: Run, events: Sequence[Event]) -> Iterator[Attempt]:
        latest = events[-1]
        parent = self._context_of(latest.id, latest.trace)
        span_id = span_of_attempt(run.id, run.attempt)
        self._note(span_id, run.id)
        others = events[:-1][-MOST_LINKS:]
        token = _IDS.set((None, span_id))
        try:
            span = self._tracer.start_span(
                f"run {run.job}", context=_under(parent), kind=SpanKind.CONSUMER,
                start_time=None if run.started_at is None else _nanos(run.started_at),
                links=[Link(self._context_of(event.id, event.trace)) for event in others],
                attributes=_attributes(run, len(events)),
            )  # fmt: skip
        finally:
            _IDS.reset(token)
        fallback = Parent(trace=f"{parent.trace_id:032x}", span=span_id, sampled=False)
        made = Attempt(span, fallback)
        self._latest[run.id] = made.traceparent
        while len(self._latest) > MOST_KNOWN:
            self._latest.popitem(last=False)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield made

    def of_run(self, run_id: str) -> str | None:
        return self._latest.get(run_id)

    def _note(self, span_id: str, run_id: str) -> None:
        self._runs[span_id] = run_id
        while len(self._runs) > MOST_KNOWN:
            self._runs.popitem(last=False)

    def run_of(self, traceparent: str) -> str | None:
        found = parse(traceparent)
        return None if found is None else self._runs.get(found.span)

    # The end

    async def close(self) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            try:
                self._provider.shutdown()
            except Exception:  # an exporter's
                log.exception("Spans could not be sent at the end", extra={"action": "spans_unsent"})
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        # It may take as long as the exporter does, and is not waited for any longer than this.
        threading.Thread(target=work, name="spans: the last", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await done.wait()
        except TimeoutError:
            log.warning("The last spans were not sent in time", extra={"action": "spans_unsent"})

    def flush(self) -> None:
        """Have all spans that are made sent before this returns; for tests."""
        self._provider.force_flush()


def _attributes(run: Run, events: int) -> dict[str, str | int | float]:
    made: dict[str, str | int | float] = {
        "engine.run.id": run.id, "engine.job": run.job, "engine.trigger": run.trigger, "engine.origin":
        run.origin.value, "engine.attempt": run.attempt, "engine.event.id": run.event, "engine.events": events,
    }  # fmt: skip
    if run.started_at is not None:
        made["engine.waited_s"] = max((run.started_at - run.ready_at).total_seconds(), 0.0)
    if run.scheduled_for is not None:
        made["engine.scheduled_for"] = run.scheduled_for.isoformat()
    return made


def _parent_of(context: SpanContext) -> Parent:
    return Parent(
        trace=f"{context.trace_id:032x}", span=f"{context.span_id:016x}", sampled=bool(context.trace_flags.sampled)
    )  # fmt: skip


def _remote(parent: Parent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(parent.trace, 16), int(parent.span, 16), is_remote=True, trace_flags=flags)


def _under(parent: SpanContext | None) -> contexts.Context:
    """Return a context with this parent, or with none, whatever the code around it is a part of."""
    empty = contexts.Context()
    return empty if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent), empty)


def _nanos(at: datetime) -> int:
    return to_microseconds(at) * 1000
