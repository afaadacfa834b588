"""The inquiry: it reads from the store what is recorded of one trigger in a time, and answers page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from anyio.to_thread import run_sync
from msgspec import Struct
from msgspec.structs import replace

from engine.clock import EPOCH, rfc3339
from engine.decide.rules import Rule
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import EngineError, InvalidRequest, PluginError
from engine.hindsight.account import TICK, Account
from engine.hindsight.lines import Line, line_of_event, line_of_missed
from engine.hindsight.periods import Noted, Period, periods_of
from engine.hindsight.traces import last_trace
from engine.runs import RunState
from engine.spans import Span, SpanKind
from engine.store.base import Store
from engine.triggers import Mode, PauseScope

MOST_SPANS = 1_000
"""So many spans of each kind are looked at; of more, the latest."""

MOST_PERIODS = 100
"""So many periods are listed with an answer; each line is told with those that concern it, whatever their number."""

SECOND = timedelta(seconds=1)
FOREVER = timedelta(days=3660)
"""What was noted before that is not looked for."""


class Subject(Struct, frozen=True, kw_only=True):
    """The trigger that is asked about.

    - `source`: the id of its source or timer; `on`: what it is on, as the chronicle notes it.
    - `schedule`: of one on a timer; `adapts`: whether its interval was another one at other times.
    - `pause_keys`: under what pauses that hold for it are noted. `zone`: that of local times.
    - `alive`: whether an engine runs now, which deals with what is due.
    """

    name: str
    job: str
    source: str
    on: str
    schedule: Schedule | None
    adapts: bool
    zone: str
    pause_keys: Sequence[str]
    alive: bool


def subject_of(rule: Rule, *, on: str, schedule: Schedule | None, zone: str, alive: bool) -> Subject:
    """Return a trigger as it is asked about.

    `schedule` is what it goes by where that is not the configured one, `zone` that of timers which name none.
    """
    trigger = rule.trigger
    schedule = schedule or schedule_of(trigger)
    tags = dict.fromkeys((*trigger.tags, *rule.job.tags))
    return Subject(
        name=trigger.name, job=rule.job.name, source=trigger.source, on=on, schedule=schedule,
        adapts=trigger.adaptive is not None and trigger.adaptive.mode is Mode.ON and schedule is not None,
        zone=(schedule.timer.timezone if schedule is not None else None) or zone,
        pause_keys=(f"{PauseScope.ENGINE}:", *(f"{PauseScope.TAG}:{tag}" for tag in tags), trigger.name), alive=alive,
    )  # fmt: skip


async def inquire(
    store: Store, subject: Subject, *, start: datetime, end: datetime, now: datetime, limit: int, cursor: str | None
) -> dict[str, Any]:
    """Return a page of what became of a trigger's due instants, or of the events that it met, from `start` to before
    `end`.

    At most `limit` records are in a page, and lines for what lies between them. Raises InvalidRequest where the cursor
    is none, StoreUnavailable, and PluginError where the timer fails.
    """
    noted = await _noted(store, subject, start, end, now)
    periods = periods_of(noted, trigger=subject.name, on=subject.on, alive=subject.alive)
    told = [period for period in periods if period.meets(start, end - TICK)]
    view = {
        "trigger": subject.name,
        "job": subject.job,
        "kind": "source" if subject.schedule is None else "timer",
        "on": subject.on,
        "from": rfc3339(start),
        "to": rfc3339(end),
        "now": rfc3339(now),
        "zone": subject.zone,
        "adapts": subject.adapts,
        "periods": [period.view() for period in told[:MOST_PERIODS]],
        "more_periods": max(len(told) - MOST_PERIODS, 0),
    }
    if subject.schedule is None:
        lines, following = await _met(store, subject, start, end, limit, cursor)
    else:
        lines, following = await _due(store, subject, periods, start, end, now, limit, cursor)
    return {**view, "items": [line.view(subject.zone) for line in lines], "next": following}


async def _noted(store: Store, subject: Subject, start: datetime, end: datetime, now: datetime) -> Noted:
    async def read(kind: SpanKind, name: str | None, low: datetime, high: datetime, limit: int) -> list[Span]:
        return await store.spans(kind, name=name, start=low, end=high, limit=limit)

    # The engines that ran in this time, the one before, and the one after: between them none did.
    before = await read(SpanKind.ENGINE, None, start - FOREVER, start + TICK, 1)
    since = await read(SpanKind.ENGINE, None, start, max(end, now) + TICK, MOST_SPANS)
    lives = {(span.name, span.began_at): span for span in (*before, *since)}
    last = max(lives.values(), key=lambda span: span.began_at, default=None)
    if last is not None and not subject.alive and last.detail.get("end") == "running":
        trace_at = await last_trace(store)
        seen_at = max(last.ended_at or last.began_at, trace_at or last.began_at)
        lives[last.name, last.began_at] = replace(last, ended_at=seen_at)
    pauses = [span for key in subject.pause_keys for span in await read(SpanKind.PAUSE, key, start, end, MOST_SPANS)]
    return Noted(
        lives=sorted(lives.values(), key=lambda span: span.began_at),
        standstills=await read(SpanKind.STANDSTILL, None, start, end, MOST_SPANS),
        trigger=await _own_spans(store, subject, start, end),
        first=await store.first_span(SpanKind.TRIGGER, subject.name),
        pauses=pauses,
        troubles=await read(SpanKind.SOURCE, subject.source, start, end, MOST_SPANS),
        purged_before=(await store.purged()).before,
    )


async def _own_spans(store: Store, subject: Subject, start: datetime, end: datetime) -> list[Span]:
    """Return the spans of the trigger in this time, and the last one before: what lies between is known then."""
    found = await store.spans(SpanKind.TRIGGER, name=subject.name, start=start, end=end, limit=MOST_SPANS)
    before = await store.spans(SpanKind.TRIGGER, name=subject.name, start=EPOCH, end=start, limit=1)
    return [*(span for span in before if span not in found), *found]


async def _due(
    store: Store, subject: Subject, periods: Sequence[Period], start: datetime, end: datetime, now: datetime,
    limit: int, cursor: str | None,
) -> tuple[list[Line], str | None]:  # fmt: skip
    """Return a page of the due instants of a timer."""
    position = start if cursor is None else _place(cursor)[0]
    dealt = await store.cursor(subject.source)
    fired = await store.fired(subject.name, subject.source, start=position, end=end, limit=limit + 1)
    missed = await store.missed(subject.name, start=position, end=end, limit=limit + 1)
    # A page ends before the first record that is not in it, at a whole second: within one, records are not in order.
    horizon = end
    later = [one for one in missed if one.first >= position]
    cut = [one.event.time for one in fired[limit:] if one.event.time is not None] + [one.first for one in later[limit:]]
    if cut:
        horizon = min(end, max(min(cut).replace(microsecond=0), position + SECOND))
    account = Account(
        schedule=None if subject.adapts else subject.schedule, periods=periods, now=now,
        dealt=datetime.fromisoformat(dealt) if isinstance(dealt, str) else None,
    )  # fmt: skip
    told = [one for one in missed if one.first < horizon and (cursor is None or one.first >= position)]
    # What was missed together with others, and begins before this page, is in the page before.
    past = max([position - TICK, *(one.last for one in missed if cursor is not None and one.first < position)])

    def tell() -> list[Line]:
        try:
            recorded = [account.fired(one, at) for one in fired if (at := one.event.time) is not None and at < horizon]
            recorded += [line_of_missed(one, account.because(one.first, one.last)) for one in told]
            recorded.sort(key=lambda line: (line.at, line.last))
            return list(account.lines(past + TICK, horizon, recorded))
        except EngineError:
            raise
        except Exception as error:  # plugin code
            raise PluginError(f"the timer of trigger {subject.name} raised {type(error).__name__}: {error}") from error

    lines = await run_sync(tell, abandon_on_cancel=True)
    made_up = await store.succeeded_instants(subject.name, start=position, end=horizon)
    lines = [_made_up(line, made_up) for line in lines]
    return lines, rfc3339(horizon) if horizon < end else None


def _made_up(line: Line, made_up: dict[datetime, str]) -> Line:
    """Name the run with success that made up for an instant which has none of its own."""
    run = made_up.get(line.at)
    if run is None or run == line.run or line.verdict == RunState.SUCCEEDED.value or line.count > 1:
        return line
    return replace(line, made_up=run)


async def _met(
    store: Store, subject: Subject, start: datetime, end: datetime, limit: int, cursor: str | None
) -> tuple[list[Line], str | None]:
    """Return a page of the events that a trigger met."""
    after = None if cursor is None else _place(cursor)
    found = await store.met(subject.name, start=start, end=end, after=after, limit=limit + 1)
    page = found[:limit]
    lines = [line_of_event(one, one.event.received_at) for one in page]
    following = None
    if len(found) > limit:
        following = f"{rfc3339(page[-1].event.received_at)}~{page[-1].place}"
    return lines, following


def _place(cursor: str) -> tuple[datetime, int]:
    """Read where a page begins; raise InvalidRequest."""
    at, _, place = cursor.partition("~")
    try:
        found = datetime.fromisoformat(at), int(place or "0")
    except ValueError:
        found = None
    if found is None or found[0].tzinfo is None or not -1 < found[1] < 2**63:
        raise InvalidRequest("cursor must be the `next` of the page before")
    return found
