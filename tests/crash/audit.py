"""Adding up: what was acknowledged, what the store holds, and what the jobs saw, each against the others.

What is read is the store's file itself; the engine's own ledger is asked too, and must agree.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from engine.runs import ADOPTED, ENDED, RunState
from engine.store.sqlite import SqliteStore
from tests.crash.feeders import Feeder, Load
from tests.crash.process import marked
from tests.crash.site import Site, Witnessed

EXPECTED = {
    "timer:tick": {"tick"},
    "webhook:hook": {"hook"},
    "webhook:gather": {"gather"},
    "webhook:keyed": {"keyed"},
    "webhook:heavy": {"heavy"},
    "webhook:light": {"light"},
    "webhook:kept": {"kept"},
    "manual": {"by-hand"},
    "api": {"heard", "heard-too"},
    "trigger_dir:": {"dropped"},
    "files:watched": {"watched"},
    "files:/": {"claimed"},
    "database:orders": {"ordered"},
    "database:stock": {"stocked"},
    "http:feed": {"fed"},
    "job:": {"after"},
}
"""The triggers that an event of each source meets; `after` is on the ends of the runs of FOLLOWED."""

FOLLOWED = {"fragile", "awaited"}

MOST_ATTEMPTS = 4
"""A run whose program is killed again and again is given up after so many."""

_GAP = re.compile(r"missed: (more than )?([\d,]+) due instants from (\S+) to ([^\s,]+)")
_OUTCOMES = {"run", "joined", "filtered"}
_ATTEMPTS = {"succeeded", "exit_code", "function_raised", "engine_died", "interrupted", "crash_loop"}
"""How attempts may end here: nothing but the engine's own deaths and stops comes in a job's way."""


class Attempt(Struct, frozen=True, kw_only=True):
    """An attempt as the store holds it; instants in seconds since 1970."""

    number: int
    started_s: float
    finished_s: float
    state: str
    code: str


class StoredRun(Struct, frozen=True, kw_only=True):
    """A run as the store holds it; the trace is a list of (microseconds, state, code, reason)."""

    id: str
    job: str
    trigger: str
    origin: str
    key: str
    first_event: str
    event_count: int
    state: str
    code: str
    scheduled_for: int | None
    limit_key: str | None
    trace: list[Any]
    attempts: list[Attempt]


class Sum(Struct, kw_only=True):
    """What adding up came to: `findings` must be empty; `counts` is for people."""

    counts: dict[str, int]
    findings: list[str]


def read_runs(site: Site) -> dict[str, StoredRun]:
    """Return all runs of a site's store by id."""
    columns = (
        "id, job, trigger, origin, key, first_event, event_count, state, code, scheduled_for, trace, "
        "attempts, limit_key"
    )
    found = {}
    for row in site.rows(f"select {columns} from runs order by id"):
        attempts = [
            Attempt(number=number, started_s=started / 1e6, finished_s=finished / 1e6, state=state, code=code)
            for number, started, finished, state, code, *_ in json.loads(f"[{row[11]}]")
        ]
        found[row[0]] = StoredRun(
            id=row[0], job=row[1], trigger=row[2], origin=row[3], key=row[4], first_event=row[5],
            event_count=row[6], state=row[7], code=row[8], scheduled_for=row[9], limit_key=row[12],
            trace=json.loads(f"[{row[10]}]"), attempts=attempts,
        )  # fmt: skip
    return found


def add_up(site: Site, load: Load | None = None, *, killed: Collection[tuple[str, int]] = ()) -> Sum:
    """Add up a site whose engine has stopped; every finding is a broken promise, in words.

    `killed` are the attempts, by run and number, whose programs were killed.
    """
    runs = read_runs(site)
    witnessed = site.witnessed()
    checks: list[Iterable[str]] = [
        _store(site),
        _events(site),
        _outcomes(site, runs),
        _ends(runs, killed),
        _due_seconds(runs),
        _followed(site, runs),
        _starts(site, runs, witnessed),
        _limits(site, runs, witnessed),
        _orphans(site, runs),
    ]
    if load is not None:
        checks += [_acknowledged(site, feeder, load) for feeder in load.http]
        checks += [(*one.problems, *one.findings()) for one in load.outside]
    findings = [finding for check in checks for finding in check]
    return Sum(counts=_counts(site, runs, witnessed, load), findings=findings)


def _store(site: Site) -> Iterator[str]:
    """Check the file itself, and ask the engine's own ledger."""
    for (line,) in site.rows("pragma integrity_check"):
        if line != "ok":
            yield f"integrity: {line}"

    async def ask() -> Any:
        store = SqliteStore(site.database, read_only=True)
        await store.open()
        try:
            return await store.ledger()
        finally:
            await store.close()

    ledger = asyncio.run(ask())
    yield from (f"ledger: {line}" for line in ledger.missing)
    if ledger.waiting or ledger.accepted != ledger.ended:
        yield f"ledger: {ledger.accepted} accepted, {ledger.ended} ended, {ledger.waiting} waiting"


def _events(site: Site) -> Iterator[str]:
    """Each occurrence is one event, by its key and by what its sender wrote into it (I2)."""
    query = "select source, key, count(*) from events where key is not null group by 1, 2 having count(*) > 1"
    for source, key, count in site.rows(query):
        yield f"{count} events of {source} have the key {key}"
    offers = Counter(
        (data["feeder"], data["n"])
        for (text,) in site.rows("select data from events where json_extract(data, '$.feeder') is not null")
        for data in [json.loads(text)]
    )
    yield from (f"offer {offer} is stored {count} times" for offer, count in offers.items() if count > 1)


def _acknowledged(site: Site, feeder: Feeder, load: Load) -> Iterator[str]:
    """Nothing that was acknowledged is missing, and the answer named what is stored (I1)."""
    yield from feeder.problems
    stored = {
        json.loads(data)["n"]: event
        for event, data in site.rows(
            "select id, data from events where json_extract(data, '$.feeder') = ?", (feeder.name,)
        )
    }
    outcomes: dict[str, set[str]] = defaultdict(set)
    for event, run in site.rows("select event, run from outcomes where run is not null"):
        outcomes[event].add(run)
    for number, receipt in feeder.receipts.items():
        if stored.get(number) != receipt.event:
            yield f"{feeder.name} {number}: event {receipt.event} was acknowledged and is not stored"
        elif set(receipt.runs) != outcomes[receipt.event]:
            yield f"{feeder.name} {number}: answered runs {receipt.runs}, stored {outcomes[receipt.event]}"
    known = {number for twin in load.http if twin.name == feeder.name for number in twin.receipts}
    unknown = stored.keys() - known
    if len(unknown) > feeder.unsure:
        yield f"{feeder.name}: {len(unknown)} events are too many, {feeder.unsure} offers had no answer"


def _outcomes(site: Site, runs: Mapping[str, StoredRun]) -> Iterator[str]:
    """Each event has one outcome for each trigger that it met, and each run an event that tells of it."""
    met: dict[str, dict[str, tuple[str, str | None]]] = defaultdict(dict)
    for event, trigger, outcome, run in site.rows("select event, trigger, outcome, run from outcomes"):
        met[event][trigger] = (outcome, run)
        if outcome not in _OUTCOMES:
            yield f"event {event} is {outcome} at {trigger}"
        if run is not None and (run not in runs or runs[run].trigger != trigger):
            yield f"event {event} at {trigger} names run {run}, which is not one of that trigger"
    for event, source in site.rows("select id, source from events"):
        wanted = next((names for start, names in EXPECTED.items() if source.startswith(start)), None)
        if wanted is not None and met[event].keys() != wanted & site.triggers:
            yield f"event {event} of {source} has outcomes at {sorted(met[event])}, not at {sorted(wanted)}"
    for run in runs.values():
        if run.event_count and met[run.first_event].get(run.trigger) != ("run", run.id):
            yield f"run {run.id} of {run.trigger} is not the outcome of its event {run.first_event}"


def _ends(runs: Mapping[str, StoredRun], killed: Collection[tuple[str, int]]) -> Iterator[str]:
    """No run is in limbo (I5), and none failed for a reason that is not known here."""
    for run in runs.values():
        if run.state not in ENDED:
            yield f"run {run.id} of {run.trigger} is still {run.state}"
        elif run.code == "overlap":
            yield from _skip(run, runs)
        elif run.code == "signal" and run.attempts and len(run.attempts) >= MOST_ATTEMPTS:
            pass  # each of its attempts was killed, which is looked at below
        elif run.state not in ("succeeded", "missed") and run.code not in ("engine_died", "crash_loop"):
            yield f"run {run.id} of {run.trigger} is {run.state}: {run.trace[-1][3]}"
        if run.state == "missed" and run.origin != "schedule":
            yield f"run {run.id} of {run.trigger} is missed, and was never due"
        for attempt in run.attempts:
            if attempt.code not in _ATTEMPTS and not (attempt.code == "signal" and (run.id, attempt.number) in killed):
                yield f"run {run.id} of {run.trigger}: an attempt ended as {attempt.state} ({attempt.code})"


def _skip(run: StoredRun, runs: Mapping[str, StoredRun]) -> Iterator[str]:
    """An instant was skipped only as another one of its trigger waited."""
    at, *_, reason = run.trace[-1]
    other = next((runs[word] for word in reason.split() if word in runs), None)
    if run.state != "skipped" or run.origin != "schedule" or run.attempts or other is None:
        yield f"run {run.id} of {run.trigger} is {run.state}: {reason}"
    elif other.trigger != run.trigger or not other.trace[0][0] <= at <= other.trace[-1][0]:
        yield f"run {run.id} of {run.trigger} is skipped for run {other.id}, which did not wait then"


def _due_seconds(runs: Mapping[str, StoredRun]) -> Iterator[str]:
    """Each due second from the first to the last has one run, or is told of as missed (A5)."""
    told: Counter[datetime] = Counter()
    for run in runs.values():
        if run.trigger != "tick" or run.scheduled_for is None:
            continue
        gap = _GAP.match(run.trace[-1][3])
        first = datetime.fromtimestamp(run.scheduled_for / 1e6, UTC)
        last = first if gap is None else datetime.fromisoformat(gap[4])
        seconds = round((last - first).total_seconds()) + 1
        if gap is not None and not gap[1] and int(gap[2].replace(",", "")) != seconds:
            yield f"run {run.id} tells of {gap[2]} due seconds, and names {seconds}"
        told.update(first + timedelta(seconds=second) for second in range(seconds))
    if not told:
        return
    at, end = min(told), max(told)
    while at <= end:
        if told[at] != 1:
            yield f"due second {at:%H:%M:%S} has {told[at]} runs"
        at += timedelta(seconds=1)


def _followed(site: Site, runs: Mapping[str, StoredRun]) -> Iterator[str]:
    """Each end of a run of a job that is followed is one event; that this has its run is seen at the outcomes."""
    if "after" not in site.triggers:
        return
    query = "select source, type, key, count(*) from events where source like 'job:%' group by 1, 2, 3"
    told = Counter({(source, type_, key): count for source, type_, key, count in site.rows(query)})
    ended = {
        (f"job:{run.job}", f"engine.run.{run.state}", run.id)
        for run in runs.values()
        if run.job in FOLLOWED and run.state in ENDED and run.state != "missed"
    }
    for end in ended | told.keys():
        if (count := told[end]) != int(end in ended):
            yield f"the end {end} is {count} events"


def _starts(site: Site, runs: Mapping[str, StoredRun], witnessed: Sequence[Witnessed]) -> Iterator[str]:
    """No run was started without an attempt that tells of it, and what succeeded was done (I3)."""
    starts: dict[str, Counter[int]] = defaultdict(Counter)
    done: set[tuple[str, int]] = set()
    for line in witnessed:
        if line.what == "start":
            starts[line.run][line.attempt] += 1
        elif line.what == "stop":
            done.add((line.run, line.attempt))
    for run_id, numbers in starts.items():
        run = runs.get(run_id)
        if run is None:
            yield f"run {run_id} was started and is not stored"
            continue
        retries = sum(attempt.code == "signal" for attempt in run.attempts)
        if site.jobs[run.job].on_crash == "fail" and numbers.total() > 1 + retries:
            yield f"run {run_id} was started {numbers.total()} times, and its job says to fail it at a crash"
        told = Counter(attempt.number for attempt in run.attempts)
        for number, count in numbers.items():
            if count > told[number]:
                yield f"run {run_id}: attempt {number} was started {count} times, told {told[number]} times"
    for run_id, number in done:
        run = runs.get(run_id)
        if run is not None and site.jobs[run.job].on_crash == "adopt" and starts[run_id][number] > 1:
            yield f"run {run_id} came to its end, and its attempt {number} was started again: its job says to adopt it"
    for run in runs.values():
        if run.state == "succeeded" and (run.id, run.attempts[-1].number) not in done:
            yield f"run {run.id} of {run.trigger} succeeded, and its program never came to its end"


def _limits(site: Site, runs: Mapping[str, StoredRun], witnessed: Sequence[Witnessed]) -> Iterator[str]:
    """Limits held at every instant, as the jobs saw it and as the store tells it."""
    for line in witnessed:
        if line.what not in ("start", "stop", "fail"):
            yield f"{line.what}: run {line.run} of job {line.job}, attempt {line.attempt}, at {line.at_s:.2f}"
    for name, job in site.jobs.items():
        by_key: dict[str | None, list[StoredRun]] = defaultdict(list)
        for run in runs.values():
            if run.job == name:
                by_key[run.limit_key].append(run)
                if (run.limit_key is None) == (job.key is not None):
                    yield f"run {run.id} of job {name} has the key {run.limit_key}"
        for key, mine in by_key.items():
            most = _most_at_once(mine)
            if job.limit is not None and most > job.limit:
                yield f"job {name} had {most} runs of key {key} at once by the store, its limit is {job.limit}"
    for pool, limit in site.pools.items():
        weights = {name: job.weight for name, job in site.jobs.items() if job.pool == pool}
        most = _most_at_once((run for run in runs.values() if run.job in weights), weights)
        if most > limit:
            yield f"of pool {pool} {most} were taken at once by the store, it holds {limit}"
    most = _most_at_once(runs.values())
    if most > site.concurrency:
        yield f"the engine had {most} runs at once by the store, its limit is {site.concurrency}"


def _most_at_once(runs: Iterable[StoredRun], weights: Mapping[str, int] | None = None) -> int:
    changes = []
    for run in runs:
        weight = 1 if weights is None else weights[run.job]
        for attempt in run.attempts:
            changes += [(attempt.started_s, weight), (attempt.finished_s, -weight)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _orphans(site: Site, runs: Mapping[str, StoredRun]) -> Iterator[str]:
    for pid, run in marked(runs.keys()).items():
        yield f"process {pid} of run {run} is left"


def _counts(
    site: Site, runs: Mapping[str, StoredRun], witnessed: Sequence[Witnessed], load: Load | None
) -> dict[str, int]:
    attempts = [attempt for run in runs.values() for attempt in run.attempts]
    stops = Counter(line.run for line in witnessed if line.what == "stop")
    counts = {
        "events": site.rows("select count(*) from events")[0][0],
        "joined": site.rows("select count(*) from outcomes where outcome = 'joined'")[0][0],
        "runs": len(runs),
        "missed": sum(run.state == "missed" for run in runs.values()),
        "failed": sum(run.state == "failed" for run in runs.values()),
        "attempts": len(attempts),
        "cut off": sum(attempt.code == "engine_died" for attempt in attempts),
        "killed": sum(attempt.code == "signal" for attempt in attempts),
        "interrupted": sum(attempt.code == "interrupted" for attempt in attempts),
        "adopted": sum(step[2] == ADOPTED for run in runs.values() for step in run.trace),
        "retried": sum(step[1] == RunState.RETRYING for run in runs.values() for step in run.trace),
        "done twice": sum(count > 1 for count in stops.values()),
    }
    if load is not None:
        counts["acknowledged"] = sum(len(feeder.receipts) for feeder in load.http)
        counts["changes"] = sum(one.made for one in load.outside)
        counts["duplicates answered"] = sum(feeder.duplicates for feeder in load.http)
    return counts
