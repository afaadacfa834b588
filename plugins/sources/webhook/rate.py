"""How many requests a webhook takes in a time, and the headers that tell of it.

The rate is kept by GCRA (ITU-T I.371): one clock reading tells how far ahead of it the senders are. The headers are
those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from engine.plugin import BadSetting, Clock

POLICY = "hook"
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,6})/([smhd])\Z")


def read_rate(text: str) -> tuple[int, int]:
    """Return how many in how many seconds; raise BadSetting where it is no rate."""
    match = _RATE.match(text)
    if match is None:
        raise BadSetting("rate", f"is {text!r}, which is no rate", 'such as "100/s", "600/m" or "50/h"')
    return int(match[1]), _UNIT_S[match[2]]


class Quota:
    """What senders of one webhook may still send: at most `limit` at once, and as many in each window."""

    __slots__ = ("_clock", "_interval_s", "_limit", "_policy", "_rest_s", "_window_s")

    def __init__(self, rate: str, clock: Clock) -> None:
        self._limit, self._window_s = read_rate(rate)
        self._clock = clock
        self._interval_s = self._window_s / self._limit
        self._rest_s = 0.0
        """When all of it may be used again, by the monotonic clock."""
        self._policy = f'"{POLICY}";q={self._limit};w={self._window_s}'

    def take(self) -> int:
        """Take one, and return 0; or the whole seconds after which there is one again."""
        now_s = self._clock.monotonic()
        wait_s = max(self._rest_s, now_s) + self._interval_s - self._window_s - now_s
        # A clock reading in floats: what is a hair too early counts as in time.
        if wait_s > 1e-6:
            return math.ceil(wait_s)
        self._rest_s = max(self._rest_s, now_s) + self._interval_s
        return 0

    def headers(self) -> Mapping[str, str]:
        """Return what tells a sender of the rate, and how much of it is left."""
        ahead_s = max(self._rest_s - self._clock.monotonic(), 0.0)
        left = max(0, math.floor((self._window_s - ahead_s) / self._interval_s + 1e-6))
        return {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"{POLICY}";r={left};t={math.ceil(ahead_s)}',
        }
