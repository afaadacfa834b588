"""A question, its simulation, and the answer as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.foresight.durations import Durations, Length, Origin
from engine.foresight.load import Hour, Window
from engine.foresight.questions import Question
from engine.foresight.simulation import Simulation, World
from engine.foresight.tally import NOTABLE, Counts, Item, Tally
from engine.units import format_span

_COUNTED = (
    "due", "runs", "waited", "caught_up", "skipped", "replaced", "cancelled", "missed", "paused", "rejected",
    "quarantined", "filtered", "deduplicated", "rate_limited", "joined", "interrupted", "timed_out", "running",
    "unfinished",
)  # fmt: skip


class Forecast:
    """The answer to a question, in the making. `past` are the lengths of past runs by trigger; `see` gets every item.

    `go_on` raises TooMany where more than `most` instants come due.
    """

    def __init__(
        self, question: Question, world: World, past: Mapping[str, Length], *, most: int,
        see: Callable[[Item], None] | None = None,
    ) -> None:  # fmt: skip
        self._question = question
        self._world = world
        self._only = question.only(world)
        start_us, end_us = to_microseconds(question.start), to_microseconds(question.end)
        self._tally = Tally(start_us, end_us, first=question.first, see=see, only=self._only)
        self._simulation = Simulation(
            world, Durations(question.durations, past if question.past else {}), question.start, question.end,
            tally=self._tally, most=most, downtimes=question.downtimes,
        )  # fmt: skip

    def go_on(self, instants: int) -> bool:
        """Go on until so many more instants have come due; return whether all have."""
        return self._simulation.go_on(instants)

    def view(self) -> dict[str, Any]:
        """Return the answer, once all is foreseen."""
        question, world, tally = self._question, self._world, self._tally
        told = [counts for name, counts in tally.counts.items() if self._only is None or name in self._only]
        foreseen = [counts for counts in told if counts.course.unforeseen is None]
        windows = [] if question.quiet_s is None else tally.load.quietest(question.quiet_s, question.windows)
        return {
            "from": rfc3339(question.start),
            "to": rfc3339(question.end),
            "timezone": world.timezone,
            "concurrency": world.concurrency,
            "instants": self._simulation.instants,
            "total": {name: sum(getattr(each, name) for each in told) for name in _COUNTED},
            "peak": {
                "running": tally.most_running,
                "running_at": _at(tally.most_running_us) if tally.most_running else None,
                "waiting": tally.most_waiting,
                "waiting_at": _at(tally.most_waiting_us) if tally.most_waiting else None,
            },
            "assumed": list(self._assumptions(told)),
            "triggers": [_trigger_view(counts) for counts in foreseen],
            "not_foreseen": [
                {"name": counts.course.trigger.name, "reason": counts.course.unforeseen}
                for counts in told
                if counts.course.unforeseen is not None
            ],
            "examples": {kind: tally.examples[kind] for kind in NOTABLE if tally.examples[kind]},
            "hours": [_hour_view(hour) for hour in tally.load.hours(world.timezone)],
            "maintenance": self._simulation.openings(),
            "quiet": [_window_view(window) for window in windows],
            "quiet_alike": question.quiet_s is not None and tally.load.are_alike(question.quiet_s),
        }

    def _assumptions(self, told: list[Counts]) -> list[str]:
        """Say what the answer rests on and nobody knows."""
        said = ["It begins with an idle engine, all runs succeed, and only what comes due by time is counted."]
        unknown = sorted({
            counts.course.job.name
            for counts in told
            if counts.course.unforeseen is None and counts.course.length.origin is Origin.DEFAULT
        })  # fmt: skip
        if unknown:
            default = next(c.course.length for c in told if c.course.length.origin is Origin.DEFAULT)
            said.append(
                f"Nobody knows how long these jobs run, so {format_span(default.seconds)}: {', '.join(unknown)}."
            )
        said += [
            f"The engine is down from {rfc3339(down.start)} to {rfc3339(down.end)}."
            for down in self._question.downtimes
        ]
        return said


def _trigger_view(counts: Counts) -> dict[str, Any]:
    course = counts.course
    return {
        "name": course.trigger.name,
        "job": course.job.name,
        **{name: getattr(counts, name) for name in _COUNTED},
        "wait_mean_s": counts.wait_us / counts.waited / 1e6 if counts.waited else 0.0,
        "wait_longest_s": counts.longest_us / 1e6,
        "wait_longest_at": _at(counts.longest_at_us) if counts.waited else None,
        "waits_for": counts.waits_for,
        "duration": {
            "seconds": course.length.seconds, "origin": course.length.origin.value, "runs": course.length.runs,
            "of_job": course.length.of_job,
        },
        "busy_s": counts.busy_us / 1e6,
    }  # fmt: skip


def _hour_view(hour: Hour) -> dict[str, Any]:
    return {
        "at": rfc3339(hour.at), "local": hour.at.isoformat(), "due": hour.due, "busy_s": hour.busy_s, "part": hour.part
    }  # fmt: skip


def _window_view(window: Window) -> dict[str, Any]:
    return {
        "from": rfc3339(window.start), "to": rfc3339(window.end), "due": window.due, "busy_s": window.busy_s
    }  # fmt: skip


def _at(at_us: int) -> str:
    return rfc3339(from_microseconds(at_us))
