"""`why TRIGGER`: what should have run in a time, what did, and why the rest did not; told in short sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine.cli.failures import USAGE, CommandFailed, EngineSilent, NoEngine
from engine.cli.upcoming import local_text
from engine.cli.why import gates_seen
from engine.clock import SystemClock, rfc3339
from engine.config.scalars import near
from engine.errors import ConfigError, EngineError, StoreError
from engine.units import format_span, parse_duration

if TYPE_CHECKING:
    from engine.cli.session import Session
    from engine.config import Config
    from engine.hindsight import Subject

DAY = timedelta(days=1)
PAGE = 1_000
MOST_PAGES = 100
"""So many pages are asked for; what is left is named."""

FOLDED_FROM = 3
"""So many lines in a row that say the same are told in one, where not `--all` are asked for."""

_GOOD = frozenset({"succeeded", "joined", "excluded", "to_come", "unknown"})


def look_back(session: Session, name: str, *, start: str | None, end: str | None) -> dict[str, Any]:
    """Return what became of a trigger's instants or events: by the engine where one answers, else from its store.

    Raises CommandFailed where the trigger is unknown, a time can't be read, or nothing is stored.
    """
    said = "No engine answers"
    try:
        client = session.client()
        zone = client.get("status").get("timezone") or "UTC"
        since, until = _times(start, end, zone)

        def ask(cursor: str | None) -> dict[str, Any]:
            found: dict[str, Any] = client.get(
                "triggers", name, "why", **{"from": rfc3339(since)}, to=rfc3339(until), limit=PAGE, cursor=cursor
            )
            return found

        return _all_pages(ask)
    except ConfigError:
        raise
    except NoEngine as error:
        if session.named:
            raise
        said = str(error) if isinstance(error, EngineSilent) else said
    except (CommandFailed, EngineError):
        # Without a token no engine can be asked; where it never started there is none yet.
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
    return asyncio.run(_read(session.load(), name, start, end, said))


def _all_pages(ask: Any) -> dict[str, Any]:
    found = ask(None)
    for _ in range(MOST_PAGES - 1):
        if found["next"] is None:
            break
        page = ask(found["next"])
        found = {**found, "items": [*found["items"], *page["items"]], "next": page["next"]}
    return {**found, "remark": None}


async def _read(config: Config, name: str, start: str | None, end: str | None, said: str) -> dict[str, Any]:
    """Answer from the store's file, which is only read; `said` is why no engine does."""
    from engine.hindsight import inquire
    from engine.store.sqlite import SqliteStore

    if name not in config.triggers:
        hint = near(name, config.triggers)
        raise CommandFailed(f"there is no trigger {name}" + (f"; {hint}" if hint else ""))
    if not config.store.path.exists():
        raise CommandFailed(f"no engine answers, and there is no store yet in {config.store.path}")
    clock = SystemClock()
    since, until = _times(start, end, config.engine.timezone)
    subject = subject_in(config, name)
    store = SqliteStore(config.store.path, clock=clock, read_only=True)
    try:
        await store.open()
    except StoreError as error:
        raise CommandFailed(f"the store can't be read: {error}") from None
    try:
        found: dict[str, Any] = {"next": None}
        for number in range(MOST_PAGES):
            page = await inquire(
                store, subject, start=since, end=until, now=clock.now(), limit=PAGE, cursor=found["next"]
            )
            found = page if not number else {**found, "items": [*found["items"], *page["items"]], "next": page["next"]}
            if found["next"] is None:
                break
        return {**found, "remark": f"{said}; this is what its store, {config.store.path}, tells."}
    finally:
        await store.close()


def subject_in(config: Config, name: str) -> Subject:
    """Return a trigger as hindsight asks about it where no engine runs."""
    from engine.decide.rules import Rule
    from engine.hindsight import subject_of
    from engine.operations import on_text

    trigger = config.triggers[name]
    return subject_of(
        Rule(trigger, config.jobs[trigger.job]), on=on_text(trigger, config.secrets), schedule=None,
        zone=config.engine.timezone, alive=False,
    )  # fmt: skip


def _times(start: str | None, end: str | None, zone: str) -> tuple[datetime, datetime]:
    """Read the two times: by default the last day, up to now."""
    now = SystemClock().now()
    until = now if end is None else _instant("--to", end, zone, now)
    since = until - DAY if start is None else _instant("--from", start, zone, now)
    if until <= since:
        raise CommandFailed(f"--to {rfc3339(until)} is not later than --from {rfc3339(since)}", USAGE)
    return since, until


def _instant(option: str, text: str, zone: str, now: datetime) -> datetime:
    """Read a time, a date, or how long ago it was, such as 2h."""
    try:
        return now - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{option} {text!r} is no time, such as 2026-11-21, 2026-11-21T02:00, 2026-11-21T02:00:00Z, or 2h for "
            "two hours ago", USAGE,
        ) from None  # fmt: skip


def sentences(found: dict[str, Any], *, whole: bool = False) -> Iterator[str]:
    """Tell what was found; with `whole` each line for itself."""
    if found["remark"] is not None:
        yield found["remark"]
    zone, items = found["zone"], found["items"]
    nothing = "Nothing of it was due." if found["kind"] == "timer" else "It met no event."
    first, last = (_both(found[side], zone) for side in ("from", "to"))
    yield f"Trigger {found['trigger']} (job {found['job']}), from {first} to {last}:"
    yield f"  {_summary(items) if items else nothing}"
    if found["adapts"]:
        yield "  Its interval adapts, so what should have run is told by what is recorded alone."
    for period in found["periods"]:
        yield f"  {_capital(period['reason'])}."
    if found["more_periods"]:
        yield f"  And {found['more_periods']:,} more such times: ask for a shorter one."
    for group in [[one] for one in items] if whole else _folded(items):
        yield from _told(group, zone)
    if found["next"] is not None:
        yield f"There is more, from {found['next']} on: ask with a later --from."
    yield from _ways_out(found)


def _summary(items: Sequence[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    more: set[str] = set()
    for one in items:
        counts[one["verdict"]] = counts.get(one["verdict"], 0) + one["count"]
        if one["more"]:
            more.add(one["verdict"])
    told = [
        f"{'more than ' if verdict in more else ''}{count:,} {verdict.replace('_', ' ')}"
        for verdict, count in sorted(counts.items(), key=lambda pair: (pair[0] not in _GOOD, pair[0]))
    ]
    return f"{', '.join(told)}."


def _folded(items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Put lines together that follow each other and say that the same went well, or was left out for one reason."""
    group: list[dict[str, Any]] = []
    for one in items:
        if group and _sort(group[-1]) != _sort(one):
            yield from _split(group)
            group = []
        group.append(one)
    if group:
        yield from _split(group)


def _sort(one: dict[str, Any]) -> tuple[Any, ...]:
    if one["verdict"] == "succeeded" and one["late_s"] is None:
        return ("succeeded",)
    if one["verdict"] in ("filtered", "joined", "unmatched", "rate_limited", "paused", "quarantined", "rejected"):
        return (one["verdict"], one["code"], one["reason"] if one["verdict"] != "joined" else "")
    return (one["at"],)


def _split(group: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    if len(group) < FOLDED_FROM:
        yield from ([one] for one in group)
    else:
        yield group


def _told(group: Sequence[dict[str, Any]], zone: str) -> Iterator[str]:
    first, last = group[0], group[-1]
    if len(group) > 1:
        yield (
            f"  {_when(first)} to {_when(last)}: {len(group):,} times {first['verdict'].replace('_', ' ')}"
            + ("" if first["verdict"] == "succeeded" else f": {_reason(first)} [{first['code']}]")
        )  # fmt: skip
        return
    span = ""
    if first["until"] is not None:
        until = datetime.fromisoformat(first["until"]).astimezone(ZoneInfo(zone))
        span = f" to {_in_both(until.isoformat(), first['until'])}"
        span += f", {'more than ' if first['more'] else ''}{first['count']:,} instants"
    event = ""
    if first["event"] and first["type"] != "engine.timer":
        event = f"event {first['event']} of type {first['type']}: "
    run = f", run {first['run']}" if first["run"] else ""
    verdict = first["verdict"].replace("_", " ")
    yield f"  {_when(first)}{span}: {event}{verdict}{run}: {_reason(first)} [{first['code']}]"
    if first["late_s"] is not None:
        yield f"      It fired {format_span(first['late_s'])} late."
    yield from gates_seen(gate for gate in first["gates"] if gate["verdict"] != "pass")
    for because in first["because"]:
        yield f"      {_capital(because)}."
    if first["made_up"]:
        yield f"      It was made up for by run {first['made_up']}."
    elif first["way_out"] and first["verdict"] not in _GOOD:
        yield f"      Way out: {first['way_out']}."


def _reason(one: dict[str, Any]) -> str:
    return str(one["reason"]).removeprefix(f"{one['verdict']}: ")


def _when(one: dict[str, Any]) -> str:
    return _in_both(one["local"], one["at"])


def _in_both(local: str, at: str) -> str:
    """Write a time in its zone and in UTC, or once where that is the same."""
    text = local_text(local)
    return text.replace("+00:00", " UTC") if text.endswith("+00:00") else f"{text} ({at})"


def _both(at: str, zone: str) -> str:
    local = datetime.fromisoformat(at).astimezone(ZoneInfo(zone))
    return _in_both(local.isoformat(), at)


def _ways_out(found: dict[str, Any]) -> Iterator[str]:
    """Say how what did not run can be run now."""
    missing = [
        one
        for one in found["items"]
        if not one["made_up"]
        and (one["verdict"] in ("missed", "skipped") or one["code"] in ("disabled", "job_disabled"))
    ]
    if found["kind"] == "timer" and missing:
        last = datetime.fromisoformat(missing[-1]["until"] or missing[-1]["at"]) + timedelta(seconds=1)
        yield (
            f"To run now what did not: python -m engine backfill {found['trigger']} --from {missing[0]['at']} "
            f"--to {rfc3339(last)} --only-missing"
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
