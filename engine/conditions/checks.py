"""Checks as they are made: one at a time for each condition, a bounded number in all, none for longer than it may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from engine.clock import Clock
from engine.decide.conditions import Named
from engine.errors import InvalidEvent
from engine.logs import Masker
from engine.payload import encode_json, survey
from engine.plugin.conditions import Answer, LastRun, Verdict
from engine.runs import RunState
from engine.units import format_duration

log = logging.getLogger("engine.conditions")

T = TypeVar("T")

MOST_AT_ONCE = 16
"""So many checks are made at once; further ones wait for their turn."""

LONGEST_REASON = 500
LARGEST_VALUE_BYTES = 4096


class Sharing(Protocol):
    """What holds what checks share."""

    async def get(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what was made for the key."""
        ...


class Endings(Protocol):
    """What knows how runs ended."""

    async def last(self, job: str, states: Sequence[RunState]) -> LastRun | None:
        """Return the run of a job that ended last in one of these states."""
        ...


class NoAnswer(Exception):
    """A check has no answer; the text says why."""


class Context:
    """What a check sees of the engine: see `engine.plugin.ConditionContext`."""

    def __init__(self, name: str, *, base: Path, clock: Clock, shared: Sharing, endings: Endings) -> None:
        self.name = name
        self.base = base
        self.clock = clock
        self.log = logging.LoggerAdapter(logging.getLogger(f"engine.conditions.{name}"), {"condition": name})
        self._shared = shared
        self._endings = endings

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        return await self._shared.get(("condition", key), make)

    async def last_run(self, job: str, *states: RunState) -> LastRun | None:
        return await self._endings.last(job, states)


class Checks:
    """Makes checks. Answers are handed to `on_answer`, with how long they took; so is it told that there is none."""

    def __init__(
        self, *, base: Path, clock: Clock, shared: Sharing, endings: Endings, secrets: Collection[str],
        on_answer: Callable[[Named, Verdict | NoAnswer, float], None],
    ) -> None:  # fmt: skip
        self._base = base
        self._clock = clock
        self._shared = shared
        self._endings = endings
        self._mask = Masker(secrets).mask
        self._on_answer = on_answer
        self._group: TaskGroup | None = None
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._going: set[str] = set()
        self._stuck: set[str] = set()
        """Those of them whose time is over, and that have not ended."""

    def serve(self, group: TaskGroup | None) -> None:
        """Make checks as tasks of this group from now on; of none: no more of them."""
        self._group = group

    def begin(self, one: Named) -> None:
        """Begin a check, unless one of this condition is on its way: then that one answers."""
        if one.name in self._stuck:
            said = NoAnswer("the last check was told to end, and has not")
            asyncio.get_running_loop().call_soon(self._on_answer, one, said, 0.0)
        if one.name in self._going or self._group is None:
            return
        self._going.add(one.name)
        # The name tells who it is where a plugin blocks the event loop.
        self._group.start_soon(self._make, one, name=f"condition {one.name}")

    def is_going(self, name: str) -> bool:
        """Tell whether a check of a condition is on its way."""
        return name in self._going

    def will_answer(self, name: str) -> bool:
        """Tell whether a check of a condition is on its way whose answer is still to come."""
        return name in self._going and name not in self._stuck

    async def _make(self, one: Named) -> None:
        """Make a check, and answer once: when it is done, or when its time is over, though it may not end then."""
        await self._turns.acquire()
        begun_s, open_ = self._clock.monotonic(), True

        def answer(found: Verdict | NoAnswer) -> None:
            nonlocal open_
            if open_:
                open_ = False
                # One that ignores that its time is over does not keep others from their turn.
                self._turns.release()
                self._on_answer(one, found, self._clock.monotonic() - begun_s)

        async def expire() -> None:
            await self._clock.sleep(one.timeout_s)
            group.cancel_scope.cancel()
            self._stuck.add(one.name)
            answer(NoAnswer(f"no answer within {format_duration(one.timeout_s)}"))

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(expire, name=f"condition {one.name}: time")
                found = await self._asked(one)
                group.cancel_scope.cancel()
                self._going.discard(one.name)
                answer(found)
        finally:
            self._going.discard(one.name)
            self._stuck.discard(one.name)
            if open_:
                self._turns.release()

    async def _asked(self, one: Named) -> Verdict | NoAnswer:
        assert one.check is not None  # noqa: S101 - only checks are made
        context = Context(
            one.name, base=self._base, clock=self._clock, shared=self._shared, endings=self._endings
        )  # fmt: skip
        try:
            found: Any = await one.check.check(context)
        except Exception as error:  # check is plugin code
            log.warning(
                "Condition %s could not be checked", one.name, exc_info=True,
                extra={"action": "condition_raised", "condition": one.name},
            )  # fmt: skip
            return NoAnswer(self._line(f"{type(error).__name__}: {error}"))
        if not isinstance(found, Verdict):
            return NoAnswer(f"check returned a {type(found).__name__}, and no Verdict")
        return self._sound(found)

    def _sound(self, found: Verdict) -> Verdict | NoAnswer:
        """Return an answer as it may be kept and shown: a plugin may hand over anything."""
        if found.answer not in set(Answer) or type(found.reason) is not str:
            return NoAnswer("check returned a Verdict whose answer or reason is none")
        if found.until is not None and found.until.tzinfo is None:
            return NoAnswer("check returned a Verdict whose `until` has no time zone")
        return Verdict(
            answer=found.answer, reason=self._line(found.reason) or found.answer.value, until=found.until,
            value=self._value(found.value),
        )  # fmt: skip

    def _value(self, value: Any) -> Any:
        try:
            survey(value)
            text = encode_json(value)
        except (InvalidEvent, TypeError, ValueError):
            return self._line(repr(value))
        if len(text) > LARGEST_VALUE_BYTES:
            return self._line(text.decode("utf-8", "replace"))
        return self._line(value) if isinstance(value, str) else value

    def _line(self, text: str) -> str:
        return self._mask(" ".join(text.split()))[:LONGEST_REASON]
