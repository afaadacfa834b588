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


class Command(TyperCommand):
    """A command whose help ends with its examples."""

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


class Commands(TyperGroup):
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
        super().__init__(**{"rich_markup_mode": None, "add_completion": False, **options})

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
