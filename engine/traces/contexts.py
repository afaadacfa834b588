"""Trace contexts (https://www.w3.org/TR/trace-context/): reading what others send, and ids that can be told again.

The ids of our own spans are made of the ids of events and runs: so what a run hangs from is known after a restart,
without a table of spans.
"""

from __future__ import annotations

import hashlib
import re

from msgspec import Struct

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
LONGEST = 512
SAMPLED = 0x01


class Parent(Struct, frozen=True, kw_only=True):
    """What a traceparent says: the trace, the span in it, and whether it is sampled. Ids are hex digits."""

    trace: str
    span: str
    sampled: bool

    def text(self) -> str:
        """Return it as a traceparent."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"


def parse(text: str | None) -> Parent | None:
    """Return what a traceparent says; None for none, and for what the standard calls invalid."""
    found = None if text is None or len(text) > LONGEST else _TRACEPARENT.fullmatch(text)
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return Parent(trace=found["trace"], span=found["span"], sampled=bool(int(found["flags"], 16) & SAMPLED))


def trace_of(event_id: str) -> str:
    """Return the trace that an event begins, where it came without one."""
    return _digest(f"trace {event_id}", 16)


def span_of_event(event_id: str) -> str:
    """Return the span of an event."""
    return _digest(f"event {event_id}", 8)


def span_of_attempt(run_id: str, attempt: int) -> str:
    """Return the span of an attempt of a run."""
    return _digest(f"{run_id}/{attempt}", 8)


def plain_traceparent(run_id: str, attempt: int) -> str:
    """Return the traceparent of an attempt where nothing is traced: one trace a run, whose id is the run's."""
    trace = run_id.replace("-", "")
    if len(trace) != 32 or trace.strip("0123456789abcdef"):
        return f"00-{_digest(run_id, 16)}-{span_of_attempt(run_id, attempt)}-01"
    # No span of ours is told anywhere then: the random part of the id does, which is never zero.
    return f"00-{trace}-{int(trace[16:], 16) ^ attempt:016x}-01"


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
