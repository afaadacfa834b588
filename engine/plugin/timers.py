"""What a timer is, and the settings that every timer has."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Annotated, Self

from msgspec import Meta, field

from engine.errors import PluginError
from engine.plugin.settings import CalendarName, Duration, Moment, Plugin, TimeZone

MOST_STEPS = 100_000
"""A timer that can't count otherwise is stepped through so many due instants, and no more."""


class Timer(Plugin, frozen=True, kw_only=True, omit_defaults=True):
    """The pure part of a time source: from an instant, the due instants around it. Aware datetimes, UTC.

    The fields below are settings of every timer. The engine applies them to what `next` and `previous` answer, so a
    timer has nothing to do for them: see `engine.decide.schedule`. It may read them (`timezone`, or `start`, as
    `interval` does to begin there), and no timer may define them anew.
    """

    timezone: Annotated[
        TimeZone | None,
        Meta(description="The zone of local times and of the dates of calendars. Default: that of the engine."),
    ] = None
    start: Annotated[Moment | None, Meta(description="Nothing is due before it.")] = None
    end: Annotated[Moment | None, Meta(description="Nothing is due after it; the trigger is then `completed`.")] = None
    jitter: Annotated[
        Duration | None,
        Meta(ge=0, description="Each due instant fires up to so much later, but before the next one is due."),
    ] = None
    every_nth: Annotated[
        int | None,
        Meta(ge=2, description="Only each nth instant is due, the first from `start` on (or from 1970 on) included."),
    ] = None
    except_: Annotated[tuple[CalendarName, ...], Meta(description="Calendars on whose days nothing is due.")] = field(
        default=(), name="except"
    )
    only: Annotated[
        tuple[CalendarName, ...], Meta(description="Calendars, on one of whose days it must be to be due.")
    ] = ()

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """Return the first due instant later than `after`, or None where there is none."""

    @abstractmethod
    def previous(self, before: datetime) -> datetime | None:
        """Return the last due instant earlier than `before`, or None where there is none."""

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are due later than `after`, up to and including `upto`.

        `every_nth` counts with it from `start` on, or from 1970 on. This one steps through them, and raises PluginError
        where there are too many: a timer that is due often counts by arithmetic instead.
        """
        counted, due = 0, self.next(after)
        while due is not None and due <= upto:
            counted += 1
            if counted > MOST_STEPS:
                raise PluginError(
                    f"more than {MOST_STEPS:,} due instants of the timer {self.name} have to be counted one by one; "
                    "give a later start, or a timer with a count of its own"
                )
            due = self.next(due)
        return counted

    def base_interval(self) -> float | None:
        """Return the time between two due instants, in seconds, by its settings, where it may be adapted, else None."""
        return None

    def paced(self, interval_s: float, first: datetime) -> Self:
        """Return it with another interval, its `start` being `first`: due then, and every `interval_s` from then on.

        For timers that have a `base_interval`. Raises BadSetting where it can't have that interval.
        """
        raise NotImplementedError(f"{self.name} has no interval that may be adapted")

    def note(self, at: datetime) -> str | None:
        """Say what is special about a due instant, such as that a change of the clock moves it; None: nothing."""
        return None


TIMER_FIELDS: frozenset[str] = frozenset(Timer.__struct_fields__)
"""The settings that every timer has, by their names in Python."""
