"""The way of files: found, complete, told, known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import anyio
from anyio.to_thread import run_sync
from msgspec import Struct

from engine.plugin import Accepted, Event, InvalidEvent, SourceContext, StoreUnavailable
from plugins.sources.files.changes import Change, Kind, event_of, remembered_path
from plugins.sources.files.claims import CLAIMED, MOST_AT_ONCE, ClaimFolders, Claims
from plugins.sources.files.known import Held, Known, Waiting
from plugins.sources.files.lookout import Lookout, Pace, Troubles
from plugins.sources.files.tree import Found, Scan, Tree
from plugins.watching.filesystems import keeps_inodes
from plugins.watching.names import shown

MOST_HINTS_AT_ONCE = 1_000

MOVE_S = 0.25
"""How long a file must be missing before it is deleted: meanwhile it may turn up elsewhere, or be replaced."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0

SCANNED = "scanned"
"""The cursor, once all was scanned for the first time: before, `start` counts."""


class Rules(Struct, frozen=True, kw_only=True):
    """What counts as a change, and when.

    - `settle_s`: how long a file must stay the same, with nobody writing to it; None: what is found is complete.
    - `starts_now`: what is there at the first start is no change.
    """

    kinds: frozenset[Kind]
    settle_s: float | None
    starts_now: bool
    claims: bool


class Watcher:
    """Emits the changes of one directory.

    What is remembered says which files were told of, and how they were; what a scan finds otherwise is a change.
    """

    def __init__(self, tree: Tree, rules: Rules, pace: Pace, context: SourceContext) -> None:
        self._tree = tree
        self._rules = rules
        self._context = context
        self._clock = context.clock
        self._log = context.log
        self._troubles = Troubles(context)
        self._lookout = Lookout(tree, context, self._troubles, pace)
        self._known = Known({})
        self._waiting = Waiting()
        self._claims: Claims | None = None
        if rules.claims:
            folders = ClaimFolders(
                tree.root,
                same=lambda one, other: self._known.same(one, other),
                asks_writers=rules.settle_s is not None,
                sentinel=tree.sentinel,
            )
            self._claims = Claims(folders, context, self._store, self._troubles)
        self._stuck: dict[str, str] = {}
        self._resumed = not rules.claims
        self._claimed_rows: dict[str, Any] = {}
        self._scan: Scan | None = None
        self._scan_took_s = 0.0
        self._was_scanned = False
        self._is_first = False
        self._is_ready = False
        self._told_odd: set[str] = set()

    async def run(self) -> None:
        """Emit until cancelled."""
        try:
            await self._remember()
            await self._lookout.learn()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._lookout.run)
                if self._claims is not None:
                    tasks.start_soon(self._claims.run)
                while True:
                    await self._round()
                    await self._lookout.wait(self._wait_until_s())
        finally:
            self._end_scan()
            if self._claims is not None:
                self._claims.close()

    async def _remember(self) -> None:
        rows = await self._context.remembered()
        if self._claims is not None:
            place = f"{CLAIMED}/"
            self._claimed_rows = {key: row for key, row in rows.items() if remembered_path(key, row).startswith(place)}
        self._known = Known({key: row for key, row in rows.items() if key not in self._claimed_rows})
        self._was_scanned = await self._context.cursor() == SCANNED
        self._is_first = self._rules.starts_now and not self._was_scanned

    def _wait_until_s(self) -> float | None:
        return 0.0 if self._scan is not None else self._waiting.next_s()

    # One round: a portion of each

    async def _round(self) -> None:
        try:
            if not self._resumed and self._claims is not None:
                await self._claims.resume(self._claimed_rows)
                self._claimed_rows, self._resumed = {}, True
            await self._take_hints()
            await self._take_due()
            await self._take_scan()
        except OSError as error:
            # The directory itself; what is wrong with what is in it was dealt with before.
            self._end_scan()
            self._lookout.scan_failed()
            self._troubles.tell("directory", f"{self._tree.root} can't be read: {error.strerror or error}")
            if isinstance(error, FileNotFoundError):
                await self._first_is_over()  # where there is no directory, there are no files
            self._be_ready()

    def _be_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._context.ready()

    async def _take_hints(self) -> None:
        paths = self._lookout.take_hints(MOST_HINTS_AT_ONCE)
        if not paths or self._is_first:  # then the scan, which comes first, finds it
            return
        found = await run_sync(self._tree.look, paths)
        await self._take([one for one in found if not one.is_directory])
        scanned = "/"
        for path in sorted(one.path for one in found if one.is_directory):
            if not path.startswith(scanned):
                await self._take_below(path)
                scanned = f"{path}/"

    async def _take_below(self, path: str) -> None:
        """Scan a directory that is new, or was moved here."""
        scan = Scan(self._tree, self._known, path)
        try:
            while (found := await run_sync(scan.next_portion)) is not None:
                await self._take(found)
        finally:
            scan.close()

    async def _take_scan(self) -> None:
        due_s = self._lookout.scan_due_s()
        if self._scan is None:
            if due_s is None or due_s > self._clock.monotonic():
                return
            self._known.keeps_inodes = keeps_inodes(self._lookout.kind)
            self._lookout.scan_begins()
            self._scan, self._scan_took_s = Scan(self._tree, self._known), 0.0
            self._retry_stuck()
        began_s = self._clock.monotonic()
        found = await run_sync(self._scan.next_portion)
        self._scan_took_s += self._clock.monotonic() - began_s
        if found is not None:
            await self._take(found)
            return
        missing = await run_sync(self._scan.missing)
        unreadable = self._scan.unreadable
        self._end_scan()
        await self._take(missing)
        self._lookout.scan_ended(self._scan_took_s)
        self._tell_of_scan(unreadable)
        await self._first_is_over()
        self._be_ready()

    async def _first_is_over(self) -> None:
        """Take what comes from now on for changes, also at later starts."""
        if not self._was_scanned:
            await self._emit((), {}, cursor=SCANNED)
            self._was_scanned, self._is_first = True, False

    def _end_scan(self) -> None:
        if self._scan is not None:
            self._scan.close()
            self._scan = None

    def _tell_of_scan(self, unreadable: Mapping[str, str]) -> None:
        self._troubles.tell("directory", None)
        said = [f"{shown(path)} can't be read: {reason}" for path, reason in list(unreadable.items())[:3]]
        if len(unreadable) > len(said):
            said.append(f"and {len(unreadable) - len(said)} other directories")
        self._troubles.tell("directories", "; ".join(said) or None)
        for path, kind in self._tree.odd.items():
            if path not in self._told_odd:
                self._told_odd.add(path)
                self._log.warning("%s is left alone: %s", shown(path), kind, extra={"action": "file_odd"})

    # What was found

    async def _take(self, found: Sequence[Found]) -> None:
        now_s = self._clock.monotonic()
        origins = await self._origins(found)
        changes: list[Change] = []
        for path, mark, *_ in found:
            if mark is None:
                self._miss(path, now_s)
            elif self._known.is_known(path, mark):
                self._waiting.drop(path)
            elif path in origins:
                changes.append(Change(kind="moved", path=path, mark=mark, origin=origins[path]))
            elif self._is_first or self._rules.settle_s is None:
                changes.append(self._known.change(path, mark))
            else:
                held = self._waiting.get(path)
                if held is None or held.mark is None or not self._known.same(held.mark, mark):
                    self._waiting.put(path, Held(mark, now_s, now_s + self._rules.settle_s))
        await self._tell(changes)

    def _miss(self, path: str, now_s: float) -> None:
        if path not in self._known.marks:
            self._waiting.drop(path)
            return
        held = self._waiting.get(path)
        if held is None or held.mark is not None:
            self._waiting.put(path, Held(None, now_s, now_s + MOVE_S))

    async def _origins(self, found: Sequence[Found]) -> dict[str, str]:
        """Return from where files have moved, by their new paths."""
        wanted = {
            one.path: origins
            for one in found
            if one.mark is not None and (origins := self._known.origins_of(one.path, one.mark))
        }
        if not wanted or self._is_first:
            return {}
        # Where it can't be said what is there, it is not said that the file has left.
        asked = list(dict.fromkeys(origin for origins in wanted.values() for origin in origins))
        left = {
            one.path
            for one in await run_sync(self._tree.judge, asked)
            if one.mark is None or not self._known.is_known(one.path, one.mark)
        }
        moved: dict[str, str] = {}
        for path, origins in wanted.items():
            if (origin := next((origin for origin in origins if origin in left), None)) is not None:
                left.remove(origin)  # a name moves to one other alone
                moved[path] = origin
        return moved

    async def _take_due(self) -> None:
        paths = list(dict.fromkeys(self._waiting.due(self._clock.monotonic(), MOST_AT_ONCE)))
        if not paths:
            return
        judged: list[Found] = []
        try:
            judged = await run_sync(self._tree.judge, paths)
        finally:
            self._put_off(set(paths).difference(one.path for one in judged))
        changes = [change for one in judged if (change := self._judge(one)) is not None]
        back = [one.path for one in judged if one.mark is not None and self._waiting.get(one.path) is None]
        await self._tell(changes)
        if back:
            await self._take(await run_sync(self._tree.look, back))

    def _put_off(self, paths: Iterable[str]) -> None:
        """Have paths looked at again later."""
        due_s = self._clock.monotonic() + LONGEST_WAIT_S
        for path in paths:
            if (held := self._waiting.get(path)) is not None:
                self._waiting.put(path, held._replace(due_s=due_s))

    def _judge(self, one: Found) -> Change | None:
        """Return the change that a path which was due has become, where it has."""
        now_s = self._clock.monotonic()
        path, mark = one.path, one.mark
        held = self._waiting.get(path)
        if held is None:
            return None
        if mark is None:
            self._waiting.drop(path)
            if held.mark is not None:
                self._miss(path, now_s)
                return None
            before = self._known.marks.get(path)
            return None if before is None else Change(kind="deleted", path=path, mark=before)
        settle_s = self._rules.settle_s
        if held.mark is None:
            self._waiting.drop(path)  # it is back
        elif settle_s is not None and not self._known.same(held.mark, mark):
            self._waiting.put(path, Held(mark, now_s, now_s + settle_s))
        elif one.writing:
            wait_s = min(max((now_s - held.since_s) / 4, SHORTEST_WAIT_S), LONGEST_WAIT_S)
            self._waiting.put(path, held._replace(due_s=now_s + wait_s))
        else:
            return self._known.change(path, mark)
        return None

    # What is told

    async def _tell(self, changes: Sequence[Change]) -> None:
        changes = sorted(changes, key=lambda change: (change.mark.mtime_ns, change.path))
        for start in range(0, len(changes), MOST_AT_ONCE):
            batch = changes[start : start + MOST_AT_ONCE]
            for change in batch:
                self._waiting.drop(change.path)
                if change.origin is not None:
                    self._waiting.drop(change.origin)
            if self._claims is not None and not self._is_first:
                await self._claim(self._claims, batch)
                continue
            rows: dict[str, Any] = {}
            for change in batch:
                rows |= self._known.apply(change)
            await self._store([] if self._is_first else batch, rows)

    async def _claim(self, claims: Claims, changes: Sequence[Change]) -> None:
        gone = [change for change in changes if change.kind == "deleted"]
        rows: dict[str, Any] = {}
        for change in gone:  # of those that were there at the first start
            rows |= self._known.apply(change)
        if rows:
            await self._store((), rows)
        wanted = [change for change in changes if change.kind != "deleted" and change.path not in self._stuck]
        self._stuck |= await claims.take([Change(kind="created", path=one.path, mark=one.mark) for one in wanted])
        if self._stuck:
            path, reason = next(iter(self._stuck.items()))
            self._troubles.tell("claim", f"{len(self._stuck)} files can't be claimed, such as {shown(path)}: {reason}")

    def _retry_stuck(self) -> None:
        if self._stuck:
            self._stuck.clear()
        else:
            self._troubles.tell("claim", None)

    async def _store(self, changes: Sequence[Change], rows: Mapping[str, Any]) -> list[Accepted | str]:
        """Make changes durable that are wanted; return the answers, or why one was rejected."""
        events = [event_of(change, self._tree.root) for change in changes if change.kind in self._rules.kinds]
        return await self._emit(events, rows)

    async def _emit(self, events: Sequence[Event], rows: Mapping[str, Any], cursor: Any = None) -> list[Accepted | str]:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answers: list[Accepted | str] = list(await self._context.emit(*events, cursor=cursor, remember=rows))
            except StoreUnavailable as error:
                self._log.warning("Files wait: %s", error, extra={"action": "store_unavailable"})
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except InvalidEvent as error:
                if not events:
                    raise
                if len(events) == 1:
                    return await self._reject(events[0], rows, str(error))
                answers = []
                for event in events[:-1]:
                    answers += await self._emit([event], {})
                return answers + await self._emit(events[-1:], rows, cursor)
            else:
                return answers

    async def _reject(self, event: Event, rows: Mapping[str, Any], reason: str) -> list[Accepted | str]:
        """Record what is no event; it is remembered like the others, so that it is not tried for ever."""
        self._log.warning("%s is rejected: %s", event.subject, reason, extra={"action": "file_rejected"})
        await self._context.reject(Event(type="file.rejected", subject=event.subject, key=event.key), reason)
        await self._emit((), rows)
        return [reason]
