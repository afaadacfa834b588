"""Files: what is created, modified, deleted and moved in a directory is an event."""

from __future__ import annotations

import hashlib
from glob import escape
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from msgspec import Meta
from msgspec.structs import replace

from engine.plugin import BadSetting, Duration, Source, SourceContext, Whereabouts, encode_json
from plugins.sources.files.changes import KINDS, Kind
from plugins.sources.files.claims import OWN
from plugins.sources.files.lookout import Pace
from plugins.sources.files.patterns import Selection, reason_against
from plugins.sources.files.tree import Tree
from plugins.sources.files.watcher import Rules, Watcher

__all__ = ["Files"]

SETTLE_S = 2.0
SENTINEL = ".done"


class Files(Source, frozen=True, kw_only=True):
    """Emit an event for each change of a file in a directory.

    - `path`: the directory. While it is missing the source waits for it, and says so.
    - `match`: globs of the files that count. One without a slash is for names, at any depth; one with a slash for
      paths within the directory, where `**` stands for any number of directories.
    - `exclude`: globs of the files and directories that don't count; one that ends with a slash is for directories
      alone.
    - `recursive`: whether files in directories below count, too.
    - `hidden`: whether files and directories count whose names begin with a dot.
    - `follow_symlinks`: whether symbolic links count as what they lead to; what changes there is found by scans. By
      default they are left alone.
    - `events`: the changes that are events, of `created`, `modified`, `deleted` and `moved`.
    - `start`: at the first start, `beginning` takes the files that are there as created; `now` those that come
      after it. Later, what changed while the engine was away counts in either case.
    - `complete`: when a new or modified file is complete. `stable`: its size and time stay the same for `settle`,
      and nobody has it open for writing (as far as Linux tells, and for files of its own user or as root).
      `rename`: at once, as it is renamed or linked into place. `sentinel`: when another file, of the same name and
      `sentinel`, lies beside it and is not older.
    - `settle`: how long a file must stay the same, with `complete = "stable"`.
    - `sentinel`: the suffix of sentinels, which are no events themselves.
    - `claim`: each complete file is renamed into `.claimed/` within the directory before its event; it is moved from
      there to `done/` when all its runs have succeeded, else to `failed/`, beside a text that says why.
      Each content of a name is then one file, and one `created`.
    - `every`: how often all is scanned, whatever the system tells of changes.
    - `poll`: `auto` listens to what the system tells, and polls as well where it can't tell all (network and FUSE
      file systems, overlays), or alone where it has no more watches; `always` polls alone.
    - `poll_every`: the time between two scans where it polls; more for directories whose scan takes long.
    """

    name: ClassVar[str] = "files"
    main: ClassVar[str | None] = "path"

    path: Path
    match: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    recursive: bool = False
    hidden: bool = False
    follow_symlinks: bool = False
    events: tuple[Kind, ...] = KINDS
    start: Literal["beginning", "now"] = "beginning"
    complete: Literal["stable", "rename", "sentinel"] = "stable"
    settle: Annotated[Duration, Meta(ge=0)] = SETTLE_S
    sentinel: str = SENTINEL
    claim: bool = False
    every: Annotated[Duration, Meta(ge=1)] = 30.0
    poll: Literal["auto", "always"] = "auto"
    poll_every: Annotated[Duration, Meta(ge=0.1)] = 2.0

    def __post_init__(self) -> None:
        if "\0" in str(self.path):
            raise BadSetting("path", "holds a NUL character, which no path can")
        for field, globs in (("match", self.match), ("exclude", self.exclude)):
            for glob in globs:
                if reason := reason_against(glob):
                    raise BadSetting(field, f"{glob!r} {reason}")
        if not self.match:
            raise BadSetting("match", "is empty: no file would count", 'match = ["*.csv"]')
        if not self.events:
            raise BadSetting("events", "is empty: nothing would be an event", 'events = ["created"]')
        self._refuse_what_has_no_effect()

    def _refuse_what_has_no_effect(self) -> None:
        if self.settle != SETTLE_S and self.complete != "stable":
            raise BadSetting("settle", f'has no effect with complete = "{self.complete}"', 'complete = "stable"')
        if self.complete == "sentinel":
            if not self.sentinel or "/" in self.sentinel or "\0" in self.sentinel:
                raise BadSetting("sentinel", "is no end of a name", 'such as ".done"')
        elif self.sentinel != SENTINEL:
            raise BadSetting("sentinel", f'has no effect with complete = "{self.complete}"', 'complete = "sentinel"')
        if not self.claim:
            return
        if self.events not in (KINDS, ("created",)):
            raise BadSetting("events", "can't be chosen with claim: each claimed file is created", "leave it out")
        if self.follow_symlinks:
            raise BadSetting("follow_symlinks", "can't be with claim: a link that is moved may lead elsewhere")

    def try_it(self, here: Whereabouts) -> str:
        pattern = self.match[0].rpartition("/")[2]
        name = pattern.replace("*", "hello").replace("?", "x")
        return f"touch {here.path(self.path / (name if pattern != '*' else 'hello.txt'))}"

    def identity(self) -> str:
        """Return what is watched: patience may change, but other globs or rules are another source."""
        what = encode_json([
            self.match, self.exclude, self.recursive, self.hidden, self.follow_symlinks, self.events, self.complete,
            self.sentinel, self.claim,
        ])  # fmt: skip
        return f"{self.path}-{hashlib.sha256(what).hexdigest()[:12]}"

    def base_interval(self) -> float:
        return self.poll_every if self.poll == "always" else self.every

    def with_interval(self, interval_s: float) -> Self:
        return replace(self, **{"poll_every" if self.poll == "always" else "every": interval_s})

    async def run(self, context: SourceContext) -> None:
        own = OWN if self.claim else frozenset[str]()
        sentinel = self.sentinel if self.complete == "sentinel" else None
        exclude = self.exclude if sentinel is None else (*self.exclude, f"*{escape(sentinel)}")
        selection = Selection(self.match, exclude, hidden=self.hidden, recursive=self.recursive, own=own)
        tree = Tree(context.base / self.path, selection, follow=self.follow_symlinks, sentinel=sentinel)
        rules = Rules(
            kinds=frozenset(self.events),
            settle_s=self.settle if self.complete == "stable" else None,
            starts_now=self.start == "now",
            claims=self.claim,
        )
        pace = Pace(every_s=self.every, poll_every_s=self.poll_every, always=self.poll == "always")
        await Watcher(tree, rules, pace, context).run()
