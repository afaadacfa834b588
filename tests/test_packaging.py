"""What is installed: entry points, dependencies, metadata. `.ci/run` builds and installs the packages themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import plugins
from engine.plugin import Plugin
from engine.registry import Registry
from tests.docs_tables import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NEEDED_BUT_NOT_IMPORTED = {"tzdata"}
IMPORTED_BY_THE_TEST_KIT = {"pytest"}
OF_EXTRAS = {"opentelemetry"}
"""Modules of distributions that only extras need, imported where they are configured."""


def test_every_builtin_plugin_is_announced_and_can_be_loaded() -> None:
    found: set[str] = set()
    for module in pkgutil.walk_packages(plugins.__path__, "plugins."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Plugin) and value.__module__ == module.name:
                found.add(f"{value.__module__}:{value.__qualname__}")
    announced = PROJECT["project"]["entry-points"]["engine.plugins"]
    assert set(announced.values()) == found
    assert not [entry for entry in Registry.discover().plugins() if entry.error is not None]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    modules: set[str] = set()
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    modules.update(alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module.partition(".")[0])
    foreign = modules - sys.stdlib_module_names - OF_EXTRAS - {"engine", "plugins"}
    distributions = packages_distributions()
    imported = {_normal(distributions[module][0]) for module in foreign}
    declared = {_normal(re.split(r"[<>=!~\[; ]", text)[0]) for text in PROJECT["project"]["dependencies"]}
    assert imported - IMPORTED_BY_THE_TEST_KIT == declared - NEEDED_BUT_NOT_IMPORTED


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"Python {oldest} or newer" in (ROOT / "README.md").read_text("utf-8")


def test_ci_runs_the_commands_of_the_readme_and_not_copies_of_them() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text("utf-8")
    assert 'readme_line "Run all the tests:"' in text
    assert "pytest" not in text


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
