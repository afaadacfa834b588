"""What the engine has to find by itself: files, rows and an answer that change, and what each change must become.

Each feeder knows what it did, and in the end what must be told of that: changes that it made too soon after the one
before may have been seen by nobody, and then at most one event tells of each.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from tests.crash.process import NotInTime, wait_for
from tests.crash.site import Site

FINISH_S = 300.0
LOOK_S = 0.1
"""The pause between two looks at what the store holds."""


class Told(Struct, frozen=True, kw_only=True):
    """An event that was stored, and the run that its trigger made of it."""

    type: str
    key: str
    data: Any
    run: str | None


def always() -> threading.Event:
    """Return an event that is set."""
    event = threading.Event()
    event.set()
    return event


class Outside(threading.Thread):
    """Makes changes, `per_second` of them, `most` at most, of which a source has to tell.

    `made` counts them; `problems` are what must not happen while it makes them.
    """

    source: str
    """The id of the source, or how it begins."""

    def __init__(self, site: Site, *, per_second: float, most: int | None = None, seed: int = 0) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.made = 0
        self.problems: list[str] = []
        self._site = site
        self._pause_s = 1.0 / per_second
        self._most = most
        self._random = random.Random(f"{seed}/{self.name}")
        self.may_go = always()
        self._enough = threading.Event()

    def run(self) -> None:
        try:
            while not self._enough.is_set() and self.made != self._most:
                self.may_go.wait()
                self.make(self.made + 1)
                self.made += 1
                self._enough.wait(self._pause_s * self._random.uniform(0.2, 1.8))
        except Exception as error:  # it would end without a word
            self.problems.append(f"{self.name} ended with {error!r}")

    def enough(self) -> None:
        """Make no further changes, but for those up to `most`."""
        if self._most is None:
            self._enough.set()

    def finish(self) -> None:
        """Return when all changes are made, and what was told is what was done."""
        self.join()
        try:
            wait_for(self.is_done, lambda: f"all of {self.name} is told: {list(self.findings())[:5]}", FINISH_S, LOOK_S)
        except NotInTime as late:
            self.problems.append(str(late))

    def is_done(self) -> bool:
        """Tell whether all changes are made and told."""
        return not self.is_alive() and not any(self.findings())

    def close(self) -> None:
        """Let go of what the engine was given to look at."""

    def make(self, number: int) -> None:
        """Make a change."""
        raise NotImplementedError

    def findings(self) -> Iterator[str]:
        """Compare what was told with what was done, as it has to be in the end."""
        raise NotImplementedError

    def told(self) -> list[Told]:
        """Return what is stored of it, in the order in which it was."""
        query = (
            "select type, key, data, (select run from outcomes where event = events.id) "
            "from events where source >= ? and source < ? order by seq"
        )
        return [
            Told(type=type_, key=key, data=json.loads(data), run=run)
            for type_, key, data, run in self._site.rows(query, (self.source, self.source + "~"))
        ]
