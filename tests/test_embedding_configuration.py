"""A program's configuration files are read anew while its engine runs, and what is said is overridden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import ConfigError, Conflict, Engine, RunState
from engine.errors import NotFound

FILE = """
[engine]
watch = false
[triggers.filed]
on.manual = true
job = "work"
tags = ["{tag}"]
"""


def an_engine(path: Path, tag: str = "old") -> tuple[Engine, Path]:
    file = path / "config.toml"
    file.write_text(FILE.format(tag=tag), "utf-8")
    engine = Engine(path / "data", config=file)

    @engine.trigger("coded", interval="60m")
    @engine.job
    async def work(run: Any) -> None:
        """Do nothing."""

    return engine, file


async def test_files_are_read_anew_beside_what_code_defines(tmp_path: Path) -> None:
    engine, file = an_engine(tmp_path)
    async with engine:
        engine.add_trigger("later", job="work", on={"manual": True})
        file.write_text(FILE.format(tag="new") + '[triggers.more]\non.manual = true\njob = "work"\n', "utf-8")
        change = await engine.configuration.reload()
        assert (change.triggers.added, change.triggers.changed, change.triggers.removed) == (("more",), ("filed",), ())
        assert [one.name for one in engine.list()] == ["coded", "filed", "later", "more"]
        assert engine.get("filed").tags == ("new",)
        (run,) = await engine.wait(await engine.fire("later"))
        assert run.state is RunState.SUCCEEDED
        file.write_text(FILE.format(tag="new"), "utf-8")
        assert (await engine.configuration.reload()).triggers.removed == ("more",)
        engine.add_trigger("more", job="work", on={"manual": True})
        await engine.remove("more")


async def test_wrong_files_change_nothing(tmp_path: Path) -> None:
    engine, file = an_engine(tmp_path)
    async with engine:
        for wrong in (
            "[engine]\nodd = 1\n",
            FILE.format(tag="x") + '[triggers.coded]\non.manual = true\njob = "work"\n',
        ):
            file.write_text(wrong, "utf-8")
            with pytest.raises(ConfigError):
                await engine.configuration.reload()
            assert [one.name for one in engine.list()] == ["coded", "filed"]
        assert engine.configuration.view()["reload"]["ok"] is False


async def test_what_overrides_outlives_the_program_and_is_reset(tmp_path: Path) -> None:
    engine, _ = an_engine(tmp_path)
    async with engine:
        engine.add_trigger("later", job="work", on={"manual": True})
        await engine.configuration.override("coded", {"interval": "10m", "priority": "high"}, reason="the fair is on")
        assert engine.get("coded").priority == 8
        assert engine.get("later").enabled
    engine, _ = an_engine(tmp_path)
    async with engine:
        assert engine.get("coded").priority == 8
        assert engine.configuration.view()["overridden"]["triggers"] == ["coded"]
        assert await engine.configuration.reset("coded")
        assert engine.get("coded").priority == 5
        with pytest.raises(NotFound):
            await engine.configuration.override("none", {"priority": 1})
        with pytest.raises(ConfigError):
            await engine.configuration.override("coded", {"job": "other"})


async def test_without_files_there_are_none_to_read(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data")
    with pytest.raises(Conflict):
        _ = engine.configuration
    async with engine:
        with pytest.raises(Conflict, match="no files"):
            await engine.configuration.reload()
