"""The chronicle: notes when this engine ran, what its triggers were, and which sources were in trouble.

It is what `why` needs to say of a due instant that has no run: that the engine was not running then, that the trigger
was disabled, or was not there yet. An engine can't note its own death: it notes again and again that it lives, and the
next one notes until when the store shows that it did.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from engine.clock import Clock
from engine.decide.rules import Rule
from engine.errors import EngineError, StoreUnavailable
from engine.hindsight.traces import last_trace
from engine.journal import Journal
from engine.spans import Span, SpanKind
from engine.store.base import Store
from engine.store.changes import Accept
from engine.triggers import Trigger

log = logging.getLogger("engine.chronicle")

BEAT_S = 15.0
"""So often the engine notes that it lives, and looks for troubles: a crash is told of to this precision."""

STOOD_S = 60.0
"""A beat that comes so much later than it was to is told of."""

KEPT = timedelta(days=400)
"""What ended before that is forgotten at the start."""

RUNNING, STOPPED, FAILED, DIED = "running", "stopped", "failed", "died"
"""How the span of an engine says that it ended; it is `running` as long as nothing else is known."""

PAGE = 1_000
LOOKED_AT = 20
"""So many engines before this one are looked at for one whose end is not noted."""

LATER = timedelta(microseconds=1)
NOTED = 200
"""So many triggers are noted in one change, and between two turns of the event loop."""

Troubles = Callable[[], Mapping[str, tuple[str, datetime | None]]]
"""Tells what is wrong now: by the id of a source, in words, and since when, where that is known."""


class Chronicle:
    """Notes spans. `begin` comes before anything runs, and `end` after everything has ended.

    `describe` says in a short text what a trigger is on; a trigger whose text is another one has another schedule.
    """

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, boot: str, version: str, rules: Mapping[str, Rule],
        describe: Callable[[Trigger], str],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._rules = rules
        self._describe = describe
        self._began_at = clock.now()
        self._life = Span(
            kind=SpanKind.ENGINE, name=boot, began_at=self._began_at, ended_at=self._began_at,
            detail={"end": RUNNING, "pid": os.getpid(), "version": version},
        )  # fmt: skip
        self._before_at: datetime | None = None
        """Until when the engine before this one was there."""
        self._known: dict[str, Span] = {}
        self._unnoted: list[Span] = []
        """What the store could not take at the start."""
        self._troubles: dict[str, Span] = {}
        self._ask_troubles: Troubles = dict
        self._seen_at = self._began_at
        """As of when it is noted what the triggers are."""

    # Its own life

    async def begin(self) -> None:
        """Note that this engine runs, durably unless the store can't now, and how those before it ended."""
        now = self._began_at
        lives = await self._store.spans(SpanKind.ENGINE, start=now - KEPT, end=now + LATER, limit=LOOKED_AT)
        noted = [self._life]
        for life in lives:
            if life.detail.get("end") == RUNNING:
                trace_at = await last_trace(self._store)
                seen_at = min(max(life.ended_at or life.began_at, trace_at or life.began_at), now)
                life = replace(life, ended_at=seen_at, detail={**life.detail, "end": DIED})
                noted.insert(0, life)
            self._before_at = life.ended_at
        noted += [
            replace(span, ended_at=max(self._before_at or now, span.began_at))
            for span in await self._open(SpanKind.SOURCE)
        ]
        if not await self._note(noted, forget=now - KEPT):
            self._unnoted = noted

    async def end(self, *, asked: bool) -> None:
        """Note that this engine ends: as it was asked to, or as something failed."""
        ended = STOPPED if asked else FAILED
        self._life = replace(self._life, ended_at=self._clock.now(), detail={**self._life.detail, "end": ended})
        try:
            await self._journal.submit(Accept(entries=(), spans=(self._life,)))
        except EngineError as error:  # then the next start finds that it died
            log.info("The end of the engine is not noted: %s", error, extra={"action": "end_not_noted"})

    def watch(self, troubles: Troubles) -> None:
        """Look from now on, as the timers do: `run` notes what the triggers are as of now, and asks for troubles."""
        self._seen_at, self._ask_troubles = self._clock.now(), troubles

    async def run(self) -> None:
        """Note the triggers, and then again and again that the engine lives; until cancelled."""
        await self._note_triggers()
        if self._unnoted and await self._note(self._unnoted):
            self._unnoted = []
        while True:
            expected_at = self._clock.now() + timedelta(seconds=BEAT_S)
            await self._clock.sleep(BEAT_S)
            now = self._clock.now()
            spans = [*self._unnoted, *self._troubled(now)]
            if (now - expected_at).total_seconds() > STOOD_S:
                began_at = expected_at - timedelta(seconds=BEAT_S)
                spans.append(replace(self._life, kind=SpanKind.STANDSTILL, began_at=began_at, ended_at=now, detail={}))
            self._life = replace(self._life, ended_at=max(now, self._began_at))
            self._unnoted = [] if await self._note([*spans, self._life]) else spans

    async def _note(self, spans: list[Span], *, forget: datetime | None = None) -> bool:
        """Have spans stored; return False where the store can't now."""
        try:
            await self._journal.submit(Accept(entries=(), spans=tuple(spans), forget_spans=forget))
        except EngineError:
            return False
        return True

    # Triggers

    async def _note_triggers(self) -> None:
        """Note what the triggers are where that is another thing than what is stored, and which are gone."""
        stored = {span.name: span for span in await self._open(SpanKind.TRIGGER)}
        waiting: list[Span] = []
        for number, name in enumerate([*stored, *(name for name in list(self._rules) if name not in stored)], 1):
            waiting += self._changed(name, stored.get(name))
            if not number % NOTED:
                await self._clock.sleep(0)
            if len(waiting) >= NOTED and await self._note(waiting):
                waiting = []
        self._unnoted += waiting

    def _changed(self, name: str, stored: Span | None) -> Iterator[Span]:
        """Yield what is to be noted of a trigger, whose open span is `stored`."""
        rule = self._rules.get(name)
        if name in self._known:  # it came, or was looked at, while this engine runs
            return
        detail = None if rule is None else self._detail(rule)
        if stored is not None and stored.detail == detail:
            self._known[name] = stored
            return
        if stored is not None:
            # One that is gone, or is another now, was what it was as long as the engine before ran.
            yield replace(stored, ended_at=max(self._before_at or self._began_at, stored.began_at))
        if detail is not None:  # what came due since the start has its record, whichever this is
            self._known[name] = Span(
                kind=SpanKind.TRIGGER, name=name, began_at=self._seen_at, detail=detail
            )  # fmt: skip
            yield self._known[name]

    def _detail(self, rule: Rule) -> dict[str, Any]:
        detail = {"on": self._describe(rule.trigger), "job": rule.job.name}
        return detail if rule.disabled is None else {**detail, "disabled": rule.disabled}

    def add(self, rule: Rule) -> None:
        """Note a trigger that comes while the engine runs; one that could not be removed is known."""
        name = rule.trigger.name
        if name in self._known:
            return
        self._known[name] = Span(
            kind=SpanKind.TRIGGER, name=name, began_at=self._clock.now(), detail=self._detail(rule)
        )
        self._journal.submit(Accept(entries=(), spans=(self._known[name],))).add_done_callback(_heard)

    def renew(self, rule: Rule) -> None:
        """Note that a trigger is another one from now on, where what is told of it differs."""
        name = rule.trigger.name
        known = self._known.get(name)
        if known is not None and known.detail == self._detail(rule):
            return
        if known is not None:
            self._journal.submit(Accept(entries=(), spans=self.leaving(name))).add_done_callback(_heard)
            self.forget(name)
        self.add(rule)

    def leaving(self, trigger: str) -> tuple[Span, ...]:
        """Return what notes that a trigger is gone, to be stored with that."""
        span = self._known.get(trigger)
        return () if span is None else (replace(span, ended_at=self._clock.now()),)

    def forget(self, trigger: str) -> None:
        """Forget a trigger that is gone."""
        self._known.pop(trigger, None)

    # Troubles

    def _troubled(self, now: datetime) -> Iterator[Span]:
        """Yield what is to be noted of troubles: those that began, are other ones now, or are over."""
        found = self._ask_troubles()
        for name in [*self._troubles]:
            if name not in found:
                yield replace(self._troubles.pop(name), ended_at=now)
        for name, (text, since) in found.items():
            known = self._troubles.get(name)
            if known is None:
                began_at = max(since or now, self._began_at)
                known = Span(kind=SpanKind.SOURCE, name=name, began_at=began_at, detail={"problem": text})
            elif known.detail["problem"] == text:
                continue
            self._troubles[name] = replace(known, detail={"problem": text})
            yield self._troubles[name]

    async def _open(self, kind: SpanKind) -> list[Span]:
        found: list[Span] = []
        after = ""
        while True:
            try:
                page = await self._store.open_spans(kind, after=after, limit=PAGE)
            except StoreUnavailable:
                await self._clock.sleep(BEAT_S)
                continue
            if not page:
                return found
            found += page
            after = page[-1].name


def _heard(stored: asyncio.Future[Any]) -> None:
    """What could not be noted is told of by nobody: at the next start it is noted then."""
    if not stored.cancelled():
        stored.exception()
