"""Asking for the future: of the configuration and what is stored, or of an engine elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from engine.cli.failures import USAGE, CommandFailed
from engine.clock import SystemClock, rfc3339
from engine.config import Config, load_sent
from engine.decide.rules import Rule
from engine.errors import StoreError
from engine.foresight import Downtime, Forecast, Horizon, Length, Question, World, past_lengths
from engine.foresight import plan as compare
from engine.foresight.tally import Item
from engine.http.views import shown
from engine.units import parse_duration

if TYPE_CHECKING:
    from engine.cli.session import Session

LONGEST = timedelta(days=3653)
MOST_INSTANTS = 20_000_000
STEP = 20_000
DAY = timedelta(days=1)


class Asked(Struct, frozen=True, kw_only=True):
    """The options of `simulate` as they were written."""

    start: str | None
    end: str | None
    triggers: Sequence[str]
    tags: Sequence[str]
    duration: Sequence[str]
    durations: str
    down: Sequence[str]
    quiet: str | None
    windows: int
    examples: int

    def question(self, timezone: str) -> Question:
        """Return what they ask; times without an offset are those of a time zone. Raises CommandFailed."""
        start = SystemClock().now() if self.start is None else _instant("--from", self.start, timezone)
        return Question(
            start=start,
            end=start + DAY if self.end is None else _end(self.end, start, timezone),
            triggers=frozenset(self.triggers),
            tags=frozenset(self.tags),
            durations=dict(self._durations()),
            past=self.durations != "none",
            downtimes=tuple([_downtime(text, timezone) for text in self.down]),
            quiet_s=None if self.quiet is None else _duration("--quiet", self.quiet),
            windows=self.windows,
            first=self.examples,
        )

    def _durations(self) -> Iterator[tuple[str, float]]:
        if self.durations not in ("past", "none"):
            yield from _durations_in(Path(self.durations))
        for text in self.duration:
            job, equals, length = text.partition("=")
            if not equals:
                raise CommandFailed(f"--duration {text!r} is no job and duration, such as import=12m", USAGE)
            yield job, _duration(f"--duration {job}", length)


def foresee(session: Session, asked: Asked) -> dict[str, Any] | None:
    """Return what would happen by the configuration and what is stored; as JSON it is printed as it comes, and None
    returned.

    Raises CommandFailed, ConfigError, and TooMany beyond `MOST_INSTANTS`.
    """
    config = session.load()
    question = asked.question(config.engine.timezone)
    world, past = asyncio.run(_stored(config))
    mistakes = [detail for _, detail in question.mistakes(world, LONGEST)]
    if mistakes:
        raise CommandFailed("\n".join(mistakes), USAGE)
    forecast_of = partial(Forecast, question, world, past, most=MOST_INSTANTS)
    if session.json:
        _stream(forecast_of)
        return None
    forecast: Forecast = forecast_of()
    _go_through(forecast)
    return forecast.view()


def _go_through(forecast: Forecast) -> None:
    steps = 0
    while not forecast.go_on(STEP):
        steps += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{steps * STEP:,} instants so far …")
            sys.stderr.flush()
    if steps and sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def _stream(forecast_of: Any) -> None:
    """Print the answer as JSON, each item as it is known: however many there are, none of them is kept."""
    count = 0

    def see(item: Item) -> None:
        nonlocal count
        sys.stdout.write((",\n" if count else "\n") + json.dumps(item))
        count += 1

    sys.stdout.write('{"items": [')
    forecast: Forecast = forecast_of(see=see)
    while not forecast.go_on(STEP):
        pass
    rest = json.dumps(forecast.view(), indent=2)
    sys.stdout.write('\n], "next": null,' + rest[1:] + "\n")


async def _stored(config: Config) -> tuple[World, dict[str, Length]]:
    """Return the engine as the configuration and the store have it, and the lengths of past runs."""
    from engine.adaptive import schedules_in_force
    from engine.config import window_reader
    from engine.journal import Journal
    from engine.maintenance import Maintenance
    from engine.pauses import Pauses
    from engine.registry import Registry
    from engine.store.sqlite import SqliteStore

    if not config.store.path.exists():
        windows = list(config.maintenance.values())
        return World.of(config, triggers=config.triggers, jobs=config.jobs, pauses={}, maintenance=windows), {}
    clock = SystemClock()
    store = SqliteStore(config.store.path, clock=clock, read_only=True)
    try:
        await store.open()
    except StoreError as error:
        raise CommandFailed(f"the store can't be read: {error}") from None
    try:
        rules = {name: Rule(trigger, config.jobs[trigger.job]) for name, trigger in config.triggers.items()}
        pauses = Pauses(clock, Journal(store, clock), rules)
        await pauses.load(store)
        held = {name: pause for name in config.triggers if (pause := pauses.now(name)) is not None}
        read = window_reader(config, Registry.discover(config.engine.plugins), os.environ)
        maintenance = Maintenance(clock, Journal(store, clock), rules, config.maintenance, read)
        await maintenance.load(store)
        triggers = dict(config.triggers)
        for name, schedule in (await schedules_in_force(store, triggers)).items():
            triggers[name] = replace(triggers[name], schedule=schedule)
        world = World.of(
            config, triggers=triggers, jobs=config.jobs, pauses=held, maintenance=maintenance.foreseen()
        )  # fmt: skip
        return world, past_lengths(await store.stats(list(config.triggers)))
    finally:
        await store.close()


def foresee_remotely(session: Session, asked: Asked) -> dict[str, Any] | None:
    """Ask an engine what would happen; as JSON its answer is printed, with the first items, and None returned."""
    from engine.cli.output import say_json

    client = session.client()
    question = asked.question("UTC")
    body: dict[str, Any] = {
        "from": rfc3339(question.start), "to": rfc3339(question.end), "triggers": sorted(question.triggers),
        "tags": sorted(question.tags), "durations": {job: f"{s:f}s" for job, s in question.durations.items()},
        "past": question.past, "windows": question.windows, "examples": question.first,
        "down": [{"from": rfc3339(each.start), "to": rfc3339(each.end)} for each in question.downtimes],
    }  # fmt: skip
    if question.quiet_s is not None:
        body["quiet"] = f"{question.quiet_s:f}s"
    view: dict[str, Any] = client.post("simulate", body=body)
    if not session.json:
        return view
    say_json(view)
    return None


def plan_locally(session: Session, sent: Sequence[tuple[str, bytes]], *, days: int, count: int) -> dict[str, Any]:
    """Compare a configuration with the one that is there, as if it took its place. Raises ConfigError."""
    old = session.load()
    new = load_sent(sent, base=old.base, environment=os.environ, registry=None, readable=None)
    now = SystemClock().now()
    horizon = Horizon(start=now, end=now + timedelta(days=days), count=count)
    show = partial(shown, secrets=old.secrets | new.secrets)
    return compare(old, new, horizon, show=show, secrets_known=True)


def plan_remotely(session: Session, sent: Sequence[tuple[str, bytes]], *, days: int, count: int) -> dict[str, Any]:
    """Have an engine compare a configuration with its own."""
    if len(sent) > 1:
        raise CommandFailed("an engine takes one file: put them together", USAGE)
    text = sent[0][1].decode("utf-8", "replace")
    view: dict[str, Any] = session.client().post("plan", body={"config": text, "days": days, "count": max(count, 1)})
    return view


def _durations_in(file: Path) -> Iterator[tuple[str, float]]:
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CommandFailed(
            f"--durations: {file} can't be read: {error.strerror}; name a file, past, or none", USAGE
        ) from None
    except ValueError as error:
        raise CommandFailed(f"--durations: {file} is no TOML: {error}", USAGE) from None
    for job, text in given.items():
        yield job, _duration(f"{file}: {job}", text)


def _duration(what: str, text: Any) -> float:
    try:
        seconds = parse_duration(text)
    except (ValueError, TypeError, AttributeError):
        seconds = 0.0
    if seconds <= 0:
        raise CommandFailed(f'{what}: {text!r} is no duration such as "30s", "12m" or "1h30m"', USAGE)
    return seconds


def _instant(what: str, text: str, timezone: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(timezone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{what} {text!r} is no date or time, such as 2026-11-21, 2026-11-21T02:00 or 2026-11-21T02:00:00Z", USAGE
        ) from None


def _end(text: str, start: datetime, timezone: str) -> datetime:
    try:
        return start + timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        return _instant("--to", text, timezone)


def _downtime(text: str, timezone: str) -> Downtime:
    first, slash, last = text.partition("/")
    if not slash:
        raise CommandFailed(f"--down {text!r} is no time from and to, such as 2026-11-21T02:00/2026-11-21T04:00", USAGE)
    start = _instant("--down", first, timezone)
    return Downtime(start=start, end=_end(last, start, timezone))
