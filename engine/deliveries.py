"""Deliveries: somebody is told of the end of a run, however long it takes; what is told, to whom, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

RECOVERED = "recovered"
"""What is told, besides how runs end: a run succeeded after others of its job had failed."""


ALERT = "alert:"
CALLBACK, NOTIFY = "callback:", "notify:"
"""Where a delivery tells of an alert, this and the alert's name stand in the place of the run."""


def of_alert(name: str) -> str:
    """Return what stands in the place of the run where a delivery tells of an alert."""
    return f"{ALERT}{name}"


class DeliveryState(StrEnum):
    """Where a delivery stands. A crash keeps each of them.

    - `waiting`: it is tried at its due time; one that was being tried when the engine died is tried again.
    - `delivered`: the receiver took it.
    - `failed`: it was given up, or the receiver wants nothing any more.
    """

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Struct, frozen=True, kw_only=True):
    """One message to one receiver.

    - `target`: who gets it: `callback:JOB` or `notify:NAME`.
    - `run`, `job`: what it tells of; where that is an alert, see `alert`.
    - `event`: what it tells: how the run ended, or `recovered`; of an alert that it was `opened`, say.
    - `message`: what is told, any JSON object; it is the same at each try.
    - `attempts`: how often it was tried; `code` and `reason` say how it stands, or how the last try went.
    """

    id: str
    target: str
    run: str
    job: str
    event: str
    created_at: datetime
    message: Mapping[str, Any]
    state: DeliveryState = DeliveryState.WAITING
    code: str = "waiting"
    reason: str = "waiting: not tried yet"
    attempts: int = 0
    due_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def alert(self) -> str | None:
        """The name of the alert that it tells of; None where it tells of a run."""
        return self.run.removeprefix(ALERT) if self.run.startswith(ALERT) else None


class Receiver(Struct, frozen=True, kw_only=True):
    """Somebody who is told of runs, by name. `channel` is the way, a plugin's settings (an `engine.plugin.Channel`)."""

    name: str
    channel: Any
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""


class Tried(Struct, frozen=True, kw_only=True):
    """A delivery that waits was tried, or is given up: how it stands then. With `due_at` it waits for the next try."""

    delivery: str
    state: DeliveryState
    code: str
    reason: str
    attempts: int
    at: datetime
    due_at: datetime | None = None


class DeliveryHead(Struct, frozen=True, kw_only=True):
    """The deliveries to one target that wait: when the first is due."""

    target: str
    due_at: datetime


class DeliveryFilter(Struct, frozen=True, kw_only=True):
    """Which deliveries a list holds; what is None does not restrict."""

    state: DeliveryState | None = None
    target: str | None = None
    run: str | None = None


def named_target(target: str) -> str:
    """Return who gets a message as people know it."""
    kind, _, name = target.partition(":")
    return f"callback of job {name}" if f"{kind}:" == CALLBACK else f"notify.{name}"


def named_subject(delivery: Delivery) -> str:
    """Return what a message tells of."""
    return f"run {delivery.run}" if delivery.alert is None else f"alert {delivery.alert}"
