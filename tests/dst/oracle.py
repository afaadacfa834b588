"""The judge: reads what is stored after each commit, and what everybody saw at the end, and says what is wrong.

It knows contract section 8 and the plan, and nothing of how the engine works.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from engine.adaptive import ADAPTIVE_SOURCE
from engine.clock import from_microseconds, to_microseconds
from engine.config import Config
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import Conflict, EngineError
from engine.events import Accepted
from engine.replays import REPLAY_KEY, RETRY_KEY
from engine.runs import CANCELLING, ENDED, PRIORITY, TRANSITIONS, RunState
from engine.store.base import Result
from engine.store.changes import Accept, Change, Finish, accept_of
from engine.store.ledger import ledger as ledger_of
from engine.triggers import Trigger
from tests.dst.disk import Disk
from tests.dst.gone import Gone
from tests.dst.guarded import Guarded
from tests.dst.joined import Joined
from tests.dst.people import People
from tests.dst.plan import Plan
from tests.dst.shaped import Shaped
from tests.dst.started import Started
from tests.dst.turns import Clock
from tests.dst.world import World

BEGINNINGS = frozenset(
    {RunState.PENDING, RunState.QUEUED, RunState.HELD, RunState.RUNNING, RunState.SKIPPED, RunState.MISSED}
)
"""The states that a run may begin in."""

_STEERABLE = {
    "cancel": "state in ('pending', 'queued', 'held', 'retrying', 'running')",
    "hold": "state in ('pending', 'queued', 'held', 'retrying')",
    "release": "state = 'held' and code = 'held_by_hand'",
    "priority": "state in ('pending', 'queued', 'held', 'retrying')",
    "retry": f"state in ({', '.join(repr(str(state)) for state in sorted(ENDED - {RunState.MISSED}))})",
}

LARGEST_POOL = 3
"""What a pool may be made larger to, by those who ask for that."""

MOST_FINDINGS = 20


class Oracle:
    """Judges one simulation; `findings` holds what is wrong, in words."""

    def __init__(self, plan: Plan, config: Config, disk: Disk, clock: Clock) -> None:
        self.started = Started(config, disk, clock, self.find)
        self.gone = Gone(config, disk, clock, self.find)
        self.clock = clock
        self.plan = plan
        self.config = config
        self.disk = disk
        self.findings: list[str] = []
        self.commits = 0
        self._digest = blake2b(digest_size=8)
        self._traces: dict[str, list[Any]] = {}
        self._first_cursor: dict[str, datetime] = {}
        self._released: dict[str, int] = {}
        """When it was durable that a run had left its throttle."""
        self._ends_anew: set[str] = set()
        self._limits = {job.name: job.concurrency for job in config.jobs.values() if job.concurrency is not None}

    @property
    def digest(self) -> str:
        """What the same seed comes to each time: made of all that was committed, in order."""
        return self._digest.hexdigest()

    def find(self, what: str) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(f"{self.clock.now()}: {what}")

    # After each commit

    def see_commit(self, changes: Sequence[Change], results: Sequence[Result]) -> None:
        """Judge a batch in the moment in which it is durable."""
        self.commits += 1
        runs: dict[str, None] = {}
        for change, result in zip(changes, results, strict=True):
            self._see_refusal(change, result)
            self._digest.update(repr((type(change).__name__, result)).encode())
            accept = accept_of(change)
            if not isinstance(change, Accept):
                runs[change.run] = None
            if accept is None or isinstance(result, EngineError) or result is None:
                continue
            self._see_accept(accept, result)
            for entry in accept.entries:
                runs |= dict.fromkeys([run.id for run in entry.runs] + [join.run for join in entry.joins])
            runs |= dict.fromkeys(run.id for run in accept.missed)
        for run_id in runs:
            self._see_run(run_id)
        self._see_limits()
        self.gone.see_commit(changes)

    def _see_refusal(self, change: Change, result: Result) -> None:
        """Take note of an end that is decided anew, as what follows from it was decided by a mark that has moved.

        Its program is over, and its slot another's, before that is written.
        """
        if isinstance(change, Finish):
            if isinstance(result, Conflict):
                self._ends_anew.add(change.run)
            else:
                self._ends_anew.discard(change.run)

    def _see_accept(self, accept: Accept, answers: Sequence[Accepted]) -> None:
        self.started.see_accept(accept)
        cursors = [*accept.cursors, *([accept.cursor] if accept.cursor is not None else [])]
        for cursor in cursors:
            if cursor.source.startswith("timer:") and isinstance(cursor.value, str):
                self._first_cursor.setdefault(cursor.source, datetime.fromisoformat(cursor.value))
        for entry, answer in zip(accept.entries, answers, strict=True):
            rows = self._rows("select trigger, outcome, run from outcomes where event = ?", answer.event)
            if not rows:
                self.find(f"event {answer.event} was accepted and has no outcome")
            stored = Counter(run for _, _, run in rows if run is not None)
            if Counter(answer.runs) != stored:
                self.find(f"event {answer.event} was answered with runs {answer.runs}, stored are {sorted(stored)}")
            if not answer.duplicate and answer.event != entry.event.id:
                self.find(f"event {entry.event.id} was answered as {answer.event}")

    def _see_run(self, run_id: str) -> None:
        rows = self._rows(
            "select state, trace, attempts, attempt, due_at, closes_at, finished_at, code from runs where id = ?",
            run_id,
        )
        if not rows:
            return  # the change had no effect, or the run was there already under another id
        state, trace_text, attempts_text, attempt, due_at, closes_at, finished_at, code = rows[0]
        trace = json.loads(f"[{trace_text}]")
        before = self._traces.get(run_id)
        if before is not None and trace[: len(before)] != before:
            self.find(f"the trace of run {run_id} was {before} and is {trace}")
        self._traces[run_id] = trace
        told = len(trace)
        trace = [step for step in trace if step[2] not in (PRIORITY, CANCELLING)]
        states = [RunState(step[1]) for step in trace]
        if states[0] not in BEGINNINGS:
            self.find(f"run {run_id} begins as {states[0]}")
        start = 1 if before is None else max(len(before) - (told - len(trace)), 1)
        for place, (earlier, later) in enumerate(zip(states[start - 1 :], states[start:], strict=False), start):
            if later is RunState.QUEUED:
                self.started.see_queued(run_id)
            throttled = earlier is later is RunState.PENDING and trace[place][2] == "throttle"
            if trace[place - 1][2] == "throttle":
                self._released.setdefault(run_id, to_microseconds(self.clock.now()))
            if later not in TRANSITIONS[earlier] and not throttled:
                self.find(f"run {run_id} went from {earlier} to {later}")
        if before is None and states[0] is RunState.QUEUED:
            self.started.see_queued(run_id)
        if state == RunState.RUNNING and (before is None or len(before) < told) and trace[-1][1] == "running":
            self.started.see_start(run_id, trace[-1][0])
        if states[-1] != state:
            self.find(f"run {run_id} is {state}, its trace ends with {states[-1]}")
        if (state in ENDED) != (finished_at is not None):
            self.find(f"run {run_id} is {state}, and finished at {finished_at}")
        if state == RunState.PENDING and code in ("debounce", "batch") and closes_at is not None and due_at > closes_at:
            self.find(f"run {run_id} gathers until {due_at}, its window closes at {closes_at}")
        attempts = json.loads(f"[{attempts_text}]")
        started = states.count(RunState.RUNNING)
        if len(attempts) + (state == RunState.RUNNING) != started:
            self.find(f"run {run_id} was started {started} times, and tells of {len(attempts)} attempts as {state}")
        if attempt > started:
            self.find(f"run {run_id} counts {attempt} attempts, and was started {started} times")

    def _see_limits(self) -> None:
        over = ", ".join(f"'{run}'" for run in sorted(self._ends_anew))
        rows = self._rows(
            "select job, limit_key, count(*) from runs where state in ('running', 'held') and state = 'running' "
            f"and id not in ({over}) group by job, limit_key"
        )
        running: Counter[str] = Counter()
        for job, key, count in rows:
            running[job] += count
            limit = self._limits.get(job)
            if limit is not None and count > limit:
                self.find(f"the store shows {count} running runs of job {job} (key {key}), its limit is {limit}")
        for pool, most in self.config.pools.items():
            taken = sum(self.config.jobs[job].pools.get(pool, 0) * count for job, count in running.items())
            if taken > max(most, LARGEST_POOL):
                self.find(f"running runs take {taken} of pool {pool}, it may be {most}, or {LARGEST_POOL}")
        total = running.total()
        if total > self.config.engine.concurrency:
            self.find(f"the store shows {total} running runs, the limit is {self.config.engine.concurrency}")

    def why_not_running(self, run_id: str, attempt: int) -> str:
        """Say why an attempt may not begin by what is stored; nothing where it may."""
        rows = self._rows("select state, attempt from runs where id = ?", run_id)
        if not rows:
            return "it is not stored"
        return "" if rows[0] == ("running", attempt) else f"it is stored as {rows[0][0]}, attempt {rows[0][1]}"

    def not_begun(self, world: World) -> frozenset[str]:
        """Return the runs whose start is durable, and whose program has not begun."""
        rows = self._rows("select id, attempt from runs where state = 'running'")
        return frozenset(run for run, attempt in rows if attempt not in world.begun.get(run, ()))

    def choose(self, what: str, which: int) -> str | None:
        """Name a run that something may be asked of, or an event that may be replayed; None where there is none."""
        if what == "replay":
            query = "select id from events where source not like 'engine:%' order by seq"
        else:
            query = f"select id from runs where {_STEERABLE[what]} order by seq"
        found = self.disk.reader.execute(query).fetchall()
        return str(found[which % len(found)][0]) if found else None

    def held_by_hand(self) -> list[str]:
        """Return the runs that somebody holds."""
        return [run for (run,) in self._rows("select id from runs where state = 'held' and code = 'held_by_hand'")]

    def keys_of(self, source: str) -> list[str]:
        """Return the keys of the events of a source, in their order, but for those that were run again."""
        rows = self._rows("select key from events where source = ? order by seq", source)
        return [key for (key,) in rows if not _is_again(key)]

    # Whenever nothing is going on

    def open_runs(self) -> int:
        """Return how many runs have not ended."""
        ended = ", ".join(f"'{state}'" for state in ENDED)
        return int(self._rows(f"select count(*) from runs where state not in ({ended})")[0][0])

    def see_ledger(self) -> None:
        """Add up the ledger as the engine itself does, and as it says it must be."""
        ledger = ledger_of(self.disk.reader)
        for line in ledger.missing:
            self.find(f"ledger: {line}")
        if ledger.accepted != ledger.ended + ledger.waiting + ledger.purged:
            sums = f"{ledger.ended} ended, {ledger.waiting} waiting, {ledger.purged} gone"
            self.find(f"ledger: {ledger.accepted} accepted, {sums}")

    def see_end(self, world: World, people: People, now: datetime) -> None:
        """Judge the whole story, once nothing is left to do."""
        self.see_ledger()
        checks = (
            self._integrity(), self._unique(), self._outcomes(), self._receipts(world), self._runs(world),
            self._feeds(), self._instants(now), self._backfills(people), self._cancelled(world, people),
            self.gone.left(),
            Joined(self.plan, self.config, self.disk).findings(
                stepped_back=any(seconds < 0 for _, seconds in world.steps)
            ),
            Guarded(self.plan, self.config, self.disk, people.released).findings(
                stepped=any(seconds for _, seconds in world.steps)
            ),
            Shaped(self.plan, self.config, self.disk, self._released).findings(
                stepped=any(seconds for _, seconds in world.steps),
                stepped_back=any(seconds < 0 for _, seconds in world.steps),
            ),
        )  # fmt: skip
        for check in checks:
            for finding in check:
                self.find(finding)

    def untold(self, now: datetime) -> str:
        """Return the first due instant that has neither a run nor a reason, in words; nothing where each has."""
        return next(self._instants(now), "")

    def _integrity(self) -> Iterator[str]:
        yield from (f"integrity: {row[0]}" for row in self._rows("pragma integrity_check") if row[0] != "ok")

    def _unique(self) -> Iterator[str]:
        rows = self._rows(
            "select source, key, count(*) from events where key is not null group by 1, 2 having count(*) > 1"
        )
        yield from (f"{count} events of {source} have the key {key}" for source, key, count in rows)
        rows = self._rows("select trigger, origin, key, count(*) from runs group by 1, 2, 3 having count(*) > 1")
        yield from (f"{count} runs of {trigger}, {origin}, have the key {key}" for trigger, origin, key, count in rows)

    def _outcomes(self) -> Iterator[str]:
        """Each event has exactly the outcomes that its source brings it."""
        outcomes: dict[str, set[str]] = defaultdict(set)
        for event, trigger in self._rows("select event, trigger from outcomes"):
            outcomes[event].add(trigger)
        for event, source, type_, subject, key in self._rows("select id, source, type, subject, key from events"):
            if _is_again(key):
                continue
            expected = self._expected(source, type_, subject) or {""}
            if {trigger or "" for trigger in outcomes[event]} != expected:
                yield f"event {event} of {source} has outcomes at {sorted(outcomes[event])}, not at {sorted(expected)}"

    def _expected(self, source: str, type_: str, subject: str | None) -> set[str]:
        met = self.plan.met
        if source == ADAPTIVE_SOURCE:
            return set()
        if source == "manual" or source.startswith("backfill:"):
            return {str(subject)}
        if source.startswith("timer:"):
            return {source.removeprefix("timer:")}
        if source == "shop":
            return {
                name for name, one in met.items() if any(way.kind == "heard" and way.of == type_ for way in one.each)
            }
        if source.startswith("job:"):
            job = source.removeprefix("job:")
            return {name for name, one in met.items() if any(way.kind == "ends" and way.of == job for way in one.each)}
        return {name for name, trigger in self.config.triggers.items() if source in sources_of(trigger)}

    def _receipts(self, world: World) -> Iterator[str]:
        """What was acknowledged is stored, as it was said (promise 1)."""
        stored = {
            (source, key): event for event, source, key in self._rows("select id, source, key from events")
        }  # fmt: skip
        runs: dict[str, set[str]] = defaultdict(set)
        for event, run in self._rows("select event, run from outcomes where run is not null"):
            runs[event].add(run)
        known = set(stored.values())
        for receipt in world.receipts:
            if receipt.source is None:
                if receipt.event not in known or not set(receipt.runs) <= runs[receipt.event]:
                    yield f"{receipt.key} was answered with event {receipt.event}, which is not there, or not so"
            elif stored.get((receipt.source, receipt.key)) != receipt.event:
                yield f"{receipt.key} of {receipt.source} was acknowledged as event {receipt.event}, and is not stored"
            elif set(receipt.runs) != runs[receipt.event]:
                yield f"{receipt.key} of {receipt.source} was answered with {receipt.runs}, not {runs[receipt.event]}"

    def _feeds(self) -> Iterator[str]:
        for label, items in self.plan.feeds.items():
            for source in feeds_of(self.plan, self.config, label):
                keys = self.keys_of(source)
                if keys != [item.key for item in items]:
                    yield f"feed {label} has {len(items)} items, stored are {len(keys)}, or in another order"

    def _runs(self, world: World) -> Iterator[str]:
        """No run is in limbo; what is told of attempts is what happened."""
        columns = "id, job, trigger, state, code, attempts, attempt"
        known = set()
        for run_id, job_name, trigger, state, code, text, counted in self._rows(f"select {columns} from runs"):
            known.add(run_id)
            if state not in ENDED:
                yield f"run {run_id} of {trigger} is still {state} ({code})"
            attempts, begun = json.loads(f"[{text}]"), world.begun.get(run_id, [])
            if len(begun) > len(attempts):
                yield f"run {run_id} was begun {len(begun)} times, and tells of {len(attempts)} attempts"
            job = self.config.jobs[job_name]
            change = self.config.triggers[trigger].retry
            policy = job.retry if change is None else change.applied(job.retry)
            if counted > policy.attempts:
                yield f"run {run_id} of {trigger} had {counted} attempts, it may have {policy.attempts}"
            if state == RunState.SUCCEEDED and (run_id, attempts[-1][0]) not in world.done:
                yield f"run {run_id} of {trigger} succeeded, and its program did not"
            if job.on_crash == "fail" and len(begun) > world.cut_off.get(run_id, len(begun)):
                yield f"run {run_id} was begun again after a crash, and its job says to fail it"
        yield from (f"run {run_id} was begun, and is not stored" for run_id in world.begun.keys() - known)

    def _instants(self, now: datetime) -> Iterator[str]:
        """Each due instant since a timer is there has an event, or is told of as missed; none has two."""
        for trigger in self.config.triggers.values():
            schedule = schedule_of(trigger)
            since = self._first_cursor.get(f"timer:{trigger.name}")
            if schedule is None or trigger.adaptive is not None:
                continue
            if since is None:
                yield f"timer {trigger.name} never had a cursor"
                continue
            yield from self._instants_of(trigger.name, schedule, since, now)

    def _instants_of(self, name: str, schedule: Schedule, since: datetime, now: datetime) -> Iterator[str]:
        rows = self._rows("select time, key from events where source = ?", f"timer:{name}")
        events = Counter(from_microseconds(at) for at, key in rows if not _is_again(key))
        missed: set[datetime] = set()
        spans: list[tuple[datetime, datetime]] = []
        rows = self._rows("select scheduled_for, outputs from runs where trigger = ? and state = 'missed'", name)
        for at, outputs in rows:
            if outputs is None:
                missed.add(from_microseconds(at))
            else:
                told = json.loads(outputs)
                spans.append((datetime.fromisoformat(told["first"]), datetime.fromisoformat(told["last"])))
        yield from (f"instant {at} of {name} has {count} events" for at, count in events.items() if count > 1)
        due = schedule.next(since)
        while due is not None and schedule.fires_at(due) <= now - timedelta(seconds=60):
            told_of = due in events or due in missed or any(first <= due <= last for first, last in spans)
            if not told_of:
                yield f"instant {due} of {name} has neither a run nor a reason"
            due = schedule.next(due)

    def _cancelled(self, world: World, people: People) -> Iterator[str]:
        for run, begun in people.cancelled.items():
            if len(world.begun.get(run, ())) > begun:
                yield f"run {run} was said to be cancelled, and began again"

    def _backfills(self, people: People) -> Iterator[str]:
        """Each backfill that was begun has come to its end, and each of its instants to one event."""
        rows = self._rows("select id, state, total, position from backfills")
        known = {row[0] for row in rows}
        yield from (f"backfill {one} was begun, and is not stored" for one in set(people.backfills) - known)
        for backfill, state, total, position in rows:
            count = len(self.keys_of(f"backfill:{backfill}"))
            if state not in ("completed", "cancelled"):
                yield f"backfill {backfill} is still {state}"
            if count != position or (state == "completed" and count != total):
                yield f"backfill {backfill} ({state}) is at {position} of {total}, its events are {count}"

    def counts(self) -> Mapping[str, int]:
        """Return how many runs ended how, for people."""
        return dict(self._rows("select state, count(*) from runs group by state order by state"))

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self.disk.story.execute(query, values).fetchall()


def sources_of(trigger: Trigger) -> Sequence[str]:
    """Return the sources that a trigger is on."""
    return [one.source for one in trigger.inputs] or [trigger.source]


def feeds_of(plan: Plan, config: Config, label: str) -> set[str]:
    """Return the sources that tell of what happens at a feed."""
    return {
        source
        for name, met in plan.met.items()
        for way, source in zip(met.each, sources_of(config.triggers[name]), strict=True)
        if way.kind == "feed" and way.of == label
    }


def _is_again(key: str | None) -> bool:
    """Tell whether an event is one that somebody had run again."""
    return key is not None and key.startswith((REPLAY_KEY, RETRY_KEY))
