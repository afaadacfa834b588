"""Overrides from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.plugin import Secret
from engine.triggers import Debounce
from tests.test_config_plugins import JOB, Hook, Shell, Table, Tick, Verify, load_text, problems_of


def text_of(on: str, more: str = "") -> str:
    return f"{JOB}[triggers.t-1]\njob = 'j'\non.{on}\n{more}\n"


def test_scalars_of_every_type_can_be_overridden(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        "[http]\nlisten = '127.0.0.1:1'\n[jobs.import-csv]\nrun.shell = ['a']\nconcurrency = 9\n",
        environment={
            "ENGINE__HTTP__LISTEN": "0.0.0.0:80",
            "ENGINE__HTTP__INSECURE": "true",
            "engine__http__max_body": "2KiB",
            "ENGINE__Engine__Concurrency": "7",
            "ENGINE__DEFAULTS__RETRY__FACTOR": "3",
            "ENGINE__DEFAULTS__RETRY__JITTER": "0.5",
            "ENGINE__JOBS__IMPORT_CSV__TIMEOUT": "5s",
            "ENGINE__JOBS__IMPORT_CSV__ON_CRASH": "fail",
            "ENGINE__STORE__URL": "sqlite:///x.db",
            "ENGINE_CONFIG": "not one",
            "ENGINE_ADMIN_TOKEN": "not one",
        },
    )
    assert (config.http.host, config.http.port, config.http.insecure) == ("0.0.0.0", 80, True)
    assert (config.http.max_body_bytes, config.engine.concurrency) == (2048, 7)
    job = config.jobs["import-csv"]
    assert (job.timeout_s, job.on_crash, job.concurrency) == (5.0, "fail", 9)
    assert (job.retry.factor, job.retry.jitter) == (3.0, 0.5)
    assert config.store.path == tmp_path / "x.db"


def test_settings_of_plugins_can_be_overridden_in_both_forms(tmp_path: Path) -> None:
    on = text_of("tick = 'x'")
    prefix = "ENGINE__TRIGGERS__T_1__ON__TICK"
    for environment, expected in (
        ({prefix: "y"}, Tick(expression="y", timezone="UTC")),
        ({f"{prefix}__EXPRESSION": "y"}, Tick(expression="y", timezone="UTC")),
        ({f"{prefix}__TIMEZONE": "Asia/Tokyo"}, Tick(expression="x", timezone="Asia/Tokyo")),
    ):
        assert load_text(tmp_path, on, environment=environment).triggers["t-1"].on == expected
    on = text_of("tick = { expression = 'x', timezone = 'Asia/Tokyo' }")
    config = load_text(tmp_path, on, environment={prefix: "y"})
    assert config.triggers["t-1"].on == Tick(expression="y", timezone="Asia/Tokyo")


def test_tables_within_settings_and_choices_can_be_overridden(tmp_path: Path) -> None:
    hook = text_of("hook = { path = 'p', verify = 'none' }")
    prefix = "ENGINE__TRIGGERS__T_1__ON__HOOK__VERIFY"
    config = load_text(tmp_path, hook, environment={f"{prefix}__TOKEN": "s3cret"})
    assert config.triggers["t-1"].on == Hook(path="p", verify=Verify(token=Secret("s3cret")))
    assert config.secrets == {"s3cret"}
    shell = "[jobs.j]\nrun.shell = { command = ['a'], env = { LEVEL = 'info' } }\n"
    runner = load_text(tmp_path, shell, environment={"ENGINE__JOBS__J__RUN__SHELL__ENV__LEVEL": "1"}).jobs["j"].runner
    assert runner == Shell(command=["a"], env={"LEVEL": "1"})


def test_a_value_that_may_be_number_or_word_is_read_as_what_it_is(tmp_path: Path) -> None:
    for text, number in (("3", 3), ("high", 8)):
        environment = {"ENGINE__TRIGGERS__T_1__PRIORITY": text}
        assert load_text(tmp_path, text_of("tick='x'"), environment=environment).triggers["t-1"].priority == number
    environment = {"ENGINE__TRIGGERS__T_1__DEBOUNCE__WAIT": "3s"}
    config = load_text(tmp_path, text_of("tick='x'", "debounce='1s'"), environment=environment)
    assert config.triggers["t-1"].debounce == Debounce(wait_s=3.0)
    environment = {"ENGINE__TRIGGERS__T_1__DATA__N": "5", "ENGINE__TRIGGERS__T_1__DATA__S": "6"}
    config = load_text(tmp_path, text_of("tick='x'", "data = { n = 1, s = 'a' }"), environment=environment)
    assert config.triggers["t-1"].data == {"n": 5, "s": "6"}
    environment = {"ENGINE__TRIGGERS__T_1__ON__TABLE__SINCE": "2030-01-01T00:00:00Z"}
    on = load_text(tmp_path, text_of("table = {}"), environment=environment).triggers["t-1"].on
    assert isinstance(on, Table)
    assert on.since is not None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ENGINE__HTTP__LISTN", "x", "overrides nothing that there is"),
        ("ENGINE__", "x", "overrides nothing that there is"),
        ("ENGINE__HTTP", "x", "overrides a table or list"),
        ("ENGINE__JOBS__NEW__TIMEOUT", "1s", "overrides nothing that there is"),
        ("ENGINE__JOBS__J__TAGS", "x", "overrides a table or list"),
        ("ENGINE__ENGINE__CONCURRENCY", "many", 'found "many", expected a whole number of at least 1'),
        ("ENGINE__ENGINE__CONCURRENCY", "0", "found 0, expected a whole number of at least 1"),
        ("ENGINE__HTTP__INSECURE", "yes", 'found "yes", expected true or false'),
        ("ENGINE__HTTP__LISTEN", "", 'found "", expected "host:port"'),
        ("ENGINE__HTTP__LISTEN", "0.0.0.0:1", "which others can reach"),
        ("ENGINE__HTTP__LISTEN", "\udcff", "is not valid UTF-8"),
        ("ENGINE__JOBS__J__TIMEOUT", "10 minutes", 'found "10 minutes", which is no duration'),
        ("ENGINE__TRIGGERS__T_1__FILTER", "dta.x", "unknown name `dta`"),
        ("ENGINE__TRIGGERS__T_1__ON__TICK", "never", 'found "never", which never comes'),
    ],
)
def test_an_override_that_is_wrong_is_told_by_its_variable(
    tmp_path: Path, variable: str, value: str, message: str
) -> None:
    (problem,) = problems_of(tmp_path, text_of("tick = 'x'"), environment={variable: value})
    assert (problem.file, problem.line, problem.path) == ("environment", 0, variable)
    assert message in problem.message


def test_a_near_miss_is_offered_for_a_variable(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, JOB, environment={"ENGINE__JOBS__J__TIMOUT": "1s"})
    assert problem.hint == "did you mean ENGINE__JOBS__J__TIMEOUT?"


def test_a_variable_that_could_mean_two_names_is_refused(tmp_path: Path) -> None:
    text = "[jobs.a-b]\nrun.shell = ['a']\n[jobs.a_b]\nrun.shell = ['b']\n"
    (problem,) = problems_of(tmp_path, text, environment={"ENGINE__JOBS__A_B__TIMEOUT": "1s"})
    assert problem.message == "could mean jobs.a-b.timeout and jobs.a_b.timeout"


def test_names_with_two_underscores_are_found(tmp_path: Path) -> None:
    text = "[jobs.a__b]\nrun.shell = ['a']\n"
    config = load_text(tmp_path, text, environment={"ENGINE__JOBS__A__B__TIMEOUT": "1s"})
    assert config.jobs["a__b"].timeout_s == 1.0


def test_problems_of_overrides_come_after_those_of_files(tmp_path: Path) -> None:
    environment = {"ENGINE__HTTP__LISTEN": "x"}
    found = problems_of(tmp_path, "[engine]\nconcurrency = 0\n", environment=environment)
    assert [problem.path for problem in found] == ["engine.concurrency", "ENGINE__HTTP__LISTEN"]
