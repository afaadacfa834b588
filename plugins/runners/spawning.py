"""Starting programs: by posix_spawn where that can do it, as it costs half of what Popen does, else by Popen.

posix_spawn has no working directory to set, so it starts what is to run in the engine's own. Nor does it close
descriptors: Python's own are close-on-exec (PEP 446), and those that other code opened without it are found and
marked, at most `MARK_AGAIN_S` after they came.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

MARK_AGAIN_S = 1.0

_CAN_SPAWN = sys.platform == "linux" and hasattr(os, "posix_spawn")
_RESET = [signal.SIGPIPE, signal.SIGXFSZ]
"""What Python ignores in its own process, and a program must not inherit."""

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class Marked:
    """When the descriptors were last looked through, by the monotonic clock."""

    at_s = -MARK_AGAIN_S


def start(
    arguments: Sequence[str], *, stdin: int, output: int, cwd: str, environment: Mapping[bytes, bytes]
) -> tuple[int, subprocess.Popen[bytes] | None]:
    """Start a program in a session of its own; return its process id, and its Popen where it has one.

    `environment` holds a PATH. Raises OSError, its `filename` being the program or `cwd`, and ValueError for texts
    that no argument or variable can be.
    """
    if _CAN_SPAWN and _is_here(cwd):
        return _spawn(arguments, stdin, output, environment), None
    popen = subprocess.Popen(  # noqa: S603 - the job's author chose what is run; there is no shell
        arguments, stdin=stdin, stdout=output, stderr=output, cwd=cwd, env=environment, start_new_session=True
    )
    return popen.pid, popen


def start_beside(
    arguments: Sequence[str], *, stdin: int, output: int, third: int, environment: Mapping[bytes, bytes]
) -> int:
    """Start a program in a session of its own, in the engine's directory, with `third` as its descriptor 3.

    The first argument is its whole path. Returns its process id; raises as `start` does.
    """
    _mark_descriptors()
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2),
        (os.POSIX_SPAWN_DUP2, third, 3),
    ]  # fmt: skip
    return os.posix_spawn(
        arguments[0], list(arguments), environment, file_actions=actions, setsid=True, setsigdef=_RESET
    )


def _is_here(cwd: str) -> bool:
    """Tell whether a directory is the one that this process works in."""
    try:
        return cwd == os.getcwd() or os.path.samestat(os.stat(cwd), os.stat("."))
    except OSError:
        return False


def _spawn(arguments: Sequence[str], stdin: int, output: int, environment: Mapping[bytes, bytes]) -> int:
    _mark_descriptors()
    program = arguments[0]
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2),
    ]  # fmt: skip
    found = errno.ENOENT
    for path in _paths(program, environment):
        try:
            return os.posix_spawn(
                path, list(arguments), environment, file_actions=actions, setsid=True, setsigdef=_RESET
            )  # fmt: skip
        except OSError as error:
            if found in _NOT_THERE and error.errno not in _NOT_THERE and error.errno is not None:
                found = error.errno
    raise OSError(found, os.strerror(found), program)


def _paths(program: str, environment: Mapping[bytes, bytes]) -> Sequence[str]:
    """Return where a program may be: as execvp(3) looks it up, in the PATH that it is given."""
    if "/" in program:
        return (program,)
    paths = [os.path.join(folder, program) for folder in os.fsdecode(environment[b"PATH"]).split(":")]
    return [path for path in paths if os.path.exists(path)]


def _mark_descriptors() -> None:
    """Have no program inherit what other code left open to it."""
    now_s = time.monotonic()
    if now_s - Marked.at_s < MARK_AGAIN_S:
        return
    Marked.at_s = now_s
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):  # it is closed by now
                os.set_inheritable(int(name), False)
