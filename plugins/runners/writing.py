"""What runners that start no program write to the logs of their runs."""

from __future__ import annotations

import os

from anyio.to_thread import run_sync

from engine.plugin import RunContext


async def write_log(context: RunContext, text: bytes) -> None:
    """Append to the run's log. That it can't be written changes nothing of what the request has done."""
    try:
        await run_sync(_append, context, text)
    except OSError as error:
        context.log.warning(
            "what was answered can't be logged: %s", error.strerror, extra={"action": "answer_not_logged"}
        )


def _append(context: RunContext, text: bytes) -> None:
    descriptor = context.open_log()
    try:
        view = memoryview(text)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
