"""The command `preview`: what a source would emit if it looked now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.options import asks
from engine.cli.output import say, say_json
from engine.cli.session import Session
from engine.payload import encode_json


@asks("preview orders", "preview orders --cursor beginning --limit 5")
def preview(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The source, by its id or name.", autocompletion=completing.sources)
    ],
    cursor: Annotated[
        str | None,
        typer.Option(help="From here, not from where it stands: a value of the cursor's column, beginning or now."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="So many events at most.")] = 20,
) -> None:
    """Have a source look once, and show what it would emit. Nothing is stored, run or moved."""
    asked: dict[str, Any] = {"limit": limit}
    if cursor is not None:
        asked["cursor"] = _value(cursor)
    view = session.client().post("sources", name, "preview", body=asked)
    if session.json:
        say_json(view)
        return
    for one in view["events"]:
        say(f"{one['type']}  {one['subject'] or ''}  {encode_json(one['data']).decode()}")
        if one["refused"]:
            say(f"  would be refused: {one['refused']}")
        elif one["duplicate"]:
            say("  came before, and would not be stored again")
    shown = len(view["events"])
    fresh = sum(not one["duplicate"] and not one["refused"] for one in view["events"])
    what = f"{fresh} event{'' if fresh == 1 else 's'} would be new"
    say(f"{what}, of {shown} shown{', and there are more' if view['more'] else ''}; nothing was changed")


def _value(text: str) -> int | float | str:
    """Return a number where the text is one as JSON has it, as columns of numbers are compared by number."""
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        # What would look different is text, such as 007 or 1e3.
        if str(number) == text:
            return number
    return text
