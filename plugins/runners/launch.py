"""Becomes a program that its job wants otherwise than it would be, or stays beside it and records how it ended.

It is run by its path, in a Python of its own: `launch.py ORDER PROGRAM [ARGUMENT …]`. The engine is one process with
threads, so nothing of this can be done between its fork and the exec; here it can. What can't be done is written to
descriptor 3 as `stage errno`, which is closed when the program runs. Nothing is imported that is not needed: all of
it is on the way to each such program.
"""

from __future__ import annotations

import marshal
import os
import resource
import sys
import time
from contextlib import suppress
from signal import (
    SIG_DFL,
    SIG_IGN,
    SIGALRM,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGQUIT,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIGXFSZ,
    signal,
)
from typing import Any, NoReturn

TOLD = 3
"""The descriptor on which is told what can't be done."""

SPOKEN, HELD = b"ENGINE_", b"_"
"""The program's variables come with `HELD` before their names, but for those that begin with `SPOKEN`: so one that
steers programs, such as LD_PRELOAD, acts on the program alone, and not on this process while it is another user's."""

RECORD_BYTES = 512
"""So long is a record: its place on the disk is taken before the program runs, so that a full disk keeps none back."""

LARGEST_OUTPUT_FILE_BYTES = 512 * 1024
LEFTOVER_GRACE_S, LEFTOVER_LONGEST_S = 0.05, 5.0

FOR_THE_PROGRAM = (SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM)
"""Whoever sends one of these to the group means the program; this process, which is in it, is deaf to them."""

_PR_SET_CHILD_SUBREAPER = 36


def main(order: str, arguments: list[str]) -> None:
    """Do as ordered: a marshalled dictionary, as `plugins.runners.launching` makes it, in hexadecimal digits."""
    os.set_inheritable(TOLD, False)
    wanted: dict[str, Any] = marshal.loads(bytes.fromhex(order))  # noqa: S302 - our own engine made it
    # As it was given: Python changes its own copy where the locale is C.
    with open("/proc/self/environ", "rb") as file:
        entries = [entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry]
    environment = {name if name.startswith(SPOKEN) else name[len(HELD) :]: value for name, value in entries}
    if wanted["keep"]:
        _keep(wanted, arguments, environment)
    else:
        _become(wanted, arguments, environment)


def _become(wanted: dict[str, Any], arguments: list[str], environment: dict[bytes, bytes]) -> NoReturn:
    stage = ""
    try:
        for number in (SIGPIPE, SIGXFSZ, *FOR_THE_PROGRAM):
            signal(number, SIG_DFL)
        with suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
            file.write(str(min(int(file.read()) + wanted["likely_victim"], 1000)))
        for stage, number, soft, hard in wanted["limits"]:  # noqa: B007 - it tells where it failed
            resource.setrlimit(number, (soft, hard))
        if wanted["nice"] is not None:
            stage = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, wanted["nice"])
        if wanted["umask"] is not None:
            os.umask(wanted["umask"])
        if wanted["groups"] is not None:
            stage = "group"
            os.setgroups(wanted["groups"])
        if wanted["gid"] is not None:
            stage = "group"
            os.setresgid(wanted["gid"], wanted["gid"], wanted["gid"])
        if wanted["uid"] is not None:
            stage = "user"
            os.setresuid(wanted["uid"], wanted["uid"], wanted["uid"])
        stage = "cwd"
        os.chdir(wanted["cwd"])
        stage = "program"
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606 - there is no shell
    except (OSError, ValueError) as error:
        _tell(stage, error)
    os._exit(127)


def _tell(stage: str, error: Exception) -> None:
    with suppress(OSError):
        os.write(TOLD, f"{stage} {getattr(error, 'errno', None) or 0}".encode())


def _keep(wanted: dict[str, Any], arguments: list[str], environment: dict[bytes, bytes]) -> None:
    """Have the program run beside this process, in its group, and record how it ended."""
    for number in FOR_THE_PROGRAM:
        signal(number, SIG_IGN)
    path = wanted["keep"]
    facts = f'{{"attempt": {wanted["attempt"]}, "boot": "{wanted["boot"]}", "pid": {os.getpid()}'
    facts += f', "started": {_kernel_start()}'
    try:
        _adopt_orphans()
        os.close(_record(f"{path}.new", facts + "}"))
        end = _record(f"{path}.end", "")
        os.replace(f"{path}.new", path)
        program = os.fork()
    except OSError as error:
        _tell("record", error)
        os._exit(127)
    if program == 0:
        _become(wanted, arguments, environment)
    os.close(TOLD)
    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, status, used = os.wait4(program, 0)
    if wanted["outputs"]:
        source, target = wanted["outputs"]
        _hand_over(source, target, wanted["uid"])
    facts += f', "status": {status}, "cpu_s": {used.ru_utime + used.ru_stime:.6f}'
    facts += f', "peak_kib": {used.ru_maxrss}, "floor_kib": {floor}, "ended": {time.time():.6f}}}'
    os.pwrite(end, facts.encode().ljust(RECORD_BYTES), 0)
    os.fsync(end)
    os.replace(f"{path}.end", path)
    _end_orphans()


def _record(path: str, text: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.pwrite(descriptor, text.encode().ljust(RECORD_BYTES), 0)
    os.fsync(descriptor)
    return descriptor


def _kernel_start() -> int:
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _hand_over(source: str, target: str, owner: int) -> None:
    """Copy what the program left as outputs, in a folder of its user, to where the engine looks for it."""
    place, name = os.path.split(source)
    with suppress(OSError):
        # That user may have put a link in the place of the folder, to files that are the engine's alone.
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(folder).st_uid != owner:
            return
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(descriptor, "rb") as file:
            body = file.read(LARGEST_OUTPUT_FILE_BYTES + 1)
        with open(target, "wb") as file:
            file.write(body)
        os.unlink(name, dir_fd=folder)
    with suppress(OSError):
        os.rmdir(place)


def _adopt_orphans() -> None:
    """Become the parent of what the program's own processes leave, in whatever session: see prctl(2)."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    """End all that the program has left; what ends gives its own children to this process."""
    until_s, number = time.monotonic() + LEFTOVER_LONGEST_S, SIGTERM
    killing_s = time.monotonic() + LEFTOVER_GRACE_S
    while time.monotonic() < until_s:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            children = [int(pid) for pid in file.read().split()]
        if not children:
            return
        for pid in children:
            for signalled in (number, SIGCONT):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signalled)
        time.sleep(0.005)
        if time.monotonic() >= killing_s:
            number = SIGKILL


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
