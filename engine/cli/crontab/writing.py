"""Writing the configuration that does what a crontab does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath

from msgspec import Struct

from engine.cli.crontab.naming import name_of, unique
from engine.cli.crontab.reading import Crontab, Entry, Problem, Remark
from engine.config.writing import toml, toml_comment, toml_key

JOB_TIMEOUT = "7d"
"""Cron ends no command: this long is for those that hang."""

_BRACES = '{{ "\\u007b\\u007b" }}'
"""What a template writes as two opening braces."""

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})
_LONGEST_DESCRIPTION = 200
_LONGEST_LINE_SHOWN = 400


class Result(Struct, frozen=True, kw_only=True):
    """The text of a configuration, and what of the crontab is not in it."""

    text: str
    jobs: int
    triggers: int
    problems: tuple[Problem, ...]


class _Way(Struct, frozen=True, kw_only=True):
    """How a command is started: two entries with the same way are one job."""

    command: tuple[str, ...]
    cwd: str | None
    env: tuple[tuple[str, str], ...]


def write(
    crontab: Crontab, *, title: str, timezone: str, user: str, home: str | None, refused: Callable[[str], str | None]
) -> Result:
    """Return a configuration with a trigger for each entry, and a job for each command.

    - `title`: how the crontab is called; `timezone`: where it is read, of entries without `CRON_TZ`.
    - `user`: as whom the engine runs; entries of others are written, but disabled. `home`: that user's directory.
    - `refused`: says why the engine takes no such cron expression, or None where it does.
    """
    return _Writing(timezone, user, home, refused).result(crontab, title)


class _Writing:
    """Collects the lines; jobs are known by the way in which they are started."""

    def __init__(self, timezone: str, user: str, home: str | None, refused: Callable[[str], str | None]) -> None:
        self._timezone = timezone
        self._user = user
        self._home = home
        self._refused = refused
        self._jobs: dict[_Way, str] = {}
        self._names: set[str] = set()
        self._triggers: set[str] = set()
        self._problems: list[Problem] = []
        self._lines: list[str] = []

    def result(self, crontab: Crontab, title: str) -> Result:
        self._lines = [toml_comment(line) for line in _heading(title, self._user)]
        self._lines.append("")
        for item in crontab.items:
            if isinstance(item, Entry):
                self._entry(item)
            elif isinstance(item, Problem):
                self._problem(item)
            else:
                self._remark(item)
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).rstrip("\n") + "\n"
        return Result(text=text, jobs=len(self._jobs), triggers=len(self._triggers), problems=tuple(self._problems))

    def _remark(self, remark: Remark) -> None:
        if not remark.text:
            self._lines.append("")
            return
        self._lines.append(
            toml_comment(remark.text.lstrip("#").strip() if remark.text.startswith("#") else remark.text)
        )
        if remark.message:
            self._lines.append(toml_comment(f"  ^ line {remark.line}: {remark.message}"))

    def _problem(self, problem: Problem) -> None:
        self._problems.append(problem)
        self._lines.append(toml_comment(_shown(problem.text)))
        self._lines.append(toml_comment(f"  ^ line {problem.line} is NOT carried over: {problem.message}"))

    def _entry(self, entry: Entry) -> None:
        why = self._refused(entry.expression)
        way = why or self._way(entry)
        if isinstance(way, str):
            self._problem(Problem(line=entry.line, text=entry.text, message=way))
            return
        self._lines.append("")
        self._lines.append(toml_comment(f"line {entry.line}: {_shown(entry.text)}"))
        for said in self._said(entry):
            self._lines.append(toml_comment(f"  ^ {said}"))
        job = self._jobs.get(way)
        if job is None:
            job = self._jobs[way] = unique(name_of(entry.command), repr(way), self._names)
            self._names.add(job)
            self._write_job(job, way, entry)
        name = unique(job, f"{entry.expression} {entry.zone}", self._triggers)
        self._triggers.add(name)
        cron = {"expression": entry.expression, "timezone": entry.zone or self._timezone}
        if entry.delay_minutes:
            cron["jitter"] = f"{entry.delay_minutes}m"
        self._lines.append(f"[{toml_key('triggers', name)}]")
        self._lines.append(f"on.cron = {toml(cron)}")
        self._lines.append(f"job = {toml(job)}")
        if entry.comments:
            self._lines.append(f"description = {toml(_description(entry.comments))}")
        if self._is_of_another(entry):
            self._lines.append("enabled = false")
        self._lines.append("")

    def _write_job(self, job: str, way: _Way, entry: Entry) -> None:
        self._lines.append(f"[{toml_key('jobs', job)}]")
        self._lines.append(f"timeout = {toml(JOB_TIMEOUT)}")
        if way.cwd is None and not way.env:
            self._lines.append(f"run.exec = {toml(list(way.command))}")
        else:
            self._lines.append(f"run.exec.command = {toml(list(way.command))}")
            if way.cwd is not None:
                self._lines.append(f"run.exec.cwd = {toml(way.cwd)}")
            for name, value in way.env:
                self._lines.append(f"{toml_key('run', 'exec', 'env', name)} = {toml(value)}")
        self._lines.append("")

    def _is_of_another(self, entry: Entry) -> bool:
        return entry.user is not None and entry.user != self._user

    def _said(self, entry: Entry) -> list[str]:
        said = [entry.said] if entry.said else []
        if self._is_of_another(entry):
            said.append(
                f"cron runs it as {entry.user}, and the engine all as itself ({self._user}): it is disabled. "
                f"Enable it in an engine that runs as {entry.user}, or put sudo -n -u {entry.user} before its command"
            )
        return said

    def _way(self, entry: Entry) -> _Way | str:
        """Return how an entry's command is started, or why it can't be."""
        shell = entry.variables.get("SHELL", "/bin/sh")
        code = entry.command
        posix = PurePosixPath(shell).name in _SHELLS
        if not shell or "{{" in shell:
            return f'its SHELL "{shell}" is no program'
        if entry.input is not None:
            if not posix:
                return f"its standard input (after %) can't be given in {shell}: put it into a file"
            code = f"printf %s {shlex.quote(entry.input)} | {{\n{code}\n}}"
        program = "sh" if shell == "/bin/sh" else shell
        command: tuple[str, ...] = (program, "-c", code)
        if "{{" in code:
            if not posix:
                return (
                    f"it holds {{{{, which begins a template here, and {shell} has no way round: put it into a script"
                )
            # Templates are refused in code; as an argument it is free, and two braces can be written as one.
            command = (program, "-c", 'eval "$1"', program, code.replace("{{", _BRACES))
        home = entry.variables.get("HOME") or (None if self._is_of_another(entry) else self._home)
        return _Way(command=command, cwd=home, env=tuple(sorted(entry.variables.items())))


def _description(comments: tuple[str, ...]) -> str:
    text = " ".join(comments)
    return text if len(text) <= _LONGEST_DESCRIPTION else f"{text[: _LONGEST_DESCRIPTION - 1]}…"


def _shown(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE_SHOWN else f"{line[:_LONGEST_LINE_SHOWN]}… ({len(line)} characters)"


def _heading(title: str, user: str) -> list[str]:
    return [
        f"From {title}, by `import crontab`. Look at it, then `python -m engine --config FILE check`.",
        f"Commands run as the user of the engine ({user} where this was made), {JOB_TIMEOUT} at most: cron ends none.",
        "Output is in the log of each run, and not mailed. Standard input is the event as JSON, where cron gives none.",
        "Of missed instants the latest is made up for when the engine is back, where cron forgets them.",
    ]
