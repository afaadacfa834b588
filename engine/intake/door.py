"""The door: it checks what comes in, has it decided, stores it in one commit, and hands on what is ready."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import anyio
from msgspec import Raw
from msgspec.structs import replace

from engine.backfills import SOURCE_PREFIX as BACKFILL_PREFIX
from engine.backlog import Backlog
from engine.causing import Causes, caused_by
from engine.clock import Clock
from engine.decide.firing import Firing
from engine.decide.joins import JoinWindow
from engine.decide.rules import Rule, one_each
from engine.decide.shaping import Windows
from engine.errors import Conflict, InvalidEvent, NotFound, StoreUnavailable
from engine.events import RESERVED_PREFIX, Accepted, Cause, Event, EventOutcome, Outcome
from engine.following import JOB_SOURCE, Followers, end_event, end_sentence
from engine.ids import new_id
from engine.intake.after import After
from engine.intake.again import Again
from engine.intake.draft import Admitted, Draft
from engine.intake.drafts import LONGEST_NAME, Drafting, MarkKeeping, Pausing, Starter
from engine.intake.guarding import Guarding
from engine.intake.rehearsal import Rehearsal
from engine.intake.telling import tell_accepted
from engine.jobs import Job
from engine.journal import Journal
from engine.metrics import Counts
from engine.payload import encode_json, read_json, survey
from engine.plugin import Source
from engine.queue import KEPT_DATA_BYTES
from engine.redaction import Redaction
from engine.runs import ENDED, WAITING, Origin, Run, RunState
from engine.store.changes import Accept, Cursor, End, Entry, Finish, Memory, MoveBackfill
from engine.traces import Tracing
from engine.triggers import SHAPING
from engine.units import format_size

log = logging.getLogger("engine.intake")

MANUAL_SOURCE = "manual"
_NOT_FOR_BACKFILL = SHAPING
"""A backfill runs each instant for itself, at a pace of its own."""

_TRIES = 3


class Intake:
    """The engine's door.

    `rules` are the triggers by name, for all to see: `add` and `remove` change them. `hearing` are the ids and
    settings of the sources that listen to events from the API; `followers` tells which triggers are on the ends of
    runs, `after` what else goes with an end; `pauses` what is paused; `own_sources` are the names that begin the ids
    of the engine's own sources, which no sender may use.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        starter: Starter,
        windows: Windows,
        marks: MarkKeeping,
        rules: dict[str, Rule],
        hearing: Sequence[tuple[str, Source]],
        followers: Followers,
        pauses: Pausing | None = None,
        backlog: Backlog | None = None,
        max_data_bytes: int,
        ageing_s: float,
        own_sources: frozenset[str] = frozenset(),
        redaction: Redaction | None = None,
        guarding: Guarding | None = None,
        causes: Causes | None = None,
        after: After | None = None,
        tracing: Tracing | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._starter = starter
        self._windows = windows
        self._backlog = backlog or Backlog()
        self._drafting = Drafting(
            starter=starter, windows=windows, marks=marks, pauses=pauses, backlog=self._backlog,
            max_data_bytes=max_data_bytes, ageing_s=ageing_s, guarding=guarding, redaction=redaction,
        )  # fmt: skip
        self._max_data_bytes = max_data_bytes
        self._rules = rules
        self._hearing = dict(hearing)
        self.again = Again(
            clock=clock, journal=journal, drafting=self._drafting, rules=rules, hand_on=self._hand_on_all
        )  # fmt: skip
        self.rehearsal = Rehearsal(drafting=self._drafting, rules=rules, admit=self._admit, commit=self._commit_replay)
        self._followers = followers
        self._own_sources = own_sources
        self._causes = causes
        self._tracing = tracing
        self._after = after
        self._counts = counts
        by_source: dict[str, list[Rule]] = {}
        # By name, as the store gives them back: a repeat gets the same answer as the first.
        for rule in sorted(rules.values(), key=_name_of):
            for source, way in rule.by_source().items():
                by_source.setdefault(source, []).append(way)
        self._by_source = {source: tuple(met) for source, met in by_source.items()}
        self.accepted = 0
        self.duplicates = 0

    def add(self, rule: Rule) -> None:
        """Take in a trigger, or another version of one: events that are decided from now on meet it."""
        self.remove(rule.trigger.name)
        self._rules[rule.trigger.name] = rule
        for source, way in rule.by_source().items():
            met = list(self._by_source.get(source, ()))
            insort(met, way, key=_name_of)
            self._by_source[source] = tuple(met)
        self._followers.add(rule)
        for source, on in rule.trigger.works_on:
            if isinstance(on, Source) and on.hears:
                self._hearing.setdefault(source, on)

    def remove(self, trigger: str) -> Rule | None:
        """Forget a trigger: no event meets it any more. What was decided before is made durable all the same."""
        rule = self._rules.pop(trigger, None)
        if rule is None:
            return None
        for source in rule.by_source():
            left = tuple(other for other in self._by_source[source] if other.trigger.name != trigger)
            if left:
                self._by_source[source] = left
            else:
                del self._by_source[source]
            if not self.is_used(source):
                self._hearing.pop(source, None)
        self._followers.remove(rule)
        return rule

    def hear_by(self, source: str, on: Source) -> None:
        """Take in other settings of a source that listens."""
        if source in self._hearing:
            self._hearing[source] = on

    def renew(self, job: Job) -> None:
        """Take in another version of a job for the triggers that run it, and for those that follow its runs."""
        for rule in [rule for rule in self._rules.values() if rule.job.name == job.name]:
            self.add(Rule(rule.trigger, job))
        self._followers.ask_anew()

    def is_used(self, source: str) -> bool:
        """Tell whether a trigger that works is on a source."""
        return any(rule.trigger.works for rule in self._by_source.get(source, ()))

    def open_joins(self, trigger: str) -> list[JoinWindow]:
        """Return the joins of a trigger that wait for inputs, as they began."""
        return [window for window in self._windows.of_trigger(trigger) if isinstance(window, JoinWindow)]

    async def accept(
        self,
        source: str,
        events: Sequence[Event],
        *,
        cursor: Any = None,
        remember: Mapping[str, Any] | None = None,
    ) -> list[Accepted]:
        """Make events of a source durable, with what they bring about; see `SourceContext.emit`."""
        if self._backlog.crowded():
            self._backlog.admit(source, self._by_source)
        named: list[Admitted] = []
        for event in events:
            cause = None if event.traceparent is None else await self._cause(event.traceparent)
            named.append(self._admit(event, source, cause))
        move = None if cursor is None else Cursor(source=source, value=cursor)
        memory = Memory(source=source, values=remember) if remember else None
        return await self._commit(
            named, lambda _: self._by_source.get(source, ()), Origin.EVENT, cursor=move, memory=memory
        )

    async def accept_due(self, firings: Sequence[Firing]) -> list[Exception | None]:
        """Make due instants durable, each in a change of its own, and return what went wrong with each."""
        begun = [self._begin_due(firing) for firing in firings]
        waiting = [stored for _, stored in begun if isinstance(stored, asyncio.Future)]
        try:
            if waiting:
                await asyncio.wait(waiting)
        except asyncio.CancelledError:
            # They are written or refused all the same: their runs must not be left alone.
            with anyio.CancelScope(shield=True):
                await asyncio.wait(waiting)
            for firing, (draft, stored) in zip(firings, begun, strict=True):
                self._end_due(firing, draft, stored)
            raise
        errors = [self._end_due(firing, *one) for firing, one in zip(firings, begun, strict=True)]
        for place, (firing, error) in enumerate(zip(firings, errors, strict=True)):
            if isinstance(error, Conflict):
                errors[place] = await self._commit_due(firing, begun[place][0])
        return errors

    def _begin_due(self, firing: Firing) -> tuple[Draft | None, asyncio.Future[list[Accepted]] | Exception]:
        """Decide what a due instant becomes, and hand it to the journal."""
        draft, rules = None, self._by_source.get(firing.source, ())
        try:
            if firing.event is not None:
                draft = self._drafting.draft(self._admit(firing.event, firing.source), rules)
                draft.caught_up = firing.caught_up
                self._drafting.decide(draft, rules, Origin.SCHEDULE, firing.reason, frozenset())
            cursor = Cursor(source=firing.source, value=firing.cursor)
            entries = () if draft is None else (draft.entry(),)
            return draft, self._journal.submit(Accept(entries=entries, missed=firing.missed, cursor=cursor))
        except Exception as error:
            if draft is not None:
                self._drafting.undo([draft])
            return None, error

    def _end_due(
        self, firing: Firing, draft: Draft | None, stored: asyncio.Future[list[Accepted]] | Exception
    ) -> Exception | None:
        """Hand on what is durable, or take back what was reserved for it and return why it is not."""
        error = stored if isinstance(stored, Exception) else cast("Exception | None", stored.exception())
        if error is None:
            self._note_missed(firing.missed)
        if draft is not None and not isinstance(stored, Exception):
            if error is None:
                self._hand_on(draft, stored.result()[0])
            else:
                self._drafting.undo([draft])
        return error

    async def _commit_due(self, firing: Firing, refused: Draft | None) -> Exception | None:
        """Decide anew what a due instant becomes, as a window that it joined, or a mark, was another one."""
        events = [] if firing.event is None else [self._admit(firing.event, firing.source)]
        cursor, rules = Cursor(source=firing.source, value=firing.cursor), self._by_source.get(firing.source, ())
        try:
            if refused is not None:
                await self._drafting.learn(refused)
            await self._commit(
                events, lambda _: rules, Origin.SCHEDULE, cursor=cursor, missed=firing.missed, reason=firing.reason,
                caught_up=firing.caught_up,
            )  # fmt: skip
        except Exception as error:
            return error
        return None

    async def hear(self, events: Sequence[Event]) -> list[Accepted]:
        """Make events from the API durable, and offer them to the sources that listen.

        Their data is what `read_json` returned, or `survey` let pass. Raises InvalidEvent for types that begin with
        `engine.`, and StoreUnavailable.
        """
        for event in events:
            if event.type.startswith(RESERVED_PREFIX):
                raise InvalidEvent(f"types that begin with {RESERVED_PREFIX!r} are the engine's own", status=422)
            prefix, colon, rest = event.source.partition(":")
            if event.source == MANUAL_SOURCE or (colon and prefix in self._own_sources and not rest.startswith("//")):
                raise InvalidEvent(
                    f"the source {event.source!r} is one of the engine's own; send another name", status=422
                )
        named = [
            self._admit(event, event.source or "api", await self._cause(event.traceparent), surveyed=True)
            for event in events
        ]
        if self._backlog.crowded():
            for source in {rule.trigger.source for event, _ in named for rule in self._listeners(event)}:
                self._backlog.admit(source, self._by_source)
        return await self._commit(named, self._listeners, Origin.EVENT)

    async def announce(self, event: Event, *, memory: Memory | None = None) -> Accepted:
        """Make an event of the engine itself durable, with what is to be remembered, and offer it to who listens.

        The same key is the same event. Raises InvalidEvent and StoreUnavailable.
        """
        named = self._admit(event, event.source)
        return (await self._commit([named], self._listeners, Origin.EVENT, memory=memory))[0]

    def _listeners(self, event: Event) -> Sequence[Rule]:
        found: list[Rule] = []
        event = self._drafting.redacted(event)
        for source_id, source in self._hearing.items():
            try:
                accepted = source.accepts(event)
            except Exception:
                log.exception("Source %s raised on an event", source_id, extra={"action": "source_raised"})
                continue
            if accepted:
                found.extend(self._by_source.get(source_id, ()))
        return found if len(found) <= 1 else one_each(sorted(found, key=_name_of))

    async def fire(
        self, trigger: str, *, data: Any = None, reason: str = "", priority: int | None = None,
        bypass: frozenset[str] = frozenset(), request_id: str | None = None, traceparent: str | None = None,
    ) -> Accepted:  # fmt: skip
        """Run a trigger by hand: it obeys its filter and every gate that `bypass` does not name.

        A `request_id` that came before is not fired again: the answer is that of the first time.

        Raises NotFound, Conflict (the trigger or its job is disabled, or the request id was that of another
        trigger), InvalidEvent and StoreUnavailable.
        """
        rule = self._rules.get(trigger)
        if rule is None:
            raise NotFound(f"there is no trigger {trigger}")
        if rule.disabled is not None:
            raise Conflict(rule.disabled)
        event = Event(
            type="manual", subject=trigger, data=data, key=request_id, priority=priority, traceparent=traceparent
        )  # fmt: skip
        named = self._admit(event, MANUAL_SOURCE, await self._cause(traceparent))
        answers = await self._commit([named], lambda _: (rule,), Origin.MANUAL, reason=reason, bypass=bypass)
        answer = answers[0]
        if answer.duplicate and all(outcome.trigger != trigger for outcome in answer.outcomes):
            raise Conflict(f"the request id {request_id} has fired another trigger; give each request its own")
        return answer

    async def fire_all(
        self, triggers: Sequence[str], *, data: Any = None, reason: str = "", priority: int | None = None,
        bypass: frozenset[str] = frozenset(), request_id: str | None = None,
    ) -> list[Accepted]:  # fmt: skip
        """Run triggers by hand in one commit, all or none; each as `fire` does, with a request id of its own made of
        `request_id`."""
        named = []
        for trigger in triggers:
            rule = self._rules.get(trigger)
            if rule is None:
                raise NotFound(f"there is no trigger {trigger}")
            if rule.disabled is not None:
                raise Conflict(rule.disabled)
            key = None if request_id is None else f"{request_id} {trigger}"
            event = Event(type="manual", subject=trigger, data=data, key=key, priority=priority)
            named.append(self._admit(event, MANUAL_SOURCE))
        return await self._commit(
            named, lambda event: (self._rules[event.subject or ""],), Origin.MANUAL, reason=reason, bypass=bypass
        )  # fmt: skip

    async def backfill(self, trigger: str, events: Sequence[Event], move: MoveBackfill, reason: str) -> list[Accepted]:
        """Make due instants of a backfill durable as events of its own, with their runs and its new place, as one.

        They meet the trigger's filter, data and defaults; each runs for itself, whatever it gathers otherwise.

        Raises NotFound, Conflict (it is disabled, or the backfill is in another place or state), InvalidEvent and
        StoreUnavailable.
        """
        rule = self._rules.get(trigger)
        if rule is None:
            raise NotFound(f"there is no trigger {trigger}")
        if rule.disabled is not None:
            raise Conflict(rule.disabled)
        named = [self._admit(event, BACKFILL_PREFIX + move.backfill) for event in events]
        return await self._commit(
            named, lambda _: (rule,), Origin.BACKFILL, reason=reason, bypass=_NOT_FOR_BACKFILL, backfill=move
        )

    async def _commit_replay(
        self, event: Event, rules: Sequence[Rule], reason: str, bypass: frozenset[str]
    ) -> Accepted:  # fmt: skip
        named = [self._admit(event, event.source)]
        return (await self._commit(named, lambda _: rules, Origin.REPLAY, reason=reason, bypass=bypass))[0]

    def finish(self, run: Run, end: Finish | End) -> Awaitable[Any]:
        """Hand in how an attempt or a run ended, with what follows from it; await that both are durable, as one.

        It is handed in when this returns, and not refused: it waits for a store that is away. What is awaited raises
        Conflict where the run can't end so, and StoreError where the store has failed or the engine has stopped.
        """
        after = None
        if self._after is not None and end.step.state in ENDED:
            after = self._after.of(run, end)
        rules = self._followers.of(run, end.step.state)
        if rules:
            return self._follow_up(run, end, rules, after, *self._hand_in(run, end, rules, after))
        return self._submit_end(run, end, after)

    def _hand_in(
        self, run: Run, end: Finish | End, rules: Sequence[Rule], after: Accept | None, *, apart: set[str] | None = None
    ) -> tuple[Draft, asyncio.Future[Any]]:
        draft = self._draft_end(run, end, rules)
        draft.apart = apart
        # It waits for a store that is away, which a slot must not.
        draft.may_start = False
        self._drafting.decide(draft, rules, Origin.EVENT, end_sentence(run, end), frozenset())
        return draft, self._submit_end(run, end, after, draft.entry())

    def _submit_end(
        self, run: Run, end: Finish | End, after: Accept | None, entry: Entry | None = None
    ) -> asyncio.Future[Any]:
        then = end.then
        if after is not None:
            then = after if then is None else replace(after, memories=(*after.memories, *then.memories))
        if entry is not None:
            then = replace(then or Accept(entries=()), entries=(entry,))
        stored = self._journal.submit(end if then is end.then else replace(end, then=then))
        if after is not None and self._after is not None:
            stored.add_done_callback(self._after.settled)
        if isinstance(end, End):
            stored.add_done_callback(self._backlog.removing(run.trigger))
        elif end.step.state in WAITING:
            stored.add_done_callback(self._backlog.adding(run.trigger))
        return stored

    def _draft_end(self, run: Run, end: Finish | End, rules: Sequence[Rule]) -> Draft:
        source = f"{JOB_SOURCE}:{run.job}"
        event = end_event(run, end)
        if self._tracing is not None:
            event = replace(event, traceparent=self._tracing.of_run(run.id))
        try:
            return self._drafting.draft(self._admit(event, source, caused_by(run)), rules)
        except InvalidEvent as error:
            event = end_event(run, end, without_outputs=str(error))
            return Draft(*self._admit(event, source, caused_by(run), any_size=True))

    async def _follow_up(
        self, run: Run, end: Finish | End, rules: Sequence[Rule], after: Accept | None, draft: Draft,
        stored: asyncio.Future[Any],
    ) -> None:  # fmt: skip
        doubted: set[str] = set()
        while True:
            try:
                answers = await stored
            except Conflict:
                self._drafting.undo([draft])
                if not (draft.joined or draft.in_the_way or draft.claims):
                    raise
                with suppress(StoreUnavailable):  # it is decided anew once the store is back
                    await self._drafting.learn(draft)
                doubted.update(draft.in_the_way)
                draft, stored = self._hand_in(run, end, rules, after, apart=set(doubted) if doubted else None)
            except BaseException:
                self._drafting.undo([draft])
                raise
            else:
                self._hand_on(draft, answers[0])
                return

    async def reject(self, source: str, event: Event, reason: str) -> Accepted:
        """Record something that is not a valid event, for each trigger that it would have met."""
        named = self._admit(event, source)
        code, text = "invalid", f"rejected: {reason}"
        rules = self._by_source.get(source, ())
        draft = self._drafting.draft(named, rules)
        names: list[str | None] = [rule.trigger.name for rule in rules] or [None]
        outcomes = tuple(Outcome(trigger=name, outcome=EventOutcome.REJECTED, code=code, reason=text) for name in names)
        entry = Entry(event=draft.event, data=draft.data, outcomes=outcomes)
        answers: list[Accepted] = await self._journal.submit(Accept(entries=(entry,)))
        if self._counts is not None and not answers[0].duplicate:
            self._counts.met(source, answers[0].outcomes)
        return answers[0]

    def as_stored(self, source: str, event: Event) -> Event:
        """Return an event of a source as it would be stored, without what is redacted; raise InvalidEvent."""
        named, _ = self._admit(event, source)
        return self._drafting.redacted(named, self._by_source.get(source, ()))

    def says_the_same(self, stored: Event, again: Event, trigger: str | None = None) -> bool:
        """Tell whether an event of the API, or a fire of a trigger, says what the stored one of its key says."""
        rules = self._listeners(again) if trigger is None else [self._rules[trigger]]
        offered = self._drafting.redacted(self._admit(again, stored.source)[0], rules)
        said = [encode_json([one.type, one.subject, one.data]) for one in (stored, offered)]
        return said[0] == said[1]

    async def _cause(self, traceparent: str | None) -> Cause | None:
        """Return what caused an event that is handed in now; raise StoreUnavailable."""
        return None if self._causes is None else await self._causes.find(traceparent)

    def _admit(
        self, event: Event, source: str, cause: Cause | None = None, *, any_size: bool = False, surveyed: bool = False
    ) -> Admitted:
        """Check what is offered and fill in what the engine gives; raise InvalidEvent.

        `surveyed`: its data is known to be what JSON can hold, and not too deep.
        """
        _check_name("type", event.type)
        if event.subject is not None:
            _check_name("subject", event.subject)
        if event.key is not None:
            _check_name("key", event.key)
        _check_name("source", source)
        data = event.data
        if type(data) is Raw:
            data, encoded = read_json(bytes(data))
        else:
            if not surveyed:
                survey(data)
            encoded = encode_json(data)
        if len(encoded) > self._max_data_bytes and not any_size:
            raise InvalidEvent(
                f"an event's data is at most {format_size(self._max_data_bytes)} of JSON, this is "
                f"{format_size(len(encoded))}",
                status=413,
            )
        now = self._clock.now()
        time = now if event.time is None else _in_utc(event.time)
        priority = event.priority
        if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
            raise InvalidEvent("an event's priority is a whole number from 0 to 9", status=422)
        named = Event(
            id=new_id(), source=source, type=event.type, subject=event.subject, data=data,
            key=event.key, time=time, priority=priority, http=event.http, received_at=now,
            cause=cause, trace=None if self._tracing is None else self._tracing.origin(event.traceparent),
        )  # fmt: skip
        return named, encoded

    async def _commit(
        self, events: Sequence[Admitted], rules_of: Callable[[Event], Sequence[Rule]], origin: Origin, *, cursor:
        Cursor | None = None, memory: Memory | None = None, missed: tuple[Run, ...] = (), reason: str = "",
        bypass: frozenset[str] = frozenset(), caught_up: bool = False, backfill: MoveBackfill | None = None,
    ) -> list[Accepted]:  # fmt: skip
        """Decide what the events become, store it, and hand on what is ready."""
        doubted: set[str] = set()
        repeats = _repeats(events) if len(events) > 1 else ()
        for attempt in range(1, _TRIES + 1):
            drafts: list[Draft] = []
            apart = doubted if attempt == _TRIES else None
            stored: asyncio.Future[list[Accepted]] | None = None
            try:
                for place, admitted in enumerate(events):
                    met = rules_of(admitted[0])
                    draft = self._drafting.draft(admitted, met, again=origin is Origin.REPLAY)
                    draft.apart, draft.caught_up = apart, caught_up
                    drafts.append(draft)
                    if place not in repeats:
                        self._drafting.decide(draft, met, origin, reason, bypass)
                entries = tuple([draft.entry() for draft in drafts])
                change = Accept(entries=entries, missed=missed, cursor=cursor, memory=memory, backfill=backfill)
                stored = self._journal.submit(change)
                answers = await stored
            except asyncio.CancelledError:
                # Who emitted is gone, but the change was written or refused: its runs must not be left alone.
                if stored is None or stored.exception() is not None:
                    self._drafting.undo(drafts)
                else:
                    self._hand_on_all(drafts, stored.result())
                raise
            except Conflict:
                # A window that we joined, a run in our way, or a mark is not what it was taken for: decide anew.
                self._drafting.undo(drafts)
                for draft in drafts:
                    await self._drafting.learn(draft)
                    doubted.update(draft.in_the_way)
                if attempt == _TRIES:
                    raise
                continue
            except BaseException:
                self._drafting.undo(drafts)
                raise
            if log.isEnabledFor(logging.DEBUG):
                tell_accepted(events, answers)
            if missed:
                self._note_missed(missed)
            if self._hand_on_all(drafts, answers):
                # What starts at once goes first: whoever emitted has the answer a turn of the event loop later.
                await asyncio.sleep(0)
            return answers
        raise StoreUnavailable("the events could not be stored; try again")

    def _hand_on_all(self, drafts: Sequence[Draft], answers: Sequence[Accepted]) -> bool:
        launched = False
        for draft, answer in zip(drafts, answers, strict=True):
            if self._hand_on(draft, answer):
                launched = True
        return launched

    def _hand_on(self, draft: Draft, answer: Accepted) -> bool:
        """Give what is durable to dispatch; take back what the store found to be there already.

        Return whether a run starts with it.
        """
        launched = False
        if self._tracing is not None:
            self._tracing.accepted(draft.event, answer)
        if answer.duplicate:
            self.duplicates += 1
            self._drafting.undo([draft])
            return False
        self.accepted += 1
        if self._counts is not None:
            self._counts.met(draft.event.source, answer.outcomes)
        stored = answer.runs
        if draft.claims or draft.filled or draft.parts or draft.notes is not None:
            self._drafting.settle(draft)
        for run, event in draft.runs:
            if run.id not in stored:
                opened = tuple([window for window in draft.opened if window.run == run.id])
                # The marks name the run that was there; they are read when they are asked for.
                self._drafting.undo(
                    [replace(draft, runs=[(run, event)], opened=opened, joined=(), parts=(), notes=None)]
                )
                continue
            if draft.past_pause and run.state in WAITING:
                self._starter.let_pass(run)
            if run.state is RunState.RUNNING:
                self._starter.launch(run, event)
                launched = True
            elif run.state is RunState.QUEUED:
                self._starter.offer(run, event if len(draft.data) <= KEPT_DATA_BYTES else None)
            elif run.state is RunState.PENDING:
                self._starter.wait(run, event if len(draft.data) <= KEPT_DATA_BYTES else None)
            elif self._after is not None:
                self._after.note(run)
        return launched

    def _note_missed(self, missed: Sequence[Run]) -> None:
        if missed and self._after is not None:
            for run in missed:
                self._after.note(run)


def _repeats(events: Sequence[Admitted]) -> set[int]:
    """Return the places of events that one before them is already, by its key: they count nowhere once more."""
    offered: set[tuple[str, str]] = set()
    repeats: set[int] = set()
    for place, (event, _) in enumerate(events):
        if event.key is not None:
            if (event.source, event.key) in offered:
                repeats.add(place)
            offered.add((event.source, event.key))
    return repeats


def _check_name(what: str, text: Any) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_NAME:
        raise InvalidEvent(f"an event's {what} is text of 1 to {LONGEST_NAME} characters", status=422)
    if not text.isascii():
        survey(text)


def _name_of(rule: Rule) -> str:
    return rule.trigger.name


def _in_utc(time: Any) -> datetime:
    """Return an event's time in UTC; refuse what is no instant, or one that has no date there."""
    if not isinstance(time, datetime) or time.utcoffset() is None:
        raise InvalidEvent("an event's time is an instant with a time zone", status=422)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise InvalidEvent("an event's time is out of range", status=422) from None
