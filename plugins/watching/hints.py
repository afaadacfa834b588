"""Hints of changes in a directory, by watchfiles. They are no more than hints: what counts is a look.

watchfiles tells neither that a file was closed nor that the kernel's queue overflowed, breaks on names that are not
UTF-8, and falls silent for ever when its directory is deleted or another is put in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Event as Flag

import anyio
from anyio.to_thread import run_sync
from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from plugins.watching.opening import hold, is_held

CHECK_S = 1.0
"""How often it is checked that the directory is still the watched one."""


class WatchBroken(Exception):
    """The directory can't be watched, or not any more; the text says why."""


class Watch:
    """One directory, watched.

    - `wants`: whether a change of this kind, to what has this path, is worth a hint; called in a thread.
    - `step_s`: how long changes are gathered before they are told of; at most twice as long while more come.
    - `recursive`: whether the directories below are watched, too.
    """

    def __init__(self, path: Path, *, wants: Callable[[Change, str], bool], step_s: float, recursive: bool) -> None:
        self._path = path
        self._wants = wants
        self._step_ms = int(1000 * step_s)
        self._recursive = recursive
        self._has_left = False
        # A thread of its own: many watches would use up those that all share.
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, tell: Callable[[Collection[str]], None]) -> None:
        """Tell which paths may have changed, until the directory is gone or another stands in its place.

        First it tells of nothing, when the watch stands: a look that begins then misses nothing.

        Raises FileNotFoundError and NotADirectoryError where there is no directory, and WatchBroken.
        """
        held = await run_sync(hold, self._path)
        stop = Flag()
        try:
            async with anyio.create_task_group() as tasks:
                # A thread can't be cancelled: so it returns, within a step.
                tasks.start_soon(_set_when_cancelled, stop)
                try:
                    await self._tell_all(held, stop, tell)
                finally:
                    tasks.cancel_scope.cancel()
        except ExceptionGroup as group:
            raise _only(group) from None
        finally:
            os.close(held)

    async def _tell_all(self, held: int, stop: Flag, tell: Callable[[Collection[str]], None]) -> None:
        notify = await run_sync(self._begin, limiter=self._limiter)
        try:
            if not await run_sync(is_held, held, self._path):
                return  # another took its place before it was watched, and may leave again
            tell(())
            while not stop.is_set() and not self._has_left:
                paths = await run_sync(self._next, notify, stop, limiter=self._limiter)
                if paths:
                    tell(paths)
                elif paths is None and not await run_sync(is_held, held, self._path):
                    return
        finally:
            notify.close()

    def _begin(self) -> RustNotify:
        """Begin to watch; for a large tree that takes a while."""
        try:
            try:
                return self._notify(ignore_permission_denied=False)
            except PermissionError:  # of a directory below: its files can't be seen anyway
                return self._notify(ignore_permission_denied=True)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError, UnicodeError) as error:
            raise WatchBroken(str(error).partition(" about ")[0]) from None

    def _notify(self, *, ignore_permission_denied: bool) -> RustNotify:
        # To ignore denials also ignores that there are no watches left, and then no change is ever told.
        return RustNotify([str(self._path)], False, False, 0, self._recursive, ignore_permission_denied)

    def _next(self, notify: RustNotify, stop: Flag) -> Collection[str] | None:
        """Wait for changes and return their paths; None where for a while there was none."""
        try:
            found = notify.watch(2 * self._step_ms, self._step_ms, int(1000 * CHECK_S), stop)
        except (OSError, RuntimeError) as error:
            raise WatchBroken(str(error)) from None
        if isinstance(found, str):
            return None
        # It was moved or deleted itself; which one is there by now, be it the one that is held, is not to be told.
        self._has_left = (Change.deleted, str(self._path)) in found
        return {path for change, path in found if self._wants(Change(change), path)}


async def _set_when_cancelled(stop: Flag) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """Return what one task raised, which the task group wrapped."""
    error = group.exceptions[0]
    return _only(error) if isinstance(error, ExceptionGroup) else error
