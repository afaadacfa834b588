"""Reading crontabs: lines become entries with the variables that hold for them, comments, and problems.

The rules are those of crontab(5): a variable holds for the lines below it; values have no expansion; in a command, the
first `%` that has no backslash ends it, what follows is its standard input, and further ones are line breaks.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType

from msgspec import Struct

from engine.cli.crontab.fields import NAMED, BadField, read_fields

_BLANKS = " \t"
_WHITE = re.compile(r"[ \t]+")
_VARIABLE = re.compile(r"""\s*(?:"([^"=]+)"|'([^'=]+)'|([^\s=*@'"#0-9~-][^\s=]*))\s*=(.*)\Z""", re.DOTALL)
_QUOTED = re.compile(r"""(["'])(.*)\1\Z""", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?\Z")
_HEADER = re.compile(r"^[ \t]*#.*(?:\bdow[ \t]+user\b|user-name)", re.IGNORECASE | re.MULTILINE)
_MAIL = frozenset({"MAILTO", "MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"})
_NO_MAIL = (
    "not carried over: nothing is mailed. What a run writes is in its log (`logs RUN`), and `runs --state failed` "
    "lists the runs that failed; to send mail, let the command do it"
)


class Entry(Struct, frozen=True, kw_only=True):
    """A command and when it runs.

    - `line`: its number; `text`: the line as it stands; `comments`: those right above it.
    - `expression`: its times as `on.cron` has them; `said`: what had to be decided of them.
    - `input`: its standard input, None where it has none; `user`: as whom it runs, None: whose crontab it is.
    - `variables`: those of the crontab that hold for it; `zone`: that of `CRON_TZ`; `delay_minutes`: of `RANDOM_DELAY`.
    """

    line: int
    text: str
    expression: str
    command: str
    input: str | None = None
    user: str | None = None
    said: str = ""
    comments: tuple[str, ...] = ()
    variables: Mapping[str, str] = MappingProxyType({})
    zone: str | None = None
    delay_minutes: int = 0


class Problem(Struct, frozen=True, kw_only=True):
    """A line that can't be carried over, why, and what to do; `bad` where cron does not run it either."""

    line: int
    text: str
    message: str
    bad: bool = True


class Remark(Struct, frozen=True, kw_only=True):
    """Something to be said at a line that is carried over otherwise, or needs nothing; `text` is the line itself."""

    line: int
    text: str
    message: str = ""


class Crontab(Struct, frozen=True, kw_only=True):
    """What stands in a crontab, in its order."""

    items: tuple[Entry | Problem | Remark, ...]


def is_system(text: str, file: str = "") -> bool:
    """Tell whether a crontab has a column of users, by its place, its heading, or as all its lines have one."""
    path = PurePath(file)
    if path.parent.name == "cron.d" or path.parts[-2:] == ("etc", "crontab") or _HEADER.search(text):
        return True
    sixth = []
    for line in text.split("\n"):
        if not line.strip(_BLANKS) or line.lstrip(_BLANKS).startswith("#") or _VARIABLE.match(line):
            continue
        words = _WHITE.split(line.strip(_BLANKS))
        users = words[1:] if words[0].startswith("@") else words[5:]
        sixth.append(users[0] if len(users) > 1 and _USER.match(users[0]) else "")
    # No command is called root: a user's crontab has no such line.
    return "root" in sixth and all(sixth)


def read(text: str, *, system: bool) -> Crontab:
    """Read a crontab; nothing in it raises."""
    reading = _Reading(system)
    for number, line in enumerate(text.split("\n"), 1):
        reading.take(number, line.removesuffix("\r"))
    return Crontab(items=tuple(reading.items))


class _Reading:
    """Goes through the lines; `variables` are those that hold by now."""

    def __init__(self, system: bool) -> None:
        self.items: list[Entry | Problem | Remark] = []
        self._system = system
        self._variables: dict[str, str] = {}
        self._zone: str | None = None
        self._delay_minutes = 0
        self._above: list[str] = []

    def take(self, number: int, line: str) -> None:
        stripped = line.strip(_BLANKS)
        if not stripped:
            self._above = []
            if self.items and self.items[-1] != Remark(line=0, text=""):
                self.items.append(Remark(line=0, text=""))
            return
        if stripped.startswith("#"):
            self._above.append(stripped.lstrip("#").strip())
            self.items.append(Remark(line=number, text=stripped))
            return
        match = _VARIABLE.match(line)
        if match is not None and "\0" not in line:
            self._set(number, line, match[1] or match[2] or match[3], match[4])
        else:
            self._add(number, line)
        self._above = []

    def _set(self, number: int, line: str, name: str, value: str) -> None:
        value = value.strip()
        quoted = _QUOTED.match(value)
        value = quoted[2] if quoted else value
        said = ""
        if name == "CRON_TZ":
            said = self._set_zone(value)
        elif name == "RANDOM_DELAY":
            if value.isascii() and value.isdigit() and len(value) < 6:
                self._delay_minutes = int(value)
            else:
                said = "it is no number of minutes: there is no delay"
        elif name in _MAIL:
            said = _NO_MAIL if value else ""
        elif (why := _why_not(name, value)) is not None:
            said = f"not carried over: {why}"
        else:
            self._variables[name] = value
        self.items.append(Remark(line=number, text=line.strip(), message=said))

    def _set_zone(self, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self._zone = None
            return f'there is no time zone "{value}": the lines below have that of the others'
        self._zone = value
        return ""

    def _add(self, number: int, line: str) -> None:
        if "\0" in line:
            self._refuse(number, line, "it holds a NUL character")
            return
        stripped = line.strip(_BLANKS)
        named = stripped.startswith("@")
        count = 1 if named else 5
        words = _WHITE.split(stripped, count)
        if len(words) <= count:
            self._refuse(
                number, line, "expected a command after the name" if named else "expected five fields and a command"
            )
            return
        rest, user = words[count], None
        if self._system:
            parts = _WHITE.split(rest, 1)
            if len(parts) < 2 or not _USER.match(parts[0]):
                self._refuse(number, line, "expected a user and a command after the times, as in a system crontab")
                return
            user, rest = parts
        command, text = _command(rest)
        if not command.strip():
            self._refuse(number, line, "its command is empty")
            return
        try:
            expression, said = self._times(words[:count], command)
        except BadField as error:
            self._refuse(number, line, str(error))
            return
        if not expression:
            message = (
                "cron runs it when the machine starts, and nothing here does: give it a unit of systemd "
                "(WantedBy=multi-user.target), or start it beside the engine"
            )
            self.items.append(Problem(line=number, text=line.strip(), message=message, bad=False))
            return
        self.items.append(
            Entry(
                line=number,
                text=line.strip(),
                expression=expression,
                command=command,
                input=text,
                user=user,
                said=said,
                comments=tuple(comment for comment in self._above if comment),
                variables=dict(self._variables),
                zone=self._zone,
                delay_minutes=self._delay_minutes,
            )
        )

    def _times(self, words: list[str], command: str) -> tuple[str, str]:
        """Return the five fields; an empty text for `@reboot`."""
        if not words[0].startswith("@"):
            return read_fields(words, command)
        name = words[0].lower()
        if name == "@reboot":
            return "", ""
        if name not in NAMED:
            raise BadField(f'it has "{words[0]}", which cron does not know')
        return NAMED[name], ""

    def _refuse(self, number: int, line: str, message: str) -> None:
        self.items.append(Problem(line=number, text=line.strip(), message=message))


def _command(text: str) -> tuple[str, str | None]:
    """Take a command and its standard input apart: at the first `%` without a backslash."""
    parts = re.split(r"(?<!\\)%", text.rstrip(_BLANKS))
    command, *lines = [part.replace("\\%", "%") for part in parts]
    return command, "\n".join(lines) + "\n" if lines else None


def _why_not(name: str, value: str) -> str | None:
    """Say why a variable can't be given to a job, or None where it can."""
    if not _NAME.match(name):
        return "its name has other characters than letters, digits and _"
    if name.startswith("ENGINE_") or name == "TRACEPARENT":
        return "the engine sets it itself"
    return "its value holds {{, which begins a template here" if "{{" in value else None
