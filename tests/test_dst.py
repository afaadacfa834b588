"""Deterministic simulation: some seeds find nothing, a seed does the same each time, and what is broken is noticed.

`python -m tests.dst --seeds 1-5000 --minutes 60` is the long one; a seed that fails is looked at with `--seed N --log`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from engine.backlog import Backlog
from engine.conditions import Conditions
from engine.decide import gcra, shaping
from engine.decide.breakers import Count
from engine.decide.joins import JoinWindow
from engine.decide.limits import Slots
from engine.decide.shaping import Windows
from engine.dispatch import organ as dispatch_organ
from engine.dispatch import timing as dispatch_timing
from engine.events import Event
from engine.gates import Gates
from engine.housekeeping import Housekeeping
from engine.housekeeping.rounds import Cut
from engine.ids import new_id
from engine.intake import drafts
from engine.intake import shaping as intake_shaping
from engine.intake.door import Intake
from engine.intake.guarding import Guarding
from engine.maintenance import Maintenance
from engine.runtime import Runtime
from engine.shaping import Shaper, throttle
from engine.store import boots, purging
from engine.store.base import Result
from engine.store.changes import Accept, Change, Finish, accept_of
from engine.store.sqlite import _fresh
from engine.timers import firings, organ
from tests.dst.deciding import CALLS
from tests.dst.disk import SimulatedStore
from tests.dst.plan import plan_of
from tests.dst.simulate import simulate

SAMPLE, SAMPLE_MINUTES = "1-40", 1.2
"""The fast tier runs these seeds, as many of them as a machine does in this time."""


def dst(*arguments: str, timeout_s: float) -> str:
    """Run the command; return what it prints, once it has found nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.dst", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(300)
def test_a_sample_of_seeds_lives_through_a_week_without_a_finding() -> None:
    told = dst("--seeds", SAMPLE, "--minutes", str(SAMPLE_MINUTES), timeout_s=280)
    assert "failed: none" in told
    assert told.count("ok seed") >= 3


@pytest.mark.full
@pytest.mark.timeout(4500)
def test_an_hour_of_seeds_finds_nothing() -> None:
    dst("--seeds", "10000-99999", "--minutes", "60", timeout_s=4400)


@pytest.mark.timeout(120)
def test_a_seed_does_the_same_in_another_process_after_other_seeds() -> None:
    alone = dst("--seed", "18", timeout_s=100).splitlines()[0]
    assert alone in dst("--seeds", "17-18", timeout_s=100).splitlines()


def test_seeds_differ_in_what_they_configure_and_bring() -> None:
    plans = [plan_of(seed) for seed in range(60)]
    configs = "\n".join(plan.config for plan in plans)
    for word in (
        "cron", "interval", "at", "feed", "event", "run", "debounce", "overlap", "retry", "misfire", "jitter", "batch",
        "throttle", "rate_limit", "dedupe", "expires", "max_waiting", "max_events", "bytes", "edge", "take",
        "conditions", "otherwise", "shadow", "on_error", "maintenance", "latest", "drop", "cancel", "adaptive",
        "reserve", "queue", "concurrency_key", "pools", "{{", "join", "all", "any", "breaker", "schema", "max_hops",
        "keep",
    ):  # fmt: skip
        assert word in configs
    assert {plan.disk_bytes is None for plan in plans} == {True, False}
    hazards = {hazard.kind for plan in plans for hazard in plan.hazards}
    assert hazards == {"crash", "ambush", "stop", "step", "weather", "freeze"}
    calls = {call.kind for plan in plans for call in plan.calls}
    assert calls == {"emit", "fire", "pause", "resume", "backfill", "turn", "release", *CALLS}


# What is broken on purpose

Applies = Callable[[Sequence[Change]], Any]


def _between(store: SimulatedStore, around: Callable[[Applies, Sequence[Change]], Any]) -> None:
    apply = store.apply
    setattr(store, "apply", lambda changes: around(apply, changes))  # noqa: B010 - a method can't be assigned


def loses_events(runtime: Runtime, store: SimulatedStore) -> None:
    """Answer one batch of events as durable without storing it."""
    left = [3]

    async def around(apply: Applies, changes: Sequence[Change]) -> list[Result]:
        accepts = [change for change in changes if isinstance(change, Accept) and change.entries]
        left[0] -= bool(accepts)
        results: list[Result] = await apply([] if left[0] == 0 and len(accepts) == len(changes) else changes)
        return results or [_fresh(change) for change in changes]

    _between(store, around)


def forgets_ends(runtime: Runtime, store: SimulatedStore) -> None:
    """Never store the end of the tenth attempt."""
    left = [10]

    async def around(apply: Applies, changes: Sequence[Change]) -> list[Result]:
        kept = []
        for change in changes:
            left[0] -= isinstance(change, Finish)
            if not (isinstance(change, Finish) and left[0] == 0):
                kept.append(change)
        results: list[Result] = await apply(kept)
        return results if len(kept) == len(changes) else [None] * len(changes)

    _between(store, around)


def breaks_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "blocks", lambda self, *asked: None)


def hides_missed_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of one missed instant less than there are."""
    firing_of = firings.firing_of

    def hides_one(state: Any, found: Any, now: Any) -> Any:
        firing = firing_of(state, found, now)
        return replace(firing, missed=firing.missed[1:])

    monkeypatch.setattr(organ, "firing_of", hides_one)


def keeps_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store events of feeds under keys of their own, so that a second delivery is a second event."""
    admit = Intake._admit

    def without_key(self: Intake, event: Event, source: str, *given: Any, **options: Any) -> tuple[Event, bytes]:
        admitted, data = admit(self, event, source, *given, **options)
        return (replace(admitted, key=new_id()) if source.startswith("feed") else admitted), data

    monkeypatch.setattr(Intake, "_admit", without_key)


def knows_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything pass, however much it is."""
    monkeypatch.setattr(gcra, "free_at", lambda rate, tat_us, now_us: now_us)


def gathers_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put windows off beyond their longest wait."""
    monkeypatch.setattr(shaping, "next_due", lambda rule, at, closes_at: at + timedelta(seconds=rule.wait_s))
    monkeypatch.setattr(intake_shaping, "next_due", shaping.next_due)


def believes_old_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use what conditions answered for ever."""

    def known(self: Conditions, name: str) -> Any:
        state = self._states[name]
        if state.reading is None:
            state.owed = True
            self._checks.begin(self._holding[name])
        return state.reading

    monkeypatch.setattr(Conditions, "_known", known)


def forgets_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have maintenance windows concern every second trigger alone."""
    concerns = Maintenance.concerns
    monkeypatch.setattr(
        Maintenance, "concerns", lambda self, rule: int(rule.trigger.name[1:]) % 2 == 0 and concerns(self, rule)
    )


def loses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count every twentieth run among those that wait for ever."""
    removing, left = Backlog.removing, count(1)

    def forgetful(self: Backlog, trigger: str) -> Callable[[Any], None]:
        return (lambda stored: None) if next(left) % 20 == 0 else removing(self, trigger)

    monkeypatch.setattr(Backlog, "removing", forgetful)


def expires_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs begin, and wait, however late."""
    monkeypatch.setattr(dispatch_organ, "is_over", lambda run, now: False)
    monkeypatch.setattr(dispatch_timing, "is_over", lambda run, now: False)
    monkeypatch.setattr(Shaper, "_expire", lambda self: anyio.sleep_forever())


def is_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Miss every fourth change that a gate tells of."""
    changed, heard = Gates.changed, count(1)

    def deaf(self: Gates, names: Any) -> None:
        if next(heard) % 4:
            changed(self, names)

    monkeypatch.setattr(Gates, "changed", deaf)


def opens_windows_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not see every third window that is open."""
    find, asked = Windows.find, count(1)
    monkeypatch.setattr(Windows, "find", lambda self, *place: None if next(asked) % 3 == 0 else find(self, *place))


def joins_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every join to be complete."""
    monkeypatch.setattr(JoinWindow, "missing", property(lambda self: []))


def breaks_no_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let breakers take any number of events for few."""
    monkeypatch.setattr(Count, "let_through", lambda self, rule, now_us: True)


def reads_no_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "misfit", lambda *asked: None)


def counts_no_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guarding, "too_far", lambda *asked: None)


def puts_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let start in a heap what waited while the store was away."""
    monkeypatch.setattr(throttle, "LATE", timedelta(days=9))


def keeps_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what is over to be older than it is."""
    by_age = Cut.by_age
    monkeypatch.setattr(Cut, "by_age", staticmethod(lambda keep, now: by_age(keep, now + timedelta(minutes=90))))


def forgets_last_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let go how a job ended last."""

    async def none(self: SimulatedStore) -> frozenset[str]:
        return frozenset()

    monkeypatch.setattr(SimulatedStore, "latest_ends", none)


def purges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep for ever what is to be kept for some time."""
    monkeypatch.setattr(Housekeeping, "_do_rounds", lambda self: anyio.sleep_forever())


def counts_no_purge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove events without counting them."""
    rows_of = purging.purge_rows
    monkeypatch.setattr(
        purging, "purge_rows", lambda purge: [row for row in rows_of(purge) if row[0] != "count_events"]
    )  # fmt: skip


def purges_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run that waits go with those that are over."""
    apply = SimulatedStore.apply

    async def with_one_more(self: SimulatedStore, changes: Sequence[Change], notes: Any = None) -> list[Result]:
        purges = [accept.purge for change in changes if (accept := accept_of(change)) and accept.purge]
        if any(purge.runs for purge in purges) and self._writer is not None:
            one = "select id from runs where state in ('held', 'pending', 'queued', 'retrying') limit 1"
            await self._writer.call(lambda raw: raw.execute(f"delete from runs where id in ({one})"))
        return await apply(self, changes, notes)

    monkeypatch.setattr(SimulatedStore, "apply", with_one_more)


def writes_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not see that another engine has the store by now."""
    monkeypatch.setattr(boots, "must_own", lambda raw, path, boot: None)


def findings(seeds: Sequence[int], tamper: Any = None, days: float = 3.0) -> str:
    """Return what is found first at one of the seeds."""
    for seed in seeds:
        found = simulate(seed, days=days, tamper=tamper).findings
        if found:
            return found[0]
    return ""


@pytest.mark.parametrize("tamper", [loses_events, forgets_ends])
@pytest.mark.timeout(180)
def test_a_store_that_loses_something_is_found_out(tamper: Any) -> None:
    assert findings(range(2, 8), tamper) != ""


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (breaks_limits, "run"),
        (keeps_no_keys, "acknowledged"),
        (hides_missed_instants, "nothing is recorded of it"),
        (gathers_without_end, "its window closes at"),
        (believes_old_answers, "does not let it pass"),
        (forgets_windows, "is open for it"),
        (loses_count, "runs that wait, stored are"),
        (expires_nothing, "expired at"),
        (is_deaf, "run"),
        (keeps_too_little, "went, and is not old enough"),
        (forgets_last_ends, "tells how job"),
        (purges_nothing, "still there"),
        (counts_no_purge, "is counted as"),
        (purges_what_waits, "nobody purged it"),
        (writes_after_all, "was succeeded"),
    ],
)
@pytest.mark.timeout(180)
def test_an_engine_that_breaks_a_promise_is_found_out(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    break_it(monkeypatch)
    found = findings(range(2, 12))
    assert said in found, found


@pytest.mark.parametrize(
    ("break_it", "seed", "days", "said"),
    [
        (knows_no_rates, 14, 3.0, "it is free at"),
        (opens_windows_anew, 3, 3.0, "opened a window while"),
        (joins_too_little, 7, 3.0, "its inputs are"),
        (breaks_no_circuit, 137, 3.0, "open: True"),
        (reads_no_schema, 2, 3.0, "its data is"),
        (counts_no_hops, 6, 3.0, "after 1 runs"),
        (puts_nothing_off, 40278, 7.0, "passed its throttle"),
    ],
)
@pytest.mark.timeout(180)
def test_an_engine_that_is_broken_where_few_seeds_look_is_found_out(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None], seed: int, days: float, said: str
) -> None:
    break_it(monkeypatch)
    found = findings([seed], days=days)
    assert said in found, found
