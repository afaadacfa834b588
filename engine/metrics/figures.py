"""Histograms: one list of integers, and a bisection for each figure that goes in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""For what takes no time when all is well: commits, turns of the event loop."""

LONG_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""For what may take a day: runs, and how late they begin."""

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""For batches; the largest is what the journal writes at once."""


class Histogram:
    """Counts figures by the first bound that they do not exceed; the last count is of those beyond all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, figure: float) -> None:
        """Count a figure; one below zero, as where the clock was set back, counts as zero."""
        if figure < 0:
            figure = 0.0
        self.counts[bisect_left(self.bounds, figure)] += 1
        self.total += figure

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def copy(self) -> Histogram:
        """Return it as it is now; the thread that writes it down reads the copy."""
        made = Histogram(self.bounds)
        made.counts, made.total = list(self.counts), self.total
        return made

    def take(self, other: Histogram) -> None:
        """Add all that one with the same bounds counted."""
        for place, count in enumerate(other.counts):
            self.counts[place] += count
        self.total += other.total

    def percentile(self, part: float) -> float | None:
        """Return the bound that `part` of all do not exceed; None where there is none. Infinity: beyond all bounds."""
        left = self.count * part
        if not left:
            return None
        for place, count in enumerate(self.counts):
            left -= count
            if left <= 0 and count:
                return self.bounds[place] if place < len(self.bounds) else float("inf")
        return float("inf")
