"""What tests of the embedded engine share: a source, a job, and how to read what came of an event."""

from __future__ import annotations

from typing import ClassVar

import anyio
import pytest

from engine import (
    Accepted,
    ConfigError,
    Engine,
    RunContext,
)
from engine.plugin import Source, SourceContext


class Bell(Source, frozen=True, kw_only=True):
    """A source of the program: it rings when the test says so."""

    name: ClassVar[str] = "bell"
    main: ClassVar[str | None] = "label"
    ringing: ClassVar[dict[str, SourceContext]] = {}

    label: str

    async def run(self, context: SourceContext) -> None:
        Bell.ringing[self.label] = context
        context.ready()
        try:
            await anyio.sleep_forever()
        finally:
            del Bell.ringing[self.label]


def works(engine: Engine, name: str = "work") -> list[RunContext]:
    """Define a job that notes its attempts."""
    seen: list[RunContext] = []

    @engine.job(name=name)
    async def work(run: RunContext) -> None:
        seen.append(run)

    return seen


def problems(error: pytest.ExceptionInfo[ConfigError]) -> list[tuple[str, str, str | None]]:
    return [(problem.path, problem.message, problem.hint) for problem in error.value.problems]


def outcome(answer: Accepted) -> tuple[str, str, str]:
    (only,) = answer.outcomes
    return only.outcome.value, only.code, only.reason
