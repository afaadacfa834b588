"""What people ask of a running engine, again and again until there is an answer, and what they are told."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.backfills import BackfillRequest, Order
from engine.clock import to_microseconds
from engine.errors import Conflict, EngineError, InvalidRequest, NotFound, StoreUnavailable
from engine.hindsight import inquire, prove
from engine.operations import Operations
from engine.plugin import Event
from engine.runs import HELD_BY_HAND, Lane, RunState
from engine.triggers import PauseScope
from engine.waiting import FlushRequest
from tests.dst.plan import Call
from tests.dst.turns import BEGINNING

if TYPE_CHECKING:
    from tests.dst.world import World

PATIENCE_S = 20.0
"""Who asks for something asks again after so long without an answer."""


class People:
    """Everybody who asks for something. `choose` names a run, or an event, of those that are there."""

    def __init__(self, world: World, choose: Any) -> None:
        self.world = world
        self.answered: set[int] = set()
        self.refused: Counter[str] = Counter()
        self.backfills: list[str] = []
        self.cancelled: dict[str, int] = {}
        """The runs whose end was promised, with how often they had begun by then."""
        self.released: dict[str, int] = {}
        """When the end of a trigger's quarantine was asked for first, in microseconds."""
        self._choose = choose
        self._chosen: dict[int, str] = {}
        self._chance = random.Random(f"people {world.plan.seed}")

    async def ask(self, number: int, call: Call, operations: Operations) -> None:
        """Ask for something until there is an answer."""
        while number not in self.answered:
            try:
                await self._ask_once(number, call, operations)
            except StoreUnavailable:
                await self.world.clock.sleep(self._chance.uniform(0.1, PATIENCE_S))
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

    async def _ask_once(self, number: int, call: Call, operations: Operations) -> None:
        what, world = call.what, self.world
        if call.kind == "emit":
            event = Event(
                type=what["type"], key=what["key"], subject=what["subject"], priority=what["priority"],
                data=what["data"], source="shop",
            )  # fmt: skip
            for answer in await operations.hear([event, event] if what["twice"] else [event]):
                world.take("shop", what["key"], answer)
        elif call.kind == "fire":
            answer = await operations.fire(
                what["trigger"], data=what["data"], reason="", priority=what["priority"],
                bypass=frozenset(what["bypass"]), request_id=what["request"],
            )  # fmt: skip
            world.take("manual", what["request"], answer)
        elif call.kind == "pause":
            until = None if what["for_s"] is None else world.clock.now() + timedelta(seconds=what["for_s"])
            await operations.pause(PauseScope(what["scope"]), what["name"], reason="so be it", until=until)
        elif call.kind == "resume":
            held = operations.pauses()
            chosen = held if what["all"] or not held else [held[what["which"] % len(held)]]
            for pause in chosen:
                await operations.resume(pause.scope, pause.name)
        elif call.kind == "backfill":
            await self._backfill(what, operations)
        elif call.kind == "turn":
            if self.backfills:
                turn = getattr(operations.backfills, what["to"])
                await turn(self.backfills[what["which"] % len(self.backfills)])
        elif call.kind == "steer":
            await self._steer(number, what, operations)
        elif call.kind == "pool":
            if what["limit"] is None:
                await operations.pools.reset(what["pool"])
            else:
                await operations.pools.change(what["pool"], what["limit"], reason="so be it")
        elif call.kind == "release":
            self.released.setdefault(what["trigger"], to_microseconds(world.clock.now()))
            await operations.guards.release_trigger(what["trigger"], who="somebody", reason="so be it")
        elif call.kind == "look":
            await self.look(operations)
        else:
            await self._decide(number, call, operations)

    async def _backfill(self, what: Any, operations: Operations) -> None:
        end = max(self.world.clock.now() - timedelta(seconds=what["back_s"]), BEGINNING)
        request = BackfillRequest(
            trigger=what["trigger"], start=end - timedelta(seconds=what["length_s"]), end=end,
            max_parallel=what["max_parallel"], order=Order(what["order"]), only_missing=what["only_missing"],
        )  # fmt: skip
        begun = await operations.backfills.begin(request, request_id=what["request"])
        self.backfills.append(begun.backfill.id)

    # One run

    async def _steer(self, number: int, what: Any, operations: Operations) -> None:
        to, queue = what["to"], operations.queue
        run_id = self._chosen.get(number) or self._choose(to, what["which"])
        if run_id is None:
            return
        self._chosen[number] = run_id
        if to == "cancel":
            await queue.cancel(run_id, reason="so be it", who="somebody")
            self.cancelled.setdefault(run_id, len(self.world.begun.get(run_id, ())))
        elif to == "hold":
            run = await queue.hold(run_id, who="somebody")
            if all(step.code != HELD_BY_HAND for step in run.trace):
                self.world.find(f"run {run_id} was said to be held by hand, and is {run.state}: {run.reason}")
        elif to == "release":
            await queue.release(run_id, who="somebody")
        elif to == "priority":
            run = await queue.set_priority(run_id, what["priority"], who="somebody")
            trigger = operations.config.triggers[run.trigger]
            gathers = run.state == RunState.PENDING  # what joins it may be more urgent
            if not gathers and run.priority > max(what["priority"], trigger.priority):
                self.world.find(f"run {run_id} was given priority {what['priority']}, and has {run.priority}")
        else:
            answer = await queue.retry(run_id, request_id=what["request"])
            self.world.take(None, what["request"], answer)

    # What decides

    async def _decide(self, number: int, call: Call, operations: Operations) -> None:
        what = call.what
        if call.kind == "flush":
            await operations.queue.flush(_flush_of(what["which"]), reason="so be it")
        elif call.kind == "replay":
            event_id = self._chosen.get(number) or self._choose("replay", what["which"])
            stored = None if event_id is None else await operations.store.event(event_id)
            if stored is None:
                return
            self._chosen[number] = stored.event.id
            answer = await operations.replay(stored, trigger=None, reason="again", request_id=what["request"])
            self.world.take(None, what["request"], answer)
        elif call.kind == "test":
            event = Event(type="heard.a", subject=what["subject"], data=what["data"])
            operations.test(what["trigger"], event)
        elif call.kind == "condition":
            await _override(what["name"], what["to"], operations)
        else:
            await self._window(what, operations)

    async def _window(self, what: Any, operations: Operations) -> None:
        desk, name = operations.maintenance, what["name"]
        if what["to"] == "define":
            await desk.define(name, dict(what["settings"]), who="somebody")
        elif what["to"] == "remove":
            await desk.remove(name, who="somebody")
        elif what["to"] == "override":
            await desk.override(name, until=None, duration_s=what["for_s"], reason="so be it", who="somebody")
        else:
            await desk.end_override(name, who="somebody")

    # Looking

    async def look(self, operations: Operations) -> None:
        """Ask why each trigger ran or did not, and for the engine's own proof: neither may leave anything open."""
        store, now = operations.store, operations.clock.now()
        for name in operations.trigger_names():
            cursor = None
            while True:
                page = await inquire(
                    store, operations.subject(name), start=BEGINNING - timedelta(days=1), end=now, now=now, limit=200,
                    cursor=cursor,
                )  # fmt: skip
                for line in page["items"]:
                    if line["code"] == "unexplained":
                        self.world.find(f"why {name}: {line['at']}: {line['reason']}")
                cursor = page["next"]
                if cursor is None:
                    break
        proof = await prove(store, map(operations.subject, operations.trigger_names()), now)
        for broken in proof.broken:
            self.world.find(f"doctor: {broken}")
        for lane in (None, *Lane):
            await operations.queue.page(lane=lane, limit=20)
        await operations.conditions.views()
        operations.maintenance.views()


async def _override(name: str, to: Any, operations: Operations) -> None:
    if "reset" in to:
        await operations.conditions.reset(name)
    elif "least" in to:
        await operations.conditions.override(name, reason="so be it", who="somebody", thresholds=to)
    else:
        await operations.conditions.override(name, reason="so be it", who="somebody", **to)


def _flush_of(which: Any) -> FlushRequest:
    if "states" in which:
        return FlushRequest(states=frozenset({RunState(state) for state in which["states"]}))
    if "lane" in which:
        return FlushRequest(lane=Lane(which["lane"]))
    try:
        return FlushRequest(**which)
    except TypeError as error:
        raise InvalidRequest(str(error)) from error
