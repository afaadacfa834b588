"""What people ask of runs, as dispatch does it; see `Hands` in `engine.steering`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct

from engine.decide.shaping import Windows
from engine.dispatch.active import Active
from engine.dispatch.line import Line
from engine.dispatch.moving import Moving
from engine.gates import Gates
from engine.overlaps import Overlaps
from engine.queue import Timeline
from engine.runs import ENDED, Run, RunState, Step


class Places(Struct, frozen=True, kw_only=True):
    """Where runs can be that dispatch knows of."""

    active: Mapping[str, Active]
    moving: Moving
    line: Line
    timeline: Timeline
    windows: Windows
    gates: Gates
    overlaps: Overlaps


class RunHands:
    """Takes runs out of where they are and puts them back, and cuts off those that run.

    - `offer`, `wait`: take in a run that is queued, or waits for its time.
    - `cancel`: ends an attempt; `cancelled` has those that are stored as running and about to be launched.
    - `on_end`: hears of a run that is put back as ended; `on_change` that something about a run is another thing now.
    """

    def __init__(
        self, places: Places, *, offer: Callable[[Run, None], None], wait: Callable[[Run], None],
        cancel: Callable[[Active, str], None], cancelled: dict[str, str], on_end: Callable[[Run, Step], None],
        on_change: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._at = places
        self._offer = offer
        self._wait = wait
        self._cancel = cancel
        self._cancelled = cancelled
        self._on_end = on_end
        self._on_change = on_change

    async def settled(self, run_id: str) -> None:
        """Return when a run is not on its way from one state to the next."""
        while True:
            active = self._at.active.get(run_id)
            if active is not None and active.start is not None and not active.start.done():
                await asyncio.wait([active.start])
            elif run_id in self._at.moving:
                await self._at.moving.one_arrives()
            else:
                return

    def has_moved(self, run: Run) -> bool:
        """Tell whether a run moves, or has, since it was read."""
        return run.id in self._at.moving or (run.id in self._at.active and run.state is not RunState.RUNNING)

    def take_out(self, run: Run, *, for_good: bool) -> None:
        """Take a waiting run from where it waits: until `put_back` nothing starts it.

        With `for_good` it does not gather events any more.
        """
        at = self._at
        at.moving.add(run.id)
        if for_good and (window := at.windows.of_run(run.id)) is not None:
            at.windows.close(window)
        at.line.remove(run)
        at.timeline.remove(run.id)
        at.gates.take_out(run.id)

    def put_back(self, run: Run) -> None:
        """Take in a run that was taken out, as it is stored now."""
        at = self._at
        at.moving.discard(run.id)
        replaced = at.overlaps.was_replaced(run.id)
        if run.state in ENDED:
            at.overlaps.remove(run)
            self._on_end(run, run.trace[-1])
        elif not replaced:
            at.overlaps.add(run)
            if (window := at.windows.of_run(run.id)) is not None:
                window.priority = run.priority
            if run.state is RunState.QUEUED:
                self._offer(run, None)
            else:
                self._wait(run)
        self._on_change(run.id)

    def cut_off(self, run_id: str, said: str, *, at_launch: bool = False) -> bool:
        """End the attempt of a run for good; `said` tells by whom. Return whether it has a slot.

        With `at_launch` it is one that is stored as running, and has none yet.
        """
        active = self._at.active.get(run_id)
        if active is None:
            if at_launch:
                self._cancelled[run_id] = said
            return False
        active.by = active.by or said
        if active.why == "interrupted":
            active.why = "cancelled"
        self._cancel(active, "cancelled")
        return True
