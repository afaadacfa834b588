"""Claimed files: moved to where no sender writes, and from there to where their runs' ends send them."""

from __future__ import annotations

import base64
import math
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from msgspec import structs

from engine.plugin import Accepted, Settled, SourceContext
from plugins.sources.files.changes import Change, remembered_as, remembered_path
from plugins.sources.files.lookout import Troubles
from plugins.watching.names import shown, valid_text
from plugins.watching.opening import (
    READ_FLAGS,
    Mark,
    below,
    exists,
    free_name,
    mark_of,
    move,
    open_for_writing,
    opened,
    write_text,
)

CLAIMED, DONE, FAILED = ".claimed", "done", "failed"
OWN = frozenset({CLAIMED, DONE, FAILED})
ERROR = ".error"

MOST_AT_ONCE = 500
"""Events in one call of emit, and so in one transaction, with what is to be remembered of them."""

MOST_AWAITED = 256
"""Files whose runs' ends are awaited at the same time; the others take turns."""

TURN_S = 10.0
AGAIN_S = 30.0

Emit = Callable[[Sequence[Change], Mapping[str, Any]], Awaitable[list[Accepted | str]]]
"""Makes changes durable, with what is to be remembered; returns, for each, the answer, or why it was rejected."""


class ClaimFolders:
    """The directories `.claimed`, `done` and `failed` within the watched one. All of it blocks.

    - `same`: whether two marks are those of one file with one content.
    - `asks_writers`: whether a file that somebody has open for writing is put back.
    - `sentinel`: the suffix of the files that go with the claimed ones, and are removed.
    """

    def __init__(
        self, root: Path, *, same: Callable[[Mark, Mark], bool], asks_writers: bool, sentinel: str | None
    ) -> None:
        self._root = root
        self._same = same
        self._asks_writers = asks_writers
        self._sentinel = sentinel

    def take(self, changes: Sequence[Change]) -> tuple[list[Change], dict[str, str]]:
        """Move files to `.claimed`; return those that were, with their places, and what failed, by path.

        What is something else by now is put back, and is in neither.
        """
        taken: list[Change] = []
        failed: dict[str, str] = {}
        with opened(self._root) as root:
            for names, group in groupby(sorted(changes, key=_names_above), key=_names_above):
                batch = list(group)
                try:
                    with below(root, names) as source, below(root, [CLAIMED, *names], mode=0o700) as claimed:
                        for change in batch:
                            try:
                                taken.extend(self._take(source, claimed, change))
                            except FileNotFoundError:
                                continue
                            except OSError as error:
                                failed[change.path] = error.strerror or str(error)
                except OSError as error:
                    failed |= {change.path: error.strerror or str(error) for change in batch}
        return taken, failed

    def _take(self, source: int, claimed: int, change: Change) -> Iterator[Change]:
        name = os.path.basename(change.path)
        held = free_name(claimed, name, room_bytes=0)
        os.rename(name, held, src_dir_fd=source, dst_dir_fd=claimed)
        mark, writing = _judge(claimed, held)
        if mark is None or not self._same(mark, change.mark) or (writing and self._asks_writers):
            move(claimed, held, source, name)
            return
        if self._sentinel is not None:
            self._remove_sentinel(source, name, mark)
        place = os.path.join(CLAIMED, os.path.dirname(change.path), held)
        yield structs.replace(change, mark=mark, place=place)

    def _remove_sentinel(self, source: int, name: str, mark: Mark) -> None:
        with suppress(FileNotFoundError):
            sentinel = os.stat(f"{name}{self._sentinel}", dir_fd=source, follow_symlinks=False)
            if sentinel.st_ctime_ns <= mark.ctime_ns:  # else it is already that of the next file
                os.unlink(f"{name}{self._sentinel}", dir_fd=source)

    def left(self) -> list[tuple[str, Mark]]:
        """Return the files in `.claimed`, oldest first."""
        found: list[tuple[str, Mark]] = []
        with opened(self._root) as root:
            if not exists(root, CLAIMED):
                return []
            for place, _, names, directory in os.fwalk(CLAIMED, dir_fd=root):
                for name in names:
                    with suppress(FileNotFoundError):
                        stated = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        if stat.S_ISREG(stated.st_mode):
                            found.append((os.path.join(place, name), mark_of(stated)))
        return sorted(found, key=lambda one: (one[1].ctime_ns, one[0]))

    def drop_sentinel(self, change: Change) -> None:
        """Remove the sentinel of a file that was claimed when the engine died."""
        with suppress(FileNotFoundError), opened(self._root) as root, below(root, _names_above(change)) as source:
            self._remove_sentinel(source, os.path.basename(change.path), change.mark)

    def finish(self, change: Change, failure: str | None) -> None:
        """Move a claimed file to `done`, or to `failed` beside a text that says why. Raises OSError."""
        names, (*place, held) = _names_above(change), change.place.split("/")
        wanted = os.path.basename(change.path)
        outcome = DONE if failure is None else FAILED
        with opened(self._root) as root:
            try:
                with below(root, place) as claimed, below(root, [outcome, *names], mode=0o777) as target:
                    if not exists(claimed, held):
                        return  # a job has moved or removed it
                    if failure is not None:
                        wanted = free_name(target, wanted, room_bytes=len(ERROR))
                        write_text(target, f"{wanted}{ERROR}", failure)
                    move(claimed, held, target, wanted)
            except FileNotFoundError:
                return


class Claims:
    """Takes files, and brings each to its end when its runs have come to theirs."""

    def __init__(self, folders: ClaimFolders, context: SourceContext, emit: Emit, troubles: Troubles) -> None:
        self._folders = folders
        self._context = context
        self._emit = emit
        self._troubles = troubles
        self._line, self._next = anyio.create_memory_object_stream[tuple[Change, Accepted | str]](math.inf)
        self._unfinished: set[str] = set()

    async def run(self) -> None:
        """Bring files to their ends, until cancelled."""
        slots = anyio.Semaphore(MOST_AWAITED)
        async with anyio.create_task_group() as tasks:
            async for change, answer in self._next:
                await slots.acquire()
                tasks.start_soon(self._end, change, answer, slots)

    def close(self) -> None:
        """Take in nothing more; what is claimed goes on at the next start."""
        self._line.close()
        self._next.close()

    async def take(self, changes: Sequence[Change]) -> dict[str, str]:
        """Claim files and make their events durable; return those that can't be claimed, with the reason."""
        taken, failed = await run_sync(self._folders.take, changes)
        if taken:
            await self._tell(taken)
        return failed

    async def resume(self, rows: Mapping[str, Any]) -> None:
        """Go on with the files that were claimed when the engine died; `rows` are those remembered of them."""
        remembered = {remembered_path(key, row): (key, row) for key, row in rows.items()}
        changes = []
        for place, mark in await run_sync(self._folders.left):
            _, row = remembered.pop(place, ("", None))
            if row is None:
                # It was claimed, but its event is not durable.
                change = Change(kind="created", path=place.removeprefix(f"{CLAIMED}/"), mark=mark, place=place)
                await run_sync(self._folders.drop_sentinel, change)
            else:
                change = Change(kind="created", path=_from_text(row[5]), mark=Mark(*row[:5]), place=place)
            changes.append(change)
        if changes:
            await self._tell(changes)
        if remembered:
            await self._emit((), dict.fromkeys([key for key, _ in remembered.values()]))

    async def _tell(self, changes: Sequence[Change]) -> None:
        for start in range(0, len(changes), MOST_AT_ONCE):
            batch = changes[start : start + MOST_AT_ONCE]
            answers = await self._emit(batch, dict(map(_row, batch)))
            for change, answer in zip(batch, answers, strict=True):
                self._line.send_nowait((change, answer))

    async def _end(self, change: Change, answer: Accepted | str, slots: anyio.Semaphore) -> None:
        try:
            failure: str | None
            if isinstance(answer, str):
                failure = f"{shown(change.path)} is no event that can be taken: {answer}\n"
            else:
                ends = await self._settled(answer)
                if ends is None:
                    self._line.send_nowait((change, answer))
                    return
                failure = _failure(change, ends)
            await self._finish(change, failure)
            await self._emit((), {_row(change)[0]: None})
        finally:
            slots.release()

    async def _settled(self, answer: Accepted) -> tuple[Settled, ...] | None:
        """Wait for the ends of an event's runs, for a while; None where they have not come."""
        ends: tuple[Settled, ...] | None = None
        async with anyio.create_task_group() as tasks:

            async def end_turn() -> None:
                await self._context.clock.sleep(TURN_S)
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_turn)
            ends = await self._context.settled(answer)
            tasks.cancel_scope.cancel()
        return ends

    async def _finish(self, change: Change, failure: str | None) -> None:
        while True:
            try:
                await run_sync(self._folders.finish, change, failure)
            except OSError as error:
                self._unfinished.add(change.path)
                self._troubles.tell("claimed", f"files can't be moved from {CLAIMED}: {error.strerror or error}")
                await self._context.clock.sleep(AGAIN_S)
                continue
            self._unfinished.discard(change.path)
            if not self._unfinished:
                self._troubles.tell("claimed", None)
            return


def _failure(change: Change, ends: Sequence[Settled]) -> str | None:
    """Say how the runs of a file ended, where not all have succeeded."""
    failed = [end for end in ends if end.state != "succeeded"]
    if not failed:
        return None
    lines = [f"Not all runs for {shown(change.path)} succeeded."]
    lines += [
        f"run {end.run} of the job {end.job} (trigger {end.trigger}): {end.state.value}: {end.reason}" for end in failed
    ]
    return "\n".join(lines) + "\n"


def _judge(directory: int, name: str) -> tuple[Mark | None, bool | None]:
    try:
        file = os.open(name, READ_FLAGS, dir_fd=directory)
    except PermissionError:
        return mark_of(os.stat(name, dir_fd=directory, follow_symlinks=False)), None
    except OSError:
        return None, None
    try:
        return mark_of(os.fstat(file)), open_for_writing(file)
    finally:
        os.close(file)


def _names_above(change: Change) -> list[str]:
    return change.path.split("/")[:-1]


def _row(change: Change) -> tuple[str, list[Any]]:
    key, extra = remembered_as(change.place)
    return key, [*change.mark, _as_text(change.path), *extra]


def _as_text(path: str) -> str:
    """Return a path as text that holds it whatever its bytes are; see `_from_text`."""
    return path if valid_text(path) == path else "//" + base64.b64encode(os.fsencode(path)).decode()


def _from_text(text: str) -> str:
    return os.fsdecode(base64.b64decode(text[2:])) if text.startswith("//") else text
