"""What the console says when the engine runs: what listens where, what comes next, and what to try."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.cli.maintaining import sentences as sentences_of_windows
from engine.cli.output import local, say_lines
from engine.cli.pausing import sentences
from engine.clock import rfc3339
from engine.http.views import pause_view, title_of
from engine.plugin import Source, Whereabouts
from engine.triggers import Trigger

if TYPE_CHECKING:
    from engine.runtime import Runtime

log = logging.getLogger("engine.cli")

MOST_LINES = 12
"""Of each kind; a large configuration is not told whole."""

_INDENT = "  "


def welcome(runtime: Runtime, config_files: Sequence[str]) -> None:
    """Say it on standard output; the token's place on a terminal alone."""
    here = _whereabouts(runtime, config_files)
    triggers = [trigger for trigger in runtime.config.triggers.values() if trigger.enabled]
    lines = ["", f"The engine runs (process {os.getpid()})."]
    lines += _listening(triggers, here, runtime.config.secrets)
    lines += _next(runtime, triggers)
    lines += _paused(runtime)
    lines += _maintained(runtime)
    lines += _guarded(runtime)
    lines += _to_try(triggers, here)
    lines += ["", "Ctrl-C stops: running work gets time to end, and what waits is there at the next start."]
    if sys.stdout.isatty():
        token = here.path(runtime.config.engine.data / "admin.token")
        lines.append(f"The admin token, for the page and the API, is in {token}; the command line finds it by itself.")
    try:
        say_lines("\n".join([*lines, ""]))
        sys.stdout.flush()
    except OSError as error:  # who read it is gone; the engine runs all the same
        log.warning("The console can't be written to: %s", error, extra={"action": "console_failed"})


def _whereabouts(runtime: Runtime, config_files: Sequence[str]) -> Whereabouts:
    python, near = Path(sys.executable), Path.cwd()
    shown = python.relative_to(near) if python.is_relative_to(near) else python
    options = "".join(f" --config {shlex.quote(file)}" for file in config_files)
    url = None if runtime.server is None else runtime.server.url
    command = f"{shlex.quote(str(shown))} -m engine{options}"
    return Whereabouts(trigger="", base=runtime.config.base, command=command, url=url)


def _listening(triggers: Sequence[Trigger], here: Whereabouts, secrets: Collection[str]) -> list[str]:
    lines = [] if here.url is None else [f"{_INDENT}{here.url} for the page, the API, webhooks and probes"]
    titles: dict[str, str] = {}
    by_source: dict[str, dict[str, None]] = {}
    for trigger in triggers:
        for source, on in trigger.works_on:
            if isinstance(on, Source):
                titles.setdefault(source, title_of(on, here.base, secrets))
                by_source.setdefault(source, {})[trigger.name] = None
    rows = [(titles[source], f"for {', '.join(names)}") for source, names in by_source.items()]
    lines += _columns(rows)
    return ["", "It listens to", *lines] if lines else []


def _next(runtime: Runtime, triggers: Sequence[Trigger]) -> list[str]:
    if runtime.operations is None:
        return []
    due = [(runtime.operations.next_at(trigger.name), trigger.name) for trigger in triggers]
    rows = [(name, local(rfc3339(at)) or "") for at, name in sorted((at, name) for at, name in due if at is not None)]
    lines = ["", "By the clock it runs next", *_columns(rows)] if rows else []
    ends = [(trigger.name, runtime.operations.why_completed(trigger.name)) for trigger in triggers]
    over = [(name, said) for name, said in ends if said is not None]
    return [*lines, "", "By the clock it does not run again", *_columns(over)] if over else lines


def _paused(runtime: Runtime) -> list[str]:
    """Say what is paused: nobody should have to find out why nothing runs."""
    if runtime.operations is None:
        return []
    pauses = runtime.operations.pauses()
    held = sorted({name for pause in pauses for name in runtime.operations.held_by(pause)})
    if not pauses:
        return []
    count = "1 trigger is" if len(held) == 1 else f"{len(held)} triggers are"
    names = f": {', '.join(held[:MOST_LINES])}{' …' if len(held) > MOST_LINES else ''}" if held else ""
    said = [line[:1].upper() + line[1:] for line in sentences(map(pause_view, pauses))]
    more = [f"{_INDENT}and {len(said) - MOST_LINES} more: see `triggers`"] if len(said) > MOST_LINES else []
    return ["", f"{count} paused{names}", *(f"{_INDENT}{line}" for line in said[:MOST_LINES]), *more]


def _maintained(runtime: Runtime) -> list[str]:
    """Say which maintenance windows are open."""
    if runtime.operations is None:
        return []
    views = runtime.operations.maintenance.open_views()
    said = [f"{_INDENT}{line[:1].upper()}{line[1:]}" for line in sentences_of_windows(views)]
    return ["", "Runs wait for", *said[:MOST_LINES]] if said else []


def _guarded(runtime: Runtime) -> list[str]:
    """Say what is in quarantine, and where events are missing."""
    if runtime.operations is None:
        return []
    found = [check["detail"] for check in runtime.operations.guards.checks() if not check["ok"]]
    return ["", "Needs somebody", *(f"{_INDENT}{said[:1].upper()}{said[1:]}" for said in found)] if found else []


def _to_try(triggers: Sequence[Trigger], here: Whereabouts) -> list[str]:
    tried: dict[str, str] = {}
    for trigger in triggers:
        for source, on in trigger.feeds:
            line = None
            if isinstance(on, Source):
                try:
                    line = on.try_it(replace(here, trigger=trigger.name))
                except Exception:  # plugin code
                    log.exception("%s: try_it failed", on.name, extra={"action": "try_it_failed"})
            if line and source not in tried:
                tried[source] = line
    lines = [*tried.values()][:MOST_LINES]
    lines += [f"{here.command} {command}" for command in ("runs", "triggers", "why RUN", "--help")]
    return ["", "Try, in a second terminal and in this directory", *(f"{_INDENT}{line}" for line in lines)]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in rows), default=0)
    lines = [f"{_INDENT}{left:{width}}  {right}" for left, right in rows[:MOST_LINES]]
    if len(rows) > MOST_LINES:
        lines.append(f"{_INDENT}and {len(rows) - MOST_LINES} more: see `triggers`")
    return lines
