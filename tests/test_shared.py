"""What runs share: made once, kept, closed at the end, and made anew where making it failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from engine.errors import PluginError
from engine.shared import Shared


class Workshop:
    """Makes things that say when they are made and closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = 0
        self.failures = 0
        self.gate = anyio.Event()
        self.gate.set()

    @asynccontextmanager
    async def tool(self) -> AsyncIterator[str]:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ValueError("no iron")
        self.made += 1
        yield f"tool {self.made}"
        self.closed += 1

    def make(self) -> AbstractAsyncContextManager[str]:
        return self.tool()


async def test_it_is_made_once_for_a_key_and_closed_when_the_engine_stops() -> None:
    shared, shop = Shared(), Workshop()
    async with anyio.create_task_group() as group:
        await group.start(shared.run)
        assert await shared.get(("forge", 1), shop.make) == "tool 1"
        assert await shared.get(("forge", 1), shop.make) == "tool 1"
        assert await shared.get(("forge", 2), shop.make) == "tool 2"
        assert shop.closed == 0
        shared.close()
    assert (shop.made, shop.closed) == (2, 2)


async def test_those_who_ask_while_it_is_made_wait_for_it_and_one_who_leaves_harms_nobody() -> None:
    shared, shop = Shared(), Workshop()
    shop.gate = anyio.Event()
    got: list[str] = []

    async def ask() -> None:
        got.append(await shared.get("forge", shop.make))

    async with anyio.create_task_group() as group:
        await group.start(shared.run)
        async with anyio.create_task_group() as asking:
            with anyio.move_on_after(0.01):
                await shared.get("forge", shop.make)
            asking.start_soon(ask)
            asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            shop.gate.set()
        shared.close()
    assert got == ["tool 1", "tool 1"]


async def test_what_fails_to_be_made_is_told_and_tried_again() -> None:
    shared, shop = Shared(), Workshop()
    shop.failures = 1
    async with anyio.create_task_group() as group:
        await group.start(shared.run)
        with pytest.raises(ValueError, match="no iron"):
            await shared.get("forge", shop.make)
        assert await shared.get("forge", shop.make) == "tool 1"
        shared.close()
    assert shop.closed == 1


async def test_nothing_is_made_once_the_engine_stops() -> None:
    shared, shop = Shared(), Workshop()
    async with anyio.create_task_group() as group:
        await group.start(shared.run)
        shared.close()
    with pytest.raises(PluginError, match="stops"):
        await shared.get("forge", shop.make)


async def test_one_that_raises_when_it_is_left_harms_no_other() -> None:
    shared, shop = Shared(), Workshop()

    @asynccontextmanager
    async def bad() -> AsyncIterator[str]:
        yield "bad"
        raise SystemExit(3)

    async with anyio.create_task_group() as group:
        await group.start(shared.run)
        await shared.get("bad", bad)
        await shared.get("good", shop.make)
        shared.close()
    assert shop.closed == 1
