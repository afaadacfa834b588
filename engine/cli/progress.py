"""Bars for what takes longer: on a terminal alone, with what is said meanwhile above them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from engine.cli.output import on_terminal, say
from engine.logs import printable


class Shown(Protocol):
    """How far something is, as it goes on."""

    def at(self, done: float, beside: str = "") -> None:
        """Show that so much is done, and what is to be said beside the bar."""
        ...

    def say(self, text: str) -> None:
        """Print a line."""
        ...


class _Lines:
    """Shows no bar: where nobody looks on."""

    def at(self, done: float, beside: str = "") -> None:
        return

    def say(self, text: str) -> None:
        say(text)


class _Bar:
    """Shows a bar of rich."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def at(self, done: float, beside: str = "") -> None:
        self._progress.update(self._task, completed=done, said=printable(beside))

    def say(self, text: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text(printable(text)), soft_wrap=True)


@contextlib.contextmanager
def bar(title: str, total: float | None, *, counts: bool = False) -> Iterator[Shown]:
    """Show a bar up to `total`, None where that is not known; with `counts` in numbers, else in percent."""
    if not on_terminal():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(),
        MofNCompleteColumn() if counts else TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(highlight=False)) as progress:
        yield _Bar(progress, progress.add_task(printable(title), total=total, said=""))
