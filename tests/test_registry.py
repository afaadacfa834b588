"""The registry finds plugins, tells their kinds, and keeps what is broken apart."""

from __future__ import annotations

import importlib.metadata
import sys
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec import Struct

from engine.errors import PluginError
from engine.plugin import Outcome, Plugin, RunContext, Runner, Source, SourceContext, Timer
from engine.registry import GROUP, Registry, check_plugin


class Feed(Source, frozen=True, kw_only=True):
    """Read a feed.

    More about it.
    """

    name: ClassVar[str] = "feed"

    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


class FeedTimer(Timer, frozen=True, kw_only=True):
    """Take the name of a source."""

    name: ClassVar[str] = "feed"

    def next(self, after: datetime) -> datetime | None:
        return None

    def previous(self, before: datetime) -> datetime | None:
        return None


class FeedRunner(Runner, frozen=True, kw_only=True):
    """Share the name of a source, which a runner may."""

    name: ClassVar[str] = "feed"

    async def run(self, context: RunContext) -> Outcome:
        raise NotImplementedError


class HalfTimer(Timer, frozen=True, kw_only=True):
    name: ClassVar[str] = "half"

    def next(self, after: datetime) -> datetime | None:
        return None


class ZonedTimer(FeedTimer, frozen=True, kw_only=True):
    name: ClassVar[str] = "zoned"

    timezone: str = "UTC"


class NearTimer(ZonedTimer, frozen=True, kw_only=True):
    name: ClassVar[str] = "near"


class MethodTimer(FeedTimer, frozen=True, kw_only=True):
    name: ClassVar[str] = "method"

    def start(self) -> None:  # type: ignore[misc, override]
        raise NotImplementedError


class IdleSource(Source, frozen=True, kw_only=True):
    name: ClassVar[str] = "idle"


class IdleRunner(Runner, frozen=True, kw_only=True):
    name: ClassVar[str] = "idle"


class Nameless(Source, frozen=True, kw_only=True):
    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


class Mistaken(Source, frozen=True, kw_only=True):
    name: ClassVar[str] = "mistaken"
    main: ClassVar[str | None] = "nothing"

    async def run(self, context: SourceContext) -> None:
        raise NotImplementedError


class Kindless(Plugin, frozen=True, kw_only=True):
    name: ClassVar[str] = "kindless"


class Foreign(Struct):
    name: ClassVar[str] = "foreign"


GOOD = '''
from __future__ import annotations
from typing import ClassVar
from engine.plugin import Source, SourceContext, Runner, RunContext, Outcome

class Near(Source, frozen=True, kw_only=True):
    """Look near."""
    name: ClassVar[str] = "near"
    radius: int = 1
    async def run(self, context: SourceContext) -> None: ...

class Do(Runner, frozen=True, kw_only=True):
    name: ClassVar[str] = "do"
    async def run(self, context: RunContext) -> Outcome: ...
'''


def test_a_class_is_registered_by_the_kind_of_its_base() -> None:
    registry = Registry()
    registry.add(Feed)
    registry.add(FeedRunner)
    assert registry.sources == {"feed": Feed}
    assert registry.runners == {"feed": FeedRunner}
    assert [(entry.kind, entry.name, entry.doc) for entry in registry.plugins()] == [
        ("runner", "feed", "Share the name of a source, which a runner may."),
        ("source", "feed", "Read a feed."),
    ]


def test_sources_and_timers_share_one_space_of_names() -> None:
    registry = Registry()
    registry.add(Feed, "here")
    with pytest.raises(PluginError, match=r'"feed" is already taken by .*Feed, from here'):
        registry.add(FeedTimer)
    assert registry.timers == {}


def test_the_same_class_may_come_twice() -> None:
    registry = Registry()
    registry.add(Feed)
    registry.add(Feed)
    assert len(registry.plugins()) == 1


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        (IdleSource, "does not implement `run`, which every source must"),
        (IdleRunner, "does not implement `run`, which every runner must"),
        (HalfTimer, "does not implement `previous`, which every timer must"),
        (ZonedTimer, "ZonedTimer defines timezone, which every timer has; call its own setting otherwise"),
        (NearTimer, "NearTimer defines timezone, which every timer has"),
        (MethodTimer, "MethodTimer defines start, which every timer has"),
        (Nameless, "has no usable name"),
        (Mistaken, "names 'nothing' as its main field"),
        (Kindless, "neither a Source nor a Timer nor a Runner"),
        (Foreign, "is no plugin"),
        ("text", "is no plugin"),
    ],
)
def test_what_can_not_be_a_plugin_is_refused_in_words(plugin: object, text: str) -> None:
    with pytest.raises(PluginError, match=text):
        check_plugin(plugin)


def test_modules_of_a_folder_give_the_plugins_that_they_define(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(GOOD)
    (tmp_path / "_helper.py").write_text("raise SystemExit")
    (tmp_path / "notes.txt").write_text("no module")
    registry = Registry.discover([tmp_path])
    assert registry.sources["near"]().radius == 1  # type: ignore[attr-defined]
    assert "do" in registry.runners
    (near,) = [entry for entry in registry.plugins() if entry.name == "near"]
    assert (near.kind, near.doc, near.error) == ("source", "Look near.", None)
    assert near.origin == str(tmp_path / "near.py")


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("\n1/0", "ZeroDivisionError: division by zero", 2),
        ("x = 1\ndef f(:", "SyntaxError: invalid syntax", 2),
        ("\n\nimport a_module_that_is_nowhere", "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'", 3),
        ("raise SystemExit(3)", "SystemExit: 3", 1),
        ("import json\njson.loads('{')", "JSONDecodeError", 2),
    ],
)
def test_a_module_that_can_not_be_imported_is_kept_broken_with_its_line_and_the_others_work(
    tmp_path: Path, text: str, reason: str, line: int
) -> None:
    (tmp_path / "bad.py").write_text(text)
    (tmp_path / "near.py").write_text(GOOD)
    registry = Registry.discover([tmp_path])
    assert "near" in registry.sources
    broken = registry.broken("bad", "source")
    assert broken is not None
    assert broken.origin == str(tmp_path / "bad.py")
    assert (broken.error or "").startswith(f"can't be imported: {reason}")
    assert f"({tmp_path / 'bad.py'}, line {line})" in (broken.error or "")


def test_who_lacks_a_module_is_told_how_to_come_by_it(tmp_path: Path) -> None:
    (tmp_path / "needs.py").write_text("import pandas_of_nowhere.frames")
    (tmp_path / "beside.py").write_text("import near")
    (tmp_path / "near.py").write_text(GOOD)
    registry = Registry.discover([tmp_path])
    [needs, beside] = [registry.broken(name) for name in ("needs", "beside")]
    assert needs is not None
    assert beside is not None
    assert f"; install what provides 'pandas_of_nowhere' for {sys.executable}" in (needs.error or "")
    assert (beside.error or "").endswith("; import a module of the same folder as `from . import near`")


def test_modules_of_a_folder_share_code_and_a_class_is_that_of_one_module(tmp_path: Path) -> None:
    (tmp_path / "_base.py").write_text(GOOD.replace("class Near", "class Base").replace('"near"', '"base"'))
    (tmp_path / "far.py").write_text(
        "from ._base import Base\nfrom .near import Near\n"
        "class Far(Base, frozen=True, kw_only=True):\n    name = 'far'\n    twin = Near\n"
    )
    (tmp_path / "near.py").write_text(GOOD)
    registry = Registry.discover([tmp_path])
    assert {"near", "far"} <= set(registry.sources)
    assert "base" not in registry.sources
    assert registry.sources["far"].twin is registry.sources["near"]  # type: ignore[attr-defined]
    assert [entry.error for entry in registry.plugins() if entry.error is not None] == []
    assert str(tmp_path) not in sys.path


def test_a_folder_in_the_folder_is_a_package_and_its_parts_are_its_own(tmp_path: Path) -> None:
    package = tmp_path / "weather"
    package.mkdir()
    (package / "__init__.py").write_text("from .station import Near\nfrom ..shared import KIND\n")
    (package / "station.py").write_text(GOOD)
    (tmp_path / "shared.py").write_text("KIND = 1\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "_private").mkdir()
    (tmp_path / "_private" / "__init__.py").write_text("raise SystemExit")
    registry = Registry.discover([tmp_path])
    (near,) = [entry for entry in registry.plugins() if entry.name == "near"]
    assert (near.error, near.origin) == (None, str(package / "__init__.py"))
    assert "do" not in registry.runners  # it was not taken into the package's own names
    (package / "station.py").write_text("\n\n1/0")
    broken = Registry.discover([tmp_path]).broken("weather")
    assert broken is not None
    assert f"ZeroDivisionError: division by zero ({package / 'station.py'}, line 3)" in (broken.error or "")


def test_a_folder_that_is_read_again_gives_what_its_files_say_now(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(GOOD)
    first = Registry.discover([tmp_path]).sources["near"]
    (tmp_path / "near.py").write_text(GOOD.replace("radius: int = 1", "radius: int = 22"))
    second = Registry.discover([tmp_path]).sources["near"]
    assert (first().radius, second().radius) == (1, 22)  # type: ignore[attr-defined]


def test_a_name_that_is_taken_is_listed_as_broken_and_the_first_wins(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(GOOD)
    (tmp_path / "b.py").write_text(GOOD)
    registry = Registry.discover([tmp_path])
    near = [entry for entry in registry.plugins() if entry.name == "near"]
    assert [entry.origin for entry in near] == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    assert near[0].cls is registry.sources["near"]
    assert "is already taken by" in (near[1].error or "")


def test_a_folder_that_is_not_there_is_kept_broken(tmp_path: Path) -> None:
    registry = Registry.discover([tmp_path / "nowhere"])
    broken = registry.broken("nowhere")
    assert broken is not None
    assert "No such file" in (broken.error or "")


class _Point:
    """An entry point that can't be loaded."""

    name = "sources.gone"
    value = "nowhere:Gone"
    dist = None

    def load(self) -> object:
        raise ImportError("no module named nowhere")


def test_an_entry_point_that_can_not_be_loaded_is_kept_broken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [_Point(), _Point()])
    caplog.set_level("INFO")
    broken = Registry.discover().broken("gone", "source")
    assert broken is not None
    assert (broken.kind, broken.origin) == ("source", "entry point sources.gone")
    assert broken.error == "can't be loaded: ImportError: no module named nowhere"
    # One line for each cause, without a traceback.
    [told] = caplog.records
    point = "entry point sources.gone"
    assert told.getMessage() == f"{point}, {point} can't be loaded: ImportError: no module named nowhere"
    assert told.exc_info is None


def test_installed_entry_points_are_found() -> None:
    points = [point for point in importlib.metadata.entry_points(group=GROUP) if point.dist is not None]
    if not any(point.dist.name == "trigger-engine" for point in points if point.dist):
        pytest.skip("the project is not installed, so it announces no plugins")
    registry = Registry.discover()
    assert {"cron"} <= registry.timers.keys()
    assert {"event", "manual", "trigger_dir", "webhook"} <= registry.sources.keys()
    assert {"exec"} <= registry.runners.keys()
