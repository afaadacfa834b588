"""What is around the engine and outlives it: feeds, programs that run, people who ask for things; and what they saw."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

import anyio
from msgspec import Struct

from engine.backfills import BackfillRequest, Order
from engine.errors import Conflict, EngineError, NotFound, StoreUnavailable
from engine.operations import Operations
from engine.plugin import Accepted, Event, Outcome, RunContext, Runner, Source, SourceContext
from engine.runs import RunState
from engine.triggers import PauseScope
from tests.dst.plan import Call, Plan
from tests.dst.turns import BEGINNING, Clock

PATIENCE_S = 20.0
"""Who asks for something asks again after so long without an answer."""


class Receipt(Struct, frozen=True, kw_only=True):
    """What somebody was told about an event, or a request: it was acknowledged."""

    source: str
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
        self.backfills: list[str] = []
        self.answered: set[int] = set()
        self.refused: Counter[str] = Counter()
        self.going: dict[str, str] = {}
        self.begun: dict[str, list[int]] = {}
        """The numbers of a run's attempts, as they began."""
        self.done: set[tuple[str, int]] = set()
        self.life = 0
        self.cut_off: dict[str, int] = {}
        """The runs that a crash cut off first, with how often they had begun by then."""
        self.attempts = 0
        self.limits = {name: fields.get("concurrency") for name, fields in plan.tables["jobs"].items()}
        self.most = plan.tables["engine"]["concurrency"]
        self._chance = random.Random(f"world {plan.seed}")

    def end_life(self, *, crashed: bool) -> None:
        """Take note that the engine is gone, and what ran with it."""
        if crashed:
            for run in self.going:
                self.cut_off.setdefault(run, len(self.begun[run]))
        elif self.going:
            self.find(f"the engine has stopped, and runs go on: {sorted(self.going)}")
        self.going.clear()
        self.life += 1

    # Programs

    async def act(self, context: RunContext) -> Outcome:
        """Be one attempt of a run."""
        run, job = context.run_id, context.job
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

    def take(self, source: str, key: str, answer: Accepted) -> None:
        """Take note of an acknowledgement."""
        self.receipts.append(Receipt(source=source, key=key, event=answer.event, runs=answer.runs))

    # People

    async def ask(self, number: int, call: Call, operations: Operations) -> None:
        """Ask for something until there is an answer."""
        while number not in self.answered:
            try:
                await self._ask_once(call, operations)
            except StoreUnavailable:
                await self.clock.sleep(self._chance.uniform(0.1, PATIENCE_S))
            except (Conflict, NotFound) as error:
                if operations.state != "running":
                    return
                self.refused[str(error)[:40]] += 1
                self.answered.add(number)
            except EngineError as error:
                self.refused[f"{type(error).__name__}: {error}"[:60]] += 1
                self.answered.add(number)
            else:
                self.answered.add(number)

    async def _ask_once(self, call: Call, operations: Operations) -> None:
        what = call.what
        if call.kind == "emit":
            event = Event(
                type=what["type"], key=what["key"], subject=what["subject"], priority=what["priority"],
                data=what["data"], source="shop",
            )  # fmt: skip
            for answer in await operations.hear([event, event] if what["twice"] else [event]):
                self.take("shop", what["key"], answer)
        elif call.kind == "fire":
            answer = await operations.fire(
                what["trigger"], data=None, reason="", priority=None, bypass=frozenset(what["bypass"]),
                request_id=what["request"],
            )  # fmt: skip
            self.take("manual", what["request"], answer)
        elif call.kind == "pause":
            until = None if what["for_s"] is None else self.clock.now() + timedelta(seconds=what["for_s"])
            await operations.pause(PauseScope(what["scope"]), what["name"], reason="so be it", until=until)
        elif call.kind == "resume":
            held = operations.pauses()
            chosen = held if what["all"] or not held else [held[what["which"] % len(held)]]
            for pause in chosen:
                await operations.resume(pause.scope, pause.name)
        elif call.kind == "backfill":
            end = max(self.clock.now() - timedelta(seconds=what["back_s"]), BEGINNING)
            request = BackfillRequest(
                trigger=what["trigger"], start=end - timedelta(seconds=what["length_s"]), end=end,
                max_parallel=what["max_parallel"], order=Order(what["order"]), only_missing=what["only_missing"],
            )  # fmt: skip
            begun = await operations.backfills.begin(request, request_id=what["request"])
            self.backfills.append(begun.backfill.id)
        elif self.backfills:
            turn = getattr(operations.backfills, what["to"])
            await turn(self.backfills[what["which"] % len(self.backfills)])


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
