"""Printing: tables for people, JSON for programs.

What others wrote never reaches a terminal as control codes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from engine.logs import printable
from engine.units import format_size, format_span

GAP = 2
"""Between the columns of a table that is drawn."""

WHOLE, READABLE = 36, 16
"""So wide are an id, which stands on one line, and the last column at least."""

WIDEST, NARROWER, NARROWEST = 25, 16, 12
"""The columns between them are at most so wide: a time in full, and less where there is nothing more to leave out."""


_STATE = "state"
_STYLES = {
    word: style
    for style, words in {
        "green": "active completed delivered pass succeeded",
        "cyan": "running starting",
        "yellow": "held hold open overridden paused pending queued retrying skip skipped unknown waiting",
        "red": "expired failed invalid missed quarantined stuck timed_out",
        "dim": "cancelled closed disabled over stopped",
    }.items()
    for word in words.split()
}
"""How states are coloured on a terminal; the word itself always stands there too."""


ROOM = 40
"""A terminal with less is left to break plain columns itself: nothing of them is cut off."""


def say(text: str, *, error: bool = False) -> None:
    """Print one line; all control characters in it are escaped, so that nobody's text passes for another line."""
    say_lines(text.replace("\n", "\\n"), error=error)


def say_lines(text: str, *, error: bool = False) -> None:
    """Print lines that are our own; control characters within them are escaped."""
    lines = "\n".join(printable(line) for line in text.split("\n"))
    stream = sys.stderr if error else sys.stdout
    if stream is None:  # it was closed by who started this
        return
    encoding = stream.encoding or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def say_json(value: Any) -> None:
    """Print a value as JSON, ASCII alone: nothing in it can steer a terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, optional: Sequence[str] = ()) -> None:
    """Print a table: drawn on a terminal, in plain aligned columns elsewhere.

    A terminal that is too narrow for all columns goes without the `optional` ones, the first of them first, and is
    told so.
    """
    cells = [[printable("-" if value is None else str(value)) for value in row] for row in rows]
    if on_terminal() and shutil.get_terminal_size().columns >= ROOM:
        _draw(columns, cells, optional)
        return
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(_width(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        say(padded.rstrip())


def on_terminal() -> bool:
    """Whether to draw, with colours and bars: on a terminal that can, or where FORCE_COLOR says so."""
    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0")
    return forced or (sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def _width(cell: str) -> int:
    """Return how many columns of a terminal text takes: some characters take two, and some none."""
    if cell.isascii():
        return len(cell)
    from rich.cells import cell_len

    return cell_len(cell)


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], optional: Sequence[str]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    natural = [max(cell_len(line[index]) for line in [columns, *cells]) for index in range(len(columns))]
    shown, widths = _fitting(natural, [columns.index(name) for name in optional], console.width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for index, width in zip(shown, widths, strict=True):
        table.add_column(columns[index], overflow="fold", width=width, no_wrap=width >= natural[index])
    for line in cells:
        # Text, no markup: brackets are brackets.
        table.add_row(*(Text(line[index], style=_style(columns[index], line[index])) for index in shown))
    console.print(table)
    if len(shown) < len(columns):
        left_out = ", ".join(column for index, column in enumerate(columns) if index not in shown)
        say(f"Left out, as the terminal is narrow: {left_out}", error=True)


def _style(column: str, cell: str) -> str:
    """Return the colour of a cell that says how something is."""
    return _STYLES.get(cell.partition(" ")[0], "") if column == _STATE else ""


def _fitting(natural: Sequence[int], optional: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Return which columns are shown, and how wide each is.

    The first column holds ids and names, which are copied: an id always stands on one line. The last one wraps.
    """
    shown = list(range(len(natural)))
    ways = [(shown, WIDEST)]
    for index in optional:
        shown = [other for other in shown if other != index]
        ways.append((shown, WIDEST))
    ways += [(shown, NARROWER), (shown, NARROWEST)]
    widths: list[int] = []
    for shown, widest in ways:
        first = min(natural[shown[0]], max(WHOLE, width // 2))
        between = [min(natural[index], widest) for index in shown[1:-1]]
        last = natural[shown[-1]]
        left = width - first - sum(between) - GAP * len(widths := [first, *between])
        widths.append(max(min(last, left), 1))
        if left >= min(last, READABLE):
            break
    return shown, widths


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


def said_of_usage(attempt: Mapping[str, Any]) -> str:
    """Say what the processes of an attempt used, as far as that is known."""
    cpu_s, peak_bytes = attempt["cpu_s"], attempt["peak_bytes"]
    said = [] if cpu_s is None else [f"{format_span(cpu_s)} of processor time"]
    said += [] if peak_bytes is None else [f"at most {format_size(peak_bytes)} of memory"]
    return ", ".join(said)
