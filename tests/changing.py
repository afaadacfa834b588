"""An engine whose configuration files change while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from engine.clock import Clock
from engine.config import Config, load
from engine.definitions import Change
from engine.operations import Operations
from engine.registry import Registry
from engine.runs import RunState
from engine.runtime import Runtime
from engine.store.base import RunFilter
from tests.fake_operations import TOKEN
from tests.fakes import until
from tests.test_runtime import Tap, a_registry

IN_TIME_S = 30.0

HEAD = """
http.listen = "127.0.0.1:0"
[engine]
watch = false
"""


class Site:
    """A folder with a configuration file, and an engine that runs on it while `running` lasts."""

    def __init__(self, path: Path) -> None:
        self.file = path / "config.toml"
        self.registry: Registry = a_registry()
        self.runtime: Runtime

    def write(self, text: str, *, head: str = HEAD) -> None:
        draft = self.file.with_suffix(".draft")
        draft.write_text(head + text, "utf-8")
        draft.replace(self.file)

    def read(self) -> Config:
        return load([self.file], environment={}, registry=self.registry, create_secrets=True)

    @asynccontextmanager
    async def running(self, *, clock: Clock | None = None, listen: bool = False) -> AsyncIterator[Operations]:
        """Run it while the block lasts."""
        ready = anyio.Event()
        self.runtime = runtime = Runtime(
            self.read(), registry=self.registry, clock=clock, listen=listen, read=self.read,
            environment={"ENGINE_ADMIN_TOKEN": TOKEN}, on_ready=lambda _: ready.set(),
        )  # fmt: skip
        with anyio.fail_after(IN_TIME_S):
            async with anyio.create_task_group() as group:
                group.start_soon(runtime.run)
                await ready.wait()
                yield self.operations
                runtime.stop()

    @property
    def operations(self) -> Operations:
        assert self.runtime.operations is not None
        return self.runtime.operations

    async def reload(self, text: str, *, head: str = HEAD) -> Change:
        """Change the file, and have it read anew."""
        self.write(text, head=head)
        return await self.runtime.definitions.reload("a test")

    async def fire(self, trigger: str, data: Any = None) -> str:
        """Fire a trigger and return its run."""
        answer = await self.operations.fire(
            trigger, data=data, reason="", priority=None, bypass=frozenset(), request_id=None
        )
        return answer.runs[0]

    async def ended(self, run_id: str) -> RunState:
        """Return the state in which a run ends."""
        run = await self.operations.ended(run_id)
        assert run is not None
        return run.state

    async def counts(self) -> Mapping[RunState, int]:
        """Return how many runs are in which state, of the latest thousand."""
        return Counter(run.state for run in await self.operations.store.runs(RunFilter(), limit=1000))


async def tapped(label: str = "tap") -> Any:
    """Return the context of a source of the test's own, once it runs."""
    await until(lambda: label in Tap.contexts)
    return Tap.contexts[label]
