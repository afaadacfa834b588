"""Presets: what is built in, what triggers have from them, and where mistakes in the whole are told."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from engine import Engine
from engine.cli.app import app
from engine.config import Config, Preset, load
from engine.config.model import PresetTable, TriggerTable
from engine.config.presets import BUILT_IN, built_in, standard
from engine.config.shapes import fields_of
from engine.decide.rules import Rule
from engine.decide.schedule import schedule_of
from engine.errors import ConfigError, ConfigProblem
from engine.jobs import Job, RetryChange, RetryPolicy
from engine.plugin import Outcome, Timer
from engine.registry import Registry
from engine.runs import Run, RunState
from engine.triggers import MISFIRE, PRIORITIES, Debounce, Trigger
from engine.units import parse_duration
from tests.fake_operations import FakeOperations, serving
from tests.http_client import asking
from tests.organs import bench, event, job, trigger

JOB = '[jobs.j]\nrun.exec = ["true"]\n'
GIVEN = {
    "data_arrival": 'on.files.path = "inbox"',
    "external_api_update": 'on.http.url = "https://example.com/x"',
    "database_change": (
        'on.database.url = "sqlite+aiosqlite:///app.db"\n'
        'on.database.query = "select id from orders where id > :cursor order by id"\non.database.cursor = "id"'
    ),
    "webhook_trigger": 'on.webhook.path = "github"\non.webhook.verify = "none"',
}
NAMES = (
    "production_daily production_hourly development_frequent business_hours_only weekend_batch manual_only "
    "high_frequency low_frequency data_arrival external_api_update database_change webhook_trigger "
    "ecommerce_peak_hours financial_end_of_day retail_inventory_update marketing_campaign_sync daily weekly hourly "
    "weekly_sunday_1am"
).split()


def load_text(folder: Path, text: str, **environment: str) -> Config:
    (folder / "config.toml").write_text(text, "utf-8")
    return load([folder / "config.toml"], environment=environment)


def problems(folder: Path, text: str, **environment: str) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, **environment)
    return list(caught.value.problems)


def told(folder: Path, text: str, **environment: str) -> list[tuple[int, str, str]]:
    return [(one.line, one.path, one.message) for one in problems(folder, text, **environment)]


def one_trigger(folder: Path, lines: str, before: str = "", **environment: str) -> Trigger:
    return load_text(folder, f'{before}{JOB}[triggers.t]\njob = "j"\n{lines}\n', **environment).triggers["t"]


# What is built in


def test_the_presets_of_the_contract_are_built_in() -> None:
    assert sorted(built_in()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_built_in_preset_makes_a_sound_trigger(tmp_path: Path, name: str) -> None:
    made = one_trigger(tmp_path, f'preset = "{name}"\n{GIVEN.get(name, "")}')
    assert (made.preset, made.job, made.enabled) == (name, "j", True)
    schedule = schedule_of(made)
    assert isinstance(made.on, Timer) is (schedule is not None)
    assert "misfire" not in standard(Registry.discover())[name].settings.value or schedule is not None
    if schedule is not None:
        due = schedule.next(WEEK)
        assert due is not None
        assert due - WEEK <= timedelta(days=7)


def test_presets_whose_runs_wait_between_attempts_do_not_hang_on_the_defaults_of_the_configuration() -> None:
    for preset in standard(Registry.discover()).values():
        retry = preset.settings.plain().get("retry", {})
        assert ("delay" in retry) == ("max_delay" in retry) == (retry.get("attempts", 1) > 1), preset.name


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GIVEN])
def test_a_preset_without_parameters_needs_nothing_but_a_job(tmp_path: Path, name: str) -> None:
    assert standard(Registry.discover())[name].parameters == {}
    assert one_trigger(tmp_path, f'preset = "{name}"').preset == name


@pytest.mark.parametrize("name", GIVEN)
def test_each_parameter_that_is_missing_is_told_with_the_preset_and_its_meaning(tmp_path: Path, name: str) -> None:
    parameters = standard(Registry.discover())[name].parameters
    assert parameters
    found = told(tmp_path, f'{JOB}[triggers.t]\njob = "j"\npreset = "{name}"\n')
    expected = [
        (5, f"triggers.t.{key}", f'missing; preset "{name}" needs it: {text}') for key, text in parameters.items()
    ]
    assert found == expected


UNITS = {"second": "s", "minute": "m", "hour": "h", "day": "d"}


def settings_in_words(settings: dict[str, Any]) -> set[str]:
    """Return what the words of a preset must say of its settings, but for when it is due."""
    said: set[str] = set()
    on = settings["on"]
    spans = [
        on.get(plugin, {}).get(key) for plugin, key in (("files", "settle"), ("http", "every"), ("database", "every"))
    ]
    debounce, retry = settings.get("debounce", {}), settings.get("retry", {})
    spans += [debounce.get("wait"), debounce.get("max_wait"), settings.get("timeout")]
    match settings.get("misfire"):
        case {"catch_up": "none"}:
            said.add("missed ones are not made up for")
        case {"catch_up": "all", "max": most}:
            said.add(f"all missed ones are made up for in order, the newest {most} at most")
        case {"grace": grace}:
            said.add(f"the latest missed one is made up for within {in_words(grace)}")
            spans.append(grace)
    if retry.get("attempts", 1) > 1:
        spans.append(retry["delay"])
        said.add(f"up to {retry['attempts']} attempts")
    elif retry:
        said.add("1 attempt")
    said |= {in_words(span) for span in spans if span is not None}
    if "priority" in settings:
        said.add(f"{settings['priority']} priority")
    return said


def in_words(span: str) -> str:
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(parse_duration(span), length_s)
        if rest == 0 and count >= 1:
            return f"{count:.0f} {unit}{'s' if count > 1 else ''}"
    raise AssertionError(span)


def durations_in(text: str) -> set[str]:
    return {match[0] for match in re.finditer(r"\d+ (?:second|minute|hour|day)s?", text)}


@pytest.mark.parametrize("name", NAMES)
def test_the_words_of_a_preset_say_what_its_settings_do(name: str) -> None:
    preset = standard(Registry.discover())[name]
    settings = preset.settings.plain()
    expected = settings_in_words(settings)
    missing = {words for words in expected if words not in preset.description}
    assert not missing, preset.description
    when = preset.description.partition(";")[0].partition(",")[0]
    said = durations_in(preset.description.removeprefix(when))
    assert said <= expected, "it names a duration that no setting has"
    words = {word for word in PRIORITIES if f"{word} priority" in preset.description}
    assert words == ({settings["priority"]} if "priority" in settings else set())
    assert ("attempt" in preset.description) == ("retry" in settings)
    assert ("missed" in preset.description) == ("misfire" in settings)


WEEK = datetime(2026, 11, 23, tzinfo=UTC)  # a Monday
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEEKDAYS, WEEKEND = range(5), (5, 6)


def times(step: str, days: Any = range(7), first: str = "00:00", last: str = "23:59") -> set[datetime]:
    """Return all instants of a week, at a distance from the first of each day to the last."""
    found = set()
    for day in days:
        at = WEEK + timedelta(days=day, hours=int(first[:2]), minutes=int(first[3:]))
        end = WEEK + timedelta(days=day, hours=int(last[:2]), minutes=int(last[3:]))
        while at <= end:
            found.add(at)
            at += timedelta(seconds=parse_duration(step))
    return found


DUE = {
    "Every day at 02:00": times("1d", first="02:00"),
    "Every hour on the hour": times("1h"),
    "Every 5 minutes": times("5m"),
    "Monday to Friday, every hour from 09:00 to 17:00": times("1h", WEEKDAYS, "09:00", "17:00"),
    "Saturday and Sunday at 03:00": times("1d", WEEKEND, "03:00"),
    "Every minute": times("1m"),
    "Every 6 hours": times("6h"),
    "Every day at 00:00": times("1d"),
    "Every Sunday at 00:00": times("1d", [6]),
    "Every Sunday at 01:00": times("1d", [6], "01:00"),
    "Every 15 minutes from 10:00 to 21:45": times("15m", first="10:00", last="21:45"),
    "Monday to Friday at 18:00": times("1d", WEEKDAYS, "18:00"),
    "Every 30 minutes from 06:00 to 22:30": times("30m", first="06:00", last="22:30"),
    "Monday to Friday at 08:00, 12:00 and 16:00": times("4h", WEEKDAYS, "08:00", "16:00"),
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GIVEN and name != "manual_only"])
def test_a_preset_with_a_timer_is_due_when_its_words_say(tmp_path: Path, name: str) -> None:
    schedule = schedule_of(one_trigger(tmp_path, f'preset = "{name}"'))
    assert schedule is not None
    description = standard(Registry.discover())[name].description
    (expected,) = (
        due for words, due in DUE.items() if re.match(rf"{re.escape(words)}(?:[,;.] ?(?!\d)|$)", description)
    )
    found = set()
    at = schedule.next(WEEK - timedelta(seconds=1))
    while at is not None and at < WEEK + timedelta(days=7):
        found.add(at)
        at = schedule.next(at)
    assert found == expected


# What a trigger has from one


def test_what_a_trigger_says_goes_over_what_its_preset_says_single_keys_of_tables_too(tmp_path: Path) -> None:
    before = """
    [presets.base]
    on.cron = { expression = "0 4 * * *", timezone = "Europe/Berlin" }
    debounce = { wait = "2s", max_wait = "1m" }
    retry = { attempts = 4, delay = "1m" }
    misfire = { grace = "1m" }
    priority = "low"
    tags = ["a", "b"]
    data = { x = 1, y = 2 }
    timeout = "9m"
    """
    made = one_trigger(tmp_path, 'preset = "base"\n', before)
    assert made.debounce == Debounce(wait_s=2.0, max_wait_s=60.0)
    assert (made.retry, made.timeout_s) == (RetryChange(attempts=4, delay_s=60.0), 540.0)
    assert (made.priority, made.tags, made.data) == (2, ("a", "b"), {"x": 1, "y": 2})
    changed = """
    preset = "base"
    on.cron = "0 5 * * *"
    debounce.wait = "3s"
    retry.attempts = 9
    misfire.grace = "2m"
    priority = 7
    tags = ["c"]
    data.y = 3
    """
    made = one_trigger(tmp_path, changed, before)
    assert (made.on.expression, made.on.timezone) == ("0 5 * * *", "Europe/Berlin")
    assert made.debounce == Debounce(wait_s=3.0, max_wait_s=60.0)
    assert made.retry == RetryChange(attempts=9, delay_s=60.0)
    assert (made.misfire.catch_up, made.misfire.grace_s) == ("latest", 120.0)
    assert (made.priority, made.tags, made.data) == (7, ("c",), {"x": 1, "y": 3})


def test_another_source_replaces_that_of_the_preset(tmp_path: Path) -> None:
    made = one_trigger(tmp_path, 'preset = "production_daily"\non.interval = "5m"')
    assert (made.on.name, made.on.every, made.priority) == ("interval", 300.0, 8)
    made = one_trigger(tmp_path, 'preset = "webhook_trigger"\non.manual = true')
    assert made.on.name == "manual"


def test_what_a_preset_says_of_due_instants_is_left_out_where_there_are_none(tmp_path: Path) -> None:
    made = one_trigger(tmp_path, 'preset = "production_daily"\non.manual = true')
    assert (made.on.name, made.misfire, made.priority) == ("manual", MISFIRE, 8)
    shared = '[sources.hook.webhook]\npath = "x"\nverify = "none"\n'
    assert one_trigger(tmp_path, 'preset = "production_daily"\non.source = "hook"', shared).misfire == MISFIRE
    own = f'{JOB}[triggers.t]\njob = "j"\npreset = "production_daily"\non.manual = true\nmisfire.grace = "1m"\n'
    assert [(line, path) for line, path, _ in told(tmp_path, own)] == [(7, "triggers.t.misfire")]


def test_its_description_stays_that_of_the_preset(tmp_path: Path) -> None:
    assert one_trigger(tmp_path, 'preset = "daily"').description == ""


def test_a_built_in_preset_can_be_changed_and_others_be_made_of_it(tmp_path: Path) -> None:
    text = f"""
    [presets.production_daily]
    on.cron = "0 4 * * *"
    [presets.mine]
    preset = "production_daily"
    description = "Mine."
    job = "j"
    retry.attempts = 8
    {JOB}
    [triggers.t]
    preset = "mine"
    """
    config = load_text(tmp_path, text)
    made = config.triggers["t"]
    assert (made.on.expression, made.priority, made.job) == ("0 4 * * *", 8, "j")
    assert made.retry == RetryChange(attempts=8, delay_s=300.0, max_delay_s=1800.0)
    changed, mine = config.presets["production_daily"], config.presets["mine"]
    assert (changed.changed, changed.defined_in) == (("on.cron",), f"{tmp_path}/config.toml:2")
    assert (mine.changed, mine.description, mine.settings.plain()["timeout"]) == ((), "Mine.", "4h")
    assert config.presets["daily"].defined_in is None


def test_a_parameter_that_a_preset_gives_itself_is_none_any_more(tmp_path: Path) -> None:
    before = '[presets.inbox]\npreset = "data_arrival"\non.files = "inbox"\n'
    config = load_text(tmp_path, f'{before}{JOB}[triggers.t]\njob = "j"\npreset = "inbox"\n')
    assert config.presets["inbox"].parameters == {}
    assert config.triggers["t"].on.path == tmp_path / "inbox"
    assert config.triggers["t"].on.settle == 5.0


def test_paths_of_a_preset_are_relative_to_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    presets, triggers = tmp_path / "below" / "presets.toml", tmp_path / "config.toml"
    presets.write_text('[presets.inbox]\non.files = "inbox"\n', "utf-8")
    triggers.write_text(f'{JOB}[triggers.t]\njob = "j"\npreset = "inbox"\n', "utf-8")
    config = load([triggers, presets], environment={})
    assert config.triggers["t"].on.path == tmp_path / "below" / "inbox"
    assert config.triggers["t"].defined_in == f"{triggers}:3"


def test_the_environment_goes_over_presets_and_over_what_triggers_have_from_them(tmp_path: Path) -> None:
    lines = 'preset = "production_daily"'
    made = one_trigger(tmp_path, lines, ENGINE__TRIGGERS__T__ON__CRON="0 7 * * *", ENGINE__TRIGGERS__T__PRIORITY="3")
    assert (made.on.expression, made.priority) == ("0 7 * * *", 3)
    made = one_trigger(tmp_path, lines, ENGINE__TRIGGERS__T__RETRY__ATTEMPTS="6")
    assert made.retry is not None
    assert made.retry.attempts == 6
    made = one_trigger(tmp_path, lines, ENGINE__TRIGGERS__T__PRESET="weekly")
    assert (made.preset, made.on.expression) == ("weekly", "@weekly")
    made = one_trigger(tmp_path, 'preset = "data_arrival"', ENGINE__TRIGGERS__T__ON__FILES__PATH="in")
    assert made.on.path == tmp_path / "in"
    before = '[presets.mine]\non.cron = "0 1 * * *"\n'
    made = one_trigger(tmp_path, 'preset = "mine"', before, ENGINE__PRESETS__MINE__ON__CRON="0 8 * * *")
    assert made.on.expression == "0 8 * * *"


def test_one_preset_for_many_triggers_is_not_changed_by_any_of_them(tmp_path: Path) -> None:
    text = f'{JOB}[triggers.a]\njob = "j"\npreset = "daily"\n[triggers.b]\njob = "j"\npreset = "daily"\n'
    config = load_text(tmp_path, text, ENGINE__TRIGGERS__A__ON__CRON="0 7 * * *")
    assert config.triggers["b"].on.expression == "@daily"
    assert load_text(tmp_path, text).triggers["a"].on.expression == "@daily"


def test_a_duration_in_debounce_is_its_wait_also_beside_a_table(tmp_path: Path) -> None:
    before = """
    [presets.short]
    on.manual = true
    debounce = "2s"
    [presets.long]
    on.manual = true
    debounce.max_wait = "1m"
    """
    made = one_trigger(tmp_path, 'preset = "short"\ndebounce.key = "event.type"', before)
    assert made.debounce == Debounce(wait_s=2.0, key="event.type")
    made = one_trigger(tmp_path, 'preset = "long"\ndebounce = "3s"', before)
    assert made.debounce == Debounce(wait_s=3.0, max_wait_s=60.0)


def test_an_empty_table_of_a_source_says_nothing(tmp_path: Path) -> None:
    assert one_trigger(tmp_path, 'preset = "daily"\non = {}').on.expression == "@daily"


# Where mistakes are told


def test_an_unknown_preset_is_told_with_a_near_miss_and_nothing_else_is(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, f'{JOB}[triggers.t]\njob = "j"\npreset = "production_dialy"\n')
    assert (problem.line, problem.path) == (5, "triggers.t.preset")
    assert "there is no such preset" in problem.message
    assert problem.hint == 'did you mean "production_daily"?'
    assert told(tmp_path, f'{JOB}[triggers.t]\njob = "j"\npreset = 3\n') == [
        (5, "triggers.t.preset", "found 3, expected the name of a preset")
    ]


def test_a_mistake_of_the_trigger_is_told_at_its_own_line(tmp_path: Path) -> None:
    lines = 'preset = "production_daily"\nretry.attempts = 0\non.cron = "99 * * * *"\nx = 1\n'
    found = told(tmp_path, f'{JOB}[triggers.t]\njob = "j"\n{lines}')
    assert [(line, path) for line, path, _ in found] == [
        (6, "triggers.t.retry.attempts"),
        (7, "triggers.t.on.cron"),
        (8, "triggers.t.x"),
    ]


def test_what_comes_from_the_preset_is_told_at_the_line_that_names_it(tmp_path: Path) -> None:
    text = f'{JOB}[triggers.t]\njob = "j"\npreset = "data_arrival"\non.files = "in"\ndebounce.wait = "5m"\n'
    [(line, path, message)] = told(tmp_path, text)
    assert (line, path) == (5, "triggers.t.debounce.max_wait")
    assert message.endswith("(from preset data_arrival)")


def test_a_mistake_in_a_preset_is_told_there_once_however_many_have_it(tmp_path: Path) -> None:
    triggers = "".join(
        f'[triggers.t{n}]\njob = "j"\npreset = "{name}"\n' for n, name in enumerate(["bad", "bad", "worse"])
    )
    text = '[presets.bad]\non.cron = "99 * * * *"\nretry.attempts = 0\ncolour = 1\n[presets.worse]\npreset = "bad"\n'
    found = told(tmp_path, f"{text}{JOB}{triggers}")
    assert [(line, path) for line, path, _ in found] == [
        (2, "presets.bad.on.cron"),
        (3, "presets.bad.retry.attempts"),
        (4, "presets.bad.colour"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[presets.a]\npreset = "b"\n[presets.b]\npreset = "a"', "goes round in a circle: "),
        ('[presets.a]\npreset = "a"', "goes round in a circle: a → a"),
        ('[presets.a]\npreset = "zzz"', 'found "zzz", but there is no such preset'),
        ('[presets.a]\njob = "zzz"', 'found "zzz", but there is no such job'),
        ("presets = 3", "found 3, expected a table"),
        ("presets.a = 3", "found 3, expected a table"),
        ("presets.daily = 3", "found 3, expected a table"),
        ('[presets."a b"]', 'found "a b", which is no name'),
        ('[presets.a]\non.files.match = ["*"]\nparameters = { "on.files.pat" = "x" }', "is no setting of this preset"),
        ('[presets.a]\nparameters = { filter = { env = "X" } }', "expected text that says what it is"),
        ('[presets.a]\nretry = 3', "found 3, expected"),
        ('[presets.a]\nconcurrency = 3', "unknown key"),
        ('[presets.a]\non = { cron = "* * * * *", interval = "1m" }', "expected exactly one source or timer"),
    ],
)  # fmt: skip
def test_mistakes_in_presets(tmp_path: Path, text: str, expected: str) -> None:
    found = told(tmp_path, f'{text}\n{JOB}[triggers.t]\njob = "j"\npreset = "a"\n')
    assert any(expected in message for _, _, message in found), found
    assert not any(path.startswith("triggers.t.on") for _, path, _ in found), found


def test_a_preset_may_leave_out_what_triggers_must_say(tmp_path: Path) -> None:
    made = one_trigger(tmp_path, 'preset = "p"\non.files.path = "x"', '[presets.p]\non.files.match = ["*.csv"]\n')
    assert made.on.match == ("*.csv",)
    found = told(tmp_path, f'[presets.p]\non.files.match = ["*.csv"]\n{JOB}[triggers.t]\njob = "j"\npreset = "p"\n')
    assert found == [(7, "triggers.t.on.files.path", "missing; expected a path, as text (from preset p)")]


def test_the_name_may_stand_elsewhere_and_secrets_of_presets_are_secrets(tmp_path: Path) -> None:
    before = '[presets.hook]\non.webhook = { path = "x", verify = { token = "sesame-sesame" } }\n'
    config = load_text(tmp_path, f'{before}{JOB}[triggers.t]\njob = "j"\npreset = {{ env = "WHICH" }}\n', WHICH="hook")
    assert config.triggers["t"].on.path == "x"
    assert "sesame-sesame" in config.secrets


def test_presets_take_all_keys_of_triggers() -> None:
    keys = {field.key for field in fields_of(TriggerTable)}
    assert {field.key for field in fields_of(PresetTable)} == keys | {"parameters"}


def test_the_built_in_presets_are_read_by_the_rules_of_all_others(tmp_path: Path) -> None:
    text = (Path(inspect.getfile(Preset)).parent / BUILT_IN).read_text("utf-8")
    config = load_text(tmp_path, re.sub(r"^\[", "[presets.", text, flags=re.MULTILINE))
    assert all(config.presets[name].defined_in for name in NAMES)


# In programs


def test_a_program_names_a_preset_as_a_file_does(tmp_path: Path) -> None:
    engine = Engine(tmp_path)

    @engine.trigger(preset="production_daily", cron="0 9 * * *", retry={"delay": "7s"})
    @engine.job
    def nightly(run: object) -> None: ...

    engine.add_trigger(
        "drop", job="nightly", preset="data_arrival", on={"files": {"path": "in"}}, filter=lambda _: True
    )
    triggers = engine._definitions.triggers
    assert triggers["nightly"].on.expression == "0 9 * * *"
    assert triggers["nightly"].retry == RetryChange(attempts=3, delay_s=7.0, max_delay_s=1800.0)
    assert callable(triggers["drop"].filter)
    assert triggers["drop"].debounce == Debounce(wait_s=2.0, max_wait_s=60.0)
    for settings, said in (
        ({"preset": "dialy"}, "did you mean"),
        ({"preset": "webhook_trigger", "webhook": "x"}, 'missing; preset "webhook_trigger" needs it'),
        ({"preset": 3}, "expected the name of a preset"),
    ):
        with pytest.raises(ConfigError, match=said):
            engine.add_trigger("wrong", job="nightly", **settings)


def test_a_program_uses_the_presets_of_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[presets.mine]\non.cron = "0 3 * * *"\n', "utf-8")
    engine = Engine(tmp_path / "data", config=tmp_path / "config.toml")
    engine.job(name="j")(lambda run: None)
    engine.add_trigger("t", job="j", preset="mine")
    assert engine._definitions.triggers["t"].on.expression == "0 3 * * *"


# Where they are shown


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["presets", *arguments])


def test_the_command_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGINE_CONFIG", raising=False)
    found = json.loads(call("--json").output)
    assert [one["name"] for one in found["items"]] == sorted(NAMES)
    assert {one["defined_in"] for one in found["items"]} == {"built in"}
    listed = call().output.splitlines()
    assert len(listed) == len(NAMES) + 1
    assert all(one["description"] in line for one, line in zip(found["items"], listed[1:], strict=True))
    unknown = call("dialy")
    assert (unknown.exit_code, "did you mean" in unknown.output) == (1, True)


def test_what_the_command_prints_of_a_preset_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        before, _, block = call(name).output.partition("[triggers.NAME]")
        block = block.replace('job = "…"', 'job = "j"')
        for line in GIVEN.get(name, "").splitlines():
            key, _, value = line.partition(" = ")
            assert f"{key} = …" in block
            block = block.replace(f"{key} = …", f"{key} = {value}")
        assert load_text(tmp_path, f"{JOB}[triggers.NAME]{block}").triggers["NAME"].preset == name
        (tmp_path / "config.toml").unlink()
        settings = "\n".join(line for line in before.splitlines() if " = " in line and "…" not in line)
        plain = standard(Registry.discover())[name].settings.plain()
        assert tomllib.loads(settings) == plain


def test_the_command_shows_the_presets_of_the_configuration_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
    [presets.daily]
    on.cron = "0 5 * * *"
    [presets.hook]
    description = "Ours."
    on.webhook.verify = { token = "sesame-open" }
    [presets.hook.parameters]
    "on.webhook.path" = "where"
    """
    (tmp_path / "config.toml").write_text(text, "utf-8")
    hook = call("hook", "--json")
    found = json.loads(hook.output)
    assert (found["description"], found["parameters"]) == ("Ours.", {"on.webhook.path": "where"})
    assert found["settings"] == {"on": {"webhook": {"verify": {"token": "***"}}}}
    assert "(changed in config.toml:2: on.cron)" in call("daily").output
    assert "sesame" not in hook.output + call().output + call("hook").output


async def test_the_api_lists_them_page_by_page(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    operations.config = replace(operations.config, presets=standard(Registry.discover()))
    async with serving(operations) as server, asking(server) as client:
        first = await client.ask("GET", "/api/v1/presets?limit=15")
        rest = await client.ask("GET", f"/api/v1/presets?limit=15&cursor={first.json['next']}")
        items = [*first.json["items"], *rest.json["items"]]
        assert ([one["name"] for one in items], rest.json["next"]) == (sorted(NAMES), None)
        (one,) = (item for item in items if item["name"] == "webhook_trigger")
        assert one["settings"]["priority"] == "high"
        assert one["parameters"].keys() == {"on.webhook.path", "on.webhook.verify"}
        assert one.keys() == {"name", "description", "settings", "parameters", "defined_in", "changed"}
        assert (await client.ask("GET", "/api/v1/presets", token=None)).status == 401
        assert (await client.ask("GET", "/api/v1/presets?limit=x")).status == 422


# What a trigger says of its runs


def test_what_a_trigger_says_of_retries_changes_the_policy_of_its_job() -> None:
    policy = RetryPolicy(attempts=2, delay_s=1.0)
    assert RetryChange(attempts=5).applied(policy) == RetryPolicy(attempts=5, delay_s=1.0)
    assert RetryChange().applied(policy) == policy


def test_retries_that_only_trigger_and_job_together_get_wrong_are_told(tmp_path: Path) -> None:
    text = f'{JOB}[triggers.t]\njob = "j"\non.manual = true\nretry.delay = "10m"\n'
    [(line, path, message)] = told(tmp_path, text)
    assert (line, path) == (6, "triggers.t.retry")
    assert "with what job j says, delay is 10m, longer than max_delay, which is 5m" in message
    assert load_text(tmp_path, f'[defaults]\nretry.max_delay = "1h"\n{text}').triggers["t"].retry is not None
    engine = Engine(tmp_path / "data")
    engine.job(name="j")(lambda run: None)
    engine.add_trigger("t", job="j", manual=True, retry={"delay": "10m"})
    with pytest.raises(ConfigError, match="longer than max_delay"):
        engine._definitions.whole()


async def test_its_timeout_and_retries_hold_for_its_runs_and_not_for_those_of_others(tmp_path: Path) -> None:
    async def forever(run: Run, job: Job) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError("it never ends")

    policy = RetryPolicy(attempts=1, delay_s=10.0, jitter=0.0)
    triggers = [
        trigger("plain", source="a"),
        trigger("patient", source="b", timeout_s=5.0, retry=RetryChange(attempts=2, delay_s=60.0)),
    ]  # fmt: skip
    async with bench(
        tmp_path / "s.db", jobs=[job(timeout_s=30.0, retry=policy)], triggers=triggers, act=forever
    ) as desk:
        plain = (await desk.emit_one(event(), source="a")).runs[0]
        patient = (await desk.emit_one(event(), source="b")).runs[0]
        await desk.advance(6)
        run = await desk.run_of(patient)
        assert (run.state, run.reason) == (RunState.RETRYING, "attempt 1 of 2 timed out after 5s; next in 1m")
        assert (await desk.run_of(plain)).state is RunState.RUNNING
        await desk.advance(30)
        ended = await desk.run_of(plain)
        assert (ended.state, ended.reason) == (RunState.TIMED_OUT, "timed out after 30s")
        await desk.advance(60)
        assert (await desk.run_of(patient)).attempt == 2


def test_a_trigger_changes_nothing_else_of_its_job() -> None:
    assert Rule(trigger("t"), job(timeout_s=3.0)).limited(job(timeout_s=3.0)).timeout_s == 3.0
    changed = Rule(trigger("t", timeout_s=5.0), job()).limited(job(timeout_s=3.0, concurrency=2))
    assert (changed.timeout_s, changed.concurrency, changed.retry) == (5.0, 2, RetryPolicy())
