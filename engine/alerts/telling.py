"""Telling: messages of alerts go through the outbox, in one commit with what is remembered of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from msgspec.structs import replace

from engine.alerts.kept import ALERTS_SOURCE
from engine.alerts.messages import OPENED, REPEATED
from engine.decide.alerts import Alert
from engine.decide.delivering import given_up
from engine.deliveries import NOTIFY, Delivery, DeliveryFilter, DeliveryState, Receiver, Tried, of_alert
from engine.ids import new_id
from engine.plugin.channels import Receipt, Reception
from engine.store.base import Store
from engine.store.changes import Accept, Memory

MOST_SUPERSEDED = 100


AT_ONCE_WITHIN_S = 30.0
"""So long a receiver has to take what it is told past the store."""


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
        self, *, store: Store, submit: Callable[[Accept], Awaitable[Any]], line: Line,
        receivers: Callable[[], Mapping[str, Receiver]],
    ) -> None:  # fmt: skip
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

    async def at_once(
        self, alert: Alert, event: str, message: Mapping[str, Any], now: datetime
    ) -> tuple[Delivery, ...]:
        """Tell all who are told of an alert past the store, once; return how that went: who was not reached waits."""
        made = [_delivery(target, alert, event, message, now) for target in self.targets(alert)]
        receipts = await asyncio.gather(*(self._line.try_at_once(one, AT_ONCE_WITHIN_S) for one in made))
        return tuple(
            replace(
                one, state=DeliveryState.DELIVERED, code="delivered", attempts=1, due_at=None, finished_at=now,
                reason=f"{receipt.reason}; at once, as the store could not keep it",
            )
            if receipt.reception is Reception.TAKEN
            else one
            for one, receipt in zip(made, receipts, strict=True)
        )  # fmt: skip


def _delivery(target: str, alert: Alert, event: str, message: Mapping[str, Any], now: datetime) -> Delivery:
    return Delivery(
        id=new_id(), target=target, run=of_alert(alert.name), job="", event=event, created_at=now, message=message,
        due_at=now,
    )  # fmt: skip
