"""Pools: what `[pools]` says there is, and how much runs of a job take of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from msgspec import Meta

from engine.config.document import KeyPath
from engine.config.scalars import near
from engine.decide.limits import ENGINE_POOL

Weight = Annotated[int, Meta(ge=1)]

Tell = tuple[KeyPath, str, str | None]
"""A mistake: where it is, what it is, and the way out."""


def mistakes_in_pools(pools: Mapping[str, int]) -> list[Tell]:
    """Return what is wrong with the table of pools."""
    if ENGINE_POOL not in pools:
        return []
    return [(("pools", ENGINE_POOL), "is what the slots of the engine are called", "choose another name")]


def weights_of(given: Collection[str] | Mapping[str, int]) -> dict[str, int]:
    """Return how much a run takes of each pool: 1 where only the pool is named."""
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 1)


def mistakes_in_weights(
    path: KeyPath, given: Collection[str] | Mapping[str, int], pools: Mapping[str, int]
) -> list[Tell]:  # fmt: skip
    """Return what is wrong with the pools that a job names; `path` is where they stand."""
    found: list[Tell] = []
    for place, (name, weight) in enumerate(weights_of(given).items()):
        at = (*path, name if isinstance(given, Mapping) else place)
        if name not in pools:
            hint = near(name, pools) if pools else "there are no pools: they stand in the table [pools]"
            found.append((at, f'found "{name}", but there is no such pool', hint))
        elif weight > pools[name]:
            message = f"found {weight}, more than pool {name} holds, which is {pools[name]}: it would never start"
            found.append((at, message, "take less, or make the pool larger"))
    return found
