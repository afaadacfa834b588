"""Telling: messages of alerts go through the outbox, in one commit with what is remembered of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import anyio
from msgspec.structs import replace

from engine.alerts.kept import ALERTS_SOURCE
from engine.alerts.messages import OPENED, REPEATED, event_of, told_of
from engine.clock import Clock
from engine.decide.alerts import Alert, Course, Round
from engine.decide.delivering import given_up
from engine.deliveries import NOTIFY, Delivery, DeliveryFilter, DeliveryState, Receiver, Tried, of_alert
from engine.ids import new_id
from engine.plugin.channels import Receipt, Reception
from engine.store.base import Store
from engine.store.changes import Accept, Memory

MOST_SUPERSEDED = 100


AT_ONCE_WITHIN_S = 30.0
"""So long all receivers together have to take what they are told past the store, of however many alerts."""


class Unkept(NamedTuple):
    """A round of an alert that the store could not keep, when it was to be told."""

    alert: Alert
    course: Course
    told: Round
    now: datetime
    now_s: float


class Line(Protocol):
    """What delivers; see `engine.aftermath.organ.Line`."""

    async def try_at_once(self, delivery: Delivery, within_s: float) -> Receipt:
        """Try, once, to deliver what is not stored, and say how that went."""
        ...

    def join(self, target: str) -> str | None:
        """Take note of one more that waits for a target; say why it can't where too many do."""
        ...

    def stored(self, *, well: bool) -> None:
        """Take note that what joined is durable, or was refused."""
        ...


class Teller:
    """Has messages delivered, and things remembered. `submit` makes a change durable."""

    def __init__(
        self, *, clock: Clock, store: Store, submit: Callable[[Accept], Awaitable[Any]], line: Line,
        receivers: Callable[[], Mapping[str, Receiver]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._submit = submit
        self._line = line
        self._receivers = receivers

    async def remember(self, values: Mapping[str, Any]) -> None:
        """Remember values durably, or, where they are None, forget them; raise StoreUnavailable."""
        await self._submit(Accept(entries=(), memory=Memory(source=ALERTS_SOURCE, values=values)))

    async def superseded(self, alert: Alert, targets: Collection[str], now: datetime) -> tuple[Tried, ...]:
        """Give up what still waits and is told by a later message, too: nobody hears of a beginning after its end."""
        which = DeliveryFilter(run=of_alert(alert.name), state=DeliveryState.WAITING)
        waiting = await self._store.deliveries(which, limit=MOST_SUPERSEDED)
        return tuple(
            given_up(one, "superseded", "a later message of the alert tells of it, too", now)
            for one in waiting
            if one.target in targets and one.event in (OPENED, REPEATED)
        )

    async def commit(
        self, values: Mapping[str, Any], deliveries: tuple[Delivery, ...], superseded: tuple[Tried, ...] = ()
    ) -> None:
        memory = Memory(source=ALERTS_SOURCE, values=values) if values else None
        try:
            await self._submit(Accept(entries=(), memory=memory, deliveries=deliveries, tried=superseded))
        except BaseException:
            self._line.stored(well=False)
            raise
        if deliveries:
            # What was given up here waits no more: how much does is counted anew.
            self._line.stored(well=not superseded)

    def targets(self, alert: Alert) -> tuple[str, ...]:
        """Return who is told of an alert."""
        receivers = self._receivers()
        there = [name for name in alert.notify if (found := receivers.get(name)) is not None and found.enabled]
        return tuple(f"{NOTIFY}{name}" for name in there)

    def deliveries(self, alert: Alert, event: str, message: Mapping[str, Any], now: datetime) -> tuple[Delivery, ...]:
        """Return the messages, which have joined the line: what is made of them has to be told to it."""
        return tuple(self.joined(_delivery(target, alert, event, message, now)) for target in self.targets(alert))

    def joined(self, delivery: Delivery) -> Delivery:
        """Have one that waits join the line, and return it; as one that failed, where the line is full."""
        full = self._line.join(delivery.target)
        if full is None:
            return delivery
        return replace(
            delivery, state=DeliveryState.FAILED, code="line_full", reason=f"not tried: {full}", due_at=None,
            finished_at=delivery.created_at,
        )  # fmt: skip

    async def at_once(self, rounds: Sequence[Unkept]) -> list[tuple[Delivery, ...]]:
        """Tell all who are told of alerts past the store, once; return how that went for each round.

        Receivers are told side by side, and each of one alert after the other: one that hangs costs the others
        nothing. Who was not reached within the time that is for all of them waits.
        """
        made = [
            [
                _delivery(target, one.alert, event_of(one.told), told_of(one.alert, one.told, one.now), one.now)
                for target in self.targets(one.alert)
            ]
            for one in rounds
        ]
        lanes: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in (each for deliveries in made for each in deliveries):
            lanes[delivery.target].append(delivery)
        taken: dict[str, Receipt] = {}
        until_s = self._clock.monotonic() + AT_ONCE_WITHIN_S
        async with anyio.create_task_group() as group:
            for target, lane in lanes.items():
                group.start_soon(self._try_lane, lane, until_s, taken, name=f"alerts past the store: {target}")
        return [
            tuple(_taken(one, taken[one.id]) if one.id in taken else one for one in deliveries) for deliveries in made
        ]

    async def _try_lane(self, lane: Sequence[Delivery], until_s: float, taken: dict[str, Receipt]) -> None:
        """Try what is for one receiver, while there is time; note what it took."""
        for delivery in lane:
            left_s = until_s - self._clock.monotonic()
            if left_s <= 0:
                return
            receipt = await self._line.try_at_once(delivery, left_s)
            if receipt.reception is Reception.TAKEN:
                taken[delivery.id] = receipt


def _taken(delivery: Delivery, receipt: Receipt) -> Delivery:
    return replace(
        delivery, state=DeliveryState.DELIVERED, code="delivered", attempts=1, due_at=None,
        finished_at=delivery.created_at, reason=f"{receipt.reason}; at once, as the store could not keep it",
    )  # fmt: skip


def _delivery(target: str, alert: Alert, event: str, message: Mapping[str, Any], now: datetime) -> Delivery:
    return Delivery(
        id=new_id(), target=target, run=of_alert(alert.name), job="", event=event, created_at=now, message=message,
        due_at=now,
    )  # fmt: skip
