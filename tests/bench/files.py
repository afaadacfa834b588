"""`files`: from a file that is renamed into a watched directory to its durable event; and ten thousand at once.

The event counts from the moment at which another connection to the store reads it. The trigger's filter is false, so
that no runs take part. The baseline is a bare inotify(7) reader on a directory beside it, which stores nothing: to the
return of read(2) with the name.
"""

from __future__ import annotations

import ctypes
import os
import select
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from msgspec import Struct

from tests.bench.processes import Server, start_engine, wait_for
from tests.bench.report import BenchFailed, Figure, Options, Report, percentile

DROPS, QUICK_DROPS = 60, 5
PAUSE_S = 0.05
BURST, QUICK_BURST = 10_000, 500
LONGEST_S = 60.0

CONFIG = """\
[http]
listen = "127.0.0.1:{port}"
[jobs.none]
run.exec = ["/bin/true"]
[triggers.files]
on.files = { path = "inbox", complete = "rename" }
job = "none"
filter = "false"
"""

_IN_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")  # inotify(7): wd, mask, cookie, len, and the name in len bytes


class Turn(Struct, frozen=True, kw_only=True):
    """Milliseconds of each single file, and seconds until all of many were there."""

    single_ms: list[float]
    burst_s: float


class Inotify:
    """A bare reader of one directory's renames."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._file < 0 or libc.inotify_add_watch(self._file, os.fsencode(path), _IN_MOVED_TO) < 0:
            raise BenchFailed(f"inotify: {os.strerror(ctypes.get_errno())}")

    def wait(self, count: int) -> None:
        """Return when so many files were told of."""
        until_s = time.monotonic() + LONGEST_S
        while count > 0:
            if not select.select([self._file], [], [], max(until_s - time.monotonic(), 0.0))[0]:
                raise BenchFailed(f"inotify told nothing of {count} files")
            told = os.read(self._file, 1024 * 1024)
            place = 0
            while place < len(told):
                place += _EVENT.size + _EVENT.unpack_from(told, place)[3]
                count -= 1

    def close(self) -> None:
        os.close(self._file)


class Stored:
    """The engine's events, as another connection reads them."""

    def __init__(self, database: Path) -> None:
        self._raw = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5.0)

    def count(self) -> int:
        return int(self._raw.execute("select count(*) from events").fetchone()[0])

    def wait(self, count: int, pause_s: float) -> None:
        """Return when there are so many events."""
        what = f"{count} events are stored"
        wait_for(lambda: self.count() >= count, what, within_s=LONGEST_S, pause_s=pause_s)

    def close(self) -> None:
        self._raw.close()


def measure(options: Options) -> Report:
    """Drop files for the engine, and for the bare reader, in turn."""
    drops, burst = (QUICK_DROPS, QUICK_BURST) if options.quick else (DROPS, BURST)
    ours: list[Turn] = []
    bare: list[Turn] = []
    folder = options.folder / "engine"
    (folder / "inbox").mkdir(parents=True)
    with start_engine(folder, CONFIG) as engine, closing(Stored(folder / "data" / "engine.db")) as stored:
        for round_ in range(options.rounds):
            ours.append(_engine_turn(engine, stored, folder / "inbox", round_, drops, burst))
            bare.append(_bare_turn(options.folder / "bare", round_, drops, burst))
        stored.wait(options.rounds * (drops + burst), 0.01)
        time.sleep(PAUSE_S)
        if (count := stored.count()) != options.rounds * (drops + burst):
            raise BenchFailed(f"{options.rounds * (drops + burst)} files became {count} events")
    return _report(ours, bare, burst)


def _engine_turn(engine: Server, stored: Stored, inbox: Path, round_: int, drops: int, burst: int) -> Turn:
    single_ms = []
    engine.wait_quiet()
    count = stored.count()
    for number, file in enumerate(_made(inbox.parent / "made", f"{round_}-single-", drops), 1):
        begun_s = time.perf_counter()
        file.rename(inbox / file.name)
        stored.wait(count + number, 0.0002)
        single_ms.append((time.perf_counter() - begun_s) * 1e3)
        time.sleep(PAUSE_S)
    files = _made(inbox.parent / "made", f"{round_}-burst-", burst)
    engine.wait_quiet()
    begun_s = time.perf_counter()
    for file in files:
        file.rename(inbox / file.name)
    stored.wait(count + drops + burst, 0.01)
    return Turn(single_ms=single_ms, burst_s=time.perf_counter() - begun_s)


def _bare_turn(folder: Path, round_: int, drops: int, burst: int) -> Turn:
    inbox = folder / f"inbox{round_}"
    inbox.mkdir(parents=True)
    single_ms = []
    with closing(Inotify(inbox)) as inotify:
        for file in _made(folder / "made", "single-", drops):
            begun_s = time.perf_counter()
            file.rename(inbox / file.name)
            inotify.wait(1)
            single_ms.append((time.perf_counter() - begun_s) * 1e3)
        files = _made(folder / "made", "burst-", burst)
        begun_s = time.perf_counter()
        for file in files:
            file.rename(inbox / file.name)
        inotify.wait(burst)
        return Turn(single_ms=single_ms, burst_s=time.perf_counter() - begun_s)


def _made(folder: Path, prefix: str, count: int) -> list[Path]:
    """Make files to be renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{prefix}{number}.csv" for number in range(count)]
    for file in files:
        file.write_text("a,b,c\n1,2,3\n")
    return files


def _report(ours: list[Turn], bare: list[Turn], burst: int) -> Report:
    main = Figure(
        title="rename to durable event, median", unit="ms", values=[median(turn.single_ms) for turn in ours],
        baselines=[median(turn.single_ms) for turn in bare], target="below 25 ms",
    )  # fmt: skip
    p99 = Figure(
        title="- p99 over all rounds", unit="ms",
        values=[percentile([time_ms for turn in ours for time_ms in turn.single_ms], 99)],
        baselines=[percentile([time_ms for turn in bare for time_ms in turn.single_ms], 99)],
    )  # fmt: skip
    many = Figure(
        title=f"{burst:,} files at once to {burst:,} events", unit="s", values=[turn.burst_s for turn in ours],
        baselines=[turn.burst_s for turn in bare], target="below 6 s" if burst == BURST else "",
    )  # fmt: skip
    return Report(
        bench="files",
        figures=[main, p99, many],
        notes=['With complete = "rename": a settle time would be added. The baseline is a bare inotify reader.'],
        extra={
            "p99": p99.value,
            "baseline_p99": p99.baseline,
            "burst_files": burst,
            "burst_s": many.value,
            "baseline_burst_s": many.baseline,
        },
    )
