"""Whether and when a failed attempt is tried again."""

from __future__ import annotations

import random
from zlib import crc32

from engine.jobs import RetryPolicy

LONGEST_ASKED_S = 86_400.0
"""What somebody asks for (`Outcome.retry_after_s`) is not waited for any longer."""


def delay_s(policy: RetryPolicy, attempt: int, seed: str, asked_s: float = 0.0) -> float | None:
    """Return the seconds to wait after the failed attempt number `attempt` (from 1), or None to give up.

    Exponential: `delay * factor ** (attempt - 1)`, bounded by `max_delay`, then varied by up to ±`jitter` of
    itself. The variation depends only on `seed` and `attempt`, so that deciding twice decides the same. `asked_s`
    is the least to wait, also beyond `max_delay`, for at most `LONGEST_ASKED_S`; it varies upwards only.
    """
    if attempt >= policy.attempts:
        return None
    try:
        delay = policy.delay_s * policy.factor ** (attempt - 1)
    except OverflowError:
        delay = policy.max_delay_s
    delay = min(delay, policy.max_delay_s)
    spread = random.Random(crc32(f"{seed}/{attempt}".encode())).uniform(-1.0, 1.0)  # noqa: S311 - no secret
    asked = min(asked_s, LONGEST_ASKED_S) * (1.0 + policy.jitter * abs(spread))
    return max(asked, delay * (1.0 + policy.jitter * spread), 0.0)
