"""The way of files through a trigger directory: found, complete, durable, removed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from msgspec import Struct
from watchfiles import Change

from engine.plugin import Accepted, Event, InvalidEvent, SourceContext, StoreUnavailable
from plugins.sources.trigger_dir.content import InvalidTrigger, read_trigger
from plugins.sources.trigger_dir.folder import ASIDE, SUFFIXES, Folder, Look, State
from plugins.watching.hints import Watch, WatchBroken
from plugins.watching.names import shown
from plugins.watching.opening import Mark

SCAN_EVERY_S = 30.0
POLL_S = 1.0
"""The pause before a watch that ended is made anew; a directory that can't be watched is scanned so often."""

MOST_EVENTS = 500
"""Events in one call of emit, and so in one transaction."""

QUIET_S = 0.05
"""How long a file must stay the same where the system doesn't tell whether somebody writes to it."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
WATCH_STEP_S = 0.025


class Aside(Struct, frozen=True, kw_only=True):
    """A name that is left alone for now; with a `look`, its event, or rejection for `reason`, is durable."""

    mark: Mark
    look: Look | None = None
    reason: str | None = None


class Inbox:
    """Takes the files of one directory.

    What watches the directory only hints; what counts is what a scan finds. A file's event is emitted, then
    the file is removed; when the engine dies in between, the event's key makes the second emit a duplicate.
    """

    def __init__(self, path: Path, settle_s: float, context: SourceContext) -> None:
        self._settle_s = settle_s
        self._context = context
        self._log = context.log
        self._clock = context.clock
        self._folder = Folder(path, max_bytes=context.max_data)
        self._wake = anyio.Event()
        self._round_due = False
        self._aside: dict[str, Aside] = {}
        self._since: dict[str, tuple[Mark, float]] = {}
        self._told: dict[str, str] = {}
        self._again_s: float | None = None

    async def run(self) -> None:
        """Take files until cancelled."""
        with suppress(OSError):  # the first sweep tells of it
            await self._make()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            tasks.start_soon(self._beat)
            await self._serve()

    # When to look

    async def _serve(self) -> None:
        pause_s, is_ready = FIRST_PAUSE_S, False
        while True:
            self._wake = anyio.Event()
            self._again_s = None
            try:
                await self._sweep()
                pause_s = FIRST_PAUSE_S
            except StoreUnavailable as error:
                self._tell("", f"files wait: the store can't take their events: {error}", "store_unavailable")
                await self._clock.sleep(pause_s)
                self._again_s, pause_s = 0.0, min(2 * pause_s, LONGEST_PAUSE_S)
            except FileNotFoundError:  # it was deleted this moment
                self._look_again(SHORTEST_WAIT_S)
            except OSError as error:
                self._tell("", f"{self._folder.path} can't be read: {error.strerror}", "directory_unreadable")
                self._look_again(POLL_S)
            else:
                self._told.pop("", None)
                if not is_ready:
                    self._context.ready()
                    is_ready = True
            await self._wait()

    async def _wait(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self._again_s is not None:
                tasks.start_soon(self._wake_after, self._again_s, self._wake)
            await self._wake.wait()
            tasks.cancel_scope.cancel()

    async def _wake_after(self, seconds: float, wake: anyio.Event) -> None:
        await self._clock.sleep(seconds)
        wake.set()

    def _look_again(self, seconds: float) -> None:
        self._again_s = seconds if self._again_s is None else min(seconds, self._again_s)

    async def _beat(self) -> None:
        async for _ in self._context.every(SCAN_EVERY_S):
            self._round_due = True
            self._wake.set()

    async def _watch(self) -> None:
        while True:
            watch = Watch(self._folder.path, wants=_is_hint, step_s=WATCH_STEP_S, recursive=False)
            try:
                await watch.run(lambda _: self._wake.set())
            except (FileNotFoundError, NotADirectoryError):
                pass  # the next sweep makes it, or tells of it
            except (OSError, WatchBroken) as error:
                # The watch also breaks on a file name that is not UTF-8; a sweep then takes that file.
                self._tell("watch", f"the watch of {self._folder.path} broke: {error}", "watch_broken")
            await self._clock.sleep(POLL_S)
            self._wake.set()

    # What to do

    async def _sweep(self) -> None:
        await self._make()
        if self._round_due:
            self._round_due = False
            if error := await run_sync(self._folder.restore):
                self._tell("restore", f"{self._folder.path}/{ASIDE}: {error.strerror}", "file_stuck")
            await self._retry_aside()
        known = {name: aside.mark for name, aside in self._aside.items()}
        listing = await run_sync(self._folder.listing, known)
        present = listing.known.union(name for name, _ in listing.fresh)
        if not listing.more:
            self._forget_all_but(present)
        else:
            self._look_again(0.0)
        names = [name for name, _ in listing.fresh]
        while names:
            looks = await run_sync(self._folder.look, names[:MOST_EVENTS])
            names = names[len(looks) :]
            await self._take(looks)

    async def _make(self) -> None:
        if await run_sync(self._folder.make):
            self._log.info("Made the trigger directory %s", self._folder.path, extra={"action": "folder_made"})

    def _forget_all_but(self, present: frozenset[str]) -> None:
        for kept in (self._aside, self._since, self._told):
            for name in [name for name in kept if name not in present and name.endswith(SUFFIXES)]:
                del kept[name]

    async def _take(self, looks: Sequence[Look]) -> None:
        whole: list[tuple[Look, Event]] = []
        for look in looks:
            if look.state in (State.WHOLE, State.TOO_LARGE):
                verdict = self._judge(look)
                if isinstance(verdict, Event):
                    whole.append((look, verdict))
                elif verdict is not None:
                    await self._reject(look, verdict)
            elif look.state is State.CHANGING:
                self._since.pop(look.name, None)
                self._look_again(SHORTEST_WAIT_S)
            elif look.state in (State.ODD, State.UNREADABLE):
                self._aside[look.name] = Aside(mark=look.mark)
                self._tell(
                    look.name,
                    f"{shown(look.name)} is left alone: {look.reason}",
                    f"file_{look.state.name.lower()}",
                )
        if whole:
            await self._emit(whole)

    def _judge(self, look: Look) -> Event | str | None:
        """Return a file's event, or why it has none, or None while that can't be said yet."""
        mark, since_s = self._since.get(look.name, (None, 0.0))
        if mark != look.mark:
            since_s = self._clock.monotonic()
            self._since[look.name] = (look.mark, since_s)
        age_s = self._clock.monotonic() - since_s
        verdict: Event | str
        if look.state is State.TOO_LARGE:
            verdict = (
                f"the file has {look.mark.size} bytes; at most {self._context.max_data} are allowed; "
                "put it elsewhere, and its path into parameters"
            )
        else:
            try:
                verdict = read_trigger(look.body, subject=shown(look.name), key=look.key)
            except InvalidTrigger as error:
                verdict = str(error)
        if isinstance(verdict, Event):
            needed_s = {False: 0.0, None: min(QUIET_S, self._settle_s), True: self._settle_s}[look.writing]
        elif look.writing:
            needed_s = float("inf")  # who still writes may yet make it right
        else:
            needed_s = self._settle_s
        if age_s < needed_s:
            wait_s = min(max(age_s, SHORTEST_WAIT_S), LONGEST_WAIT_S) if look.writing else needed_s - age_s
            self._look_again(min(wait_s, needed_s - age_s))
            return None
        return verdict

    async def _emit(self, whole: Sequence[tuple[Look, Event]]) -> None:
        try:
            answers = await self._context.emit(*(event for _, event in whole))
        except InvalidEvent as error:
            if len(whole) == 1:
                await self._reject(whole[0][0], str(error))
                return
            for one in whole:
                await self._emit([one])
            return
        self._note_duplicates(whole, answers)
        looks = [look.without_body() for look, _ in whole]
        failed = await run_sync(self._folder.remove, looks)
        for look in looks:
            self._finished(look, None, failed.get(look.name))

    def _note_duplicates(self, whole: Sequence[tuple[Look, Event]], answers: Sequence[Accepted]) -> None:
        for (look, _), answer in zip(whole, answers, strict=True):
            if answer.duplicate:
                ids = {"action": "file_taken_before", "event": answer.event}
                self._log.info("%s was taken before, as event %s", shown(look.name), answer.event, extra=ids)

    async def _reject(self, look: Look, reason: str) -> None:
        name = shown(look.name)
        # Recorded before it is moved, under its key: one record for each bad file, whenever the engine dies.
        data = {"name": name, "size": look.mark.size}
        await self._context.reject(Event(type="file.rejected", subject=name, key=look.key, data=data), reason)
        self._log.warning("%s is rejected: %s", name, reason, extra={"action": "file_rejected"})
        look = look.without_body()
        self._finished(look, reason, await run_sync(self._folder.reject, look, self._error_text(name, reason)))

    def _error_text(self, name: str, reason: str) -> str:
        return (
            f"{name} is no valid trigger file: {reason}.\n"
            f"Correct it and move it back to the directory above; this text can be deleted.\n"
        )

    def _finished(self, look: Look, reason: str | None, error: OSError | None) -> None:
        self._since.pop(look.name, None)
        if error is None:
            self._aside.pop(look.name, None)
            self._told.pop(look.name, None)
            return
        self._aside[look.name] = Aside(mark=look.mark, look=look, reason=reason)
        done = "taken" if reason is None else "rejected"
        self._tell(
            look.name,
            f"{shown(look.name)} was {done}, but can't be removed from {self._folder.path}: "
            f"{error.strerror}; it will not be taken twice, and removing it is tried again",
            "file_stuck",
        )

    async def _retry_aside(self) -> None:
        for name, aside in list(self._aside.items()):
            look = aside.look
            if look is None:
                del self._aside[name]
            elif aside.reason is None:
                failed = await run_sync(self._folder.remove, [look])
                self._finished(look, None, failed.get(name))
            else:
                text = self._error_text(shown(name), aside.reason)
                self._finished(look, aside.reason, await run_sync(self._folder.reject, look, text))

    def _tell(self, about: str, text: str, action: str) -> None:
        """Warn once about one thing, and again only when what there is to say has changed."""
        if self._told.get(about) != text:
            self._told[about] = text
            self._log.warning("%s", text, extra={"action": action})


def _is_hint(change: Change, path: str) -> bool:
    return change is not Change.deleted and path.endswith(SUFFIXES) and not os.path.basename(path).startswith(".")
