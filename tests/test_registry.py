"""The registry finds plugins, tells their kinds, and keeps what is broken apart."""

from __future__ import annotations

import importlib.metadata
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
    ("text", "reason"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("import a_module_that_is_nowhere", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_can_not_be_imported_is_kept_broken_and_the_others_work(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "bad.py").write_text(text)
    (tmp_path / "near.py").write_text(GOOD)
    registry = Registry.discover([tmp_path])
    assert "near" in registry.sources
    broken = registry.broken("bad", "source")
    assert broken is not None
    assert broken.origin == str(tmp_path / "bad.py")
    assert reason in (broken.error or "")


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


def test_an_entry_point_that_can_not_be_loaded_is_kept_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [_Point()])
    broken = Registry.discover().broken("gone", "source")
    assert broken is not None
    assert (broken.kind, broken.origin) == ("source", "entry point sources.gone")
    assert broken.error == "can't be loaded: ImportError: no module named nowhere"


def test_installed_entry_points_are_found() -> None:
    points = [point for point in importlib.metadata.entry_points(group=GROUP) if point.dist is not None]
    if not any(point.dist.name == "trigger-engine" for point in points if point.dist):
        pytest.skip("the project is not installed, so it announces no plugins")
    registry = Registry.discover()
    assert {"cron"} <= registry.timers.keys()
    assert {"event", "manual", "trigger_dir", "webhook"} <= registry.sources.keys()
    assert {"exec"} <= registry.runners.keys()
