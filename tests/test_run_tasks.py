"""The tasks of runs: waited for, cancelled together, and what fails in one is heard at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from engine.dispatch.tasks import RunTasks


class Lives:
    """Runs that last until they are told to end, or are cancelled."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.go = asyncio.Event()

    def begin(self, tasks: RunTasks, name: str, error: Exception | None = None) -> None:
        task: asyncio.Task[None] | None = None

        async def live() -> None:
            try:
                if error is not None:
                    raise error
                await self.go.wait()
                self.ended.append(name)
            except asyncio.CancelledError:
                self.ended.append(f"{name} cancelled")
                raise
            except Exception as raised:
                tasks.failed(raised)
            finally:
                tasks.over(task)

        task = tasks.begin(live(), name=name)


async def failures_of(body: Callable[[RunTasks], Awaitable[None]]) -> list[Exception]:
    """Do something with tasks of runs; return what is raised in the end."""
    try:
        with anyio.fail_after(5):
            async with RunTasks().opened() as tasks:
                await body(tasks)
    except ExceptionGroup as group:
        return list(group.exceptions)
    return []


async def test_all_are_waited_for_at_the_end() -> None:
    lives = Lives()
    async with RunTasks().opened() as tasks:
        lives.begin(tasks, "a")
        lives.begin(tasks, "b")
        await anyio.wait_all_tasks_blocked()
        asyncio.get_running_loop().call_soon(lives.go.set)
    assert lives.ended == ["a", "b"]


async def test_those_that_others_begin_meanwhile_are_waited_for_too() -> None:
    lives = Lives()

    async def first(tasks: RunTasks) -> None:
        lives.go.set()
        lives.begin(tasks, "second")

    async with RunTasks().opened() as tasks:
        tasks.begin(first(tasks), name="first")
    assert lives.ended == ["second"]


async def test_what_fails_in_one_cancels_all_and_is_raised() -> None:
    lives = Lives()

    async def body(tasks: RunTasks) -> None:
        lives.begin(tasks, "a")
        await anyio.wait_all_tasks_blocked()
        lives.begin(tasks, "b", RuntimeError("nobody expected it"))
        await anyio.sleep_forever()

    assert [str(error) for error in await failures_of(body)] == ["nobody expected it"]
    assert lives.ended == ["a cancelled"]


async def test_an_error_outside_of_them_cancels_them_also_before_they_began() -> None:
    lives = Lives()

    async def body(tasks: RunTasks) -> None:
        lives.begin(tasks, "a")
        await anyio.wait_all_tasks_blocked()
        lives.begin(tasks, "b")
        raise ZeroDivisionError

    assert [type(error) for error in await failures_of(body)] == [ZeroDivisionError]
    assert lives.ended == ["a cancelled"]


async def test_who_is_cancelled_waits_for_them() -> None:
    lives = Lives()
    with anyio.move_on_after(0.01) as scope:
        async with RunTasks().opened() as tasks:
            lives.begin(tasks, "a")
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert lives.ended == ["a cancelled"]


async def test_who_is_cancelled_while_waiting_for_them_cancels_them() -> None:
    lives = Lives()
    with anyio.fail_after(5), anyio.move_on_after(0.01) as scope:
        async with RunTasks().opened() as tasks:
            lives.begin(tasks, "a")
            await anyio.wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert lives.ended == ["a cancelled"]


async def test_what_one_cleans_up_is_not_cut_off_by_a_second_cancellation() -> None:
    cleaned: list[str] = []

    async def careful() -> None:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                cleaned.append("all")
            raise

    async def body(tasks: RunTasks) -> None:
        tasks.begin(careful(), name="careful")
        await anyio.wait_all_tasks_blocked()
        tasks.failed(RuntimeError("nobody expected it"))
        await anyio.sleep_forever()

    assert [type(error) for error in await failures_of(body)] == [RuntimeError]
    assert cleaned == ["all"]


@pytest.mark.parametrize("outside", [True, False], ids=["an error outside", "a cancellation"])
async def test_what_fails_in_one_that_is_cancelled_is_raised_too(outside: bool) -> None:
    async def body(tasks: RunTasks) -> None:
        async def failing() -> None:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                tasks.failed(RuntimeError("as it was cancelled"))

        tasks.begin(failing(), name="failing")
        await anyio.wait_all_tasks_blocked()
        if outside:
            raise ZeroDivisionError
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01 if not outside else 5):
        failures = await failures_of(body)
    assert [type(error) for error in failures] == ([ZeroDivisionError, RuntimeError] if outside else [RuntimeError])
