"""Maintenance: windows hold runs while they are open, and what waited is run, kept or dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.rules import Rule
from engine.decide.windows import After, Cut, MaintenanceWindow, Once, Opening, Scope
from engine.errors import Conflict, NotFound, StoreUnavailable
from engine.jobs import Job
from engine.maintenance import Maintenance
from engine.maintenance.organ import ASKED_AFTER_S
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from engine.triggers import Trigger
from tests.organs import Bench, bench, event, job, trigger

AT = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
JOBS = [job(), job("sweep")]
TRIGGERS = [trigger("a", source="a", tags=("import",)), trigger("b", source="b"), trigger("c", source="c", job="sweep")]


def window(name: str = "weekly", *, opens_s: float = 60, closes_s: float = 3660, **fields: Any) -> MaintenanceWindow:
    opening = Opening(start=AT + timedelta(seconds=opens_s), end=AT + timedelta(seconds=closes_s))
    return MaintenanceWindow(name=name, pattern=Once(opening=opening), when="once", **fields)


def read(name: str, settings: dict[str, Any]) -> MaintenanceWindow:
    """Make a window as the runtime does, of simpler settings."""
    fields = {"scope": Scope(triggers=frozenset(settings["triggers"]))} if "triggers" in settings else {}
    return window(name, opens_s=settings["opens_s"], closes_s=settings["closes_s"], settings=settings, **fields)


class Desk:
    """A small engine with maintenance."""

    def __init__(self, bench: Bench, maintenance: Maintenance) -> None:
        self.bench = bench
        self.maintenance = maintenance
        self.cancelled: list[tuple[list[str], str]] = []

    async def emit(self, source: str) -> str:
        accepted = await self.bench.emit_one(event(), source=source)
        await self.bench.settle()
        return accepted.runs[0]

    async def state(self, run_id: str) -> tuple[RunState, str]:
        run = await self.bench.run_of(run_id)
        return run.state, run.code

    async def states(self, *run_ids: str) -> list[str]:
        return [(await self.bench.run_of(run_id)).state.value for run_id in run_ids]


@asynccontextmanager
async def desk(
    path: Path, *windows: MaintenanceWindow, at: datetime = AT, triggers: Sequence[Trigger] = TRIGGERS,
    act: Callable[..., Any] | None = None, **more: Any,
) -> AsyncIterator[Desk]:  # fmt: skip
    clock = VirtualClock(at)
    rules = {each.name: Rule(each, next(one for one in JOBS if one.name == each.job)) for each in triggers}
    first = SqliteStore(path, clock=clock)
    await first.open()
    maintenance = Maintenance(clock, None, rules, {one.name: one for one in windows}, read)  # type: ignore[arg-type]
    await maintenance.load(first)
    await first.close()
    async with bench(path, clock=clock, jobs=JOBS, triggers=triggers, gates=[maintenance], act=act, **more) as small:
        made = Desk(small, maintenance)
        maintenance._journal = small.journal
        maintenance.on_change = small.gates.changed
        maintenance.cancel_running = lambda names, reason: made.cancelled.append((sorted(names), reason))
        async with anyio.create_task_group() as group:
            group.start_soon(maintenance.run, small.store)
            await small.settle()
            yield made
            group.cancel_scope.cancel()


async def test_while_a_window_is_open_runs_are_held_with_its_name_and_end_and_run_when_it_is_over(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "e.db", window(description="disks are swapped")) as made:
        assert await made.state(await made.emit("a")) == (RunState.SUCCEEDED, "succeeded")
        await made.bench.advance(60)
        held = [await made.emit("a"), await made.emit("b")]
        run = await made.bench.run_of(held[0])
        assert (run.state, run.code) == (RunState.HELD, "maintenance")
        assert run.reason == "held: maintenance weekly until 2026-11-22 02:01 UTC (disks are swapped)"
        assert run.due_at == AT + timedelta(seconds=3660 + ASKED_AFTER_S)
        await made.bench.advance(3599)
        assert await made.states(*held) == ["held", "held"]
        await made.bench.advance(1)
        assert await made.states(*held) == ["succeeded", "succeeded"]


async def test_what_is_not_in_its_scope_runs(tmp_path: Path) -> None:
    scope = Scope(tags=frozenset({"import"}), jobs=frozenset({"sweep"}))
    async with desk(tmp_path / "e.db", window(opens_s=0, scope=scope)) as made:
        assert await made.states(await made.emit("a"), await made.emit("b"), await made.emit("c")) == [
            "held", "succeeded", "held",
        ]  # fmt: skip


async def test_of_a_window_that_keeps_the_latest_an_older_run_gives_way_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0, after=After.LATEST)) as made:
        first, other, second = await made.emit("a"), await made.emit("b"), await made.emit("a")
        assert await made.state(first) == (RunState.SKIPPED, "maintenance")
        assert second in (await made.bench.run_of(first)).reason
        assert await made.state(second) == (RunState.HELD, "maintenance_latest")
        third = await made.emit("a")
        await made.bench.advance(3660)
        assert await made.states(second, third, other) == ["skipped", "succeeded", "succeeded"]


async def test_of_a_window_that_drops_each_run_is_skipped_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0, after=After.DROP)) as made:
        run = await made.bench.run_of(await made.emit("a"))
        assert (run.state, run.code) == (RunState.SKIPPED, "maintenance")
        assert run.reason == (
            "skipped: maintenance weekly until 2026-11-22 02:01 UTC, for which nothing waits (after = drop)"
        )


@pytest.mark.parametrize("after", [After.DROP, After.LATEST])
async def test_what_somebody_fired_waits_and_runs_and_may_pass_by(tmp_path: Path, after: After) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0, after=after)) as made:
        fired = [(await made.bench.intake.fire("a")).runs[0] for _ in range(2)]
        past = (await made.bench.intake.fire("a", bypass=frozenset({"maintenance"}))).runs[0]
        await made.bench.settle()
        assert await made.states(*fired, past) == ["held", "held", "succeeded"]
        await made.bench.advance(3660)
        assert await made.states(*fired) == ["succeeded", "succeeded"]


async def test_a_retry_that_falls_into_a_window_that_drops_waits_and_runs(tmp_path: Path) -> None:
    ends = [Outcome.failed("no", "failed: no"), Outcome.succeeded("done")]

    async def act(run: Run, job: Job) -> Outcome:
        return ends.pop(0)

    retrying = [trigger("a", source="a", retry=_retry(90))]
    async with desk(tmp_path / "e.db", window(after=After.DROP), triggers=retrying, act=act) as made:
        run_id = await made.emit("a")
        await made.bench.advance(120)
        assert await made.state(run_id) == (RunState.HELD, "maintenance")
        await made.bench.advance(3600)
        assert (await made.bench.run_of(run_id)).state is RunState.SUCCEEDED


async def test_held_runs_and_windows_of_the_api_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    latest = window(opens_s=0, after=After.LATEST, scope=Scope(triggers=frozenset({"a"})))
    async with desk(path, latest) as made:
        await made.maintenance.define("urgent", {"opens_s": 0, "closes_s": 7200, "triggers": ["b"]}, who="ann")
        await made.maintenance.override("urgent", until=AT + timedelta(seconds=20), reason="quick", who="ann")
        a, b = await made.emit("a"), await made.emit("b")
        assert await made.states(a, b) == ["held", "succeeded"]
    async with desk(path, latest, at=AT + timedelta(seconds=30)) as made:
        assert made.maintenance.view("urgent")["who"] == "ann"
        assert made.maintenance.overrides() == {}
        newer, b = await made.emit("a"), await made.emit("b")
        assert await made.states(a, newer, b) == ["skipped", "held", "held"]
    # Both are over while the engine is away.
    async with desk(path, latest, at=AT + timedelta(seconds=8000)) as made:
        assert await made.states(newer, b) == ["succeeded", "succeeded"]


async def test_where_the_engine_was_away_at_the_end_only_the_latest_runs(tmp_path: Path) -> None:
    path, latest = tmp_path / "e.db", window(opens_s=0, after=After.LATEST)
    async with desk(path, latest) as made:
        made.maintenance._latest.note = lambda run: False  # type: ignore[method-assign]  # it died before they gave way
        runs = [await made.emit("a") for _ in range(4)]
        assert await made.states(*runs) == ["held"] * 4
    async with desk(path, latest, at=AT + timedelta(seconds=8000)) as made:
        assert await made.states(*runs) == ["skipped"] * 3 + ["succeeded"]
        await made.bench.advance(60)
        assert "a" not in made.maintenance._latest


async def test_an_override_lets_runs_go_and_when_it_ends_the_window_holds_again(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0)) as made:
        held = await made.emit("a")
        await made.maintenance.override("weekly", until=AT + timedelta(seconds=600), reason="a hotfix", who="bob")
        await made.bench.settle()
        assert await made.states(held, await made.emit("a")) == ["succeeded", "succeeded"]
        view = made.maintenance.view("weekly")
        assert (view["state"], view["override"]["reason"]) == ("overridden", "a hotfix")
        await made.bench.advance(600)
        assert await made.states(await made.emit("a")) == ["held"]
        assert made.maintenance.view("weekly")["override"] is None
        await made.maintenance.override("weekly", until=None, reason="done early", who="bob")
        assert made.maintenance.overrides()["weekly"].until == AT + timedelta(seconds=3660)
        assert await made.maintenance.end_override("weekly", who="bob")
        await made.bench.settle()
        assert await made.states(await made.emit("a")) == ["held"]


async def test_a_window_that_is_removed_lets_go_what_waits(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window("fixed", opens_s=9000, closes_s=9900)) as made:
        await made.maintenance.define("urgent", {"opens_s": 0, "closes_s": 7200}, who="")
        held = await made.emit("a")
        assert await made.states(held) == ["held"]
        await made.maintenance.remove("urgent", who="")
        await made.bench.settle()
        assert await made.states(held) == ["succeeded"]
        with pytest.raises(NotFound):
            await made.maintenance.remove("urgent", who="")
        with pytest.raises(Conflict, match="configuration"):
            await made.maintenance.remove("fixed", who="")
        with pytest.raises(Conflict, match="configuration"):
            await made.maintenance.define("fixed", {"opens_s": 0, "closes_s": 7200}, who="")


async def test_what_cannot_be_stored_changes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0)) as made:
        held = await made.emit("a")
        made.bench.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await made.maintenance.override("weekly", until=None, reason="x", who="")
        made.bench.store.write_error = None
        await made.bench.settle()
        assert made.maintenance.view("weekly")["state"] == "open"
        assert await made.states(held) == ["held"]


async def test_what_runs_when_a_window_opens_is_cancelled_where_that_is_asked_for(tmp_path: Path) -> None:
    scope = Scope(triggers=frozenset({"a"}))
    windows = (window("gentle"), window("hard", opens_s=120, scope=scope, running=Cut.CANCEL))
    async with desk(tmp_path / "e.db", *windows) as made:
        await made.bench.advance(60)
        assert made.cancelled == []
        await made.bench.advance(60)
        assert made.cancelled == [(["a"], "maintenance hard until 2026-11-22 02:01 UTC (running = cancel)")]


async def test_a_window_of_the_api_that_is_none_any_more_is_shown_and_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    async with desk(path) as made:
        await made.maintenance.define("odd", {"opens_s": 0, "closes_s": 7200}, who="")

    def refuse(name: str, settings: dict[str, Any]) -> MaintenanceWindow:
        raise Conflict("its timer is gone")

    clock = VirtualClock(AT)
    store = SqliteStore(path, clock=clock)
    await store.open()
    rule = Rule(TRIGGERS[0], JOBS[0])
    maintenance = Maintenance(clock, None, {"a": rule}, {}, refuse)  # type: ignore[arg-type]
    await maintenance.load(store)
    await store.close()
    assert not maintenance.concerns(rule)
    assert (maintenance.view("odd")["state"], maintenance.view("odd")["problem"]) == ("invalid", "its timer is gone")


async def test_a_step_of_the_clock_back_into_a_window_is_noticed(tmp_path: Path) -> None:
    async with desk(tmp_path / "e.db", window(opens_s=0), at=AT + timedelta(seconds=4000)) as made:
        assert await made.states(await made.emit("a")) == ["succeeded"]
        made.bench.clock.step(-1000)
        assert await made.states(await made.emit("a")) == ["held"]


def _retry(delay_s: float) -> Any:
    from engine.jobs import RetryChange

    return RetryChange(attempts=2, delay_s=delay_s, jitter=0.0)


async def test_a_window_that_is_made_anew_while_it_is_open_lets_go_whom_it_holds_no_more(tmp_path: Path) -> None:
    """Found by the machine of windows: as its name was open before and after, nobody was asked again."""
    async with desk(tmp_path / "e.db") as made:
        settings = {"opens_s": 0, "closes_s": 600}
        await made.maintenance.define("x", {**settings, "triggers": ["a"]}, who="ann")
        held = await made.emit("a")
        assert await made.states(held) == ["held"]
        await made.maintenance.define("x", {**settings, "triggers": ["b"]}, who="ann")
        await made.bench.settle()
        assert await made.states(held, await made.emit("b")) == ["succeeded", "held"]
