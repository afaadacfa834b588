"""A draft: what one event is to become, until that is durable."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from engine.decide.marks import Claim, Known, Place
from engine.decide.shaping import Window
from engine.events import Event, Outcome, Seen
from engine.runs import Run
from engine.store.changes import Entry, Join

Admitted = tuple[Event, bytes]
"""An event that was checked at the door, and its data as compact JSON."""


class Draft(Struct):
    """What an event is to become, until it is durable: also what has to be undone where it does not."""

    event: Event
    data: bytes
    outcomes: list[Outcome] = field(default_factory=list)
    runs: list[tuple[Run, Event]] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    opened: list[Window] = field(default_factory=list)
    joined: list[tuple[Window, datetime, datetime, int]] = field(default_factory=list)
    """The windows that it joins, when they were due before and are with it, and by how many bytes they grow."""
    filled: list[tuple[str, datetime]] = field(default_factory=list)
    """The runs whose windows are full with it, and since when."""
    claims: list[Claim] = field(default_factory=list)
    may_start: bool = True
    """Whether a run of it may take a free slot at once."""
    apart: set[str] | None = None
    """On the last try: runs that may not be there, those that this very change makes among them."""
    in_the_way: list[str] = field(default_factory=list)
    """The runs for which one of it is skipped, or whose place one takes."""
    caught_up: bool = False
    """Whether it makes up for a missed instant."""
    fault: str = ""
    """What went wrong with its priority or its limit's key at the trigger that is decided about."""
    limit_key: str | None = None
    """The value by which the limit of its job holds at the trigger that is decided about."""
    raised: list[tuple[Window, int]] = field(default_factory=list)
    """The windows that it joined, with the priorities that they had."""
    marked: list[tuple[Place, Known | None]] = field(default_factory=list)
    """What was known of the marks that it changes, before it did."""
    past_pause: bool = False
    """Whether its runs start also while the engine is paused."""
    seen: list[Seen] = field(default_factory=list)
    """What the gates of the trigger that is decided on have seen so far."""
    bypass: tuple[str, ...] = ()
    """The gates that its runs pass by when their turn has come."""

    def entry(self) -> Entry:
        """Return it as the store takes it."""
        return Entry(
            event=self.event, data=self.data, outcomes=tuple(self.outcomes),
            runs=tuple([run for run, _ in self.runs]), joins=tuple(self.joins), in_the_way=tuple(self.in_the_way),
            claims=tuple(self.claims),
        )  # fmt: skip

    def saw(self, gate: str, verdict: str, **values: Any) -> None:
        """Note what a gate of the trigger that is decided on saw, and what it said."""
        self.seen.append(Seen(gate, verdict, values or None))

    def told(self, text: str) -> str:
        """Return a sentence with what went wrong with its priority or its key, where something did."""
        return f"{text}; {self.fault}" if self.fault else text

    def add(self, run: Run, event: Event) -> None:
        """Add a new run."""
        if self.apart is not None:
            self.apart.add(run.id)
        self.runs.append((run, event))
