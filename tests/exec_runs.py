"""Runs of programs for tests: a context as the engine makes one, and waiting for what processes do."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anyio

from engine.ids import new_id
from engine.plugin import Clock, Event, Outcome, Scope, SystemClock
from engine.shared import Shared
from engine.traces import plain_traceparent
from plugins.runners.exec import Exec

T = TypeVar("T")

AT = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


class FastClock:
    """The machine's clock, fifty times as fast: ten seconds of grace are over in a fifth of one."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() * 50

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds / 50)


@dataclass
class Context:
    """A run of its own directory, as the engine offers it to a runner."""

    base: Path
    event: Event
    events: tuple[Event, ...]
    scope: Scope
    run_id: str = field(default_factory=new_id)
    job: str = "import-csv"
    trigger: str = "nightly"
    attempt: int = 1
    scheduled_for: datetime | None = None
    clock: Clock = field(default_factory=SystemClock)
    log: logging.LoggerAdapter[logging.Logger] = field(
        default_factory=lambda: logging.LoggerAdapter(logging.getLogger("test.exec"), {})
    )
    started: list[int] = field(default_factory=list)

    held: Shared = field(default_factory=Shared)
    marks: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    noted: Any = None
    keep_path: str | None = None
    let_go: bool = False
    usage: list[tuple[float | None, int | None]] = field(default_factory=list)

    @property
    def traceparent(self) -> str:
        return plain_traceparent(self.run_id, self.attempt)

    def __post_init__(self) -> None:
        self.marks = {"ENGINE_RUN_ID": self.run_id, "TEST_BOOT": "boot-1"}

    def open_log(self) -> int:
        return os.open(self.base / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def output_path(self) -> str:
        return str(self.base / "outputs")

    def process_started(self, pid: int) -> None:
        self.started.append(pid)

    async def note(self, value: Any) -> None:
        self.noted = value

    def used(
        self, cpu_s: float | None, peak_bytes: int | None, *, ended_at: datetime | None = None
    ) -> None:  # fmt: skip
        self.usage.append((cpu_s, peak_bytes))

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        return await self.held.get(key, make)

    def logged(self) -> str:
        return (self.base / "log").read_text()


def context(base: Path, data: Any = None, **fields: Any) -> Context:
    event = Event(
        type="file.created", subject="a.csv", data=data, key="k1", priority=5,
        id=new_id(), source="files:inbox", time=AT, received_at=AT + timedelta(seconds=1),
    )  # fmt: skip
    names = {
        "event": {"type": event.type},
        "data": data,
        "job": "import-csv",
        "trigger": "nightly",
        "now": AT,
    }
    return Context(base=base, **{"event": event, "events": (event,), "scope": Scope(names), **fields})


def program(text: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import json, os, sys\n{text}", *arguments)


async def run(base: Path, *command: str, data: Any = None, **settings: Any) -> tuple[Outcome, Context]:
    made = context(base, data)
    with anyio.fail_after(20):
        return await Exec(command=command, **settings).run(made), made


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what other processes do makes no event
            await anyio.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def cancelled(base: Path, script: str, pids: int, clock: Clock) -> tuple[Context, list[int]]:
    """Run a shell script that writes pids to `pids` until there are some, then cancel it and wait."""
    made = context(base, clock=clock)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(Exec(command=("sh", "-c", script)).run, made)
            await until(lambda: len(pids_in(base / "pids")) == pids)
            group.cancel_scope.cancel()
    return made, pids_in(base / "pids")
