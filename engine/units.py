"""Durations, sizes and rates as people write them, and names as sentences list them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_ISO = re.compile(
    r"P(?:(?P<w>\d+(?:\.\d+)?)W)?(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?\Z"
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB))?\Z")
_SIZE_BYTES = {
    None: 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h|d)\Z")

GREATEST_SIZE_BYTES = 2**50
"""A pebibyte: larger sizes are refused, as they are mistakes."""

LONGEST_DURATION_S = 3650 * 86400.0
"""Ten years: longer durations are refused, as they are mistakes and overflow dates."""


def parse_duration(text: str) -> float:
    """Read a duration into seconds.

    Either parts of a number and a unit (`"500ms" "5s" "30m" "1h" "1d" "2w" "1h30m"`), each unit once and from
    the largest down, or ISO 8601 without months and years (`"PT1H30M"`, `"P1D"`). Zero is `"0s"`.

    Raises ValueError, in words, for anything else, and for more than ten years.
    """
    seconds = _parse_iso(text) if text.startswith("P") else _parse_parts(text)
    if seconds > LONGEST_DURATION_S:
        raise ValueError("is longer than ten years")
    return seconds


def _parse_iso(text: str) -> float:
    match = _ISO.match(text)
    if match is None or not any(match.groups()) or text.endswith("T"):
        raise ValueError('is no ISO 8601 duration such as "PT1H30M" (months and years have no fixed length)')
    return sum(float(value) * _UNIT_S[unit] for unit, value in match.groupdict().items() if value)


def _parse_parts(text: str) -> float:
    position, seconds, last_unit_s = 0, 0.0, float("inf")
    for match in _PART.finditer(text):
        unit_s = _UNIT_S[match[2]]
        if match.start() != position or unit_s >= last_unit_s:
            break
        position, seconds, last_unit_s = match.end(), seconds + float(match[1]) * unit_s, unit_s
    if not text or position != len(text):
        raise ValueError('is no duration such as "500ms", "5s", "30m", "1h30m" or "1d"')
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds the way `parse_duration` reads them: `5400` is `"1h30m"`, `0.25` is `"250ms"`."""
    return _written(round(seconds * 1000))


@lru_cache(maxsize=1_024)
def _written(milliseconds: int) -> str:
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


_ROUGH = ((0.001, "ms", 1000.0), (1.0, "s", 100.0), (60.0, "m", 100.0), (3600.0, "h", 48.0))
"""The units of rough times, with what of each is told in the next."""


def format_span(seconds: float) -> str:
    """Write how long something took or takes, for people: at most two units, rounded.

    `0.0094` is `"9ms"`, `1.956` is `"2s"`, `1.14` is `"1.1s"`, `14.977` is `"15s"`, `5399.6` is `"1h30m"`.
    """
    if seconds < 0.9995:
        return format_duration(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    for unit_s, finer_s in ((60.0, 1), (3600.0, 1), (86400.0, 60)):
        rounded = round(seconds / finer_s) * finer_s
        if rounded < unit_s:
            return format_duration(rounded)
    return format_duration(round(seconds / 3600) * 3600)


def two_digits(seconds: float) -> tuple[str, str]:
    """Return a time that is known to a twentieth in two digits, which is what it bears, and their unit.

    `0.198` is `("200", "ms")`, `93.4` is `("93", "s")`, `754` is `("13", "m")`; a millisecond is the least.
    """
    for unit_s, unit, limit in _ROUGH:
        value = float(f"{max(seconds, 0.001) / unit_s:.1e}")
        if value < limit:
            return f"{value:g}", unit
    return f"{float(f'{seconds / 86_400:.1e}'):g}", "d"


def parse_size(text: str) -> int:
    """Read a size into bytes: `"64KiB"`, `"1MiB"`, `"5GB"`, `"100"`. Raises ValueError, in words."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError('is no size such as "64KiB", "1MiB" or "5GB"')
    size = float(match[1]) * _SIZE_BYTES[match[2]]
    if size > GREATEST_SIZE_BYTES:
        raise ValueError(f"is larger than {format_size(GREATEST_SIZE_BYTES)}")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Write bytes in the largest binary unit that keeps them readable: `65536` is `"64KiB"`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"


def parse_rate(text: str) -> float:
    """Read a rate into times per second: `"10/s"`, `"90/m"`, `"0.5/h"`. Raises ValueError, in words."""
    match = _RATE.match(text)
    if match is None or not float(match[1]):
        raise ValueError('is no rate such as "10/s", "90/m" or "5/h"')
    return float(match[1]) / _UNIT_S[match[2]]


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: `sales, stock and prices`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
