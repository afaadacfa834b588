"""Programs as runs: an argument list, or a script for a shell that is named; output straight to the log."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from anyio import CancelScope
from msgspec import Meta

from engine.plugin import (
    BadSetting,
    ExpressionError,
    Outcome,
    RunContext,
    Runner,
    Scope,
    Template,
    TemplateText,
)
from plugins.runners.child import EXIT_UNKNOWN, Child
from plugins.runners.command import CannotStart, check_variable, compile_command, refuse_data_as_code
from plugins.runners.exitcodes import ExitCodes
from plugins.runners.explaining import explain
from plugins.runners.keeping import Foster, forget_record, machine_boot, read_record
from plugins.runners.launching import (
    LIKELY_VICTIM,
    Launched,
    Limits,
    Person,
    check_person,
    check_umask,
    explain_stage,
    find_person,
    launch_program,
)
from plugins.runners.outputs import log_left_out, open_folder, take_outputs
from plugins.runners.spawning import start
from plugins.runners.surroundings import (
    inherited,
    open_bytes,
    open_input,
    read_env_file,
    run_variables,
    shell_arguments,
)

_NOTHING = Scope({})

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL on a timeout or cancellation."""

LEFTOVER_GRACE_S = 0.05
"""Between SIGTERM and SIGKILL for what a program leaves in its group when it ends by itself."""

_SHELL = re.compile(r"(?:/.*/)?(?:ba|da|z|k|mk|a)?sh")


class Exec(Runner, frozen=True, kw_only=True):
    """Run a program; its exit status 0 is success.

    - `command`: the program and its arguments. There is no shell: one element is one argument, whatever its
      value. `{{ CEL }}` may stand in all but the first. A program without a slash is looked up in PATH. A
      value that begins with a dash could be taken for an option: an element that begins with `{{` then fails
      the attempt (`unsafe_argument`), unless a `"--"` stands before it.
    - `shell`: a shell that runs `script` in the place of a command, such as `bash`.
    - `script`: what the shell runs. It holds no `{{ CEL }}`, as data would be run as code: values come to it by
      `env`, as `"$NAME"`.
    - `env`: further environment variables; values may hold `{{ CEL }}`, but for variables that steer
      programs, such as PATH. Of the engine's own environment a program gets PATH, HOME, LANG, LC_*, TZ,
      TMPDIR, USER, LOGNAME and SHELL only.
    - `env_file`: a file of `NAME=value` lines with further variables, read at each start; `env` wins over it.
    - `cwd`: the working directory, relative to the configuration file; by default that file's directory.
    - `stdin`: what the program finds on standard input: `event`, `none`, or a text with `{{ CEL }}`.
    - `exit_codes`: what exit codes mean; by default 0 is success, and any other a failure.
    - `user`: the user that it runs as, with that one's groups, HOME, USER, LOGNAME and SHELL. The engine has to be
      root for it.
    - `group`: its group; by default that of its `user`.
    - `umask`: which permissions its new files do not get, in octal digits; by default as the engine.
    - `nice`: how much it gives way to others for the processor, from -20 to 19.
    - `limits`: what it may use at most.

    The program finds `{"event": last, "events": [all]}` on standard input, its run in ENGINE_RUN_ID,
    ENGINE_JOB, ENGINE_TRIGGER, ENGINE_ATTEMPT, ENGINE_SCHEDULED_FOR, ENGINE_EVENT_ID, ENGINE_EVENT_TYPE and
    TRACEPARENT, and in ENGINE_OUTPUT the path of a file for up to 100 `name=value` lines (values of at most 4
    KiB): the run's outputs. What it leaves running in its process group is ended with it.
    """

    name: ClassVar[str] = "exec"
    main: ClassVar[str | None] = "command"
    keeps: ClassVar[bool] = True
    guarded: ClassVar[frozenset[str]] = frozenset(
        {"shell", "script", "env", "env_file", "cwd", "user", "group", "umask", "nice"}
    )

    command: tuple[TemplateText, ...] = ()
    shell: str | None = None
    script: str | None = None
    env: dict[str, TemplateText] = {}  # noqa: RUF012 - msgspec makes a new one for each
    env_file: Path | None = None
    cwd: Path | None = None
    stdin: TemplateText = "event"
    exit_codes: ExitCodes = ExitCodes()
    user: str | None = None
    group: str | None = None
    umask: str | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        self._check_program()
        for name, text in self.env.items():
            check_variable(name, text)
        if "{{" not in self.stdin and self.stdin not in ("event", "none"):
            raise BadSetting(
                "stdin", f"found {self.stdin!r}", 'write "event", "none", or a text with `{{ CEL }}` in it'
            )
        if self.umask is not None:
            check_umask(self.umask)
        for field, person in (("user", self.user), ("group", self.group)):
            if person is not None:
                check_person(field, person)

    def programs(self) -> Sequence[str]:
        return self.command[:1]

    def _check_program(self) -> None:
        if self.script is not None or self.shell is not None:
            if self.command:
                raise BadSetting("command", "stands beside `shell` and `script`", "write one of the two")
            if self.script is None or not self.script.strip():
                raise BadSetting("script", "says nothing for the shell to run", "write the script")
            if self.shell is None:
                raise BadSetting("shell", "is missing: a script runs in a shell that is named", 'shell = "bash"')
            if not _SHELL.fullmatch(self.shell):
                raise BadSetting("shell", f"{self.shell!r} is no shell that is known", "sh, bash, dash, zsh or ksh")
            if "{{" in self.script:
                raise BadSetting(
                    "script",
                    "holds a template: data would be run as code",
                    'pass it in a variable: env = { FILE = "{{ data.path }}" }, and write "$FILE"',
                )
            if "\0" in self.script:
                raise BadSetting("script", "holds a NUL character, which no argument can")
            return
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

    def check(self, names: Collection[str]) -> None:
        for number, text in enumerate(self.command, 1):
            try:
                Template(text, names)
            except ExpressionError as error:
                raise BadSetting("command", f"element {number}: {error}") from None
        for field, text in (*((f"env.{name}", text) for name, text in self.env.items()), ("stdin", self.stdin)):
            try:
                Template(text, names)
            except ExpressionError as error:
                raise BadSetting(field, str(error)) from None
        refuse_data_as_code(self.command)

    # An attempt

    async def run(self, context: RunContext) -> Outcome:
        attempt = _Attempt(self, context)
        try:
            attempt.start()
        except CannotStart as refusal:
            attempt.forget()
            return Outcome.failed(refusal.code, str(refusal))
        child = attempt.child
        try:
            context.process_started(child.pid)
            if attempt.launched is not None:
                await attempt.under_way(attempt.launched)
            await child.ended.wait()
        except CannotStart as refusal:
            return Outcome.failed(refusal.code, str(refusal))
        finally:
            if not child.ended.is_set() or child.group_lives():
                await self._end(context, child)
            context.used(child.cpu_s, child.peak_bytes)
            outputs = None
            if child.ended.is_set():
                outputs = attempt.take_outputs()
                attempt.forget()
        if context.keep_path is not None:
            return self._recorded(context, outputs, child.exit_code)
        return self._judge(child.exit_code, outputs)

    def kept(self, path: str, attempt: int) -> bool:
        record = read_record(path, attempt)
        return record is not None and (record.status is not None or record.lives())

    async def take_up(self, context: RunContext) -> Outcome:
        path = context.keep_path or ""
        record = read_record(path, context.attempt)
        if record is None:
            return Outcome.failed("exit_unknown", "what was recorded of its process is gone")
        if record.status is None:
            child = Foster(record.pid)
            try:
                if record.lives():  # the number has not passed to another meanwhile
                    context.process_started(child.pid)
                    await child.ended.wait()
            finally:
                if not child.ended.is_set() or child.group_lives():
                    await self._end(context, child)
        outputs = take_outputs(context.output_path(), context, remove=False)
        return self._recorded(context, outputs, EXIT_UNKNOWN)

    async def _end(self, context: RunContext, child: Child) -> None:
        """End what is left of a program, unless it is to go on."""
        if context.let_go and not child.ended.is_set():
            child.let_go()
        else:
            await self._end_group(child, context)

    def _recorded(self, context: RunContext, outputs: dict[str, Any] | None, otherwise: int) -> Outcome:
        """Return the outcome that was recorded; `otherwise` is how the launcher itself ended."""
        record = read_record(context.keep_path or "", context.attempt)
        if record is None or record.status is None:
            # Its launcher was ended before it could record anything: by a signal, as it has no other end.
            if otherwise < 0:
                return self._judge(otherwise, outputs)
            reason = "ended, but what would have recorded its exit status was ended first, maybe by hand"
            return Outcome.failed("exit_unknown", reason, outputs=outputs)
        context.used(record.cpu_s, record.peak_bytes, ended_at=record.ended_at)
        return self._judge(record.exit_code, outputs)

    def _judge(self, exit_code: int, outputs: dict[str, Any] | None) -> Outcome:
        has_cpu_limit = self.limits is not None and self.limits.cpu is not None
        return self.exit_codes.judge(exit_code, outputs, has_cpu_limit=has_cpu_limit)

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

    @property
    def launches(self) -> bool:
        """Whether a launcher has to stand between the engine and the program."""
        return not (
            self.limits is None and self.user is None and self.umask is None
            and self.nice is None and self.group is None
        )  # fmt: skip


class _Attempt:
    """One attempt of a program, from its start."""

    __slots__ = ("_context", "_private", "_settings", "_told", "_user", "child", "launched", "outputs")

    child: Child

    def __init__(self, settings: Exec, context: RunContext) -> None:
        self._settings = settings
        self._context = context
        self.outputs = context.output_path()
        self.launched: Launched | None = None
        self._private: str | None = None
        """A folder of the program's user for its outputs: the engine's own is closed to it."""
        self._user = -1
        self._told: tuple[Sequence[str], Mapping[bytes, bytes], str] = ((), {}, "")

    def start(self) -> None:
        """Start the program, or its launcher; raise CannotStart, in words, where that fails."""
        settings, context = self._settings, self._context
        base = str(context.base)
        cwd = base if settings.cwd is None else os.path.join(base, settings.cwd)
        launches = settings.launches or context.keep_path is not None
        person = find_person(settings.user, settings.group) if launches else None
        outputs = self.outputs if person is None or person.uid is None else self._make_private(person)
        arguments, environment = self._render(person, outputs)
        stdin = log = -1
        try:
            stdin = self._open_input()
            log = context.open_log()
            if person is None:
                pid, popen = start(arguments, stdin=stdin, output=log, cwd=cwd, environment=environment)
                self.child = Child(pid, popen)
                return
            if person.uid is not None:
                os.fchown(log, person.uid, -1)  # `echo > /dev/stderr` opens it anew
            order = self._order(person, cwd, outputs)
            self._told = arguments, environment, cwd
            self.launched = launch_program(order, arguments, stdin=stdin, output=log, environment=environment)
            self.child = Child(self.launched.pid)
        except OSError as error:
            raise CannotStart("start_failed", explain(error, arguments, environment, cwd)) from None
        except ExpressionError as error:
            raise CannotStart("template_error", f"stdin: {error}") from None
        except ValueError as error:
            raise CannotStart("template_error", f"a value can't be passed to a program: {error}") from None
        finally:
            for descriptor in (stdin, log):
                if descriptor >= 0:
                    os.close(descriptor)

    async def under_way(self, launched: Launched) -> None:
        """Return when the program runs; raise CannotStart, in words, where its launcher could not become it."""
        try:
            stage, number = await launched.heard()
        finally:
            launched.close()
        if not stage:
            return
        arguments, environment, cwd = self._told
        if stage in ("program", "cwd"):
            where = arguments[0] if stage == "program" else cwd
            error = OSError(number, os.strerror(number), where)
            raise CannotStart("start_failed", explain(error, arguments, environment, cwd))
        raise CannotStart("start_failed", explain_stage(arguments[0], stage, number))

    def take_outputs(self) -> dict[str, Any] | None:
        """Read what the program left as outputs; see `take_outputs`."""
        keeps = self._context.keep_path is not None
        if self._private is None or keeps:
            return take_outputs(self.outputs, self._context, remove=not keeps)
        try:
            # Its user may have put a link in the place of the folder, to files that are the engine's alone.
            folder = open_folder(self._private, self._user)
        except OSError as error:
            log_left_out(self._context, [f"their folder is not as it was made: {error.strerror}"])
            return None
        try:
            return take_outputs(f"/proc/self/fd/{folder}/{os.path.basename(self.outputs)}", self._context)
        finally:
            os.close(folder)

    def forget(self) -> None:
        """Remove the folder that was made for the program's user, or the link that is in its place."""
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            with suppress(OSError):
                os.unlink(self._private)

    def _render(self, person: Person | None, outputs: str) -> tuple[list[str], dict[bytes, bytes]]:
        settings, context = self._settings, self._context
        try:
            command = compile_command(tuple(settings.command), tuple(settings.env.items()))
            scope = context.scope if command.has_templates else _NOTHING
            if settings.shell is None or settings.script is None:
                arguments = command.arguments(scope)
            else:
                arguments = list(shell_arguments(settings.shell, settings.script))
            environment = inherited().copy()
            if person is not None:
                environment.update(person.variables)
            if settings.env_file is not None:
                environment.update(read_env_file(os.path.join(context.base, settings.env_file)))
            environment.update(command.environment(scope))
            environment.update(run_variables(context))
            environment[b"ENGINE_OUTPUT"] = os.fsencode(outputs)
        except ExpressionError as error:
            raise CannotStart("template_error", str(error)) from None
        except ValueError as error:
            raise CannotStart("template_error", f"a value can't be passed to a program: {error}") from None
        return arguments, environment

    def _open_input(self) -> int:
        stdin = self._settings.stdin
        if stdin == "event":
            return open_input(self._context)
        if stdin == "none":
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return open_bytes(Template(stdin).render(self._context.scope).encode())

    def _make_private(self, person: Person) -> str:
        """Make a folder for the outputs of a program that runs as another user; return the path of the file."""
        context = self._context
        self._user = -1 if person.uid is None else person.uid
        folder = os.path.join(tempfile.gettempdir(), f"engine-{context.run_id}")
        try:
            if os.path.isdir(folder) and not os.path.islink(folder) and os.stat(folder).st_uid == self._user:
                shutil.rmtree(folder)  # of an attempt that the engine did not outlive
            os.mkdir(folder, 0o700)
            self._private = folder
            os.chown(folder, self._user, -1)
        except OSError as error:
            program = self._settings.command[0] if self._settings.command else self._settings.shell
            hint = "; run the engine as root, or leave `user` out" if error.errno == errno.EPERM else ""
            raise CannotStart(
                "start_failed",
                f"{program} can't be started: the folder {folder} for its outputs can't be made for its user: "
                f"{error.strerror}{hint}",
            ) from None
        path = os.path.join(folder, "outputs")
        if context.keep_path is None:
            self.outputs = path
        return path

    def _order(self, person: Person, cwd: str, outputs: str) -> dict[str, Any]:
        settings, keep = self._settings, self._context.keep_path
        if keep is not None:
            forget_record(keep)
        return {
            "cwd": cwd,
            "limits": [] if settings.limits is None else settings.limits.orders(),
            "nice": settings.nice,
            "umask": None if settings.umask is None else int(settings.umask, 8),
            "uid": person.uid,
            "gid": person.gid,
            "groups": person.groups,
            "likely_victim": LIKELY_VICTIM,
            "keep": keep or "",
            "attempt": self._context.attempt,
            "boot": machine_boot() if keep is not None else "",
            "outputs": (outputs, self.outputs) if keep is not None and outputs != self.outputs else None,
        }
