"""The tree of commands as a whole: each has help, examples that are right, and `--json`; and names are completed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from engine.cli import completing
from engine.cli.app import app
from engine.cli.options import SHARED
from engine.cli.program import NAME, version
from tests.fake_operations import TOKEN
from tests.test_cli import Running, call, here, running

__all__ = ["here", "running"]

TREE: Any = typer.main.get_command(app)

SILENT = {"serve"}
"""Prints no answer: it runs until it is told to stop."""


def commands(group: Any = TREE, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command, and every group that does something itself, by its whole name."""
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None or command.invoke_without_command:
            yield " ".join((*path, name)), command
        if inner is not None:
            yield from commands(command, (*path, name))


COMMANDS = dict(commands())


def is_group(command: Any) -> bool:
    return hasattr(command, "commands")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_examples_that_are_its_own(name: str) -> None:
    command = COMMANDS[name]
    result = call(*name.split(), "--help")
    assert result.exit_code == 0
    assert command.help, f"{name} says nothing of what it does"
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} says nothing of {parameter.opts}"
    if is_group(command):
        return
    assert "Examples:" in result.output
    assert command.examples, f"{name} has no example"
    for example in command.examples:
        assert example == name or example.startswith(f"{name} "), f"this is no example of {name}: {example}"
        assert f" {example}\n" in result.output, "examples stand on one line each, to be copied"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_is_to_be_given_as_manuals_do(name: str) -> None:
    usage, *lines = call(*name.split(), "--help").output.splitlines()
    output = "\n".join(lines)
    assert "{" not in usage
    assert "[[" not in usage
    for words in ("<str>", "<int>", "list["):
        assert words not in output, f"{words} is Python's word for it"


@pytest.mark.parametrize("group", ["", "token", "maintenance", "alert", "import"])
def test_lists_of_commands_tell_whole_sentences(group: str) -> None:
    _, *lines = call(*group.split(), "--help").output.splitlines()
    assert not [line for line in lines if line.endswith("...")]


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, example) for name, command in COMMANDS.items() for example in getattr(command, "examples", ())],
)
def test_each_example_is_understood(name: str, example: str) -> None:
    words = shlex.split(example)
    for sign in (">", "<", "|"):
        words = words[: words.index(sign)] if sign in words else words
    context = TREE.make_context(NAME, [])
    command, left = TREE, words
    while is_group(command):
        found, inner, left = command.resolve_command(context, left)
        assert inner is not None, f"there is no {found}"
        command, context = inner, inner.make_context(found, list(left), parent=context)
        if is_group(command):
            left = list(context._protected_args) if hasattr(context, "_protected_args") else []
            left += context.args
    assert command is COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_options_that_all_share(name: str) -> None:
    shared = {parameter.name for parameter in COMMANDS[name].params} & SHARED
    if name not in SILENT:
        assert "as_json" in shared, f"{name} prints, and can't print JSON"
    engine = {"url", "token", "profile"}
    assert shared >= engine or not shared & engine, f"{name} lacks {engine - shared}: they stand together"
    assert "config" in shared or not shared & engine, "where no engine is named, the configuration tells"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_ends_with_2_on_an_option_that_it_does_not_know(here: Path, name: str) -> None:
    result = call(*name.split(), "--no-such-option")
    assert result.exit_code == 2
    assert "--no-such-option" in result.output
    assert "Traceback" not in result.output


def test_the_version_and_short_help_are_told(here: Path) -> None:
    assert call("--version").output == f"{NAME} {version()}\n"
    assert call("-h").output == call("--help").output
    assert call("maintenance", "add", "-h").exit_code == 0


def complete(*words: str, **environment: str) -> list[str]:
    """Return what bash is offered for the last word, by the program itself."""
    typed = " ".join([NAME, *map(shlex.quote, words[:-1]), words[-1]])
    result = subprocess.run(
        [sys.executable, "-m", "engine"], capture_output=True, text=True, timeout=50, check=False,
        env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parent.parent),
             "_TRIGGER_ENGINE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words))},
    )  # fmt: skip
    assert result.stderr == ""
    return result.stdout.split()


def test_commands_options_and_the_names_that_the_engine_knows_are_completed(running: Running) -> None:
    assert {"pause", "plan", "plugins", "pools", "presets", "preview", "priority"} == set(complete("p"))
    assert "--profile" in complete("runs", "--p")
    known = ("--url", running.url, "--token", TOKEN)
    assert complete("fire", *known, "nig") == ["nightly"]
    assert complete(*known, "pause", "nig") == ["nightly"]
    assert complete("runs", "--state", "fail") == ["failed"]


@pytest.mark.parametrize(
    "arguments",
    [("--url", "http://127.0.0.1:1", "--token", "x"), ("--url", "nonsense", "--token", "x"), ("--profile", "none"), ()],
)
def test_where_nothing_can_be_asked_nothing_is_offered_and_nothing_said(here: Path, arguments: tuple[str, ...]) -> None:
    assert complete("fire", *arguments, "") == []


def test_a_wrong_token_offers_nothing(running: Running) -> None:
    assert complete("fire", "--url", running.url, "--token", "wrong", "") == []


def test_what_is_offered_can_not_be_evaluated_by_a_shell() -> None:
    found = [
        ("nightly", "every night: `rm -rf ~` $(id) \"'\\ \x1b[31m\n;|&"), ("$(id)", ""), ("a b", ""), ("-rf", ""),
        ("a;id", ""), ("a`id`", ""), ("a\nb", ""), ("*", ""), ("", ""), ("orders/eu.west-1", "x" * 500),
    ]  # fmt: skip
    offered = dict(completing._harmless(found))
    assert list(offered) == ["nightly", "orders/eu.west-1"]
    assert offered["nightly"] == "every night rm -rf id 31m"
    assert len(offered["orders/eu.west-1"]) == completing.MOST_ABOUT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(here: Path, shell: str) -> None:
    result = call("completion", shell)
    assert (result.exit_code, "_TRIGGER_ENGINE_COMPLETE" in result.output) == (0, True)
    assert NAME in result.output
    assert call("completion", "tcsh").exit_code == 2
    if shell == "zsh":
        assert result.output.startswith("#compdef trigger-engine\n")
        assert "loadautofunc ]]; then _trigger_engine_completion" in result.output
    if shell == "bash":
        script = f"{result.output}\ncomplete -p {NAME}"
        told = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, timeout=20)
        assert f"-F _trigger_engine_completion {NAME}" in told.stdout
