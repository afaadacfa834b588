"""The curve of an interval that adapts: steps over time, on a logarithmic scale, with why each was taken."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.http.page.words import instant

WIDTH, HEIGHT = 1000.0, 160.0
PAD = 14.0
NAME_PX = 14.0
"""How high a name stands."""

SHORTEST = timedelta(hours=1)
"""A curve is of no shorter time."""


class Point(Struct, frozen=True, kw_only=True):
    """One change: where it stands, and what was changed why."""

    x: float
    y: float
    slower: bool
    change: dict[str, Any]


class Guide(Struct, frozen=True, kw_only=True):
    """A bound, or the configured interval: how high it lies, and where its name stands beside the drawing."""

    name: str
    value_s: float
    y: float
    label_y: float


class Curve(Struct, frozen=True, kw_only=True):
    """The line as an SVG path, the changes on it, and the heights of the bounds and the configured interval."""

    path: str
    points: list[Point]
    guides: list[Guide]
    start: datetime
    end: datetime


def curve_of(view: dict[str, Any], now: datetime) -> Curve:
    """Return the curve of an adaptive interval as the API shows it."""
    changes = view["changes"]
    first = instant(changes[0]["at"]) if changes else now
    start = min(first or now, now - SHORTEST)
    start -= (now - start) * 0.04
    seen = [view["min_s"], view["max_s"], view["interval_s"], view["base_s"]]
    seen += [value for change in changes for value in (change["old_s"], change["new_s"])]
    known = [math.log(value) for value in seen if value]
    low, high = min(known), max(known)
    spread = (high - low) or 1.0

    def x(at: datetime) -> float:
        return round((at - start) / (now - start) * WIDTH, 1)

    def y(seconds: float) -> float:
        return round(HEIGHT - PAD - (math.log(seconds) - low) / spread * (HEIGHT - 2 * PAD), 1)

    current = changes[0]["old_s"] if changes else view["interval_s"]
    path, points = [f"M0 {y(current)}"], []
    for change in changes:
        at = instant(change["at"])
        if at is None:
            continue
        path.append(f"H{x(at)}V{y(change['new_s'])}")
        points.append(Point(x=x(at), y=y(change["new_s"]), slower=change["new_s"] > change["old_s"], change=change))
    path.append(f"H{WIDTH:.0f}")
    named = (("max", view["max_s"]), ("configured", view["base_s"]), ("min", view["min_s"]))
    guides = _guides([(name, value, y(value)) for name, value in named if value])
    return Curve(path="".join(path), points=points, guides=guides, start=start, end=now)


def _guides(named: list[tuple[str, float, float]]) -> list[Guide]:
    """Return the guides from the highest to the lowest, their names far enough from each other to be read."""
    guides: list[Guide] = []
    for name, value_s, y in sorted(named, key=lambda one: one[2]):
        lowest = guides[-1].label_y + NAME_PX if guides else 0.0
        guides.append(Guide(name=name, value_s=value_s, y=y, label_y=max(y + NAME_PX / 4, lowest)))
    over = max(guides[-1].label_y - HEIGHT + 2.0, 0.0) if guides else 0.0
    return [replace(one, label_y=round(one.label_y - over, 1)) for one in guides]
