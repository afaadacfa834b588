"""What alerts look at: what runtime hands them of the other organs, each for itself and cheap to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from engine.decide.breakers import Place
from engine.decide.rules import Rule
from engine.decide.schedule import Schedule

Troubles = Callable[[], Mapping[str, tuple[str, datetime | None]]]


class Facts(Struct, frozen=True, kw_only=True):
    """What may be asked of the engine.

    - `rules`: the triggers by name, as they are now; `zone`: of times of the day, where a trigger says none.
    - `usual_s`: how long half of a job's runs took in a week; None where too few ran.
    - `troubles`: what is wrong with sources and timers, by their ids; `silent`: of whom no event came for too long.
    - `unchecked`: the conditions that can't be checked, and why.
    - `in_state`: the triggers that are in one of some states, with the state and why; `is_paused`: whether one is
      paused; `schedule_of`: when one comes due. `waiting`: how many runs wait, in all.
    - `disks`: the directories of the store and of the logs; `least_free_bytes`: with less there no event is taken.
    - `lease_age_s`: how long ago the lease was renewed; None where there is none. `held_up`: for how long the event
      loop was held up of late, and by whom.
    """

    rules: Mapping[str, Rule]
    zone: str
    usual_s: Callable[[str], Awaitable[float | None]]
    troubles: Troubles
    silent: Callable[[], Iterable[tuple[Place, str]]]
    unchecked: Callable[[], Iterable[tuple[str, str]]]
    in_state: Callable[[Collection[str]], Iterable[tuple[str, str, str | None]]]
    is_paused: Callable[[str], bool]
    waiting: Callable[[], int]
    schedule_of: Callable[[str], Schedule | None]
    disks: Sequence[Path]
    least_free_bytes: int
    lease_age_s: Callable[[], float | None]
    held_up: Callable[[], tuple[float, str] | None]
