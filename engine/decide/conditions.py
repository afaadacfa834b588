"""Conditions: what several checks say together, and what becomes of a run that is asked about.

A condition is a check, or puts others together: `all` of them pass, `any` of them does, one does `not`. One that is
disabled is left out, as if nobody had named it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import rfc3339
from engine.decide.gates import LATER, PASS, Hold, Pass, Skip, Verdict, held_since
from engine.plugin.conditions import Answer, Condition
from engine.runs import Run, RunState
from engine.units import format_span

CODE = "condition"
"""The code with which conditions hold and skip runs."""

TIMED_OUT = "condition_timeout"

CONDITIONS = "conditions"
"""How a fire names them in what it bypasses."""


class OnError(StrEnum):
    """What a check that can't answer means: `closed`, runs wait; `open`, they pass."""

    CLOSED = "closed"
    OPEN = "open"


class Joins(StrEnum):
    """How a condition puts others together."""

    ALL = "all"
    ANY = "any"
    NOT = "not"


class Named(Struct, frozen=True, kw_only=True):
    """A condition as it is configured: a `check`, or one that joins others, by `joins` and their names in `of`.

    - `every_s`: how long an answer is used; `timeout_s`: how long a check may take.
    - `shadow`: it lets everything pass, and only says what it would have done.
    """

    name: str
    check: Condition | None = None
    joins: Joins | None = None
    of: tuple[str, ...] = ()
    every_s: float = 30.0
    timeout_s: float = 10.0
    on_error: OnError = OnError.CLOSED
    shadow: bool = False
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""


class Reading(Struct, frozen=True, kw_only=True):
    """What is known of a condition: its answer, why, the value it saw, and when.

    - `failed`: the check could not answer, and `answer` is what `on_error` makes of that.
    - `tries`: so many checks in a row have not let pass; `next_s`: in so many seconds it is looked at again.
    """

    answer: Answer
    reason: str
    value: Any = None
    until: datetime | None = None
    at: datetime
    failed: bool = False
    tries: int = 0
    next_s: float | None = None

    @property
    def passes(self) -> bool:
        return self.answer is Answer.PASS

    def said(self) -> str:
        """Say why, with how often it was tried, and when it is again."""
        details = [f"{self.tries} {'try' if self.tries == 1 else 'tries'}"] if self.tries else []
        if self.until is not None:
            details.append(f"until {rfc3339(self.until)}")
        elif self.next_s is not None:
            details.append(f"next in {format_span(self.next_s)}")
        return self.reason + (f" ({', '.join(details)})" if details else "")


Known = Callable[[str], Reading | None]
"""Returns what is known of a condition that is a check; None where nothing (any more) is."""


def look(name: str, conditions: Mapping[str, Named], known: Known, now: datetime) -> Reading | None:
    """Return what a condition says, also one that joins others; None while that is not known.

    All that has to be known is asked for, so that it is found out at once.
    """
    one = conditions[name]
    if not one.enabled:
        return Reading(answer=Answer.PASS, reason="disabled", at=now)
    if one.joins is None:
        return known(name)
    members = [member for member in one.of if conditions[member].enabled]
    found = [(member, _counted(conditions[member], look(member, conditions, known, now))) for member in members]
    if not found:
        return Reading(answer=Answer.PASS, reason="all that it names is disabled", at=now)
    if one.joins is Joins.NOT:
        return _inverted(*found[0])
    return _joined(one.joins, found)


def _counted(one: Named, reading: Reading | None) -> Reading | None:
    """Return what a condition says to those that name it: one in shadow mode lets pass."""
    if reading is None or not one.shadow or reading.passes:
        return reading
    return replace(reading, answer=Answer.PASS, until=None, tries=0, next_s=None)


def _inverted(name: str, reading: Reading | None) -> Reading | None:
    if reading is None or reading.failed:
        return reading if reading is None else replace(reading, reason=f"{name}: {reading.reason}")
    answer = Answer.HOLD if reading.passes else Answer.PASS
    return replace(reading, answer=answer, reason=f"{name}: {reading.reason}", until=None)


def _joined(joins: Joins, found: Sequence[tuple[str, Reading | None]]) -> Reading | None:
    known = [(name, reading) for name, reading in found if reading is not None]
    passing = [pair for pair in known if pair[1].passes]
    others = [pair for pair in known if not pair[1].passes]
    if joins is Joins.ANY and passing:
        return _of(passing[:1], Answer.PASS)
    skips = [pair for pair in others if pair[1].answer is Answer.SKIP]
    if joins is Joins.ALL and skips:
        return _of(skips[:1], Answer.SKIP)
    if joins is Joins.ALL and others:
        return _of(others, Answer.HOLD)
    if len(known) < len(found):
        return None
    if joins is Joins.ALL:
        return _of(passing, Answer.PASS)
    return _of(others, Answer.SKIP if len(skips) == len(others) else Answer.HOLD)


def _of(pairs: Sequence[tuple[str, Reading]], answer: Answer) -> Reading:
    readings = [reading for _, reading in pairs]
    untils = [reading.until for reading in readings if reading.until is not None]
    waits = [reading.next_s for reading in readings if reading.next_s is not None]
    return Reading(
        answer=answer, reason="; ".join(f"{name}: {reading.reason}" for name, reading in pairs),
        value={name: reading.value for name, reading in pairs}, until=min(untils, default=None),
        at=min(reading.at for reading in readings), failed=any(reading.failed for reading in readings),
        tries=max(reading.tries for reading in readings), next_s=min(waits, default=None),
    )  # fmt: skip


def judge(run: Run, found: Sequence[tuple[Named, Reading | None]], *, hold_s: float | None, now: datetime) -> Verdict:
    """Decide what becomes of a run of whose trigger these are the conditions, with what is known of each.

    `hold_s` is how long its trigger lets it wait; None: it is skipped. The first condition that skips decides, else
    the first that holds, else what is not known yet. Where all pass, or would but for their shadow mode, each tells
    what it saw.
    """
    held: tuple[Named, Reading] | None = None
    unknown = False
    seen: list[str] = []
    for one, reading in found:
        if reading is None:
            unknown = True
        elif reading.passes:
            if one.enabled:
                seen.append(f"condition {one.name}: {reading.reason}")
        elif one.shadow:
            would = "skip" if reading.answer is Answer.SKIP or hold_s is None else "hold"
            seen.append(f"condition {one.name} (shadow) would {would} it: {reading.reason}")
        elif reading.answer is Answer.SKIP:
            return Skip(code=CODE, reason=f"skipped: condition {one.name}: {reading.reason}")
        elif held is None:
            held = (one, reading)
    if held is not None:
        return _not_now(run, *held, hold_s=hold_s, now=now)
    if unknown:
        return LATER
    return Pass(seen="; ".join(seen)) if seen else PASS


def _not_now(run: Run, one: Named, reading: Reading, *, hold_s: float | None, now: datetime) -> Hold | Skip:
    if hold_s is None:
        return Skip(code=CODE, reason=f"skipped: condition {one.name}: {reading.reason}")
    until = (held_since(run, CODE) or now) + timedelta(seconds=hold_s)
    if until <= now:
        reason = f"expired: waited {format_span(hold_s)} for condition {one.name}: {reading.reason}"
        return Skip(code=TIMED_OUT, reason=reason, state=RunState.EXPIRED)
    return Hold(code=CODE, reason=f"held: condition {one.name}: {reading.said()}", until=until)


def checks_of(name: str, conditions: Mapping[str, Named]) -> set[str]:
    """Return the checks that a condition comes down to, by name: itself, or those that it joins."""
    one = conditions[name]
    if one.joins is None:
        return {name}
    return {check for member in one.of for check in checks_of(member, conditions)}


def circle_through(name: str, names: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return the way on which a condition comes to name itself; None where it does not. `names`: who names whom."""
    seen: set[str] = set()

    def follow(one: str, trail: list[str]) -> list[str] | None:
        for member in names.get(one, ()):
            if member == name:
                return [*trail, name]
            if member not in seen:
                seen.add(member)
                if (found := follow(member, [*trail, member])) is not None:
                    return found
        return None

    return follow(name, [name])
