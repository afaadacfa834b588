"""Leftovers: what becomes of the runs that were running when the engine died, or let them go on without it.

It is done before anything is started. What is to outlive the engine, and does, is adopted: it has its slot from then
on. The processes of all others are ended, and what becomes of their runs is recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from engine.clock import Clock
from engine.decide.attempts import after_crash
from engine.jobs import Job, OnCrash
from engine.processes import end_leftovers
from engine.runs import ADOPTED, CANCELLING, Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import Adopt, Finish

log = logging.getLogger("engine")

MOST_NAMED = 5
"""So many of the runs that a crash left running are named in the log."""


class Writer(Protocol):
    """What settling them needs of the journal."""

    def submit(self, change: Adopt, /) -> Any: ...


async def settle_leftovers(
    store: Store, *, boot: str, clock: Clock, jobs: Mapping[str, Job], mark: str, ageing_s: float, journal: Writer,
    finish: Callable[[Run, Finish], Any], is_kept: Callable[[Run, Job], bool], adopt: Callable[[Run], None],
    ended: Callable[[str], None],
) -> None:  # fmt: skip
    """Settle all running runs, durably; see `end_leftovers` for `mark`.

    `is_kept` tells whether an attempt can be taken up, `adopt` takes it up, and `ended` is told of the others.
    """
    # Those of the engines before, by their boots: this one has taken the store over from all of them.
    running = [run for run in await store.running() if run.boot != boot]
    if not running:
        return
    kept = [run for run in running if (job := jobs.get(run.job)) is not None and _may_go_on(run, job, is_kept)]
    await _adopt(kept, boot, clock, journal, adopt)
    goes_on = {run.id for run in kept}
    left = [run for run in running if run.id not in goes_on]
    if not left:
        return
    processes = {run.id: (run.process, run.process_started) for run in left}
    found = await end_leftovers(processes, mark=mark, clock=clock)
    now = clock.now()
    futures = []
    named: list[str] = []
    for run in left:
        job = jobs.get(run.job)
        on_crash = job.on_crash if job is not None else OnCrash.RETRY
        end = after_crash(run, on_crash, now, len(found.get(run.id, ())), ageing_s)
        futures.append(finish(run, Finish.of(run.id, end)))
        ended(run.id)
        named.append(f"{run.id} of job {run.job} ({end.step.state})")
    for future in futures:
        await future
    log.warning(
        "Settled %s running when the engine died: %s",
        "1 run that was" if len(left) == 1 else f"{len(left)} runs that were", _few(named),
        extra={"action": "settled"},
    )  # fmt: skip


def _may_go_on(run: Run, job: Job, is_kept: Callable[[Run, Job], bool]) -> bool:
    # What somebody asked to cancel is ended, whatever its job says.
    return job.on_crash is OnCrash.ADOPT and run.code != CANCELLING and is_kept(run, job)


async def _adopt(
    runs: Sequence[Run], boot: str, clock: Clock, journal: Writer, adopt: Callable[[Run], None]
) -> None:  # fmt: skip
    if not runs:
        return
    reason = "adopted: it went on while the engine was away"
    step = Step(at=clock.now(), state=RunState.RUNNING, code=ADOPTED, reason=reason)
    futures = [journal.submit(Adopt(run=run.id, step=step, boot=boot)) for run in runs]
    for run in runs:
        adopt(run)
    for future in futures:
        await future
    log.info(
        "Adopted %s: %s", "1 run" if len(runs) == 1 else f"{len(runs)} runs",
        _few([f"{run.id} of job {run.job}" for run in runs]), extra={"action": "adopted"},
    )  # fmt: skip


def _few(named: Collection[str]) -> str:
    shown = ", ".join(list(named)[:MOST_NAMED])
    return f"{shown} and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else shown
