"""Conditions: what lets runs pass, holds them, or skips them."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from msgspec import Struct

from engine.clock import Clock
from engine.plugin.settings import Plugin
from engine.runs import RunState

T = TypeVar("T")


class Answer(StrEnum):
    """What a check says of the runs that wait for it."""

    PASS = "pass"  # noqa: S105 - no password
    HOLD = "hold"
    SKIP = "skip"


class Verdict(Struct, frozen=True, kw_only=True):
    """What a check found: an answer, a sentence that says why, and the value that it saw.

    - `reason`: without the condition's name, such as `connection refused`.
    - `value`: what was measured or read: any JSON value that is not large; None where there is none.
    - `until`: of `hold`: when it may be otherwise at the earliest, such as the opening of a window: it is checked again
      then, if that comes before the usual time.
    """

    answer: Answer
    reason: str
    value: Any = None
    until: datetime | None = None

    @staticmethod
    def passes(reason: str, value: Any = None) -> Verdict:
        """Let runs pass."""
        return Verdict(answer=Answer.PASS, reason=reason, value=value)

    @staticmethod
    def holds(reason: str, value: Any = None, *, until: datetime | None = None) -> Verdict:
        """Let runs wait, or skip them where their trigger does not want to wait."""
        return Verdict(answer=Answer.HOLD, reason=reason, value=value, until=until)

    @staticmethod
    def skips(reason: str, value: Any = None) -> Verdict:
        """Skip runs, also those whose trigger would wait."""
        return Verdict(answer=Answer.SKIP, reason=reason, value=value)


class LastRun(Struct, frozen=True, kw_only=True):
    """How a run of a job ended."""

    run: str
    state: RunState
    finished_at: datetime
    reason: str = ""


class ConditionContext(Protocol):
    """What the engine offers to a check."""

    name: str
    """The name of the condition in the configuration."""

    base: Path
    """The directory of the configuration file: relative paths in settings are relative to it."""

    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what all checks with this key share, such as a pool of connections; as for runners."""
        ...

    async def last_run(self, job: str, *states: RunState) -> LastRun | None:
        """Return the run of a job that ended last, in one of `states` (none: in any with which an attempt ends).

        None where there is none. Raises StoreUnavailable.
        """
        ...


class Condition(Plugin, frozen=True, kw_only=True):
    """A check of the world outside of a run. It is asked when runs wait for it, and its answer is used for a while.

    - `thresholds`: the settings that may be overridden while the engine runs: numbers, sizes and durations.
    """

    thresholds: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    async def check(self, context: ConditionContext) -> Verdict:
        """Look, and say whether runs may pass. What it raises, or that it takes too long, is no answer: then
        `on_error` counts. It is cancelled when its time is over."""

    def follows(self) -> Collection[str]:
        """Return the jobs whose ends may change the answer: it is checked anew when a run of one has ended."""
        return ()
