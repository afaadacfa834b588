"""Watching the event loop from a thread of its own: who holds it up, where, and for how long.

The thread looks a few times a second at what the loop's thread is at. Where that is the wait for something to
happen, all is well, and nobody was woken for it. Else it asks the loop for a sign; a loop that gives none within
`BLOCKED_S` is held up: the stack of its thread tells by whom. One record is logged when it is over, and another
before where that takes long. All this is about real time, so the thread reads it itself.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.clock import Clock, rfc3339
from engine.metrics.figures import SHORT_S, Histogram
from engine.units import format_span

log = logging.getLogger("engine.loop")

LOOK_S = 0.5
"""How often it looks. What holds the loop up for less than this and `BLOCKED_S` together may go unseen."""

BLOCKED_S = 0.25
SAMPLE_S = 0.05
LONG_S = 5.0
"""What lasts so long is told of before it is over: it may never be."""

TROUBLE_S, RECENT_S = 1.0, 300.0
"""What takes so long is a warning, and health tells of it for so long afterwards; what takes less is only counted."""

FROZEN_S, FROZEN_SHARE = 1.0, 0.1
"""A wait that took so much longer than it should, on so small a share of the processor, was a stop of the whole
process (SIGSTOP, a machine that slept): nobody held anything up."""

MOST_CULPRITS = 100
OTHERS = "others"
_WAIT = (selectors.__file__, asyncio.base_events.__file__)
"""Where a loop that waits stands: in the selector's code, called by the loop's. Others use selectors, too."""

_STDLIB = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "scripts"))
_ENGINE = Path(__file__).parent
_NAMED_TASKS = ("source ", "run ")


class Sample(Struct, frozen=True, kw_only=True):
    """What the loop's thread was at: the task (or None), the place in a plugin's code, and the stack."""

    task: str | None
    place: str
    stack: str

    @property
    def culprit(self) -> str:
        """Who it is: the source or run, or else the place."""
        return self.task if self.task is not None and self.task.startswith(_NAMED_TASKS) else self.place


class Culprit(Struct, kw_only=True):
    """How often and how long somebody held the loop up."""

    name: str
    place: str
    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    last_at: datetime | None = None


class LoopWatch:
    """Watches the event loop that it is started on; `clock` tells when something happened."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._watched = 0
        self._stop = threading.Event()
        self._culprits: dict[str, Culprit] = {}
        self._last: tuple[float, float, Culprit] | None = None
        """When the last trouble was over, on the monotonic clock, how long it took, and who it was."""
        self.lag_s = Histogram(SHORT_S)
        """How long the loop took to come to what it was asked, at each look; only the watching thread adds to it."""

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="loop watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch. The thread ends by itself within a moment; nobody waits for it."""
        self._stop.set()

    def view(self) -> dict[str, Any]:
        """Return what was noticed so far, the worst first."""
        culprits = sorted(self._culprits.values(), key=lambda culprit: culprit.total_s, reverse=True)
        return {
            "watched": self._thread is not None,
            "blocked": sum(culprit.count for culprit in culprits),
            "blocked_s": round(sum(culprit.total_s for culprit in culprits), 3),
            "longest_s": round(max((culprit.longest_s for culprit in culprits), default=0.0), 3),
            "culprits": [
                {
                    "name": culprit.name,
                    "place": culprit.place,
                    "count": culprit.count,
                    "total_s": round(culprit.total_s, 3),
                    "longest_s": round(culprit.longest_s, 3),
                    "last_at": None if culprit.last_at is None else rfc3339(culprit.last_at),
                }
                for culprit in culprits
            ],
        }

    def problem(self) -> str | None:
        """Return who held the loop up lately, in words, or None."""
        found = self.held_up()
        return None if found is None else found[1]

    def held_up(self) -> tuple[float, str] | None:
        """Return for how long the loop was held up lately, and that in words; or None."""
        if self._last is None:
            return None
        over_s, took_s, culprit = self._last
        ago_s = time.monotonic() - over_s
        if ago_s > RECENT_S:
            return None
        who = culprit.name if culprit.name == culprit.place else f"{culprit.name} at {culprit.place}"
        often = f" ({culprit.count} times in all)" if culprit.count > 1 else ""
        ago = format_span(round(ago_s)) if ago_s >= 1 else "a moment"
        return took_s, f"the event loop was held up for {took_s:.1f} s by {who}, {ago} ago{often}"

    def _watch(self) -> None:
        """Look again and again, until stopped; runs in the thread."""
        while True:
            began_s, cpu_s = time.monotonic(), time.process_time()
            if self._stop.wait(LOOK_S):
                return
            late_s = time.monotonic() - began_s - LOOK_S
            if self._is_waiting():
                self.lag_s.add(0.0)
                continue
            if late_s > BLOCKED_S and time.process_time() - cpu_s > FROZEN_SHARE * late_s:
                # One call of C code kept the whole interpreter, and this thread with it, until just now.
                self.lag_s.add(late_s)
                self._end([self._sample()], late_s)
            else:
                self._ask()

    def _is_waiting(self) -> bool:
        """Tell whether the loop waits for something to happen."""
        frame = sys._current_frames().get(self._watched)
        caller = None if frame is None else frame.f_back
        return (
            caller is not None and frame is not None and (frame.f_code.co_filename, caller.f_code.co_filename) == _WAIT
        )

    def _ask(self) -> None:
        """Ask the loop for a sign; where none comes in time, find out who holds it up, and wait for the end."""
        if self._loop is None:
            return
        sign = threading.Event()
        asked_s, cpu_s = time.monotonic(), time.process_time()
        try:
            self._loop.call_soon_threadsafe(sign.set)
        except RuntimeError:  # it is closed
            self._stop.set()
            return
        samples: list[Sample] = []
        told = False
        timeout_s = BLOCKED_S
        while True:
            began_s = time.monotonic()
            answered = sign.wait(timeout_s)
            late_s = time.monotonic() - began_s - timeout_s
            if late_s > FROZEN_S and time.process_time() - cpu_s < FROZEN_SHARE * late_s:
                log.warning(
                    "The whole process stood still for %.1f s", late_s, extra={"action": "process_frozen"}
                )  # fmt: skip
                return
            if answered or self._stop.is_set():
                self.lag_s.add(time.monotonic() - asked_s)
                break
            if not self._is_waiting():
                samples.append(self._sample())
            took_s = time.monotonic() - asked_s
            if samples and not told and took_s >= LONG_S:
                told = True
                self._tell(samples, "loop_stuck", "has been held up", took_s)
            # The longer it takes, the less often it has to be looked at.
            timeout_s = max(SAMPLE_S, took_s / 20)
        if samples and not self._stop.is_set():
            self._end(samples, time.monotonic() - asked_s)

    def _sample(self) -> Sample:
        """Look at what the loop's thread is at."""
        frame = sys._current_frames().get(self._watched)
        task = None if self._loop is None else asyncio.current_task(self._loop)
        if frame is None:
            return Sample(task=None, place="an unknown place", stack="")
        stack = traceback.extract_stack(frame)
        return Sample(
            task=None if task is None else task.get_name(),
            place=_place(stack),
            stack="".join(traceback.format_list(_inner(stack))),
        )

    def _tell(self, samples: Sequence[Sample], action: str, what: str, took_s: float) -> Sample:
        """Log who holds or held the loop up: whom it was seen with most often."""
        culprit = Counter(sample.culprit for sample in samples).most_common(1)[0][0]
        sample = next(sample for sample in samples if sample.culprit == culprit)
        ids = {"duration_s": round(took_s, 3), "task": sample.task, "place": sample.place, "stack": sample.stack}
        level = logging.WARNING if took_s >= TROUBLE_S else logging.INFO
        log.log(level, "The event loop %s for %.1f s by %s", what, took_s, culprit, extra={"action": action, **ids})
        return sample

    def _end(self, samples: Sequence[Sample], took_s: float) -> None:
        """Log and count what is over."""
        self._count(self._tell(samples, "loop_blocked", "was held up", took_s), took_s)

    def _count(self, sample: Sample, took_s: float) -> None:
        name = sample.culprit
        if name not in self._culprits and len(self._culprits) >= MOST_CULPRITS:
            name = OTHERS
        known = self._culprits.get(name)
        if known is None:
            # Replaced as a whole: the loop may be reading the old one.
            known = Culprit(name=name, place=sample.place)
            self._culprits = {**self._culprits, name: known}
        known.count += 1
        known.total_s += took_s
        known.longest_s = max(known.longest_s, took_s)
        known.place = sample.place
        known.last_at = self._clock.now()
        if took_s >= TROUBLE_S:
            self._last = (time.monotonic(), took_s, known)


def _inner(stack: Sequence[traceback.FrameSummary]) -> Sequence[traceback.FrameSummary]:
    """Return the part of a stack that the event loop called."""
    below = [number for number, line in enumerate(stack) if line.filename == asyncio.events.__file__]
    return stack[below[-1] + 1 :] or stack if below else stack


def _place(stack: Sequence[traceback.FrameSummary]) -> str:
    """Return the innermost place that is a plugin's, or else one that is a library's, or else the engine's own."""
    found: Sequence[traceback.FrameSummary] = [line for line in stack if _owner(line.filename) == "plugin"]
    found = found or [line for line in stack if _owner(line.filename) != "python"] or stack
    return f"{found[-1].filename}:{found[-1].lineno} in {found[-1].name}"


def _owner(filename: str) -> str:
    path = Path(filename)
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return "library"
    if path.is_relative_to(_ENGINE):
        return "engine"
    return "python" if filename.startswith("<") or any(map(path.is_relative_to, _STDLIB)) else "plugin"
