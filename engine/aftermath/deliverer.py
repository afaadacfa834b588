"""The deliverer: it takes what waits to its receivers, each in its own time, and one that fails keeps up no other."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from engine import cancellation
from engine.aftermath.messages import message_of
from engine.clock import LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.decide.delivering import OLDEST, after_try, given_up
from engine.deliveries import (
    CALLBACK,
    NOTIFY,
    Delivery,
    DeliveryState,
    Receiver,
    Tried,
    named_subject,
    named_target,
)
from engine.errors import StoreUnavailable
from engine.jobs import Job
from engine.logs import IdLogger, Masker
from engine.plugin.channels import Channel, Message, Receipt, Reception
from engine.store.base import Store
from engine.store.changes import Accept

log = logging.getLogger("engine.delivery")

MOST_AT_ONCE = 16
"""So many receivers are told something at once."""

MOST_IN_A_TURN = 20
"""So many messages one gets in a row while others wait."""

MOST_WAITING = 10_000
"""So many may wait for one receiver; what comes more is recorded, and not tried."""

PAUSE_S = 0.05
"""Between two looks into the store: ends that come close together are looked at together."""

TRY_WITHIN_S = 600.0
"""A try that takes longer is no answer; channels have shorter times of their own."""

LONGEST_REST_S = 60.0
"""A receiver that does not take anything is left alone for so long, however much waits for it."""

RETRY_STORE_S = 1.0
LONGEST_REASON = 1_000

KEPT = timedelta(days=30)
"""What ended before that is forgotten."""

TIDY_S = 3600.0

Submit = Callable[[Accept], Awaitable[Any]]


class Context:
    """What a channel gets for one try; see `engine.plugin.ChannelContext`."""

    def __init__(self, delivery: Delivery, clock: Clock, base: Path) -> None:
        self.clock: Clock = clock
        self.base: Path = base
        self.log: logging.LoggerAdapter[logging.Logger] = IdLogger(
            log, {"delivery": delivery.id, "target": delivery.target}
        )


class Deliverer:
    """Delivers what is stored, until it is cancelled; see `Line` for what the aftermath of a run uses of it.

    `submit` makes a change durable. A message that was taken is delivered again where the engine dies before that is
    stored: its id tells the receiver.
    """

    def __init__(
        self, *, clock: Clock, store: Store, submit: Submit, jobs: Mapping[str, Job],
        receivers: Mapping[str, Receiver], base: Path, secrets: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._submit = submit
        self._jobs = jobs
        self._receivers = receivers
        self._base = base
        self._mask = Masker(secrets).mask
        self.waiting: Counter[str] = Counter()
        """How many deliveries wait, by target."""
        self._busy: set[str] = set()
        self._rests: dict[str, tuple[int, datetime]] = {}
        """How often in a row a target took nothing, and until when it is left alone."""
        self._served: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._counts_anew = False
        self.on_given_up: Callable[[Delivery, str], None] = lambda delivery, why: None
        """Hears of what could not be told, and why."""

    # The line

    def join(self, target: str) -> str | None:
        if self.waiting[target] >= MOST_WAITING:
            return f"{MOST_WAITING} messages wait for it already"
        self.waiting[target] += 1
        return None

    def stored(self, *, well: bool) -> None:
        self._counts_anew = self._counts_anew or not well
        self._woken.set()

    async def try_at_once(self, delivery: Delivery, within_s: float) -> Receipt:
        channel = self._channel_of(delivery.target)
        if channel is None:
            return Receipt.not_now(f"the configuration has no {named_target(delivery.target)} any more")
        receipt = await self._deliver(channel, delivery, within_s)
        return replace(receipt, reason=self._said(receipt))

    # Life

    async def load(self) -> None:
        """Count what waits; raise StoreError."""
        self.waiting = Counter(await self._store.waiting_deliveries())

    async def run(self) -> None:
        """Deliver what is due, again and again, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._tidy, name="deliveries: tidy")
            while True:
                self._woken.clear()
                try:
                    next_at = await self._serve_due(group)
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_STORE_S)
                    continue
                if not self.waiting and not self._busy:
                    await self._woken.wait()
                    continue
                await self._clock.sleep(PAUSE_S)
                wait_s = LONGEST_SLEEP_S
                if next_at is not None:
                    wait_s = min(max((next_at - self._clock.now()).total_seconds(), 0.0), wait_s)
                if wait_s > 0:
                    await sleep_or_wake(self._clock, wait_s, self._woken)

    async def _serve_due(self, group: TaskGroup) -> datetime | None:
        """Serve the targets for which something is due; return when to look again, where that is known."""
        if self._counts_anew:
            self._counts_anew = False
            try:
                await self.load()
            except BaseException:
                self._counts_anew = True
                raise
        elif not self.waiting:
            return None
        now, next_at = self._clock.now(), None
        heads = await self._store.delivery_heads()
        for head in sorted(heads, key=lambda head: self._served.get(head.target, 0.0)):
            target = head.target
            due_at = max(head.due_at, self._rests.get(target, (0, head.due_at))[1])
            if target in self._busy:
                continue  # it wakes us when it has been served
            if due_at > now:
                next_at = due_at if next_at is None else min(next_at, due_at)
            elif len(self._busy) < MOST_AT_ONCE:
                self._busy.add(target)
                group.start_soon(self._serve, target, name=f"deliver to {target}")
        return next_at

    async def _serve(self, target: str) -> None:
        """Deliver what is due to one target, until it takes nothing or has had its turn."""
        try:
            for delivery in await self._store.due_deliveries(target, before=self._clock.now(), limit=MOST_IN_A_TURN):
                tried = await self._try(delivery)
                await self._record(delivery, tried)
                if tried.state is DeliveryState.WAITING:
                    return
        except StoreUnavailable:
            await self._clock.sleep(RETRY_STORE_S)
        finally:
            self._busy.discard(target)
            self._served[target] = self._clock.monotonic()
            self._woken.set()

    # One delivery

    async def _try(self, delivery: Delivery) -> Tried:
        """Try to deliver, and return how the delivery stands then."""
        now = self._clock.now()
        channel = self._channel_of(delivery.target)
        if channel is None:
            return given_up(
                delivery, "no_receiver", f"the configuration has no {named_target(delivery.target)} any more", now
            )
        if now - delivery.created_at >= OLDEST and delivery.attempts:
            return given_up(delivery, "given_up", f"it waits for too long; {delivery.reason}", now)
        receipt = await self._deliver(channel, delivery)
        receipt = replace(receipt, reason=self._said(receipt))
        now = self._clock.now()
        tried = after_try(delivery, receipt, channel.pauses_s, now)
        if receipt.reception is Reception.NOT_NOW:
            count = self._rests.get(delivery.target, (0, now))[0] + 1
            rest_s = min(2.0 ** min(count - 1, 10), LONGEST_REST_S)
            self._rests[delivery.target] = (count, now + timedelta(seconds=rest_s))
        else:
            self._rests.pop(delivery.target, None)
        return tried

    def _said(self, receipt: Receipt) -> str:
        return self._mask(" ".join(receipt.reason.split()))[:LONGEST_REASON]

    async def _deliver(self, channel: Channel, delivery: Delivery, within_s: float = TRY_WITHIN_S) -> Receipt:
        """Let the channel deliver, whatever it does, in bounded time."""
        receipts: list[Receipt] = []
        context, message = Context(delivery, self._clock, self._base), message_of(delivery)

        async def work() -> None:
            receipts.append(await self._receipt(channel, context, message))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await self._clock.sleep(within_s)
            group.cancel_scope.cancel()
        return receipts[0] if receipts else Receipt.not_now(f"no answer within {within_s:g}s")

    async def _receipt(self, channel: Channel, context: Context, message: Message) -> Receipt:
        try:
            receipt: Any = await channel.deliver(context, message)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # plugin code: also SystemExit, which would end the engine
            if isinstance(error, anyio.get_cancelled_exc_class()) and cancellation.is_wanted():
                raise
            context.log.exception("A channel raised", extra={"action": "channel_raised"})
            return Receipt.not_now(f"the channel raised {type(error).__name__}: {error}")
        if not isinstance(receipt, Receipt) or not isinstance(receipt.reason, str):
            return Receipt.not_now(f"the channel returned {type(receipt).__name__}, and no receipt")
        return receipt

    def _channel_of(self, target: str) -> Channel | None:
        channel: Any = None
        if target.startswith(CALLBACK):
            job = self._jobs.get(target.removeprefix(CALLBACK))
            channel = None if job is None or job.callback is None else job.callback.channel
        elif target.startswith(NOTIFY):
            receiver = self._receivers.get(target.removeprefix(NOTIFY))
            channel = None if receiver is None or not receiver.enabled else receiver.channel
        return channel if isinstance(channel, Channel) else None

    async def _record(self, delivery: Delivery, tried: Tried) -> None:
        """Have it stored how a try went: it has happened, so it waits for a store that is away."""
        while True:
            try:
                await self._submit(Accept(entries=(), tried=(tried,)))
            except StoreUnavailable:
                await self._clock.sleep(RETRY_STORE_S)
                continue
            break
        if tried.state is not DeliveryState.WAITING:
            self.waiting[delivery.target] -= 1
            if self.waiting[delivery.target] <= 0:
                del self.waiting[delivery.target]
        if tried.state is DeliveryState.DELIVERED:
            return
        if tried.state is DeliveryState.FAILED:
            self.on_given_up(delivery, tried.reason)
        level = logging.WARNING if tried.state is DeliveryState.WAITING else logging.ERROR
        log.log(
            level, "%s was not told of %s: %s", named_target(delivery.target), named_subject(delivery), tried.reason,
            extra={"action": "not_delivered", "delivery": delivery.id, "code": tried.code},
        )  # fmt: skip

    async def _tidy(self) -> None:
        """Forget what ended long ago, a little at a time."""
        while True:
            before = self._clock.now() - KEPT
            try:
                while await self._store.has_deliveries_before(before):
                    await self._submit(Accept(entries=(), forget_deliveries=before))
                    await self._clock.sleep(PAUSE_S)
            except StoreUnavailable:
                pass
            await self._clock.sleep(TIDY_S)
