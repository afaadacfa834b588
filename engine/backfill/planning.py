"""What a backfill is to run: the due instants of a span, counted before anything is begun."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

from engine.backfills import MOST_INSTANTS, MOST_PARALLEL, BackfillPlan, BackfillRequest
from engine.clock import Clock, rfc3339
from engine.decide.rules import Rule
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import Conflict, InvalidRequest, NotFound, PluginError
from engine.plugin.moments import instant_of
from engine.store.base import Store

log = logging.getLogger("engine.backfill")

LONGEST_COUNT_S = 5.0
"""Instants are counted for at most so long."""

AT_A_TIME, PAUSE_S = 64, 0.0005
"""After so many instants the event loop and the writer have their turn."""


class Planning:
    """Plans backfills: `rules` are the triggers by name."""

    def __init__(self, *, clock: Clock, store: Store, rules: Mapping[str, Rule]) -> None:
        self._clock = clock
        self._store = store
        self._rules = rules

    async def plan(self, request: BackfillRequest) -> BackfillPlan:
        """Return what a backfill would run.

        Raises NotFound (no such trigger), Conflict (it is disabled), InvalidRequest with what is wrong, such as too
        many instants, PluginError where its timer fails, and StoreUnavailable.
        """
        schedule = self._schedule(request.trigger)
        if not 1 <= request.max_parallel <= MOST_PARALLEL:
            raise InvalidRequest(f"max_parallel is a whole number from 1 to {MOST_PARALLEL}")
        timezone = request.timezone or str(getattr(schedule.timer, "timezone", None) or "UTC")
        if timezone not in available_timezones():
            raise InvalidRequest(f"there is no time zone {timezone!r}; give an IANA name, such as Europe/Berlin")
        start, end = _instant(request.start, timezone, "from"), _instant(request.end, timezone, "to")
        if start >= end:
            raise InvalidRequest(f"from {rfc3339(start)} to {rfc3339(end)} is no span: `to` is later than `from`")
        now = self._clock.now()
        if end > now:
            raise InvalidRequest(
                f"`to` is {rfc3339(end)}, and now is {rfc3339(now)}: what is still to come runs by itself"
            )
        instants = await self._instants(schedule, start, end)
        skipped: Mapping[datetime, str] = {}
        if request.only_missing:
            skipped = await self._store.succeeded_instants(request.trigger, start=start, end=end)
        run = [instant for instant in instants if instant not in skipped]
        if request.order == "newest":
            run.reverse()
        return BackfillPlan(
            trigger=request.trigger, from_at=start, to_at=end, timezone=timezone, instants=tuple(run),
            skipped=tuple((instant, skipped[instant]) for instant in instants if instant in skipped),
        )  # fmt: skip

    def _schedule(self, name: str) -> Schedule:
        rule = self._rules.get(name)
        if rule is None:
            raise NotFound(f"there is no trigger {name}")
        if rule.disabled is not None:
            raise Conflict(rule.disabled)
        schedule = schedule_of(rule.trigger)
        if schedule is None:
            on = getattr(rule.trigger.on, "name", rule.trigger.source)
            raise InvalidRequest(
                f"trigger {name} is on {on}, which has no due instants: a backfill runs those of a timer, such as cron "
                "or interval"
            )
        return schedule

    async def _instants(self, schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
        """Return all due instants from `start` to before `end`; refuse more than a backfill may hold."""
        found: list[datetime] = []
        ends_s = self._clock.monotonic() + LONGEST_COUNT_S
        at, count = start - timedelta(microseconds=1), 0
        while (following := _next(schedule, at)) is not None and following < end:
            at, count = following, count + 1
            if count <= MOST_INSTANTS:
                found.append(at)
            if count % AT_A_TIME == 0:
                if self._clock.monotonic() > ends_s:
                    raise _too_many(schedule.trigger, f"more than {count:,}")
                await self._clock.sleep(PAUSE_S)
        if count > MOST_INSTANTS:
            raise _too_many(schedule.trigger, f"{count:,}")
        return found


def _too_many(trigger: str, count: str) -> InvalidRequest:
    return InvalidRequest(
        f"trigger {trigger} has {count} due instants in that span, and a backfill holds at most {MOST_INSTANTS:,}: "
        "give a shorter span, and the rest in further backfills"
    )


def _next(schedule: Schedule, after: datetime) -> datetime | None:
    try:
        found = schedule.next(after)
    except Exception as error:  # the timer is plugin code
        log.exception("The timer of trigger %s raised", schedule.trigger, extra={"action": "timer_raised"})
        raise PluginError(f"the timer of trigger {schedule.trigger} raised {type(error).__name__}: {error}") from error
    if found is not None and found <= after:
        raise PluginError(
            f"the timer of trigger {schedule.trigger} said that {rfc3339(found)} comes after {rfc3339(after)}"
        )
    return None if found is None else found.astimezone(UTC)


def _instant(at: datetime, timezone: str, what: str) -> datetime:
    """Return an instant in UTC; a time without an offset is one of the zone's clock, the first where there are two."""
    try:
        return instant_of(at, timezone)
    except (OverflowError, ValueError):
        raise InvalidRequest(f"`{what}` is out of range") from None
