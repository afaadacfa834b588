"""The organ: it decides what goes with the end of a run, in its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from engine.aftermath.messages import event_of, masked, told_of
from engine.aftermath.series import AllSeries, Series
from engine.deliveries import CALLBACK, NOTIFY, RECOVERED, Delivery, DeliveryState, Receiver
from engine.ids import new_id
from engine.jobs import Job
from engine.logs import Masker
from engine.runnotes import SOURCE, RunNotes
from engine.runs import Run, RunState
from engine.store.base import Store
from engine.store.changes import Accept, End, Finish, Memory


class Line(Protocol):
    """What delivers: it knows how much waits for whom."""

    def join(self, target: str) -> str | None:
        """Take note of one more that waits for a target; say why it can't where too many do."""
        ...

    def stored(self, *, well: bool) -> None:
        """Take note that what joined is durable, or was refused."""
        ...


class Counts(Protocol):
    """What counts the ends of runs."""

    def ended(self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None) -> object:
        """Count the end of a run."""
        ...


class Aftermath:
    """Decides what goes with an end: who is told of it, what its run noted is forgotten; and has it counted.

    `jobs` are those that there are, as they are now; `receivers` the tables `[notify.NAME]`. `secrets` are hidden in
    what is told. `pausing` says that the trigger of a run is paused for its end, where that is so.
    """

    def __init__(
        self, *, notes: RunNotes, jobs: Mapping[str, Job], receivers: Mapping[str, Receiver], line: Line,
        counts: Counts, secrets: Collection[str] = (), pausing: Callable[[Run], str | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._pausing = pausing
        self._notes = notes
        self._jobs = jobs
        self._receivers = receivers
        self._line = line
        self._counts = counts
        self._mask = masked(Masker(secrets).mask)
        self._series = AllSeries()

    async def load(self, store: Store) -> None:
        """Read which jobs fail now; raise StoreError."""
        await self._series.load(store)

    def of(self, run: Run, end: Finish | End) -> Accept | None:
        """Return what is stored with the end of a run; None where that is nothing."""
        step = end.step
        took_s = None
        if isinstance(end, Finish):
            took_s = (end.attempt.finished_at - end.attempt.started_at).total_seconds()
        self._counts.ended(run, step.state, step.code, step.at, took_s)
        forgotten = self._notes.forgetting(run.id)
        job = self._jobs.get(run.job)
        if forgotten is None and (job is None or (job.notify is None and job.callback is None)):
            return None
        remembered: dict[str, Any] = dict(forgotten or {})
        deliveries: tuple[Delivery, ...] = ()
        if job is not None:
            series = None
            if job.notify is not None:
                series, changed = self._series.note(job.name, step.state, step.at)
                remembered |= changed
            deliveries = tuple(self._deliveries(job, run, end, series))
        if not remembered and not deliveries:
            return None
        memory = Memory(source=SOURCE, values=remembered) if remembered else None
        return Accept(entries=(), memory=memory, deliveries=deliveries)

    def note(self, run: Run) -> None:
        """Count a run that ended as it was made: it was missed, or skipped at once."""
        self._counts.ended(run, run.state, run.code, run.finished_at or run.created_at, None)

    def settled(self, stored: asyncio.Future[Any]) -> None:
        """Take note that what `of` returned is durable, or was refused with the end."""
        self._line.stored(well=not stored.cancelled() and stored.exception() is None)

    def _deliveries(self, job: Job, run: Run, end: Finish | End, series: Series | None) -> list[Delivery]:
        state = end.step.state
        made: list[Delivery] = []
        callback, notify = job.callback, job.notify
        if callback is not None and state.value in callback.on:
            told = told_of(run, end, None, self._mask)
            made.append(self._delivery(f"{CALLBACK}{job.name}", run, state.value, told, end.step.at))
        if notify is not None:
            recovered = series if RECOVERED in notify.on else None
            if recovered is not None or state.value in notify.on:
                told = told_of(run, end, recovered, self._mask, self._pausing(run))
                made += [
                    self._delivery(f"{NOTIFY}{name}", run, event_of(state, recovered), told, end.step.at)
                    for name in notify.to
                    if (receiver := self._receivers.get(name)) is not None and receiver.enabled
                ]
        return made

    def _delivery(self, target: str, run: Run, event: str, told: Mapping[str, Any], now: datetime) -> Delivery:
        full = self._line.join(target)
        if full is None:
            return Delivery(
                id=new_id(), target=target, run=run.id, job=run.job, event=event, created_at=now, message=told,
                due_at=now,
            )  # fmt: skip
        return Delivery(
            id=new_id(), target=target, run=run.id, job=run.job, event=event, created_at=now, message=told,
            state=DeliveryState.FAILED, code="line_full", reason=f"not tried: {full}", finished_at=now,
        )  # fmt: skip
