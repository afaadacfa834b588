"""What conditions say together, and what becomes of a run: against a model that is slow and obvious."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.conditions import Joins, Named, Reading, checks_of, circle_through, judge, look
from engine.decide.gates import LATER, Hold, Pass, Skip
from engine.plugin import Answer
from engine.runs import Origin, Run, RunState, Step

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PASS, HOLD, SKIP = Answer.PASS, Answer.HOLD, Answer.SKIP
CHECKS = ("a", "b", "c", "d")

Answers = Mapping[str, Answer | None]


def reading(answer: Answer, **fields: object) -> Reading:
    return Reading(answer=answer, reason=f"it says {answer}", at=NOW, **fields)  # type: ignore[arg-type]


def asked(name: str, conditions: Mapping[str, Named], answers: Answers) -> Answer | None:
    found = look(name, conditions, lambda one: None if (said := answers[one]) is None else reading(said), NOW)
    return None if found is None else found.answer


def expected(name: str, conditions: Mapping[str, Named], answers: Answers) -> Answer | None:
    """Say it slowly: what a condition says, None for unknown."""
    one = conditions[name]
    if not one.enabled:
        return PASS
    if one.joins is None:
        return answers[name]
    said: list[Answer | None] = []
    for member in one.of:
        if conditions[member].enabled:
            answer = expected(member, conditions, answers)
            said.append(PASS if conditions[member].shadow and answer is not None else answer)
    if not said:
        return PASS
    if one.joins is Joins.NOT:
        return None if said[0] is None else HOLD if said[0] is PASS else PASS
    if one.joins is Joins.ANY:
        if PASS in said:
            return PASS
        return None if None in said else SKIP if HOLD not in said else HOLD
    if SKIP in said:
        return SKIP
    if HOLD in said:
        return HOLD
    return None if None in said else PASS


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Named]:
    """Draw checks and conditions that join what was there before them."""
    found: dict[str, Named] = {}
    for name in CHECKS:
        found[name] = Named(name=name, shadow=draw(st.booleans()), enabled=draw(st.booleans()))
    for number in range(draw(st.integers(1, 5))):
        joins = draw(st.sampled_from(Joins))
        names = st.sampled_from(sorted(found))
        of = (draw(names),) if joins is Joins.NOT else tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True)))
        found[f"j{number}"] = Named(
            name=f"j{number}", joins=joins, of=of, shadow=draw(st.booleans()), enabled=draw(st.booleans())
        )  # fmt: skip
    return found


@given(worlds(), st.fixed_dictionaries({name: st.sampled_from([PASS, HOLD, SKIP, None]) for name in CHECKS}))
def test_joined_conditions_say_what_the_model_says(conditions: dict[str, Named], answers: Answers) -> None:
    for name in conditions:
        assert asked(name, conditions, answers) == expected(name, conditions, answers), name
        assert checks_of(name, conditions) <= set(CHECKS)


def test_a_check_that_could_not_answer_is_no_yes_under_not() -> None:
    conditions = {"a": Named(name="a"), "n": Named(name="n", joins=Joins.NOT, of=("a",))}
    for answer in (HOLD, PASS):
        found = look("n", conditions, lambda _, said=answer: reading(said, failed=True), NOW)  # type: ignore[misc]
        assert found is not None
        assert (found.answer, found.failed) == (answer, True)


def a_run(*states: RunState, code: str = "condition") -> Run:
    steps = [
        Step(at=NOW - timedelta(seconds=100 - at), state=state, code=code, reason="so it was")
        for at, state in enumerate(states)
    ]
    return Run(
        id="r", job="j", trigger="t", origin=Origin.EVENT, key="k", event="e", state=states[-1], code=code,
        reason="so it was", priority=5, rank=0, created_at=NOW, trace=tuple(steps),
    )  # fmt: skip


QUEUED, HELD, RUNNING = RunState.QUEUED, RunState.HELD, RunState.RUNNING


@pytest.mark.parametrize(
    ("answers", "hold_s", "verdict"),
    [
        ([PASS, PASS], None, Pass), ([PASS, None], None, type(LATER)), ([None, HOLD], 60.0, Hold),
        ([None, HOLD], None, Skip), ([HOLD, SKIP], 60.0, Skip), ([], None, Pass),
    ],
)  # fmt: skip
def test_the_first_that_skips_decides_then_the_first_that_holds_then_what_is_not_known(
    answers: Sequence[Answer | None], hold_s: float | None, verdict: type
) -> None:
    found = [(Named(name=f"c{n}"), None if said is None else reading(said)) for n, said in enumerate(answers)]
    assert isinstance(judge(a_run(QUEUED), found, hold_s=hold_s, now=NOW), verdict)


@pytest.mark.parametrize(
    ("states", "until_s"),
    [
        ((QUEUED,), 50), ((QUEUED, HELD), 50 - 99), ((QUEUED, HELD, QUEUED, HELD), 50 - 99),
        ((QUEUED, HELD, QUEUED, RUNNING, RunState.RETRYING, QUEUED), 50),
        ((QUEUED, RUNNING, RunState.RETRYING, QUEUED, HELD), 50 - 96),
    ],
)  # fmt: skip
def test_the_time_of_a_wait_counts_from_when_it_was_held_first_after_its_latest_attempt(
    states: Sequence[RunState], until_s: float
) -> None:
    verdict = judge(a_run(*states), [(Named(name="c"), reading(HOLD))], hold_s=50.0, now=NOW)
    if until_s <= 0:
        assert isinstance(verdict, Skip)
        assert (verdict.code, verdict.state) == ("condition_timeout", RunState.EXPIRED)
    else:
        assert isinstance(verdict, Hold)
        assert verdict.until == NOW + timedelta(seconds=until_s)


@pytest.mark.parametrize(
    ("names", "circle"),
    [
        ({"a": ["b"], "b": []}, None), ({"a": ["a"]}, ["a", "a"]), ({"a": ["b"], "b": ["c"], "c": ["b"]}, None),
        ({"a": ["x", "b"], "b": ["c"], "c": ["a"], "x": []}, ["a", "b", "c", "a"]),
    ],
)  # fmt: skip
def test_a_circle_is_found_from_those_that_stand_in_it(names: dict[str, list[str]], circle: list[str] | None) -> None:
    assert circle_through("a", names) == circle
