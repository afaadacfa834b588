"""How plugins' settings are read: by the annotations of their classes."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from msgspec import Meta, Struct, field

from engine.config import Config, load
from engine.errors import ConfigError, ConfigProblem
from engine.expressions import Template
from engine.plugin import (
    BadSetting,
    Duration,
    ExpressionError,
    ExpressionText,
    Outcome,
    RunContext,
    Runner,
    Secret,
    Size,
    Source,
    SourceContext,
    TemplateText,
    Timer,
)
from engine.registry import Registry


class Verify(Struct, frozen=True, kw_only=True):
    """How a hook proves who sends."""

    github: Secret | None = None
    token: Secret | None = None

    def __post_init__(self) -> None:
        if (self.github is None) == (self.token is None):
            raise BadSetting("token", "expected exactly one proof")


class Hook(Source, frozen=True, kw_only=True):
    """Receive what others send.

    - `path`: below `/hooks/`.
    """

    name: ClassVar[str] = "hook"
    main: ClassVar[str | None] = "path"
    gets_requests: ClassVar[bool] = True

    path: str
    verify: Literal["none"] | Verify

    def __post_init__(self) -> None:
        if ".." in self.path:
            raise BadSetting("path", f"found {self.path!r}, which climbs", "name a plain path")

    def identity(self) -> str | None:
        return self.path

    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


class Color(StrEnum):
    RED = "red"
    GREEN = "green"


class Table(Source, frozen=True, kw_only=True):
    """Ask a database."""

    name: ClassVar[str] = "table"

    url: str = "sqlite:///x"
    password: Secret | None = None
    every: Duration = 30.0
    most: Size = 65536
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    ratio: float = 0.5
    color: Color = Color.RED
    when: ExpressionText | None = None
    folder: Path = Path("rows")
    since: datetime | None = None
    columns: tuple[str, ...] = ()
    pairs: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    anything: Any = None
    strict: bool = False

    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


class Tick(Timer, frozen=True, kw_only=True):
    """Tick along."""

    name: ClassVar[str] = "tick"
    main: ClassVar[str | None] = "expression"

    expression: str

    def __post_init__(self) -> None:
        if self.expression == "never":
            raise BadSetting("expression", 'found "never", which never comes')
        if self.expression == "burst":
            raise RuntimeError("it burst")

    def next(self, after: datetime) -> datetime | None:
        return None

    def previous(self, before: datetime) -> datetime | None:
        return None


class Shell(Runner, frozen=True, kw_only=True):
    """Run a program."""

    name: ClassVar[str] = "shell"
    main: ClassVar[str | None] = "command"

    command: list[TemplateText]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    def check(self, names: Collection[str]) -> None:
        for index, element in enumerate(self.command):
            try:
                Template(element, names)
            except ExpressionError as error:
                raise BadSetting(f"command[{index}]", str(error)) from None
        if not self.command:
            raise BadSetting("command", "found an empty list, expected a program and its arguments")
        if "PATH" in self.env:
            raise BadSetting("env.PATH", "found a variable that steers programs")

    async def run(self, context: RunContext) -> Outcome:
        raise NotImplementedError


class Odd(Source, frozen=True, kw_only=True):
    """Has a setting that no configuration can hold."""

    name: ClassVar[str] = "odd"

    back: logging.Logger

    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


JOB = '[jobs.j]\nrun.shell = ["true"]\n'


def registry() -> Registry:
    found = Registry()
    for plugin in (Hook, Table, Tick, Shell, Odd):
        found.add(plugin)
    return found


def load_text(
    folder: Path, *texts: str, environment: dict[str, str] | None = None, create_secrets: bool = False
) -> Config:
    """Load texts as the files config.toml, config2.toml, … of a folder."""
    files = []
    for number, text in enumerate(texts, start=1):
        file = folder / ("config.toml" if number == 1 else f"config{number}.toml")
        file.write_text(text)
        files.append(file)
    return load(files, environment=environment or {}, registry=registry(), create_secrets=create_secrets)


def problems_of(folder: Path, *texts: str, environment: dict[str, str] | None = None) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, *texts, environment=environment)
    return list(caught.value.problems)


def on_table(folder: Path, settings: str, **environment: str) -> Table:
    text = f"{JOB}[triggers.t]\njob = 'j'\n[triggers.t.on.table]\n{settings}\n"
    on = load_text(folder, text, environment=environment).triggers["t"].on
    assert isinstance(on, Table)
    return on


def test_settings_of_every_kind_are_read_into_the_class(tmp_path: Path) -> None:
    table = on_table(
        tmp_path,
        """
        password = "pw"
        every = "1m30s"
        most = "1MiB"
        limit = 7
        ratio = 1
        color = "green"
        when = "data.x > 1"
        folder = "in"
        since = 2030-01-01T01:00:00+01:00
        columns = ["a", "b"]
        pairs = [1, 2]
        labels = { k = "v" }
        anything = { deep = [1, "x"] }
        strict = true
        """,
    )
    assert table == Table(
        password=Secret("pw"),
        every=90.0,
        most=1024 * 1024,
        limit=7,
        ratio=1.0,
        color=Color.GREEN,
        when="data.x > 1",
        folder=tmp_path / "in",
        since=datetime(2030, 1, 1, tzinfo=UTC),
        columns=("a", "b"),
        pairs=(1, 2),
        labels={"k": "v"},
        anything={"deep": [1, "x"]},
        strict=True,
    )
    assert isinstance(table.ratio, float)
    assert isinstance(table.color, Color)


def test_settings_left_out_have_the_defaults_of_the_class(tmp_path: Path) -> None:
    assert on_table(tmp_path, "") == Table(folder=tmp_path / "rows")


@pytest.mark.parametrize(
    ("line", "path", "message"),
    [
        ("every = 30", "every", 'found 30, expected a duration such as "500ms", "5s"'),
        ("every = 'soon'", "every", 'found "soon", which is no duration'),
        ("most = '1 XB'", "most", 'found "1 XB", which is no size'),
        ("limit = 0", "limit", "found 0, expected a whole number from 1 to 1000"),
        ("limit = 1.5", "limit", "found 1.5, expected a whole number from 1 to 1000"),
        ("limit = true", "limit", "found true, expected a whole number"),
        ("ratio = nan", "ratio", "found nan, expected a finite number"),
        ("ratio = '1'", "ratio", 'found "1", expected a number'),
        ("color = 'gren'", "color", 'found "gren", expected "red" or "green"'),
        ("when = 'data.x >'", "when", 'found "data.x >", which is no CEL expression'),
        ("when = 'dta.x'", "when", "unknown name `dta`; did you mean `data`?"),
        ("when = 'http.method'", "when", "unknown name `http`"),
        ("folder = ''", "folder", 'found "", which is no path'),
        ("since = 2030-01-01T00:00:00", "since", "found 2030-01-01T00:00:00, which has no offset from UTC"),
        ("since = 2030-01-01", "since", "found 2030-01-01, expected an instant"),
        ("columns = ['a', 1]", "columns[1]", "found 1, expected text"),
        ("columns = 'a'", "columns", 'found "a", expected a list of texts'),
        ("pairs = [1, 'x']", "pairs[1]", 'found "x", expected a whole number'),
        ("labels = { k = 1 }", "labels.k", "found 1, expected text"),
        ("labels = 'k=v'", "labels", 'found "k=v", expected a table'),
        ("strict = 'yes'", "strict", 'found "yes", expected true or false'),
        ("colour = 'red'", "colour", "unknown key"),
        ("anything = [nan]", "anything[0]", "found nan, which JSON can't hold"),
        ("limit = 99999999999999999999", "limit", "found 99999999999999999999, expected a whole number"),
    ],
)
def test_a_wrong_setting_is_told_at_its_key(tmp_path: Path, line: str, path: str, message: str) -> None:
    text = f"{JOB}[triggers.t]\njob = 'j'\n[triggers.t.on.table]\n\n{line}\n"
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.path) == (7, f"triggers.t.on.table.{path}")
    assert message in problem.message


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.table = {{ password = 271828 }}\n")
    assert "271828" not in str(problem)
    assert "expected text, { env" in problem.message


def test_a_choice_between_text_and_table_goes_by_what_stands_there(tmp_path: Path) -> None:
    text = f"""{JOB}
    [triggers.a]
    job = "j"
    on.hook = {{ path = "a", verify = "none" }}
    [triggers.b]
    job = "j"
    on.hook = {{ path = "b", verify = {{ github = "s3cret" }} }}
    """
    config = load_text(tmp_path, text)
    assert config.triggers["a"].on == Hook(path="a", verify="none")
    assert config.triggers["b"].on == Hook(path="b", verify=Verify(github=Secret("s3cret")))
    assert config.secrets == {"s3cret"}


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ("path = 'x'\nverify = 'nonne'", "verify", 'found "nonne", expected "none" or a table'),
        ("path = 'x'\nverify = { gitub = 'x' }", "verify.gitub", "unknown key"),
        ("path = 'x'\nverify = 1", "verify", 'found 1, expected "none" or a table'),
        ("path = 'x'\nverify = { github = '' }", "verify.github", "is empty"),
        ("path = 'x'\nverify = {}", "verify.token", "expected exactly one proof"),
        ("path = 'x/../y'\nverify = 'none'", "path", "which climbs"),
        ("path = 'x'", "verify", "missing; expected"),
    ],
)
def test_what_a_class_refuses_is_told_at_the_field(tmp_path: Path, settings: str, path: str, message: str) -> None:
    text = f"{JOB}[triggers.t]\njob = 'j'\n[triggers.t.on.hook]\n{settings}\n"
    (problem,) = problems_of(tmp_path, text)
    assert problem.path == f"triggers.t.on.hook.{path}"
    assert message in problem.message


def test_a_value_that_is_no_table_is_the_main_field_and_is_told_as_it_was_written(tmp_path: Path) -> None:
    config = load_text(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.tick = '* *'\n")
    assert config.triggers["t"].on == Tick(expression="* *", timezone="UTC")
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.tick = 'never'\n")
    assert (problem.line, problem.path) == (5, "triggers.t.on.tick")
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.tick = 5\n")
    assert (problem.path, problem.message) == ("triggers.t.on.tick", "found 5, expected text")
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.table = 5\n")
    assert problem.message == "found 5, expected a table of settings"


def test_an_exception_of_a_class_is_a_problem_of_its_table(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.tick = 'burst'\n")
    assert (problem.path, problem.message) == ("triggers.t.on.tick", "it burst")


def test_a_timer_without_a_zone_gets_that_of_the_engine(tmp_path: Path) -> None:
    text = f"""{JOB}
    [engine]
    timezone = "Europe/Berlin"
    [triggers.a]
    job = "j"
    on.tick = "x"
    [triggers.b]
    job = "j"
    on.tick = {{ expression = "x", timezone = "Asia/Tokyo" }}
    """
    config = load_text(tmp_path, text)
    assert config.triggers["a"].on.timezone == "Europe/Berlin"
    assert config.triggers["b"].on.timezone == "Asia/Tokyo"
    assert config.triggers["a"].source == "timer:a"


@pytest.mark.parametrize(
    ("run", "line", "path", "message"),
    [
        ("run.shell = []", 2, "run.shell", "found an empty list"),
        ("run.shell = ['a', '{{ data.x }']", 2, "run.shell[1]", "`{{` is never closed"),
        ("run.shell = [\n'a',\n'{{ dta }}']", 4, "run.shell[1]", "unknown name `dta`"),
        ("run.shell = [\n'a',\n'{{ http }}']", 4, "run.shell[1]", "unknown name `http`"),
        ("run.shell = { command = ['a'], env = { PATH = '/' } }", 2, "run.shell.env.PATH", "steers programs"),
        ("run.shell = { cwd = 'x' }", 2, "run.shell.command", "missing; expected a list of texts"),
        ("run.shel = ['a']", 2, "run.shel", 'there is no runner "shel"'),
        ("run = {}", 2, "run", "found none, expected exactly one runner"),
        (
            "run.shell = ['a']\nrun.tick = 'x'",
            2,
            "run",
            'found "shell" and "tick", expected exactly one runner',
        ),
        ("run = 'shell'", 2, "run", 'found "shell", expected a table with one runner'),
    ],
)
def test_a_wrong_runner_is_told_where_it_stands(tmp_path: Path, run: str, line: int, path: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, f"[jobs.j]\n{run}\n")
    assert (problem.line, problem.path) == (line, f"jobs.j.{path}")
    assert message in problem.message


def test_a_plugin_with_a_setting_that_can_not_be_one_harms_only_who_names_it(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, f"{JOB}[triggers.t]\njob = 'j'\non.odd = {{}}\n")
    assert "field back of Odd: a setting can't be a Logger" in problem.message


def test_requests_may_be_looked_at_only_where_the_source_gets_them(tmp_path: Path) -> None:
    text = f"""{JOB}
    [triggers.a]
    job = "j"
    on.hook = {{ path = "a", verify = "none" }}
    filter = "http.method == 'POST'"
    debounce = {{ wait = "1s", key = "http.remote" }}
    [triggers.b]
    job = "j"
    on.tick = "x"
    filter = "http.method == 'POST'"
    """
    (problem,) = problems_of(tmp_path, text)
    assert problem.path == "triggers.b.filter"
    assert "receives requests" in (problem.hint or "")


def test_equal_settings_are_one_source_and_other_settings_another(tmp_path: Path) -> None:
    text = JOB + "".join(
        f"[triggers.{name}]\njob = 'j'\non.table = {{ limit = {limit} }}\n"
        for name, limit in (("a", 1), ("b", 1), ("c", 2))
    )
    triggers = load_text(tmp_path, text).triggers
    assert triggers["a"].source == triggers["b"].source != triggers["c"].source
    assert triggers["a"].source.startswith("table:")
    assert len(triggers["a"].source) == len("table:") + 12


def test_a_source_keeps_its_id_when_its_secret_changes(tmp_path: Path) -> None:
    text = f"{JOB}[triggers.t]\njob = 'j'\n[triggers.t.on.table]\n"
    text += "url = { env = 'URL' }\npassword = { env = 'PW' }"
    ids = {
        load_text(tmp_path, text, environment={"URL": url, "PW": pw}).triggers["t"].source
        for url, pw in (("db://a", "x"), ("db://b", "y"))
    }
    assert len(ids) == 1


def test_one_identity_with_other_settings_is_an_error_at_the_second(tmp_path: Path) -> None:
    text = f"""{JOB}
    [triggers.x]
    job = "j"
    on.hook = {{ path = "github", verify = "none" }}
    [triggers.y]
    job = "j"
    on.hook = {{ path = "github", verify = {{ token = "s3cret" }} }}
    """
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.path) == (9, "triggers.y.on.hook")
    assert problem.message == "hook path github is already used with other settings by trigger x"
