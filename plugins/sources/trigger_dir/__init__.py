"""Trigger directories: a file that is dropped there is an event."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from engine.plugin import BadSetting, Duration, Source, SourceContext, Whereabouts
from plugins.sources.trigger_dir.inbox import Inbox

__all__ = ["TriggerDirectory"]


class TriggerDirectory(Source, frozen=True, kw_only=True):
    """Take files that others drop into a directory, and remove each once its event is durable.

    - `path`: the directory; it is made where it is missing, also later.
    - `settle`: how long a file must stay the same before it is taken while somebody has it open for writing,
      or rejected as not valid: what is half-written is not rejected. A valid file that nobody writes to is
      taken at once.

    Files named `*.trigger` or `*.json` count, those that are there at the start included; names that begin
    with a dot don't, so that a sender can write to `.x.json` and rename it. Links, pipes and directories are
    left alone. A file holds one JSON object with any of these members, and no others:

    - `trigger_type`: the event's type, else `file.trigger`.
    - `parameters`: an object; it is `data.parameters`.
    - `source`: text; it is `data.source`.
    - `priority`: 0 to 9, or low, normal, high, critical.
    - `created_at`: the event's time, by RFC 3339 with its offset from UTC.

    The subject is the file's name. A file that is not valid is moved to `rejected/` within the directory,
    beside a text that says why, in a file of the same name and `.error`.
    """

    name: ClassVar[str] = "trigger_dir"
    main: ClassVar[str | None] = "path"

    path: Path
    settle: Duration = 2.0

    def __post_init__(self) -> None:
        if "\0" in str(self.path):
            raise BadSetting("path", "holds a NUL character, which no path can")
        if self.settle < 0:
            raise BadSetting("settle", "is negative", 'such as "2s"')

    def identity(self) -> str:
        return str(self.path)

    def try_it(self, here: Whereabouts) -> str:
        return f"""echo '{{"trigger_type": "hello"}}' > {here.path(self.path / "hello.json")}"""

    async def run(self, context: SourceContext) -> None:
        await Inbox(context.base / self.path, self.settle, context).run()
