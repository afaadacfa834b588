"""Telling a cancellation that somebody asked for from one that a plugin brought up by itself."""

from __future__ import annotations

import asyncio
import math

import anyio


def is_wanted() -> bool:
    """Tell whether the current task is really being cancelled; ask on catching CancelledError from a plugin.

    Awaiting a task that was cancelled raises CancelledError too. Passed on, it would end the task group of all
    that run beside it, without a word.
    """
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)
