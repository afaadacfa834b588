"""Asking what functions are, in an interpreter of its own: an import that raises, hangs or crashes harms nothing."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from engine.plugin import Secret
from plugins.runners.python.describe import Description, NoFunction, own_folders

IMPORT_S = 30.0
"""How long the import of one module may take."""

_END_S, _LOOK_S = 0.5, 0.005
"""How long one that closed its answers may take to end, and how often that is looked at."""

_INHERITED = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|USER|LOGNAME|SHELL")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCRIPT = Path(__file__).with_name("describe.py")


class Surroundings(Struct, frozen=True, kw_only=True):
    """Where functions are imported: `folders` beside what Python finds by itself, and `env`, further variables."""

    folders: tuple[str, ...]
    env: tuple[tuple[str, Secret | str], ...] = ()

    def search_path(self) -> list[str]:
        """Return the folders that modules are looked for in: those of this process, and then `folders`."""
        own = own_folders()
        return own + [folder for folder in self.folders if folder not in own]

    def environment(self) -> dict[str, str]:
        """Return the variables of a process for functions: as for programs, not those of the engine."""
        given = {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.env}
        return {**inherited(), **given}


class Question(Struct, frozen=True, kw_only=True):
    """Which function, by `package.module:function`, and the names of the keyword arguments that it gets."""

    target: str
    arguments: tuple[str, ...] = ()


@cache
def inherited() -> Mapping[str, str]:
    """Return what functions' processes get of the engine's own environment."""
    return {"PATH": _DEFAULT_PATH} | {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def ask(surroundings: Surroundings, questions: Sequence[Question]) -> dict[Question, Description | NoFunction]:
    """Return what each function is, or why it is none. Blocks for as long as the imports take."""
    answers: dict[Question, Description | NoFunction] = {}
    # Modules are imported once for all; after one that ends the process, the rest are asked anew.
    while left := [question for question in dict.fromkeys(questions) if question not in answers]:
        _ask_some(surroundings, left, answers)
    return answers


def _ask_some(
    surroundings: Surroundings, questions: Sequence[Question], answers: dict[Question, Description | NoFunction]
) -> None:
    """Ask until the process ends; the question that it did not survive is answered with how it ended."""
    given = {
        "path": surroundings.search_path(),
        "questions": [(question.target, question.arguments) for question in questions],
    }
    process = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-P", str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=surroundings.environment(),
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        with process.stdin as stdin:
            stdin.write(json.dumps(given).encode())
        rest = b""
        for question in questions:
            line, rest = _line(process.stdout.fileno(), rest)
            if line is None:
                answers[question] = _ended(process, question)
                return
            answers[question] = _answer(line)
    finally:
        # The whole group: modules may have started processes.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _line(descriptor: int, rest: bytes) -> tuple[bytes | None, bytes]:
    """Read a line within `IMPORT_S`; None where the process ended, or took longer."""
    deadline_s = time.monotonic() + IMPORT_S
    while b"\n" not in rest:
        readable, _, _ = select.select([descriptor], [], [], max(deadline_s - time.monotonic(), 0.0))
        chunk = os.read(descriptor, 65536) if readable else b""
        if not chunk:
            return None, rest
        rest += chunk
    line, _, rest = rest.partition(b"\n")
    return line, rest


def _answer(line: bytes) -> Description | NoFunction:
    found = json.loads(line)
    return NoFunction(found["error"], found["hint"]) if "error" in found else Description(**found)


def _ended(process: subprocess.Popen[bytes], question: Question) -> NoFunction:
    """Say how a process ended, or that it did not. It is not reaped yet, so that its group is still its own."""
    module = question.target.partition(":")[0]
    deadline_s = time.monotonic() + _END_S
    while (end := os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
        if time.monotonic() > deadline_s:
            hint = "import what is slow when it is used"
            return NoFunction(f"importing {module} took longer than {IMPORT_S:g} s", hint)
        time.sleep(_LOOK_S)
    exited = end.si_code == os.CLD_EXITED
    how = f"exits with {end.si_status}" if exited else f"is ended by {signal.Signals(end.si_status).name}"
    return NoFunction(f"importing {module} ends the process: it {how}")
