"""The supervisor: runs each source, starts it again when it fails, stops it in time, and knows how it is."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from engine.clock import Clock
from engine.errors import StoreDamaged
from engine.plugin import Source
from engine.sources.context import Context, Door, Memory
from engine.sources.routes import Routes
from engine.sources.started import Started, wait_for
from engine.sources.state import Phase, SourceState
from engine.units import format_duration

log = logging.getLogger("engine.sources")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STEADY_S = 60.0
"""A source that ran so long before it failed is started again after the first pause."""

STOP_S = 5.0
"""How long a source may take to end when it is told to."""


class Sources:
    """Runs all sources side by side; one that raises, hangs or ends harms no other.

    `on_ready` is called whenever a source says that it is ready.
    """

    def __init__(
        self, *, clock: Clock, sources: Sequence[tuple[str, Source]], door: Door, memory: Memory, base: Path,
        max_data: int, routes: Routes, on_ready: Callable[[], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._states = {
            source_id: SourceState(id=source_id, source=source, since=clock.now()) for source_id, source in sources
        }
        self._door = door
        self._memory = memory
        self._base = base
        self._max_data = max_data
        self._routes = routes
        self._on_ready = on_ready
        self._stuck: dict[str, Started] = {}
        self._random = random.Random()  # noqa: S311 - spreads restarts, no secret

    @property
    def states(self) -> Sequence[SourceState]:
        """How each source is."""
        return list(self._states.values())

    def state(self, source_id: str) -> SourceState | None:
        """Return how a source is, or None where there is no such source."""
        return self._states.get(source_id)

    def not_ready(self) -> list[str]:
        """Return the sources that do not receive, in words."""
        return [problem for state in self._states.values() if (problem := state.problem(self._clock)) is not None]

    def warnings(self) -> list[str]:
        """Return what sources say is wrong while they go on."""
        return [f"source {state.id}: {state.warning}" for state in self._states.values() if state.warning]

    def stuck(self) -> list[str]:
        """Return the sources that ignore that they were told to stop."""
        return [source_id for source_id, started in self._stuck.items() if not started.ended.is_set()]

    async def run(self) -> None:
        """Run all sources until cancelled; return when each has ended, or had `STOP_S` to do so."""
        async with anyio.create_task_group() as group:
            for state in self._states.values():
                group.start_soon(self._supervise, state, name=f"supervisor of {state.id}")

    async def _supervise(self, state: SourceState) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = self._clock.monotonic()
            started = self._start(state)
            try:
                await self._watch(state, started)
            finally:
                if not started.ended.is_set():
                    with anyio.CancelScope(shield=True):
                        await self._stop(state, started)
            if isinstance(started.error, StoreDamaged):
                state.fail("the store failed", self._clock.now())
                state.enter(Phase.STOPPED, self._clock.now())
                return
            self._note_failure(state, started)
            state.restarts += 1
            if self._clock.monotonic() - began_s >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            await self._clock.sleep(pause_s * self._random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _start(self, state: SourceState) -> Started:
        state.enter(Phase.STARTING, self._clock.now())
        state.warning = None

        def make_context(note_ready: Callable[[], None]) -> Context:
            def on_ready() -> None:
                note_ready()
                self._on_ready()

            return Context(
                state, door=self._door, memory=self._memory, clock=self._clock, base=self._base,
                max_data=self._max_data, routes=self._routes, on_ready=on_ready,
            )  # fmt: skip

        return Started(state.source, make_context)

    async def _watch(self, state: SourceState, started: Started) -> None:
        """Return when the source has ended; one that is not ready in time is cancelled, and waited for."""
        limit_s = state.source.ready_within_s
        while not started.changed.is_set():
            left_s = started.context.last_sign_s + limit_s - self._clock.monotonic()
            if left_s <= 0:
                await self._give_up_start(state, started)
                break
            await wait_for(started.changed, self._clock, left_s)
        await started.ended.wait()

    async def _give_up_start(self, state: SourceState, started: Started) -> None:
        state.fail(
            f"not ready within {format_duration(state.source.ready_within_s)}, it waits at {started.where()}",
            self._clock.now(),
        )
        ids = {"source": state.id, "stack": started.stack()}
        log.error("Source %s was %s", state.id, state.error, extra={"action": "source_late", **ids})
        await self._stop(state, started)

    async def _stop(self, state: SourceState, started: Started) -> None:
        """Tell a source to stop; leave one that does not alone."""
        if await started.stop(self._clock, STOP_S):
            state.enter(Phase.STOPPED, self._clock.now())
            if started.error is not None:
                state.fail(_said(started.error), self._clock.now())
                ids = {"action": "source_raised", "source": state.id}
                log.error("Source %s raised while it stopped", state.id, exc_info=started.error, extra=ids)
            return
        self._stuck[state.id] = started
        state.fail(f"not stopped within {format_duration(STOP_S)}, it waits at {started.where()}", self._clock.now())
        state.enter(Phase.STUCK, self._clock.now())
        ids = {"source": state.id, "stack": started.stack()}
        log.error(
            "Source %s was %s; it is left alone, and nothing more is taken from it", state.id, state.error,
            extra={"action": "source_stuck", **ids},
        )  # fmt: skip

    def _note_failure(self, state: SourceState, started: Started) -> None:
        """Note why a source has ended, which it never should."""
        self._stuck.pop(state.id, None)
        error, ids = started.error, {"source": state.id}
        if not started.told_to_stop:
            if error is None:
                state.fail("it ended by itself", self._clock.now())
                log.warning("Source %s ended by itself", state.id, extra={"action": "source_ended", **ids})
            else:
                state.fail(_said(error), self._clock.now())
                log.error("Source %s raised", state.id, exc_info=error, extra={"action": "source_raised", **ids})
        state.enter(Phase.FAILED, self._clock.now())


def _said(error: BaseException) -> str:
    """Return what an error says, whatever its methods do."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
