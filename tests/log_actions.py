"""Every record that the engine and its plugins log, found by reading the code: action, level, part and sentence."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parent.parent
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
_LOGGERS = frozenset({"log", "_log", "logger", "logging"})

RUN_LOG = frozenset({"plugins/runners/python/worker.py", "plugins/runners/python/calling.py"})
"""What these log is the log of a run, read by who wrote the function: no record of the engine's."""


CHOSEN: dict[str, tuple[str | None, ...]] = {
    "engine/auditing.py": ("audit_done", "audit_failed", "audit_refused"),
    "engine/http/doorlog.py": ("http_crowded", "http_crowded_client", "http_rate_limited", "http_token_guessing",
                               "http_wrong_token"),
    "engine/loopwatch.py": ("loop_blocked", "loop_stuck"),
    "plugins/sources/trigger_dir/inbox.py": ("directory_unreadable", "file_odd", "file_stuck", "file_unreadable",
                                             "store_unavailable", "watch_broken"),
    "plugins/sources/files/lookout.py": ("claim_again", "directories_again", "directory_again", "watch_again"),
}  # fmt: skip
"""Where a call is told its action by who calls: which there are."""


class Logged(Struct, frozen=True, kw_only=True, order=True):
    """One call that logs. `action` is None where none is given; `level` is `error` for what comes with a traceback."""

    action: str | None
    level: str
    part: str
    sentence: str
    place: str


def logged() -> list[Logged]:
    """Return all calls that log."""
    found: list[Logged] = []
    for root in ("engine", "plugins"):
        for file in sorted((ROOT / root).rglob("*.py")):
            place = str(file.relative_to(ROOT))
            if place not in RUN_LOG:
                tree = ast.parse(file.read_text("utf-8"))
                found += _in(tree, _part(tree, place), place)
    return found


def _part(tree: ast.AST, place: str) -> str:
    """Return the name of a module's logger: that of `logging.getLogger("…")`, or its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger" and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                return argument.value
    module = place.removesuffix(".py").replace("/", ".")
    return "plugins" if module.startswith("plugins.") else ".".join(module.split(".")[:2])


def _in(tree: ast.AST, part: str, place: str) -> Iterator[Logged]:
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        given = {
            target.id: ast.unparse(node.value)
            for node in ast.walk(function) if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if ast.unparse(node.func.value).rpartition(".")[2] not in _LOGGERS or not node.args:
                continue
            extra = next((ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "extra"), "")
            arguments = node.args[1:] if node.func.attr == "log" else node.args
            sentence = arguments[0].value if isinstance(arguments[0], ast.Constant) else ""
            level = {"exception": "error", "log": "varies"}.get(node.func.attr, node.func.attr)
            found = _actions(given.get(extra, extra), given) or [None]
            for action in CHOSEN.get(place, (None,)) if found in (["*"], [None]) else found:
                yield Logged(
                    action=action, level=level, part=part, sentence=str(sentence), place=f"{place}:{node.lineno}"
                )


def _actions(extra: str, given: dict[str, str]) -> list[str | None]:
    """Return what an `extra` gives as the action; of a name, what that stands for."""
    if not extra:
        return []
    for node in ast.walk(ast.parse(extra, mode="eval")):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "action":
                    text = given.get(value.id, "") if isinstance(value, ast.Name) else ast.unparse(value)
                    source = ast.parse(text, mode="eval") if text else value
                    said = [one.value for one in ast.walk(source) if isinstance(one, ast.Constant)]
                    named: list[str | None] = [one for one in said if isinstance(one, str)]
                    is_made = any(isinstance(one, ast.JoinedStr) for one in ast.walk(source))
                    return named if named and not is_made else ["*"]
    return []


def actions_table() -> str:
    """Return the table of docs/logs.md."""
    lines = ["| action | level | part | says |", "|---|---|---|---|"]
    rows = sorted({
        (one.action or "", one.level, one.part, one.sentence.replace("|", "\\|")) for one in logged()
    })  # fmt: skip
    lines += [f"| `{action}` | {level} | `{part}` | {sentence or '…'} |" for action, level, part, sentence in rows]
    return "\n".join(lines) + "\n"
