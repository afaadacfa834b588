"""Which room may import which: lower floors only, no organ another, no circles, and plugins have no private door.

The table is that of the house. Imports for types alone and within functions count too.

`queue` and `lanes` stand among the ground services: they are windows over the store, which decide nothing and which
`dispatch` takes runs from; so does `overlaps`, by which `dispatch` knows what is open, and `gates`, by which it
knows what may start. So no organ needs to know another. So do `marks`, what is known of those in the store, and
`following`, which knows who is on the end of which run, and `causing`, which knows what caused an event.
`foresight` stands beside the configuration: it computes what would happen, and knows no organ.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "errors", "clock", "units", "ids", "logs", "logids", "loglevels", "logsink", "cancellation", "mounts",
            "networks",
        }
    ),
    frozenset(
        {"events", "runs", "jobs", "triggers", "backfills", "waiting", "payload", "members", "cloudevents",
         "previews", "replays", "spans", "deliveries", "tallies", "adherence", "redaction", "defined", "tokens",
         "audits"}
    ),
    frozenset({"plugin", "expressions", "schemas", "decide"}),
    frozenset(
        {"store", "journal", "queue", "lanes", "following", "registry", "metrics", "processes", "runlogs", "runnotes",
         "shared",
         "systemd", "loopwatch", "lease", "overlaps", "gates", "backlog", "marks", "attending", "leftovers", "logcap",
         "logtext", "strays", "causing", "replies", "feed", "traces"}
    ),
    frozenset({"config", "foresight", "hindsight"}),
    frozenset(
        {"aftermath", "intake", "shaping", "timers", "sources", "conditions", "dispatch", "execution", "outcomes",
         "pauses", "backfill", "adaptive", "alerts", "chronicle", "steering", "housekeeping", "http", "web",
         "auditing", "maintenance", "pools", "quarantine", "heartbeats", "failures", "definitions"}
    ),
    frozenset(
        {"operations", "changeover", "settling", "bulk", "queueing", "guards", "measuring", "vitals", "alerting",
         "tracing", "runtime", "embedding", "__init__"}
    ),
    frozenset({"cli", "__main__", "testing"}),
)  # fmt: skip
"""The rooms of `engine`, floor by floor."""

ORGANS = 5
"""On this floor nobody imports a neighbour: runtime hands each what it needs."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

SHARED_BY_PLUGINS = frozenset({"outgoing", "watching", "querying"})
"""Rooms of `plugins` that hold no plugin: all kinds may use them, and they use no kind."""

NAMES_A_PLUGIN_MODULE = re.compile(
    r"plugins\.(timers|sources|runners|conditions|channels|outgoing|watching|querying)\b"
)


def modules_of(package: str) -> dict[str, Path]:
    """Return all modules of a top-level package by their full names."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ENGINE, PLUGINS = modules_of("engine"), modules_of("plugins")


def imports_in(source: str, module: str, known: Mapping[str, Path]) -> Iterator[str]:
    """Return the full names of all modules that a module imports, wherever in it the import stands."""
    is_package = module in known and known[module].name == "__init__.py"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def imports_of(module: str, known: Mapping[str, Path]) -> set[str]:
    return set(imports_in(known[module].read_text(encoding="utf-8"), module, known))


def room_of(module: str) -> str:
    """Return the room of a module of `engine`: the first name after it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def wrong_import(importer: str, imported: str) -> str | None:
    """Say what is wrong with an import within `engine`, or return None."""
    here, there = room_of(importer), room_of(imported)
    if here == there:
        return None
    if FLOOR_OF[there] > FLOOR_OF[here]:
        return f"{importer} (floor {FLOOR_OF[here]}) imports {imported} from above (floor {FLOOR_OF[there]})"
    if FLOOR_OF[here] == FLOOR_OF[there] == ORGANS:
        return f"{importer} imports its neighbour {imported}"
    return None


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or by way of others (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in graph[module]:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def test_every_room_stands_on_one_floor_of_the_table() -> None:
    assert sum(len(rooms) for rooms in FLOORS) == len(FLOOR_OF)
    homeless = {room_of(module) for module in ENGINE} - set(FLOOR_OF)
    assert not homeless, f"say on which floor they stand, here and in the house's table: {homeless}"


@pytest.mark.parametrize("module", ENGINE)
def test_a_module_imports_from_below_and_no_organ_another(module: str) -> None:
    inner = sorted(name for name in imports_of(module, ENGINE) if name.split(".")[0] == "engine")
    assert [wrong for name in inner if (wrong := wrong_import(module, name))] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {**ENGINE, **PLUGINS}
    assert circles({module: imports_of(module, known) & set(known) for module in known}) == []


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_neither_imports_nor_names_its_plugins(module: str) -> None:
    assert [name for name in imports_of(module, ENGINE) if name.split(".")[0] == "plugins"] == []
    tree = ast.parse(ENGINE[module].read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if NAMES_A_PLUGIN_MODULE.search(text)] == []


@pytest.mark.parametrize("module", PLUGINS)
def test_a_plugin_imports_the_plugin_api_alone_of_the_engine(module: str) -> None:
    for name in imports_of(module, {**ENGINE, **PLUGINS}):
        top = name.split(".")[0]
        if top == "engine":
            assert name == "engine.plugin", f"{module} imports {name}"
        if top == "plugins":
            kind, room = module.split(".")[1], name.split(".")[1]
            assert room == kind or room in SHARED_BY_PLUGINS, f"{module} imports {name} of another kind"


@pytest.mark.parametrize("module", [module for module in ENGINE if "." in module and room_of(module) != "testing"])
def test_nothing_that_runs_needs_what_is_for_tests(module: str) -> None:
    tests_alone = {"pytest", "hypothesis", "tests", "_pytest"}
    assert not {name.split(".")[0] for name in imports_of(module, ENGINE)} & tests_alone


def test_the_plugin_api_can_be_imported_without_the_rest_of_the_engine() -> None:
    above = [room for floor in FLOORS[3:] for room in floor if not room.startswith("__")]
    program = (
        "import sys, engine.plugin\n"
        f"print(*[name for name in sys.modules if name.split('.')[:1] == ['engine'] and name.split('.')[1:2] "
        f"and name.split('.')[1] in {above!r}])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


# What the tests above can see


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import engine.clock", "engine.runs", {"engine.clock"}),
        ("import json, engine.clock as c", "engine.runs", {"json", "engine.clock"}),
        ("from engine import clock, nothing", "engine.runs", {"engine.clock", "engine"}),
        ("from engine.store import base", "engine.journal", {"engine.store.base"}),
        ("from engine.store.base import Store", "engine.journal", {"engine.store.base"}),
        ("from . import base", "engine.store.rows", {"engine.store.base"}),
        ("from .base import Store", "engine.store.rows", {"engine.store.base"}),
        ("from .. import clock", "engine.store.rows", {"engine.clock"}),
        ("from ..clock import Clock", "engine.store.rows", {"engine.clock"}),
        ("from .settings import Secret", "engine.plugin", {"engine.plugin.settings"}),
        ("def f():\n  import engine.runtime", "engine.runs", {"engine.runtime"}),
        ("if TYPE_CHECKING:\n  from engine.runtime import Engine", "engine.runs", {"engine.runtime"}),
        ("try:\n  import a\nexcept ImportError:\n  import b.c", "engine.runs", {"a", "b.c"}),
    ],
)
def test_all_forms_of_import_are_seen(source: str, module: str, expected: set[str]) -> None:
    assert set(imports_in(source, module, ENGINE)) == expected


@pytest.mark.parametrize(
    ("importer", "imported", "wrong"),
    [
        ("engine.dispatch", "engine.intake", True),
        ("engine.http.server", "engine.dispatch", True),
        ("engine.http.server", "engine.http.routes", False),
        ("engine.store.base", "engine.journal", False),
        ("engine.store.base", "engine.config", True),
        ("engine.clock", "engine.testing.clock", True),
        ("engine.intake", "engine", True),
        ("engine.cli.app", "engine.runtime", False),
        ("engine.expressions", "engine.payload", False),
        ("engine.events", "engine.expressions", True),
    ],
)
def test_an_import_from_above_or_beside_is_noticed(importer: str, imported: str, wrong: bool) -> None:
    assert (wrong_import(importer, imported) is not None) == wrong


def test_circles_are_noticed_however_long() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}, "f": {"d"}}
    assert circles(graph) == [["a", "b", "c"], ["e"]]
