"""A file that is there, or is old or new enough."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from anyio.to_thread import run_sync
from msgspec import Meta

from engine.plugin import BadSetting, Condition, ConditionContext, Duration, Verdict
from plugins.conditions.ages import said_of_age


class File(Condition, frozen=True, kw_only=True):
    """Pass while a file or directory is there, or is not.

    - `path`: relative to the configuration file.
    - `exists`: `false` passes while there is none.
    - `older`: it was last written at least this long ago, such as one that nobody writes to any more.
    - `newer`: it was last written at most this long ago.
    """

    name: ClassVar[str] = "file"
    main: ClassVar[str | None] = "path"
    thresholds: ClassVar[frozenset[str]] = frozenset({"older", "newer"})

    path: Path
    exists: bool = True
    older: Annotated[Duration, Meta(gt=0)] | None = None
    newer: Annotated[Duration, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if not self.exists and (self.older is not None or self.newer is not None):
            field = "older" if self.older is not None else "newer"
            raise BadSetting(field, "has no effect on a file that is not to be there", "leave out exists")

    async def check(self, context: ConditionContext) -> Verdict:
        # A file system that is away may keep the call for long.
        written_s = await run_sync(written_at_s, context.base / self.path, abandon_on_cancel=True)
        if written_s is None:
            said = f"{self.path} is not there"
            return Verdict.holds(said) if self.exists else Verdict.passes(said)
        age_s = max(context.clock.now().timestamp() - written_s, 0.0)
        if not self.exists:
            return Verdict.holds(f"{self.path} is there", {"age_s": round(age_s)})
        return said_of_age(f"{self.path} was written", age_s, newest_s=self.older, oldest_s=self.newer)


def written_at_s(path: Path) -> float | None:
    """Return when a file was last written, in seconds since 1970; None where it is not there."""
    try:
        return os.stat(path).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
