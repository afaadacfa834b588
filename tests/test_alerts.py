"""Alerts: what goes wrong is told once, and so is its end, whatever dies, hangs or flaps meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from engine.aftermath import Deliverer
from engine.alerts import Alerts, Facts
from engine.config.alerts import STANDARD
from engine.decide.alerts import Alert, AlertScope, By, What
from engine.decide.breakers import SOURCE
from engine.decide.rules import Rule
from engine.deliveries import Delivery, DeliveryFilter, Receiver
from engine.errors import Conflict, NotFound
from engine.feed import Feed, Kind
from engine.jobs import Job
from engine.journal import Journal
from engine.plugin import Channel, ChannelContext, Message, Receipt
from engine.runs import Run, RunState
from engine.testing import VirtualClock
from engine.testing.store_contract.material import a_run, an_event
from engine.triggers import Trigger
from tests.organs import Heard, InlineStore, Works


class Ear(Channel, frozen=True, kw_only=True):
    """Hears what it is told, and answers as the test says."""

    name: ClassVar[str] = "ear"
    pauses_s: ClassVar[tuple[float, ...]] = (10.0, 60.0, 300.0, 1800.0, 7200.0)
    heard: ClassVar[list[Message]] = []
    answer: ClassVar[list[Receipt]] = []

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        if Ear.answer:
            return Ear.answer[0]
        Ear.heard.append(message)
        return Receipt.taken("thanks")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Ear.heard.clear()
    Ear.answer.clear()


class Silent:
    """Counts nothing."""

    def ended(self, run: Run, *args: Any) -> int:
        return run.instants


def an_alert(what: What = What.FAILURES, **fields: Any) -> Alert:
    settings = {"limit": 3.0, "gather_s": 0.0, "notify": ("ops",), **fields}
    return Alert(**{"name": "failing", "what": what, **settings})


class World:
    """Alerts over a store in a folder, and what they look at, which the test says."""

    def __init__(self, store: InlineStore, journal: Journal, clock: VirtualClock, *configured: Alert) -> None:
        self.store, self.clock = store, clock
        self.configured = {one.name: one for one in configured}
        self.receivers = {"ops": Receiver(name="ops", channel=Ear())}
        job = Job(name="oven", runner=Works())
        tags = {"t1": (), "t2": ("night",)}
        self.rules = {
            name: Rule(Trigger(name=name, job="oven", source=f"event:{name}", on=Heard(), tags=tags[name]), job)
            for name in tags
        }
        self.troubles: dict[str, tuple[str, datetime | None]] = {}
        self.silent: list[Any] = []
        self.unchecked: list[tuple[str, str]] = []
        self.states: dict[str, tuple[str, str | None]] = {}
        self.usual: dict[str, float] = {}
        self.least_free_bytes = 0
        self.lease_s: float | None = None
        self.held_up: tuple[float, str] | None = None
        self.deliverer = Deliverer(
            clock=clock, store=store, submit=journal.submit, jobs={}, receivers=self.receivers, base=Path("/")
        )
        self.alerts = Alerts(
            clock=clock, store=store, submit=journal.submit, line=self.deliverer, counts=Silent(),
            configured=lambda: self.configured, receivers=lambda: self.receivers, secrets=("hush-hush",),
        )  # fmt: skip
        self.deliverer.on_given_up = self.alerts.note_given_up
        self.alerts.facts = Facts(
            rules=self.rules, zone="UTC", usual_s=self._usual, troubles=lambda: self.troubles,
            silent=lambda: self.silent, unchecked=lambda: self.unchecked,
            in_state=lambda states: [(name, *found) for name, found in self.states.items() if found[0] in states],
            is_paused=lambda name: False, waiting=lambda: 1, schedule_of=lambda name: None,
            disks=(store.path.parent,), least_free_bytes=self.least_free_bytes, lease_age_s=lambda: self.lease_s,
            held_up=lambda: self.held_up,
        )  # fmt: skip

    async def _usual(self, job: str) -> float | None:
        return self.usual.get(job)

    def end(self, state: RunState, count: int = 1, trigger: str = "t1") -> None:
        for _ in range(count):
            self.alerts.ended(a_run(an_event(), trigger=trigger, job="oven"), state, "code", self.clock.now(), 1.0)

    def miss(self, instants: int) -> None:
        run = a_run(an_event(), trigger="t1", job="oven", state=RunState.MISSED, outputs={"instants": instants})
        self.alerts.ended(run, RunState.MISSED, "missed", self.clock.now(), None)

    async def turn(self, seconds: float = 20.0) -> None:
        for _ in range(max(int(seconds // 10), 1)):
            await self.clock.advance(10)

    @property
    def titles(self) -> list[str]:
        return [message.title for message in Ear.heard]

    async def told(self, **which: Any) -> list[Delivery]:
        return (await self.store.deliveries(DeliveryFilter(**which), limit=100))[::-1]


@asynccontextmanager
async def world(
    path: Path, *configured: Alert, clock: VirtualClock | None = None, delivers: bool = True
) -> AsyncIterator[World]:
    """Open a world; where the store is there already, it is another engine's after the first."""
    clock = clock or VirtualClock()
    store = InlineStore(path / "engine.db", clock)
    await store.open()
    journal = Journal(store, clock)
    room = World(store, journal, clock, *configured)
    await room.deliverer.load()
    await room.alerts.load()
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        if delivers:
            group.start_soon(room.deliverer.run)
        group.start_soon(room.alerts.run)
        await clock.advance(0)
        yield room
        group.cancel_scope.cancel()
    await store.close()


# Once, and once again


async def test_what_begins_and_is_over_is_told_once_each(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert()) as room:
        room.end(RunState.FAILED, 3)
        await room.turn(60)
        (title,) = room.titles
        assert title.startswith("[warning] failing: trigger t1: 3 runs failed in a row, since ")
        view = room.alerts.view("failing")
        assert (view["state"], view["open"], view["subjects"][0]["subject"]) == ("open", 1, "trigger t1")
        room.end(RunState.SUCCEEDED)
        await room.turn(120)
        assert len(room.titles) == 2
        assert room.titles[1] == "[over] failing: trigger t1"
        assert Ear.heard[1].type == "engine.alert.recovered"
        assert [(one.event, one.alert, one.code) for one in await room.told()] == [
            ("opened", "failing", "delivered"), ("recovered", "failing", "delivered")
        ]  # fmt: skip
        assert room.alerts.view("failing")["state"] == "ok"


async def test_what_changed_is_told_as_soon_as_it_was_gathered_and_not_at_the_next_look(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(gather_s=2.0)) as room:
        room.end(RunState.FAILED, 3)
        await room.clock.advance(10)
        assert not Ear.heard
        await room.clock.advance(2)
        await clock_turn(room)
        assert len(room.titles) == 1


async def test_who_listens_hears_at_once_of_what_changes(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(limit=1.0)) as room:
        feed = Feed(room.clock, "boot")
        room.alerts.announce = feed.alert
        with feed.listen():
            room.end(RunState.FAILED)
            await room.turn()
            await room.alerts.mute("failing", duration_s=25.0, reason="we know")
            await room.alerts.acknowledge("failing", reason="on it")
            await room.turn(40)
            await room.alerts.mute("failing", duration_s=60.0, reason="still")
            await room.alerts.unmute("failing")
            await room.alerts.unmute("failing")
            room.end(RunState.SUCCEEDED)
            await room.turn(120)
        found = feed.after(0, 100) or []
    assert [message.kind for message in found] == [Kind.ALERT] * 7
    assert [message.data["changed"] for message in found] == [
        "opened", "muted", "acknowledged", "unmuted", "muted", "unmuted", "over",
    ]  # fmt: skip
    opened = found[0]
    assert opened.triggers == ("t1",)
    assert (opened.data["subject"], opened.data["severity"]) == ("trigger t1", "warning")
    assert "1 run failed in a row" in opened.data["text"]


async def test_an_engine_that_was_killed_tells_nothing_twice_and_what_was_over_meanwhile(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(), clock=clock) as room:
        room.end(RunState.FAILED, 3)
        await room.turn()
        assert len(room.titles) == 1
    async with world(tmp_path, an_alert(), clock=clock) as room:
        await room.turn(300)
        assert len(room.titles) == 1
        assert room.alerts.view("failing")["open"] == 1
        room.end(RunState.SUCCEEDED)
        await room.turn(10)
    async with world(tmp_path, an_alert(), clock=clock) as room:  # it was over, and nobody was told yet
        await room.turn(120)
        assert room.titles[1:] == ["[over] failing: trigger t1"]


async def test_an_engine_killed_between_the_change_and_the_delivery_tells_it_at_its_next_start(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(), clock=clock, delivers=False) as room:
        room.end(RunState.FAILED, 3)
        await room.turn()
        assert [one.code for one in await room.told()] == ["waiting"]
    async with world(tmp_path, an_alert(), clock=clock) as room:
        await room.turn(60)
        assert len(room.titles) == 1
        assert len(await room.told()) == 1


async def test_a_channel_that_is_down_for_an_hour_gets_each_message_once_in_the_end(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(repeat_s=None)) as room:
        Ear.answer.append(Receipt.not_now("connection refused"))
        room.end(RunState.FAILED, 3)
        await room.turn(1800)
        room.end(RunState.SUCCEEDED)
        room.end(RunState.FAILED, 3, "t2")
        await room.turn(1800)
        codes = [(one.event, one.code, one.state) for one in await room.told(target="notify:ops")]
        assert [code for _, code, _ in codes] == ["superseded", "superseded", "waiting"]
        Ear.answer.clear()
        await room.turn(7200)
        # Of what it could not be told in time it hears once, and never that something begins which is over.
        (message,) = Ear.heard
        assert message.title == "[over] failing: trigger t1; 1 still open"
        assert [one["subject"] for one in message.data["still"]] == ["trigger t2"]
        assert room.deliverer.waiting.total() == 0


async def test_a_step_of_the_clock_neither_opens_nor_ends_anything(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(for_s=120.0), clock=clock) as room:
        room.end(RunState.FAILED, 3)
        await room.turn(30)
        clock.step(2 * 86_400)
        await room.turn(30)
        assert not Ear.heard
        clock.step(-4 * 86_400)
        await room.turn(90)
        assert len(room.titles) == 1
        await room.turn(120)
        assert len(room.titles) == 1


async def test_failures_in_a_row_are_counted_over_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(), clock=clock) as room:
        room.end(RunState.FAILED, 2)
        await room.turn()
    async with world(tmp_path, an_alert(), clock=clock) as room:
        await room.turn()
        assert not Ear.heard
        room.end(RunState.FAILED)
        await room.turn()
        assert len(room.titles) == 1


async def test_the_alert_of_a_table_that_is_gone_is_forgotten_and_told_to_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert()) as room:
        room.end(RunState.FAILED, 3)
        await room.turn()
        del room.configured["failing"]
        await room.turn()
        assert len(room.titles) == 1
        assert not room.alerts.views()
        room.configured["failing"] = an_alert()
        await room.turn()
        assert len(room.titles) == 2


# People


async def test_what_is_muted_is_seen_and_told_when_the_mute_is_over(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(), clock=clock) as room:
        view = await room.alerts.mute("failing", duration_s=3600, reason="we know", who="me")
        assert (view["muted"]["reason"], view["muted"]["who"]) == ("we know", "me")
        room.end(RunState.FAILED, 3)
        await room.turn()
        assert room.alerts.view("failing")["open"] == 1
    async with world(tmp_path, an_alert(), clock=clock) as room:
        room.end(RunState.FAILED)
        await room.turn(1800)
        assert not Ear.heard
        await room.turn(1900)
        assert len(room.titles) == 1
        assert room.alerts.view("failing")["muted"] is None


async def test_a_mute_that_is_ended_early_tells_what_is_open_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert()) as room:
        await room.alerts.mute("failing", duration_s=3600, reason="we know")
        room.end(RunState.FAILED, 3)
        await room.turn()
        await room.alerts.unmute("failing")
        await clock_turn(room)
        assert len(room.titles) == 1
        with pytest.raises(NotFound, match="did you mean"):
            await room.alerts.mute("faling", duration_s=1, reason="")


async def clock_turn(room: World) -> None:
    for _ in range(5):
        await room.clock.advance(0.1)


async def test_what_somebody_took_on_is_not_repeated_until_it_opens_anew(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(repeat_s=600.0), clock=clock) as room:
        with pytest.raises(Conflict, match="not open"):
            await room.alerts.acknowledge("failing", reason="")
        room.end(RunState.FAILED, 3)
        await room.turn(700)
        assert [message.type for message in Ear.heard] == ["engine.alert.opened", "engine.alert.repeated"]
        await room.alerts.acknowledge("failing", reason="on it", who="me")
    async with world(tmp_path, an_alert(repeat_s=600.0), clock=clock) as room:
        await room.turn(2000)
        assert len(Ear.heard) == 2
        assert room.alerts.view("failing")["acknowledged"]["reason"] == "on it"
        room.end(RunState.SUCCEEDED)
        await room.turn(120)
        assert room.alerts.view("failing")["acknowledged"] is None


async def test_the_test_button_reaches_all_who_are_told_and_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(), an_alert(name="quiet", notify=())) as room:
        (made,) = await room.alerts.test("failing", who="me")
        await clock_turn(room)
        assert [message.title for message in Ear.heard] == ["[test] failing: nothing is wrong"]
        found = await room.store.delivery(made)
        assert found is not None
        assert (found.event, found.alert, found.code) == ("test", "failing", "delivered")
        assert room.alerts.view("failing")["state"] == "ok"
        with pytest.raises(Conflict, match="nobody is told"):
            await room.alerts.test("quiet")


# What is looked at


async def test_a_rate_is_of_those_in_the_time_and_in_the_scope_and_by_whom_is_said(tmp_path: Path) -> None:
    rate = {"limit": 0.5, "over_s": 300.0, "notify": ()}
    async with world(
        tmp_path, an_alert(What.FAILURE_RATE, **rate), an_alert(What.FAILURE_RATE, name="all", by=By.ALL, **rate),
        an_alert(What.FAILURE_RATE, name="few", least=5, **rate),
        an_alert(What.FAILURE_RATE, name="night", scope=AlertScope(tags=frozenset({"night"})), **rate),
    ) as room:  # fmt: skip
        room.end(RunState.FAILED, 2, "t1")
        room.end(RunState.SUCCEEDED, 3, "t2")
        await room.turn()
        assert {name: one["open"] for name, one in room.alerts.status().items()} == {"failing": 1}
        room.end(RunState.FAILED, 4, "t2")
        await room.turn()
        assert set(room.alerts.status()) == {"all", "failing", "few", "night"}
        await room.turn(400)
        assert not room.alerts.status()


async def test_what_was_missed_is_counted_instant_by_instant(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(What.MISSED, limit=5.0, over_s=600.0)) as room:
        room.miss(4)
        await room.turn()
        assert not Ear.heard
        room.miss(1)
        await room.turn()
        assert "5 due instants were missed in 10m" in room.titles[0]


@pytest.mark.parametrize(
    ("what", "limit", "spoil"),
    [
        (What.SOURCE_UNHEALTHY, 0.0, lambda room: room.troubles.update({"event:t1": ("it hangs on hush-hush", None)})),
        (What.SILENT, 0.0, lambda room: room.silent.append(((SOURCE, "event:t1"), "it is silent"))),
        (What.CONDITION_UNHEALTHY, 0.0, lambda room: room.unchecked.append(("up", "no answer"))),
        (What.TRIGGER_STATE, 0.0, lambda room: room.states.update({"t1": ("quarantined", "too many events")})),
        (What.LEASE_AGE, 60.0, lambda room: setattr(room, "lease_s", 61.0)),
        (What.LOOP_LAG, 5.0, lambda room: setattr(room, "held_up", (7.0, "held up by x"))),
    ],
)
async def test_what_is_wrong_with_others_is_an_alert(tmp_path: Path, what: What, limit: float, spoil: Any) -> None:
    rule = an_alert(what, limit=limit, states=frozenset({"quarantined"}))
    async with world(tmp_path, rule) as room:
        await room.turn()
        assert not Ear.heard
        spoil(room)
        await room.turn()
        assert len(room.titles) == 1
        assert "hush-hush" not in str(Ear.heard)


@pytest.mark.parametrize(("what", "limit", "free"), [(What.DISK_FREE, 10_000, 1), (What.DISK_SHARE, 0.05, 4)])
async def test_a_disk_that_is_nearly_full_is_an_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: What, limit: float, free: int
) -> None:
    class Stat:
        f_blocks, f_bfree, f_frsize = 1000, 50, 4096
        f_bavail = 40

    monkeypatch.setattr("engine.alerts.looking.os.statvfs", lambda path: Stat)
    async with world(tmp_path, an_alert(what, limit=float(limit))) as room:
        if what is What.DISK_FREE:
            Stat.f_bavail = 2
        await room.turn()
        assert " are free" in room.titles[0]
        assert free


async def test_what_could_not_be_told_is_an_alert_of_its_own(tmp_path: Path) -> None:
    rules = an_alert(repeat_s=None), an_alert(What.UNDELIVERED, name="undelivered", limit=1.0, notify=())
    async with world(tmp_path, *rules) as room:
        Ear.answer.append(Receipt.gone("410"))
        room.end(RunState.FAILED, 3)
        await room.turn(60)
        (subject,) = room.alerts.view("undelivered")["subjects"]
        assert (subject["subject"], subject["state"]) == ("notify.ops", "open")
        assert subject["text"] == "1 message was given up in 1h; the last one, of alert failing: failed: 410"


async def test_every_alert_that_is_built_in_can_be_looked_for(tmp_path: Path) -> None:
    async with world(tmp_path, *STANDARD.values()) as room:
        await room.turn(30)
        assert [view["problem"] for view in room.alerts.views()] == [None] * len(STANDARD)
        assert all(view["looked_at"] and view["builtin"] for view in room.alerts.views())


async def test_each_thing_that_can_be_looked_at_is_looked_at(tmp_path: Path) -> None:
    every = [an_alert(what, name=what.value.replace("_", "-"), limit=1e9, notify=()) for what in What]
    async with world(tmp_path, *every) as room:
        await room.turn(30)
        assert {view["what"] for view in room.alerts.views()} == set(What)
        assert not [view for view in room.alerts.views() if view["problem"]]
