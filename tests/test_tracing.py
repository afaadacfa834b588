"""Traces: one from what brought an event to the ends of its runs, and nothing that tells of it can harm the engine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine import ConfigError, Engine, Event, RunState
from engine.config import load
from engine.embedding import RunContext
from engine.traces import parse, plain_traceparent
from engine.traces import spans as spans_module
from engine.traces.contexts import span_of_attempt, span_of_event, trace_of
from engine.traces.spans import SpanTracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{TRACE}-{SPAN}-01"
ON = {"endpoint": "http://127.0.0.1:1/v1/traces"}


class Kept:
    """What was sent, and what sends it."""

    def __init__(self) -> None:
        self.exporter: SpanExporter | None = None
        """What sends, where the test has its own."""
        self.sent: list[InMemorySpanExporter] = []
        self.tracings: list[SpanTracing] = []

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Return what was made so far whose name begins so, by when it began."""
        for tracing in self.tracings:
            tracing.flush()
        every = [span for exporter in self.sent for span in exporter.get_finished_spans()]
        found = [span for span in every if span.name.startswith(name)]
        return sorted(found, key=lambda span: span.start_time or 0)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    made = Kept()

    def exporter_of(endpoint: str, headers: Any) -> SpanExporter:
        if made.exporter is not None:
            return made.exporter
        made.sent.append(InMemorySpanExporter())
        return made.sent[-1]

    monkeypatch.setattr(spans_module, "exporter_of", exporter_of)
    begin = SpanTracing.__init__

    def note(self: SpanTracing, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        made.tracings.append(self)

    monkeypatch.setattr(SpanTracing, "__init__", note)
    return made


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# What others send


@pytest.mark.parametrize(
    "text",
    [
        None, "", "rubbish", SENT[:-1], SENT.upper(), f"ff{SENT[2:]}", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"{SENT}-more", f"{SENT}\r\nX: y", f"01{SENT[2:]}-{'x' * 1000}", f" {SENT}",
        SENT.replace("b", "\u0665", 1),
    ],
)  # fmt: skip
def test_what_the_standard_calls_invalid_is_as_if_it_was_not_there(text: str | None) -> None:
    assert parse(text) is None


def test_a_later_version_may_have_more_and_flags_that_nobody_knows_yet() -> None:
    found = parse(f"01{SENT[2:-2]}09-more")
    assert found is not None
    assert (found.trace, found.span, found.sampled) == (TRACE, SPAN, True)
    assert found.text() == SENT
    other = parse(f"00-{TRACE}-{SPAN}-02")
    assert other is not None
    assert not other.sampled


def test_ids_of_events_and_attempts_can_be_told_again() -> None:
    assert trace_of("e") == trace_of("e") != trace_of("f")
    assert len({span_of_event("e"), span_of_attempt("e", 1), span_of_attempt("e", 2)}) == 3
    plain = parse(plain_traceparent("0198b0c0-0000-7000-8000-000000000001", 1))
    assert plain is not None
    assert plain.trace == "0198b0c0000070008000000000000001"
    again = parse(plain_traceparent("0198b0c0-0000-7000-8000-000000000001", 2))
    assert again is not None
    assert (again.trace, again.span != plain.span) == (plain.trace, True)
    other = parse(plain_traceparent("some-run", 1))
    assert other is not None
    assert other.span == span_of_attempt("some-run", 1)


# One trace


async def test_an_event_and_its_runs_are_one_trace_that_goes_on_from_the_senders(tmp_path: Path, kept: Kept) -> None:
    engine = Engine(tmp_path / "data", tracing=ON)
    seen: list[str] = []

    @engine.job(retry={"attempts": 2, "delay": "0s"})
    async def work(run: RunContext) -> None:
        seen.append(run.traceparent)
        with trace.get_tracer("mine").start_as_current_span("inside"):
            pass
        if run.attempt == 1:
            raise ValueError("not yet")
        await engine.emit("done", {"n": 1})

    @engine.job
    async def after(run: RunContext) -> None: ...

    engine.add_trigger("go", job=work, event="order.created")
    engine.add_trigger("then", job=after, event="done")
    engine.add_trigger("last", job=after, on={"run": {"trigger": "then"}})
    async with engine:
        (answer,) = await engine._operations().hear([Event(type="order.created", traceparent=SENT, key="k")])
        await engine.wait(answer)
        (again,) = await engine._operations().hear([Event(type="order.created", traceparent=SENT, key="k")])
        assert again.duplicate
        stored = await engine._operations().store.event(answer.event)
        assert stored is not None
        assert stored.event.trace == SENT
        for _ in range(200):
            runs = [run async for run in engine.runs(state="succeeded")]
            if len(runs) == 3:
                break
            await engine.wait(answer)
        first, duplicate = kept.spans("event order.created")
        assert (ids(first), parent_of(first)) == ((TRACE, span_of_event(answer.event)), SPAN)
        assert attributes(first)["engine.outcomes"] == ("go: run",)
        assert attributes(duplicate)["engine.duplicate"] is True
        assert len(kept.spans("run work")) == 2
        for number, span in enumerate(kept.spans("run work"), 1):
            assert ids(span) == (TRACE, span_of_attempt(answer.runs[0], number))
            assert parent_of(span) == span_of_event(answer.event)
            assert seen[number - 1] == f"00-{TRACE}-{ids(span)[1]}-01"
        bad, good = kept.spans("run work")
        assert bad.status.status_code.name == "ERROR"
        assert "not yet" in str(bad.status.description)
        assert attributes(good)["engine.outcome"] == "succeeded"
        # What its code hands in, and what runs at its end, is of the trace, too.
        (handed_in,) = kept.spans("event done")
        assert (ids(handed_in)[0], parent_of(handed_in)) == (TRACE, ids(good)[1])
        assert {ids(span)[0] for span in kept.spans("run after")} == {TRACE}
        assert [ids(span)[0] for span in kept.spans("event engine.run.succeeded")] == [TRACE]


async def test_a_run_of_several_events_hangs_from_the_last_and_is_linked_to_the_others(
    tmp_path: Path, kept: Kept
) -> None:
    engine = Engine(tmp_path / "data", tracing=ON)

    @engine.job
    async def work(run: RunContext) -> None: ...

    engine.add_trigger("go", job=work, event="x", batch={"size": 3, "wait": "1h"})
    async with engine:
        answers = []
        for number in range(3):
            sent = SENT if number == 0 else None
            answers += await engine._operations().hear([Event(type="x", traceparent=sent)])
        await engine.wait(answers[-1])
        (span,) = kept.spans("run work")
        assert ids(span)[0] == trace_of(answers[2].event)
        assert parent_of(span) == span_of_event(answers[2].event)
        links = [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]
        assert links == [
            (TRACE, span_of_event(answers[0].event)),
            (trace_of(answers[1].event), span_of_event(answers[1].event)),
        ]
        assert attributes(span)["engine.events"] == 3


async def test_the_trace_of_an_event_outlives_the_engine_that_took_it(tmp_path: Path, kept: Kept) -> None:
    blocks = [True]

    def an_engine() -> Engine:
        engine = Engine(tmp_path / "data", tracing=ON, shutdown_grace="0s")

        @engine.job(concurrency=1)
        async def work(run: RunContext) -> None:
            if blocks:
                await anyio.sleep_forever()

        engine.add_trigger("go", job=work, event="x", priority=5)
        return engine

    async with an_engine() as engine:
        await engine.emit("x")
        (waits,) = await engine._operations().hear([Event(type="x", traceparent=SENT)])
    blocks.clear()
    async with an_engine() as engine:
        (run,) = await engine.wait(waits)
        assert run.state is RunState.SUCCEEDED
        (span,) = [span for span in kept.spans("run work") if ids(span)[0] == TRACE]
        assert (ids(span)[1], parent_of(span)) == (span_of_attempt(run.id, 1), span_of_event(waits.event))


async def test_what_a_run_of_a_trace_sends_is_known_to_come_from_it(tmp_path: Path, kept: Kept) -> None:
    engine = Engine(tmp_path / "data", tracing=ON)
    seen: list[str] = []

    @engine.job
    async def work(run: RunContext) -> None:
        seen.append(run.traceparent)

    engine.add_trigger("go", job=work, event="x")
    async with engine:
        (first,) = await engine._operations().hear([Event(type="x", traceparent=SENT)])
        await engine.wait(first)
        (second,) = await engine._operations().hear([Event(type="x", traceparent=seen[0])])
        stored = await engine._operations().store.event(second.event)
        assert stored is not None
        assert stored.event.cause is not None
        assert (stored.event.cause.run, stored.event.cause.hops) == (first.runs[0], 1)
        # Others' traces are no runs of ours.
        (third,) = await engine._operations().hear([Event(type="x", traceparent=SENT)])
        other = await engine._operations().store.event(third.event)
        assert other is not None
        assert other.event.cause is None


async def test_what_is_not_sampled_is_not_sent_and_others_are_told_so(tmp_path: Path, kept: Kept) -> None:
    engine = Engine(tmp_path / "data", tracing={**ON, "sample": 0.0})
    seen: list[str] = []

    @engine.job
    async def work(run: RunContext) -> None:
        seen.append(run.traceparent)

    engine.add_trigger("go", job=work, event="x")
    async with engine:
        await engine.wait(await engine.emit("x"))
        assert not kept.spans()
        assert seen[0].endswith("-00")
        (answer,) = await engine._operations().hear([Event(type="x", traceparent=SENT)])
        await engine.wait(answer)
        assert {ids(span)[0] for span in kept.spans()} == {TRACE}


async def test_a_part_of_the_traces_is_sampled_whole(tmp_path: Path, kept: Kept) -> None:
    engine = Engine(tmp_path / "data", tracing={**ON, "sample": 0.5})

    @engine.job
    async def work(run: RunContext) -> None: ...

    engine.add_trigger("go", job=work, event="x")
    async with engine:
        for _ in range(60):
            await engine.wait(await engine.emit("x"))
        events, runs = kept.spans("event x"), kept.spans("run work")
        assert 10 < len(events) < 50
        assert {ids(span)[0] for span in events} == {ids(span)[0] for span in runs}


# What can go wrong


class Bad(SpanExporter):
    """Fails, or does not come back."""

    def __init__(self, hangs: bool) -> None:
        self.hangs, self.released = hangs, threading.Event()
        self.tried = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.tried.set()
        if self.hangs:
            self.released.wait(20)
        raise ConnectionError("nobody is there")

    def shutdown(self) -> None:
        if self.hangs:
            self.released.wait(20)


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_receiver_that_fails_or_hangs_harms_nothing(
    tmp_path: Path, kept: Kept, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans_module, "CLOSE_S", 0.2)
    exporter = kept.exporter = Bad(hangs)
    engine = Engine(tmp_path / "data", tracing=ON)

    @engine.job
    async def work(run: RunContext) -> None: ...

    engine.add_trigger("go", job=work, event="x")
    try:
        async with engine:
            answers = [await engine.emit("x") for _ in range(20)]
            assert {run.state for run in await engine.wait(*answers)} == {RunState.SUCCEEDED}
    finally:
        exporter.released.set()


def test_where_it_is_off_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    program = """
import asyncio, json, sys
from engine import Engine

engine = Engine(sys.argv[1])

@engine.job
async def work(run):
    return {"traceparent": run.traceparent}

engine.add_trigger("go", job=work, event="x")

async def main():
    async with engine:
        (run,) = await engine.wait(await engine.emit("x"))
        print(json.dumps([run.outputs["traceparent"], run.id, "opentelemetry" in sys.modules]))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=50, check=True
    )
    sent, run_id, imported = json.loads(done.stdout.splitlines()[-1])
    assert sent == plain_traceparent(run_id, 1)
    assert not imported


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('endpoint = "localhost:4318"', "is no URL of http or https"),
        ('endpoint = "http://x/"\nsample = 2', "tracing.sample"),
        ('endpoint = "http://x/"\nservice = ""', "tracing.service"),
        ('endpont = "http://x/"', "unknown key"),
    ],
)
def test_what_is_wrong_in_the_table_is_told(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[tracing]\n{text}\n")
    with pytest.raises(ConfigError, match=expected):
        load([file], environment={})


def test_without_the_extra_check_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.config.tracing.NEEDED", ("no_such_module.sdk",))
    file = tmp_path / "config.toml"
    file.write_text('[tracing]\nendpoint = "http://localhost:4318/v1/traces"\n')
    with pytest.raises(ConfigError, match="needs OpenTelemetry, which is not installed") as caught:
        load([file], environment={})
    assert caught.value.problems[0].hint == "install trigger-engine[otel]"
    file.write_text("[tracing]\n")
    assert load([file], environment={}).tracing.endpoint is None


async def test_the_exporter_that_is_used_speaks_otlp_with_its_headers() -> None:
    exporter = spans_module.exporter_of("http://127.0.0.1:1/v1/traces", {"x-key": "k"})
    assert getattr(exporter, "_endpoint", None) == "http://127.0.0.1:1/v1/traces"
    exporter.shutdown()
