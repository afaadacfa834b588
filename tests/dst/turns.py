"""An event loop without real time: it passes when nobody has anything left to do, and a crash ends it between turns.

Nothing else may decide the order of things: no thread, no selector, no order of a set by addresses or hashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import selectors
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableSet
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio._backends import _asyncio as anyio_backend

import engine.clock
import engine.ids
import engine.sources.supervisor

T = TypeVar("T")

BEGINNING = datetime(2026, 3, 25, 11, 7, 3, tzinfo=UTC)
"""When every simulation begins: some days before summer time does in Europe."""

_ROUNDS = frozenset({"LONGEST_SLEEP_S", "BEAT_S", "STOOD_S", "FORGET_EVERY_S", "HOLD_S", "LOOK_S"})
"""How often organs look round, and what counts as late then."""

COLLECT_EACH = 50_000

MOST_TURNS_AT_ONCE = 50_000
"""So many turns of the loop at one instant are a circle in which something turns for ever."""


MOST_CANCELS = 1_000
"""A task that was told to end so often, and goes on, waits for others to end."""

_deliver_cancellation = anyio_backend.CancelScope._deliver_cancellation

TURN_S = 1e-6
"""How long a turn of the loop takes: no machine does anything in no time."""


class Crashed(BaseException):
    """The engine was killed: nothing of it goes on, not even a `finally`."""


class Frozen(BaseException):
    """The engine stands still, as by SIGSTOP; `thaw` lets it go on."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop


class Stuck(Exception):
    """Nobody waits for anything but another one who waits, or something turns round without end."""


class _Selector(selectors.SelectSelector):
    """Where the loop would wait for the world, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Loop | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        assert self.loop is not None
        self.loop.turn(timeout)
        return []


class _Numbered(asyncio.Task[Any]):
    """A task that stands in sets by its number, and not by its address."""

    numbers = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_Numbered.numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Loop(asyncio.SelectorEventLoop):
    """The loop of one life of the engine, from `start_s` on; at its turn number `dies_at` it is dead."""

    def __init__(self, start_s: float) -> None:
        self._time_s = start_s
        self._at_once = 0
        self._turns_of_wakes = 0
        self.turns = 0
        self.dies_at: int | None = None
        self.freezes = False
        """Whether it only stands still then."""
        self.main: asyncio.Task[Any] | None = None
        self.failed: list[dict[str, Any]] = []
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.set_task_factory(lambda loop, coroutine, **more: _Numbered(coroutine, loop=loop, **more))
        self.set_exception_handler(lambda _, context: self.failed.append(context))

    def time(self) -> float:
        return self._time_s

    def turn(self, timeout: float | None) -> None:
        """Let time pass until somebody is due, where nobody has anything to do at once."""
        self.turns += 1
        if not self.turns % COLLECT_EACH:
            gc.collect()  # at a moment that the seed says, as everything
        if self.dies_at is not None and self.turns >= self.dies_at:
            raise Frozen(self) if self.freezes else Crashed
        if timeout is None:
            raise Stuck("everybody waits, and nobody for the time")
        self._time_s += TURN_S
        if timeout == 0 and self._only_cancels():
            timeout = max(self._next_s() - self._time_s, 0.0)
        if timeout > 0:
            self._time_s += timeout
            self._at_once = 0
        else:
            self._at_once += 1
            if self._at_once > MOST_TURNS_AT_ONCE:
                names = sorted(task.get_name() for task in asyncio.all_tasks(self))
                raise Stuck(f"{MOST_TURNS_AT_ONCE} turns without time: {', '.join(names)}")

    def _only_cancels(self) -> bool:
        """Tell whether nobody has anything to do but anyio, which asks with each turn whether what it cancelled ended.

        That goes on for as long as something shields itself, which may be long. A task group that waits for such a one
        is woken each time, and waits on: so it is where nothing else has been done for some turns.
        """
        only_asks, only_wakes = True, True
        ready: Iterable[asyncio.Handle] = getattr(self, "_ready")  # noqa: B009 - nothing public tells
        for handle in ready:
            callback = getattr(handle, "_callback", None)
            if getattr(callback, "__func__", None) is _deliver_cancellation or handle.cancelled():
                continue
            woken = getattr(callback, "__self__", None)
            only_asks = False
            only_wakes = only_wakes and isinstance(woken, asyncio.Task) and woken.cancelling() > MOST_CANCELS
        self._turns_of_wakes = self._turns_of_wakes + 1 if only_wakes and not only_asks else 0
        return only_asks or self._turns_of_wakes > MOST_CANCELS

    def _next_s(self) -> float:
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled")  # noqa: B009
        return timers[0].when() if timers else self._time_s

    def die_soon(self, turns: int, *, freezes: bool = False) -> None:
        """Be dead after so many further turns, or stand still."""
        self.dies_at, self.freezes = self.turns + turns, freezes

    def wake(self, at_s: float) -> None:
        """Go on at a later time, after having stood still."""
        self._time_s, self.dies_at, self.freezes = at_s, None, False


class Graveyard:
    """Keeps what a crash cut off until nobody is there who could be harmed by its `finally` blocks."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def bury(self, loop: Loop) -> None:
        """Take in a loop and all its tasks."""
        self._tasks += asyncio.all_tasks(loop)
        loop.close()

    def close(self) -> None:
        """Let them go: what they raise, as they are torn off, is nobody's concern."""
        heard, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for task in self._tasks:
                    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - no one destroys it by mistake
                    with contextlib.suppress(BaseException):
                        task.get_coro().close()
                self._tasks.clear()
                gc.collect()
        finally:
            sys.unraisablehook = heard


class Clock:
    """The engine's clock: the loop's time, and a wall clock that can be set. It outlives the lives of the engine."""

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self.at_s = 0.0
        """How much time has passed since the beginning, while no loop runs."""
        self._set_by = timedelta()

    def now(self) -> datetime:
        return BEGINNING + self._set_by + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return self.at_s if self.loop is None else self.loop.time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0.0))

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self._set_by += timedelta(seconds=seconds)


class Ids:
    """Makes ids as `uuid_utils` does: by the wall clock, growing within a life of the engine, the rest by the seed."""

    def __init__(self, clock: Clock, seed: str) -> None:
        self._clock = clock
        self._random = random.Random(seed)
        self._last = 0

    def new_life(self) -> None:
        """Forget what was made: a process knows only its own."""
        self._last = 0

    def uuid7(self) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000)
        self._last = max(milliseconds << 20, self._last + 1 + self._random.randrange(8))
        made, tail = self._last & (2**68 - 1), self._random.getrandbits(54)
        text = f"{made >> 20:012x}7{made >> 8 & 0xFFF:03x}"
        text += f"{0x8000 | (made & 0xFF) << 6 | tail >> 48:04x}{tail & (2**48 - 1):012x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class _Ordered(MutableSet[Any]):
    """A set in the order in which things came."""

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: Any) -> None:
        self._items[value] = None

    def discard(self, value: Any) -> None:
        self._items.pop(value, None)


class _Chance:
    """Stands for the module `random` where the engine spreads what would come together."""

    def __init__(self, seed: str) -> None:
        self._seeds = random.Random(seed)

    def Random(self) -> random.Random:
        return random.Random(self._seeds.random())


async def _run_at_once(function: Callable[..., T], *args: Any, **_: Any) -> T:
    """Stand for a worker thread."""
    return function(*args)


@contextlib.contextmanager
def determined(ids: Ids, *, seed: str, longest_sleep_s: float) -> Iterator[None]:
    """Exchange what would come by chance: ids, and the order in which scopes cancel.

    `longest_sleep_s` is how often the organs look round; a week of every 30 s is mostly that.
    """
    scope_init = anyio_backend.CancelScope.__init__

    def ordered_init(scope: Any, *args: Any, **kwargs: Any) -> None:
        scope_init(scope, *args, **kwargs)
        scope._child_scopes, scope._tasks = _Ordered(), _Ordered()

    with contextlib.ExitStack() as stack:

        def exchange(owner: Any, name: str, value: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        exchange(anyio_backend.CancelScope, "__init__", ordered_init)
        exchange(engine.ids, "uuid_utils", ids)
        exchange(engine.sources.supervisor, "random", _Chance(seed))
        exchange(anyio.to_thread, "run_sync", _run_at_once)
        exchange(asyncio, "to_thread", _run_at_once)
        exchange(_Numbered, "numbers", count())
        for module in [module for name, module in sys.modules.items() if name.startswith(("engine.", "plugins."))]:
            if "run_sync" in vars(module):
                exchange(module, "run_sync", _run_at_once)
            for name in _ROUNDS & vars(module).keys():
                exchange(module, name, longest_sleep_s)
        if gc.isenabled():
            gc.disable()
            stack.callback(gc.enable)
        yield


def live(clock: Clock, graveyard: Graveyard, work: Callable[[Loop], Coroutine[Any, Any, T]]) -> T:
    """Run one life of the engine in a loop of its own, from when the last one ended; raise Crashed, Frozen, Stuck."""
    loop = Loop(clock.at_s)
    main = loop.main = loop.create_task(work(loop), name="life")
    main.add_done_callback(lambda _: loop.stop())
    _run(clock, graveyard, loop)
    result: T = main.result()
    return result


def thaw(clock: Clock, graveyard: Graveyard, loop: Loop, *, within_s: float) -> None:
    """Let a life that stood still go on; raise Stuck where it has not ended within so long, and what it raises."""
    loop.wake(clock.at_s)
    loop.call_later(within_s, loop.stop)
    _run(clock, graveyard, loop)
    assert loop.main is not None
    if not loop.main.done():
        raise Stuck(f"it goes on for {within_s} s")
    loop.main.result()


def _run(clock: Clock, graveyard: Graveyard, loop: Loop) -> None:
    clock.loop, is_over = loop, True
    try:
        loop.run_forever()
    except Frozen:
        is_over = False
        raise
    finally:
        clock.at_s, clock.loop = loop.time(), None
        asyncio.set_event_loop(None)
        if is_over:
            graveyard.bury(loop)
