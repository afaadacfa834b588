"""Run logs as text: whole, their last lines, or as they grow.

Logs hold whatever programs wrote. What is no UTF-8 is replaced; memory stays bounded whatever the size, and
the length of lines.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from pathlib import Path

from engine.http.calls import Call, Stream
from engine.http.fields import query
from engine.http.gone import not_there
from engine.plugin import Response
from engine.runs import ENDED

CHUNK_BYTES = 64 * 1024
LARGEST_TAIL = 100_000
FOLLOW_S = 0.5
"""How often a followed log is looked at for more; a change of the run's state is noticed at once."""


async def get_log(call: Call) -> Response | Stream:
    """Return a run's log; `tail` bounds it to the last lines, `follow` goes on until the run has ended."""
    run_id = call.id("run")
    fields = query(call.request, "follow", "tail")
    follow, tail = fields.flag("follow"), fields.number("tail", 0, LARGEST_TAIL)
    fields.finish()
    if await call.operations.store.run(run_id) is None:
        raise await not_there(call, "run", run_id)
    path = call.operations.log_path(run_id)
    start = 0 if tail is None else await asyncio.to_thread(_tail_start, path, tail)
    return Stream(
        headers={"Content-Type": "text/plain; charset=utf-8"},
        chunks=_as_text(_grow(call, path, run_id, start) if follow else _read(call, path, start)),
    )


async def _as_text(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for chunk in chunks:
        if text := decoder.decode(chunk):
            yield text.encode()
    if rest := decoder.decode(b"", final=True):
        yield rest.encode()


async def _read(call: Call, path: Path, start: int) -> AsyncIterator[bytes]:
    while not call.gone():
        chunk = await asyncio.to_thread(_chunk, path, start)
        if not chunk:
            return
        start += len(chunk)
        yield chunk


async def _grow(call: Call, path: Path, run_id: str, start: int) -> AsyncIterator[bytes]:
    operations = call.operations
    while not call.gone():
        # The state is read before the file: what was written before the end is then in the file.
        run = await operations.store.run(run_id)
        while (chunk := await asyncio.to_thread(_chunk, path, start)) and not call.gone():
            start += len(chunk)
            yield chunk
        if run is None or run.state in ENDED:
            return
        await operations.wait_change(run_id, FOLLOW_S)


def _chunk(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(CHUNK_BYTES)
    except FileNotFoundError:
        return b""


def _tail_start(path: Path, lines: int) -> int:
    """Return the offset at which the last `lines` lines of a file begin."""
    try:
        with path.open("rb") as file:
            end = position = file.seek(0, 2)
            if lines == 0:
                return end
            left = lines
            while position > 0:
                size = min(CHUNK_BYTES, position)
                position -= size
                file.seek(position)
                block = file.read(size)
                # The newline that ends the last line begins no line.
                index = size - 1 if position + size == end and block.endswith(b"\n") else size
                while (index := block.rfind(b"\n", 0, index)) >= 0:
                    left -= 1
                    if left == 0:
                        return position + index + 1
            return 0
    except FileNotFoundError:
        return 0
