"""Files that come, change and go: trigger files, a folder that is watched, and one whose files are claimed."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tests.crash.outside import Outside
from tests.crash.site import Site

WRITES_S = 0.15
"""How long a slow sender takes for a file."""

ACTIONS = ("create", "rewrite", "create", "move", "create", "remove")
"""What is done to the watched folder, in turn."""


class TriggerFiles(Outside):
    """Drops trigger files; one is acknowledged when it is gone."""

    source = "trigger_dir:"

    def make(self, number: int) -> None:
        drop(self._site, f"{number}.json", {"n": number})

    def findings(self) -> Iterator[str]:
        yield from (f"trigger file {name} is not taken" for name in left_in(self._site))
        counts = Counter(event.data["parameters"]["n"] for event in self.told())
        for number in range(1, self.made + 1):
            if counts[number] != 1:
                yield f"trigger file {number} was taken, and is {counts[number]} events"
        rejected = self._site.inbox / "rejected"
        if rejected.is_dir():
            yield from (f"trigger file {path.name} was rejected" for path in rejected.iterdir())


def drop(site: Site, name: str, parameters: dict[str, Any], **members: Any) -> None:
    """Put a trigger file into place at once, as a careful sender does."""
    hidden = site.inbox / f".{name}"
    hidden.write_text(json.dumps({"parameters": parameters, **members}))
    os.rename(hidden, site.inbox / name)


def left_in(site: Site) -> list[str]:
    """Return the trigger files in the inbox, with those that were moved aside to be removed."""
    found = [path.name for path in site.inbox.iterdir() if path.is_file() and not path.name.startswith(".")]
    aside = site.inbox / ".taken"
    return found + [f".taken/{path.name}" for path in aside.iterdir()] if aside.is_dir() else found


class Watched(Struct, kw_only=True):
    """A name in the watched folder: the sizes of its contents, one after the other, and what became of it.

    No two contents have the same size. `seen` are the sizes that were told before the next change was made;
    `origin` is the file that was moved here.
    """

    name: str
    sizes: list[int]
    seen: set[int] = field(default_factory=set)
    origin: Watched | None = None
    is_gone: bool = False


class WatchedFolder(Outside):
    """Renames files into a folder, replaces them, moves and removes them, sooner or later than they are told."""

    source = "files:watched"

    def __init__(self, site: Site, **settings: Any) -> None:
        super().__init__(site, **settings)
        self._files: list[Watched] = []
        self._contents = 0
        self._folder, self._made = site.path / "watched", site.path / "made"
        for folder in (self._folder, self._made):
            folder.mkdir(exist_ok=True)

    def make(self, number: int) -> None:
        action = ACTIONS[(number - 1) % len(ACTIONS)]
        there = [file for file in self._files if not file.is_gone]
        file = self._random.choice(there) if there and action != "create" else None
        if file is not None and self._is_told(file):
            file.seen.add(file.sizes[-1])
        elif file is not None and (self._random.random() < 0.5 or (action == "move" and file.origin is not None)):
            file = None  # it is left alone until it is told
        if file is None:
            self._files.append(Watched(name=f"{number}.csv", sizes=[self._put(f"{number}.csv")]))
        elif action == "rewrite":
            file.sizes.append(self._put(file.name))
        elif action == "remove":
            (self._folder / file.name).unlink()
            file.is_gone = True
        else:
            moved = Watched(name=f"{number}-moved.csv", sizes=file.sizes[-1:], origin=file)
            os.rename(self._folder / file.name, self._folder / moved.name)
            file.is_gone = True
            self._files.append(moved)

    def _put(self, name: str) -> int:
        """Rename a new content into place, and return its size."""
        self._contents += 1
        size = 10 + self._contents
        (self._made / name).write_text("x" * size)
        os.rename(self._made / name, self._folder / name)
        return size

    def _is_told(self, file: Watched) -> bool:
        query = "select 1 from events where source = ? and subject = ? and json_extract(data, '$.size') = ?"
        try:
            return bool(self._site.rows(query, (self.source, str(self._folder / file.name), file.sizes[-1])))
        except sqlite3.OperationalError:  # there is no store yet
            return False

    def findings(self) -> Iterator[str]:
        kinds: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for event in self.told():
            kinds[event.data["name"]].append((event.type.removeprefix("file."), event.data["size"]))
        for file in self._files:
            yield from self._contents_of(file, kinds[file.name])
            if file.origin is not None:
                yield from self._move_of(file, file.origin, kinds)
        known = {file.name for file in self._files}
        yield from (f"{name} is told of, and was never there" for name in kinds.keys() - known)
        moved = {file.origin.name for file in self._files if file.origin is not None}
        for file in self._files:
            deleted = [kind for kind, _ in kinds[file.name]].count("deleted")
            expected = int(file.is_gone and len(kinds[file.name]) > deleted)
            if file.name not in moved and deleted != expected:
                yield f"watched file {file.name} is told {deleted} times as deleted, not {expected} times"

    def _contents_of(self, file: Watched, told: list[tuple[str, int]]) -> Iterator[str]:
        """Each content is told at most once, and once where it stayed until it was, or until the end."""
        counts = Counter(size for kind, size in told if kind != "deleted")
        certain = file.seen if file.is_gone else {*file.seen, file.sizes[-1]}
        for size in file.sizes:
            if counts[size] > 1 or (size in certain and not counts[size]):
                yield f"content {size} of the watched file {file.name} is told {counts[size]} times"
        if stray := counts.keys() - set(file.sizes):
            yield f"contents {stray} of the watched file {file.name} are told of, and were never there"
        kinds = [kind for kind, _ in told if kind != "deleted"]
        if kinds[:1] not in ([], ["created"], ["moved"]) or set(kinds[1:]) - {"modified"}:
            yield f"the watched file {file.name} is told of as {kinds}"

    def _move_of(self, file: Watched, origin: Watched, kinds: dict[str, list[tuple[str, int]]]) -> Iterator[str]:
        """A move is one event where origin and target were seen, else the target is new and the origin gone."""
        first = next(iter(kinds[file.name]), None)
        deleted = [kind for kind, _ in kinds[origin.name]].count("deleted")
        if first == ("moved", file.sizes[0]):
            expected = 0
        else:
            expected = int(len(kinds[origin.name]) > deleted)
            if first == ("created", file.sizes[0]) and origin.sizes[-1] in origin.seen:
                yield f"the watched file {origin.name} was moved to {file.name}, which is told as created"
        if deleted != expected:
            yield f"{origin.name}, moved to {file.name} ({first}), is told {deleted} times as deleted"


class ClaimedFolder(Outside):
    """Puts files into a folder of which each is claimed, at once or slowly; a name may come again.

    No two have the same size, by which they are told apart.
    """

    def __init__(self, site: Site, **settings: Any) -> None:
        super().__init__(site, **settings)
        self._folder, self._made = site.path / "claims", site.path / "made"
        self.source = f"files:{self._folder}-"
        for folder in (self._folder, self._made):
            folder.mkdir(exist_ok=True)

    def make(self, number: int) -> None:
        name = f"{number}.csv"
        if self._random.random() < 0.2:
            before = f"{self._random.randint(1, number)}.csv"
            name = name if (self._folder / before).exists() else before
        content = "x" * (100 + number)
        if self._random.random() < 0.5:
            (self._made / f"claimed-{name}").write_text(content)
            os.rename(self._made / f"claimed-{name}", self._folder / name)
            return
        with (self._folder / name).open("w") as file:
            file.write(content[:50])
            file.flush()
            time.sleep(WRITES_S)
            file.write(content[50:])

    def findings(self) -> Iterator[str]:
        places = self._places()
        states = dict(self._site.rows("select id, state from runs where trigger = 'claimed'"))
        told = defaultdict(list)
        for event in self.told():
            told[event.data["size"] - 100].append(event)
            if event.type != "file.created":
                yield f"a claimed file is told of as {event.type}"
        for number in range(1, self.made + 1):
            events = told.pop(number, [])
            if len(events) != 1:
                yield f"claimed file {number} is {len(events)} events"
                continue
            wanted = ["done" if states.get(events[0].run or "") == "succeeded" else "failed"]
            if places[number] != wanted:
                yield f"claimed file {number} is in {places[number]}, and should be in {wanted}"
        if told:
            yield f"files {list(told)} were claimed, and are none that were whole"

    def _places(self) -> dict[int, list[str]]:
        """Return in which directories each file lies; one in `failed` counts where the reason lies beside it."""
        found: dict[int, list[str]] = defaultdict(list)
        for place in ("", ".claimed", "done", "failed"):
            folder = self._folder / place
            for path in folder.glob("*") if folder.is_dir() else ():
                with suppress(FileNotFoundError):
                    if not path.is_file() or path.suffix == ".error":
                        continue
                    has_reason = place != "failed" or Path(f"{path}.error").exists()
                    found[path.stat().st_size - 100].append(place if has_reason else f"{place} without a reason")
        return found
