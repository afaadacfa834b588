"""The plugin that the README shows: a stranger's twenty lines, against `kill -9`."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path

import pytest

from engine.plugin import StoreUnavailable
from engine.registry import Registry
from engine.testing import SourceHarness, load_plugin
from tests.crash.process import EngineProcess, started, wait_for
from tests.crash.site import Job, Site

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "plugins"
TRIGGER = """
[triggers.lines]
on.lines = { path = "app.log", every = "10ms" }
job = "work"
filter = "false"
"""


def emitted(site: Site) -> list[str]:
    """Return the texts of all events, in the order in which they were stored."""
    if not site.database.exists():
        return []
    rows = site.rows("select data from events where source like 'lines:%' order by id")
    return [json.loads(data)["text"] for (data,) in rows]


class Writer:
    """Appends numbered lines, now and then in two pieces, and knows what it wrote."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.lines: list[str] = []
        self._file = path.open("a", buffering=1)
        self._chance = chance

    def write(self, count: int) -> None:
        for _ in range(count):
            line = f"line {len(self.lines)} " + "x" * self._chance.randrange(40)
            cut = self._chance.randrange(len(line))
            for piece in (line[:cut], line[cut:] + "\n"):
                self._file.write(piece)
                self._file.flush()
            self.lines.append(line)

    def close(self) -> None:
        self._file.close()


def kill_while_it_emits(site: Site, kills: int, seed: int) -> None:
    """Append lines while an engine is killed again and again; each has to be one event, in its order."""
    chance = random.Random(seed)
    writer = Writer(site.path / "app.log", chance)
    try:
        for _ in range(kills):
            before = len(emitted(site))
            writer.write(chance.randrange(20, 80))
            with EngineProcess(site) as engine:
                # Killed when it is in the midst of it: as soon as it has stored some of what is there.
                some = before + chance.randrange(1, 20)
                wait_for(lambda some=some: len(emitted(site)) >= some, engine.logged)  # type: ignore[misc]
                writer.write(chance.randrange(10))
                engine.kill()
            writer.write(chance.randrange(10))
        with started(site) as engine:
            wait_for(lambda: len(emitted(site)) >= len(writer.lines), engine.logged)
            assert engine.stop() == 0
    finally:
        writer.close()
    assert emitted(site) == writer.lines


def test_each_line_is_one_event_however_often_the_engine_is_killed(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"work": Job()}, triggers=TRIGGER, plugins=FOLDER)
    kill_while_it_emits(site, kills=5, seed=1)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(3))
def test_each_line_is_one_event_over_a_long_storm_of_kills(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path, jobs={"work": Job()}, triggers=TRIGGER, plugins=FOLDER)
    kill_while_it_emits(site, kills=60, seed=seed)


async def test_it_loses_and_doubles_nothing_where_crashes_hurt(tmp_path: Path) -> None:
    lines = Registry.discover([FOLDER]).sources["lines"](path=Path("app.log"))
    file = tmp_path / "app.log"
    file.write_text("first\nsecond\nthird\nhalf a li")
    async with SourceHarness(lines, base=tmp_path) as harness:
        await harness.until(lambda: len(harness.events) == 3)
        with file.open("a") as log:
            log.write("ne\nlast\n")
        await harness.crash_before_answer()
        await harness.until(lambda: len(harness.events) == 5)
        with harness.store_away():
            with file.open("a") as log:
                log.write("more\n")
            assert isinstance(await harness.failure(), StoreUnavailable)
        await harness.restart()
        await harness.until(lambda: len(harness.events) == 6)
    texts = [event.data["text"] for event in harness.events]
    assert texts == ["first", "second", "third", "half a line", "last", "more"]


async def test_a_file_that_was_rotated_or_cut_is_read_from_its_start(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    file.write_text("one\ntwo\n")
    source = load_plugin(FOLDER, "lines")(path=Path("app.log"))
    async with SourceHarness(source, base=tmp_path) as harness:
        await harness.until(lambda: len(harness.events) == 2)
        file.rename(tmp_path / "app.log.1")
        file.write_text("three\n")
        await harness.until(lambda: len(harness.events) == 3)
        file.write_text("4\n")
        await harness.until(lambda: len(harness.events) == 4)
    assert [event.data["text"] for event in harness.events] == ["one", "two", "three", "4"]


def test_it_is_the_same_source_when_it_looks_more_often() -> None:
    made = load_plugin(FOLDER, "lines")
    assert made(path=Path("a"), every=2.0).identity() == made(path=Path("a")).identity()


def test_it_has_some_twenty_lines() -> None:
    text = (FOLDER / "lines.py").read_text()
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = [line for number, line in enumerate(text.splitlines(), 1) if line.strip() and number not in documented]
    assert len(lines) < 30
