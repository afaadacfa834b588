"""`lists`: how long the first page of each list takes, with 100,000 runs and events, 10,000 triggers, and much beside.

Each list is asked for over HTTP, plainly and narrowed to what is rare or not there at all. Beside it stands the store's
own look at nothing: `/live`.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.audits import Audit, AuditOutcome
from engine.clock import to_microseconds
from engine.deliveries import Delivery, DeliveryState
from engine.events import Event, EventOutcome, Outcome
from engine.ids import first_id_at, new_id
from engine.runs import Origin, Run, RunState, Step
from engine.store.changes import Accept, End, Entry
from engine.store.sqlite import SqliteStore
from engine.tokens import Role, Token
from tests.bench.processes import TOKEN, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report
from tests.bench.wire import Wire

RUNS, QUICK_RUNS = 100_000, 2_000
ROWS, QUICK_ROWS = 20_000, 400
TOKENS = 500
"""Rows of the audit log, as many deliveries, and tokens."""

TRIGGERS, QUICK_TRIGGERS = 10_000, 200
JOBS = 100
ASKED = 15
LIMIT_MS = 50.0

LISTS = (
    "/api/v1/runs", "/api/v1/runs?state=failed", "/api/v1/runs?job=nobody", "/api/v1/runs?tag=rare",
    "/api/v1/runs?text=nowhere-to-be-found", "/api/v1/events", "/api/v1/events?type=nothing",
    "/api/v1/events?tag=rare", "/api/v1/triggers", "/api/v1/triggers?state=paused",
    "/api/v1/triggers?tag=rare&text=t9", "/api/v1/triggers/t00001/runs", "/api/v1/jobs", "/api/v1/sources",
    "/api/v1/queue", "/api/v1/deliveries", "/api/v1/deliveries?state=failed", "/api/v1/backfills", "/api/v1/presets",
    "/api/v1/alerts", "/api/v1/audit", "/api/v1/audit?who=nobody", "/api/v1/tokens", "/api/v1/conditions",
    "/api/v1/pools", "/api/v1/maintenance", "/api/v1/backups", "/api/v1/adherence", "/api/v1/logs/levels",
)  # fmt: skip


def measure(options: Options) -> Report:
    """Fill a store, start an engine on it, and ask for each list."""
    runs, triggers = (QUICK_RUNS, QUICK_TRIGGERS) if options.quick else (RUNS, TRIGGERS)
    rows = QUICK_ROWS if options.quick else ROWS
    folder = options.folder / "lists"
    (folder / "data").mkdir(parents=True)
    asyncio.run(_fill(folder / "data" / "engine.db", runs, triggers, rows))
    server = start_engine(folder, _configuration(triggers))
    try:
        with Wire(server.port) as wire:
            live = [_ask(wire, "/live") for _ in range(options.rounds)]
            took = {target: [_ask(wire, target) for _ in range(options.rounds)] for target in LISTS}
    finally:
        server.stop()
    figures = [
        Figure(title=target, unit="ms", values=values, baselines=live, target=f"< {LIMIT_MS:g} ms")
        for target, values in took.items()
    ]
    figures.sort(key=lambda figure: figure.value, reverse=True)
    return Report(bench="lists", figures=figures, extra={"slowest": figures[0].title})


def _ask(wire: Wire, target: str) -> float:
    """Return the median time of an answer, in milliseconds."""
    took = []
    for _ in range(ASKED):
        began_s = time.perf_counter()
        status, body = wire.ask("GET", target, token=TOKEN)
        took.append((time.perf_counter() - began_s) * 1000)
        if status != 200:
            raise BenchFailed(f"GET {target}: {status}")
        if target.startswith("/api/") and not isinstance(json.loads(body), dict):
            raise BenchFailed(f"GET {target}: no list")
    return sorted(took)[ASKED // 2]


def _configuration(triggers: int) -> str:
    parts = ['http.listen = "127.0.0.1:{port}"\n']
    parts += [f'[jobs.j{number}]\nrun.exec = ["true"]\n' for number in range(JOBS)]
    for number in range(triggers):
        tag = "rare" if number % 1000 == 7 else "usual"
        parts.append(f'[triggers.t{number:05}]\non.manual = {{}}\njob = "j{number % JOBS}"\ntags = ["{tag}"]\n')
    return "".join(parts)


async def _fill(path: Path, runs: int, triggers: int, rows: int) -> None:
    store = SqliteStore(path)
    await store.open()
    for first in range(0, runs, 1000):
        made = [_entry(number, triggers) for number in range(first, min(first + 1000, runs))]
        results = await store.apply([Accept(entries=tuple(one for one, _ in made)), *[end for _, end in made]])
        if any(isinstance(result, Exception) for result in results):
            raise BenchFailed(f"the store can't be filled: {results[0]}")
    await _fill_beside(store, rows)
    await store.close()


async def _fill_beside(store: SqliteStore, rows: int) -> None:
    """Fill what grows beside events and runs: deliveries, the audit log, tokens."""
    now = datetime.now(UTC)
    for first in range(0, rows, 1000):
        numbers = range(first, min(first + 1000, rows))
        changes = [Accept(entries=(), deliveries=(_delivery(number, now),)) for number in numbers]
        notes = {
            place: Audit(
                at=to_microseconds(now), action="POST /api/v1/pause", outcome=AuditOutcome.DONE, who=f"who{number % 9}",
                before={"number": number},
            )
            for place, number in enumerate(numbers)
        }  # fmt: skip
        if any(isinstance(result, Exception) for result in await store.apply(changes, notes)):
            raise BenchFailed("the store can't be filled")
    tokens = tuple(
        Token(
            id=new_id(), name=f"token{number}", role=Role.VIEWER, digest=number.to_bytes(32, "big"), prefix="te_",
            created_at=now,
        )
        for number in range(TOKENS)
    )  # fmt: skip
    await store.apply([Accept(entries=(), keep_tokens=tokens)])


def _delivery(number: int, now: datetime) -> Delivery:
    return Delivery(
        id=new_id(), target=f"notify:n{number % 9}", run="alert:disk", job="", event="opened", created_at=now,
        message={"text": f"number {number}"}, state=DeliveryState.DELIVERED, code="delivered", reason="it is delivered",
        finished_at=now,
    )  # fmt: skip


def _entry(number: int, triggers: int) -> tuple[Entry, End]:
    at = datetime.now(UTC) - timedelta(hours=10) + timedelta(milliseconds=number * 10)
    name = f"{first_id_at(at)}-7000-8000-{number:012x}"
    trigger = number % triggers
    event = Event(id=name, type="manual", source="manual", subject=f"t{trigger:05}", received_at=at, time=at, key=name)
    run = Run(
        id=name, trigger=f"t{trigger:05}", job=f"j{trigger % JOBS}", event=name, origin=Origin.MANUAL,
        state=RunState.QUEUED, code="ready", reason="it is ready", created_at=at, key=name, priority=5, rank=number,
        trace=(Step(at=at, state=RunState.QUEUED, code="ready", reason="it is ready"),),
    )  # fmt: skip
    outcome = Outcome(trigger=run.trigger, outcome=EventOutcome.RUN, run=name, code="matched", reason="it matched")
    step = Step(at=at, state=RunState.CANCELLED, code="cancelled", reason="for the bench")
    return Entry(event=event, data=b'{"n": 1}', outcomes=(outcome,), runs=(run,)), End(run=name, step=step)
