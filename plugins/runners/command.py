"""What a program is started with: its arguments and variables, and what data must not do to them.

Data never becomes power: what arrives in an event fills arguments and values of variables where the job's
author put it. It can't choose the program, nor be code, nor an option, nor a variable that steers programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from engine.plugin import BadSetting, Expression, ExpressionError, Scope, Template

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEERING = re.compile(
    r"PATH|CDPATH|IFS|ENV|BASH.*|SHELL.*|PS4|PROMPT_COMMAND|HOME|XDG_.*|TMPDIR|EDITOR|VISUAL|PAGER|BROWSER"
    r"|LESS.*|(?:DY)?LD_.*|GCONV_PATH|LOCPATH|NLSPATH|GLIBC_.*|MALLOC_.*|HOSTALIASES|RES_OPTIONS"
    r"|PYTHON.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|NODE_.*|NPM_.*|PIP_.*|PHP.*|LUA.*|GIT_.*|SSH_.*|SSL_.*"
    r"|OPENSSL_.*|CLASSPATH|_?JAVA_.*|JDK_.*|DOTNET_.*|.*_(?:proxy|PROXY)"
)

_SHELL = re.compile(r"(?:ba|da|z|k|mk|a|fi|tc|c)?sh")
_INTERPRETERS = (
    (_SHELL, "c", "oO"),
    (re.compile(r"(?:python|pypy)[\d.]*"), "cm", "WX"),
    (re.compile(r"perl[\d.]*"), "eE", "I"),
    (re.compile(r"ruby[\d.]*"), "e", "Ir"),
    (re.compile(r"node|nodejs|bun"), "ep", "r"),
    (re.compile(r"php[\d.]*"), "rBRE", "cd"),
    (re.compile(r"lua(?:jit)?[\d.]*"), "e", "l"),
)
"""Programs that run code: name, letters of the options that take code, and of those with another value."""

_LONG_CODE_OPTIONS = frozenset({"--eval", "--print", "--command"})
_WRAPPERS = {
    "busybox": "", "doas": "Cu", "env": "CSu", "ionice": "Pcnpu", "nice": "n", "nohup": "", "setsid": "",
    "stdbuf": "eio", "sudo": "CDRTUghprtu", "time": "fo", "timeout": "ks",
}  # fmt: skip
"""Programs that run the program in their arguments, and the letters of their options that take a value."""


class CannotStart(Exception):
    """An attempt failed before there was a process."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Argument(NamedTuple):
    number: int
    template: Template
    guarded: bool
    """Whether its value stands where a program looks for options."""

    def render(self, scope: Scope) -> str:
        try:
            text = self.template.render(scope)
        except ExpressionError as error:
            raise CannotStart("template_error", f"element {self.number} of the command: {error}") from None
        if "\0" in text:
            reason = f"element {self.number} of the command, {self.template.text!r}, holds a NUL character"
            raise CannotStart("template_error", reason)
        if self.guarded and text.startswith("-") and self._begins_with_text(scope):
            name = self.template.text
            raise CannotStart(
                "unsafe_argument",
                f"element {self.number} of the command, {name!r}, is {text[:40]!r}, which would be taken for "
                f'an option; write it as "--name={name}", or put "--" before it',
            )
        return text

    def _begins_with_text(self, scope: Scope) -> bool:
        for part in self.template.parts:
            value = part.evaluate(scope) if isinstance(part, Expression) else part
            if value not in (None, "", b""):
                return isinstance(part, Expression) and isinstance(value, (str, bytes))
        return False


class _Variable(NamedTuple):
    name: bytes
    template: Template

    def render(self, scope: Scope) -> bytes:
        try:
            text = self.template.render(scope)
        except ExpressionError as error:
            raise CannotStart("template_error", f"the variable {self.name.decode()}: {error}") from None
        if "\0" in text:
            reason = f"the variable {self.name.decode()}, {self.template.text!r}, holds a NUL character"
            raise CannotStart("template_error", reason)
        return text.encode()


class Command(NamedTuple):
    """A program with its arguments and variables, their templates compiled."""

    elements: tuple[str | _Argument, ...]
    fixed: dict[bytes, bytes]
    variables: tuple[_Variable, ...]
    has_templates: bool
    """Whether arguments or variables depend on the scope."""

    def arguments(self, scope: Scope) -> list[str]:
        """Return the argument list; raise CannotStart, in words, where a value must not or can't be in it."""
        return [part if isinstance(part, str) else part.render(scope) for part in self.elements]

    def environment(self, scope: Scope) -> dict[bytes, bytes]:
        """Return the declared variables; raise CannotStart, in words, where one has no value."""
        if not self.variables:
            return self.fixed
        return {**self.fixed, **{variable.name: variable.render(scope) for variable in self.variables}}


@lru_cache(maxsize=4096)
def compile_command(command: tuple[str, ...], env: tuple[tuple[str, str], ...]) -> Command:
    """Compile the settings of a job once for all of its runs; raise ExpressionError for a wrong template."""
    elements: list[str | _Argument] = []
    guarded = True
    for number, text in enumerate(command, 1):
        template = Template(text)
        if template.constant:
            guarded = guarded and text != "--"
            elements.append(text)
        else:
            elements.append(_Argument(number, template, guarded and isinstance(template.parts[0], Expression)))
    templates = {name: Template(text) for name, text in env}
    variables = tuple(
        _Variable(name.encode(), template) for name, template in templates.items() if not template.constant
    )
    return Command(
        elements=tuple(elements),
        fixed={name.encode(): text.encode() for name, text in env if templates[name].constant},
        variables=variables,
        has_templates=bool(variables) or not all(isinstance(part, str) for part in elements),
    )


def check_variable(name: str, text: str) -> None:
    """Refuse a variable whose name is none, or the engine's, or that steers programs and would hold data."""
    field = f"env.{name}"
    if not _VARIABLE.fullmatch(name):
        raise BadSetting(field, "is no name of a variable", "letters, digits and _, not beginning with a digit")
    if name.startswith("ENGINE_") or name == "TRACEPARENT":
        raise BadSetting(field, "is set by the engine", "choose another name")
    if "\0" in text:
        raise BadSetting(field, "holds a NUL character, which no variable can")
    if "{{" in text and _STEERING.fullmatch(name):
        raise BadSetting(
            field,
            f"holds a template, but {name} steers what programs do: data must not reach it",
            "give it a fixed value, and pass the data in a variable of another name",
        )


def refuse_data_as_code(command: Sequence[str]) -> None:
    """Refuse templates where the command names a program, or holds code for an interpreter; raise BadSetting.

    Seen are interpreters that are the program, also behind wrappers such as `env` or `sudo`, and options such
    as `sh -c` further on (`docker exec web sh -c …`). What other programs take for code is not known here.
    """
    start = _program_place(command)
    for place in range(min(start + 1, len(command))):
        if "{{" in command[place] and not _is_assignment(command[place]):
            raise BadSetting(
                "command",
                f"element {place + 1} is a template: data can't choose what is run, or as whom",
                "write everything up to the program's name literally",
            )
    for place, element in enumerate(command[start:], start):
        for pattern, code, values in _INTERPRETERS:
            if not pattern.fullmatch(os.path.basename(element)):
                continue
            is_shell = pattern is _SHELL
            places, takes_code = _code_places(command, place, code, values, is_shell)
            if place == start or takes_code:
                _refuse_templates(command, places, element, is_shell)


def _program_place(command: Sequence[str]) -> int:
    """Return the place of the program that wrappers such as `env A=b` or `sudo -u name` run in the end."""
    place = 0
    while place < len(command) and (wrapper := os.path.basename(command[place])) in _WRAPPERS:
        place += 1
        while place < len(command):
            element = command[place]
            if len(element) == 2 and element[0] == "-" and element[1] in _WRAPPERS[wrapper]:
                place += 2
            elif element.startswith("-") or _is_assignment(element):
                place += 1
            else:
                break
        if wrapper == "timeout":
            place += 1
    return place


def _is_assignment(element: str) -> bool:
    """Tell whether an element before the program is `NAME=value`, with a name that data may fill."""
    name, equals, value = element.partition("=")
    return bool(equals and _VARIABLE.fullmatch(name) and not ("{{" in value and _STEERING.fullmatch(name)))


def _code_places(command: Sequence[str], place: int, code: str, values: str, is_shell: bool) -> tuple[list[int], bool]:
    """Return the places of an interpreter's options and code or script, and whether an option takes code."""
    places: list[int] = []
    takes_code = False
    place += 1
    while place < len(command) and len(element := command[place]) > 1 and element[0] in "-+":
        places.append(place)
        place += 1
        if element == "--":
            break
        letters = "" if element.startswith("--") else element[1:]
        if element.split("=")[0] in _LONG_CODE_OPTIONS or any(letter in code for letter in letters):
            takes_code = True
            if is_shell:  # its code is the first argument after all options
                continue
        elif not letters or letters[-1] not in values:
            continue
        places.append(place)
        place += 1
    if is_shell or not takes_code:
        places.append(place)
    return places, takes_code


def _refuse_templates(command: Sequence[str], places: Collection[int], name: str, is_shell: bool) -> None:
    for place in places:
        if place < len(command) and "{{" in command[place]:
            example = r'["sh", "-c", "echo \"$1\"", "sh", "{{ data.x }}"]'
            raise BadSetting(
                "command",
                f"element {place + 1} is what {name} runs, and holds a template: data would be run as code",
                f"pass values as arguments: {example}" if is_shell else "pass values as arguments after the code",
            )
