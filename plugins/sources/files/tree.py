"""What lies in the watched directory: scans of all of it, and looks at single paths. All of it blocks.

Nothing is read. Paths are relative to the directory, and opened name by name: what links lead to is seen only where
they are to be followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from plugins.sources.files.known import Known
from plugins.sources.files.patterns import Selection
from plugins.watching.opening import READ_FLAGS, Mark, below, kind_of, mark_of, open_for_writing, opened

MOST_FOUND, MOST_ENTRIES = 1_000, 10_000
"""A portion of a scan ends after so many files that are not as known, or so many entries in all."""

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that nothing that counts has this path; others say that it can't be told now."""

MOST_ODD = 1_000
"""How many of the files that are none are told of."""


class Found(NamedTuple):
    """What lies under a path: a file with its mark, a directory that is entered, or, without both, nothing that counts.

    `writing`: whether somebody has it open for writing; None where that was not asked or is not known.
    """

    path: str
    mark: Mark | None
    is_directory: bool = False
    writing: bool | None = None


class Tree:
    """A directory with its files.

    - `follow`: whether links count as what they lead to.
    - `sentinel`: a file counts only when one of its name and this suffix lies beside it, and is not older.
    - `odd`: what matched and is no file, and why, for those who look to tell it; bounded.
    """

    def __init__(self, root: Path, selection: Selection, *, follow: bool, sentinel: str | None) -> None:
        self.root = root
        self.selection = selection
        self.odd: dict[str, str] = {}
        self.sentinel = sentinel
        self._follow = follow

    def is_worth_a_look(self, path: str) -> bool:
        """Tell whether a change of this path may be one of a file that counts."""
        if not self.selection.reaches(path):
            return False
        # What is taken for a file here may be a directory.
        return self.selection.takes(path) or self.selection.enters(path) or self._is_sentinel(path)

    def _is_sentinel(self, path: str) -> bool:
        return self.sentinel is not None and path.endswith(self.sentinel)

    def look(self, paths: Iterable[str]) -> list[Found]:
        """Look at single paths; where one is a sentinel, at its file. What is there but incomplete is left out."""
        if self.sentinel is not None:
            paths = {path.removesuffix(self.sentinel) for path in paths}
        found: list[Found] = []
        for root, directory, names in self._by_directory(paths):
            if root is None:
                found.extend(Found(directory + name, None) for name in names)
                continue
            for name in names:
                one = self._look_at(root, directory + name, name)
                if one is not None:
                    found.append(one)
        return found

    def judge(self, paths: Iterable[str]) -> list[Found]:
        """Look at single files, and whether somebody writes to them; what can't be said now is left out."""
        judged: list[Found] = []
        for root, directory, names in self._by_directory(paths):
            for name in names:
                path = directory + name
                one = Found(path, None) if root is None else self._judge(root, path, name)
                if one is not None:
                    judged.append(one)
        return judged

    def _by_directory(self, paths: Iterable[str]) -> Iterator[tuple[int | None, str, list[str]]]:
        """Group paths by their directories: an open one or, where it is gone, none; its path with a slash; names."""
        with opened(self.root) as root:
            for directory, group in groupby(sorted(paths, key=_directory_first), key=_directory_of):
                names = [path[len(directory) :] for path in group]
                try:
                    with below(root, directory.split("/")[:-1], follow=self._follow) as inner:
                        yield inner, directory, names
                except OSError as error:
                    # What can't be entered is left as it is known: a scan tells of it.
                    if error.errno in GONE:
                        yield None, directory, names

    def _look_at(self, directory: int, path: str, name: str) -> Found | None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=self._follow)
        except OSError as error:
            return Found(path, None) if error.errno in GONE else None
        if stat.S_ISDIR(found.st_mode):
            return Found(path, None, is_directory=self.selection.enters(path))
        if not self.selection.takes(path):
            return Found(path, None)
        return self._file(directory, path, name, found)

    def _file(self, directory: int, path: str, name: str, found: os.stat_result) -> Found | None:
        """Return a file that counts, nothing where it is no file, and None where it is not complete."""
        if not stat.S_ISREG(found.st_mode):
            if len(self.odd) < MOST_ODD:
                self.odd[path] = kind_of(found.st_mode)
            return Found(path, None)
        mark = mark_of(found)
        if self.sentinel is not None and not self._has_sentinel(directory, name, mark):
            return None
        return Found(path, mark)

    def _has_sentinel(self, directory: int, name: str, mark: Mark) -> bool:
        try:
            sentinel = os.stat(f"{name}{self.sentinel}", dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        # An older one is that of an earlier content.
        return stat.S_ISREG(sentinel.st_mode) and sentinel.st_mtime_ns >= mark.mtime_ns

    def _judge(self, directory: int, path: str, name: str) -> Found | None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=self._follow)
        except OSError as error:
            return Found(path, None) if error.errno in GONE else None
        # Asked before opening: to open a device can have effects.
        if not stat.S_ISREG(found.st_mode):
            return Found(path, None)
        try:
            file = os.open(name, READ_FLAGS & ~os.O_NOFOLLOW if self._follow else READ_FLAGS, dir_fd=directory)
        except OSError as error:
            # A file that may not be read may be told of all the same.
            return Found(path, None if error.errno in GONE else mark_of(found))
        try:
            found = os.fstat(file)
            return Found(path, mark_of(found) if stat.S_ISREG(found.st_mode) else None, writing=open_for_writing(file))
        finally:
            os.close(file)


class Scan:
    """A walk through the tree, portion by portion, for what is not as `known`.

    `unreadable`: directories that could not be read, and why; what is known below them stays known.
    """

    def __init__(self, tree: Tree, known: Known, start: str = "") -> None:
        self.unreadable: dict[str, str] = {}
        self._tree = tree
        self._known = known
        self._start = start
        self._seen: set[str] = set()
        self._portions = self._walk()

    def next_portion(self) -> list[Found] | None:
        """Return what was found next; None at the end. Raises OSError where the watched directory can't be read."""
        return next(self._portions, None)

    def close(self) -> None:
        """Let go of what is open."""
        self._portions.close()

    def missing(self) -> list[Found]:
        """Return the known files that were not seen; for a scan of all, at its end.

        They are looked at once more: a file may have come, and been told, where the scan had passed. Raises OSError.
        """
        if self._known.marks.keys() <= self._seen:
            return []
        places = tuple(f"{path}/" for path in self.unreadable)
        return self._tree.look(
            path for path in self._known.marks if path not in self._seen and not path.startswith(places)
        )

    def _walk(self) -> Generator[list[Found]]:
        found: list[Found] = []
        entries = 0
        ahead, entered = [self._start], set[tuple[int, int]]()
        with opened(self._tree.root) as root:
            while ahead:
                path = ahead.pop()
                for one in self._directory(root, path, entered):
                    entries += 1
                    if one is None:
                        pass
                    elif one.is_directory:
                        ahead.append(one.path)
                    else:
                        found.append(one)
                    if len(found) >= MOST_FOUND or entries >= MOST_ENTRIES:
                        yield found
                        found, entries = [], 0
        yield found

    def _directory(self, root: int, path: str, entered: set[tuple[int, int]]) -> Iterator[Found | None]:
        """Go through one directory; None stands for what is as known, or doesn't count."""
        tree = self._tree
        names, prefix = (path.split("/"), f"{path}/") if path else ([], "")
        try:
            with below(root, names, follow=tree._follow) as directory, os.scandir(directory) as entries:
                if tree._follow:  # links may lead in a circle
                    itself = os.fstat(directory)
                    if (itself.st_dev, itself.st_ino) in entered:
                        return
                    entered.add((itself.st_dev, itself.st_ino))
                for entry in entries:
                    yield self._entry(directory, prefix, entry)
        except (FileNotFoundError, NotADirectoryError):
            if not path:
                raise
        except OSError as error:
            if not path:
                raise
            self.unreadable[path] = error.strerror or str(error)

    def _entry(self, directory: int, prefix: str, entry: os.DirEntry[str]) -> Found | None:
        tree, path = self._tree, prefix + entry.name
        try:
            if entry.is_dir(follow_symlinks=tree._follow):
                return Found(path, None, is_directory=True) if tree.selection.enters(path) else None
            is_known = path in self._known.marks  # and therefore counts
            if not is_known and not tree.selection.takes(path):
                return None
            stated = entry.stat(follow_symlinks=tree._follow)
        except FileNotFoundError:
            return None
        except OSError:
            self._seen.add(path)  # it is there
            return None
        if stat.S_ISREG(stated.st_mode):
            self._seen.add(path)
            if is_known and self._known.is_known(path, mark_of(stated)):
                return None
        return tree._file(directory, path, entry.name, stated)


def _directory_of(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _directory_first(path: str) -> tuple[str, str]:
    place = path.rfind("/") + 1
    return path[:place], path[place:]
