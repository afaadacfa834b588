"""Runs that outlive the engine: what their launchers record, and processes that are no children of this one."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from plugins.runners.child import EXIT_UNKNOWN, Child

_GONE = frozenset(b"ZXx")


class Record(Struct, frozen=True, kw_only=True):
    """What a launcher records of an attempt: at first how to find it, at last how its program ended.

    `boot` names the machine's life in which `pid` and `started`, the launcher's kernel start time, mean something;
    `status` is that of wait(2), None while it is not known; `ended` is in seconds since 1970.
    """

    attempt: int
    boot: str
    pid: int
    started: int
    status: int | None = None
    cpu_s: float | None = None
    peak_kib: int = 0
    floor_kib: int = 0
    ended: float | None = None

    @property
    def exit_code(self) -> int:
        """The exit status, or the negative number of the signal that ended the program; see `EXIT_UNKNOWN`."""
        return EXIT_UNKNOWN if self.status is None else os.waitstatus_to_exitcode(self.status)

    @property
    def ended_at(self) -> datetime | None:
        """When the program ended."""
        return None if self.ended is None else datetime.fromtimestamp(self.ended, UTC)

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the program had at once, where that is more than the launcher has."""
        return self.peak_kib * 1024 if self.peak_kib > self.floor_kib else None

    def lives(self) -> bool:
        """Tell whether the launcher, and so its program, runs still."""
        if self.boot != machine_boot():
            return False
        found = _stat(self.pid)
        return found is not None and found[0] not in _GONE and int(found[19]) == self.started


_decode = msgspec.json.Decoder(Record).decode


def read_record(path: str, attempt: int) -> Record | None:
    """Return what is recorded of an attempt; None where that is nothing, or not of this one."""
    try:
        with open(path, "rb") as file:
            record = _decode(file.read(4096))
    except (OSError, msgspec.DecodeError):
        return None
    return record if record.attempt == attempt else None


def machine_boot() -> str:
    """Return what names the life of the machine, from its start to its end; see random(4)."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def forget_record(path: str) -> None:
    """Remove what is recorded of an attempt that is over."""
    for name in (path, f"{path}.new", f"{path}.end"):
        with suppress(FileNotFoundError):
            os.unlink(name)


class Foster(Child):
    """A process that another engine process started: it can be waited for, but not reaped."""

    __slots__ = ()

    def group_lives(self) -> bool:
        if not self.ended.is_set():
            return super().group_lives()
        # It may stay a zombie until its parent looks, and the group with it.
        return any(
            found[0] not in _GONE and int(found[2]) == self.pid
            for name in os.listdir("/proc")
            if name.isdigit() and (found := _stat(int(name))) is not None
        )


def _stat(pid: int) -> list[Any] | None:
    """Return the fields of /proc/PID/stat after the name: the state as a number, the others as text."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields: list[Any] = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    if len(fields) < 20:
        return None
    fields[0] = fields[0][0]
    return fields
