"""A program that says by its exit code whether runs may pass."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from typing import IO, ClassVar

from engine.plugin import BadSetting, Condition, ConditionContext, Verdict

KEPT_OUTPUT_BYTES = 1024
PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME")


class Exec(Condition, frozen=True, kw_only=True):
    """Pass while a program exits with 0; the first line that it writes is told.

    It runs with the engine's PATH, HOME, LANG, LC_*, TZ, TMPDIR and USER, in a session of its own, all of which is
    ended when the check's time is over.

    - `command`: a list of arguments, without a shell.
    - `env`: further environment variables.
    - `cwd`: where it runs; relative to the configuration file.
    - `skip_codes`: exit codes that skip runs, also those whose trigger would wait. Any other code holds.
    """

    name: ClassVar[str] = "exec"
    main: ClassVar[str | None] = "command"

    command: tuple[str, ...]
    env: dict[str, str] = {}  # noqa: RUF012 - msgspec makes a new one for each
    cwd: str = "."
    skip_codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise BadSetting("command", "is empty", 'such as ["systemctl", "is-active", "--quiet", "db"]')
        for field, texts in (("command", self.command), ("cwd", (self.cwd,)), ("env", (*self.env, *self.env.values()))):
            if any("\0" in text for text in texts):
                raise BadSetting(field, "holds a NUL, which no argument can")
        if 0 in self.skip_codes:
            raise BadSetting("skip_codes", "holds 0, which lets pass")

    async def check(self, context: ConditionContext) -> Verdict:
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes less than a millisecond; the command is the author's
                    self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    cwd=context.base / self.cwd, env=self._environment(), start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise RuntimeError(f"{self.command[0]} can't be started: {reason}") from None
            try:
                await _ended(process)
            finally:
                _end(process)
            return self._judged(process.returncode, _first_line(output))

    def _judged(self, code: int, line: str) -> Verdict:
        said = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        value = {"exit_code": code, "output": line}
        text = f"{said}: {line}" if line else said
        if code == 0:
            return Verdict.passes(text, value)
        return Verdict.skips(text, value) if code in self.skip_codes else Verdict.holds(text, value)

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if name in PASSED_ON or name.startswith("LC_")}
        return {"PATH": os.defpath, **kept, **self.env}


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended, whoever still holds its output open."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    try:
        loop.add_reader(pidfd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(pidfd)
    finally:
        os.close(pidfd)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process's session, and reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _first_line(output: IO[bytes]) -> str:
    output.seek(0)
    text = output.read(KEPT_OUTPUT_BYTES).decode("utf-8", "replace").strip()
    return text.partition("\n")[0][:200]
