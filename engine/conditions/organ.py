"""The organ of conditions: it answers the gate from what it knows, and finds out what it does not.

A check is made when somebody wants to know: a run that is about to start, or held runs that wait for another answer.
Where nobody does, nothing is checked. An answer is used for `every`; all that ask meanwhile share it. What overrides
the configuration, and the latest changes of each answer, are remembered by the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.clock import LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.conditions.checks import Checks, NoAnswer
from engine.conditions.kept import MOST_CHANGES, Change, Override
from engine.decide.conditions import CONDITIONS, Named, OnError, Reading, checks_of, judge, look
from engine.decide.gates import Pass, Verdict, bypassed
from engine.decide.rules import Rule
from engine.errors import StoreUnavailable
from engine.journal import Journal
from engine.plugin.conditions import Answer
from engine.plugin.conditions import Verdict as Found
from engine.runs import Run
from engine.store.base import Store
from engine.store.changes import Accept, Memory

log = logging.getLogger("engine.conditions")

CONDITIONS_SOURCE = "engine:conditions"
"""Under this id the store remembers, by name, what overrides a condition, and after a colon its latest changes."""

PAGE = 1_000
RETRY_S = 5.0

SHORTEST_S = 0.1
"""Nothing is checked again sooner, whoever asks."""


class _State:
    """One check: what is known of it, and until when that may be used (monotonic)."""

    __slots__ = ("changes", "doubted", "fresh_until_s", "override", "owed", "reading", "tries")

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.fresh_until_s = 0.0
        self.tries = 0
        self.owed = False
        """Whether somebody was told that it is being found out."""
        self.doubted = False
        """Whether what a check finds that is on its way may be over already."""
        self.override: Override | None = None
        self.changes: tuple[Change, ...] = ()


class _LettingPass(Struct, frozen=True):
    """That runs of a trigger may pass, until an instant of the monotonic clock."""

    rule: Rule
    verdict: Pass
    until_s: float


class Conditions:
    """All conditions: a gate (`engine.decide.gates.Gate`), and what faces may ask of them.

    `always` are those that every trigger obeys. `changed` hears for which triggers (None: for all) an answer may be
    another than before; `anyone_waits` tells whether runs of such triggers wait.
    """

    def __init__(
        self, *, conditions: Mapping[str, Named], always: Sequence[str], rules: Mapping[str, Rule], clock: Clock,
        journal: Journal, make_checks: Callable[[Callable[[Named, Found | NoAnswer, float], None]], Checks],
    ) -> None:  # fmt: skip
        self._configured = dict(conditions)
        self._holding = dict(conditions)
        """As they hold now, with what overrides them."""
        self._always = tuple(always)
        self._rules = rules
        self._clock = clock
        self._journal = journal
        self._states = {name: _State() for name in conditions}
        self._checks = make_checks(self._take)
        self.changed: Callable[[Collection[str] | None], None] = lambda names: None
        self.anyone_waits: Callable[[Collection[str] | None], Awaitable[bool]]
        self._letting_pass: dict[str, _LettingPass] = {}
        """What is known to let runs of triggers pass, for as long as no answer is another one."""
        self._wake = asyncio.Event()
        self._again: dict[str, float] = {}
        """When checks that have not let pass are made again, where somebody waits (monotonic)."""
        self._followed = _followed(conditions)

    async def load(self, store: Store) -> None:
        """Take up what is stored."""
        after: str | None = None
        while page := await store.memory(CONDITIONS_SOURCE, after=after, limit=PAGE):
            for key, value in page.items():
                name, _, what = key.partition(":")
                state = self._states.get(name)
                if state is None:
                    continue
                if what:
                    state.changes = msgspec.convert(value, tuple[Change, ...])
                else:
                    self._override(name, msgspec.convert(value, Override))
            after = next(reversed(page))

    def configure(self, conditions: Mapping[str, Named], always: Sequence[str]) -> None:
        """Take in the conditions of another configuration; what is known of those that are the same stays, and so do
        overrides. Whoever waits is asked anew by who calls this."""
        self._always = tuple(always)
        for name in self._configured.keys() - conditions.keys():
            for known in (self._configured, self._holding, self._states, self._again):
                known.pop(name, None)
        changed = []
        for name, one in conditions.items():
            before, self._configured[name] = self._configured.get(name), one
            if before is not None and replace(before, defined_in=one.defined_in) == one:
                continue
            changed.append(name)
            state = self._states.setdefault(name, _State())
            self._override(name, state.override)
            if state.reading is not None:
                state.reading, state.tries = None, 0
        self._followed = _followed(conditions)
        self._letting_pass.clear()
        for name in changed:
            self._doubt(name)

    # The gate

    def concerns(self, rule: Rule) -> bool:
        return bool(rule.trigger.conditions) or bool(self._always)

    def look(self, run: Run, rule: Rule) -> Verdict:
        """Decide whether a run may start; what is not known is found out, and `changed` tells of it."""
        if CONDITIONS in bypassed(run):
            return Pass(seen="conditions are passed by, as whoever fired it said")
        let = self._letting_pass.get(rule.trigger.name)
        if let is not None and let.rule is rule and self._clock.monotonic() < let.until_s:
            return let.verdict
        now, names = self._clock.now(), self.names_of(rule)
        found = [(self._holding[name], look(name, self._holding, self._known, now)) for name in names]
        verdict = judge(run, found, hold_s=rule.trigger.hold_s, now=now)
        if isinstance(verdict, Pass) and names:
            until_s = min(
                self._states[check].fresh_until_s for name in names for check in checks_of(name, self._holding)
            )
            self._letting_pass[rule.trigger.name] = _LettingPass(rule, verdict, until_s)
        return verdict

    def names_of(self, rule: Rule) -> list[str]:
        """Return the conditions that a trigger obeys, those of all triggers first."""
        return [
            name for name in dict.fromkeys((*self._always, *rule.trigger.conditions)) if name in self._holding
        ]  # fmt: skip

    def triggers_of(self, name: str) -> list[str]:
        """Return the triggers, by name, that obey a condition, also where that is within another one."""
        if any(self._comes_to(one, name) for one in self._always):
            return sorted(self._rules)
        return sorted(
            trigger for trigger, rule in self._rules.items()
            if any(self._comes_to(one, name) for one in rule.trigger.conditions)
        )  # fmt: skip

    def _comes_to(self, one: str, name: str) -> bool:
        if one == name:
            return True
        found = self._holding.get(one)
        return found is not None and any(self._comes_to(member, name) for member in found.of)

    def _waiting_for(self, name: str) -> Collection[str] | None:
        """Return whose runs a change of an answer concerns; None for all."""
        if any(self._comes_to(one, name) for one in self._always):
            return None
        return self.triggers_of(name)

    def _known(self, name: str) -> Reading | None:
        """Return what is known of a check, if that may still be used; else have it found out."""
        state = self._states[name]
        if state.reading is not None and self._clock.monotonic() < state.fresh_until_s:
            return state.reading
        state.owed = True
        self._checks.begin(self._holding[name])
        return None

    # Checking

    async def run(self) -> None:
        """Check, as long as somebody waits, until cancelled."""
        async with anyio.create_task_group() as group:
            self._checks.serve(group)
            for name, state in self._states.items():
                if state.owed:
                    self._checks.begin(self._holding[name])
            try:
                while True:
                    self._wake.clear()
                    now_s = self._clock.monotonic()
                    for name in [name for name, at_s in self._again.items() if at_s <= now_s]:
                        await self._check_again(name)
                    left_s = min(self._again.values(), default=now_s + LONGEST_SLEEP_S) - self._clock.monotonic()
                    await sleep_or_wake(self._clock, min(max(left_s, 0.0), LONGEST_SLEEP_S), self._wake)
            finally:
                self._checks.serve(None)

    async def _check_again(self, name: str) -> None:
        """Make a check again, where runs wait for it."""
        self._again.pop(name, None)
        try:
            wanted = await self.anyone_waits(self._waiting_for(name))
        except StoreUnavailable:
            self._again[name] = self._clock.monotonic() + RETRY_S
            return
        if wanted and name in self._holding:
            self._checks.begin(self._holding[name])

    def _take(self, one: Named, found: Found | NoAnswer, took_s: float) -> None:
        """Take in what a check found, and tell of it where somebody waits for that or it is another answer."""
        self._letting_pass.clear()
        state = self._states.get(one.name)
        if state is None:
            return  # it is configured no more
        before, state.reading = state.reading, self._read(one, found, state)
        after = state.reading
        state.fresh_until_s = self._clock.monotonic() + max(one.every_s, SHORTEST_S)
        if state.doubted:
            state.doubted = False
            self._doubt(one.name)
        is_new = before is None or (before.answer, before.failed) != (after.answer, after.failed)
        if is_new:
            self._note_change(one.name, after)
        if not after.passes and one.name not in self._again:
            wait_s = max(one.every_s if after.next_s is None else after.next_s, SHORTEST_S)
            self._again[one.name] = self._clock.monotonic() + wait_s
            self._wake.set()
        owed, state.owed = state.owed, False
        if is_new or owed:
            self.changed(self._waiting_for(one.name))

    def _read(self, one: Named, found: Found | NoAnswer, state: _State) -> Reading:
        now = self._clock.now()
        if isinstance(found, NoAnswer):
            passes = one.on_error is OnError.OPEN
            state.tries = 0 if passes else state.tries + 1
            reason = f"it could not be checked: {found}" + ("; it passes all the same" if passes else "")
            return Reading(
                answer=Answer.PASS if passes else Answer.HOLD, reason=reason, at=now, failed=True, tries=state.tries,
                next_s=None if passes else one.every_s,
            )  # fmt: skip
        if found.answer is Answer.PASS:
            state.tries = 0
            return Reading(answer=Answer.PASS, reason=found.reason, value=found.value, at=now)
        state.tries += 1
        next_s = one.every_s
        if found.until is not None:
            next_s = min(next_s, max((found.until - now).total_seconds(), SHORTEST_S))
        return Reading(
            answer=found.answer, reason=found.reason, value=found.value, until=found.until, at=now,
            tries=state.tries, next_s=next_s,
        )  # fmt: skip

    def note_end(self, run: Run) -> None:
        """Have the checks that follow a job's runs look anew, as one has ended."""
        for name in self._followed.get(run.job, ()):
            self._doubt(name)

    def _doubt(self, name: str) -> None:
        """Use what is known of a condition no more, and find it out anew where somebody waits."""
        self._letting_pass.clear()
        for check in checks_of(name, self._holding):
            self._states[check].fresh_until_s = 0.0
            self._states[check].doubted = self._checks.will_answer(check)
            self._again[check] = self._clock.monotonic()
        self._wake.set()

    # What overrides the configuration

    def override_of(self, name: str) -> Override | None:
        """Return what overrides a condition."""
        return self._states[name].override

    async def override(self, name: str, override: Override | None) -> None:
        """Put something in the place of a condition's configuration, durably, or (None) have that hold again.

        Raises BadSetting where the check refuses it, and StoreUnavailable.
        """
        if override is not None:
            _overridden(self._configured[name], override)
        value = None if override is None else msgspec.to_builtins(override)
        await self._journal.submit(Accept(entries=(), memory=Memory(source=CONDITIONS_SOURCE, values={name: value})))
        self._override(name, override)
        log.info(
            "Condition %s: %s", name, "as it is configured again" if override is None else f"overridden"
            f"{override.who and ' by '}{override.who}{override.reason and ': '}{override.reason}",
            extra={"action": "condition_overridden", "condition": name},
        )  # fmt: skip
        self._doubt(name)
        self.changed(self._waiting_for(name))

    def _override(self, name: str, override: Override | None) -> None:
        configured = self._configured[name]
        try:
            self._holding[name] = configured if override is None else _overridden(configured, override)
        except (TypeError, ValueError) as error:
            # The configuration is another one by now.
            log.warning(
                "What overrode condition %s does not fit it any more, and is left out: %s", name, error,
                extra={"action": "override_dropped", "condition": name},
            )  # fmt: skip
            override = None
            self._holding[name] = configured
        self._states[name].override = override

    # What faces ask

    @property
    def all(self) -> Mapping[str, Named]:
        """All conditions as they hold now, by name."""
        return self._holding

    @property
    def always(self) -> Sequence[str]:
        """Those that every trigger obeys."""
        return self._always

    def reading(self, name: str) -> Reading | None:
        """Return what is known of a condition, however old it is; nothing is found out for that."""
        return look(name, self._holding, lambda check: self._states[check].reading, self._clock.now())

    def is_checked(self, name: str) -> bool:
        """Tell whether a check of it is on its way."""
        return any(self._checks.is_going(check) for check in checks_of(name, self._holding))

    def changes(self, name: str) -> tuple[Change, ...]:
        """Return the latest changes of a check's answer, the newest first."""
        return self._states[name].changes

    def _note_change(self, name: str, reading: Reading) -> None:
        state = self._states[name]
        change = Change(
            at=reading.at, answer=reading.answer, reason=reading.reason, value=reading.value, failed=reading.failed
        )
        state.changes = (change, *state.changes)[:MOST_CHANGES]
        level = logging.INFO if reading.passes and not reading.failed else logging.WARNING
        log.log(
            level, "Condition %s: %s: %s", name, reading.answer.value, reading.reason,
            extra={"action": "condition_changed", "condition": name},
        )  # fmt: skip
        value = msgspec.to_builtins(state.changes)
        memory = Memory(source=CONDITIONS_SOURCE, values={f"{name}:changes": value})
        # For people: where the store can't take it now, the next change brings it along.
        self._journal.submit(Accept(entries=(), memory=memory)).add_done_callback(_looked)


def _overridden(one: Named, override: Override) -> Named:
    """Return a condition as an override has it; raise what its check raises where that refuses it."""
    changes: dict[str, Any] = {}
    if override.enabled is not None:
        changes["enabled"] = override.enabled
    if override.shadow is not None:
        changes["shadow"] = override.shadow
    if override.thresholds:
        if one.check is None:
            raise ValueError("it is no check, and has no thresholds")
        unknown = override.thresholds.keys() - type(one.check).thresholds
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} can't be overridden")
        changes["check"] = replace(one.check, **override.thresholds)
    return replace(one, **changes)


def _followed(conditions: Mapping[str, Named]) -> dict[str, list[str]]:
    """Return the conditions by the jobs whose runs they follow."""
    found: dict[str, list[str]] = {}
    for name, one in conditions.items():
        for job in one.check.follows() if one.check is not None else ():
            found.setdefault(job, []).append(name)
    return found


def _looked(future: asyncio.Future[Any]) -> None:
    """Take note of a result that nobody waits for."""
    if not future.cancelled():
        future.exception()
