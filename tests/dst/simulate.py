"""One simulation: life after life of the engine on one store, until the plan is through and nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from msgspec import Struct
from msgspec.structs import replace

import engine.execution
import engine.leftovers
import engine.runtime
import engine.strays
from engine.config import Config, load
from engine.errors import EngineError, StoreLost
from engine.lease import Lease
from engine.operations import Operations
from engine.registry import Registry
from engine.runtime import Runtime
from engine.store.base import Result
from engine.store.boots import this_process
from engine.store.changes import Change
from tests.dst.disk import FAIR, Disk, SimulatedStore, Weather
from tests.dst.oracle import Oracle, feeds_of
from tests.dst.people import People
from tests.dst.plan import DAY_S, Hazard, Plan, plan_of
from tests.dst.standing import Standing
from tests.dst.turns import BEGINNING, Clock, Crashed, Frozen, Graveyard, Ids, Loop, Stuck, determined, live, thaw
from tests.dst.world import Act, Feed, SkyCheck, World

LONGEST_REST_S = 60 * DAY_S
"""Once nothing goes wrong any more, all that is left must be over after so long: a throttle may let a week of a timer's
runs wait for a month."""

LOOK_S = 120.0
RESTART_S = 60.0

THAWED_S = 300.0
"""An engine that was succeeded ends within so long, beside what its organs look round for: with what it writes next."""

Tampers = Callable[[Runtime, SimulatedStore], None]


class Verdict(Struct, kw_only=True):
    """What came of a seed: `findings` must be empty; `digest` is the same each time."""

    seed: int
    findings: list[str]
    digest: str
    lives: int
    crashes: int
    commits: int
    attempts: int
    runs: dict[str, int]
    refused: dict[str, int]
    gone: int
    thawed: int


def simulate(seed: int, *, days: float = 7.0, tamper: Tampers | None = None, log: bool = False) -> Verdict:
    """Live through the days of a seed and judge them. `tamper` breaks each life's engine, to see that it is noticed."""
    # On memory where there is such a place: nothing here is about a real disk.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="dst-", dir=shared if shared.is_dir() else None) as folder:
        return Simulation(plan_of(seed, days), Path(folder), tamper=tamper, log=log).run()


class Simulation:
    """The lives of one engine."""

    def __init__(self, plan: Plan, folder: Path, *, tamper: Tampers | None, log: bool) -> None:
        self.plan = plan
        self.clock = Clock()
        self.ids = Ids(self.clock, f"ids {plan.seed}")
        registry = Registry.discover()
        registry.add(Act)
        registry.add(Feed)
        registry.add(SkyCheck)
        self._registry = registry
        file = folder / "config.toml"
        file.write_text(plan.config)
        self.config = _kept(load([file], environment={}, registry=registry), plan)
        self.disk = Disk(folder / "engine.db", self.clock, f"disk {plan.seed}")
        self.oracle = Oracle(plan, self.config, self.disk, self.clock)
        self.world = World(plan, self.clock, self.oracle.find, self.oracle.why_not_running)
        self.oracle.started.world = self.oracle.gone.world = self.world
        self.people = People(self.world, self.oracle.choose)
        self.standing = Standing(self.world, self.config, self.disk, self.clock, self.oracle.started, self.oracle.gone)
        self._tamper = tamper
        self._log = log
        self._met: set[int] = set()
        self._down_s = 0.0
        self._ambush: tuple[int, int] | None = None
        self._was_foul = False
        self._over = False
        self._rest_began_s: float | None = None
        self._days_seen = 0
        self._store: SimulatedStore | None = None
        self._still: tuple[Loop, Sequence[sqlite3.Connection], frozenset[str]] | None = None
        """An engine that stands still, what it has open, and the runs that it was about to begin."""
        self._thawed: Loop | None = None
        self._thaws = 0

    def run(self) -> Verdict:
        """Run all lives, and judge."""
        graveyard, world = Graveyard(), self.world
        World.here = world
        level = logging.root.manager.disable
        if not self._log:
            logging.disable(logging.CRITICAL)
        crashes = 0
        try:
            with (
                determined(self.ids, seed=f"chance {self.plan.seed}", longest_sleep_s=self.plan.longest_sleep_s),
                _no_processes(self.clock),
            ):
                while not self._over and not self.oracle.findings:
                    self.ids.new_life()
                    crashed = still = False
                    try:
                        live(self.clock, graveyard, self._live)
                    except Crashed:
                        crashed = True
                    except Frozen as frozen:
                        crashed = True
                        still = self._stand_still(frozen.loop, graveyard)
                    except Stuck as error:
                        self.oracle.find(f"stuck: {error}")
                    except BaseException as error:
                        self.oracle.find(f"the engine raised {_shown(error)}")
                    crashes += crashed
                    self.disk.cut()
                    world.end_life(crashed=crashed)
                    self.clock.at_s += self._down_s
                    self._down_s = RESTART_S
                    if not still:
                        self._thaw(graveyard)
                if not self.oracle.findings:
                    self.oracle.see_end(world, self.people, self.clock.now())
            return Verdict(
                seed=self.plan.seed, findings=self.oracle.findings, digest=self.oracle.digest, lives=world.life,
                crashes=crashes, commits=self.oracle.commits, attempts=world.attempts,
                runs=dict(self.oracle.counts()), refused=dict(self.people.refused), gone=self.oracle.gone.count,
                thawed=self._thaws,
            )  # fmt: skip
        finally:
            logging.disable(level)
            World.here = None
            if self._still is not None:
                graveyard.bury(self._still[0])
            graveyard.close()
            self.disk.close()

    # An engine that stands still

    def _stand_still(self, loop: Loop, graveyard: Graveyard) -> bool:
        """Keep a life as it stands; return False where that is its end: it has no store yet, or another one stands."""
        if self._still is not None or self._store is None or not self._store.owns:
            graveyard.bury(loop)
            return False
        self._still = (loop, self.disk.leave_open(), self.oracle.not_begun(self.world))
        return True

    def _thaw(self, graveyard: Graveyard) -> None:
        """Let the engine go on that stood still, once another one has taken its store over, and has ended."""
        if self._still is None or self._store is None or not self._store.owns:
            return
        (loop, left_open, about_to_begin), self._still = self._still, None
        self._thaws += 1
        self._thawed, self.world.thawed, self.disk.weather = loop, about_to_begin, FAIR
        for task in asyncio.all_tasks(loop):
            if task.get_name() in ("fate", "people"):
                task.cancel()
        try:
            thaw(self.clock, graveyard, loop, within_s=self.plan.longest_sleep_s + THAWED_S)
        except Crashed:
            pass  # something was found, and it goes no further
        except (Stuck, Exception) as error:
            self.oracle.find(f"an engine that was succeeded ends as {_shown(error)}")
        self._thawed = self.world.thawed = None
        for raw in left_open:
            raw.close()
        self.world.forget_life()

    # One life

    async def _live(self, loop: Loop) -> None:
        self._ambush = None
        self._was_foul = self.disk.weather is not FAIR
        store = SimulatedStore(self.disk, self.clock, lambda changes, results: self._see(loop, changes, results))
        self._store = store
        await store.open()
        ready = anyio.Event()
        runtime = Runtime(
            self.config, registry=self._registry, clock=self.clock, listen=False, environment={},
            on_ready=lambda _: ready.set(),
        )  # fmt: skip
        if self._tamper is not None:
            self._tamper(runtime, store)
        fate = asyncio.get_running_loop().create_task(self._be_fate(loop, runtime), name="fate")
        people = asyncio.get_running_loop().create_task(self._be_people(runtime, ready), name="people")
        for task in (fate, people):
            task.add_done_callback(lambda done: self._see_ended(loop, done))
        try:
            await store.take_over(this_process(runtime.boot))
            await runtime._run_on(store)
        except (EngineError, BaseExceptionGroup) as error:
            # The store was away at the start: it ends, and is started again, as by a service manager.
            causes = engine.runtime.causes(error)
            if not all(isinstance(cause, EngineError) for cause in causes):
                raise
            if loop is self._thawed:
                if not any(isinstance(cause, StoreLost) for cause in causes):
                    self.oracle.find(f"an engine that was succeeded does not say so: {_shown(error)}")
            elif self.disk.weather is FAIR and not self._was_foul:
                self.oracle.find(f"the engine gave up: {_shown(error)}")
        else:
            if not runtime.stopping.is_set():
                self.oracle.find("the engine ended by itself")
        finally:
            for task in (fate, people):
                task.cancel()
            await asyncio.gather(fate, people, return_exceptions=True)
        for context in loop.failed:
            self.oracle.find(f"the loop was told: {context.get('message')} {context.get('exception')!r}")

    def _see_ended(self, loop: Loop, task: asyncio.Task[None]) -> None:
        """Take note that one of those around the engine fell over: that is a fault of the simulation."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.oracle.find(f"the {task.get_name()} of the simulation raised {_shown(error)}")
            loop.die_soon(0)

    def _see(self, loop: Loop, changes: Sequence[Change], results: Sequence[Result]) -> None:
        if loop is self._thawed and changes:
            self.oracle.find(f"an engine that was succeeded has written {changes}")
        self.oracle.see_commit(changes, results)
        if self.oracle.findings:
            loop.die_soon(0)
        if self._ambush is not None:
            commits, turns = self._ambush
            self._ambush = (commits - 1, turns)
            if commits <= 1:
                self._ambush = None
                loop.die_soon(turns)

    # What goes wrong

    async def _be_fate(self, loop: Loop, runtime: Runtime) -> None:
        for number, hazard in enumerate(self.plan.hazards):
            if number in self._met:
                continue
            await self.clock.sleep(hazard.at_s - self.clock.monotonic())
            self._met.add(number)
            self._bring(loop, runtime, hazard)
        await self.clock.sleep(self.plan.days * DAY_S - self.clock.monotonic())
        self.disk.weather = FAIR
        self.world.calm = True

    def _bring(self, loop: Loop, runtime: Runtime, hazard: Hazard) -> None:
        what = hazard.what
        self._say(f"{hazard.kind}: {dict(what)}")
        if hazard.kind == "crash":
            self._down_s = what["down_s"]
            loop.die_soon(what["turns"])
        elif hazard.kind == "freeze":
            self._down_s = what["down_s"]
            loop.die_soon(what["turns"], freezes=True)
        elif hazard.kind == "ambush":
            self._down_s = what["down_s"]
            self._ambush = (what["commits"], what["turns"])
        elif hazard.kind == "stop":
            self._down_s = what["down_s"]
            runtime.stop()
        elif hazard.kind == "step":
            self.clock.step(what["seconds"])
            self.world.steps.append((self.clock.monotonic(), what["seconds"]))
        else:
            self._was_foul = True
            self.disk.weather = Weather(
                slow_s=what["slow_s"], fails_writes=what["fails_writes"], fails_reads=what["fails_reads"],
                until_s=self.clock.monotonic() + what["for_s"],
            )  # fmt: skip

    # What is asked for

    async def _be_people(self, runtime: Runtime, ready: anyio.Event) -> None:
        await ready.wait()
        operations = runtime.operations
        assert operations is not None
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self.standing.watch(operations))
            for number, call in enumerate(self.plan.calls):
                if number in self.people.answered:
                    continue
                await self.clock.sleep(call.at_s - self.clock.monotonic())
                self._say(f"call {number}: {call.kind} {dict(call.what)}")
                group.create_task(self.people.ask(number, call, operations))
            await self._see_it_end(runtime, operations)
            watch.cancel()

    async def _see_it_end(self, runtime: Runtime, operations: Operations) -> None:
        """Wait until the days are over and all that was left is done; then stop the engine for good."""
        end_at = BEGINNING + timedelta(days=self.plan.days, seconds=LOOK_S)
        while True:
            await self.clock.sleep(LOOK_S)
            if not self.world.calm:
                continue
            if self._rest_began_s is None:
                self._rest_began_s = self.clock.monotonic()
            held = operations.pauses()
            for pause in held:
                await operations.resume(pause.scope, pause.name)
            for pool in self.plan.tables["pools"]:
                await operations.pools.reset(pool)
            for run in self.oracle.held_by_hand():
                await operations.queue.release(run)
            for backfill in self.people.backfills:
                if (await operations.backfills.get(backfill)).backfill.state == "paused":
                    await operations.backfills.resume(backfill)
            if self.clock.now() > end_at and not held and not self._left(operations):
                await self.people.look(operations)
                break
            if self.clock.monotonic() - self._rest_began_s > LONGEST_REST_S:
                self.oracle.find(f"it never comes to its end: {self._left(operations)}")
                break
        self._over = True
        runtime.stop()

    def _left(self, operations: Operations) -> str:
        """Say what is left to do."""
        left = []
        if count := self.oracle.open_runs():
            left.append(f"{count} runs are open")
        if len(self.people.answered) < len(self.plan.calls):
            left.append("somebody waits for an answer")
        if operations.backfills.status()["open"]:
            left.append("a backfill is open")
        if not left and (untold := self.oracle.untold(self.clock.now())):
            left.append(untold)  # it is caught up on one by one
        for label, items in self.plan.feeds.items():
            sources = feeds_of(self.plan, self.config, label)
            if any(len(self.oracle.keys_of(source)) < len(items) for source in sources):
                left.append(f"feed {label} is not read")
        return ", ".join(left)

    def _say(self, what: str) -> None:
        if self._log:
            print(f"-- {self.clock.now()} ({self.clock.monotonic():.3f} s, life {self.world.life}) {what}")  # noqa: T201


def _kept(config: Config, plan: Plan) -> Config:
    """Limit the disk to less than a configuration may say: what a week brings is not much."""
    if plan.disk_bytes is None:
        return config
    keep = replace(config.store.keep, disk=plan.disk_bytes)
    return replace(config, store=replace(config.store, keep=keep))


class _no_processes:
    """In the simulation no attempt has a process, so none is left: looking for them takes its time all the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._modules: tuple[Any, ...] = (engine.leftovers, engine.execution)
        self._strays: Any = engine.strays

    def __enter__(self) -> None:
        async def end_leftovers(*_: Any, **__: Any) -> dict[str, list[int]]:
            await self._clock.sleep(0.05)
            return {}

        async def look(*_: Any, **__: Any) -> dict[str, set[int]]:
            return {}

        # It is a thread's work, whose turns nobody could foretell.
        self._look = self._strays.run_sync
        self._strays.run_sync = look
        # The lease is renewed by a thread, too.
        self._start: Any = Lease.start
        setattr(Lease, "start", lambda _: None)  # noqa: B010 - a method can't be assigned
        self._before = [module.end_leftovers for module in self._modules]
        for module in self._modules:
            module.end_leftovers = end_leftovers

    def __exit__(self, *_: object) -> None:
        self._strays.run_sync = self._look
        setattr(Lease, "start", self._start)  # noqa: B010
        for module, function in zip(self._modules, self._before, strict=True):
            module.end_leftovers = function


def _shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-3000:]
