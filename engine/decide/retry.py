"""Whether and when a failed attempt is tried again."""

from __future__ import annotations

import random
from zlib import crc32

from engine.jobs import RetryPolicy


def delay_s(policy: RetryPolicy, attempt: int, seed: str) -> float | None:
    """Return the seconds to wait after the failed attempt number `attempt` (from 1), or None to give up.

    Exponential: `delay * factor ** (attempt - 1)`, bounded by `max_delay`, then varied by up to ±`jitter` of
    itself. The variation depends only on `seed` and `attempt`, so that deciding twice decides the same.
    """
    if attempt >= policy.attempts:
        return None
    try:
        delay = policy.delay_s * policy.factor ** (attempt - 1)
    except OverflowError:
        delay = policy.max_delay_s
    delay = min(delay, policy.max_delay_s)
    spread = random.Random(crc32(f"{seed}/{attempt}".encode())).uniform(-1.0, 1.0)  # noqa: S311 - no secret
    return max(0.0, delay * (1.0 + policy.jitter * spread))
