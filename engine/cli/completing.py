"""Completing what is typed in a shell: the names that the engine knows, asked for within a short time, or nothing."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.cli.session import Session

TIMEOUT_S = 1.0
"""So long the engine may take: who presses Tab does not wait for one that is away."""

MOST = 500
"""So many names are asked for; a run's id is completed from the latest."""

MOST_ABOUT = 60
"""What is said of a name has so many characters at most."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]*", re.ASCII)
_NO_WORD = re.compile(r"[^A-Za-z0-9 .,_/-]+", re.ASCII)

Completer = Callable[[Any], list[tuple[str, str]]]


def profiles(ctx: Any) -> list[tuple[str, str]]:
    """Complete the name of a profile."""
    from engine.cli.profiles import profiles_file, read_profiles

    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        return list(_harmless((name, one.url) for name, one in read_profiles(profiles_file(os.environ)).items()))
    return []


def _asking(what: str, name: str, about: str, **query: Any) -> Completer:
    def complete(ctx: Any) -> list[tuple[str, str]]:
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            items = _session_of(ctx).client().briefly(TIMEOUT_S).get(what, **query)["items"]
            return list(_harmless((str(one[name]), str(one.get(about) or "")) for one in items))
        return []

    return complete


def _harmless(found: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Leave out what is no plain name, and all but words of what is said of it: a shell may evaluate both."""
    for name, about in found:
        if _PLAIN.fullmatch(name):
            yield name, " ".join(_NO_WORD.sub(" ", about).split())[:MOST_ABOUT]


def _session_of(ctx: Any) -> Session:
    """Return the session of the options that are typed already, those before the command's name too."""
    from engine.cli.session import Session

    outer = Session() if ctx.parent is None else _session_of(ctx.parent)
    given = ctx.params
    return Session(
        config=tuple(given.get("config") or ()) or outer.config,
        url=given.get("url") or outer.url,
        token=given.get("token") or outer.token,
        profile=given.get("profile") or outer.profile,
    )


triggers = _asking("triggers", "name", "description", limit=MOST)
jobs = _asking("jobs", "name", "description", limit=MOST)
conditions = _asking("conditions", "name", "state")
pools = _asking("pools", "name", "limit")
windows = _asking("maintenance", "name", "when")
sources = _asking("sources", "name", "title", limit=MOST)
tokens = _asking("tokens", "name", "description")
alerts = _asking("alerts", "name", "when")
runs = _asking("runs", "id", "job", limit=50)
events = _asking("events", "id", "type", limit=50)


def triggers_or_jobs(ctx: Any) -> list[tuple[str, str]]:
    """Complete the name of a trigger, or of a job where `--job` says so."""
    return jobs(ctx) if ctx.params.get("job") else triggers(ctx)


def states(ctx: Any) -> list[tuple[str, str]]:
    """Complete the state of a run."""
    from engine.runs import RunState

    return [(state.value, "") for state in RunState]
