"""The supervisor: runs each source, starts it again when it fails, stops it in time, and knows how it is."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, field

from engine.clock import Clock
from engine.errors import Conflict, StoreDamaged
from engine.plugin import Source
from engine.sources.context import Context, Door, Memory
from engine.sources.routes import Routes
from engine.sources.started import Started
from engine.sources.state import Phase, SourceState
from engine.sources.waiting import wait_for
from engine.units import format_span

log = logging.getLogger("engine.sources")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STEADY_S = 60.0
"""A source that ran so long before it failed is started again after the first pause; one that failed is well again."""

STOP_S = 5.0
"""How long a source may take to end when it is told to."""


class _Watched(Struct, eq=False):
    """A source that is supervised, until `scope` is cancelled; `over` is set once it has ended, or is left alone."""

    state: SourceState
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)


class Sources:
    """Runs all sources side by side, also those that come later; one that raises, hangs or ends harms no other.

    `on_change` is called whenever a source says that it is ready, and when one has failed.
    """

    def __init__(
        self, *, clock: Clock, sources: Sequence[tuple[str, Source]], door: Door, memory: Memory, base: Path,
        files: Path, max_data: int, routes: Routes, on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._watched = {source_id: self._new(source_id, source, awaited=True) for source_id, source in sources}
        self._began_s = clock.monotonic()
        self._going: dict[str, tuple[SourceState, Started]] = {}
        """Those whose task has not ended, with what became of their states: also of sources that were removed."""
        self._group: TaskGroup | None = None
        self._door = door
        self._memory = memory
        self._base = base
        self._files = files
        self._max_data = max_data
        self._routes = routes
        self._on_change = on_change
        self._random = random.Random()  # noqa: S311 - spreads restarts, no secret

    @property
    def states(self) -> Sequence[SourceState]:
        """How each source is, also each that was removed and has not ended; of two with one id, the later one."""
        left = {state.id: state for state in self._leaving()}
        return list({**left, **{source_id: watched.state for source_id, watched in self._watched.items()}}.values())

    def state(self, source_id: str) -> SourceState | None:
        """Return how a source is, or None where there is no such source."""
        watched = self._watched.get(source_id)
        return None if watched is None else watched.state

    def set_factor(self, source_id: str, factor: float) -> None:
        """Make all periods and pauses of a source so many times as long as its settings say, also the one going on."""
        state = self.state(source_id)
        if state is not None and state.factor != factor:
            state.factor = factor
            state.paced.set()
            state.paced = anyio.Event()

    def not_ready(self) -> list[str]:
        """Return the sources that do not receive, in words."""
        problems = (watched.state.problem(self._clock) for watched in self._watched.values())
        return [problem for problem in problems if problem is not None]

    def awaited(self) -> list[str]:
        """Return the sources, of those at the start, that have not had their chance yet, in words.

        Each has had it once it was ready or failed, and when the time that it may take is over: one that comes to
        nothing, then or later, keeps nothing away from the others.
        """
        spent_s = self._clock.monotonic() - self._began_s
        states = [watched.state for watched in self._watched.values()]
        waiting = (state for state in states if state.awaited and spent_s < state.source.ready_within_s)
        return [problem for state in waiting if (problem := state.problem(self._clock)) is not None]

    def may_answer(self, path: str) -> bool:
        """Tell whether a source that does not run now may answer requests at a path when it does."""
        return any(watched.state.may_answer(path) for watched in self._watched.values())

    def warnings(self) -> list[str]:
        """Return what sources say is wrong while they go on, and which were removed but do not stop."""
        states = [watched.state for watched in self._watched.values()]
        warned = [f"source {state.id}: {state.warning}" for state in states if state.warning]
        left = [state.problem(self._clock) for state in self._leaving() if state.state is Phase.STUCK]
        return [*warned, *(f"{problem}; it was removed" for problem in left)]

    def stuck(self) -> list[str]:
        """Return the sources that ignore that they were told to stop."""
        return [source_id for source_id, (state, _) in self._going.items() if state.state is Phase.STUCK]

    async def run(self) -> None:
        """Run all sources until cancelled; return when each has ended, or had `STOP_S` to do so."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for watched in self._watched.values():
                    self._watch_over(watched, group)
                await anyio.sleep_forever()
        finally:
            self._group = None

    def add(self, source_id: str, source: Source) -> None:
        """Start a source while the others run; one of that id that is there already stays as it is.

        Where one of that id was removed and has not ended, it waits for that. Raises Conflict where none run.
        """
        if source_id in self._watched:
            return
        if self._group is None:
            raise Conflict("sources are added while the others run")
        watched = self._watched[source_id] = self._new(source_id, source)
        self._watch_over(watched, self._group)

    async def remove(self, source_id: str) -> None:
        """Stop a source; return when it has ended, or had `STOP_S` to do so: then it is left alone.

        What it was emitting is durable or refused by then, and nothing more is taken from it.
        """
        over = self.drop(source_id)
        if over is not None:
            await over.wait()

    def drop(self, source_id: str) -> anyio.Event | None:
        """Begin to stop a source, as `remove` does; return what is set when that is done, or None: it is not there."""
        watched = self._watched.pop(source_id, None)
        if watched is None:
            return None
        watched.scope.cancel()
        if self._group is None:
            watched.over.set()
        return watched.over

    def _new(self, source_id: str, source: Source, *, awaited: bool = False) -> _Watched:
        return _Watched(state=SourceState(id=source_id, source=source, since=self._clock.now(), awaited=awaited))

    def _leaving(self) -> list[SourceState]:
        """Return how those are that were removed and have not ended."""
        return [state for source_id, (state, _) in self._going.items() if self.state(source_id) is not state]

    def _watch_over(self, watched: _Watched, group: TaskGroup) -> None:
        async def watch() -> None:
            try:
                with watched.scope:
                    await self._supervise(watched.state)
            finally:
                watched.over.set()

        group.start_soon(watch, name=f"supervisor of {watched.state.id}")

    async def _supervise(self, state: SourceState) -> None:
        pause_s = FIRST_PAUSE_S
        await self._wait_for_one_before(state)
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
            self._on_change()
            state.restarts += 1
            if self._clock.monotonic() - began_s >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            await self._clock.sleep(pause_s * self._random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _wait_for_one_before(self, state: SourceState) -> None:
        """Return when no source of this id runs any more: two at once would share a cursor and a memory."""
        while (going := self._going.get(state.id)) is not None:
            state.error = "it waits for the one before it, which has not ended"
            await going[1].ended.wait()

    def _start(self, state: SourceState) -> Started:
        state.enter(Phase.STARTING, self._clock.now())
        state.warn(None, self._clock.now())

        def make_context(note_ready: Callable[[], None]) -> Context:
            def on_ready() -> None:
                note_ready()
                self._on_change()

            return Context(
                state, door=self._door, memory=self._memory, clock=self._clock, base=self._base,
                files=self._files, max_data=self._max_data, routes=self._routes, on_ready=on_ready,
            )  # fmt: skip

        started = Started(state.source, make_context)
        self._going[state.id] = (state, started)
        started.when_ended(lambda: self._going.pop(state.id))
        return started

    async def _watch(self, state: SourceState, started: Started) -> None:
        """Return when the source has ended; one that is not ready in time is cancelled, and waited for."""
        limit_s = state.source.ready_within_s
        while not started.changed.is_set():
            left_s = started.context.last_sign_s + limit_s - self._clock.monotonic()
            if left_s <= 0:
                await self._give_up_start(state, started)
                break
            await wait_for(started.changed, self._clock, left_s)
        if state.ailing:
            await self._watch_recovery(state, started)
        await started.ended.wait()

    async def _watch_recovery(self, state: SourceState, started: Started) -> None:
        """Say that a source is well again after it failed, once it has run so long that it is no mere try."""
        await wait_for(started.ended, self._clock, STEADY_S)
        if not started.ended.is_set():
            state.ailing = False
            ids = {"action": "source_well", "source": state.id}
            log.info("Source %s is well again: it has run for %s", state.id, format_span(STEADY_S), extra=ids)

    async def _give_up_start(self, state: SourceState, started: Started) -> None:
        state.fail(
            f"not ready within {format_span(state.source.ready_within_s)}, it waits at {started.where()}",
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
        state.fail(f"not stopped within {format_span(STOP_S)}, it waits at {started.where()}", self._clock.now())
        state.enter(Phase.STUCK, self._clock.now())
        ids = {"source": state.id, "stack": started.stack()}
        log.error(
            "Source %s was %s; it is left alone, and nothing more is taken from it", state.id, state.error,
            extra={"action": "source_stuck", **ids},
        )  # fmt: skip

    def _note_failure(self, state: SourceState, started: Started) -> None:
        """Note why a source has ended, which it never should; what it warned of while it went on counts no more."""
        state.warn(None, self._clock.now())
        error, ids = started.error, {"source": state.id}
        if not started.told_to_stop:
            if error is None:
                state.fail("it ended by itself", self._clock.now())
                log.warning("Source %s ended by itself", state.id, extra={"action": "source_ended", **ids})
            else:
                # The traceback of what it raised before already was told once.
                again = state.last_error == (said := _said(error))
                state.fail(said, self._clock.now())
                log.error(
                    "Source %s raised %s", state.id, f"again: {said}" if again else said,
                    exc_info=None if again else error, extra={"action": "source_raised", **ids},
                )  # fmt: skip
        state.enter(Phase.FAILED, self._clock.now())


def _said(error: BaseException) -> str:
    """Return what an error says, whatever its methods do."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
