"""The organ of conditions: what is checked when, what runs do that wait, what is remembered, what overrides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from engine.conditions import CONDITIONS_SOURCE, Checks, ConditionDesk, Conditions, LastRuns
from engine.decide.attempts import AttemptEnd
from engine.decide.conditions import Joins, Named, OnError
from engine.errors import InvalidRequest, NotFound, StoreUnavailable
from engine.plugin import BadSetting, Condition, ConditionContext, Outcome, RunState, Verdict
from engine.runs import Run
from engine.testing import VirtualClock
from tests.organs import Bench, bench, event, job, trigger


class Light(Condition, frozen=True, kw_only=True):
    """Shows what the test sets for its label: a verdict, an error, or something that is awaited."""

    name: ClassVar[str] = "light"
    thresholds: ClassVar[frozenset[str]] = frozenset({"most"})
    shown: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[str]] = []

    label: str
    most: float = 5.0
    after: str | None = None

    def __post_init__(self) -> None:
        if self.most < 0:
            raise BadSetting("most", "is less than nothing")

    def follows(self) -> Sequence[str]:
        return () if self.after is None else (self.after,)

    async def check(self, context: ConditionContext) -> Verdict:
        Light.asked.append(self.label)
        found = Light.shown.get(self.label, GREEN)
        if self.after is not None:
            last = await context.last_run(self.after, RunState.SUCCEEDED)
            return Verdict.holds("not yet") if last is None else Verdict.passes(f"after {last.run}")
        if callable(found):
            found = await found(self)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, float):
            return Verdict.passes("low", found) if found <= self.most else Verdict.holds("high", found)
        assert isinstance(found, Verdict)
        return found


GREEN, RED = Verdict.passes("green", 1), Verdict.holds("connection refused")


@pytest.fixture(autouse=True)
def _dark() -> None:
    Light.shown.clear()
    Light.asked.clear()


class NoSharing:
    async def get(self, key: Any, make: Callable[[], AbstractAsyncContextManager[Any]]) -> Any:
        raise AssertionError("nothing is shared here")


class Lit(Bench):
    """A small engine with conditions, as the runtime connects them."""

    conditions: Conditions
    desk: ConditionDesk


@asynccontextmanager
async def lit(
    path: Path, conditions: Mapping[str, Named], *triggers: Any, always: Sequence[str] = (),
    clock: VirtualClock | None = None, **fields: Any,
) -> AsyncIterator[Lit]:  # fmt: skip
    clock = clock or VirtualClock()
    organs: list[Conditions] = []

    class Late:
        """The gate, which is built once there is a journal for it."""

        def concerns(self, rule: Any) -> bool:
            return organs[0].concerns(rule)

        def look(self, run: Any, rule: Any) -> Any:
            return organs[0].look(run, rule)

    async with bench(
        path / "e.db", triggers=triggers, gates=[Late()], clock=clock, dispatching=False, **fields
    ) as desk:
        endings = LastRuns(desk.store)
        organ = Conditions(
            conditions=conditions, always=always, rules=desk.intake._rules, clock=clock, journal=desk.journal,
            make_checks=lambda on_answer: Checks(
                base=path, clock=clock, shared=NoSharing(), endings=endings, secrets=frozenset({"sesame-open"}),
                on_answer=on_answer,
            ),
        )  # fmt: skip
        organs.append(organ)
        await organ.load(desk.store)
        organ.changed, organ.anyone_waits = desk.gates.changed, desk.gates.anyone_waits

        def hears(run: Run, end: AttemptEnd) -> None:
            endings.note(run, end.step)
            organ.note_end(run)

        desk.hears_ends = hears
        made = desk
        made.__class__ = Lit
        assert isinstance(made, Lit)
        made.conditions = organ
        made.desk = ConditionDesk(organ, store=desk.store, clock=clock, base=path, show=lambda plugin: {})
        async with anyio.create_task_group() as group:
            await group.start(desk.dispatch.run)
            group.start_soon(organ.run)
            await desk.settle()
            yield made
            group.cancel_scope.cancel()


def light(name: str, **fields: Any) -> Named:
    check = {key: fields.pop(key) for key in ("most", "after") if key in fields}
    return Named(name=name, check=Light(label=name, **check), **fields)


def named(*conditions: Named) -> dict[str, Named]:
    return {one.name: one for one in conditions}


async def made(desk: Bench, source: str = "mill", count: int = 1) -> list[str]:
    runs = [run for _ in range(count) for run in (await desk.emit_one(event(), source=source)).runs]
    await desk.settle()
    return runs


async def run_of(desk: Bench, run_id: str) -> Run:
    run = await desk.store.run(run_id)
    assert run is not None
    return run


async def test_a_run_starts_once_its_condition_passes_and_tells_what_it_saw(tmp_path: Path) -> None:
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",))) as desk:
        (run_id,) = await made(desk)
        run = await run_of(desk, run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.trace[1].reason.endswith("; condition up: green")


async def test_an_answer_is_shared_for_as_long_as_it_says(tmp_path: Path) -> None:
    async with lit(tmp_path, named(light("up", every_s=30)), trigger(conditions=("up",))) as desk:
        await made(desk, count=20)
        assert Light.asked == ["up"]
        await desk.advance(29)
        await made(desk)
        assert Light.asked == ["up"]
        await desk.advance(2)
        await made(desk)
        assert Light.asked == ["up", "up"]


async def test_nobody_asks_where_nobody_waits(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    async with lit(tmp_path, named(light("up", every_s=1)), trigger(conditions=("up",))) as desk:
        (run_id,) = await made(desk)
        run = await run_of(desk, run_id)
        assert (run.state, run.code, run.reason) == (
            RunState.SKIPPED, "condition", "skipped: condition up: connection refused"
        )  # fmt: skip
        await desk.advance(600)
        assert Light.asked == ["up"]


async def test_a_held_run_tells_why_and_goes_on_when_the_answer_changes(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",), hold_s=7200.0)) as desk:
        (run_id,) = await made(desk)
        run = await run_of(desk, run_id)
        assert run.state is RunState.HELD
        assert run.reason == "held: condition up: connection refused (1 try, next in 30s)"
        assert run.due_at == desk.clock.now() + timedelta(hours=2)
        await desk.advance(95)
        assert len(Light.asked) == 4
        assert (await desk.desk.view("up"))["reason"] == "connection refused (4 tries, next in 30s)"
        assert (await desk.desk.view("up"))["waiting"] == 1
        assert len((await run_of(desk, run_id)).trace) == 2, "what does not change is not written again"
        Light.shown["up"] = GREEN
        await desk.advance(30)
        run = await run_of(desk, run_id)
        assert run.state is RunState.SUCCEEDED
        assert [step.code for step in run.trace] == ["matched", "condition", "released", "started", "succeeded"]


async def test_a_held_run_is_given_up_when_it_took_too_long(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",), hold_s=100.0)) as desk:
        (run_id,) = await made(desk)
        await desk.advance(99)
        assert (await run_of(desk, run_id)).state is RunState.HELD
        await desk.advance(2)
        run = await run_of(desk, run_id)
        assert (run.state, run.code) == (RunState.EXPIRED, "condition_timeout")
        assert run.reason == "expired: waited 1m40s for condition up: connection refused"


async def test_a_restart_keeps_held_runs_and_their_limit(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    clock, conditions, on = VirtualClock(), named(light("up")), trigger(conditions=("up",), hold_s=600.0)
    async with lit(tmp_path, conditions, on, clock=clock) as desk:
        first, second = await made(desk, count=2)
        await desk.advance(300)
    async with lit(tmp_path, conditions, on, clock=clock) as desk:
        await desk.settle()
        assert (await run_of(desk, first)).state is RunState.HELD
        await desk.advance(295)
        assert (await run_of(desk, first)).state is RunState.HELD
        await desk.advance(10)
        assert (await run_of(desk, first)).state is RunState.EXPIRED
    Light.shown["up"] = GREEN
    async with lit(tmp_path, conditions, on, clock=clock) as desk:
        assert (await run_of(desk, second)).state is RunState.EXPIRED


async def test_a_check_that_can_not_answer_holds_or_passes_as_it_says(tmp_path: Path) -> None:
    Light.shown |= {"closed": RuntimeError("boom sesame-open"), "open": RuntimeError("boom")}
    conditions = named(light("closed"), light("open", on_error=OnError.OPEN))
    triggers = [trigger("a", source="a", conditions=("closed",)), trigger("b", source="b", conditions=("open",))]
    async with lit(tmp_path, conditions, *triggers) as desk:
        (held,) = await made(desk, "a")
        (passed,) = await made(desk, "b")
        assert (await run_of(desk, held)).reason == (
            "skipped: condition closed: it could not be checked: RuntimeError: boom ***"
        )
        run = await run_of(desk, passed)
        assert run.state is RunState.SUCCEEDED
        assert (
            "condition open: it could not be checked: RuntimeError: boom; it passes all the same" in run.trace[1].reason
        )


async def test_a_check_that_hangs_is_ended_and_keeps_nobody_else(tmp_path: Path) -> None:
    async def hang(_: Light) -> Verdict:
        with anyio.CancelScope(shield=True):  # ignores that it is told to end
            await over.wait()
        return GREEN

    over = anyio.Event()
    Light.shown["stuck"] = hang
    conditions = named(light("stuck", timeout_s=10, every_s=5), light("up"))
    triggers = [
        trigger("a", source="a", conditions=("stuck",), hold_s=900.0),
        trigger("b", source="b", conditions=("up",)),
    ]
    async with lit(tmp_path, conditions, *triggers) as desk:
        (held,) = await made(desk, "a")
        (other,) = await made(desk, "b")
        assert (await run_of(desk, other)).state is RunState.SUCCEEDED
        assert (await run_of(desk, held)).state is RunState.QUEUED
        await desk.advance(11)
        assert "no answer within 10s" in (await run_of(desk, held)).reason
        await desk.advance(30)
        assert Light.asked.count("stuck") == 1, "one that has not ended is not begun again"
        assert "was told to end, and has not" in (await desk.desk.view("stuck"))["reason"]
        Light.shown["stuck"] = GREEN
        over.set()
        await desk.advance(10)
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED


async def test_an_override_while_a_check_does_not_end_is_not_answered_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Light) -> Verdict:
        with anyio.CancelScope(shield=True):
            await over.wait()
        return GREEN

    over, take, taken = anyio.Event(), Conditions._take, list[str]()

    def counted(self: Conditions, one: Named, *found: Any) -> None:
        taken.append(one.name)
        take(self, one, *found)

    monkeypatch.setattr(Conditions, "_take", counted)
    Light.shown["load"] = hang
    on = trigger(conditions=("load",), hold_s=9000.0)
    async with lit(tmp_path, named(light("load", timeout_s=10, every_s=600)), on) as desk:
        await made(desk)
        await desk.advance(11)
        taken.clear()
        await desk.desk.override("load", reason="it is night", who="ann", thresholds={"most": 10})
        await desk.advance(5)
        over.set()
        assert 1 <= len(taken) <= 2


async def test_what_a_check_hands_over_is_looked_at(tmp_path: Path) -> None:
    wrong: list[Any] = [
        Verdict(answer="maybe", reason="x"), Verdict(answer=GREEN.answer, reason=7),  # type: ignore[arg-type]
        Verdict.holds("x", until=VirtualClock().now().replace(tzinfo=None)),
    ]  # fmt: skip
    for found in wrong:
        Light.shown["up"] = found
        async with lit(tmp_path, named(light("up")), trigger(conditions=("up",))) as desk:
            (run_id,) = await made(desk)
            assert "it could not be checked: check returned" in (await run_of(desk, run_id)).reason
    Light.shown["up"] = Verdict.passes("long " * 1000, {"deep": [object()]})
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",))) as desk:
        (run_id,) = await made(desk)
        assert (await run_of(desk, run_id)).state is RunState.SUCCEEDED
        assert len((await desk.desk.view("up"))["reason"]) <= 500


async def test_one_in_shadow_only_says_what_it_would_have_done(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    async with lit(tmp_path, named(light("up", shadow=True)), trigger(conditions=("up",), hold_s=60.0)) as desk:
        (run_id,) = await made(desk)
        run = await run_of(desk, run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.trace[1].reason.endswith("; condition up (shadow) would hold it: connection refused")


async def test_a_skip_skips_also_where_a_trigger_would_wait(tmp_path: Path) -> None:
    Light.shown["up"] = Verdict.skips("it is a holiday")
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",), hold_s=60.0)) as desk:
        (run_id,) = await made(desk)
        run = await run_of(desk, run_id)
        assert (run.state, run.reason) == (RunState.SKIPPED, "skipped: condition up: it is a holiday")


async def test_a_fire_may_pass_conditions_by(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    async with lit(tmp_path, named(light("up")), trigger(conditions=("up",))) as desk:
        (run_id,) = (await desk.intake.fire("on-grain", bypass=frozenset({"conditions"}))).runs
        await desk.settle()
        run = await run_of(desk, run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.trace[0].bypass == ("conditions",)
        assert Light.asked == []


async def test_conditions_of_the_engine_are_obeyed_by_all(tmp_path: Path) -> None:
    Light.shown["up"] = RED
    triggers = [trigger("a", source="a", hold_s=60.0), trigger("b", source="b")]
    async with lit(tmp_path, named(light("up")), *triggers, always=["up"]) as desk:
        (held,), (skipped,) = await made(desk, "a"), await made(desk, "b")
        assert (await run_of(desk, held)).state is RunState.HELD
        assert (await run_of(desk, skipped)).state is RunState.SKIPPED
        assert (await desk.desk.view("up"))["triggers"] == ["a", "b"]
        Light.shown["up"] = GREEN
        await desk.advance(31)
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED


async def test_joined_conditions_are_woken_by_what_they_join(tmp_path: Path) -> None:
    Light.shown |= {"x": RED, "y": GREEN}
    both = Named(name="both", joins=Joins.ALL, of=("x", "y"))
    async with lit(tmp_path, named(light("x"), light("y"), both), trigger(conditions=("both",), hold_s=900.0)) as desk:
        (held,) = await made(desk)
        assert (await run_of(desk, held)).reason.startswith("held: condition both: x: connection refused (1 try")
        Light.shown["x"] = GREEN
        await desk.advance(31)
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED


async def test_a_check_that_follows_a_job_looks_anew_when_a_run_of_it_has_ended(tmp_path: Path) -> None:
    jobs = [job(), job("import")]
    triggers = [
        trigger("report", source="a", conditions=("imported",), hold_s=9000.0),
        trigger("load", source="b", job="import"),
    ]
    conditions = named(light("imported", after="import", every_s=3600))
    async with lit(tmp_path, conditions, *triggers, jobs=jobs) as desk:
        (held,) = await made(desk, "a")
        assert (await run_of(desk, held)).state is RunState.HELD
        await made(desk, "b")
        await desk.settle()
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED


async def test_until_when_a_check_holds_is_when_it_is_made_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    Light.shown["open"] = Verdict.holds("closed", until=clock.now() + timedelta(seconds=7))
    conditions = named(light("open", every_s=3600))
    async with lit(tmp_path, conditions, trigger(conditions=("open",), hold_s=9000.0), clock=clock) as desk:
        (held,) = await made(desk)
        Light.shown["open"] = GREEN
        await desk.advance(8)
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED


async def test_an_override_holds_at_once_and_after_a_restart_until_it_is_reset(tmp_path: Path) -> None:
    Light.shown["load"] = 7.0
    clock, conditions, on = VirtualClock(), named(light("load")), trigger(conditions=("load",), hold_s=9000.0)
    async with lit(tmp_path, conditions, on, clock=clock) as desk:
        (held,) = await made(desk)
        assert (await run_of(desk, held)).state is RunState.HELD
        view = await desk.desk.override("load", reason="it is night", who="ann", thresholds={"most": 10})
        await desk.settle()
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED
        assert view["override"]["thresholds"] == {"most": 10}
        assert (view["override"]["reason"], view["override"]["who"]) == ("it is night", "ann")
    async with lit(tmp_path, conditions, on, clock=clock) as desk:
        (passes,) = await made(desk)
        assert (await run_of(desk, passes)).state is RunState.SUCCEEDED
        assert (await desk.desk.reset("load"))["override"] is None
        (held,) = await made(desk)
        assert (await run_of(desk, held)).state is RunState.HELD
        await desk.desk.override("load", reason="broken", who="ann", enabled=False)
        await desk.settle()
        assert (await run_of(desk, held)).state is RunState.SUCCEEDED
        assert (await desk.desk.view("load"))["state"] == "disabled"


async def test_what_can_not_be_overridden_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    conditions = named(light("up"), Named(name="not-up", joins=Joins.NOT, of=("up",)))
    async with lit(tmp_path, conditions, trigger(conditions=("up",))) as desk:
        for name, thresholds in (
            ("up", {"label": "x"}), ("up", {"mots": 3}), ("up", {"most": "many"}), ("up", {"most": True}),
            ("up", {"most": -1}), ("not-up", {"most": 3}),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest):
                await desk.desk.override(name, reason="why", who="", thresholds=thresholds)
        with pytest.raises(NotFound, match="did you mean"):
            await desk.desk.view("upp")
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.desk.override("up", reason="why", who="", thresholds={"most": 3})
        desk.store.write_error = None
        assert (await desk.desk.view("up"))["override"] is None


async def test_an_override_that_does_not_fit_any_more_is_left_out(tmp_path: Path) -> None:
    clock, on = VirtualClock(), trigger(conditions=("up",))
    async with lit(tmp_path, named(light("up")), on, clock=clock) as desk:
        await desk.desk.override("up", reason="why", who="", thresholds={"most": 3})
    other = named(light("x"), Named(name="up", joins=Joins.NOT, of=("x",)))
    async with lit(tmp_path, other, on, clock=clock) as desk:
        assert (await desk.desk.view("up"))["override"] is None


async def test_changes_of_an_answer_are_remembered_the_newest_first_and_not_without_end(tmp_path: Path) -> None:
    clock, on = VirtualClock(), trigger(conditions=("up",))
    async with lit(tmp_path, named(light("up", every_s=1)), on, clock=clock) as desk:
        for turn in range(50):
            Light.shown["up"] = RED if turn % 2 else GREEN
            await made(desk)
            await desk.advance(2)
        assert len(await desk.store.memory(CONDITIONS_SOURCE, after=None, limit=10)) == 1
    async with lit(tmp_path, named(light("up")), on, clock=clock) as desk:
        changes = (await desk.desk.view("up"))["changes"]
        assert len(changes) == 20
        assert [change["state"] for change in changes[:3]] == ["hold", "pass", "hold"]
        assert changes[0]["at"] > changes[1]["at"]


async def test_checks_are_made_a_bounded_number_at_a_time(tmp_path: Path) -> None:
    going = 0
    most = 0

    async def slow(_: Light) -> Verdict:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await clock.sleep(1)
        going -= 1
        return GREEN

    clock = VirtualClock()
    conditions = named(*[light(f"c{number}") for number in range(40)])
    Light.shown |= dict.fromkeys(conditions, slow)
    async with lit(tmp_path, conditions, trigger(conditions=tuple(conditions)), clock=clock) as desk:
        (run_id,) = await made(desk)
        await desk.advance(5)
        assert (await run_of(desk, run_id)).state is RunState.SUCCEEDED
        assert most == 16


async def test_a_condition_may_fail_while_a_run_is_tried_again(tmp_path: Path) -> None:
    async def act(run: Run, job: Any) -> Outcome:
        Light.shown["up"] = RED
        return Outcome.failed("broken", "it broke")

    from engine.jobs import RetryPolicy

    jobs = [job(retry=RetryPolicy(attempts=3, delay_s=60.0, jitter=0.0))]
    async with lit(
        tmp_path, named(light("up", every_s=1)), trigger(conditions=("up",), hold_s=600.0), jobs=jobs, act=act
    ) as desk:
        (run_id,) = await made(desk)
        assert (await run_of(desk, run_id)).state is RunState.RETRYING
        await desk.advance(70)
        run = await run_of(desk, run_id)
        assert run.state is RunState.HELD
        assert run.attempt == 1
        assert run.due_at is not None, "its time counts from when it was held, not from its first attempt"
        assert run.due_at > desk.clock.now() + timedelta(seconds=580)
