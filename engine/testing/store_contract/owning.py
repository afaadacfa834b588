"""Cases on who owns a store."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.errors import StoreInUse, StoreLost
from engine.ids import new_id
from engine.processes import kernel_start
from engine.store.base import Boot
from engine.testing.store_contract.material import accept_run, make
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise


def a_boot(pid: int = 1, started: int = 0, machine: str = "") -> Boot:
    """Return an owner, of whom nothing is known unless it is given."""
    return Boot(id=new_id(), pid=pid, started=started, machine=machine)


def _kill_unseen(process: subprocess.Popen[bytes]) -> None:
    """Make a zombie of a process: it has ended, but its exit status was not taken."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


class OwningCases(Place):
    """**Owner** of the contract."""

    def another(self) -> Boot | None:
        """Return an owner on this machine whose process lives, where the store can tell; None where it can't."""
        return None

    async def succeed(self, boot: Boot) -> None:
        """Have another engine take the place over from an open store, as one does that can't see its lock."""
        raise NotImplementedError

    @promise(
        "Boot: An engine process as the owner of a store: its boot id, its process with the kernel's start time, its "
        "machine.",
        "Boot: `started` is 0, and `machine` empty, where they are not known.",
        "Store: The engine that took the store over last owns it.",
        "Store: What another one writes is refused from then on with StoreLost, however long it stood still, and "
        "nothing of it is stored.",
        "Store.take_over: Own the store from now on; where that can't be written now, it is with the first change that "
        "can.",
        "Store.renew: Renew the owner's lease, from whichever thread; what was lost is told with StoreLost from then "
        "on.",
        "Store.renewed_at: When the lease was renewed last; None where the store has no owner.",
    )
    async def test_an_owner_that_was_succeeded_writes_nothing_more(self) -> None:
        async with self.opened() as store:
            assert store.renewed_at() is None
            await store.take_over(a_boot())
            _, _, change = accept_run()
            await make(store, change)
            first = store.renewed_at()
            assert first is not None
            store.renew()
            await make(store)
            await self.succeed(a_boot())
            event, _, late = accept_run()
            with pytest.raises(StoreLost):
                await store.apply([late])
            assert await store.event(event.id) is None
            store.renew()  # it finds out
            with pytest.raises(StoreLost):
                await store.apply([late])
            with pytest.raises(StoreLost):
                store.renew()

    @promise(
        "Store: An owner that lives is not succeeded (StoreInUse), whatever the age of its lease.",
    )
    async def test_an_owner_that_lives_is_not_succeeded(self) -> None:
        living = self.another()
        if living is None:
            pytest.skip("this store can't tell who lives")
        # It starts at once, and nothing else goes on here.
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:  # noqa: ASYNC220
            try:
                started = kernel_start(other.pid)
                assert started is not None
                async with self.opened() as store:
                    await store.take_over(Boot(id=new_id(), pid=other.pid, started=started, machine=living.machine))
                async with self.opened() as store:
                    with pytest.raises(StoreInUse) as caught:
                        await store.take_over(living)
                    assert caught.value.pid == other.pid
            finally:
                _kill_unseen(other)
            async with self.opened() as store:
                await store.take_over(living)
        async with self.opened() as store:
            # A second life of one process, after the first has ended, is no other one; nor is what has ended.
            mine = Boot(id=new_id(), pid=os.getpid(), started=kernel_start(os.getpid()) or 0, machine=living.machine)
            await store.take_over(mine)
        async with self.opened() as store:
            await store.take_over(Boot(id=new_id(), pid=mine.pid, started=mine.started, machine=mine.machine))
