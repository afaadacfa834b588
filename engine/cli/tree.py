"""The tree of commands: what is the same for all of them, their help and how they fail."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from engine.cli.failures import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE, CommandFailed
from engine.cli.output import say, say_lines
from engine.errors import ConfigError, EngineError

Function = TypeVar("Function", bound=Callable[..., Any])


LONGEST_SHORT_HELP = 200
"""Of a command in the list of all: its first sentence, which is wrapped and not cut off."""


class Command(TyperCommand):
    """A command whose help ends with its examples."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:  # named as manuals have it, and not by Python's types
            if parameter.metavar is None and parameter.param_type_name == "argument":
                name = parameter.name.upper()
                parameter.metavar = name if parameter.required else f"[{name}]"
            elif parameter.metavar is None:
                taken = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
                parameter.metavar = "NUMBER" if taken is int else "TEXT" if taken in (str, list[str]) else None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in its usage."""
        arguments = [str(one.metavar) for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what it takes, arguments first."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                rows["Arguments"].append((str(parameter.metavar), record[1]))
            else:
                rows["Options"].append(record)
        for title, found in rows.items():
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return its first sentence, whole."""
        return super().get_short_help_str(LONGEST_SHORT_HELP)

    @property
    def examples(self) -> tuple[str, ...]:
        """Its examples, without the program's name."""
        return getattr(self.callback, "examples", ())

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each on a line of its own, to be copied."""
        if self.examples:
            program = ctx.find_root().info_name
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{program} {example}\n")


class Group(TyperGroup):
    """Commands that belong together."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return its first sentence, whole."""
        return super().get_short_help_str(LONGEST_SHORT_HELP)


class Commands(Group):
    """Turns errors into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            found = super().invoke(ctx)
            if sys.stdout is not None:  # flushed here, where what goes wrong is no complaint at the exit
                sys.stdout.flush()
        except ConfigError as error:
            say_lines("\n".join(str(problem) for problem in error.problems), error=True)
            raise typer.Exit(USAGE) from None
        except CommandFailed as error:
            say_lines(str(error), error=True)
            raise typer.Exit(error.code) from None
        except EngineError as error:
            say_lines(str(error), error=True)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(PIPE_CLOSED) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _drop_output()
            say("what is printed can't be written: no space is left there", error=True)
            raise typer.Exit(FAILED) from None
        else:
            return found


class Tree(typer.Typer):
    """Commands, or a group of them, with plain help that tells examples."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"cls": Group, "rich_markup_mode": None, "add_completion": False, **options})

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Add a command, as typer does."""
        return super().command(name, **{"cls": Command, **options})


def _drop_output() -> None:
    """Send what is still to be written nowhere: who read it is gone."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no file of its own, as in a test
        return
