"""Programs as runs: an argument list, no shell; the event on standard input; output straight to the log."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import stat
import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from anyio import CancelScope

from engine.plugin import (
    BadSetting,
    Event,
    ExpressionError,
    Outcome,
    RunContext,
    Runner,
    Scope,
    Template,
    TemplateText,
    encode_json,
)
from plugins.runners.child import EXIT_UNKNOWN, Child
from plugins.runners.command import CannotStart, check_variable, compile_command, refuse_data_as_code
from plugins.runners.spawning import start

_NOTHING = Scope({})

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL on a timeout or cancellation."""

LEFTOVER_GRACE_S = 0.05
"""Between SIGTERM and SIGKILL for what a program leaves in its group when it ends by itself."""

MOST_OUTPUTS = 100
LONGEST_OUTPUT_BYTES = 4096
LARGEST_OUTPUT_FILE_BYTES = 512 * 1024

_INHERITED = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|USER|LOGNAME|SHELL")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,127})=(.*)", re.DOTALL)


class Exec(Runner, frozen=True, kw_only=True):
    """Run a program; its exit status 0 is success.

    - `command`: the program and its arguments. There is no shell: one element is one argument, whatever its
      value. `{{ CEL }}` may stand in all but the first. A program without a slash is looked up in PATH. A
      value that begins with a dash could be taken for an option: an element that begins with `{{` then fails
      the attempt (`unsafe_argument`), unless a `"--"` stands before it.
    - `env`: further environment variables; values may hold `{{ CEL }}`, but for variables that steer
      programs, such as PATH. Of the engine's own environment a program gets PATH, HOME, LANG, LC_*, TZ,
      TMPDIR, USER, LOGNAME and SHELL only.
    - `cwd`: the working directory, relative to the configuration file; by default that file's directory.

    The program finds `{"event": last, "events": [all]}` on standard input, its run in ENGINE_RUN_ID,
    ENGINE_JOB, ENGINE_TRIGGER, ENGINE_ATTEMPT, ENGINE_SCHEDULED_FOR, ENGINE_EVENT_ID, ENGINE_EVENT_TYPE and
    TRACEPARENT, and in ENGINE_OUTPUT the path of a file for up to 100 `name=value` lines (values of at most 4
    KiB): the run's outputs. What it leaves running in its process group is ended with it.
    """

    name: ClassVar[str] = "exec"
    main: ClassVar[str | None] = "command"

    command: tuple[TemplateText, ...]
    env: dict[str, TemplateText] = {}  # noqa: RUF012 - msgspec makes a new one for each
    cwd: Path | None = None

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise BadSetting("command", "names no program", 'an argument list such as ["python", "import.py"]')
        if "{{" in self.command[0]:
            raise BadSetting(
                "command",
                "the program is a template: data can't choose what is run",
                "name the program itself",
            )
        if any("\0" in text for text in self.command):
            raise BadSetting("command", "holds a NUL character, which no argument can")
        for name, text in self.env.items():
            check_variable(name, text)

    def check(self, names: Collection[str]) -> None:
        for number, text in enumerate(self.command, 1):
            try:
                Template(text, names)
            except ExpressionError as error:
                raise BadSetting("command", f"element {number}: {error}") from None
        for name, text in self.env.items():
            try:
                Template(text, names)
            except ExpressionError as error:
                raise BadSetting(f"env.{name}", str(error)) from None
        refuse_data_as_code(self.command)

    async def run(self, context: RunContext) -> Outcome:
        output = context.output_path()
        try:
            child = self._start(context, output)
        except CannotStart as refusal:
            return Outcome.failed(refusal.code, str(refusal))
        try:
            context.process_started(child.pid)
            await child.ended.wait()
        finally:
            if child.group_lives():
                await self._end_group(child, context)
            outputs = _take_outputs(output, context)
        return _outcome(child.exit_code, outputs)

    def _start(self, context: RunContext, output: str) -> Child:
        """Start the program; raise CannotStart, in words, where that fails."""
        base = str(context.base)
        cwd = base if self.cwd is None else os.path.join(base, self.cwd)
        stdin = log = -1
        try:
            command = compile_command(tuple(self.command), tuple(self.env.items()))
            scope = context.scope if command.has_templates else _NOTHING
            arguments = command.arguments(scope)
            environment = {
                **_inherited(),
                **command.environment(scope),
                **_run_variables(context),
                b"ENGINE_OUTPUT": os.fsencode(output),
            }
        except ExpressionError as error:
            raise CannotStart("template_error", str(error)) from None
        except ValueError as error:
            raise CannotStart("template_error", f"a value can't be passed to a program: {error}") from None
        try:
            stdin = _open_input(context)
            log = context.open_log()
            pid, popen = start(arguments, stdin=stdin, output=log, cwd=cwd, environment=environment)
        except OSError as error:
            raise CannotStart("start_failed", _explain(error, arguments, environment, cwd)) from None
        except ValueError as error:
            raise CannotStart("template_error", f"a value can't be passed to a program: {error}") from None
        finally:
            for descriptor in (stdin, log):
                if descriptor >= 0:
                    os.close(descriptor)
        return Child(pid, popen)

    async def _end_group(self, child: Child, context: RunContext) -> None:
        with CancelScope(shield=True):
            if not child.ended.is_set():
                await child.end(context.clock, GRACE_S)
                return
            await child.end(context.clock, LEFTOVER_GRACE_S)
            context.log.warning(
                "the program ended and left processes in its group; they were ended too",
                extra={"action": "leftovers_ended"},
            )


@cache
def _inherited() -> dict[bytes, bytes]:
    """Return what every program gets of the engine's own environment, as it was at the first run."""
    base = {b"PATH": _DEFAULT_PATH.encode()}
    for name, value in os.environ.items():
        if _INHERITED.fullmatch(name):
            base[name.encode()] = os.fsencode(value)
    return base


def _run_variables(context: RunContext) -> dict[bytes, bytes]:
    event, due_at = context.event, context.scheduled_for
    result = {
        b"ENGINE_RUN_ID": context.run_id.encode(),
        b"ENGINE_JOB": context.job.encode(),
        b"ENGINE_TRIGGER": context.trigger.encode(),
        b"ENGINE_ATTEMPT": b"%d" % context.attempt,
        b"ENGINE_SCHEDULED_FOR": b"" if due_at is None else _instant(due_at),
        b"ENGINE_EVENT_ID": event.id.encode(),
        b"ENGINE_EVENT_TYPE": event.type.encode(),
        b"TRACEPARENT": _traceparent(context.run_id, context.attempt),
    }
    if event.input is not None:
        result[b"ENGINE_INPUT"] = event.input.encode()
    for name, value in context.marks.items():
        result[name.encode()] = value.encode()
    return result


def _traceparent(run_id: str, attempt: int) -> bytes:
    """Return a traceparent (https://www.w3.org/TR/trace-context/): one trace a run, one span an attempt."""
    trace = run_id.replace("-", "")
    if len(trace) != 32 or trace.strip("0123456789abcdef"):
        trace = hashlib.blake2b(run_id.encode(), digest_size=16).hexdigest()
    span = hashlib.blake2b(b"%s/%d" % (run_id.encode(), attempt), digest_size=8).hexdigest()
    return f"00-{trace}-{span}-01".encode()


def _instant(at: datetime) -> bytes:
    return encode_json(at.astimezone(UTC)).strip(b'"')


def _open_input(context: RunContext) -> int:
    """Return a descriptor to read the event from: in memory, as a pipe would have to be fed."""
    body = _input(context)
    try:
        descriptor = os.memfd_create("event")
    except (AttributeError, OSError):
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _input(context: RunContext) -> bytes:
    last, events = _event_json(context.event), context.events
    every = [last if event is context.event else _event_json(event) for event in events]
    return b'{"event":%s,"events":[%s]}\n' % (last, b",".join(every))


def _event_json(event: Event) -> bytes:
    return encode_json(
        {
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "subject": event.subject,
            "time": event.time and event.time.astimezone(UTC),
            "received_at": event.received_at and event.received_at.astimezone(UTC),
            "key": event.key,
            "data": event.data,
            "priority": event.priority,
            **({} if event.input is None else {"input": event.input}),
        }
    )


def _outcome(exit_code: int, outputs: dict[str, Any] | None) -> Outcome:
    if exit_code == 0:
        return Outcome.succeeded("exited with 0", exit_code=0, outputs=outputs)
    if exit_code == EXIT_UNKNOWN:
        reason = "ended, but its exit status was collected by something else in the engine's process"
        return Outcome.failed("exit_unknown", reason, outputs=outputs)
    if exit_code > 0:
        return Outcome.failed("exit_code", f"exited with {exit_code}", exit_code=exit_code, outputs=outputs)
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return Outcome.failed("signal", f"ended by {name}", outputs=outputs)


def _explain(error: OSError, arguments: Sequence[str], environment: Mapping[bytes, bytes], cwd: str) -> str:
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


def _take_outputs(path: str, context: RunContext) -> dict[str, Any] | None:
    """Read the `name=value` lines that the program left, and remove the file; None where there is none.

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
    try:
        os.unlink(path)
    except OSError as error:
        problems.append(f"the file can't be removed: {error.strerror}")
    if problems:
        context.log.warning("outputs left out: %s", "; ".join(problems[:5]), extra={"action": "outputs_left_out"})
    return outputs or None


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
