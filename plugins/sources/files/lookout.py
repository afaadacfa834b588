"""When to look: hints, polls, rounds; and what is wrong with the looking."""

from __future__ import annotations

import os
from collections.abc import Collection

import anyio
from anyio.to_thread import run_sync
from msgspec import Struct
from watchfiles import Change

from engine.plugin import SourceContext, filesystem_of
from plugins.sources.files.tree import Tree
from plugins.watching.filesystems import tells_of_changes
from plugins.watching.hints import Watch, WatchBroken

STEP_S = 0.005
"""How long hints are gathered."""

AGAIN_S = 1.0
"""The pause before a watch that ended is made anew, and before a directory that can't be read is tried again."""

QUIET_S, LONGEST_S = 0.5, 10.0
"""After hints all is scanned once they have been quiet for so long, or so long after the first of them."""

MOST_HINTS = 20_000
MANY_HINTS = 4_096
"""Hints at once that make it likely that the kernel, whose queue holds 16,384, has dropped others."""

SCANNING_SHARE = 5
"""A scan that is not urgent begins no sooner after the last one than that one took, so many times."""


class Pace(Struct, frozen=True, kw_only=True):
    """How often all is scanned: in any case, and where it is polled; `always`: also where changes are told of."""

    every_s: float
    poll_every_s: float
    always: bool


class Troubles:
    """What is wrong while the source goes on: each is logged once, and all are shown with the source."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._texts: dict[str, str] = {}

    def tell(self, about: str, text: str | None) -> None:
        """Say what is wrong with one thing, or, with None, that it is over."""
        before = self._texts.get(about)
        if before == text:
            return
        if text is None:
            del self._texts[about]
            self._context.log.info("It is over that %s", before, extra={"action": f"{about}_again"})
        else:
            self._texts[about] = text
        self._context.warn("; ".join(self._texts.values()) or None)


class Lookout:
    """Knows which paths to look at, and when all is to be scanned."""

    def __init__(self, tree: Tree, context: SourceContext, troubles: Troubles, pace: Pace) -> None:
        self.kind = ""
        """The type of the file system, where it is known."""
        self._tree = tree
        self._root = tree.root
        self._prefix = os.path.join(tree.root, "")
        self._context = context
        self._clock = context.clock
        self._troubles = troubles
        self._pace = pace
        self._stands = False
        self._hints: dict[str, None] = {}
        self._wake = anyio.Event()
        self._polls = pace.always
        self._first_hint_s: float | None = None
        self._last_hint_s = 0.0
        self._urgent_s: float | None = 0.0
        self._scan_ended_s, self._scan_took_s = 0.0, 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._beat)
            while True:
                await self._clock.sleep(await self._watch())

    # What the watcher asks

    def take_hints(self, limit: int) -> list[str]:
        """Return paths that were hinted at, relative to the directory, and forget them."""
        paths = list(self._hints)[:limit]
        for path in paths:
            del self._hints[path]
        return paths

    def scan_due_s(self) -> float | None:
        """Return when all is to be scanned; None where only a hint or a beat will tell."""
        dues = [] if self._urgent_s is None else [self._urgent_s]
        pause_s = SCANNING_SHARE * self._scan_took_s
        if self._polls:
            dues.append(self._scan_ended_s + max(self._context.paced(self._pace.poll_every_s), pause_s))
        if self._first_hint_s is not None:
            hinted_s = min(self._last_hint_s + QUIET_S, self._first_hint_s + LONGEST_S)
            dues.append(max(hinted_s, self._scan_ended_s + pause_s))
        return min(dues, default=None)

    def scan_begins(self) -> None:
        """Say that all is being scanned: what comes from now on counts for the next scan."""
        self._urgent_s = self._first_hint_s = None

    def scan_ended(self, took_s: float) -> None:
        """Say that all was scanned, which took so long."""
        self._scan_ended_s, self._scan_took_s = self._clock.monotonic(), took_s

    def scan_failed(self) -> None:
        """Say that the directory could not be read: it is tried again, soon."""
        self._scan_ended_s = self._clock.monotonic()
        self._urgent_s, self._first_hint_s = self._scan_ended_s + AGAIN_S, None

    async def wait(self, until_s: float | None) -> None:
        """Return when there is something to look at, at `until_s` at the latest."""
        scan_s = self.scan_due_s()
        dues = [due_s for due_s in (until_s, scan_s) if due_s is not None]
        now_s = self._clock.monotonic()
        if self._hints or (dues and min(dues) <= now_s):
            await anyio.lowlevel.checkpoint()
            return
        wake = self._wake = anyio.Event()
        async with anyio.create_task_group() as tasks:
            if dues:
                tasks.start_soon(self._wake_after, min(dues) - now_s, wake)
            await wake.wait()
            tasks.cancel_scope.cancel()

    async def _wake_after(self, seconds: float, wake: anyio.Event) -> None:
        await self._clock.sleep(seconds)
        wake.set()

    # What happens

    def scan_now(self) -> None:
        """Have all scanned at once."""
        self._urgent_s = self._clock.monotonic()
        self._wake.set()

    async def _beat(self) -> None:
        async for _ in self._context.every(self._pace.every_s):
            self.scan_now()

    async def _watch(self) -> float:
        """Watch for as long as that goes; return how long to wait before it is tried anew."""
        await self.learn()
        if self._pace.always:
            return self._pace.every_s
        self._stands = False
        pause_s = AGAIN_S
        watch = Watch(self._root, wants=self._is_hint, step_s=STEP_S, recursive=self._tree.selection.recursive)
        try:
            await watch.run(self._told)
        except (FileNotFoundError, NotADirectoryError):
            pass  # the next scan tells of it
        except (OSError, WatchBroken) as error:
            if self._stands:
                # A name that is not UTF-8 breaks it: that file is found by the scan.
                self._context.log.info("The watch broke: %s", error, extra={"action": "watch_broken"})
            else:
                self._troubles.tell("watch", f"{self._root} is polled, as it can't be watched: {error}")
                self._polls = True
                pause_s = self._pace.every_s
        self.scan_now()
        return pause_s

    async def learn(self) -> None:
        """Learn what file system the directory is on, and poll where its changes are not all told of."""
        kind = await run_sync(filesystem_of, self._root)
        if kind != self.kind and not self._pace.always and not tells_of_changes(kind):
            self._context.log.warning(
                "%s is polled every %gs, as it is on %s: not all changes there are told of",
                self._root, self._pace.poll_every_s, kind, extra={"action": "polling"},
            )  # fmt: skip
            self._polls = True
        self.kind = kind

    def _told(self, paths: Collection[str]) -> None:
        if not self._stands:
            self._stands = True
            self._polls = not tells_of_changes(self.kind)
            self._troubles.tell("watch", None)
            self.scan_now()
        if not paths:
            return
        self._last_hint_s = self._clock.monotonic()
        if self._first_hint_s is None:
            self._first_hint_s = self._last_hint_s
        start = len(self._prefix)
        self._hints.update((path[start:], None) for path in paths if path.startswith(self._prefix))
        if len(self._hints) > MOST_HINTS:
            self._hints.clear()
            self.scan_now()
        elif len(paths) > MANY_HINTS:
            self.scan_now()
        self._wake.set()

    def _is_hint(self, change: Change, path: str) -> bool:
        return self._tree.is_worth_a_look(path[len(self._prefix) :])
