"""What follows from the end of a run: the triggers that are on it, and the event by which they run.

The event is of the type `engine.run.<outcome>`, of the source `job:<name>`, and its key is the run's id: a run
ends once, so there is one such event. It is made only where a trigger is on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from engine.clock import rfc3339
from engine.decide.rules import Rule, one_each
from engine.events import Event
from engine.jobs import Job
from engine.plugin import OUTCOMES, RunEnd, Source
from engine.runs import Run, RunState
from engine.store.changes import End, Finish

log = logging.getLogger("engine.following")

TYPE_PREFIX = "engine.run."
JOB_SOURCE = "job"
"""The source of the event is this and the job's name."""

_SAID = {
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.TIMED_OUT: "timed out",
    RunState.CANCELLED: "was cancelled",
    RunState.SKIPPED: "was skipped",
    RunState.EXPIRED: "expired",
}


class Followers:
    """Which triggers are on which ends of runs.

    `sources` are the ids and settings of the sources that follow runs, `rules` the triggers and `jobs` the jobs that
    there are; `add` and `remove` say what comes and goes. Each source is asked once for a job, trigger and outcome;
    from then on that is one look into a dictionary, until something changes.
    """

    def __init__(
        self, sources: Sequence[tuple[str, Source]], rules: Mapping[str, Rule], jobs: Mapping[str, Job]
    ) -> None:
        self._sources = dict(sources)
        self._jobs = jobs
        self._by_source: dict[str, dict[str, Rule]] = {}
        for rule in rules.values():
            for source, way in rule.by_source().items():
                self._by_source.setdefault(source, {})[rule.trigger.name] = way
        self._known: dict[tuple[str, str, RunState], tuple[Rule, ...]] = {}

    def add(self, rule: Rule) -> None:
        """Take in a trigger: it follows the ends that are handed in from now on."""
        for source, way in rule.by_source().items():
            self._by_source.setdefault(source, {})[rule.trigger.name] = way
        for source, on in rule.trigger.works_on:
            if isinstance(on, Source) and on.follows_runs:
                self._sources.setdefault(source, on)
        self.ask_anew()

    def remove(self, rule: Rule) -> None:
        """Forget a trigger, and its source where no other one on it works."""
        for source in rule.by_source():
            left = self._by_source[source]
            del left[rule.trigger.name]
            if not any(other.trigger.works for other in left.values()):
                self._sources.pop(source, None)
            if not left:
                del self._by_source[source]
        self.ask_anew()

    def ask_anew(self) -> None:
        """Forget what the sources answered, as jobs or triggers are others."""
        self._known.clear()

    def of(self, run: Run, state: RunState) -> tuple[Rule, ...]:
        """Return the triggers that are on a run's coming to `state`, by name; none where that is no end."""
        return self.on(run.job, run.trigger, state)

    def on(self, job: str, trigger: str, state: RunState) -> tuple[Rule, ...]:
        """Return the triggers that are on the coming to `state` of runs of a job that a trigger makes."""
        if not self._sources:
            return ()
        kind = (job, trigger, state)
        found = self._known.get(kind)
        if found is None:
            found = self._known[kind] = self._ask(*kind)
        return found

    def _ask(self, job: str, trigger: str, state: RunState) -> tuple[Rule, ...]:
        if state not in OUTCOMES:
            return ()
        known = self._jobs.get(job)
        tags = frozenset(known.tags if known is not None else ())
        end = RunEnd(job=job, trigger=trigger, outcome=state, tags=tags)
        found: list[Rule] = []
        for source_id, source in self._sources.items():
            try:
                follows = source.follows(end)
            except Exception:  # follows is plugin code
                log.exception("Source %s raised on the end of a run", source_id, extra={"action": "source_raised"})
                continue
            if follows:
                found.extend(self._by_source.get(source_id, {}).values())
        return tuple(one_each(sorted(found, key=lambda rule: rule.trigger.name)))


def end_event(run: Run, end: Finish | End, *, without_outputs: str | None = None) -> Event:
    """Return the event of a run's end. `without_outputs` says why its outputs are left out."""
    step = end.step
    attempts, exit_code, outputs, duration_s = run.attempt, run.exit_code, run.outputs, None
    if isinstance(end, Finish):
        attempts, exit_code, outputs = end.attempt_count, end.attempt.exit_code, end.outputs
        duration_s = (end.attempt.finished_at - end.attempt.started_at).total_seconds()
    data: dict[str, Any] = {
        "job": run.job,
        "outcome": step.state.value,
        "outputs": outputs if without_outputs is None else None,
        "outputs_left_out": without_outputs,
        "run": run.id,
        "trigger": run.trigger,
        "origin": run.origin.value,
        "code": step.code,
        "reason": step.reason,
        "exit_code": exit_code,
        "attempts": attempts,
        "duration_s": duration_s,
        "event": run.event,
        "scheduled_for": None if run.scheduled_for is None else rfc3339(run.scheduled_for),
    }
    return Event(type=f"{TYPE_PREFIX}{step.state.value}", subject=run.id, key=run.id, time=step.at, data=data)


def end_sentence(run: Run, end: Finish | End) -> str:
    """Say which run ended, and how."""
    return f"run {run.id} of job {run.job} {_SAID[end.step.state]}"
