"""A harness for runners: one attempt, executed by the engine's own executor."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.attending import Attendant
from engine.clock import Clock, SystemClock
from engine.decide.rules import Rule
from engine.errors import PluginError
from engine.execution import Executor
from engine.expressions import JOB_NAMES
from engine.ids import new_id
from engine.jobs import Job
from engine.plugin import Event, Outcome, Runner
from engine.runlogs import RunLogs
from engine.runs import Origin, Run, RunState
from engine.shared import Shared
from engine.triggers import Trigger


class RunResult(Struct, frozen=True, kw_only=True):
    """What became of an attempt: its outcome, what it wrote to the run's log, and the processes that it told of."""

    outcome: Outcome
    log: str
    processes: tuple[int, ...] = ()

    @property
    def outputs(self) -> dict[str, Any]:
        """The run's outputs, by name."""
        return dict(self.outcome.outputs or {})


async def run_once(
    runner: Runner, *, data: Any = None, event: Event | None = None, events: Sequence[Event] = (),
    base: Path | None = None, job: str = "job", trigger: str = "trigger", attempt: int = 1,
    scheduled_for: datetime | None = None, clock: Clock | None = None,
) -> RunResult:  # fmt: skip
    """Execute one attempt of a run of `runner` for an event with `data`, for `event`, or for all of `events`.

    The settings' expressions are checked first, as `check` does, and raise BadSetting. What the runner raises is a
    failed outcome, as in the engine. `base` is the directory of the configuration; a temporary one where none is
    given. Cancel the call, as `anyio.move_on_after` does, to see what the runner does on a time-out.
    """
    runner.check(JOB_NAMES)
    clock = clock or SystemClock()
    made = _events(data, event, events, clock)
    rule = Rule(
        Trigger(name=trigger, job=job, source=made[-1].source, on=None), Job(name=job, runner=runner)
    )  # fmt: skip
    run = Run(
        id=new_id(), job=job, trigger=trigger, origin=Origin.EVENT, key=made[-1].id, event=made[-1].id,
        event_count=len(made), state=RunState.RUNNING, code="started", reason="started", priority=5, rank=0,
        attempt=attempt, created_at=clock.now(), started_at=clock.now(), scheduled_for=scheduled_for,
    )  # fmt: skip
    processes: list[int] = []
    shared = Shared()
    with tempfile.TemporaryDirectory(prefix="run-once-") as folder:
        logs = RunLogs(Path(folder) / "logs")
        executor = Executor(
            rules={trigger: rule}, clock=clock, base=base or Path(folder), run_logs=logs, shared=shared
        )  # fmt: skip
        async with anyio.create_task_group() as group:
            await group.start(shared.run)
            try:
                outcome = await executor.execute(run, rule.job, made, _Noting(processes))
            finally:
                shared.close()
        path = logs.path(run.id)
        log = path.read_text("utf-8", "replace") if path.exists() else ""
    return RunResult(outcome=outcome, log=log, processes=tuple(processes))


class _Noting(Attendant):
    """Takes note of processes."""

    __slots__ = ("_processes",)

    def __init__(self, processes: list[int]) -> None:
        self._processes = processes

    def process(self, pid: int) -> None:
        self._processes.append(pid)


def _events(data: Any, event: Event | None, events: Sequence[Event], clock: Clock) -> tuple[Event, ...]:
    """Return the events, with what the engine gives them."""
    given = tuple(events) or (event if event is not None else Event(type="test", data=data),)
    if (data is not None) + (event is not None) + bool(events) > 1:
        raise PluginError("give data, an event or events: one of them")
    now = clock.now()
    return tuple(
        replace(
            one, id=one.id or new_id(), source=one.source or "test:source", time=one.time or now, received_at=now
        )
        for one in given
    )  # fmt: skip
