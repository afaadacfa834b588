"""The connections that there are, and who has to go where there are too many.

Room is made at the cost of whoever keeps the engine waiting: a connection on which a head, a body, or the taking of an
answer is due for longer than `SLOW_S`, the oldest first, before one that is idle, before the newcomer. So clients that
are slow on purpose, each holding a connection as long as it may, keep nobody else out.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Protocol

from engine.config.addresses import is_loopback
from engine.config.doors import LEAST_CONNECTIONS, Doors
from engine.http.clients import counted_as
from engine.http.doorlog import DoorLog
from engine.networks import Networks

LEAST_RESERVE = 48
"""So many file descriptors, or a quarter of all, are not for connections: the store, runs and sources need theirs."""

SLOW_S = 2.0
HASTY_S = 0.25
"""Who is awaited for less is not slow, however full it is."""

NO_ROOM_S = 0.1
"""How long it holds that nobody can go: else each newcomer would be paid for with a look at all others."""

AT_ONCE = 32
"""Where it is full, this fraction of the connections (one thirty-second) goes at once, so that looking is rare."""

MOST_HELD_BYTES = 128 * 2**20
"""What all bodies that are on their way may take of memory together."""

CROWDED = "http_crowded"
CROWDED_CLIENT = "http_crowded_client"


class Member(Protocol):
    """A connection, as far as the crowd is concerned."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing was asked for that is not answered yet."""

    @property
    def is_closing(self) -> bool:
        """Whether it ends already."""

    def waits_s(self) -> float:
        """Return for how long the client has let the engine wait for the rest of something; 0 where it does not."""

    def drop(self) -> None:
        """End it at once."""


def most_by_descriptors() -> int | None:
    """Return how many connections there may be by the limit of open files as it is now; None: any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(limit - max(LEAST_RESERVE, limit // 4), LEAST_CONNECTIONS)


class Crowd:
    """All connections, by client."""

    def __init__(self, doors: Doors, told: DoorLog, proxies: Networks | None = None) -> None:
        self._doors = doors
        self._told = told
        self._proxies = proxies
        self._all: dict[Member, str] = {}
        self._by_client: dict[str, dict[Member, None]] = {}
        self._full_until_s: dict[str | None, float] = {}
        self._held_bytes = 0

    @property
    def most(self) -> int:
        """How many there may be now."""
        by_descriptors = most_by_descriptors()
        most = self._doors.max_connections
        return most if by_descriptors is None else min(most, by_descriptors)

    def most_of(self, client: str, most: int) -> int:
        """Return how many of `most` one client may have: from where proxies are, loopback among it, nearly all."""
        if is_loopback(client) or (self._proxies is not None and client in self._proxies):
            return most - most // 8
        return min(self._doors.max_connections_per_client, most)

    def enter(self, newcomer: Member, address: str, now_s: float) -> bool:
        """Count a connection; tell whether it may stay. Others are dropped where they have to make room for it."""
        client = counted_as(address)
        self._all[newcomer] = client
        own = self._by_client.setdefault(client, {})
        own[newcomer] = None
        most = self.most
        if len(own) > (most_own := self.most_of(client, most)):
            self._told.note(CROWDED_CLIENT, client)
            if not self._make_room(client, own, newcomer, most_own, now_s):
                return False
        if len(self._all) > most:
            self._told.note(CROWDED, client)
            return self._make_room(None, self._all, newcomer, most, now_s)
        return True

    def leave(self, member: Member) -> None:
        """Count it no more."""
        client = self._all.pop(member, None)
        if client is None:
            return
        own = self._by_client[client]
        del own[member]
        if not own:
            del self._by_client[client]
            self._full_until_s.pop(client, None)

    def hold(self, size_bytes: int, largest_bytes: int) -> bool:
        """Count what has come of a body, or, negative, what is done with; tell whether there is room for it.

        There is for `MOST_HELD_BYTES`, or for four bodies of `largest_bytes` where that is more. Where there is none
        the slow are dropped, so that there is in a moment.
        """
        self._held_bytes += size_bytes
        if size_bytes <= 0 or self._held_bytes <= max(MOST_HELD_BYTES, 4 * largest_bytes):
            return True
        for each in list(self._all):
            if each.waits_s() > SLOW_S:
                self.leave(each)
                each.drop()
        return False

    def _make_room(
        self, client: str | None, members: Iterable[Member], newcomer: Member, most: int, now_s: float
    ) -> bool:
        if self._full_until_s.get(client, now_s) > now_s:
            return False
        chosen = _who_goes(members, newcomer, most // AT_ONCE + 1)
        if not chosen:
            self._full_until_s[client] = now_s + NO_ROOM_S
        for each in chosen:
            self.leave(each)
            each.drop()
        return bool(chosen)


def _who_goes(members: Iterable[Member], newcomer: Member, count: int) -> list[Member]:
    """Return whom to close: up to `count` that are slow, else some that are idle, else who is awaited for longest.

    Of those that are alike it is who connected first. Who is awaited for longest has not been given all of `SLOW_S`,
    but there is no room for more.
    """
    slow: list[Member] = []
    idle: list[Member] = []
    longest_s, latest = HASTY_S, None
    for each in members:
        if each is newcomer or each.is_closing:
            continue
        waits_s = each.waits_s()
        if waits_s > SLOW_S:
            slow.append(each)
            if len(slow) >= count:
                break
        elif each.is_idle:
            if len(idle) < count:
                idle.append(each)
        elif waits_s > longest_s:
            longest_s, latest = waits_s, each
    return slow or idle[: max(1, count // 4)] or ([] if latest is None else [latest])
