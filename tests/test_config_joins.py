"""Triggers on several sources in the configuration: what they become, and what makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import load
from engine.config import schema as schema_of
from engine.config.joins import AllOf
from engine.decide.schedule import timers_of
from engine.errors import ConfigError
from engine.registry import Registry
from engine.triggers import CatchUp, Join, Reset, Use

JOB = '[jobs.j]\nrun.exec = ["true"]\n'
ALL = JOB + '[triggers.t]\njob = "j"\n'


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover()


def read(folder: Path, text: str, registry: Registry) -> Any:
    file = folder / "config.toml"
    file.write_text(text)
    return load([file], environment={}, registry=registry)


def test_inputs_have_sources_of_every_kind(tmp_path: Path, registry: Registry) -> None:
    text = (
        '[sources.orders]\nevent = "order.*"\n[sources.night]\ncron = "0 2 * * *"\n'
        + JOB
        + """
        [triggers.t]
        job = "j"
        join = { window = "1h", reset = "window", use = "first", key = "event.subject", max_open = 5, max_events = 9 }
        misfire = { catch_up = "none" }
        [triggers.t.on.all]
        sales = { files = { path = "inbox" }, filter = "data.size > 0" }
        stock = { event = "stock.counted", use = "all" }
        orders = { source = "orders" }
        daily = { cron = "0 3 * * *" }
        nightly.source = "night"
        """
    )
    made = read(tmp_path, text, registry).triggers["t"]
    assert isinstance(made.on, AllOf)
    assert made.join == Join(window_s=3600.0, reset=Reset.WINDOW, key="event.subject", max_open=5, max_events=9)
    assert [(one.name, one.on.name, one.use) for one in made.inputs] == [
        ("sales", "files", Use.FIRST), ("stock", "event", Use.ALL), ("orders", "event", Use.FIRST),
        ("daily", "cron", Use.FIRST), ("nightly", "cron", Use.FIRST),
    ]  # fmt: skip
    assert [one.source for one in made.inputs][2:] == ["event:orders", "timer:t/daily", "timer:t/nightly"]
    assert [timer.name for timer in timers_of(made)] == ["t/daily", "t/nightly"]
    assert all(timer.schedule is not None and timer.misfire.catch_up is CatchUp.NONE for timer in timers_of(made))
    assert made.misfire.catch_up is CatchUp.NONE


def test_a_span_alone_is_the_window_and_on_any_has_no_join(tmp_path: Path, registry: Registry) -> None:
    text = ALL + 'join = "1h"\non.all = { a = { event = "a" }, b = { event = "b" } }\n'
    assert read(tmp_path, text, registry).triggers["t"].join == Join(window_s=3600.0)
    text = ALL + 'debounce = "1s"\non.any = { a = { event = "a" }, b = { event = "b" } }\n'
    made = read(tmp_path, text, registry).triggers["t"]
    assert (made.join, made.debounce.wait_s) == (None, 1.0)


def test_equal_settings_are_one_source_wherever_they_stand(tmp_path: Path, registry: Registry) -> None:
    text = (
        ALL
        + """
    on.any = { a = { webhook = { path = "in", verify = "none" } }, b = { event = "b" } }
    [triggers.u]
    job = "j"
    on.webhook = { path = "in", verify = "none" }
    """
    )
    made = read(tmp_path, text, registry).triggers
    assert made["t"].inputs[0].source == made["u"].source
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text.replace('verify = "none" }\n', 'verify = { token = "4pLh-oK92-xc7Q" } }\n'), registry)
    assert "other settings by input a of trigger t" in str(caught.value)


def test_one_source_may_be_two_inputs_with_filters(tmp_path: Path, registry: Registry) -> None:
    text = ALL + 'join = "1h"\n[triggers.t.on.all]\n'
    text += (
        'a = { event = "x", filter = "data.n < 5" }\nb = { event = "x", filter = "data.n > 5" }\nc = { event = "x" }'
    )
    assert [one.filter for one in read(tmp_path, text, registry).triggers["t"].inputs] == [
        "data.n < 5", "data.n > 5", None,
    ]  # fmt: skip


def test_a_disabled_source_stops_a_join_and_only_its_own_input_of_others(tmp_path: Path, registry: Registry) -> None:
    text = '[sources.off]\nevent = "x"\nenabled = false\n' + ALL
    inputs = '= { a = { source = "off" }, b = { event = "b" } }\n'
    made = read(tmp_path, f'{text}join = "1h"\non.all {inputs}', registry).triggers["t"]
    assert (made.why_disabled(), made.works_on) == ("is disabled, as its source off is", ())
    made = read(tmp_path, f"{text}on.any {inputs}", registry).triggers["t"]
    assert made.works
    assert [source for source, _ in made.works_on] == [made.inputs[1].source]


A, B = 'a = { event = "a" }', 'b = { event = "b" }'


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        (f"on.all = {{ {A}, {B} }}", "triggers.t.join", "is missing beside on.all"),
        (f'join = "1h"\non.all = {{ {A} }}', "triggers.t.on.all", "names one input, a"),
        ('join = "1h"\non.all = {}', "triggers.t.on.all", "names no input"),
        ("on.any = 3", "triggers.t.on.any", "found 3, expected a table"),
        (f'join = "1h"\non.any = {{ {A}, {B} }}', "triggers.t.join", "has no effect on any"),
        ('join = "1h"\non.event = "x"', "triggers.t.join", "has no effect on event"),
        (f'join = "1h"\ndebounce = "1s"\non.all = {{ {A}, {B} }}', "triggers.t.debounce", "stands beside on.all"),
        (
            f'join = "1h"\nbatch = {{ size = 2, wait = "1s" }}\non.all = {{ {A}, {B} }}', "triggers.t.batch",
            "stands beside on.all",
        ),
        (f'on.any = {{ {A}, b = {{ event = "a" }} }}', "triggers.t.on.any.b", "is the same as input a"),
        (
            'on.any = { a = { event = "a", use = "all" }, b = { event = "b" } }', "triggers.t.on.any.a.use",
            "has no effect in on.any",
        ),
        (f'on.any = {{ {A}, b = {{ evnt = "b" }} }}', "triggers.t.on.any.b", 'there is no source or timer "evnt"'),
        (f"on.any = {{ {A}, b = {{}} }}", "triggers.t.on.any.b", "found none, expected exactly one"),
        (
            f'on.any = {{ {A}, b = {{ event = "b", cron = "* * * * *" }} }}', "triggers.t.on.any.b",
            'found "event" and "cron", expected exactly one',
        ),
        (f'on.any = {{ {A}, b = {{ source = "x" }} }}', "triggers.t.on.any.b.source", "there is no such source"),
        (
            f'on.any = {{ {A}, b = {{ event = "b", filter = "dta.x" }} }}', "triggers.t.on.any.b.filter",
            "unknown name `dta`",
        ),
        (
            f'on.any = {{ {A}, b = {{ event = "b", filter = "http.method == \'GET\'" }} }}',
            "triggers.t.on.any.b.filter", "unknown name `http`",
        ),
        (f'on.any = {{ {A}, b = {{ cron = "99 * * * *" }} }}', "triggers.t.on.any.b.cron", "99"),
        (f'on.any = {{ {A}, "b/c" = {{ event = "b" }} }}', "triggers.t.on.any.b/c", 'found "b/c"'),
        (f"on.all = {{ {A}, b = {{ all = {{ {A}, {B} }} }} }}", "triggers.t.on.all.b", "there is no source or timer"),
        (f'on.any = {{ {A}, {B} }}\non.event = "x"', "triggers.t.on", 'found "any" and "event", expected exactly one'),
        (f'join = {{ use = "last" }}\non.all = {{ {A}, {B} }}', "triggers.t.join.window", "missing"),
        (f'join = {{ window = "1h", key = "x" }}\non.all = {{ {A}, {B} }}', "triggers.t.join.key", "unknown name `x`"),
        (f'join = "0s"\non.all = {{ {A}, {B} }}', "triggers.t.join", "greater than 0s"),
        (f'misfire = {{ catch_up = "none" }}\non.any = {{ {A}, {B} }}', "triggers.t.misfire", "has no effect on any"),
        (
            f'adaptive = {{ min = "1m", max = "1h", cpu_max = 0.5 }}\non.any = {{ {A}, b = {{ interval = "5m" }} }}',
            "triggers.t.adaptive", "is for triggers on one source",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_at_its_place(
    tmp_path: Path, registry: Registry, text: str, path: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, ALL + text, registry)
    told = [(one.path, one.message, one.line) for one in caught.value.problems]
    assert any(where.replace('"', "").startswith(path) and said in what and line >= 3 for where, what, line in told), (
        told
    )


def test_a_join_that_only_starts_itself_is_a_loop_and_one_that_waits_for_more_is_none(
    tmp_path: Path, registry: Registry
) -> None:
    text = ALL + 'on.any = { a = { run = { job = "j" } }, b = { event = "b" } }\n'
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, registry)
    assert "start it again, without end" in str(caught.value)
    waits = text.replace("on.any", 'join = "1h"\non.all')
    assert read(tmp_path, waits, registry).triggers["t"].join is not None


def test_a_preset_gives_inputs_that_a_trigger_completes(tmp_path: Path, registry: Registry) -> None:
    text = (
        JOB
        + """
    [presets.pair]
    join = "1h"
    on.all = { a = { event = "a" }, b = { event = "b" } }
    [triggers.t]
    preset = "pair"
    job = "j"
    join = { key = "data.k" }
    on.all.b = { filter = "data.n > 1" }
    """
    )
    made = read(tmp_path, text, registry).triggers["t"]
    assert made.join == Join(window_s=3600.0, key="data.k")
    assert [(one.name, one.filter) for one in made.inputs] == [("a", None), ("b", "data.n > 1")]


def test_inputs_stand_in_the_schema(registry: Registry) -> None:
    whole = schema_of(registry)
    on = whole["$defs"]["TriggerTable"]["else"]["properties"]["on"]["properties"]
    assert on["all"]["minProperties"] == 2
    assert on["all"]["additionalProperties"] == {"$ref": "#/$defs/InputTable"}
    assert {"filter", "use"} <= whole["$defs"]["InputTable"]["properties"].keys()
