"""Pauses: of a trigger, of all with a tag, of the engine: since when, until when, by whom and why.

They outlive the engine. While one holds, events that meet its triggers are recorded as paused, and due instants wait
for the rule on misfires. While the engine is paused nothing that waits is started either; what runs goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import anyio
import msgspec

from engine.clock import LONGEST_SLEEP_S, Clock, rfc3339
from engine.decide.rules import Rule
from engine.errors import StoreUnavailable
from engine.journal import Journal
from engine.spans import Span, SpanKind
from engine.store.base import Store
from engine.store.changes import Accept, Memory
from engine.triggers import BY_ENGINE, Pause, PauseScope, merged

log = logging.getLogger("engine.pauses")

PAUSES_SOURCE = "engine:pauses"
"""Under this id the store remembers them: those of triggers by name, the others with their scope before a colon, which
no name of a trigger holds."""

PAGE = 1_000
RETRY_S = 5.0

Changed = Callable[[Collection[str] | None], None]
"""Hears that pauses of these triggers (None: maybe of all) have begun or ended."""


class Pauses:
    """All pauses. What is durable holds at once, also where whoever asked for it has gone meanwhile.

    `rules` are the triggers by name: a pause of a tag is one of each trigger that has it, or whose job has.
    """

    def __init__(self, clock: Clock, journal: Journal, rules: Mapping[str, Rule]) -> None:
        self._clock = clock
        self._journal = journal
        self._rules = rules
        self._known: dict[str, Pause] = {}
        self._told: set[str] = set()
        """Those whose end was told, and is not stored yet."""
        self._changed = anyio.Event()
        self.on_change: Changed = lambda names: None
        """What hears of changes; it is put here before `run`."""

    # What holds

    @property
    def engine(self) -> Pause | None:
        """The pause of the engine that holds now."""
        return self._holding(_key(PauseScope.ENGINE, ""), self._clock.now())

    def all(self) -> list[Pause]:
        """Return all pauses that hold now: the engine's, those of tags, those of triggers, each by name."""
        now = self._clock.now()
        holding = [pause for pause in self._known.values() if pause.holds(now)]
        return sorted(holding, key=lambda pause: (list(PauseScope).index(pause.scope), pause.name))

    def of(self, trigger: str) -> tuple[Pause, ...]:
        """Return the pauses that hold for a trigger now, the widest first."""
        rule = self._rules.get(trigger)
        return self._of(trigger, () if rule is None else tags_of(rule), self._clock.now())

    def now(self, trigger: str) -> Pause | None:
        """Return the pause that holds for a trigger now; where there are several, one that names all of them."""
        return merged(self.of(trigger))

    def at(self, rule: Rule, at: datetime) -> Pause | None:
        """Return the pause that holds for a trigger at that instant, as `now` does."""
        return merged(self._of(rule.trigger.name, tags_of(rule), at)) if self._known else None

    def held_by(self, scope: PauseScope, name: str) -> list[str]:
        """Return the triggers, by name, for which such a pause holds."""
        if scope is PauseScope.TRIGGER:
            return [name] if name in self._rules else []
        return sorted(
            each for each, rule in self._rules.items() if scope is PauseScope.ENGINE or name in tags_of(rule)
        )  # fmt: skip

    def _of(self, trigger: str, tags: Collection[str], at: datetime) -> tuple[Pause, ...]:
        if not self._known:
            return ()
        keys = [_key(PauseScope.ENGINE, ""), *[_key(PauseScope.TAG, tag) for tag in tags], trigger]
        found = [self._holding(key, at) for key in keys]
        return tuple([pause for pause in found if pause is not None])

    def _holding(self, key: str, at: datetime) -> Pause | None:
        pause = self._known.get(key)
        return pause if pause is not None and pause.holds(at) else None

    # Making and ending them

    async def load(self, store: Store) -> None:
        """Take up what is stored."""
        after: str | None = None
        while page := await store.memory(PAUSES_SOURCE, after=after, limit=PAGE):
            for key, value in page.items():
                pause = msgspec.convert(value, Pause)
                self._known[key] = pause if pause.name else msgspec.structs.replace(pause, name=_name(key))
            after = next(reversed(page))

    async def pause(self, scope: PauseScope, name: str, *, reason: str, until: datetime | None, who: str) -> Pause:
        """Pause a trigger, a tag or the engine (whose name is empty), durably.

        One that is paused keeps its `since`, and has the new reason, end and author. Raises StoreUnavailable.
        """
        pause = self._made(scope, name, reason, until, who)
        await self._store({_key(scope, name): pause})
        _log_pause(pause)
        return pause

    async def pause_all(self, triggers: Sequence[str], *, reason: str, until: datetime | None, who: str) -> None:
        """Pause triggers in one commit, as `pause` does each."""
        made = {name: self._made(PauseScope.TRIGGER, name, reason, until, who) for name in triggers}
        await self._store(made)
        for pause in made.values():
            _log_pause(pause)

    def _made(self, scope: PauseScope, name: str, reason: str, until: datetime | None, who: str) -> Pause:
        now = self._clock.now()
        held = self._holding(_key(scope, name), now)
        since = now if held is None else held.since
        return Pause(scope=scope, name=name, reason=reason, since=since, until=until, who=who)

    async def resume(self, scope: PauseScope, name: str, *, who: str) -> bool:
        """End a pause, durably; return whether it held. Others, of other scopes, stay. Raises StoreUnavailable."""
        key = _key(scope, name)
        held = self._holding(key, self._clock.now())
        if key in self._known:
            await self._store({key: None}, who=who)
        if held is not None:
            _log_resume(held, who)
        return held is not None

    async def resume_all(self, triggers: Sequence[str], *, who: str) -> None:
        """End the pauses of triggers in one commit, as `resume` does each."""
        now = self._clock.now()
        known: dict[str, Pause | None] = {name: None for name in triggers if name in self._known}
        held = [pause for name in known if (pause := self._holding(name, now)) is not None]
        if known:
            await self._store(known, who=who)
        for pause in held:
            _log_resume(pause, who)

    def forgetting(self, trigger: str) -> Memory | None:
        """Return what makes the store forget the pause of a trigger that is removed; None where there is none."""
        return _memory(trigger, None) if trigger in self._known else None

    def leaving(self, trigger: str) -> tuple[Span, ...]:
        """Return what notes that the pause of a trigger ended, as that is removed."""
        pause = self._known.get(trigger)
        return () if pause is None else (_span(trigger, pause, self._clock.now()),)

    def forget(self, trigger: str) -> None:
        """Forget a pause that the store has forgotten."""
        self._known.pop(trigger, None)
        self._told.discard(trigger)

    # Ends that come by themselves

    async def run(self) -> None:
        """Tell of pauses whose end has come, also while the engine was away, and forget them; until cancelled."""
        while True:
            now = self._clock.now()
            ended = [key for key, pause in self._known.items() if not pause.holds(now)]
            for key in ended:
                self._tell_end(key)
            forgotten = await self._forget_ended(ended)
            self._changed = anyio.Event()
            ends = [pause.until for pause in self._known.values() if pause.until is not None and pause.until > now]
            left_s = min([(until - now).total_seconds() for until in ends], default=LONGEST_SLEEP_S)
            await self._wait(min(left_s, LONGEST_SLEEP_S if forgotten else RETRY_S))

    def _tell_end(self, key: str) -> None:
        if key in self._told:
            return
        self._told.add(key)
        pause = self._known[key]
        assert pause.until is not None  # noqa: S101 - it has ended
        log.info(
            "The pause of %s ended at %s, as it was to", pause.subject, rfc3339(pause.until),
            extra={"action": "pause_ended", "scope": pause.scope.value, "of": pause.name},
        )  # fmt: skip
        self._tell(pause)

    async def _forget_ended(self, keys: Collection[str]) -> bool:
        """Have the store forget pauses that are over; return False where it can't now."""
        for key in keys:
            pause = self._known.get(key)
            if pause is None or pause.holds(self._clock.now()):
                continue
            try:
                await self._store({key: None})
            except StoreUnavailable:
                return False
        return True

    async def _wait(self, seconds: float) -> None:
        """Sleep, or until a pause is made or ended."""
        async with anyio.create_task_group() as group:

            async def wake() -> None:
                await self._changed.wait()
                group.cancel_scope.cancel()

            group.start_soon(wake)
            await self._clock.sleep(seconds)
            group.cancel_scope.cancel()

    def _tell(self, pause: Pause) -> None:
        self.on_change(None if pause.scope is PauseScope.ENGINE else self.held_by(pause.scope, pause.name))

    # Storing

    def _store(self, pauses: Mapping[str, Pause | None], *, who: str = "") -> asyncio.Future[Any]:
        spans: list[Span] = []
        for key, pause in pauses.items():
            before = self._known.get(key)
            if before is not None and (pause is None or pause.since != before.since):
                spans.append(_span(key, before, self._clock.now(), who))
            if pause is not None:
                spans.append(_span(key, pause))
        memory = Memory(
            source=PAUSES_SOURCE, values={key: _kept(pause) for key, pause in pauses.items()}
        )  # fmt: skip
        stored = self._journal.submit(Accept(entries=(), memory=memory, spans=tuple(spans)))
        for key, pause in pauses.items():
            stored.add_done_callback(self._taker(key, pause))
        return stored

    def _taker(self, key: str, pause: Pause | None) -> Callable[[asyncio.Future[Any]], None]:
        def take(stored: asyncio.Future[Any]) -> None:
            if stored.exception() is not None:
                return
            before = self._known.pop(key, None)
            told = key in self._told
            self._told.discard(key)
            if pause is not None:
                self._known[key] = pause
            changed = pause or before
            if changed is not None and not (pause is None and told):
                self._tell(changed)
            self._changed.set()

        return take


def tags_of(rule: Rule) -> tuple[str, ...]:
    """Return the tags of a trigger and of its job."""
    return tuple(dict.fromkeys((*rule.trigger.tags, *rule.job.tags)))


def _key(scope: PauseScope, name: str) -> str:
    """Return under what a pause is remembered."""
    return name if scope is PauseScope.TRIGGER else f"{scope}:{name}"


def _name(key: str) -> str:
    return key.partition(":")[2] if ":" in key else key


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _span(key: str, pause: Pause, ended_at: datetime | None = None, who: str = "") -> Span:
    """Return what is known later of a pause; one with an end ends then by itself, whenever that is noted.

    `who` ended it.
    """
    if ended_at is not None and pause.until is not None:
        ended_at = min(ended_at, pause.until)
    detail = {"said": pause.said(), "who": pause.who, "resumed_by": who}
    return Span(
        kind=SpanKind.PAUSE, name=key, began_at=pause.since, ended_at=ended_at or pause.until,
        detail={name: text for name, text in detail.items() if text},
    )  # fmt: skip


def _memory(key: str, pause: Pause | None) -> Memory:
    return Memory(source=PAUSES_SOURCE, values={key: _kept(pause)})


def _kept(pause: Pause | None) -> Any:
    return None if pause is None else msgspec.to_builtins(pause)


def _log_pause(pause: Pause) -> None:
    log.log(
        logging.WARNING if pause.who == BY_ENGINE else logging.INFO,
        "%s", _capital(pause.said() + (f" (by {pause.who})" if pause.who else "")),
        extra={"action": "paused", "scope": pause.scope.value, "of": pause.name, "by": pause.who},
    )  # fmt: skip


def _log_resume(pause: Pause, who: str) -> None:
    log.info(
        "%s is resumed%s", _capital(pause.subject), f" (by {who})" if who else "",
        extra={"action": "resumed", "scope": pause.scope.value, "of": pause.name, "by": who},
    )  # fmt: skip
