"""What follows a try to deliver a message."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from zlib import crc32

from engine.deliveries import Delivery, DeliveryState, Tried
from engine.plugin.channels import Receipt, Reception

JITTER = 0.1
"""Pauses vary at random by up to this fraction, both ways: receivers that come back are not stormed."""

LONGEST_ASKED_S = 86_400.0
"""What a receiver asks for (`Retry-After`) is not waited for any longer."""

OLDEST = timedelta(days=3)
"""What waits for longer is given up, however few tries it had: the line before it is too long."""


def after_try(delivery: Delivery, receipt: Receipt, pauses_s: Sequence[float], now: datetime) -> Tried:
    """Return how a delivery stands after a try; `pauses_s` are those before the second one and so on."""
    attempts = delivery.attempts + 1
    if receipt.reception is Reception.TAKEN:
        return _tried(delivery, DeliveryState.DELIVERED, "delivered", f"delivered: {receipt.reason}", attempts, now)
    if receipt.reception is Reception.GONE:
        return _tried(delivery, DeliveryState.FAILED, "gone", f"failed: {receipt.reason}", attempts, now)
    if attempts > len(pauses_s) or now - delivery.created_at >= OLDEST:
        reason = f"given up after {attempts} {'try' if attempts == 1 else 'tries'}: {receipt.reason}"
        return _tried(delivery, DeliveryState.FAILED, "given_up", reason, attempts, now)
    # Deciding twice decides the same.
    spread = random.Random(crc32(f"{delivery.id}/{attempts}".encode())).uniform(-1.0, 1.0)  # noqa: S311 - no secret
    pause_s = pauses_s[attempts - 1] * (1.0 + JITTER * spread)
    asked_s = min(receipt.retry_after_s or 0.0, LONGEST_ASKED_S) * (1.0 + JITTER * abs(spread))
    due_at = now + timedelta(seconds=max(pause_s, asked_s))
    return _tried(
        delivery, DeliveryState.WAITING, "waiting", f"waiting: {receipt.reason}", attempts, now, due_at=due_at
    )  # fmt: skip


def given_up(delivery: Delivery, code: str, why: str, now: datetime) -> Tried:
    """Return a delivery that waits as one that is given up without another try."""
    return _tried(delivery, DeliveryState.FAILED, code, f"given up: {why}", delivery.attempts, now)


def _tried(
    delivery: Delivery, state: DeliveryState, code: str, reason: str, attempts: int, now: datetime,
    due_at: datetime | None = None,
) -> Tried:  # fmt: skip
    return Tried(
        delivery=delivery.id, state=state, code=code, reason=reason, attempts=attempts, at=now, due_at=due_at
    )  # fmt: skip
