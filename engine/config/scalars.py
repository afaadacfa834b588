"""Single values: from what TOML or the environment holds to what the settings hold."""

from __future__ import annotations

import difflib
import math
import os
import re
import zoneinfo
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from engine.config.addresses import parse_listen, parse_store_url
from engine.config.document import show_value
from engine.config.shapes import Shape
from engine.ids import is_slug
from engine.units import format_duration, format_size, parse_duration, parse_size

_EXPECTED = {
    "str": "text",
    "secret": 'text, { env = "NAME" } or { file = "path" }',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "duration": 'a duration such as "500ms", "5s", "30m", "1h30m" or "1d"',
    "size": 'a size such as "64KiB", "1MiB" or "5GB"',
    "timezone": 'a time zone such as "Europe/Berlin"',
    "expression": "a CEL expression, as text",
    "template": "text",
    "job": "the name of a job",
    "trigger": "the name of a trigger",
    "source_name": "the name of a source",
    "preset": "the name of a preset",
    "calendar": "the name of a calendar",
    "condition": "the name of a condition",
    "notify": "the name of a [notify.NAME]",
    "path": "a path, as text",
    "slug": "a name",
    "listen": '"host:port" or "[ipv6]:port"',
    "store_url": 'a URL such as "sqlite:///data/engine.db"',
    "datetime": "an instant such as 2030-01-31T02:00:00Z",
    "moment": 'an instant such as "2030-01-31T02:00:00+01:00", or a local time such as "2030-01-31 02:00"',
    "date": "a date such as 2030-01-31",
    "time": 'a time of day such as "02:00"',
    "struct": "a table",
    "dict": "a table",
    "data": "a table",
    "data_templates": "a table",
    "any": "any value",
}

_TOML_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "secret": (str,), "timezone": (str,), "expression": (str,), "template": (str,),
    "duration": (str,), "size": (str,), "path": (str,), "slug": (str,),
    "job": (str,), "trigger": (str,), "source_name": (str,), "calendar": (str,),
    "preset": (str,), "condition": (str,), "notify": (str,), "listen": (str,), "store_url": (str,),
    "int": (int,), "float": (int, float), "bool": (bool,),
    "datetime": (datetime,), "moment": (datetime, str), "date": (date,),
    "time": (time, str),
    "list": (list,), "struct": (dict,), "dict": (dict,), "data": (dict,), "data_templates": (dict,),
    "plugin": (dict,),
}  # fmt: skip


_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:\d{2})?\Z", re.ASCII)
_TIME = re.compile(r"\d{2}:\d{2}(?::\d{2})?\Z", re.ASCII)
_MOMENT_HINT = 'write "2030-01-31T02:00:00+01:00", or "2030-01-31 02:00" for a local time'


class Mismatch(ValueError):
    """A value is not what the setting takes; the text goes on from `found …`, `hint` is the way out."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def fits(shape: Shape, value: Any) -> bool:
    """Tell whether a value has one of the TOML types that a shape (no union) is written in."""
    if shape.kind == "any":
        return True
    if shape.kind in ("literal", "enum"):
        return any(type(value) is type(choice) for choice in shape.choices)
    return type(value) in _TOML_TYPES[shape.kind]


def same(value: Any, choice: Any) -> bool:
    """Tell whether a value is a choice, of its type too: true is not 1."""
    return type(value) is type(choice) and bool(value == choice)


def expected(shape: Shape) -> str:
    """Say in words what a shape takes."""
    if shape.kind == "union":
        kinds = {item.kind for item in shape.items}
        # A secret may be text anyway.
        told = [item for item in shape.items if not (item.kind == "str" and "secret" in kinds)]
        return " or ".join(dict.fromkeys(map(expected, told)))
    if shape.kind in ("literal", "enum"):
        return " or ".join(show_value(choice) for choice in shape.choices)
    if shape.kind == "list":
        return f"a list of {_plural(shape.items[0])}"
    if shape.kind == "plugin":
        return f"a table with one {noun_of(shape)} and its settings"
    return _EXPECTED[shape.kind] + (_range(shape) if shape.kind in ("int", "float") else "")


def noun_of(shape: Shape) -> str:
    """Say what kind of plugin a table names."""
    return shape.of if shape.of in ("runner", "timer", "condition") else "source or timer"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is meant, or None where none is near."""
    by_folded = {name.lower().replace("-", "_"): name for name in sorted(known)}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, n=1)
    return by_folded[close[0]] if close else None


def near(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that offers the nearest known word, or all of them where none is near."""
    names = sorted(known)
    meant = nearest(word, names)
    if meant is not None:
        return f"did you mean {show_value(meant)}?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 20 else None


def convert(shape: Shape, value: Any, base: Path) -> Any:
    """Return a single value as the setting holds it; Mismatch says what is wrong.

    `value` has a TOML type that fits the shape; paths are relative to `base`.
    """
    if shape.kind in ("literal", "enum"):
        return _choose(shape, value)
    converter = _CONVERTERS.get(shape.kind)
    result = converter(value, base) if converter is not None else value
    check_bounds(shape, result, value)
    return result


def check_bounds(shape: Shape, result: Any, written: Any) -> None:
    """Raise Mismatch where a value (or the length of a text or list) is out of the shape's bounds."""
    bounds = shape.bounds
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        too_small = ("ge" in bounds and not result >= bounds["ge"]) or ("gt" in bounds and not result > bounds["gt"])
        too_large = ("le" in bounds and not result <= bounds["le"]) or ("lt" in bounds and not result < bounds["lt"])
        if too_small or too_large:
            what = f"a {shape.kind}" if shape.kind in ("duration", "size") else _EXPECTED[shape.kind]
            raise Mismatch(f"expected {what}{_range(shape)}")
        if "multiple_of" in bounds and result % bounds["multiple_of"]:
            raise Mismatch(f"expected a multiple of {bounds['multiple_of']}")
    if isinstance(result, (str, list, tuple, set, frozenset)):
        what = "characters" if isinstance(result, str) else "elements"
        if len(result) < bounds.get("min_length", 0):
            raise Mismatch(f"expected at least {bounds['min_length']} {what}")
        if len(result) > bounds.get("max_length", math.inf):
            raise Mismatch(f"expected at most {bounds['max_length']} {what}")
    if isinstance(result, str) and "pattern" in bounds and not re.search(bounds["pattern"], result):
        raise Mismatch(f"expected text that matches {bounds['pattern']}")


def _plural(shape: Shape) -> str:
    plurals = {
        "str": "texts",
        "template": "texts",
        "path": "paths",
        "job": "names of jobs",
        "trigger": "names of triggers",
        "calendar": "names of calendars",
        "condition": "names of conditions",
        "int": "whole numbers",
        "float": "numbers",
    }
    return plurals.get(shape.kind) or (f"values, each {expected(shape)}" if shape.kind != "any" else "values")


def _range(shape: Shape) -> str:
    written = {"duration": format_duration, "size": format_size}.get(shape.kind, str)
    bounds = {name: written(bound) for name, bound in shape.bounds.items()}
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "of at least", "gt": "greater than", "le": "of at most", "lt": "less than"}
    limits = [f"{word} {bounds[name]}" for name, word in words.items() if name in bounds]
    return f" {' and '.join(limits)}" if limits else ""


def _choose(shape: Shape, value: Any) -> Any:
    for choice in shape.choices:
        if same(value, choice):
            return shape.cls(choice) if shape.kind == "enum" else choice
    texts = [choice for choice in shape.choices if isinstance(choice, str)]
    close = difflib.get_close_matches(value.lower(), texts, n=1) if isinstance(value, str) else []
    hint = f"did you mean {show_value(close[0])}?" if close else None
    raise Mismatch(f"expected {expected(shape)}", hint)


def _number(value: float, base: Path) -> float:
    if not math.isfinite(value):
        raise Mismatch("expected a finite number")
    return float(value)


def _whole(value: int, base: Path) -> int:
    if not -(2**63) <= value < 2**63:
        raise Mismatch("expected a whole number of at most 64 bits")
    return value


def _duration(value: str, base: Path) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise Mismatch(f"which {error}") from None


def _size(value: str, base: Path) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise Mismatch(f"which {error}") from None


def _timezone(value: str, base: Path) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
        close = difflib.get_close_matches(value.strip().lower().replace(" ", "_"), zones, n=1)
        hint = f"did you mean {show_value(zones[close[0]])}?" if close else None
        raise Mismatch('which is no IANA time zone such as "Europe/Berlin" or "UTC"', hint) from None
    return value


def _path(value: str, base: Path) -> Path:
    if not value or "\0" in value:
        raise Mismatch("which is no path")
    return Path(os.path.abspath(base / value))


def _datetime(value: datetime, base: Path) -> datetime:
    if value.tzinfo is None:
        raise Mismatch("which has no offset from UTC", f"write {value.isoformat()}Z, or another offset")
    return _in_utc(value)


def _moment(value: datetime | str, base: Path) -> datetime:
    if isinstance(value, str):
        if not _MOMENT.match(value):
            raise Mismatch("which is no date with a time", _MOMENT_HINT)
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise Mismatch(f"which is no date with a time: {error}", _MOMENT_HINT) from None
    return value if value.tzinfo is None else _in_utc(value)


def _time(value: time | str, base: Path) -> time:
    if isinstance(value, time):
        return value
    if not _TIME.match(value):
        raise Mismatch("which is no time of day", 'write "02:00"')
    try:
        return time.fromisoformat(value)
    except ValueError as error:
        raise Mismatch(f"which is no time of day: {error}", 'from "00:00" to "23:59"') from None


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Mismatch("which is out of range: it has no date in UTC") from None


def _slug(value: str, base: Path) -> str:
    if not is_slug(value):
        raise Mismatch(
            "which is no name",
            "a name begins with a letter or digit, goes on with letters, digits, _, . and -, "
            "and has at most 128 characters",
        )
    return value


def _listen(value: str, base: Path) -> str:
    try:
        parse_listen(value)
    except ValueError as error:
        raise Mismatch(str(error)) from None
    return value


def _store_url(value: str, base: Path) -> str:
    try:
        parse_store_url(value, base)
    except ValueError as error:
        raise Mismatch(str(error)) from None
    return value


_CONVERTERS: dict[str, Callable[[Any, Path], Any]] = {
    "int": _whole,
    "float": _number,
    "duration": _duration,
    "size": _size,
    "timezone": _timezone,
    "path": _path,
    "datetime": _datetime,
    "moment": _moment,
    "time": _time,
    "slug": _slug,
    "listen": _listen,
    "store_url": _store_url,
}
