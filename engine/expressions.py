"""CEL expressions and the templates made of them.

The language is Google's Common Expression Language (https://github.com/google/cel-spec). An expression is
compiled once, its names are checked then, and it is evaluated against a `Scope`.

Evaluation is bounded: CEL has no loops but its macros (`all`, `exists`, `exists_one`, `map`, `filter`), whose
cost is the width of the data to the power of their nesting. Before an expression with macros is evaluated,
that product is compared with `MOST_STEPS`; beyond it the expression fails instead of holding the engine.
Patterns of `matches` take a time that is linear in the text but grows with the pattern, so an author writes
them out, data can't bring one, and those that are too large are refused. So he does the networks of `ip_in`, which is
a function of ours: CEL has none for addresses.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

from engine.clock import rfc3339
from engine.errors import ExpressionError, InvalidEvent
from engine.networks import Networks, ip_in
from engine.payload import encode_json, survey
from engine.schemas.patterns import is_large

# The package imports its own command line, with prompt_toolkit and rich: four fifths of the time and half of the
# memory that importing this module takes. An empty module stands in for it.
_command_line = sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
import cel  # noqa: E402

if not hasattr(_command_line, "__file__"):
    del sys.modules["cel.cli"]

MOST_STEPS = 200_000
"""Steps of macros that one evaluation may cost: about 70 ms on a small machine."""

LONGEST_EXPRESSION = 4096

MOST_TOLD = 4
"""Values whose kinds an error names."""

MOST_SEEN, LONGEST_SEEN = 6, 64
"""Values of an event that the record of a decision holds, and characters of each."""

_RECORDED = frozenset({"event", "data"})

TRIGGER_NAMES = frozenset({"event", "data", "http", "job", "trigger", "now"})
"""What a trigger's expressions see; `http` only where the source is one that gets requests."""

JOB_NAMES = frozenset({"event", "data", "job", "trigger", "now"})
"""What a job's templates and expressions see."""

_MEMBERS: Mapping[str, frozenset[str]] = {
    "event": frozenset({"id", "source", "type", "subject", "time", "received_at", "key", "priority", "input"}),
    "trigger": frozenset({"name", "tags"}),
    "job": frozenset({"name", "tags"}),
    "http": frozenset({"method", "headers", "query", "remote", "cloudevent"}),
}
"""What the names hold that hold the same for every event."""

_FROM_OUTSIDE = ("data", "http", "headers", "body")
"""Names whose values others send (`headers` and `body` are those of an answer): their extent bounds an evaluation."""

_TEXT = r"""
    (?:[bB]?[rR]|[rR][bB])(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
    |[bB]?(?:"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
"""
_TEXT_OR_COMMENT = re.compile(rf"(?P<comment>//[^\n]*)|{_TEXT}", re.DOTALL | re.VERBOSE)
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_MACRO_OPEN = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\($")
_FUNCTIONS = frozenset(
    "size contains startsWith endsWith matches int uint double string bytes bool duration timestamp type dyn has "
    "all exists exists_one map filter max min getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear "
    "getHours getMinutes getSeconds getMilliseconds ip_in".split()
)
_OURS: Mapping[str, Callable[..., Any]] = {"ip_in": ip_in}
_IP_IN = re.compile(r"\bip_in\s*\(")
_NETWORKS = re.compile(r'\s*(?:"\d+"|\[\s*"\d+"(?:\s*,\s*"\d+")*\s*,?\s*\])\s*')
_CALL_STEPS = 16
"""Steps of macros that take as long as a call of a function of our own."""
_TEMPLATE = re.compile(rf"\{{\{{((?:(?>{_TEXT})|[^'\"}}]|\}}(?!\}}))*+)\}}\}}", re.DOTALL | re.VERBOSE)
_ASSIGNMENT = re.compile(r"(?<![=!<>])=(?!=)")
_PATH = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\b(?!\()")
_JOINT = re.compile(r"\s*([.(])\s*")
"""What holds a path together, or makes a name a call, with the spaces that may stand around it."""

_PLAIN_PATH = re.compile(r"(?:event|data)(?:\.(?!(?:true|false|null|in)\b)[A-Za-z_]\w*)+")
_AS_IT_IS = frozenset({str, bool, float})
"""Values that CEL gives back as they are; a member that is null is left to it."""

_ABSENT = object()
_MATCHES = re.compile(r"\bmatches\s*\(")
_MATCHES_A_LITERAL = re.compile(r'\.\s*matches\s*\(\s*""\s*\)')
_MATCHED = re.compile(rf"\bmatches\s*\(\s*({_TEXT})\s*\)", re.DOTALL | re.VERBOSE)
_SEARCHED_BYTES = (("+", 512), ("matches(", 512), ("contains(", 16384))
"""What makes or searches texts, and how many bytes of text take it about as long as one step of a macro."""


def _bare(text: str) -> str:
    """Return an expression with its texts emptied and its comments gone: what is left is code."""
    return _TEXT_OR_COMMENT.sub(lambda match: " " if match["comment"] else '""', text)


def _check_networks(text: str) -> None:
    """Raise ExpressionError where a network of `ip_in` is none, or is not written out in the expression."""
    literals: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        if match["comment"]:
            return " "
        literals.append(match[0].strip("\"'"))
        return f'"{len(literals) - 1}"'

    code = _TEXT_OR_COMMENT.sub(numbered, text)
    for call in _IP_IN.finditer(code):
        depth, begins, end = 1, [call.end()], call.end()
        while depth and end < len(code):
            depth += (code[end] in "([{") - (code[end] in ")]}")
            if code[end] == "," and depth == 1:
                begins.append(end + 1)
            end += 1
        networks = code[begins[-1] : end - 1]
        if len(begins) > 2 or not _NETWORKS.fullmatch(networks):
            raise ExpressionError(
                f"`{text}`: the networks of `ip_in` must be written out, as in `ip_in(http.remote, '10.0.0.0/8')` or "
                "`ip_in(http.remote, ['10.0.0.0/8', '192.0.2.1'])`"
            )
        try:
            Networks(literals[int(number)] for number in re.findall(r"\d+", networks))
        except ValueError as error:
            raise ExpressionError(f"`{text}`: {error}") from None


def _measure(bare: str) -> tuple[int, int]:
    """Return how deep macros stand within macros, and how many items the widest list or map has that is written out."""
    deepest = widest = 0
    macros: list[bool] = []
    items: list[int] = []
    for index, character in enumerate(bare):
        if character in "([{":
            macros.append(character == "(" and _MACRO_OPEN.search(bare, 0, index + 1) is not None)
            items.append(0 if character == "(" else 1)
            deepest = max(deepest, sum(macros))
        elif character in ")]}" and macros:
            macros.pop()
            widest = max(widest, items.pop())
        elif character == "," and items and items[-1]:
            items[-1] += 1
    return deepest, widest


def _members_of(name: str, bare: str, bound: set[str]) -> tuple[str, ...] | None:
    """Return the members of a name's value that an expression can reach; None where that may be any of them.

    They are known where each mention of the name is followed by a dot and a member that is not called.
    """
    if name in bound:
        return None
    mentions = len(re.findall(rf"(?<![\w.]){name}(?!\w)", bare))
    members = re.findall(rf"(?<![\w.]){name}\s*\.\s*([A-Za-z_]\w*+)(?!\s*\()", bare)
    return tuple(dict.fromkeys(members)) if len(members) == mentions else None


class Scope:
    """The values that expressions see, converted for CEL once and used by many.

    `names` holds the values by name; instants are aware datetimes.
    """

    __slots__ = ("_context", "_steps", "names")

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = dict(names)
        self._context: cel.Context | None = None
        self._steps: tuple[int, int] | None = None

    def derive(self, **names: Any) -> Scope:
        """Return a scope in which some names have other values."""
        return Scope({**self.names, **names})

    @property
    def context(self) -> cel.Context:
        if self._context is None:
            self._context = cel.Context(variables=self.names)
        return self._context

    def extent(self) -> tuple[int, int]:
        """Return the widest list or object among the values, and their size as JSON in bytes."""
        if self._steps is None:
            values = {name: self.names[name] for name in _FROM_OUTSIDE if name in self.names}
            try:
                self._steps = (survey(values).widest, len(encode_json(values)))
            except InvalidEvent as error:
                raise ExpressionError(str(error)) from None
        return self._steps


class Expression:
    """A compiled CEL expression.

    Raises ExpressionError, with what is wrong and a near miss, for a syntax error, a name that is not among
    `names`, an unknown function, a `matches` whose pattern is not written out, and text of more than 4,096 characters.
    """

    __slots__ = (
        "_members", "_named", "_nesting", "_ours", "_path", "_program", "_searched_bytes", "_written_out", "text",
    )  # fmt: skip

    def __init__(self, text: str, names: Collection[str] = TRIGGER_NAMES) -> None:
        if len(text) > LONGEST_EXPRESSION:
            raise ExpressionError(f"the expression is longer than {LONGEST_EXPRESSION} characters")
        self.text = text
        try:
            self._program = cel.compile(text)
        except ValueError as error:
            raise ExpressionError(_syntax_error(text, str(error))) from None
        bare = _bare(text)
        bound = set(_MACRO.findall(bare))
        for name in self._program.variables():
            if name not in names and name not in bound:
                raise ExpressionError(f"unknown name `{name}`{_near(name, names)}")
        for parts in self._paths().values():
            members = (
                _MEMBERS.get(parts[0], frozenset()) if parts[0] in names and parts[0] not in bound else frozenset()
            )
            if len(parts) > 1 and members and parts[1] not in members:
                wrong = f"unknown name `{parts[0]}.{parts[1]}`"
                if parts[1] in names:
                    raise ExpressionError(f"{wrong}; did you mean `{parts[1]}`?")
                raise ExpressionError(f"{wrong}{_near(parts[1], members)}")
        for name in self._program.functions():
            if name.isidentifier() and name not in _FUNCTIONS:
                raise ExpressionError(f"unknown function `{name}`{_near(name, _FUNCTIONS)}")
        if len(_MATCHES.findall(bare)) != len(_MATCHES_A_LITERAL.findall(bare)):
            raise ExpressionError(
                f"`{text}`: the pattern of `matches` must be written out, as in `data.name.matches('^a')`: "
                "one that is put together from data could take any time"
            )
        for literal in _MATCHED.findall(text):
            if is_large(pattern := str(cel.evaluate(literal))):
                raise ExpressionError(
                    f"`{text}`: the pattern {pattern!r:.80} could take long, as it repeats so much; begin it with `^`, "
                    "and give it an end"
                )
        self._ours = {name: _OURS[name] for name in self._program.functions() if name in _OURS}
        if self._ours:
            _check_networks(text)
        self._path = text.strip().split(".") if _PLAIN_PATH.fullmatch(text.strip()) else None
        self._members = {name: _members_of(name, bare, bound) for name in self._program.variables() if name in names}
        self._nesting, self._written_out = _measure(bare)
        self._named: dict[str, list[str]] | None = None
        packed = "".join(bare.split())
        self._searched_bytes = min((size for sign, size in _SEARCHED_BYTES if sign in packed), default=0)

    def evaluate(self, scope: Scope) -> Any:
        """Return the expression's value; raise ExpressionError, in words, where it has none."""
        if self._path is not None:
            value = _look_up(scope.names, self._path)
            if type(value) in _AS_IT_IS or (type(value) is int and -(2**63) <= value < 2**63):
                return value
        if self._nesting:
            widest, size_bytes = scope.extent()
            widest = max(widest, self._written_out)
            steps = widest**self._nesting * (1 + size_bytes // self._searched_bytes if self._searched_bytes else 1)
            steps *= _CALL_STEPS if self._ours else 1
            if steps > MOST_STEPS:
                raise ExpressionError(
                    f"`{self.text}` could take {steps:,} steps on this data (a list or object of {widest:,}), "
                    f"more than the {MOST_STEPS:,} allowed"
                )
        try:
            return self._program.execute(self._context_of(scope))
        except KeyError as error:
            where = self._lacking(scope, str(error.args[0]) if error.args else "")
            raise ExpressionError(f"`{self.text}`: there is no {error}{where}; has(…) asks whether there is") from None
        except Exception as error:  # whatever the evaluator raises is a fault of expression and data
            said = _first_sentence(str(error))
            if said.startswith("No such overload"):
                said = f"values of kinds that don't go together are compared or combined{self._kinds(scope)}"
            raise ExpressionError(f"`{self.text}`: {said}") from None

    def _context_of(self, scope: Scope) -> cel.Context:
        """Return the values that it names, converted: only those members of an event's data that it can reach.

        To convert a whole event costs many times what most expressions do.
        """
        if self._members.get("data", _ABSENT) is None or not self._members.keys() <= scope.names.keys():
            return cel.Context(variables=scope.names, functions=self._ours) if self._ours else scope.context
        seen: dict[str, Any] = {}
        for name, members in self._members.items():
            value = scope.names[name]
            if members is not None and isinstance(value, Mapping):
                value = {member: value[member] for member in members if member in value}
            seen[name] = value
        return cel.Context(variables=seen, functions=self._ours) if self._ours else cel.Context(variables=seen)

    def _paths(self) -> dict[str, list[str]]:
        """Return the values that it names, such as `data.order.total`, with their parts, in their order."""
        return {path: path.split(".") for path in _PATH.findall(_JOINT.sub(r"\1", _bare(self.text)))}

    def seen(self, scope: Scope) -> dict[str, Any]:
        """Return the values that it names, kept small, for the record: long texts are cut, lists and objects counted.

        What a request brought is left out, as it is not for the store.
        """
        if self._named is None:
            paths = self._paths()
            known = {path: parts for path, parts in paths.items() if parts[0] in _RECORDED and len(parts) > 1}
            self._named = dict(list(known.items())[:MOST_SEEN])
        found = {path: _look_up(scope.names, parts) for path, parts in self._named.items()}
        return {path: small(value) for path, value in found.items() if value is not _ABSENT}

    def _lacking(self, scope: Scope, name: str) -> str:
        """Say in which object a member is missing, where the text names the place."""
        for parts in self._paths().values():
            for index in range(1, len(parts)):
                holder = _look_up(scope.names, parts[:index])
                if parts[index] == name and isinstance(holder, Mapping) and name not in holder:
                    return f" in {'.'.join(parts[:index])}"
        return ""

    def _kinds(self, scope: Scope) -> str:
        """Say of which kind the values are that it names."""
        told = [
            f"{path} is {_kind(value)}"
            for path, parts in self._paths().items()
            if parts[0] in scope.names and (value := _look_up(scope.names, parts)) is not _ABSENT
        ]
        return f": {', '.join(told[:MOST_TOLD])}" if told else " (such as a text with a number)"

    def holds(self, scope: Scope) -> bool:
        """Return the value of an expression that must be true or false."""
        value = self.evaluate(scope)
        if not isinstance(value, bool):
            raise ExpressionError(f"`{self.text}` is {render(value)!r:.80}, neither true nor false")
        return value


class Template:
    """Text with `{{ CEL }}` in it. `parts` alternates literal text and expressions."""

    __slots__ = ("parts", "text")

    def __init__(self, text: str, names: Collection[str] = JOB_NAMES) -> None:
        self.text = text
        self.parts: list[str | Expression] = []
        position = 0
        while (opens := text.find("{{", position)) >= 0:
            match = _TEMPLATE.match(text, opens)
            if match is None:
                raise ExpressionError("`{{` is never closed by `}}`")
            if opens > position:
                self.parts.append(text[position:opens])
            self.parts.append(Expression(match[1].strip(), names))
            position = match.end()
        if position < len(text):
            self.parts.append(text[position:])

    @property
    def constant(self) -> bool:
        """Whether the text holds no expression."""
        return not any(isinstance(part, Expression) for part in self.parts)

    def render(self, scope: Scope) -> str:
        """Return the text with each expression's value in its place; values are never templates themselves."""
        return "".join(render(part.evaluate(scope)) if isinstance(part, Expression) else part for part in self.parts)

    def value(self, scope: Scope) -> Any:
        """Return the value itself where the whole text is one expression, else the rendered text."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Expression):
            return self.parts[0].evaluate(scope)
        return self.render(scope)


def render(value: Any) -> str:
    """Write a CEL value as text: null is empty, instants are RFC 3339, lists and maps are JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float)):
        return repr(value)
    return encode_json(plain(value)).decode()


def plain(value: Any) -> Any:
    """Return a CEL value as a JSON value: instants, durations and bytes as text, the keys of maps too.

    Raises ExpressionError for numbers that JSON hasn't.
    """
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {render(key): plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError(f"{value!r} is no number that JSON has")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return render(value) if isinstance(value, (str, datetime, timedelta, bytes)) else str(value)


def _look_up(names: Mapping[str, Any], parts: Sequence[str]) -> Any:
    """Return the value that a path of members leads to."""
    value: Any = names
    for part in parts:
        # Nearly all are plain dicts, and to ask for that costs a tenth.
        value = value.get(part, _ABSENT) if type(value) is dict or isinstance(value, Mapping) else _ABSENT
    return value


def small(value: Any) -> Any:
    """Return a value as a record keeps it: as JSON, with long texts cut, and lists and objects by their size alone."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_SEEN else f"{value[:LONGEST_SEEN]}…"
    if isinstance(value, (int, float)):
        return value if isinstance(value, int) or math.isfinite(value) else render(value)[:LONGEST_SEEN]
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return None if value is None else render(value)[:LONGEST_SEEN]


def _kind(value: Any) -> str:
    """Say of which of CEL's kinds a value is. Whole numbers and decimal ones are two: `1 + 1.5` has no value."""
    for kinds, said in _KINDS:
        if isinstance(value, kinds):
            return said
    return "null" if value is None else f"a {type(value).__name__}"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a truth value"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a decimal number"),
    (datetime, "an instant"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
)


def _near(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    known = ", ".join(sorted(names)) if len(names) < 12 else ""
    return (f"; did you mean `{close[0]}`?" if close else "") + (f"; known are {known}" if known and not close else "")


def _first_sentence(text: str) -> str:
    return text.split("\n", 1)[0].split(". ", 1)[0][:200]


def _syntax_error(text: str, message: str) -> str:
    hint = "; two values are compared with `==`" if _ASSIGNMENT.search(_bare(text)) else ""
    detail = message.split("Syntax error:", 1)
    if len(detail) == 2:
        message = detail[1].strip().split(" expecting", 1)[0]
    return f"`{text}` is no CEL expression: {_first_sentence(message)}{hint}"
