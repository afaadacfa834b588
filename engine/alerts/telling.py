"""Telling: messages of alerts go through the outbox, in one commit with what is remembered of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from engine.alerts.kept import ALERTS_SOURCE
from engine.alerts.messages import OPENED, REPEATED
from engine.decide.alerts import Alert
from engine.decide.delivering import given_up
from engine.deliveries import Delivery, DeliveryFilter, DeliveryState, Receiver, Tried, of_alert
from engine.ids import new_id
from engine.store.base import Store
from engine.store.changes import Accept, Memory

NOTIFY = "notify:"

MOST_SUPERSEDED = 100


class Line(Protocol):
    """What delivers; see `engine.aftermath.organ.Line`."""

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

    def deliveries(self, alert: Alert, event: str, message: Mapping[str, Any], now: datetime) -> tuple[Delivery, ...]:
        receivers, made = self._receivers(), []
        for name in alert.notify:
            receiver = receivers.get(name)
            if receiver is None or not receiver.enabled:
                continue
            full = self._line.join(target := f"{NOTIFY}{name}")
            made.append(
                Delivery(
                    id=new_id(), target=target, run=of_alert(alert.name), job="", event=event, created_at=now,
                    message=message, due_at=now,
                )
                if full is None
                else Delivery(
                    id=new_id(), target=target, run=of_alert(alert.name), job="", event=event, created_at=now,
                    message=message, state=DeliveryState.FAILED, code="line_full", reason=f"not tried: {full}",
                    finished_at=now,
                )
            )  # fmt: skip
        return tuple(made)
