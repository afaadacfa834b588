"""Run logs as text: whole, their last lines, or as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from engine.http.calls import Call, Stream
from engine.http.described import Media, described
from engine.http.forms import Form
from engine.http.gone import not_there
from engine.http.kinds import Number, Switch
from engine.logtext import LogFile, LogText
from engine.plugin import Response
from engine.runs import ENDED

LARGEST_TAIL = 100_000
FOLLOW_S = 0.5
"""How often a followed log is looked at for more; a change of the run's state is noticed at once."""


class Following(Form, frozen=True, kw_only=True):
    """How much of a log."""

    follow: Annotated[bool, Switch(), "Go on until the run has ended"] = False
    tail: Annotated[int | None, Number(0, LARGEST_TAIL), "So many last lines"] = None


@described({200: Media(kind="text/plain", what="The log")}, problems=(410,))
async def get_log(call: Call, query: Following) -> Response | Stream:
    """Return a run's log; `tail` bounds it to the last lines, `follow` goes on until the run has ended."""
    run_id = call.id("run")
    if await call.operations.store.run(run_id) is None:
        raise await not_there(call, "run", run_id)
    return Stream(
        headers={"Content-Type": "text/plain; charset=utf-8"},
        chunks=_as_text(call, run_id, query.tail, follow=query.follow),
    )


async def _as_text(call: Call, run_id: str, tail: int | None, *, follow: bool) -> AsyncIterator[bytes]:
    text = LogText(call.operations.config.secrets)
    file = LogFile(call.operations.log_path(run_id))
    try:
        if tail is not None:
            await asyncio.to_thread(file.skip_to_last, tail)
        async for chunk in _grow(call, file, run_id) if follow else _read(call, file):
            if certain := text.feed(chunk):
                yield certain.encode()
        if rest := text.end():
            yield rest.encode()
    finally:
        file.close()


async def _read(call: Call, file: LogFile) -> AsyncIterator[bytes]:
    while not call.gone() and (chunk := await asyncio.to_thread(file.read)):
        yield chunk


async def _grow(call: Call, file: LogFile, run_id: str) -> AsyncIterator[bytes]:
    operations = call.operations
    while not call.gone():
        # The state is read before the file: what was written before the end is then in the file.
        run = await operations.store.run(run_id)
        while (chunk := await asyncio.to_thread(file.read)) and not call.gone():
            yield chunk
        if run is None or run.state in ENDED:
            return
        await operations.wait_change(run_id, FOLLOW_S)
