"""Starting programs by way of `launch.py`: where a job wants limits, another user, or its run to outlive the engine.

Measured, one after the other: 6.5 ms of processor time for the launcher, against 0.5 ms without it, 0.8 ms for a
`prlimit` in its place and 2.4 ms for `nice prlimit setpriv`. It is one way for all of it, and tells what can't be done.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import marshal
import math
import os
import pwd
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from engine.plugin import BadSetting, Duration, Size
from plugins.runners import launch
from plugins.runners.command import CannotStart
from plugins.runners.spawning import start_beside

AFTER_CPU_S = 5
"""Between SIGXCPU at the limit of processor time, and SIGKILL."""

LIKELY_VICTIM = 300
"""Where memory runs out, the kernel is to choose a program before the engine, whose oom_score_adj is so much less."""

LARGEST_ID = 2**32 - 2
"""Of a user or group; the number after it stands for none: see chown(2)."""

_LAUNCHER = str(Path(launch.__file__).resolve())


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a program, and each process that it starts, may use at most; see setrlimit(2).

    - `memory`: address space; what goes beyond is not given, which most programs end by.
    - `cpu`: processor time of one process; then it gets SIGXCPU, and SIGKILL 5 seconds later.
    - `files`: open files.
    - `processes`: processes and threads of the program's user, in all; it does not hold for root.
    - `core`: the size of a core dump.
    """

    memory: Annotated[Size, Meta(ge=1024 * 1024)] | None = None
    cpu: Annotated[Duration, Meta(gt=0)] | None = None
    files: Annotated[int, Meta(ge=3)] | None = None
    processes: Annotated[int, Meta(ge=1)] | None = None
    core: Annotated[Size, Meta(ge=0)] | None = None

    def orders(self) -> list[tuple[str, int, int, int]]:
        """Return them as the launcher takes them: name, number, soft and hard bound."""
        found: list[tuple[str, int, int, int]] = []
        for name, number, value in (
            ("memory", resource.RLIMIT_AS, self.memory),
            ("files", resource.RLIMIT_NOFILE, self.files),
            ("processes", resource.RLIMIT_NPROC, self.processes),
            ("core", resource.RLIMIT_CORE, self.core),
        ):
            if value is not None:
                found.append((f"limits.{name}", number, value, value))
        if self.cpu is not None:
            seconds = math.ceil(self.cpu)
            found.append(("limits.cpu", resource.RLIMIT_CPU, seconds, seconds + AFTER_CPU_S))
        return found


class Person(NamedTuple):
    """Who a program runs as: None is as the engine."""

    uid: int | None
    gid: int | None
    groups: list[int] | None
    variables: Mapping[bytes, bytes]
    """What it finds of its user in its environment."""


def find_person(user: str | None, group: str | None) -> Person:
    """Look up a user and a group, by name or number; raise CannotStart, in words, where there is none."""
    gid = None if group is None else _group_id(group)
    if user is None:
        return Person(None, gid, None if gid is None else [gid], {})
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if not user.isdecimal() or gid is None:
            hint = "; give its `group` too" if user.isdecimal() else ""
            raise CannotStart("start_failed", f"there is no user {user} on this machine{hint}") from None
        return Person(int(user), gid, [gid], {})
    own = entry.pw_gid if gid is None else gid
    variables = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return Person(
        entry.pw_uid, own, os.getgrouplist(entry.pw_name, own),
        {name.encode(): os.fsencode(value) for name, value in variables.items() if value},
    )  # fmt: skip


def _group_id(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise CannotStart("start_failed", f"there is no group {group} on this machine") from None


def check_person(field: str, text: str) -> None:
    """Refuse what can be neither the name nor the number of a user or group."""
    if text == "":
        raise BadSetting(field, "names nobody", "leave it out to run as the engine does")
    if text.isdecimal() and int(text) > LARGEST_ID:
        raise BadSetting(field, f"is no number of a {field}: the largest is {LARGEST_ID}")


def check_umask(text: str) -> None:
    """Refuse what is no umask."""
    if not 3 <= len(text) <= 4 or text.strip("01234567") or int(text, 8) > 0o777:
        raise BadSetting("umask", "is no umask", 'octal digits, such as "027"')


class Launched:
    """A launcher that was started; `heard` tells when it has become the program, or why it can't."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self._told = told

    async def heard(self) -> tuple[str, int]:
        """Return the stage and the error number of what could not be done; two empty ones where the program runs."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        text = b""
        try:
            while True:
                loop.add_reader(self._told, readable.set)
                await readable.wait()
                readable.clear()
                part = os.read(self._told, 1024)
                if not part:
                    break
                text += part
        finally:
            loop.remove_reader(self._told)
            self.close()
        stage, _, number = text.decode().partition(" ")
        return stage, int(number or 0)

    def close(self) -> None:
        """Hear nothing more."""
        if self._told >= 0:
            os.close(self._told)
            self._told = -1


def launch_program(
    order: Mapping[str, Any], arguments: Sequence[str], *, stdin: int, output: int, environment: Mapping[bytes, bytes]
) -> Launched:
    """Start a launcher in a session of its own; raises OSError and ValueError as `start` does."""
    held = {
        name if name.startswith(launch.SPOKEN) else launch.HELD + name: value for name, value in environment.items()
    }
    told, tell = os.pipe()
    try:
        pid = start_beside(
            [sys.executable, "-I", "-S", _LAUNCHER, marshal.dumps(dict(order)).hex(), *arguments],
            stdin=stdin, output=output, third=tell, environment=held,
        )  # fmt: skip
    except OSError as error:
        os.close(told)
        if error.errno == errno.E2BIG:
            raise OSError(error.errno, error.strerror, arguments[0]) from None
        raise
    except BaseException:
        os.close(told)
        raise
    finally:
        os.close(tell)
    return Launched(pid, told)


_SAID = {
    "nice": "it can't have `nice`",
    "group": "it can't become its `group`",
    "user": "it can't become its `user`",
    "record": "what its end would be recorded in can't be written",
}


def explain_stage(program: str, stage: str, number: int) -> str:
    """Say what the launcher could not do for a program, and the way out."""
    what = _SAID.get(stage, f"it can't have `{stage}`")
    hint = "; run the engine as root, or leave it out" if number == 1 else ""
    return f"{program} can't be started: {what}: {os.strerror(number) if number else 'the launcher ended'}{hint}"
