"""Ordinary senders and timers beside clients that mean harm: the whole engine, in a process of its own.

How fast anything is, is what `python -m tests.bench hostile` tells; here the bounds are those that a user would notice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from engine.config.model import HttpTable
from tests import hostile
from tests.bench.hostile import ALL, CONFIG, attacked, fare
from tests.bench.processes import Server, start_engine

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Server]:
    with start_engine(tmp_path / "engine", CONFIG) as server:
        yield server


def bear(engine: Server, seconds: float, bomb_bytes: int) -> None:
    """Attack, and see that ordinary requests are answered, timers run, and memory does not grow."""
    with attacked(engine.port, seconds / 4, ALL, bomb_bytes):
        pass
    before = engine.memory_bytes("VmRSS")
    with attacked(engine.port, seconds, ALL, bomb_bytes) as done:
        found = fare(engine, seconds)
    assert found.failed == 0, "an ordinary post was not accepted"
    assert median(found.answers_s) < 1.0
    assert median(found.late_s) < 1.0
    assert engine.memory_bytes() - before < 96 * MIB
    assert done["slow"]["connected"] > hostile.SLOW, "none of the slow had to make room"
    assert done["chunks"]["sent_bytes"] > 8 * MIB
    assert done["bombs"]["accepted"] == 0
    assert done["bombs"]["answered"] > 0
    assert done["flood"]["accepted"] > 0


def test_ordinary_posts_and_timers_go_on_beside_hostile_clients(engine: Server) -> None:
    bear(engine, 8.0, 64 * MIB)


@pytest.mark.full
def test_they_do_so_for_two_minutes_with_gigabytes(engine: Server) -> None:
    bear(engine, 120.0, hostile.GIB)


def test_nothing_but_the_listener_listens_and_that_on_loopback_by_default(engine: Server) -> None:
    assert HttpTable().listen.startswith("127.0.0.1:")
    inodes = set()
    for entry in Path(f"/proc/{engine.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(entry))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{engine.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                listening.append(local)
    assert listening == [f"0100007F:{engine.port:04X}"]
