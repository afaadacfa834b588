"""Printing: tables for people, JSON for programs.

What others wrote never reaches a terminal as control codes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from engine.logs import printable


def say(text: str, *, error: bool = False) -> None:
    """Print text; control characters are escaped, and its own line breaks kept."""
    lines = "\n".join(printable(line) for line in text.split("\n"))
    stream = sys.stderr if error else sys.stdout
    encoding = stream.encoding or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def say_json(value: Any) -> None:
    """Print a value as JSON, ASCII alone: nothing in it can steer a terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: drawn on a terminal, in plain aligned columns elsewhere."""
    cells = [[printable("-" if value is None else str(value)) for value in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    widths = [max(len(line[index]) for line in [columns, *cells]) for index in range(len(columns))]
    for line in [[column.upper() for column in columns], *cells]:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say(padded.rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)  # names and ids can be copied whole
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))  # text, no markup: brackets are brackets
    Console(highlight=False).print(table)


def sentence(word: str, reason: str) -> str:
    """Return a reason with its state or outcome before it, once."""
    return reason if reason.startswith(f"{word}:") else f"{word}: {reason}"


def local(at: str | None) -> str | None:
    """Return an RFC 3339 instant in local time with its offset, to the second."""
    if at is None:
        return None
    return datetime.fromisoformat(at).astimezone().isoformat(sep=" ", timespec="seconds")


def terminal_safe(text: str) -> str:
    """Return text for a terminal: all control characters but line breaks and tabs are escaped."""
    return "".join(c if c in "\n\t" or c.isprintable() else printable(c) for c in text)
