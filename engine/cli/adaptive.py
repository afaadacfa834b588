"""The command about adapted intervals."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session
from engine.units import format_span

_SPANS = frozenset({"duration_s"})


@asks("adaptive sync", "adaptive sync --freeze --reason 'the load test of today'")
def adaptive(
    session: Session,
    name: Annotated[str, typer.Argument(help="The trigger.", autocompletion=completing.triggers)],
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the interval as it is.")] = False,
    unfreeze: Annotated[bool, typer.Option("--unfreeze", help="Let it be adapted again.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the configured interval.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded.")] = None,
) -> None:
    """Show how a trigger's interval is adapted, and why; or freeze, unfreeze or reset it."""
    given = {"freeze": freeze, "unfreeze": unfreeze, "reset": reset}
    actions = [action for action, wanted in given.items() if wanted]
    if len(actions) > 1:
        raise CommandFailed(f"--{actions[0]} and --{actions[1]} are two things: ask for one after the other", USAGE)
    if reason is not None and not actions:
        raise CommandFailed("--reason is for --freeze, --unfreeze and --reset", USAGE)
    client = session.client()
    if actions:
        body = {"action": actions[0]} if reason is None else {"action": actions[0], "reason": reason}
        found = client.post("triggers", name, "adaptive", body=body)
    else:
        found = client.get("triggers", name, "adaptive")
    if session.json:
        say_json(found)
    else:
        _say(name, found)


def _say(name: str, found: dict[str, Any]) -> None:
    bounds = f"{format_span(found['min_s'])} to {format_span(found['max_s'])}"
    say(
        f"Trigger {name}: every {format_span(found['interval_s'])}, configured {format_span(found['base_s'])}, {bounds}"
    )
    if found["in_force_s"] != found["interval_s"]:
        say(f"  its source looks every {format_span(found['in_force_s'])}, as another trigger on it wants that")
    if found["mode"] == "shadow":
        say("  shadow: it is only said what would be done")
    if found["frozen"] is not None:
        frozen = found["frozen"]
        say(f"  frozen since {local(frozen['since'])}{frozen['reason'] and ': '}{frozen['reason']}")
    say(f"  {found['why']}")
    inputs = {key: value for key, value in found["inputs"].items() if key != "runs"}
    runs = found["inputs"]["runs"]
    say(f"  seen since the last change, in {runs} {'run' if runs == 1 else 'runs'}:")
    for key, value in inputs.items():
        seen = "nothing yet" if value["value"] is None else _shown(key, value["value"])
        word = "target" if key == "volume" else "at least" if key == "success_rate" else "at most"
        say(f"    {key.removesuffix('_s'):14} {seen}, {word} {_shown(key, value['limit'])}")
    if found["changes"]:
        rows = [
            [local(one["at"]), format_span(one["old_s"]), format_span(one["new_s"]), one["rule"], one["reason"]]
            for one in reversed(found["changes"])
        ]
        say_table(("at", "from", "to", "rule", "reason"), rows)


def _shown(key: str, value: float) -> str:
    return format_span(value) if key in _SPANS else f"{value:.4g}"
