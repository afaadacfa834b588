"""The source of runs' ends: what it follows, what it refuses, and the loops that `check` finds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, load
from engine.errors import ConfigError, ConfigProblem
from engine.plugin import OUTCOMES, BadSetting, RunEnd, RunState, Source
from engine.registry import Registry
from plugins.sources.run import RunEnds

REGISTRY = Registry.discover()
JOBS = ("extract", "load", "report")


def an_end(**fields: Any) -> RunEnd:
    return RunEnd(**{"job": "load", "trigger": "nightly", "outcome": RunState.SUCCEEDED, **fields})


def configured(tmp_path: Path, *triggers: str, registry: Registry = REGISTRY) -> Config:
    jobs = "".join(f'[jobs.{name}]\nrun.exec = ["true"]\ntags = ["etl", "{name}s"]\n' for name in JOBS)
    file = tmp_path / "config.toml"
    file.write_text(jobs + "".join(triggers), "utf-8")
    return load([file], environment={}, registry=registry)


def a_trigger(name: str, on: str, job: str, more: str = "") -> str:
    return f'[triggers.{name}]\njob = "{job}"\n{on}\n{more}\n'


def problems(tmp_path: Path, *triggers: str, registry: Registry = REGISTRY) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, *triggers, registry=registry)
    return refused.value.problems


# What is followed


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_whatever_end_of_the_job_is_followed_by_default(outcome: RunState) -> None:
    source = RunEnds(job="load")
    assert source.follows(an_end(outcome=outcome))
    assert not source.follows(an_end(outcome=outcome, job="other"))


@pytest.mark.parametrize(
    ("settings", "followed"),
    [
        ({}, True),
        ({"job": ("extract", "load")}, True),
        ({"job": ("extract", "report")}, False),
        ({"tags": ("etl",)}, True),
        ({"tags": ("other", "etl")}, True),
        ({"tags": ("other",)}, False),
        ({"trigger": "nightly"}, True),
        ({"trigger": ("hourly", "nightly")}, True),
        ({"trigger": "hourly"}, False),
        ({"outcomes": ("succeeded", "skipped")}, True),
        ({"outcomes": ("failed", "timed_out")}, False),
        ({"ignore": ("report",)}, True),
        ({"ignore": ("load",)}, False),
        ({"job": "load", "tags": ("other",)}, False),
        ({"job": "load", "trigger": "nightly", "tags": ("etl",), "outcomes": ("succeeded",)}, True),
    ],
)
def test_all_that_is_given_must_hold(settings: dict[str, Any], followed: bool) -> None:
    assert RunEnds(**settings).follows(an_end(tags=frozenset({"etl"}))) is followed


def test_each_outcome_can_be_named() -> None:
    for outcome in OUTCOMES:
        assert RunEnds(outcomes=(outcome.value,)).follows(an_end(outcome=outcome))  # type: ignore[arg-type]


def test_what_is_named_and_ignored_is_refused() -> None:
    with pytest.raises(BadSetting, match="load, which `job` names") as refused:
        RunEnds(job=("extract", "load"), ignore=("load",))
    assert refused.value.field == "ignore"


# As it is written


def test_a_plain_value_is_the_job(tmp_path: Path) -> None:
    config = configured(tmp_path, a_trigger("after", 'on.run = "load"', "report"))
    assert config.triggers["after"].on == RunEnds(job="load")
    config = configured(tmp_path, a_trigger("after", 'on.run = ["extract", "load"]', "report"))
    assert config.triggers["after"].on == RunEnds(job=("extract", "load"))


@pytest.mark.parametrize(
    ("on", "path", "said"),
    [
        ('on.run = "laod"', "triggers.after.on.run", 'found "laod", but there is no such job (did you mean "load"?)'),
        ('on.run = ["load", "extrct"]', "triggers.after.on.run[1]", 'did you mean "extract"?'),
        ('on.run = { trigger = "aftr" }', "triggers.after.on.run.trigger", 'did you mean "after"?'),
        ('on.run = { job = "load", ignore = ["reprot"] }', "triggers.after.on.run.ignore[0]", 'did you mean "report"?'),
        ('on.run = { job = "load", outcomes = ["succeded"] }', "triggers.after.on.run.outcomes[0]", '"succeeded"'),
        ('on.run = { job = "load", outcomes = ["missed"] }', "triggers.after.on.run.outcomes[0]", "expected"),
        ('on.run = { job = "load", outcome = "failed" }', "triggers.after.on.run.outcome", 'did you mean "outcomes"?'),
    ],
)
def test_what_is_not_there_is_told_with_its_place_and_a_near_miss(
    tmp_path: Path, on: str, path: str, said: str
) -> None:
    (problem,) = problems(tmp_path, a_trigger("after", on, "report"))
    assert (problem.path, problem.line) == (path, 12)
    assert said in str(problem)


def test_a_name_may_stand_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("load\n", "utf-8")
    config = configured(tmp_path, a_trigger("after", 'on.run = { file = "name" }', "report"))
    assert config.triggers["after"].on == RunEnds(job="load")
    (tmp_path / "name").write_text("laod\n", "utf-8")
    (problem,) = problems(tmp_path, a_trigger("after", 'on.run = { file = "name" }', "report"))
    assert "laod" not in str(problem)
    assert "no such job" in problem.message


# Loops


def test_a_chain_is_no_loop(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        a_trigger("start", 'on.cron = "0 2 * * *"', "extract"),
        a_trigger("second", 'on.run = "extract"', "load"),
        a_trigger("third", 'on.run = { tags = ["loads"] }', "report"),
        a_trigger("also", 'on.run = { trigger = "second" }', "report"),
    )
    assert len(config.triggers) == 4


def test_a_job_that_follows_itself_is_refused_with_its_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, a_trigger("again", 'on.run = "load"', "load"))
    assert (problem.path, problem.line) == ("triggers.again.on", 12)
    assert problem.message == "the ends of its own runs start it again, without end: again (job load) → again"
    assert problem.hint is not None
    assert "on.run" in problem.hint


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_loop_by_way_of_others_is_refused_with_the_whole_way(tmp_path: Path, order: tuple[int, ...]) -> None:
    circle = [
        a_trigger("a", 'on.run = { job = "report", outcomes = ["failed"] }', "extract"),
        a_trigger("b", 'on.run = { job = "extract", outcomes = ["succeeded"] }', "load"),
        a_trigger("c", 'on.run = { tags = ["loads"] }', "report"),
    ]
    (problem,) = problems(tmp_path, *(circle[place] for place in order))
    first = "abc"[order[0]]
    way = {"a": "a (job extract) → b (job load) → c (job report) → a",
           "b": "b (job load) → c (job report) → a (job extract) → b",
           "c": "c (job report) → a (job extract) → b (job load) → c"}[first]  # fmt: skip
    assert problem.path == f"triggers.{first}.on"
    assert problem.message.endswith(f": {way}")


def test_each_loop_through_a_shared_part_is_told_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        a_trigger("there", 'on.run = "load"', "report"),
        a_trigger("back", 'on.run = "report"', "load"),
        a_trigger("also-back", 'on.run = "report"', "load"),
    )
    assert [problem.path for problem in found] == ["triggers.there.on", "triggers.also-back.on"]


def test_one_that_follows_everything_follows_itself_unless_it_ignores_its_job(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, a_trigger("alarm", 'on.run = { outcomes = ["failed"] }', "report"))
    assert "alarm (job report) → alarm" in problem.message
    configured(tmp_path, a_trigger("alarm", 'on.run = { outcomes = ["failed"], ignore = ["report"] }', "report"))


def test_two_alarms_that_follow_each_other_are_refused(tmp_path: Path) -> None:
    first = a_trigger("one", 'on.run = { outcomes = ["failed"], ignore = ["report"] }', "report")
    second = a_trigger("two", 'on.run = { outcomes = ["failed"], ignore = ["load"] }', "load")
    (problem,) = problems(tmp_path, first, second)
    assert "one (job report) → two (job load) → one" in problem.message


def test_loops_apart_are_all_told(tmp_path: Path) -> None:
    found = problems(
        tmp_path, a_trigger("one", 'on.run = "load"', "load"), a_trigger("two", 'on.run = "report"', "report")
    )
    assert [problem.path for problem in found] == ["triggers.one.on", "triggers.two.on"]


def test_a_disabled_trigger_counts_as_it_may_be_enabled(tmp_path: Path) -> None:
    assert problems(tmp_path, a_trigger("again", 'on.run = "load"', "load", "enabled = false"))


def test_a_loop_that_is_meant_is_taken(tmp_path: Path) -> None:
    on = 'on.run = { job = "load", outcomes = ["succeeded"], loop = true }'
    config = configured(
        tmp_path,
        a_trigger("again", on, "load", 'filter = "data.outputs.left > 0"'),
        a_trigger("back", 'on.run = "load"', "report"),
        a_trigger("forth", 'on.run = { job = "report", loop = true }', "load"),
    )
    assert len(config.triggers) == 3


def test_a_source_that_can_not_be_asked_is_told(tmp_path: Path) -> None:
    class Odd(Source, frozen=True, kw_only=True):
        """A source with a fault."""

        name = "odd"
        follows_runs = True

        def follows(self, end: RunEnd) -> bool:
            raise KeyError("x")

        async def run(self, context: Any) -> None: ...

    registry = Registry.discover()
    registry.add(Odd)
    (problem,) = problems(tmp_path, a_trigger("after", "on.odd = {}", "report"), registry=registry)
    assert "trigger after failed with KeyError" in problem.message


def test_all_other_mistakes_are_told_with_a_loop(tmp_path: Path) -> None:
    found = problems(
        tmp_path, a_trigger("again", 'on.run = "load"', "load"), a_trigger("bad", 'on.cron = "0 25 * * *"', "load")
    )
    assert [problem.path for problem in found] == ["triggers.again.on", "triggers.bad.on.cron"]
