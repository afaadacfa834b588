"""Why a trigger ran, or did not: all that was to be in a time, drawn and told."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.http.calls import Call
from engine.http.page.views import View, ask
from engine.http.page.words import instant
from engine.http.problems import Problem
from engine.http.why_routes import get_why
from engine.units import parse_duration

LIMIT = 400
NARROWEST = 0.3
"""So much of the drawing, in hundredths, is a line that tells of one instant."""

FEW = 3
"""So many lines that went well stand for themselves."""

SPANS = (
    ("1 hour", "1h"),
    ("6 hours", "6h"),
    ("24 hours", "1d"),
    ("3 days", "3d"),
    ("7 days", "7d"),
    ("28 days", "28d"),
)
GOOD = frozenset({"succeeded", "run", "joined"})
BAD = frozenset({"failed", "timed_out", "rejected", "quarantined", "unknown"})


class Mark(Struct, frozen=True, kw_only=True):
    """One line in the drawing: where in the time it lies, from 0 to 100, and how wide it is."""

    x: float
    width: float
    kind: str
    place: str
    title: str


class Shade(Struct, frozen=True, kw_only=True):
    """One period in which something kept the trigger from running."""

    x: float
    width: float
    title: str


async def make(call: Call) -> View:
    """Make the page."""
    name = call.name("trigger")
    start, end, over = _time(call)
    query = {
        "from": rfc3339(start),
        "to": rfc3339(end),
        "limit": str(LIMIT),
        "cursor": call.request.query.get("cursor"),
    }
    told = await ask(call, get_why, query)
    lines, marks, shades = _drawn(told, start, end)
    counts: Counter[str] = Counter()
    for line in told["items"]:
        counts[line["verdict"]] += line["count"]
    return View(
        template="why.html",
        title=f"Why {name}",
        values={
            "name": name,
            "told": told,
            "groups": _grouped(lines[::-1]),
            "marks": marks,
            "shades": shades,
            "counts": counts.most_common(),
            "start": start,
            "end": end,
            "scale": [start + (end - start) * part / 4 for part in range(5)],
            "over": over,
            "spans": SPANS,
            "earlier": rfc3339(start),
            "first": "cursor" not in call.request.query,
        },
    )


def _drawn(
    told: dict[str, Any], start: datetime, end: datetime
) -> tuple[list[dict[str, Any]], list[Mark], list[Shade]]:  # fmt: skip
    """Return the lines with how each is drawn and where it is told, their marks, and the periods as shades."""
    length_s = max((end - start).total_seconds(), 1.0)

    def x(value: str | None, otherwise: datetime) -> float:
        passed = ((instant(value) or otherwise) - start).total_seconds() / length_s * 100
        return round(min(max(passed, 0.0), 100.0), 2)

    lines, marks = [], []
    for number, line in enumerate(told["items"], 1):
        kind, place = kind_of(line), f"line-{number}"
        first, last = x(line["at"], start), x(line["until"] or line["at"], end)
        title = f"{line['verdict'].replace('_', ' ')}: {line['reason']}"
        lines.append({**line, "kind": kind, "place": place})
        marks.append(Mark(x=first, width=max(round(last - first, 2), NARROWEST), kind=kind, place=place, title=title))
    shades = []
    for period in told["periods"]:
        first, last = x(period["from"], start), x(period["to"], end)
        if last > first:
            shades.append(Shade(x=first, width=round(last - first, 2), title=period["reason"]))
    return lines, marks, shades


def kind_of(line: dict[str, Any]) -> str:
    """Return how a line is drawn: as what went well, what went wrong, or what was not to be."""
    verdict = line["verdict"]
    return "good" if verdict in GOOD else "bad" if verdict in BAD else "going" if verdict in _OPEN else "rest"


_OPEN = frozenset({"running", "queued", "held", "pending", "retrying", "waiting", "to_come"})


def _grouped(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the lines, those that went well and follow each other together: so what did not stands out."""
    groups: list[list[dict[str, Any]]] = []
    for line in lines:
        if _is_plain(line) and groups and groups[-1][-1]["verdict"] == line["verdict"] and _is_plain(groups[-1][-1]):
            groups[-1].append(line)
        else:
            groups.append([line])
    return [part for group in groups for part in ([group] if len(group) > FEW else [[one] for one in group])]


def _is_plain(line: dict[str, Any]) -> bool:
    return line["kind"] == "good" and not line["because"] and not line["made_up"]


def _time(call: Call) -> tuple[datetime, datetime, str]:
    """Return the time that is asked about: the one up to `to`, or now, of the length `over`; raise Problem 422."""
    asked = call.request.query
    over = asked.get("over", "1d")
    try:
        end = instant(asked.get("to") or None) or call.operations.clock.now()
        length = timedelta(seconds=min(max(parse_duration(over), 60.0), 366 * 86_400.0))
        if end.tzinfo is None:
            raise ValueError("it has no zone")
        return end - length, end, over
    except (ValueError, OverflowError) as error:
        raise Problem(422, f"over is a duration such as 6h, and to an instant: {error}") from None
