"""The stable codes of outcomes and of run steps, found by reading the code that gives them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MADE_IN = (
    "engine/*.py",
    "engine/backfill/*.py",
    "engine/conditions/*.py",
    "engine/decide/*.py",
    "engine/dispatch/*.py",
    "engine/embedding/*.py",
    "engine/hindsight/*.py",
    "engine/intake/*.py",
    "engine/maintenance/*.py",
    "engine/store/*.py",
    "engine/timers/*.py",
    "engine/plugin/*.py",
    "plugins/**/*.py",
)
"""Where outcomes and steps are made. The codes of HTTP problems, in engine/http, are others."""

_FIRST_ARGUMENT = frozenset({"failed", "CannotStart"})


def codes_in_code() -> set[str]:
    """Return all codes; one that is put together holds `*` for the part that varies."""
    trees = [ast.parse(file.read_text("utf-8")) for pattern in MADE_IN for file in ROOT.glob(pattern)]
    named = {name: text for tree in trees for name, text in _constants(tree)}
    found: set[str] = set()
    for tree in trees:
        # What a module calls so itself comes first: others may use the same name for another code.
        known = {**named, **dict(_constants(tree))}
        for node in ast.walk(tree):
            for value in _code_values(node):
                given = ast.Constant(known[value.id]) if isinstance(value, ast.Name) and value.id in known else value
                found.update(_texts(given))
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the module's constants that are text."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from ((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))


def _code_values(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions whose value is a code."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in _FIRST_ARGUMENT and node.args:
            yield node.args[0]
        if name == "_dropped":
            yield node.args[2]
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _assigned(target, node.value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == "code":
        yield value
    elif isinstance(target, ast.Tuple):
        values = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        for one in values:
            if isinstance(one, ast.Tuple) and not any(isinstance(part, ast.Starred) for part in one.elts):
                for part, given in zip(target.elts, one.elts, strict=True):
                    yield from _assigned(part, given)


def _texts(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body)
        yield from _texts(value.orelse)
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in value.values)
