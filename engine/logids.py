"""Ids that log records get from where they are made: the request, the run or the source that the code works for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar

IDS: ContextVar[Mapping[str, object]] = ContextVar("log_ids", default={})  # noqa: B039 - it is never changed
"""What the code works for now: `request_id`, or `run job trigger event attempt`."""


def add_ids(record: logging.LogRecord) -> None:
    """Give a record the ids of where it is made; what the call itself gives stays."""
    known = record.__dict__
    for name, value in IDS.get().items():
        if value is not None and name not in known:
            known[name] = value
