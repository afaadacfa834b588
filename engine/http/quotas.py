"""How often each client may ask, and how often it may guess.

Rates are those of `engine.decide.gcra`: a number for each client, kept in memory while it has an effect. At most
`MOST_CLIENTS` are kept; beyond, the one that asked first is forgotten, so that clients without number take no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from msgspec import Struct

from engine.decide import gcra
from engine.http.clients import counted_as
from engine.http.doorlog import DoorLog
from engine.http.problems import Problem
from engine.triggers import Rate

MOST_CLIENTS = 10_000
GUESSES = Rate(limit=10, per_s=60.0, burst=10)
"""Wrong tokens of one address that are looked at."""

GUESSES_OF_PREFIX = Rate(limit=60, per_s=60.0, burst=60)
"""Wrong tokens that begin alike, from any address: somebody knows how one begins, as lists show that."""

PREFIX = 8
LIMITED = "http_rate_limited"
WRONG_TOKEN = "http_wrong_token"  # noqa: S105 - the name of a record
GUESSING = "http_token_guessing"


class Taken(Struct, frozen=True, kw_only=True):
    """What became of one request: whether it passes, how many may follow at once, and when it is all of them again."""

    passes: bool
    remaining: int
    reset_s: float
    wait_s: float


class Quota:
    """One rate, for each of many clients."""

    def __init__(self, rate: Rate, now_s: Callable[[], float]) -> None:
        self.rate = rate
        self._now_s = now_s
        self._interval_us = gcra.interval_us(rate)
        self._tats: dict[str, int] = {}

    def take(self, client: str) -> Taken:
        """Count one request of a client; one that does not pass is not counted."""
        now_us = int(self._now_s() * 1e6)
        tat_us = self._tats.pop(client, 0)
        free_us = gcra.free_at(self.rate, tat_us, now_us)
        passes = free_us <= now_us
        if passes:
            tat_us = gcra.moved(self.rate, tat_us, now_us)
        self._keep(client, tat_us, now_us)
        ahead_us = max(0, tat_us - now_us)
        return Taken(
            passes=passes,
            remaining=max(0, self.rate.burst - -(-ahead_us // self._interval_us)),
            reset_s=ahead_us / 1e6,
            wait_s=(free_us - now_us) / 1e6,
        )

    def wait_s(self, client: str) -> float:
        """Return for how long nothing more of a client passes; nothing is counted."""
        tat_us = self._tats.get(client)
        if tat_us is None:
            return 0.0
        now_us = int(self._now_s() * 1e6)
        return (gcra.free_at(self.rate, tat_us, now_us) - now_us) / 1e6

    def _keep(self, client: str, tat_us: int, now_us: int) -> None:
        # Taken out and put in again, so that the first is who asked longest ago: it is the first to be forgotten.
        self._tats[client] = tat_us
        while len(self._tats) > 1 and (len(self._tats) > MOST_CLIENTS or self._tats[self._first()] <= now_us):
            del self._tats[self._first()]

    def _first(self) -> str:
        return next(iter(self._tats))


class RateLimit:
    """`[http] rate_limit`: how often a client may ask for anything."""

    def __init__(self, rate: Rate, now_s: Callable[[], float], told: DoorLog) -> None:
        self._quota = Quota(rate, now_s)
        self._told = told
        self._policy = f'"client";q={rate.limit};w={rate.per_s:.0f}'

    def take(self, client: str) -> Mapping[str, str]:
        """Count one request; return the headers that tell the client where it stands.

        They are those of draft-ietf-httpapi-ratelimit-headers-10. Raises Problem 429 where it is one too many.
        """
        taken = self._quota.take(client)
        headers = {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"client";r={taken.remaining};t={math.ceil(taken.reset_s)}',
        }
        if taken.passes:
            return headers
        self._told.note(LIMITED, client.partition(" ")[0])
        headers["Retry-After"] = _whole_s(taken.wait_s)
        rate = self._quota.rate
        detail = f"{gcra.said_of_rate(rate)} requests are what a client may make; wait {headers['Retry-After']} s"
        raise Problem(429, detail, code="rate_limited", headers=headers)


class Guesses:
    """Wrong tokens: after some, what an address offers and could have guessed is not looked at for a while.

    A token that was right before, from the same address, is looked at even then: who shares its address with a
    guesser, behind a proxy or on one machine, is not locked out (OWASP calls this a device cookie).
    """

    def __init__(self, now_s: Callable[[], float], told: DoorLog) -> None:
        self._by_client = Quota(GUESSES, now_s)
        self._by_prefix = Quota(GUESSES_OF_PREFIX, now_s)
        self._told = told
        self._known: dict[int, None] = {}
        self._any = False

    def check(self, address: str, token: str) -> None:
        """Raise Problem 429 where a token is not to be looked at."""
        if not self._any or self.knows(address, token):
            return
        client = counted_as(address)
        wait_s = max(self._by_client.wait_s(client), self._by_prefix.wait_s(token[:PREFIX]))
        if wait_s <= 0:
            return
        self._told.note(GUESSING, client)
        raise Problem(
            429, "too many wrong tokens came from here: wait before the next", code="too_many_wrong_tokens",
            headers={"Retry-After": _whole_s(wait_s)},
        )  # fmt: skip

    def failed(self, address: str, token: str) -> None:
        """Count a token that was wrong."""
        self._any = True
        client = counted_as(address)
        self._told.note(WRONG_TOKEN, client)
        self._by_client.take(client)
        self._by_prefix.take(token[:PREFIX])

    def passed(self, address: str, token: str) -> None:
        """Know a token that was right. What is kept is a number that tells nothing of it (SipHash, by a key)."""
        pair = hash((address, token))
        if pair not in self._known:
            self._known[pair] = None
            if len(self._known) > MOST_CLIENTS:
                del self._known[next(iter(self._known))]

    def knows(self, address: str, token: str) -> bool:
        """Tell whether a token was right when it last came from there; it may not be right any more."""
        return hash((address, token)) in self._known


def _whole_s(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))
