"""What the age of something says."""

from __future__ import annotations

from engine.plugin import Verdict

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def said_of_age(what: str, age_s: float, *, newest_s: float | None, oldest_s: float | None) -> Verdict:
    """Pass where something is at least `newest_s` and at most `oldest_s` old; None: no limit."""
    said, value = f"{what} {in_words(age_s)} ago", {"age_s": round(age_s)}
    if newest_s is not None and age_s < newest_s:
        return Verdict.holds(f"{said}, and has to be {in_words(newest_s)} old", value)
    if oldest_s is not None and age_s > oldest_s:
        return Verdict.holds(f"{said}, which is more than {in_words(oldest_s)}", value)
    return Verdict.passes(said, value)


def in_words(seconds: float) -> str:
    """Write a time span in one unit."""
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.1f}".removesuffix(".0") + name
    return f"{seconds:.0f}s"
