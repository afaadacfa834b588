"""Schemas and redactions in the configuration: both forms, where files are, and what can't be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from engine import Engine
from engine.config import Config, load, load_sent
from engine.errors import ConfigError, ConfigProblem
from engine.redaction import HASHED, Redaction, place_of
from engine.registry import Registry

REGISTRY = Registry.discover()
JOB = '[jobs.j]\nrun.exec = ["true"]\n'
TRIGGER = '[triggers.t]\non.source = "s"\njob = "j"\n'


def read(directory: Path, text: str, *, create: bool = False) -> Config:
    file = directory / "config.toml"
    file.write_text(JOB + text, "utf-8")
    return load([file], environment={}, registry=REGISTRY, create_secrets=create)


def refused(directory: Path, text: str) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as error:
        read(directory, text)
    return list(error.value.problems)


def test_a_schema_stands_in_a_table_or_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"required": ["id"]}', "utf-8")
    config = read(
        tmp_path,
        '[sources.s]\nmanual = true\nschema = { file = "order.json" }\n'
        + TRIGGER
        + '[triggers.t.schema]\ntype = "object"\nproperties.at = { format = "date", default = 2026-11-26 }\n',
    )
    of_source, own = config.sources["s"].schema, config.triggers["t"].schema
    assert of_source is not None
    assert (of_source.name, of_source.text) == ("order.json", '{"required": ["id"]}')
    assert own is not None
    assert own.text == '{"type":"object","properties":{"at":{"format":"date","default":"2026-11-26"}}}'
    assert config.schemas == {tmp_path / "order.json"}


def make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "can't be read: No such file"),
        (make_directory, "no regular file"),
        (lambda path: os.mkfifo(path), "no regular file"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
        (lambda path: path.write_bytes(b'{"title": "' + b"x" * 300_000 + b'"}'), "larger than 256KiB"),
        (lambda path: path.write_bytes(b'{"a": 1,'), "the schema is not valid JSON"),
        (lambda path: path.write_bytes(b'{"items": {"typ": 1}}'), "at /items/typ is no keyword"),
    ],
)
def test_a_file_that_holds_no_schema_is_told_with_the_place_in_it(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "s.json")
    (problem,) = refused(tmp_path, '[triggers.t]\non.manual = true\njob = "j"\nschema = { file = "s.json" }\n')
    assert (problem.line, problem.path) == (6, "triggers.t.schema.file")
    assert why in problem.message


def test_a_mistake_in_a_schema_is_told_at_its_line(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        '[triggers.t]\non.manual = true\njob = "j"\n[triggers.t.schema]\ntype = "object"\n'
        '[triggers.t.schema.properties]\na = { type = "text" }\n'
        '[triggers.u]\non.manual = true\njob = "j"\nschema = "order.json"\n',
    )
    assert [(one.line, one.path) for one in found] == [
        (9, "triggers.t.schema.properties.a.type"),
        (13, "triggers.u.schema"),
    ]
    assert found[1].hint == 'write { file = "order.json" }'


def test_a_configuration_that_was_sent_reads_only_schemas_that_the_engine_reads(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{}", "utf-8")
    text = JOB + '[triggers.t]\non.manual = true\njob = "j"\nschema = { file = "order.json" }\n'

    def sent(readable: frozenset[Path]) -> Config:
        return load_sent(
            [("sent", text.encode())], base=tmp_path, environment={}, registry=REGISTRY, readable=readable
        )  # fmt: skip

    assert sent(frozenset({tmp_path / "order.json"})).triggers["t"].schema is not None
    with pytest.raises(ConfigError, match="not one that the engine reads"):
        sent(frozenset())


def test_what_is_redacted_is_said_for_all_sources_and_for_one(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[security]\nredact = { paths = ["data.pin"], hash = { file = "redact.key", generate = true } }\n'
        '[sources.s]\nmanual = true\nredact = ["data.items[*].secret", "http.headers.Authorization"]\n' + TRIGGER,
        create=True,
    )
    key = (tmp_path / "redact.key").read_text("utf-8").strip()
    assert config.redaction == Redaction(places=(place_of("data.pin"),), key=key.encode())
    assert key in config.secrets
    of_source = config.sources["s"].redaction
    assert of_source == Redaction(
        places=(place_of("data.items[*].secret"), place_of("http.headers.authorization"))
    )  # fmt: skip
    assert config.triggers["t"].shared is not None
    assert config.triggers["t"].shared.redaction == of_source


def test_paths_that_name_nothing_and_keys_that_are_short_are_refused(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        '[security]\nredact = ["card.number", "data.a[x]"]\n'
        '[sources.s]\nmanual = true\nredact = { paths = ["event.key"], hash = "short" }\n' + TRIGGER,
    )
    assert [(one.line, one.path) for one in found] == [
        (4, "security.redact[0]"), (4, "security.redact[1]"), (7, "sources.s.redact.hash"),
        (7, "sources.s.redact.paths[0]"),
    ]  # fmt: skip
    assert [one.path for one in refused(tmp_path, "[security]\nredact = { paths = [] }\n")] == ["security.redact.paths"]


def test_a_program_says_it_as_the_configuration_does(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", redact={"paths": ["data.pin"], "hash": "0123456789abcdef"})
    got: list[object] = []

    @engine.job
    async def keep(run: object) -> None:
        got.append(run.data)  # type: ignore[attr-defined]

    engine.add_trigger("a", event="order", job=keep, schema={"required": ["total"]})
    with pytest.raises(ConfigError, match=r"triggers\.b\.schema\.typ"):
        engine.add_trigger("b", event="order", job=keep, schema={"typ": "object"})

    async def run() -> None:
        async with engine:
            refused = await engine.emit("order", {"pin": "1234"})
            assert [one.code for one in refused.outcomes] == ["schema"]
            await engine.wait(await engine.emit("order", {"pin": "1234", "total": 3}))

    anyio.run(run)
    (data,) = got
    assert isinstance(data, dict)
    assert str(data["pin"]).startswith(HASHED)


def test_redact_may_be_a_list_in_a_program(tmp_path: Path) -> None:
    Engine(tmp_path / "data", redact=["data.pin"])
    with pytest.raises(ConfigError, match=r"security.redact\[0\]"):
        Engine(tmp_path / "data", redact=["pin"])
