"""Rates by GCRA: one clock reading for each key tells how far ahead of its rate it is.

The *theoretical arrival time* (TAT) is when the key would be back at rest. Each arrival moves it on by the emission
interval, `per / limit`; one that comes while it is no more than `burst - 1` intervals ahead may pass at once. So in any
span of t seconds at most `burst + t / interval` pass, and a key whose TAT is over has no effect: it need not be kept.

Microseconds, whole numbers, rounded up: what is told twice is told alike. (ITU-T I.371, the virtual scheduling form
of the generic cell rate algorithm.)
"""

from __future__ import annotations

import math
from datetime import datetime

from engine.triggers import Rate
from engine.units import format_duration


def interval_us(rate: Rate) -> int:
    """Return the emission interval."""
    return max(1, math.ceil(rate.per_s * 1_000_000 / rate.limit))


def passes(rate: Rate, tat_us: int, now_us: int) -> bool:
    """Tell whether one more may pass at once, where the key's TAT is `tat_us` (0 for one that is at rest)."""
    return free_at(rate, tat_us, now_us) <= now_us


def free_at(rate: Rate, tat_us: int, now_us: int) -> int:
    """Return when one more may pass: now, or later."""
    return max(now_us, tat_us - (rate.burst - 1) * interval_us(rate))


def moved(rate: Rate, tat_us: int, now_us: int) -> int:
    """Return the TAT after one more, that passes when `free_at` says so."""
    return max(tat_us, now_us) + interval_us(rate)


def said_of_rate(rate: Rate) -> str:
    """Write a rate, such as `10 per 1m`."""
    return f"{rate.limit} per {format_duration(rate.per_s)}"


def said_of_throttle(rate: Rate, due_at: datetime) -> str:
    """Say until when a run waits, and for which rate."""
    return f"waits until {due_at:%H:%M:%S} UTC (throttle: {said_of_rate(rate)})"
