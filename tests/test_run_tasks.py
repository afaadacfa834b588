"""The tasks of runs: waited for, cancelled together, and what fails in one is heard at once."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from engine.dispatch.tasks import RunTasks, run_tasks


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


async def test_all_are_waited_for_at_the_end() -> None:
    lives = Lives()
    async with run_tasks() as tasks:
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

    async with run_tasks() as tasks:
        tasks.begin(first(tasks), name="first")
    assert lives.ended == ["second"]


async def test_what_fails_in_one_cancels_all_and_is_raised() -> None:
    lives = Lives()
    with anyio.fail_after(5), pytest.raises(BaseExceptionGroup) as caught:
        async with run_tasks() as tasks:
            lives.begin(tasks, "a")
            await anyio.wait_all_tasks_blocked()
            lives.begin(tasks, "b", RuntimeError("nobody expected it"))
            await anyio.sleep_forever()
    assert [str(error) for error in caught.value.exceptions] == ["nobody expected it"]
    assert lives.ended == ["a cancelled"]


async def test_an_error_outside_of_them_cancels_them_also_before_they_began() -> None:
    lives = Lives()
    with anyio.fail_after(5), pytest.raises(ZeroDivisionError):
        async with run_tasks() as tasks:
            lives.begin(tasks, "a")
            await anyio.wait_all_tasks_blocked()
            lives.begin(tasks, "b")
            raise ZeroDivisionError
    assert lives.ended == ["a cancelled"]


async def test_who_is_cancelled_waits_for_them() -> None:
    lives = Lives()
    with anyio.move_on_after(0.01) as scope:
        async with run_tasks() as tasks:
            lives.begin(tasks, "a")
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert lives.ended == ["a cancelled"]
