"""A draft: what one event is to become, until that is durable."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from engine.decide.breakers import QUARANTINE_SOURCE, Guarded
from engine.decide.breakers import Place as Guard
from engine.decide.joins import JoinWindow
from engine.decide.marks import Claim, Known, Place
from engine.decide.shaping import Window
from engine.events import Cause, Event, EventOutcome, Outcome, Seen
from engine.runs import Run
from engine.store.changes import Entry, Fill, Join, Memory, Supersede

Admitted = tuple[Event, bytes]
"""An event that was checked at the door, and its data as compact JSON."""


class Notes(Struct):
    """What guards have noted of an event.

    - `guarded`: by breakers; `to_remember`: the quarantines that hold it back and are not durable yet.
    - `looped`: where its chain of runs is too long, in words.
    - `deepened`: the windows whose longest chain is its own, with the causes that they had.
    - `expected`: the triggers and sources where it is one that was expected.
    """

    guarded: list[Guarded] = field(default_factory=list)
    to_remember: dict[str, Any] = field(default_factory=dict)
    looped: list[str] = field(default_factory=list)
    deepened: list[tuple[Window, Cause | None]] = field(default_factory=list)
    expected: list[Guard] = field(default_factory=list)

    def memory(self) -> Memory | None:
        """Return what is to be remembered with it."""
        return Memory(source=QUARANTINE_SOURCE, values=self.to_remember) if self.to_remember else None


class Draft(Struct):
    """What an event is to become, until it is durable: also what has to be undone where it does not.

    What most have none of are tuples: a list for each costs more than all that is decided.
    """

    event: Event
    data: bytes
    outcomes: list[Outcome] = field(default_factory=list)
    runs: list[tuple[Run, Event]] = field(default_factory=list)
    joins: tuple[Join, ...] = ()
    opened: tuple[Window, ...] = ()
    joined: tuple[tuple[Window, datetime, datetime, int], ...] = ()
    """The windows that it joins, when they were due before and are with it, and by how many bytes they grow."""
    parts: tuple[tuple[JoinWindow, str, str], ...] = ()
    """The joins that it is a part of: by which input, and its own id."""
    fills: tuple[Fill, ...] = ()
    supersedes: tuple[Supersede, ...] = ()
    filled: tuple[tuple[str, datetime], ...] = ()
    """The runs that are due earlier with it, as their windows are full or the clock was set back, and since when."""
    claims: tuple[Claim, ...] = ()
    may_start: bool = True
    """Whether a run of it may take a free slot at once."""
    apart: set[str] | None = None
    """On the last try: runs that may not be there, those that this very change makes among them."""
    in_the_way: tuple[str, ...] = ()
    """The runs for which one of it is skipped, or whose place one takes."""
    caught_up: bool = False
    """Whether it makes up for a missed instant."""
    fault: str = ""
    """What went wrong with its priority or its limit's key at the trigger that is decided about."""
    limit_key: str | None = None
    """The value by which the limit of its job holds at the trigger that is decided about."""
    raised: tuple[tuple[Window, int], ...] = ()
    """The windows that it joined, with the priorities that they had."""
    marked: tuple[tuple[Place, Known | None], ...] = ()
    """What was known of the marks that it changes, before it did."""
    past_pause: bool = False
    """Whether its runs start also while the engine is paused."""
    seen: list[Seen] = field(default_factory=list)
    """What the gates of the trigger that is decided on have seen so far."""
    bypass: tuple[str, ...] = ()
    """The gates that its runs pass by when their turn has come."""
    notes: Notes | None = None
    """What guards have noted of it; None for most."""

    def entry(self) -> Entry:
        """Return it as the store takes it."""
        outcomes, runs = tuple(self.outcomes), tuple([run for run, _ in self.runs])
        if not (self.joins or self.in_the_way or self.claims or self.fills or self.supersedes) and self.notes is None:
            return Entry(event=self.event, data=self.data, outcomes=outcomes, runs=runs)
        return Entry(
            event=self.event, data=self.data, outcomes=outcomes, runs=runs, joins=self.joins,
            in_the_way=self.in_the_way, memory=None if self.notes is None else self.notes.memory(),
            claims=self.claims, fills=self.fills, supersedes=self.supersedes,
        )  # fmt: skip

    def noting(self) -> Notes:
        """Return what guards note of it."""
        if self.notes is None:
            self.notes = Notes()
        return self.notes

    def deepened(self, window: Window, event: Event) -> Cause | None:
        """Let a window have the cause of an event that joins it, where its chain is longer; return it then."""
        cause = event.cause
        if cause is None or (window.cause is not None and cause.hops <= window.cause.hops):
            return None
        self.noting().deepened.append((window, window.cause))
        window.cause = cause
        return cause

    def saw(self, gate: str, verdict: str, **values: Any) -> None:
        """Note what a gate of the trigger that is decided on saw, and what it said."""
        self.seen.append(Seen(gate, verdict, values or None))

    def came_by(self, name: str, outcome: Outcome) -> None:
        """Note by which input it came to the run that it is for, where it is one of that's events."""
        if outcome.run is not None and outcome.outcome in (EventOutcome.RUN, EventOutcome.JOINED):
            self.fills += (Fill(run=outcome.run, event=self.event.id, input=name),)

    def told(self, text: str) -> str:
        """Return a sentence with what went wrong with its priority or its key, where something did."""
        return f"{text}; {self.fault}" if self.fault else text

    def add(self, run: Run, event: Event) -> None:
        """Add a new run."""
        if self.apart is not None:
            self.apart.add(run.id)
        self.runs.append((run, event))
