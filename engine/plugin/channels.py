"""Channels: ways on which people and programs are told of the ends of runs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from engine.clock import Clock
from engine.plugin.settings import Plugin


class Mood(StrEnum):
    """How a message is meant, for channels that show it by a colour or a sign."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class Message(Struct, frozen=True, kw_only=True):
    """What is told. It is the same at each try, and holds no secret of the configuration.

    - `id`: identifies it, so that a receiver knows one that comes again.
    - `type`: `engine.run.<outcome>`, or `engine.job.recovered`.
    - `title`, `text`: for people.
    - `data`: for programs: the run's end as the data of its event has it.
    """

    id: str
    type: str
    at: datetime
    title: str
    text: str
    mood: Mood = Mood.INFO
    data: Mapping[str, Any] = {}


class Reception(StrEnum):
    """What a receiver made of a message."""

    TAKEN = "taken"
    NOT_NOW = "not_now"
    GONE = "gone"


class Receipt(Struct, frozen=True, kw_only=True):
    """How a try went, with a sentence that says why.

    `not_now` is tried again, after `retry_after_s` at the soonest where that is given; `gone` is not.
    """

    reception: Reception
    reason: str
    retry_after_s: float | None = None

    @staticmethod
    def taken(reason: str) -> Receipt:
        """The receiver has it."""
        return Receipt(reception=Reception.TAKEN, reason=reason)

    @staticmethod
    def not_now(reason: str, *, retry_after_s: float | None = None) -> Receipt:
        """The receiver can't be reached, or does not take it now."""
        return Receipt(reception=Reception.NOT_NOW, reason=reason, retry_after_s=retry_after_s)

    @staticmethod
    def gone(reason: str) -> Receipt:
        """There is no such receiver any more, or it wants no such messages."""
        return Receipt(reception=Reception.GONE, reason=reason)


class ChannelContext(Protocol):
    """What the engine offers to a try."""

    clock: Clock
    base: Path
    """The directory of the configuration file: relative paths in settings are relative to it."""

    log: logging.LoggerAdapter[logging.Logger]


class Channel(Plugin, frozen=True, kw_only=True):
    """A way to one receiver. Messages to it are delivered one after the other, each until it is taken or given up.

    `pauses_s` are the pauses before the second try, the third and so on; when they are used up, a message is given up.
    """

    pauses_s: ClassVar[tuple[float, ...]] = (5.0, 60.0, 300.0, 1800.0, 7200.0)

    @abstractmethod
    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        """Deliver a message. What it raises is as `not_now`. It is cancelled when it takes too long, or the engine
        stops; the message is delivered again then."""
