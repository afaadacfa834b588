"""Where each setting comes from: a line of a file, the environment, a reference, a preset, the API, or nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, load
from engine.config.difference import for_running
from engine.config.origins import PLAIN, Origins, Setting
from engine.config.references import MASK
from engine.http.views import shown
from engine.registry import Registry

FILES = {
    "config.toml": """
[engine]
timezone = "Europe/Berlin"

[defaults]
timeout = "30m"
retry = { attempts = 3 }

[conditions.up]
check.tcp = "db.internal:5432"

[notify.ops]
url = { env = "OPS_URL" }

[jobs.load]
run.exec = { command = ["load", "{{ data.path }}"], env = { KEY = { file = "load.key" } } }
retry = { delay = "1m" }

[jobs.call]
run.exec = ["fetch", "https://ann:sesame@example.org/"]

[triggers.nightly]
preset = "production_daily"
job = "load"
data = { env = "no reference" }

[triggers.pushed]
on.webhook = { path = "pushed", verify = { token = "a-token-in-the-clear" } }
job = "load"
debounce = "2s"

[triggers.both.on.all]
left.cron = "0 2 * * *"
right.source = "orders"
[triggers.both]
job = "load"
join = "1h"

[sources.orders.database]
url = "sqlite+aiosqlite:///shop.db"
query = "select id from orders where id > :cursor order by id"
cursor = "id"
start = "beginning"
""",
    "production.toml": """
[triggers.pushed]
debounce = { wait = "5s" }
""",
    "load.key": "the-key-of-the-warehouse",
}

ENVIRONMENT = {
    "OPS_URL": "json://who:secret@chat.internal/",
    "ENGINE__HTTP__LISTEN": "127.0.0.1:9000",
    "ENGINE__TRIGGERS__PUSHED__PRIORITY": "8",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, "utf-8")
    return load([Path("config.toml"), Path("production.toml")], environment=ENVIRONMENT)


def origins(config: Config) -> Origins:
    return Origins(config, Registry.discover(), shown)


def by_key(settings: list[Setting]) -> Mapping[str, tuple[Any, str, str]]:
    return {view["key"]: (view["value"], view["origin"], view["said"]) for view in (one.view() for one in settings)}


def line_of(text: str, file: str = "config.toml") -> str:
    lines = FILES[file].splitlines()
    return f"{file}:{next(number for number, line in enumerate(lines, 1) if text in line)}"


def test_a_setting_of_a_file_has_its_line_and_one_of_the_environment_its_variable(config: Config) -> None:
    assert by_key(origins(config).table("engine"))["engine.timezone"] == (
        "Europe/Berlin", "file", line_of("timezone =")
    )  # fmt: skip
    assert by_key(origins(config).table("http"))["http.listen"] == (
        "127.0.0.1:9000", "environment", "ENGINE__HTTP__LISTEN"
    )  # fmt: skip
    pushed = by_key(origins(config).named("triggers", "pushed"))
    assert pushed["triggers.pushed.priority"] == (8, "environment", "ENGINE__TRIGGERS__PUSHED__PRIORITY")


def test_a_later_file_goes_over_an_earlier_one_and_is_the_one_that_is_named(config: Config) -> None:
    pushed = by_key(origins(config).named("triggers", "pushed"))
    assert pushed["triggers.pushed.debounce.wait"] == ("5s", "file", line_of("debounce", "production.toml"))
    assert pushed["triggers.pushed.debounce.edge"] == ("trailing", "default", "default")


def test_what_nothing_says_is_told_with_what_holds(config: Config) -> None:
    engine, store = (by_key(origins(config).table(table)) for table in ("engine", "store"))
    assert engine["engine.concurrency"] == (config.engine.concurrency, "default", "default")
    assert engine["engine.shutdown_grace"] == ("30s", "default", "default")
    assert store["store.url"] == (config.store.url, "default", "default")
    assert store["store.keep.events"] == ("30d", "default", "default")


def test_a_reference_tells_what_it_refers_to_and_never_the_text(config: Config) -> None:
    ops = by_key(origins(config).named("notify", "ops"))
    assert ops["notify.ops.url"] == (MASK, "secret", f"variable OPS_URL, named in {line_of('url = { env')}")
    load_ = by_key(origins(config).named("jobs", "load"))
    assert load_["jobs.load.run.exec.env.KEY"] == (
        MASK, "secret", f"file load.key, named in {line_of('run.exec')}"
    )  # fmt: skip


def test_no_secret_is_in_what_is_told(config: Config) -> None:
    told: list[Any] = [one.view() for table in PLAIN for one in origins(config).table(table)]
    for table, *rest in config.written:
        if rest:
            told += [one.view() for one in origins(config).named(str(table), str(rest[0]))]
    text = json.dumps(told)
    for secret in ("sesame", "a-token-in-the-clear", "the-key-of-the-warehouse", "json://who"):
        assert secret not in text
    assert "db.internal" in text
    assert "example.org" in text


def test_data_that_looks_like_a_reference_is_data(config: Config) -> None:
    nightly = by_key(origins(config).named("triggers", "nightly"))
    assert nightly["triggers.nightly.data"] == ({"env": "no reference"}, "file", line_of("data ="))


def test_what_a_preset_says_names_it_and_the_line_that_does(config: Config) -> None:
    nightly = by_key(origins(config).named("triggers", "nightly"))
    said = f"preset production_daily, named in {line_of('preset =')}"
    assert nightly["triggers.nightly.on.cron.expression"] == ("0 2 * * *", "preset", said)
    assert nightly["triggers.nightly.retry.attempts"] == (3, "preset", said)
    assert nightly["triggers.nightly.job"][1] == "file"


def test_what_a_job_leaves_out_is_told_as_the_defaults_have_it(config: Config) -> None:
    job = by_key(origins(config).named("jobs", "load"))
    assert job["jobs.load.timeout"] == ("30m", "inherited", f"[defaults], {line_of('timeout =')}")
    assert job["jobs.load.retry.attempts"] == (3, "inherited", f"[defaults], {line_of('attempts = 3')}")
    assert job["jobs.load.retry.delay"] == ("1m", "file", line_of('delay = "1m"'))
    assert job["jobs.load.retry.factor"] == (2.0, "default", "default")


def test_a_timer_without_a_zone_has_that_of_the_engine(config: Config) -> None:
    both = by_key(origins(config).named("triggers", "both"))
    assert both["triggers.both.on.all.left.cron.timezone"] == ("Europe/Berlin", "inherited", "[engine] timezone")
    assert both["triggers.both.on.all.right.source.named"][:2] == ("orders", "file")


def test_what_only_a_restart_changes_is_told_as_it_holds_until_then(config: Config) -> None:
    Path("config.toml").write_text(FILES["config.toml"].replace("[engine]", '[engine]\ndata = "elsewhere"'), "utf-8")
    new = load([Path("config.toml")], environment={"OPS_URL": ENVIRONMENT["OPS_URL"]})
    kept, waits = for_running(config, new)
    assert {"engine.data", "http.listen"} <= set(waits)
    engine, http = (by_key(origins(kept).table(table)) for table in ("engine", "http"))
    assert engine["engine.data"][:2] == ("data", "default")
    assert engine["engine.timezone"][2] == "config.toml:4"
    assert http["http.listen"] == ("127.0.0.1:9000", "environment", "ENGINE__HTTP__LISTEN")


def test_a_value_is_written_as_a_file_would_have_it_and_as_json_where_a_file_can_not() -> None:
    texts = [Setting(path=(), value=value, origin="file", said="").text for value in (None, "a", [1], {"a": None})]
    assert texts == [None, '"a"', "[1]", '{"a": null}']


def test_it_is_kept_small(config: Config) -> None:
    assert sum(map(len, config.written.values())) < 4 * len(FILES["config.toml"])
    assert all(isinstance(packed, bytes) for packed in config.written.values())
