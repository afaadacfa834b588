"""The simulation: what it foresees is what the engine does, to the instant; and what it says of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.decide.windows import After as AfterWindow
from engine.decide.windows import Cut, MaintenanceWindow, Once, Opening, Scope, Timed
from engine.foresight import Downtime, Durations, Forecast, Length, Question, TooMany, World
from engine.foresight.durations import Origin
from engine.jobs import Job, OnCrash, Overlap
from engine.maintenance import Maintenance
from engine.plugin import Outcome, RunEnd, Source, SourceContext, Timer
from engine.runs import Run
from engine.store.base import RunFilter
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.triggers import Breaker, CatchUp, Debounce, Misfire, Pause, PauseScope, Trigger
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import job, trigger
from tests.ticking import Every, at, ticking

DAY_S = 86_400.0


def world(jobs: Sequence[Job], triggers: Sequence[Trigger], **more: Any) -> World:
    given = {"concurrency": 4, "ageing_s": 60.0, "shutdown_grace_s": 30.0, "timezone": "UTC", **more}
    return World(
        triggers={each.name: each for each in triggers}, jobs={each.name: each for each in jobs}, **given
    )  # fmt: skip


def timed(name: str = "nightly", on: Timer | None = None, **fields: Any) -> Trigger:
    return trigger(name, **{"source": f"timer:{name}", "on": on or Every(), **fields})


def foresee(
    known: World, seconds: float, *, durations: Mapping[str, float] = {}, most: int = 100_000, **asked: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Return the answer and every item, for the time after the clock's start."""
    items: list[dict[str, Any]] = []
    question = Question(**{"start": START, "end": at(seconds), "durations": durations, **asked})
    forecast = Forecast(question, known, {}, most=most, see=items.append)
    while not forecast.go_on(50):
        pass
    return forecast.view(), items


def rows(items: Sequence[Mapping[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(item[field] for field in fields) for item in items]


def stamp(seconds: float) -> str:
    return at(seconds).isoformat().replace("+00:00", "Z")


# As the engine does it


def random_world(seed: int) -> tuple[World, dict[str, float]]:
    """Make up jobs that last, triggers that crowd, and limits that are too small for them at times."""
    draw = random.Random(seed)
    jobs = [
        job(
            f"job-{number}",
            concurrency=draw.choice([None, 1, 1, 2]),
            overlap=draw.choice(list(Overlap)),
            timeout_s=draw.choice([3600.0, 1200.0]) + 0.3 + 0.01 * number,
        )
        for number in range(4)
    ]
    # No two ends, and no end and due instant, are in the same instant: what is first then is nobody's promise.
    durations = {each.name: round(draw.uniform(20, 2500)) + 0.101 + 0.01 * place for place, each in enumerate(jobs)}
    zone = draw.choice(["UTC", "Europe/Berlin", "Asia/Kolkata"])
    crons = ["*/20 * * * *", "7,37 * * * *", "0 * * * *", "*/10 13-18 * * *", "30 14 * * *", "5 */3 * * *"]
    triggers = [
        timed(
            f"trigger-{number}",
            draw.choice(
                [
                    Interval(every=draw.choice([600.0, 901.0, 1800.0, 3600.0])),
                    Interval(every=1800.0, offset=617.0, jitter=300.0),
                    Cron(expression=draw.choice(crons), timezone=zone),
                    Cron(expression=draw.choice(crons), timezone=zone),
                ]
            ),
            job=draw.choice(jobs).name,
            priority=draw.randint(0, 9),
            filter=draw.choice([None, None, None, "!data.scheduled_for.endsWith(':00:00Z')"]),
            debounce=draw.choice([None, None, None, None, Debounce(wait_s=907.5, max_wait_s=1999.5)]),
        )
        for number in range(7)
    ]
    return world(jobs, triggers, concurrency=draw.randint(1, 4), ageing_s=draw.choice([60.0, 600.0])), durations


def seeds(fast: int, full: int, *also: int) -> list[Any]:
    """Return seeds: the first ones, and those that have found something, are run each time."""
    return [pytest.param(seed, marks=[] if seed < fast or seed in also else [pytest.mark.full]) for seed in range(full)]


@pytest.mark.parametrize("seed", seeds(5, 40))
async def test_the_same_runs_start_and_end_at_the_same_instants_as_in_the_engine(tmp_path: Path, seed: int) -> None:
    known, durations = random_world(seed)

    async with ticking(
        tmp_path / "s.db", *known.triggers.values(), jobs=list(known.jobs.values()), concurrency=known.concurrency,
        ageing_s=known.ageing_s,
    ) as desk:  # fmt: skip

        async def act(run: Run, job: Job) -> Outcome:
            await desk.clock.sleep(durations[job.name])
            return Outcome.succeeded("done")

        desk.script.act = act
        await desk.advance(DAY_S - 1)
        runs = await desk.store.runs(RunFilter(), limit=10_000)
    done = sorted((run.trigger, run.scheduled_for, run.started_at, run.finished_at, run.state.value) for run in runs)
    # The engine begins with what is due after its start; the question includes its own.
    _, items = foresee(known, DAY_S - 1, start=at(1), durations=durations)
    states = {"waiting": "queued", "gathering": "pending", "replaced": "cancelled"}
    foreseen = sorted(
        (item["trigger"], instant(item["due_at"]), instant(item["started_at"]), instant(item["finished_at"]),
         states.get(item["state"], item["state"]))
        for item in items
        if item["state"] != "filtered"
    )  # fmt: skip
    assert [row[:2] for row in foreseen] == [row[:2] for row in done]
    assert len(done) > 100
    for mine, theirs in zip(foreseen, done, strict=True):
        assert mine[4] == theirs[4], (mine, theirs)
        for foreseen_at, done_at in zip(mine[2:4], theirs[2:4], strict=True):
            # The virtual clock counts in floats: after a day they are some microseconds off.
            assert apart(foreseen_at, done_at) < timedelta(milliseconds=1), (mine, theirs)


def random_windows(seed: int) -> tuple[MaintenanceWindow, ...]:
    """Make up windows that open a few times a day, for all or some, at instants at which nothing else happens."""
    draw = random.Random(seed)
    found = []
    for place in range(draw.randint(1, 3)):
        every = draw.choice([14_400.0, 21_600.0, 43_200.0])
        timer = Interval(every=every, offset=draw.randint(0, int(every)) + 0.37 + 0.01 * place)
        pattern = Timed(
            schedule=Schedule(trigger="w", timer=timer), duration=timedelta(seconds=draw.randint(600, 9000) + 0.013)
        )
        scope = Scope(
            triggers=frozenset({f"trigger-{draw.randint(0, 6)}"} if draw.random() < 0.3 else ()),
            jobs=frozenset({f"job-{draw.randint(0, 3)}"} if draw.random() < 0.5 else ()),
        )
        found.append(
            MaintenanceWindow(
                name=f"w{place}", pattern=pattern, when="", scope=scope, after=draw.choice(list(AfterWindow)),
                running=draw.choice(list(Cut)),
            )
        )  # fmt: skip
    return tuple(found)


@pytest.mark.parametrize("seed", seeds(6, 60, 47))
async def test_maintenance_holds_keeps_drops_and_cancels_the_same_runs_as_in_the_engine(
    tmp_path: Path, seed: int
) -> None:
    known, durations = random_world(seed)
    known = replace(known, maintenance=random_windows(seed))
    clock = VirtualClock()
    rules = {name: Rule(each, known.jobs[each.job]) for name, each in known.triggers.items()}
    windows = {one.name: one for one in known.maintenance}
    gate = Maintenance(clock, None, rules, windows, lambda name, settings: windows[name])  # type: ignore[arg-type]
    async with ticking(
        tmp_path / "s.db", *known.triggers.values(), jobs=list(known.jobs.values()), concurrency=known.concurrency,
        ageing_s=known.ageing_s, clock=clock, gates=[gate],
    ) as desk, anyio.create_task_group() as group:  # fmt: skip
        gate.on_change, gate.cancel_running = desk.gates.changed, desk.dispatch.cut
        group.start_soon(gate.run, desk.store)

        async def act(run: Run, job: Job) -> Outcome:
            await desk.clock.sleep(durations[job.name])
            return Outcome.succeeded("done")

        desk.script.act = act
        await desk.advance(DAY_S - 1)
        runs = await desk.store.runs(RunFilter(), limit=10_000)
        group.cancel_scope.cancel()
    done = sorted((run.trigger, run.scheduled_for, run.started_at, run.finished_at, run.state.value) for run in runs)
    view, items = foresee(known, DAY_S - 1, start=at(1), durations=durations)
    states = {"waiting": "queued", "gathering": "pending", "replaced": "cancelled"}
    foreseen = sorted(
        (item["trigger"], instant(item["due_at"]), instant(item["started_at"]), instant(item["finished_at"]),
         states.get(item["state"], item["state"]))
        for item in items
        if item["state"] != "filtered"
    )  # fmt: skip
    assert [row[:2] for row in foreseen] == [row[:2] for row in done]
    assert view["maintenance"]
    for mine, theirs in zip(foreseen, done, strict=True):
        assert mine[4] == theirs[4].replace("held", "queued"), (mine, theirs)
        for foreseen_at, done_at in zip(mine[2:4], theirs[2:4], strict=True):
            assert apart(foreseen_at, done_at) < timedelta(milliseconds=1), (mine, theirs)


def apart(one: datetime | None, other: datetime | None) -> timedelta:
    if one is None or other is None:
        return timedelta(0) if one is other else timedelta.max
    return abs(one - other)


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


async def outcomes_in(desk: Any) -> list[tuple[Any, ...]]:
    """Return what became of each due instant in the engine; a row of many missed ones by its first."""
    runs = await desk.store.runs(RunFilter(), limit=10_000)
    return sorted(
        (run.scheduled_for, run.state.value, None if run.state.value == "missed" else run.started_at) for run in runs
    )


def outcomes_of(items: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((instant(item["due_at"]), item["state"], instant(item["started_at"])) for item in items)


RULES = [
    Misfire(),
    Misfire(grace_s=1800.0),
    Misfire(catch_up=CatchUp.NONE),
    Misfire(catch_up=CatchUp.ALL, max=3, rate_per_s=0.01),
    Misfire(catch_up=CatchUp.ALL, max=30, rate_per_s=2.0, grace_s=5400.0),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("overlap", [Overlap.QUEUE, Overlap.SKIP])
async def test_after_a_downtime_the_same_is_run_and_missed_as_in_the_engine(
    tmp_path: Path, rule: Misfire, overlap: Overlap
) -> None:
    """The engine is stopped for three hours and started again."""
    baker, nightly = job(concurrency=1, overlap=overlap), timed(on=Every(seconds=600.0), misfire=rule)
    clock = VirtualClock()
    theirs: list[tuple[Any, ...]] = []
    for _ in range(2):
        async with ticking(tmp_path / "s.db", nightly, jobs=[baker], clock=clock) as desk:

            async def act(run: Run, job: Job) -> Outcome:
                await clock.sleep(100.25)
                return Outcome.succeeded("done")

            desk.script.act = act
            await desk.advance(3750)
            theirs = await outcomes_in(desk)
        await clock.advance(3 * 3600.0)
    down = Downtime(start=at(3750), end=at(3750 + 3 * 3600.0))
    _, items = foresee(
        world([baker], [nightly]), 2 * 3750 + 3 * 3600.0, start=at(1), durations={"bake": 100.25}, downtimes=(down,)
    )  # fmt: skip
    mine = outcomes_of(items)
    assert [row[:2] for row in mine] == [row[:2] for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert apart(one[2], other[2]) < timedelta(milliseconds=1), (one, other)


@pytest.mark.parametrize("rule", RULES)
async def test_after_a_pause_the_same_is_run_and_missed_as_in_the_engine(tmp_path: Path, rule: Misfire) -> None:
    baker, nightly = job(concurrency=1), timed(on=Every(seconds=600.0), misfire=rule)
    until = at(7250)
    async with ticking(tmp_path / "s.db", nightly, jobs=[baker]) as desk:
        pause = await desk.pauses.pause(PauseScope.TRIGGER, "nightly", reason="we move", until=until, who="me")
        await desk.advance(4 * 3600.0 - 1)
        theirs = await outcomes_in(desk)
    known = world([baker], [nightly], pauses={"nightly": pause})
    view, items = foresee(known, 4 * 3600.0 - 1, start=at(1), durations={"bake": 0.001})
    mine = outcomes_of(items)
    assert [row[:2] for row in mine] == [row[:2] for row in theirs]
    missed = [item for item in items if item["state"] == "missed"]
    assert all("we move" in item["reason"] for item in missed)
    assert view["total"]["missed"] == len(missed)


def test_a_pause_without_an_end_holds_off_all_that_comes_due() -> None:
    pause = Pause(reason="we move", since=START)
    known = world([job()], [timed(), timed("other")], pauses={"nightly": pause})
    view, items = foresee(known, 600.0)
    assert {item["state"] for item in items if item["trigger"] == "nightly"} == {"paused"}
    [nightly, other] = view["triggers"]
    assert (nightly["due"], nightly["paused"], nightly["runs"]) == (10, 10, 0)
    assert (other["due"], other["paused"], other["runs"]) == (10, 0, 10)
    assert "we move" in view["examples"]["paused"][0]["reason"]


def test_what_a_stop_cuts_off_is_queued_again_and_runs_when_the_engine_is_back() -> None:
    down = Downtime(start=at(3700), end=at(4000))
    known = world([job()], [timed(on=Every(seconds=3600.0))], shutdown_grace_s=50.0)
    view, items = foresee(known, 7000.0, start=at(1), durations={"bake": 600.0}, downtimes=(down,))
    assert rows(items, "state", "started_at", "finished_at") == [
        ("interrupted", stamp(3600), stamp(3750)), ("succeeded", stamp(4000), stamp(4600)),
    ]  # fmt: skip
    assert (view["total"]["runs"], view["total"]["interrupted"]) == (1, 1)


def test_what_outlives_the_engine_is_cut_off_by_no_stop() -> None:
    down = Downtime(start=at(3700), end=at(4500))
    known = world([job(on_crash=OnCrash.ADOPT)], [timed(on=Every(seconds=3600.0))], shutdown_grace_s=50.0)
    view, items = foresee(known, 7000.0, start=at(1), durations={"bake": 600.0}, downtimes=(down,))
    assert rows(items, "state", "started_at", "finished_at") == [("succeeded", stamp(3600), stamp(4200))]
    assert (view["total"]["runs"], view["total"]["interrupted"]) == (1, 0)


# What it says


def test_each_wait_says_what_for() -> None:
    known = world([job(concurrency=1), job("mill")], [timed(), timed("other", job="mill")], concurrency=1)
    view, _ = foresee(known, 170.0, durations={"bake": 30.0, "mill": 3.0})
    assert [one["waits_for"] for one in view["triggers"]] == [{}, {"a slot of the engine": 3}]
    known = world([job(concurrency=1)], [timed(), timed("other")], concurrency=4)
    view, _ = foresee(known, 150.0, durations={"bake": 20.0})
    assert view["triggers"][1]["waits_for"] == {"a slot of job bake": 3}
    assert (view["triggers"][1]["wait_mean_s"], view["triggers"][1]["wait_longest_s"]) == (20.0, 20.0)
    assert view["examples"]["waits"][0]["reason"] == "waits for a slot of job bake"
    assert view["peak"]["running"] == 1


def test_runs_last_as_given_or_as_past_ones_or_a_second_and_the_answer_says_so() -> None:
    triggers = {name: timed(name, job=name) for name in ("given", "own", "guess")}
    triggers["of-job"] = timed("of-job", job="own")
    past = {"own": Length(seconds=4.0, origin=Origin.PAST, runs=3), "given": Length(seconds=9.0, origin=Origin.PAST)}
    durations = Durations({"given": 2.0}, past)
    known = {name: durations.of(trigger, triggers) for name, trigger in triggers.items()}
    assert {name: (length.seconds, length.origin.value) for name, length in known.items()} == {
        "given": (2.0, "given"), "own": (4.0, "past"), "guess": (1.0, "default"), "of-job": (4.0, "past"),
    }  # fmt: skip
    view, _ = foresee(world([job("guess")], [timed("guess", job="guess")]), 600.0)
    assert any("Nobody knows how long" in said and "guess" in said for said in view["assumed"])


def test_a_run_lasts_no_longer_than_its_time_out() -> None:
    _, items = foresee(world([job(timeout_s=10.0)], [timed()]), 100.0, durations={"bake": 60.0})
    assert rows(items, "state", "finished_at")[0] == ("timed_out", stamp(10))


def test_what_follows_the_ends_of_runs_is_foreseen_too() -> None:
    after = trigger("after", source="run", on=After(), job="mill")
    _, items = foresee(world([job(), job("mill")], [timed(), after]), 100.0, durations={"bake": 5.0})
    assert rows(items, "trigger", "started_at")[:2] == [("nightly", stamp(0)), ("after", stamp(5))]
    assert items[1]["reason"] == "follows from the end of a run"


def test_what_can_t_be_foreseen_is_named_with_the_reason() -> None:
    triggers = [trigger("heard"), timed("off", enabled=False), timed()]
    view, items = foresee(world([job()], triggers), 100.0)
    assert {one["name"]: one["reason"] for one in view["not_foreseen"]} == {
        "heard": "it is on events, and nobody knows when they come", "off": "trigger off is disabled",
    }  # fmt: skip
    assert {item["trigger"] for item in items} == {"nightly"}


def test_a_timer_that_raises_costs_the_others_nothing() -> None:
    view, items = foresee(world([job()], [timed("bad", Broken()), timed()]), 200.0)
    assert len(items) == 4
    [bad] = view["not_foreseen"]
    assert bad == {"name": "bad", "reason": "its timer raised RuntimeError: no"}


def test_only_the_triggers_that_were_asked_for_are_told_of_and_all_take_slots() -> None:
    triggers = [timed(), timed("other", tags=("office",))]
    known = world([job()], triggers, concurrency=1)
    questions: list[dict[str, Any]] = [{"triggers": frozenset({"other"})}, {"tags": frozenset({"office"})}]
    for asked in questions:
        view, items = foresee(known, 100.0, durations={"bake": 10.0}, **asked)
        assert [one["name"] for one in view["triggers"]] == ["other"]
        assert {item["trigger"] for item in items} == {"other"}
        assert view["total"]["waited"] == 2
        assert view["hours"][0]["due"] == 4


def test_more_than_may_be_is_refused_with_how_much_it_would_be() -> None:
    with pytest.raises(TooMany) as caught:
        foresee(world([job()], [timed()]), DAY_S, most=100)
    assert caught.value.instants == 101
    assert caught.value.at == at(6000)
    assert 1400 < caught.value.about < 1480


def test_a_loop_of_runs_ends_at_the_bound() -> None:
    again = trigger("again", source="run", on=After(), job="bake")
    with pytest.raises(TooMany):
        foresee(world([job()], [timed(), again]), DAY_S, durations={"bake": 0.000001}, most=1000)


def test_what_nobody_asks_for_is_not_kept() -> None:
    forecast = Forecast(Question(start=START, end=at(100 * 60.0), first=2), world([job()], [timed()]), {}, most=1000)
    assert forecast.go_on(1000)
    assert all(len(items) <= 2 for items in forecast.view()["examples"].values())


@pytest.mark.parametrize(
    ("asked", "member", "said"),
    [
        ({"end": START}, "to", "is not after the beginning"),
        ({"end": at(400 * DAY_S)}, "to", "at most 366d"),
        ({"triggers": frozenset({"nigtly"})}, "triggers", "there is no trigger nigtly; did you mean nightly?"),
        ({"tags": frozenset({"offise"})}, "tags", "no trigger has the tag offise"),
        ({"durations": {"bak": 1.0}}, "durations", "there is no job bak; did you mean bake?"),
        ({"downtimes": (Downtime(start=at(9), end=at(9)),)}, "down", "before it begins"),
        ({"downtimes": (Downtime(start=at(1), end=at(9)), Downtime(start=at(5), end=at(8)))}, "down", "overlap"),
        ({"quiet_s": 2 * DAY_S}, "quiet", "no longer than the time"),
    ],
)
def test_mistakes_in_a_question_are_told(asked: dict[str, Any], member: str, said: str) -> None:
    question = Question(**{"start": START, "end": at(DAY_S), **asked})
    [(where, what)] = question.mistakes(world([job()], [timed()]), timedelta(days=366))
    assert where == member
    assert said in what


class After(Source, frozen=True, kw_only=True):
    """On the ends of all runs of the job `bake`."""

    follows_runs = True

    def follows(self, end: RunEnd) -> bool:
        return end.job == "bake"

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Broken(Every, frozen=True, kw_only=True):
    """A timer that fails."""

    def next(self, after: datetime) -> datetime | None:
        raise RuntimeError("no")


def test_the_time_out_of_a_trigger_goes_over_that_of_its_job() -> None:
    known = world([job(timeout_s=30.0)], [timed(on=Every(seconds=300.0), timeout_s=5.0)])
    _, items = foresee(known, 300, durations={"bake": 20.0})
    assert rows(items, "state", "finished_at") == [("timed_out", stamp(5))]


def test_what_is_told_of_by_tag_has_it_itself_or_by_its_job() -> None:
    rules = [timed("own", tags=("night",)), timed("by-job", job="other"), timed("none")]
    view, _ = foresee(world([job(), job("other", tags=("night",))], rules), 120, tags=frozenset({"night"}))
    assert {one["name"] for one in view["triggers"]} == {"own", "by-job"}


def test_what_waits_for_maintenance_says_for_which_and_until_when() -> None:
    window = MaintenanceWindow(
        name="weekly", when="", scope=Scope(),
        pattern=Once(opening=Opening(start=at(600), end=at(3000))),
    )  # fmt: skip
    known = world([job()], [timed(on=Every(seconds=900.0))], maintenance=(window,))
    view, items = foresee(known, 3600)
    assert rows(items, "started_at", "reason")[1:3] == [
        (stamp(3000), "waits for maintenance weekly until 2026-01-05 12:50 UTC"),
        (stamp(3000), "waits for maintenance weekly until 2026-01-05 12:50 UTC"),
    ]
    assert view["maintenance"] == [{"name": "weekly", "from": stamp(600), "to": stamp(3000)}]
    assert view["triggers"][0]["waits_for"] == {"maintenance weekly": 3}


def test_a_window_that_opens_and_closes_while_the_engine_is_down_drops_nothing() -> None:
    pattern = Timed(
        schedule=Schedule(trigger="w", timer=Every(seconds=2000.0)), duration=timedelta(seconds=400.0)
    )  # fmt: skip
    held = MaintenanceWindow(name="w", when="", pattern=pattern)
    drop = replace(held, pattern=Once(opening=Opening(start=at(2200), end=at(2300))), after=AfterWindow.DROP)
    known = world([job()], [timed(on=Every(seconds=2050.0))], maintenance=(held, drop))
    _, items = foresee(known, 4000, start=at(1), downtimes=(Downtime(start=at(2100), end=at(2350)),))
    assert rows(items, "state", "started_at") == [("succeeded", stamp(2400))]


class Again(After, frozen=True, kw_only=True):
    """On the ends of all runs."""

    def follows(self, end: RunEnd) -> bool:
        return True


def test_what_a_breaker_holds_back_does_not_run_until_the_end() -> None:
    known = world([job()], [timed(on=Every(seconds=10.0), breaker=Breaker(limit=3, per_s=60.0))])
    view, items = foresee(known, 100)
    (told,) = view["triggers"]
    assert (told["runs"], told["quarantined"]) == (3, told["due"] - 3)
    assert "as more than 3 events came in 1m" in next(one["reason"] for one in items if one["state"] == "quarantined")


def test_what_is_in_quarantine_now_is_so_for_the_whole_time() -> None:
    known = world([job()], [timed(on=Every(seconds=10.0))])
    (told,) = foresee(replace(known, quarantined={"nightly": "it is ill"}), 100)[0]["triggers"]
    assert (told["name"], told["runs"], told["quarantined"]) == ("nightly", 0, told["due"])


def test_a_loop_is_cut_as_the_engine_cuts_it() -> None:
    on = Again()
    rules = [timed(on=Every(seconds=1000.0)), trigger("again", on=on, source="ends", max_hops=4)]
    view, _ = foresee(world([job()], rules), 1500, durations={"bake": 1.0})
    told = {one["name"]: one for one in view["triggers"]}
    starts = told[next(name for name in told if name != "again")]["runs"]
    assert (told["again"]["runs"], told["again"]["rejected"]) == (4 * starts, starts)
