"""What programs leave as outputs: lines `name=value` in a file of theirs, which are data and nothing else."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from io import FileIO
from typing import Any

from engine.plugin import RunContext

MOST_OUTPUTS = 100
LONGEST_OUTPUT_BYTES = 4096
LARGEST_OUTPUT_FILE_BYTES = 512 * 1024

_OUTPUT_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,127})=(.*)", re.DOTALL)


def take_outputs(path: str, context: RunContext, *, remove: bool = True) -> dict[str, Any] | None:
    """Read the `name=value` lines that a program left, and remove the file; None where there is none.

    A line that is none, a value that is too long, and what goes beyond `MOST_OUTPUTS` are left out, with a
    note in the log. The last line of a name counts.
    """
    outputs: dict[str, Any] = {}
    problems: list[str] = []
    try:
        # The program owns the path: a link there must not be followed, a FIFO must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            outputs, problems = _read_outputs(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"the file can't be read: {error.strerror}")
    if remove:
        try:
            os.unlink(path)
        except OSError as error:
            problems.append(f"the file can't be removed: {error.strerror}")
    if problems:
        log_left_out(context, problems)
    return outputs or None


def log_left_out(context: RunContext, problems: Sequence[str]) -> None:
    """Say in the log which outputs were left out."""
    context.log.warning("outputs left out: %s", "; ".join(problems[:5]), extra={"action": "outputs_left_out"})


def open_folder(path: str, owner: int) -> int:
    """Return a descriptor of a folder of a user's; raise OSError where the path leads to anything else."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(folder).st_uid != owner:
        os.close(folder)
        raise OSError(errno.EPERM, "it is somebody else's", path)
    return folder


def _read_outputs(file: FileIO) -> tuple[dict[str, Any], list[str]]:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return {}, ["it is no regular file"]
    outputs: dict[str, Any] = {}
    problems: list[str] = []
    body = file.read(LARGEST_OUTPUT_FILE_BYTES + 1) or b""
    if len(body) > LARGEST_OUTPUT_FILE_BYTES:
        problems.append(f"what is beyond {LARGEST_OUTPUT_FILE_BYTES} bytes")
        body = body[:LARGEST_OUTPUT_FILE_BYTES].rpartition(b"\n")[0]
    for number, line in enumerate(body.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        try:
            match = _OUTPUT_LINE.fullmatch(line.decode())
        except UnicodeDecodeError:
            match = None
        if match is None or "\0" in match[2]:
            problems.append(f"line {number} is no name=value line of UTF-8 text")
        elif len(match[2].encode()) > LONGEST_OUTPUT_BYTES:
            problems.append(f"line {number} has a value of more than {LONGEST_OUTPUT_BYTES} bytes")
        elif len(outputs) >= MOST_OUTPUTS and match[1] not in outputs:
            problems.append(f"line {number} is beyond {MOST_OUTPUTS} outputs")
        else:
            outputs[match[1]] = match[2]
    return outputs, problems
