"""Lines that are appended to a file."""

import asyncio
import os
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

    def identity(self) -> str:
        return str(self.path)  # with another `every` it is the same source still, and goes on where it was

    async def run(self, context: SourceContext) -> None:
        inode, offset = await context.cursor() or (0, 0)
        context.ready()
        async for _ in context.every(self.every):
            inode, offset, lines = await asyncio.to_thread(read_lines, context.base / self.path, inode, offset)
            for line in lines:
                offset += len(line)
                data = {"text": line.decode(errors="replace").rstrip("\n")}
                await context.emit(Event(type="line.added", data=data), cursor=[inode, offset])


def read_lines(path: Path, inode: int, offset: int) -> tuple[int, int, list[bytes]]:
    """Return the whole lines from an offset on, but not too many; from the start where it is another file by now."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_ino != inode or found.st_size < offset:
            inode, offset = found.st_ino, 0
        file.seek(offset)
        return inode, offset, [line for line in file.readlines(65_536) if line.endswith(b"\n")]
