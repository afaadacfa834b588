"""Words of the page: times, spans and numbers for people, and text from outside that can do no harm."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from engine.units import format_size, two_digits

LONGEST_TEXT = 16_384
"""Characters of a text from outside that a page shows; the rest is behind a link."""

MOST_MEMBERS = 400
"""Lines of a value that a page shows."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What can't be seen, or turns what follows it around: control characters, marks of direction, broken surrogates."""


_TOLD = re.compile(
    r"(?<![0-9a-f-])([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-f-])"
    r"|(?<!\d)(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z| UTC)(?!\w)"
)
"""What sentences of the engine name: runs, and instants in UTC."""

_LINK = Markup('<a class="id" href="/runs/{}" title="{}">{}</a>')
_TIME = Markup('<time datetime="{0}T{1}Z" title="{0} {1} UTC" data-tick="local">{0} {1} UTC</time>')


def instant(value: datetime | str | None) -> datetime | None:
    """Return an instant that is written as the API writes it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def visible(value: object) -> str:
    """Return a text in which nothing is hidden: control characters and marks of direction are written out."""
    return _UNSEEN.sub(_written_out, str(value))


def _written_out(match: re.Match[str]) -> str:
    point = ord(match[0])
    return chr(0x2400 + point) if point < 0x20 else "\u2421" if point == 0x7F else f"\\u{point:04x}"


def cut(value: object, longest: int = 300) -> str:
    """Return a text, visible, and no longer than `longest` characters."""
    text = str(value)
    return visible(text) if len(text) <= longest else f"{visible(text[: longest - 1])}…"


def linked(value: object, longest: int = 300) -> Markup:
    """Return a sentence of the engine's with the runs that it names as links, and its instants as times, which
    browsers show in the engine's zone, as all others."""
    text = cut(value, longest)
    parts, last = [], 0
    for match in _TOLD.finditer(text):
        run, date, time = match.groups()
        # The random part comes last: it is what differs between runs that were made at the same time.
        shown = _LINK.format(run, run, run[-8:]) if run else _TIME.format(date, time)
        parts += [escape(text[last : match.start()]), shown]
        last = match.end()
    return Markup("<bdi>{}</bdi>").format(Markup("").join([*parts, escape(text[last:])]))


def pretty(value: Any) -> tuple[str, bool]:
    """Return a JSON value in lines, and whether that is all of it."""
    lines: list[str] = []
    length = 0
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        lines.append(piece[:LONGEST_TEXT])
        length += len(piece)
        if length > LONGEST_TEXT:
            break
    text = "".join(lines)
    shown = text[:LONGEST_TEXT].split("\n")[:MOST_MEMBERS]
    whole = length <= LONGEST_TEXT and len(shown) == text.count("\n") + 1
    return visible("\n".join(shown).replace("\r", "\u240d")).replace("\u240a", "\n"), whole


def kept(parameters: Mapping[str, str | None]) -> str:
    """Return a query of the parameters that say something."""
    return urlencode({name: value for name, value in parameters.items() if value})


def span(seconds: float | None) -> str:
    """Write how long something takes, for people: at most two units."""
    if seconds is None:
        return "–"
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86_400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def about(seconds: float | None, *, sign: bool = True) -> str:
    """Write a time that is known to a twentieth, in as many digits as that bears; without `sign` it is not said so."""
    if seconds is None:
        return "–"
    number, unit = two_digits(seconds)
    text = f"{number}\u00a0{'min' if unit == 'm' else unit}"
    return f"≈\u00a0{text}" if sign else text


def _two(many: int, unit: str, few: int, finer: str) -> str:
    return f"{many} {unit} {few} {finer}" if few else f"{many} {unit}"


def seconds_between(start: datetime | str | None, end: datetime | str | None) -> float | None:
    """Return how long it is from one instant to another."""
    first, last = instant(start), instant(end)
    return None if first is None or last is None else (last - first).total_seconds()


def count(value: int) -> str:
    """Write a number with its thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    """Write a part of one; what is not all of it is never shown as 100 %."""
    if value is None:
        return "–"
    shown = value * 100
    text = f"{shown:.0f}" if shown in (0, 100) else f"{min(max(shown, 0.1), 99.9):.1f}".removesuffix(".0")
    return f"{text}\u202f%"


def size(value: float | None) -> str:
    """Write bytes for people."""
    return "–" if value is None else format_size(int(value))


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


class Clockwork:
    """Writes instants: in the engine's zone, in UTC, and as seen from now."""

    def __init__(self, zone: str, now: datetime) -> None:
        self.zone = zone
        self.now = now
        self._place = ZoneInfo(zone)

    def local(self, value: datetime | str | None, zone: str | None = None) -> str:
        """Write an instant in a zone, the engine's where none is named: today's without its date."""
        at = instant(value)
        if at is None:
            return "–"
        place = self._place if zone is None else ZoneInfo(zone)
        there = at.astimezone(place)
        if there.date() == self.now.astimezone(place).date():
            return there.strftime("%H:%M:%S")
        return there.strftime("%a %d %b %H:%M" if there.year == self.now.year else "%d %b %Y %H:%M")

    def full(self, value: datetime | str | None) -> str:
        """Write an instant in both zones, with its date."""
        at = instant(value)
        if at is None:
            return "–"
        utc = at.astimezone(UTC)
        told = at.astimezone(self._place).strftime("%a %d %b %Y, %H:%M:%S")
        return f"{told} {self.zone}" if self.zone == "UTC" else f"{told} {self.zone} ({utc:%H:%M:%S} UTC)"

    def ago(self, value: datetime | str | None) -> str:
        """Write an instant as seen from now."""
        at = instant(value)
        if at is None:
            return "–"
        passed = (self.now - at).total_seconds()
        if abs(passed) < 1:
            return "now"
        return f"{self._rough(passed)} ago" if passed > 0 else f"in {self._rough(-passed)}"

    def _rough(self, seconds: float) -> str:
        for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
            if seconds >= 2 * unit_s or (seconds >= unit_s and unit == "min"):
                return f"{int(seconds // unit_s)} {unit}"
        return f"{int(seconds // 60)} min" if seconds >= 60 else f"{int(seconds)} s"
