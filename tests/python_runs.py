"""Runs of Python functions for tests: a module written for the test, and attempts that share what they hold."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from engine.plugin import Outcome
from engine.shared import Shared
from plugins.runners.python import Python
from plugins.runners.python.pool import Workers
from tests.exec_runs import Context, context

PREAMBLE = "import asyncio, ctypes, json, logging, os, signal, subprocess, sys, threading, time\n"


def write(folder: Path, source: str, module: str = "shop") -> Path:
    """Write a module of functions; what most of them import stands in it already."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{module}.py"
    file.write_text(PREAMBLE + textwrap.dedent(source), "utf-8")
    return file


@contextmanager
def own_imports() -> Iterator[None]:
    """Let what a test imports be forgotten after it: modules of other tests have the same names."""
    path, modules = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith(("engine", "plugins")):
            del sys.modules[name]


class Desk:
    """Where the functions of one test are run, as an engine runs them."""

    def __init__(self, base: Path, shared: Shared) -> None:
        self.base = base
        self._shared = shared
        self._runners: dict[str, Python] = {}

    def context(self, data: Any = None, **fields: Any) -> Context:
        return context(self.base, data, held=self._shared, **fields)

    async def run(self, function: str = "work", data: Any = None, **settings: Any) -> Outcome:
        """Run one attempt of a job, and return its outcome."""
        return await self.attempt(self.context(data), function, **settings)

    async def attempt(self, made: Context, function: str = "work", **settings: Any) -> Outcome:
        """Run an attempt with a context that the test made."""
        target = function if ":" in function else f"shop:{function}"
        # A job has one runner for all of its attempts.
        runner = self._runners.setdefault(repr((target, settings)), Python(function=target, **settings))
        with anyio.fail_after(30):
            return await runner.run(made)

    def logged(self) -> str:
        """Return what the runs wrote to their log."""
        file = self.base / "log"
        return file.read_text() if file.exists() else ""

    def workers(self) -> list[Workers]:
        """Return the pools that are held."""
        held = [made.result() for made in self._shared._held.values() if made.done()]
        return [each for each in held if isinstance(each, Workers)]


@asynccontextmanager
async def desk(base: Path, source: str = "") -> AsyncIterator[Desk]:
    """Have a desk, with a module `shop` of the source, until the block ends; nothing is left then."""
    write(base, source)
    shared = Shared()
    with own_imports():
        async with anyio.create_task_group() as group:
            await group.start(shared.run)
            try:
                yield Desk(base, shared)
            finally:
                shared.close()
