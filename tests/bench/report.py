"""What a bench found: a table for people, and one line of JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct


class BenchFailed(Exception):
    """The bench could not be run, or what it ran did not do its work; the text says what."""


class Options(Struct, frozen=True, kw_only=True):
    """How a bench is to be run: how many rounds, whether with small sizes, and in which empty directory."""

    rounds: int
    quick: bool
    folder: Path


class Figure(Struct, frozen=True, kw_only=True):
    """One measured quantity, round by round; `baselines` is empty where there is nothing to compare it with.

    `target` is what it should come to, in words.
    """

    title: str
    unit: str
    values: Sequence[float]
    baselines: Sequence[float] = ()
    target: str = ""

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.values)

    @property
    def baseline(self) -> float | None:
        """The baseline's median over the rounds."""
        return statistics.median(self.baselines) if self.baselines else None

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the baseline, both medians; None where there is no baseline, or it is 0."""
        return self.value / self.baseline if self.baseline else None

    @property
    def spread(self) -> float:
        """How far the rounds lie apart: the range of the values over their median."""
        return (max(self.values) - min(self.values)) / self.value if self.value else 0.0


class Report(Struct, frozen=True, kw_only=True):
    """What a bench found: the first figure is the one that it is about; `extra` fields go into the JSON line."""

    bench: str
    figures: Sequence[Figure]
    extra: Mapping[str, float | int | str | None] = {}
    notes: Sequence[str] = ()

    def table(self) -> str:
        """Return the figures as text in columns."""
        head = ("", "engine", "baseline", "ratio", "spread", "unit", "target")
        rows = [head]
        rows += [
            (figure.title, _text(figure.value), _text(figure.baseline), _text(figure.ratio),
             f"{figure.spread:.0%}" if len(figure.values) > 1 else "-", figure.unit, figure.target)
            for figure in self.figures
        ]  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [row[column].rjust(widths[column]) for column in range(1, 5)]
            cells += [row[column].ljust(widths[column]) for column in range(5, len(head))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self.notes])

    def line(self) -> str:
        """Return the line of JSON; figures are rounded to five digits."""
        main = self.figures[0]
        fields = {
            "bench": self.bench,
            "value": main.value,
            "unit": main.unit,
            "baseline": main.baseline,
            "ratio": main.ratio,
            "spread": main.spread,
            "rounds": len(main.values),
            **self.extra,
        }
        return msgspec.json.encode({name: rounded(value) for name, value in fields.items()}).decode()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least of the values that `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    place = max(-(-len(ordered) * percent // 100), 1)
    return ordered[int(place) - 1]


def rounded(value: float | str | None) -> float | int | str | None:
    """Return a number with five significant digits; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
