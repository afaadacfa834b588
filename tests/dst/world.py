"""What is around the engine and outlives it: feeds, programs that run, people who ask for things; and what they saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import ClassVar, Literal

import anyio
from msgspec import Struct

from engine.errors import StoreUnavailable
from engine.plugin import (
    Accepted,
    Condition,
    ConditionContext,
    Event,
    Outcome,
    RunContext,
    Runner,
    Source,
    SourceContext,
    Verdict,
)
from engine.runs import RunState
from tests.dst.plan import Plan
from tests.dst.turns import Clock


class Receipt(Struct, frozen=True, kw_only=True):
    """What somebody was told about an event, or a request: it was acknowledged."""

    source: str | None
    key: str
    event: str
    runs: tuple[str, ...]


class World:
    """The world of one simulation. `find` is told what is wrong as soon as somebody sees it."""

    here: ClassVar[World | None] = None
    """The one that the plugins live in."""

    def __init__(self, plan: Plan, clock: Clock, find: Callable[[str], None], is_running: Callable[..., str]) -> None:
        self.plan = plan
        self.clock = clock
        self.find = find
        self._is_running = is_running
        self.calm = False
        """Whether the end has come: nothing goes wrong any more."""
        self.receipts: list[Receipt] = []
        self.looks: dict[str, list[tuple[float, int | None]]] = {}
        """What conditions were told in this life, and when: a number, None for no answer."""
        self.stuck: dict[str, list[tuple[float, float]]] = {}
        """From when to when, in this life, a look of a condition had been told to end, and had not."""
        self.steps: list[tuple[float, float]] = []
        """When the wall clock was set, and by how much."""
        self.going: dict[str, str] = {}
        self.begun: dict[str, list[int]] = {}
        """The numbers of a run's attempts, as they began."""
        self.done: set[tuple[str, int]] = set()
        self.life = 0
        self.thawed: frozenset[str] | None = None
        """Where what goes on is an engine that stood still while another one took its store over: the runs of which it
        knew by then that their start was durable. No write comes before it begins these, so nothing tells it."""
        self.cut_off: dict[str, int] = {}
        """The runs that a crash cut off first, with how often they had begun by then."""
        self.attempts = 0
        self.limits = {
            name: None if "concurrency_key" in fields else fields.get("concurrency")
            for name, fields in plan.tables["jobs"].items()
        }
        self.most = plan.tables["engine"]["concurrency"]
        self._chance = random.Random(f"world {plan.seed}")

    def end_life(self, *, crashed: bool) -> None:
        """Take note that the engine is gone, and what ran with it."""
        if crashed:
            for run in self.going:
                self.cut_off.setdefault(run, len(self.begun[run]))
        elif self.going:
            self.find(f"the engine has stopped, and runs go on: {sorted(self.going)}")
        self.forget_life()
        self.life += 1

    def forget_life(self) -> None:
        """Forget what went on within an engine that is gone."""
        self.going.clear()
        self.looks.clear()
        self.stuck.clear()

    # Programs

    async def act(self, context: RunContext) -> Outcome:
        """Be one attempt of a run."""
        run, job = context.run_id, context.job
        if self.thawed is not None:
            if run not in self.thawed:
                self.find(f"an engine that was succeeded began attempt {context.attempt} of run {run}")
            await anyio.sleep_forever()
        if run in self.going:
            self.find(f"run {run} runs twice at once")
        wrong = self._is_running(run, context.attempt)
        if wrong:
            self.find(f"an attempt of run {run} was begun, and {wrong}")
        self.going[run] = job
        self.begun.setdefault(run, []).append(context.attempt)
        self.attempts += 1
        limit, same = self.limits[job], sum(1 for name in self.going.values() if name == job)
        if limit is not None and same > limit:
            self.find(f"job {job} has {same} runs at once, its limit is {limit}")
        if len(self.going) > self.most:
            self.find(f"{len(self.going)} runs at once, the engine's limit is {self.most}")
        chance = random.Random(f"{self.plan.seed} {run} {context.attempt} {len(self.begun[run])}")
        try:
            outcome = await self._do(context, chance)
        finally:
            self.going.pop(run, None)
        if outcome.state == "succeeded":
            self.done.add((run, context.attempt))
        return outcome

    async def _do(self, context: RunContext, chance: random.Random) -> Outcome:
        likely = {} if self.calm else self.plan.temper
        mean_s = self.plan.duration_s[context.job]
        if mean_s and chance.random() < 0.8:
            await self.clock.sleep(chance.expovariate(1 / mean_s))
        drawn = chance.random()
        for what, part in likely.items():
            drawn -= part
            if drawn >= 0:
                continue
            if what == "fail":
                return Outcome.failed("tried", "failed: it tried", retry_after_s=chance.choice([None, 0.0, 900.0]))
            if what == "raise":
                raise RuntimeError("it fell over")
            if what == "exit":
                raise SystemExit(3)
            if what == "rubbish":
                return {"state": "fine"}  # type: ignore[return-value]
            if what == "hang":
                await anyio.sleep_forever()
            if what == "stubborn":
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.clock.sleep(chance.uniform(0, 400))
            return Outcome(state=RunState.SKIPPED, code="nothing_to_do", reason="skipped: there was nothing to do")
        return Outcome.succeeded("done", outputs={"n": chance.randint(0, 9)} if chance.random() < 0.2 else None)

    # Conditions

    async def look(self, name: str, label: str) -> int:
        """Be one look at the sky; raise where it fails."""
        sky, seen = self.plan.skies[label], self.looks.setdefault(name, [])
        if self.calm:
            seen.append((self.clock.monotonic(), 9))
            return 9
        chance, found = random.Random(f"{sky.seed} {self.clock.monotonic()}"), None
        try:
            drawn = chance.random()
            if sky.slow_s and chance.random() < 0.5:
                await self.clock.sleep(chance.uniform(0, sky.slow_s))
            if drawn < sky.hangs:
                await anyio.sleep_forever()
            if drawn < sky.hangs + sky.fails:
                raise RuntimeError("there is fog")
            found = sky.at(self.clock.monotonic())
            return -1 if drawn < sky.hangs + sky.fails + sky.lies else found
        except asyncio.CancelledError:
            found = None
            seen.append((self.clock.monotonic(), None))
            if sky.stubborn:
                lasts_s, spans = chance.uniform(0, 900), self.stuck.setdefault(name, [])
                spans.append((self.clock.monotonic(), self.clock.monotonic() + lasts_s))
                with anyio.CancelScope(shield=True):
                    await self.clock.sleep(lasts_s)
            raise
        finally:
            if not seen or seen[-1][0] != self.clock.monotonic():
                lied = found is not None and drawn < sky.hangs + sky.fails + sky.lies
                seen.append((self.clock.monotonic(), None if lied else found))

    # Feeds

    async def feed(self, label: str, context: SourceContext) -> None:
        """Tell the engine of all that happens, in order, at least once."""
        items = self.plan.feeds[label]
        while True:
            try:
                position = await context.cursor() or 0
                break
            except StoreUnavailable:
                await self.clock.sleep(1.0)
        context.ready()
        while position < len(items):
            await self.clock.sleep(items[position].at_s - self.clock.monotonic())
            if not self.calm and self._chance.random() < self.plan.source_fails:
                if self._chance.random() < 0.3:
                    return
                raise RuntimeError("the feed fell over")
            last = position + self._chance.randint(1, 5)
            batch = [item for item in items[position:last] if item.at_s <= self.clock.monotonic()]
            events = [Event(type="fed", key=item.key, subject=item.subject, data=item.data) for item in batch]
            try:
                answers = await context.emit(*events, cursor=position + len(batch))
            except StoreUnavailable:
                await self.clock.sleep(self._chance.uniform(0, 5))
                continue
            for item, answer in zip(batch, answers, strict=True):
                self.take(context.name, item.key, answer)
            position += len(batch)
        await anyio.sleep_forever()

    def take(self, source: str | None, key: str, answer: Accepted) -> None:
        """Take note of an acknowledgement; without a source, of a request that made an event like an earlier one."""
        self.receipts.append(Receipt(source=source, key=key, event=answer.event, runs=answer.runs))


def _world() -> World:
    assert World.here is not None
    return World.here


class Act(Runner, frozen=True, kw_only=True):
    """A runner that does what the plan says: ends well after a while, fails, raises, hangs, returns rubbish."""

    name: ClassVar[str] = "act"
    main: ClassVar[str | None] = "plays"

    plays: bool = True

    async def run(self, context: RunContext) -> Outcome:
        return await _world().act(context)


class Feed(Source, frozen=True, kw_only=True):
    """A source of what happens in the world, with a cursor; it falls over at times."""

    name: ClassVar[str] = "feed"
    main: ClassVar[str | None] = "label"

    label: str

    async def run(self, context: SourceContext) -> None:
        await _world().feed(self.label, context)


class SkyCheck(Condition, frozen=True, kw_only=True):
    """A check of how something in the world is; it can't tell at times, takes its time, or never answers."""

    name: ClassVar[str] = "sky"
    main: ClassVar[str | None] = "label"
    thresholds: ClassVar[frozenset[str]] = frozenset({"least"})

    label: str
    least: int = 5
    below: Literal["hold", "skip"] = "hold"

    async def check(self, context: ConditionContext) -> Verdict:
        found = await _world().look(context.name, self.label)
        if found < 0:
            return "fine"  # type: ignore[return-value]
        if found >= self.least:
            return Verdict.passes(f"it is {found}", found)
        return (Verdict.skips if self.below == "skip" else Verdict.holds)(f"it is {found}", found)
