"""Rates: the clock of a key against a bucket of tokens, counted in fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.gcra import free_at, interval_us, moved, passes
from engine.triggers import Rate

# Rates whose interval is a whole number of microseconds: the bucket has no rounding.
RATES = st.builds(
    lambda limit, interval_ms, burst: Rate(limit=limit, per_s=limit * interval_ms / 1000, burst=burst),
    st.integers(1, 50), st.integers(1, 5000), st.integers(1, 20),
)  # fmt: skip
GAPS = st.lists(st.integers(0, 3_000_000), max_size=60)


class Bucket:
    """Holds at most `burst` tokens; one more comes each interval. One is taken for each that passes."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.tokens, self.at = rate, Fraction(rate.burst), 0

    def fill(self, now: int) -> None:
        grown = self.tokens + Fraction(now - self.at, interval_us(self.rate))
        self.tokens, self.at = min(Fraction(self.rate.burst), grown), now


@given(rate=RATES, gaps=GAPS)
def test_what_passes_is_what_a_bucket_of_tokens_lets_pass(rate: Rate, gaps: list[int]) -> None:
    bucket, tat, now = Bucket(rate), 0, 1
    bucket.at = now
    for gap in gaps:
        now += gap
        bucket.fill(now)
        assert passes(rate, tat, now) == (bucket.tokens >= 1)
        if passes(rate, tat, now):
            bucket.tokens -= 1
            tat = moved(rate, tat, now)


@given(rate=RATES, gaps=GAPS)
def test_what_waits_starts_as_soon_as_a_bucket_has_its_token_and_in_its_order(rate: Rate, gaps: list[int]) -> None:
    bucket, tat, now = Bucket(rate), 0, 1
    bucket.at = now
    starts: list[int] = []
    for gap in gaps:
        now += gap
        start = free_at(rate, tat, now)
        tat = moved(rate, tat, now)
        assert start >= (starts[-1] if starts else now)
        bucket.fill(max(start, bucket.at))
        assert bucket.tokens >= 1
        if start > now:
            # Not an instant later than it has to be.
            assert bucket.tokens - 1 < Fraction(1, interval_us(rate)) + Fraction(1, 10**9) or bucket.tokens == 1
        bucket.tokens -= 1
        starts.append(start)
    for place, start in enumerate(starts):
        inside = sum(start <= other < start + 10 * interval_us(rate) for other in starts[place:])
        assert inside <= rate.burst + 10


@given(limit=st.integers(1, 10**9), per_s=st.floats(0.001, 10**8))
def test_an_interval_is_never_too_short_for_the_limit(limit: int, per_s: float) -> None:
    interval = interval_us(Rate(limit=limit, per_s=per_s, burst=1))
    assert interval >= 1
    assert interval * limit >= per_s * 1e6 * (1 - 1e-12)
