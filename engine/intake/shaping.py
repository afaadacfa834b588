"""The gates that shape what events become: dedupe, rate limit, debounce or batch, throttle. See docs/shaping.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Protocol

from engine.backlog import Backlog
from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.decide import gcra
from engine.decide.marks import Claim, Mark, Marks
from engine.decide.rules import Rule
from engine.decide.shaping import Gathering, Window, Windows, first_due, next_due
from engine.events import Event, EventOutcome, Outcome
from engine.intake.draft import Draft
from engine.runs import Origin, Run, RunState, Step
from engine.store.changes import Join
from engine.triggers import Edge, Rate
from engine.units import format_duration

_LONGEST_SHOWN = 80
_MADE = frozenset({EventOutcome.RUN, EventOutcome.JOINED})


class MakeRun(Protocol):
    """Makes a new run for an event."""

    def __call__(
        self, event: Event, rule: Rule, origin: Origin, priority: int, steps: tuple[Step, ...], *,
        due_at: datetime | None = None, closes_at: datetime | None = None, window: str | None = None,
        event_bytes: int = 0, throttled: str | None = None, limit_key: str | None = None,
    ) -> Run:  # fmt: skip
        ...


class Shaping:
    """Decides, gate by gate, at the state that the windows and the marks have; what it changes of them is in the draft.

    `keys` are those of the event at the gates that have one; a gate in `bypass` is left out. `full` tells whether one
    more run of a trigger may wait.
    """

    def __init__(
        self, windows: Windows, marks: Marks, backlog: Backlog, make_run: MakeRun,
        full: Callable[[Rule, Origin], Outcome | None],
    ) -> None:  # fmt: skip
        self._windows = windows
        self._backlog = backlog
        self._full = full
        self._marks = marks
        self._make_run = make_run

    # What drops an event

    def drop(
        self, draft: Draft, event: Event, rule: Rule, keys: Mapping[str, str], bypass: Collection[str]
    ) -> Outcome | None:  # fmt: skip
        """Return why an event is not run, as one of its key was, or too many came; None where it goes on."""
        trigger = rule.trigger
        if trigger.dedupe is not None and "dedupe" not in bypass:
            mark, key = self._find(draft, event, rule, "dedupe", keys), keys["dedupe"]
            if mark is None:
                draft.saw("dedupe", "pass", key=key)
            else:
                draft.saw("dedupe", "drop", key=key, run=mark.run, until=rfc3339(mark.until))
                span = format_duration(trigger.dedupe.window_s)
                why = f"run {mark.run} has the same key {_shown(key)} within {span}"
                return self._repeated(draft, event, rule, "dedupe", keys, mark, code="dedupe", why=why)
        if trigger.rate_limit is not None and "rate_limit" not in bypass:
            free_us, now_us = self._free_us(event, rule, "rate_limit", trigger.rate_limit, keys)
            draft.saw(
                "rate_limit", "drop" if free_us > now_us else "pass", key=keys.get("rate_limit", ""),
                next=rfc3339(from_microseconds(free_us)),
            )  # fmt: skip
            if free_us > now_us:
                rate = gcra.said_of_rate(trigger.rate_limit)
                why = f"{rate}{_of(keys, 'rate_limit')}; the next passes from {_time(free_us)}"
                return Outcome(
                    trigger=trigger.name, outcome=EventOutcome.RATE_LIMITED, code="rate_limited",
                    reason=f"{EventOutcome.RATE_LIMITED}: {why}",
                )  # fmt: skip
            self._count(draft, event, rule, "rate_limit", trigger.rate_limit, keys)
        return None

    def remember(
        self, draft: Draft, event: Event, rule: Rule, keys: Mapping[str, str], bypass: Collection[str],
        outcome: Outcome, leads: Gathering | None,
    ) -> None:  # fmt: skip
        """Have the gates remember the run that an event came to; `leads`: it is the first of what that gathers."""
        now = event.received_at
        if outcome.outcome not in _MADE or outcome.run is None:
            return
        dedupe = rule.trigger.dedupe
        if dedupe is not None and "dedupe" not in bypass:
            until = from_microseconds(to_microseconds(now) + round(dedupe.window_s * 1e6))
            self._claim(draft, event, rule, "dedupe", keys, Mark(until, outcome.run))
        if leads is not None:
            until, closes_at = first_due(leads, now)
            self._claim(draft, event, rule, "debounce", keys, Mark(until, outcome.run, closes_at))

    # What gathers events

    def gather(
        self, draft: Draft, event: Event, rule: Rule, gathering: Gathering, origin: Origin, priority: int,
        keys: Mapping[str, str],
    ) -> Outcome | None:  # fmt: skip
        """Let an event join the open window of its key, or open one with a pending run; None where it runs at once."""
        key, now = keys.get(gathering.gate, ""), event.received_at
        window = self._windows.find(rule.trigger.name, key)
        if window is not None and gathering.is_full(window.count, window.size_bytes):
            # It was full when the engine stopped.
            self._windows.seal(window)
        elif window is not None and (draft.apart is None or window.run not in draft.apart):
            return self._join(draft, event, rule, gathering, priority, window)
        due_at, closes_at = first_due(gathering, now)
        if gathering.edge is not Edge.TRAILING:
            mark = self._find(draft, event, rule, "debounce", keys)
            if mark is None:
                return None
            due_at, closes_at = next_due(gathering, now, mark.closes_at), mark.closes_at
            if gathering.edge is Edge.LEADING:
                return self._follow(draft, event, rule, keys, mark, due_at)
        if gathering.is_full(1, len(draft.data)):
            return None
        return self._open(draft, event, rule, gathering, origin, priority, key, due_at, closes_at)

    def _join(
        self, draft: Draft, event: Event, rule: Rule, gathering: Gathering, priority: int, window: Window
    ) -> Outcome:  # fmt: skip
        now, before, size_bytes = event.received_at, window.due_at, len(draft.data)
        window.count += 1
        window.size_bytes += size_bytes
        draft.raised += ((window, window.priority),)
        window.priority = max(window.priority, priority)
        cause = draft.deepened(window, event)
        window.due_at = next_due(gathering, now, window.closes_at)
        text = f"joined: run {window.run} gathers events until {window.due_at:%H:%M:%S} UTC"
        if gathering.is_full(window.count, window.size_bytes):
            window.due_at = min(now, window.due_at)  # its time may have been over already
            self._windows.seal(window)
            draft.filled += ((window.run, now),)
            text = f"joined: run {window.run} has gathered enough with it, {window.count} events"
        elif window.due_at < before:
            # The wall clock was set back: it is due earlier than whoever waits for it knows.
            draft.filled += ((window.run, window.due_at),)
        text = draft.told(text)
        draft.joined += ((window, before, window.due_at, size_bytes),)
        draft.saw(gathering.gate, "join", key=window.key, until=rfc3339(window.due_at), events=window.count)
        draft.joins += (
            Join(
                run=window.run, event=event.id, due_at=window.due_at, priority=window.priority, reason=text,
                size_bytes=size_bytes, cause=cause,
            ),
        )  # fmt: skip
        return Outcome(
            trigger=rule.trigger.name, outcome=EventOutcome.JOINED, run=window.run, code="joined", reason=text
        )  # fmt: skip

    def _open(
        self, draft: Draft, event: Event, rule: Rule, gathering: Gathering, origin: Origin, priority: int, key: str,
        due_at: datetime, closes_at: datetime | None,
    ) -> Outcome:  # fmt: skip
        size_bytes = len(draft.data)
        if (full := self._full(rule, origin)) is not None:
            return full
        draft.saw(gathering.gate, "open", key=key, until=rfc3339(due_at))
        code = "batch" if gathering.gate == "batch" else "debounce"
        text = draft.told(f"pending: {gathering.said}")
        step = Step(at=event.received_at, state=RunState.PENDING, code=code, reason=text, bypass=draft.bypass)
        run = self._make_run(
            event, rule, origin, priority, (step,), due_at=due_at, closes_at=closes_at, window=key,
            event_bytes=size_bytes, limit_key=draft.limit_key,
        )  # fmt: skip
        opened = Window(
            run=run.id, trigger=run.trigger, key=key, due_at=due_at, closes_at=closes_at, priority=priority,
            size_bytes=size_bytes, cause=event.cause,
        )  # fmt: skip
        self._windows.open(opened)
        draft.opened += (opened,)
        self._backlog.add(run.trigger)
        draft.add(run, event)
        return Outcome(trigger=run.trigger, outcome=EventOutcome.RUN, run=run.id, code=code, reason=text)

    def _follow(
        self, draft: Draft, event: Event, rule: Rule, keys: Mapping[str, str], mark: Mark, until: datetime
    ) -> Outcome:  # fmt: skip
        """Drop an event whose first one has run, and put off the end of what is one with it."""
        later = Mark(max(until, mark.until), mark.run, mark.closes_at)
        draft.saw("debounce", "drop", key=keys.get("debounce", ""), run=mark.run, until=rfc3339(later.until))
        which = f"the first of these events{_of(keys, 'debounce')}"
        why = f"run {mark.run} was for {which}; no other until {later.until:%H:%M:%S} UTC"
        return self._repeated(draft, event, rule, "debounce", keys, later, seen=mark, code="debounce_leading", why=why)

    # What lets runs wait

    def throttle(
        self, draft: Draft, event: Event, rule: Rule, origin: Origin, priority: int, keys: Mapping[str, str]
    ) -> Outcome | None:
        """Let a new run wait until its trigger's rate allows it; None where that is now."""
        rate = rule.trigger.throttle
        if rate is None:
            return None
        if (full := self._full(rule, origin)) is not None:
            return full
        free_us, now_us = self._free_us(event, rule, "throttle", rate, keys)
        draft.saw(
            "throttle", "wait" if free_us > now_us else "pass", key=keys.get("throttle", ""),
            until=rfc3339(from_microseconds(free_us)),
        )  # fmt: skip
        self._count(draft, event, rule, "throttle", rate, keys)
        if free_us <= now_us:
            return None
        due_at = from_microseconds(free_us)
        code, text = "throttle", draft.told(f"pending: {gcra.said_of_throttle(rate, due_at)}")
        step = Step(at=event.received_at, state=RunState.PENDING, code=code, reason=text, bypass=draft.bypass)
        self._backlog.add(rule.trigger.name)
        run = self._make_run(
            event, rule, origin, priority, (step,), due_at=due_at, throttled=keys.get("throttle", ""),
            limit_key=draft.limit_key,
        )  # fmt: skip
        draft.add(run, event)
        return Outcome(trigger=run.trigger, outcome=EventOutcome.RUN, run=run.id, code=code, reason=text)

    # Marks

    def _find(self, draft: Draft, event: Event, rule: Rule, gate: str, keys: Mapping[str, str]) -> Mark | None:
        mark = self._marks.find((rule.trigger.name, gate, keys.get(gate, "")), event.received_at)
        # On the last try nothing is built upon what this very change makes.
        return None if mark is None or (draft.apart is not None and mark.run in draft.apart) else mark

    def _repeated(
        self, draft: Draft, event: Event, rule: Rule, gate: str, keys: Mapping[str, str], mark: Mark, *, code: str,
        why: str, seen: Mark | None = None,
    ) -> Outcome:  # fmt: skip
        """Drop an event for the run of an earlier one, whose mark must be durable by then; it may move with it."""
        place, seen = (rule.trigger.name, gate, keys.get(gate, "")), seen or mark
        if mark is not seen or not self._marks.is_durable(place):
            draft.claims += (
                Claim(place=place, mark=mark, now=event.received_at, seen=seen.until, extends=True),
            )  # fmt: skip
            draft.marked += ((place, self._marks.set(place, mark)),)
        return Outcome(
            trigger=rule.trigger.name, outcome=EventOutcome.DEDUPLICATED, run=mark.run, code=code,
            reason=f"{EventOutcome.DEDUPLICATED}: {why}",
        )  # fmt: skip

    def _free_us(
        self, event: Event, rule: Rule, gate: str, rate: Rate, keys: Mapping[str, str]
    ) -> tuple[int, int]:  # fmt: skip
        """Return from when on one more may pass, and now."""
        now = event.received_at
        mark = self._marks.find((rule.trigger.name, gate, keys.get(gate, "")), now)
        now_us = to_microseconds(now)
        return gcra.free_at(rate, 0 if mark is None else to_microseconds(mark.until), now_us), now_us

    def _count(self, draft: Draft, event: Event, rule: Rule, gate: str, rate: Rate, keys: Mapping[str, str]) -> None:
        mark = self._marks.find((rule.trigger.name, gate, keys.get(gate, "")), event.received_at)
        tat_us = 0 if mark is None else to_microseconds(mark.until)
        until = from_microseconds(gcra.moved(rate, tat_us, to_microseconds(event.received_at)))
        self._claim(draft, event, rule, gate, keys, Mark(until))

    def _claim(
        self, draft: Draft, event: Event, rule: Rule, gate: str, keys: Mapping[str, str], mark: Mark
    ) -> None:  # fmt: skip
        place, now = (rule.trigger.name, gate, keys.get(gate, "")), event.received_at
        known = self._marks.find(place, now)
        forced = known is not None and draft.apart is not None and known.run in draft.apart
        draft.claims += (
            Claim(place=place, mark=mark, now=now, seen=None if known is None else known.until, forced=forced),
        )
        draft.marked += ((place, self._marks.set(place, mark)),)


def _of(keys: Mapping[str, str], gate: str) -> str:
    return f" of key {_shown(keys[gate])}" if gate in keys else ""


def _shown(key: str) -> str:
    cut = key if len(key) <= _LONGEST_SHOWN else key[:_LONGEST_SHOWN] + "…"
    return f'"{cut}"'


def _time(at_us: int) -> str:
    return f"{from_microseconds(at_us):%H:%M:%S} UTC"
