"""What tests do to the files of a SQLite store."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

PAGE_BYTES = 4096


def overwrite_page(path: Path, number: int) -> None:
    """Overwrite a page of a file (from 1), as a failing disk does; other bytes stay."""
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE_BYTES)
        file.write(random.Random(number).randbytes(PAGE_BYTES))


def copy_files(path: Path, to: Path) -> Path:
    """Copy a store's file and write-ahead log, as they stand, into another directory; return the new path."""
    to.mkdir(exist_ok=True)
    log = path.with_name(path.name + "-wal")
    # The log first: while nothing is moved from it into the file, a longer file does no harm.
    for each in (log, path):
        if each.exists():
            shutil.copy(each, to / each.name)
    return to / path.name
