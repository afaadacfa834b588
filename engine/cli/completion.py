"""The command `completion`: what a shell has to read to complete what is typed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from engine.cli.options import sharing
from engine.cli.output import say_json
from engine.cli.program import NAME
from engine.cli.session import Session

VARIABLE = f"_{NAME.replace('-', '_')}_COMPLETE".upper()
"""By this variable the shell asks; typer answers."""


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@sharing(
    ("as_json",),
    "completion bash > ~/.local/share/bash-completion/completions/trigger-engine",
    "completion zsh > ~/.zfunc/_trigger-engine",
    "completion fish > ~/.config/fish/completions/trigger-engine.fish",
)
def completion(
    session: Session, shell: Annotated[Shell, typer.Argument(help="Which one it is for: bash, zsh or fish.")]
) -> None:
    """Print the completion for a shell: of commands, options, and the names that the engine knows."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=NAME, complete_var=VARIABLE, shell=shell.value)
    if shell is Shell.ZSH:
        # In a folder of fpath the file is a function, which zsh reads when it is first asked to complete: it does so.
        head, _, register = script.rpartition("\n")
        called = f'{register.split()[1]} "$@"'
        script = f"{head}\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then {called}; else {register}; fi"
    if session.json:
        say_json({"shell": shell.value, "script": script})
    else:
        print(script)
