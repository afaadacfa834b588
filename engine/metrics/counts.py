"""What is counted as it happens, since the process began: events, and how runs end.

A counter of Prometheus begins anew with its process, and whoever asks for a rate or an increase reckons with that. What
has to outlive a restart is in the store: the ledger, the tallies, the reports that are made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from engine.events import Outcome
from engine.metrics.figures import LONG_S, Histogram
from engine.runs import Origin, RunState

OTHERS = "(other)"
"""What stands for all names beyond the bound. No name holds brackets."""

_TOLD_BY_CODE = frozenset({RunState.SKIPPED, RunState.MISSED, RunState.EXPIRED, RunState.CANCELLED})

SENDERS = "api"
"""The kind of all sources that are no plugin's: who sends to the API names itself."""

TIMERS = "timer"

MOST_KNOWN = 1_000
"""Sources whose kinds are remembered; those of the others are found anew each time."""

MOST_CODES = 100
"""Codes of one state that are told apart; the engine's own are fewer, a plugin may make up any number."""


class Names:
    """Gives the first names that come a label of their own, and all others one together.

    A name keeps the label that it got: so no counter ever goes down.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def label(self, name: str) -> str:
        """Return the label of a name."""
        known = self._known.get(name)
        if known is not None:
            return known
        if len(self._known) >= self._most:
            return OTHERS
        self._known[name] = name
        return name


class Counts:
    """Counters of events and runs. `most_names` triggers, and as many jobs, are told apart.

    `kinds` are the names that may stand before the colon of a source's id: those of plugins and of the engine's own
    sources. What a sender calls itself never becomes a label.
    """

    def __init__(self, *, most_names: int, kinds: frozenset[str]) -> None:
        self.triggers, self.jobs, self.sources = Names(most_names), Names(most_names), Names(most_names)
        self._kinds = kinds
        self._kind_of: dict[str, str] = {}
        """Of the first sources that came."""
        self.on_due: Callable[[Sequence[Outcome]], None] = lambda _: None
        """Hears what became of the event of a due instant."""
        self.events: Counter[tuple[str, str]] = Counter()
        """Pairs of an event and a trigger that it met, by the kind of the source and the outcome."""
        self.runs: Counter[tuple[str, str]] = Counter()
        """Ends, by job and state. A missed run counts as the instants that it is the record of."""
        self.codes: Counter[tuple[str, str]] = Counter()
        """Ends without work, by state and code."""
        self.retried: Counter[tuple[str, str]] = Counter()
        """Attempts that were not the last of their runs, by job and how they ended."""
        self.durations: dict[str, Histogram] = {}
        """How long the last attempts of ended runs took, by job."""
        self.lateness: dict[str, Histogram] = {}
        """How long after its due instant a run began, by trigger."""
        self.scheduled: Counter[str] = Counter()
        """Ends of runs of due instants, by state."""
        self.scheduled_durations = Histogram(LONG_S)
        self._codes_of: Counter[str] = Counter()

    def met(self, source: str, outcomes: Sequence[Outcome]) -> None:
        """Count an event that is durable now, with what became of it at each trigger."""
        kind = self._kind_of.get(source) or self._look_up(source)
        for outcome in outcomes:
            self.events[kind, outcome.outcome._value_] += 1
        if kind == TIMERS:
            self.on_due(outcomes)

    def _look_up(self, source: str) -> str:
        kind, colon, rest = source.partition(":")
        if kind not in self._kinds or (colon and rest.startswith("//")):
            return SENDERS
        if len(self._kind_of) < MOST_KNOWN:
            self._kind_of[source] = kind
        return kind

    def ended(
        self, job: str, state: RunState, code: str, origin: Origin, duration_s: float | None, count: int = 1
    ) -> None:
        """Count the end of a run, or `count` of them at once."""
        label = self.jobs.label(job)
        self.runs[label, state._value_] += count
        if duration_s is not None:
            known = self.durations.get(label)
            if known is None:
                known = self.durations[label] = Histogram(LONG_S)
            known.add(duration_s)
        if state in _TOLD_BY_CODE:
            self._count_code(state._value_, code, count)
        if origin is Origin.SCHEDULE:
            self.scheduled[state._value_] += count
            if duration_s is not None:
                self.scheduled_durations.add(duration_s)

    def tried_again(self, job: str, state: RunState) -> None:
        """Count an attempt that ended so, and after which another one is to come."""
        self.retried[self.jobs.label(job), state._value_] += 1

    def attempts(self) -> Counter[str]:
        """Return how many attempts ended, by job: the last one of each run, and those before it."""
        found = Counter({job: took_s.count for job, took_s in self.durations.items()})
        for (job, _), count in self.retried.items():
            found[job] += count
        return found

    def began(self, trigger: str, late_s: float) -> None:
        """Count how late the run of a due instant began."""
        label = self.triggers.label(trigger)
        known = self.lateness.get(label)
        if known is None:
            known = self.lateness[label] = Histogram(LONG_S)
        known.add(late_s)

    def _count_code(self, state: str, code: str, count: int) -> None:
        key = (state, code)
        if key not in self.codes:
            if self._codes_of[state] >= MOST_CODES:
                key = (state, OTHERS)
            else:
                self._codes_of[state] += 1
        self.codes[key] += count
