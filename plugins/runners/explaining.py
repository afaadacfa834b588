"""What kept a program from being started, in words that name the way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence


def explain(error: OSError, arguments: Sequence[str], environment: Mapping[bytes, bytes], cwd: str) -> str:
    """Say what kept a program from being started, and the way out."""
    program = arguments[0]
    text = error.strerror or str(error)
    if error.filename == cwd and program != cwd:
        return f"{program} can't be started: its working directory {cwd}: {text}; set `cwd` to one that is there"
    if error.filename != program:
        return f"{program} can't be started: {text}"
    if error.errno == errno.E2BIG:
        size = sum(map(len, arguments)) + sum(len(name) + len(value) for name, value in environment.items())
        return (
            f"{program} can't be started: its arguments and variables, {size} characters in all, are more "
            "than the system allows; read large values from the event on standard input"
        )
    path = _find(program, environment[b"PATH"], cwd)
    if path is None:
        place = cwd if "/" in program else f"PATH ({os.fsdecode(environment[b'PATH'])})"
        return f"{program} can't be started: there is no such program in {place}; give its whole path"
    if os.path.isdir(path):
        return f"{program} can't be started: {path} is a directory; name a program in it"
    if error.errno == errno.EACCES and not os.access(path, os.X_OK):
        return f"{program} can't be started: {path} is not executable; `chmod +x` it"
    if error.errno == errno.ENOENT:
        return f"{program} can't be started: {path} needs {_interpreter(path)}, which is not there; correct it"
    if error.errno == errno.ENOEXEC:
        return (
            f"{program} can't be started: {path} is neither a program for this machine nor a script that "
            "begins with a line such as #!/bin/sh; add that line"
        )
    return f"{program} can't be started: {path}: {text}"


def _find(program: str, search: bytes, cwd: str) -> str | None:
    """Return the path of a program's file as the system looks it up, whether or not it can be executed."""
    folders = [""] if "/" in program else os.fsdecode(search).split(":")
    paths = (os.path.join(cwd, folder, program) for folder in folders)
    return next((path for path in paths if os.path.exists(path)), None)


def _interpreter(path: str) -> str:
    """Return what a file's first line says is to run it, as it stands there: a stray `\\r` is seen."""
    try:
        with open(path, "rb") as file:
            line = file.read(128).split(b"\n", 1)[0]
    except OSError:
        line = b""
    if line.startswith(b"#!"):
        return repr(line[2:].decode(errors="replace").strip(" ").split(" ")[0])
    return "a loader or library"
