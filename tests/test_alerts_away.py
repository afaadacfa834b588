"""Alerts while the store is away: they are looked for, told past it once, and kept when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from engine.decide.alerts import What
from engine.deliveries import DeliveryFilter, DeliveryState, Receiver
from engine.errors import StoreUnavailable
from engine.plugin import Channel, ChannelContext, Message, Receipt
from engine.runs import RunState
from engine.testing import VirtualClock
from tests.test_alerts import Ear, World, _fresh, an_alert, world  # noqa: F401 - a fixture

FULL = StoreUnavailable("the disk is full")


class Deaf(Channel, frozen=True, kw_only=True):
    """Takes nothing while it is deaf."""

    name: ClassVar[str] = "deaf"
    heard: ClassVar[list[Message]] = []
    deaf: ClassVar[list[bool]] = []

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        if Deaf.deaf:
            return Receipt.not_now("connection refused")
        Deaf.heard.append(message)
        return Receipt.taken("thanks")


@pytest.fixture(autouse=True)
def _fresh_deaf() -> None:
    Deaf.heard.clear()
    Deaf.deaf.clear()


def away(room: World, error: StoreUnavailable | None = FULL) -> None:
    room.store.write_error = room.store.read_error = error


async def test_what_opens_while_the_store_is_away_is_told_once_and_kept_when_it_is_back(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with world(tmp_path, an_alert(), clock=clock) as room:
        away(room)
        room.end(RunState.FAILED, 3)
        await room.turn(120)
        assert len(room.titles) == 1
        away(room, None)
        await room.turn(60)
        assert len(room.titles) == 1
        [told] = await room.told(target="notify:ops")
        assert (told.state, told.attempts) == (DeliveryState.DELIVERED, 1)
        assert told.reason.endswith("thanks; at once, as the store could not keep it")
    async with world(tmp_path, an_alert(), clock=clock) as room:
        await room.turn(60)
        room.end(RunState.SUCCEEDED)
        await room.turn(120)
        assert room.titles[1:] == ["[over] failing: trigger t1"]


async def test_what_was_over_before_the_store_came_back_is_told_to_be_over_then(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(), an_alert(What.LEASE_AGE, name="lease", limit=60.0)) as room:
        away(room)
        room.lease_s = 61.0
        await room.turn(30)
        assert [title.split(":")[0] for title in room.titles] == ["[warning] lease"]
        room.lease_s = 0.0
        await room.turn(120)
        assert len(room.titles) == 1
        away(room, None)
        await room.turn(60)
        assert room.titles[1:] == ["[over] lease: engine"]
        assert not await room.store.memory("engine:alerts", after=None, limit=10)


async def test_who_was_not_reached_past_the_store_is_told_when_it_is_back(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert(notify=("ops", "boss"))) as room:
        room.receivers["boss"] = Receiver(name="boss", channel=Deaf())
        Deaf.deaf.append(True)
        away(room)
        room.end(RunState.FAILED, 3)
        await room.turn(60)
        assert (len(Ear.heard), len(Deaf.heard)) == (1, 0)
        Deaf.deaf.clear()
        away(room, None)
        await room.turn(60)
        assert (len(Ear.heard), len(Deaf.heard)) == (1, 1)
        assert room.deliverer.waiting.total() == 0


class Hung(Channel, frozen=True, kw_only=True):
    """Never answers."""

    name: ClassVar[str] = "hung"
    asked: ClassVar[list[Message]] = []

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        Hung.asked.append(message)
        await anyio.sleep_forever()
        raise AssertionError


async def test_a_receiver_that_hangs_keeps_alerts_from_nobody_else_past_the_store(tmp_path: Path) -> None:
    Hung.asked.clear()
    names = [f"a{number}" for number in range(5)]
    rules = [an_alert(What.LEASE_AGE, name=name, limit=60.0, notify=("stuck", "ops")) for name in names]
    async with world(tmp_path, *rules) as room:
        room.receivers["stuck"] = Receiver(name="stuck", channel=Hung())
        away(room)
        room.lease_s = 61.0
        await room.turn(10)
        # All of them are at the one receiver, while the other one has been asked once.
        assert [title.split(":")[0] for title in room.titles] == [f"[warning] {name}" for name in names]
        assert len(Hung.asked) == 1
        looked_at = room.alerts.view("a0")["looked_at"]
        await room.turn(50)  # 30 seconds for all, and the pause after what the store could not keep
        assert room.alerts.view("a0")["looked_at"] != looked_at
        assert (len(room.titles), len(Hung.asked)) == (5, 1)
        away(room, None)
        await room.turn(60)
        [*waiting] = await room.store.deliveries(DeliveryFilter(target="notify:stuck"), limit=10)
        assert [one.state for one in waiting] == [DeliveryState.WAITING] * 5


async def test_what_nobody_could_be_told_is_tried_until_somebody_is(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert()) as room:
        away(room)
        Ear.answer.append(Receipt.not_now("connection refused"))
        room.end(RunState.FAILED, 3)
        await room.turn(60)
        assert room.alerts.view("failing")["open"] == 1
        Ear.answer.clear()
        await room.turn(60)
        assert len(room.titles) == 1
        away(room, None)
        await room.turn(60)
        assert len(room.titles) == 1


async def test_one_that_can_not_be_kept_or_read_hides_none_of_the_others(tmp_path: Path) -> None:
    rules = (
        an_alert(What.QUEUE_AGE, name="a", notify=()), an_alert(name="b", notify=()),
        an_alert(What.LEASE_AGE, name="c", limit=60.0, notify=()),
    )  # fmt: skip
    async with world(tmp_path, *rules) as room:
        away(room)
        room.end(RunState.FAILED, 3)
        room.lease_s = 90.0
        await room.turn(30)
        assert set(room.alerts.status()) == {"b", "c"}
        assert room.alerts.check()["ok"]


async def test_a_mute_that_is_over_silences_nothing_though_its_end_can_not_be_stored(tmp_path: Path) -> None:
    async with world(tmp_path, an_alert()) as room:
        await room.alerts.mute("failing", duration_s=60, reason="a test")
        away(room)
        room.end(RunState.FAILED, 3)
        await room.turn(40)
        assert not Ear.heard
        await room.turn(60)
        assert len(Ear.heard) == 1


async def test_the_sentences_name_what_one_has_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stat:
        f_blocks, f_bfree, f_bavail, f_frsize = 1000, 40, 40, 2**20

    monkeypatch.setattr("engine.alerts.looking.os.statvfs", lambda path: Stat)
    rules = an_alert(What.SOURCE_UNHEALTHY, name="source"), an_alert(What.SILENT, name="silent")
    disk = an_alert(What.DISK_SHARE, name="disk", limit=0.05, description="a disk is nearly full")
    paused = an_alert(What.TRIGGER_STATE, name="paused", states=frozenset({"paused", "quarantined"}))
    async with world(tmp_path, *rules, disk, paused) as room:
        room.states |= {"t1": ("paused", "trigger t1 is paused: a look"), "t2": ("quarantined", "too many events")}
        room.alerts.facts = type(room.alerts.facts)(**{
            **{name: getattr(room.alerts.facts, name) for name in room.alerts.facts.__struct_fields__},
            "least_free_bytes": 64 * 2**20,
        })  # fmt: skip
        room.alerts._look._facts = room.alerts.facts  # type: ignore[union-attr]
        room.troubles["event:t1"] = ("failed: no route to host", None)
        room.silent.append((("trigger", "t2"), "trigger t2 expects an event every 5m, and none came since noon"))
        await room.turn()
        assert set(room.titles) == {
            "[warning] source: source event:t1: failed: no route to host; on it: t1",
            "[warning] silent: trigger t2: expects an event every 5m, and none came since noon",
            f"[warning] disk: disk {tmp_path}: only 4.0% are free (40MiB); no event is taken until 64MiB are",
            "[warning] paused: 2 of them",
        }
        [told] = [message for message in Ear.heard if "paused" in message.title]
        assert told.text == "trigger t1: is paused: a look\ntrigger t2: is quarantined: too many events"
        [told] = [message for message in Ear.heard if "disk" in message.title]
        assert told.text.endswith("no event is taken until 64MiB are\n\na disk is nearly full")
        Stat.f_bavail = 500
        await room.turn(120)
        [over] = [message for message in Ear.heard if message.title.startswith("[over] disk")]
        assert "nearly full" not in over.text
