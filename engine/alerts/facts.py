"""What alerts look at: what runtime hands them of the other organs, each for itself and cheap to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
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
    - `state_of`: where a trigger stands, and why; `schedule_of`: when it comes due.
    - `disks`: the directories of the store and of the logs.
    - `lease_age_s`: how long ago the lease was renewed; None where there is none. `held_up`: for how long the event
      loop was held up of late, and by whom.
    """

    rules: Mapping[str, Rule]
    zone: str
    usual_s: Callable[[str], Awaitable[float | None]]
    troubles: Troubles
    silent: Callable[[], Iterable[tuple[Place, str]]]
    unchecked: Callable[[], Iterable[tuple[str, str]]]
    state_of: Callable[[str], tuple[str, str | None]]
    schedule_of: Callable[[str], Schedule | None]
    disks: Sequence[Path]
    lease_age_s: Callable[[], float | None]
    held_up: Callable[[], tuple[float, str] | None]
