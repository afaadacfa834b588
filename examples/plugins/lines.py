"""Lines that are appended to a file."""

import asyncio
from pathlib import Path

from engine.plugin import Duration, Event, Source, SourceContext


class Lines(Source, frozen=True, kw_only=True):
    """Emit an event for each line that is appended to a file.

    - `path`: the file, relative to the configuration file.
    - `every`: how often it is looked at.
    """

    name, main = "lines", "path"
    path: Path
    every: Duration = 1.0

    async def run(self, context: SourceContext) -> None:
        offset = await context.cursor() or 0
        context.ready()
        async for _ in context.every(self.every):
            for line in await asyncio.to_thread(read_lines, context.base / self.path, offset):
                offset += len(line)
                text = line.decode(errors="replace").rstrip("\n")
                await context.emit(Event(type="line.added", data={"text": text}), cursor=offset)


def read_lines(path: Path, offset: int) -> list[bytes]:
    """Return the whole lines from an offset on, a bounded number of them."""
    with path.open("rb") as file:
        file.seek(offset)
        return [line for line in file.readlines(65_536) if line.endswith(b"\n")]
