"""Which files count: globs, as in .gitignore files but for their negation."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

ANY_DEPTH = "**"


class Glob:
    """One pattern.

    Without a slash it is for names, at any depth. With one it is for paths from the watched directory on, segment by
    segment: `*` `?` and `[abc]` don't match a slash, and `**` stands for any number of directories. A slash at its
    end is for directories alone. Case counts.
    """

    def __init__(self, text: str) -> None:
        self.for_directories = text.endswith("/")
        segments = text.strip("/").split("/")
        self._by_name = len(segments) == 1 and not text.startswith("/")
        self._segments = [None if segment == ANY_DEPTH else _compiled(segment) for segment in segments]

    def matches(self, path: str) -> bool:
        """Tell whether it matches a path, relative to the watched directory."""
        if self._by_name:
            pattern = self._segments[0]
            return pattern is None or pattern.match(path[path.rfind("/") + 1 :]) is not None
        # Where in the pattern a match may stand after each name: so it takes no longer for awkward patterns.
        places = self._with_skips({0})
        for name in path.split("/"):
            after = set()
            for place in places:
                if place == len(self._segments):
                    continue
                segment = self._segments[place]
                if segment is None:
                    after.add(place)
                elif segment.match(name):
                    after.add(place + 1)
            places = self._with_skips(after)
        return len(self._segments) in places

    def _with_skips(self, places: set[int]) -> set[int]:
        """Add the places behind `**`, which may stand for nothing."""
        for place in sorted(places):
            while place < len(self._segments) and self._segments[place] is None:
                place += 1
                places.add(place)
        return places


class Selection:
    """The files of a directory that count; paths are relative to it.

    `own` are the names of directories right below it that never count.
    """

    def __init__(
        self, match: Sequence[str], exclude: Sequence[str], *, hidden: bool, recursive: bool, own: frozenset[str]
    ) -> None:
        self._match = [Glob(text) for text in match]
        self._exclude = [Glob(text) for text in exclude]
        self._exclude_files = [glob for glob in self._exclude if not glob.for_directories]
        self._takes_all = "*" in match
        self._hidden = hidden
        self.recursive = recursive
        self._own = own

    def takes(self, path: str) -> bool:
        """Tell whether a file counts, if the directories that it is in do."""
        if not self._hidden and path.startswith(".", path.rfind("/") + 1):
            return False
        if not self._takes_all and not any(glob.matches(path) for glob in self._match):
            return False
        return not any(glob.matches(path) for glob in self._exclude_files)

    def enters(self, path: str) -> bool:
        """Tell whether the files of a directory count, if those do that it is in."""
        if not self.recursive or path in self._own:
            return False
        if not self._hidden and path.startswith(".", path.rfind("/") + 1):
            return False
        return not any(glob.matches(path) for glob in self._exclude)

    def reaches(self, path: str) -> bool:
        """Tell whether all directories that a path is in are entered."""
        place = path.find("/")
        while place > 0:
            if not self.enters(path[:place]):
                return False
            place = path.find("/", place + 1)
        return True


def reason_against(text: str) -> str | None:
    """Say why a text can't be a glob, where it can't."""
    if not text.strip("/"):
        return "is no glob"
    if "\0" in text:
        return "holds a NUL character, which no path can"
    if any(segment in ("", ".", "..") for segment in text.strip("/").split("/")):
        return "has a segment that no path within the directory has"
    return None


def _compiled(segment: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(segment))
