"""What is known of files, and what has to hold for a while before it counts. Pure: no clock, no files."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, NamedTuple

from plugins.sources.files.changes import Change, remembered_as, remembered_path
from plugins.watching.opening import Mark


class Known:
    """The files whose changes were told, each as it was then.

    `keeps_inodes`: whether a file keeps its inode number for as long as it lives; where not, the number tells
    nothing, and a move is a deletion and a creation.
    """

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self.keeps_inodes = True
        self.marks: dict[str, Mark] = {}
        # Links are several names of one inode; and a number may be given anew before it is told that its file is gone.
        self._by_inode: dict[int, tuple[str, ...]] = {}
        for key, row in rows.items():
            self._put(remembered_path(key, row), Mark(*row[:5]))

    def same(self, one: Mark, other: Mark) -> bool:
        """Tell whether two marks are those of one file with one content.

        Device numbers are given anew when the machine starts, and the time of the inode's last change also moves when
        rights or links do.
        """
        if one.size != other.size or one.mtime_ns != other.mtime_ns:
            return False
        return one.inode == other.inode or not self.keeps_inodes

    def is_known(self, path: str, mark: Mark) -> bool:
        """Tell whether a file is as it was told."""
        before = self.marks.get(path)
        return before is not None and self.same(before, mark)

    def origins_of(self, path: str, mark: Mark) -> list[str]:
        """Return the other paths under which this file is known: it moved from one where it is there no more."""
        known = self._by_inode.get(mark.inode, ()) if self.keeps_inodes else ()
        return [origin for origin in known if origin != path and self.same(self.marks[origin], mark)]

    def change(self, path: str, mark: Mark) -> Change:
        """Return how a file came to be what it is: created, or modified."""
        return Change(kind="modified" if path in self.marks else "created", path=path, mark=mark)

    def apply(self, change: Change) -> dict[str, Any]:
        """Take a change for known, and return what is to be remembered of it."""
        if change.kind == "deleted":
            self._drop(change.path)
            return {remembered_as(change.path)[0]: None}
        rows: dict[str, Any] = {}
        origin = change.origin
        # Another file may have taken its place by now, and be known there already.
        if origin is not None and self.is_known(origin, change.mark):
            self._drop(origin)
            rows[remembered_as(origin)[0]] = None
        self._put(change.path, change.mark)
        key, extra = remembered_as(change.path)
        rows[key] = [*change.mark, *extra]
        return rows

    def _put(self, path: str, mark: Mark) -> None:
        if path in self.marks:
            self._drop(path)
        self.marks[path] = mark
        self._by_inode[mark.inode] = (*self._by_inode.get(mark.inode, ()), path)

    def _drop(self, path: str) -> None:
        mark = self.marks.pop(path, None)
        if mark is None:
            return
        others = tuple(other for other in self._by_inode.pop(mark.inode) if other != path)
        if others:
            self._by_inode[mark.inode] = others


class Held(NamedTuple):
    """What was seen of a path, a mark or nothing, since when, and when it is looked at again."""

    mark: Mark | None
    since_s: float
    due_s: float


class Waiting:
    """Paths that have to stay as they are for a while, by the time at which they are due."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._line: list[tuple[float, str]] = []

    def get(self, path: str) -> Held | None:
        """Return what is held of a path."""
        return self._held.get(path)

    def put(self, path: str, held: Held) -> None:
        """Hold a path, in place of what was held of it."""
        self._held[path] = held
        heapq.heappush(self._line, (held.due_s, path))

    def drop(self, path: str) -> None:
        """Hold a path no more."""
        self._held.pop(path, None)

    def due(self, now_s: float, limit: int) -> list[str]:
        """Return paths that are due; each has to be put or dropped."""
        paths: list[str] = []
        while len(paths) < limit and (next_s := self.next_s()) is not None and next_s <= now_s:
            paths.append(heapq.heappop(self._line)[1])
        return paths

    def next_s(self) -> float | None:
        """Return when the next one is due."""
        while self._line:
            due_s, path = self._line[0]
            held = self._held.get(path)
            if held is not None and held.due_s == due_s:
                return due_s
            heapq.heappop(self._line)  # it was put anew, or dropped
        return None
