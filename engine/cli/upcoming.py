"""When triggers on timers are due next: what `next` and `check` tell."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.cli.failures import USAGE, CommandFailed, EngineSilent, NoEngine, NotThere
from engine.cli.output import say, say_table
from engine.clock import SystemClock, rfc3339
from engine.config.scalars import near
from engine.decide.rules import Rule, why_disabled
from engine.decide.schedule import schedule_of
from engine.decide.upcoming import clock_notes, upcoming
from engine.errors import ConfigError, Conflict, EngineError
from engine.units import format_span

if TYPE_CHECKING:
    from engine.cli.session import Session
    from engine.config import Config
    from engine.decide.windows import MaintenanceWindow
    from engine.triggers import Trigger

log = logging.getLogger("engine.cli")

AHEAD = timedelta(days=366)
"""So far `check` looks for changes of the clock."""

MOST_LINES = 100
"""So many triggers, and so many notes, are printed for people; `--json` has all."""


class Ahead(Struct, frozen=True, kw_only=True):
    """What is ahead of one trigger: its due instants as the API shows them, or why there are none.

    `remark` says where they are from, where that is not what one would think.
    """

    trigger: str
    next: Sequence[dict[str, Any]]
    why: str | None = None
    remark: str | None = None


class Forecast(Struct, frozen=True, kw_only=True):
    """What is ahead of a configuration: the next instant of each trigger on a timer, and what is worth a word."""

    next: Sequence[dict[str, Any]]
    notes: Sequence[str]


def look_ahead(session: Session, name: str, *, count: int, after: str | None) -> Ahead:
    """Return the due instants to come: by the engine where one answers and has the trigger, else by the configuration.

    Raises CommandFailed where the trigger is on no timer, or unknown.
    """
    since = SystemClock().now() if after is None else _instant(after)
    remark = None
    try:
        return _asked(session, name, count=count, since=since)
    except ConfigError:
        raise
    except NotThere as error:
        remark = f"the running engine says: {error}. By the configuration:"
        if session.named:
            raise
    except NoEngine as error:
        if session.named:
            raise
        remark = f"{error}. By the configuration:" if isinstance(error, EngineSilent) else None
    except (CommandFailed, EngineError):
        # Without a token no engine can be asked; where it never started there is none yet.
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
    return _read(session.load(), name, count=count, since=since, remark=remark)


def _asked(session: Session, name: str, *, count: int, since: datetime) -> Ahead:
    client = session.client()
    found = client.get("triggers", name, "next", count=count, after=rfc3339(since))
    why = None if found else client.get("triggers", name).get("state_reason")
    return Ahead(trigger=name, next=found, why=why)


def _read(config: Config, name: str, *, count: int, since: datetime, remark: str | None) -> Ahead:
    trigger = config.triggers.get(name)
    if trigger is None:
        hint = near(name, config.triggers)
        raise CommandFailed(f"there is no trigger {name}" + (f"; {hint}" if hint else ""))
    try:
        instants = upcoming(
            trigger, since, default_zone=config.engine.timezone, windows=windows_for(trigger, config),
            job=config.jobs[trigger.job],
        )  # fmt: skip
    except Conflict as error:
        raise CommandFailed(str(error)) from None
    views = [one.view() for one in islice(instants, count)]
    return Ahead(trigger=name, next=views, why=None if views else _said_of_end(trigger, since), remark=remark)


def windows_for(trigger: Trigger, config: Config) -> list[MaintenanceWindow]:
    """Return the windows of the configuration that hold runs of a trigger."""
    rule = Rule(trigger, config.jobs[trigger.job])
    return [window for window in config.maintenance.values() if window.enabled and window.scope.holds(rule)]


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        example = "2026-11-21T09:30:00Z"
        raise CommandFailed(
            f"--after {text!r} is no time in RFC 3339 with its offset, such as {example}", USAGE
        ) from None


def say_upcoming(found: Ahead) -> None:
    """Print a trigger's due instants, in its own zone and in UTC."""
    if found.remark is not None:
        say(found.remark, error=True)
    if not found.next:
        say(f"Trigger {found.trigger}: {found.why or 'no further instant is due'}")
        return
    say(f"Trigger {found.trigger} is due, in {_zone(found.next[0])}:")
    late = any(one["fires_at"] != one["at"] for one in found.next)
    columns = ["local", "utc", *(["fires"] if late else []), "note"]
    say_table(
        columns,
        [
            [
                local_text(one["local"]), _utc_text(one["at"]),
                *([_later(one)] if late else []), one["note"] or "",
            ]
            for one in found.next
        ],
        optional=("utc",),
    )  # fmt: skip


def forecast(config: Config) -> Forecast:
    """Look ahead for all triggers on timers that work: their next instants, the soonest first, and notes on them.

    Notes are on timers of which nothing is due any more, that fail, or that changes of the clock touch within a year.
    """
    now, zone = SystemClock().now(), config.engine.timezone
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for trigger in config.triggers.values():
        if schedule_of(trigger) is None or why_disabled(trigger, config.jobs[trigger.job]) is not None:
            continue
        try:
            following = next(upcoming(trigger, now, default_zone=zone), None)
            if following is None:
                notes.append(f"trigger {trigger.name}: {_said_of_end(trigger, now)}")
                continue
            found.append({"trigger": trigger.name, **following.view()})
            notes += _clock_notes(trigger, now, zone)
        except EngineError as error:  # plugin code; the engine says so too when it runs
            notes.append(str(error))
    return Forecast(next=sorted(found, key=lambda one: (one["at"], one["trigger"])), notes=notes)


def _clock_notes(trigger: Trigger, now: datetime, zone: str) -> Iterator[str]:
    for one in clock_notes(trigger, now, now + AHEAD, default_zone=zone):
        yield f"trigger {trigger.name}, {one.local:%Y-%m-%d} ({one.zone}): {one.note}"


def _said_of_end(trigger: Trigger, now: datetime) -> str:
    said, last = "its timer has no further due instant", None
    if (schedule := schedule_of(trigger)) is not None:
        try:
            said, last = schedule.why_over(now), schedule.previous(now)
        except Exception:  # plugin code; that it has no next instant is what matters
            log.debug("Trigger %s: its timer raised", trigger.name, exc_info=True, extra={"action": "timer_raised"})
    return said if last is None else f"{said}: its last instant was {rfc3339(last)}"


def say_forecast(found: Forecast) -> None:
    """Print what is ahead, in a line each."""
    width = max((len(one["trigger"]) for one in found.next), default=0)
    lines = []
    for one in found.next:
        local, utc = local_text(one["local"]), _utc_text(one["at"])
        lines.append(f"  {one['trigger']:{width}}  next {local} {_zone(one)}, {utc}")
    for block in (lines, [f"  {note}" for note in found.notes]):
        for line in block[:MOST_LINES]:
            say(line)
        if len(block) > MOST_LINES:
            say(f"  and {len(block) - MOST_LINES} more: see --json")


def local_text(local: str) -> str:
    """Return a local time of the API for people: the day of the week, and no zone."""
    at = datetime.fromisoformat(local.partition("[")[0])
    return f"{at:%a} {at.isoformat(sep=' ', timespec='seconds')}"


def _later(view: dict[str, Any]) -> str:
    """Say how much later than it is due an instant fires, where the load is spread."""
    later = datetime.fromisoformat(view["fires_at"]) - datetime.fromisoformat(view["at"])
    return f"+{format_span(later.total_seconds())}" if later else "then"


def _zone(view: dict[str, Any]) -> str:
    return str(view["local"]).partition("[")[2].removesuffix("]")


def _utc_text(at: str) -> str:
    return at.replace("T", " ")
