"""How long a run is taken to last, and how that is known."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from engine.runs import RunState
from engine.store.base import TriggerStats
from engine.triggers import Trigger

DEFAULT_DURATION_S = 1.0
"""What a run lasts of which nothing is known."""

_WENT = (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT)


class Origin(StrEnum):
    """How a length is known: somebody gave it, past runs had it on average, or it is the default."""

    GIVEN = "given"
    PAST = "past"
    DEFAULT = "default"


class Length(Struct, frozen=True, kw_only=True):
    """How long runs of one trigger are taken to last.

    `runs` is how many past ones tell so: its own, or with `of_job` those of other triggers with its job.
    """

    seconds: float
    origin: Origin
    runs: int = 0
    of_job: bool = False


class Durations:
    """The lengths by trigger: what is given for the job, else what its own past runs tell, else those of its job."""

    def __init__(self, given: Mapping[str, float], past: Mapping[str, Length] | None = None) -> None:
        """Take lengths that are `given`, in seconds by job, and those of the `past`, by trigger."""
        self._given = given
        self._past = past or {}

    def of(self, trigger: Trigger, triggers: Mapping[str, Trigger]) -> Length:
        """Return how long runs of a trigger last; `triggers` are all of them."""
        if trigger.job in self._given:
            return Length(seconds=self._given[trigger.job], origin=Origin.GIVEN)
        own = self._past.get(trigger.name)
        if own is not None:
            return own
        others = [
            length
            for name, length in self._past.items()
            if (other := triggers.get(name)) is not None and other.job == trigger.job
        ]
        runs = sum(length.runs for length in others)
        if not runs:
            return Length(seconds=DEFAULT_DURATION_S, origin=Origin.DEFAULT)
        mean_s = sum(length.seconds * length.runs for length in others) / runs
        return Length(seconds=mean_s, origin=Origin.PAST, runs=runs, of_job=True)


def past_lengths(stats: Mapping[str, TriggerStats]) -> dict[str, Length]:
    """Return the mean lengths of past runs, by trigger, of those that have had runs."""
    found = {}
    for name, each in stats.items():
        runs = sum(each.by_state.get(state, 0) for state in _WENT)
        if each.duration_mean_s is not None and runs:
            found[name] = Length(seconds=each.duration_mean_s, origin=Origin.PAST, runs=runs)
    return found
