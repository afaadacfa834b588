"""Gates: what a run is asked for when its turn has come, and the four answers that a gate gives.

A gate (a condition, a maintenance window) is asked about a run that could start now. It answers at once, from what it
knows, and says what it saw: so the trace of a run can tell why it started, waited or was skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from engine.decide.rules import Rule
from engine.runs import Run, RunState


class Pass(Struct, frozen=True, kw_only=True):
    """The run may start; `seen` says what the gate saw, empty where it had nothing to say."""

    seen: str = ""


class Later(Struct, frozen=True, kw_only=True):
    """The gate does not know yet, is finding out, and tells of it within moments."""


class Hold(Struct, frozen=True, kw_only=True):
    """The run is held: it gets no slot, and is in nobody's way.

    It is asked again when the gate tells of a change, and at `until` (None: at no time), also after a restart.
    """

    code: str
    reason: str
    until: datetime | None = None


class Skip(Struct, frozen=True, kw_only=True):
    """The run ends without being started; `state` is `expired` for one that has waited for as long as it may."""

    code: str
    reason: str
    state: RunState = RunState.SKIPPED


Verdict = Pass | Later | Hold | Skip

PASS = Pass()
LATER = Later()


class Gate(Protocol):
    """Something that is asked before a run starts. It answers from memory: nothing here waits."""

    def concerns(self, rule: Rule) -> bool:
        """Tell, cheaply, whether runs of a trigger are to be shown to it at all."""
        ...

    def look(self, run: Run, rule: Rule) -> Verdict:
        """Decide whether a run may start now.

        The run is about to get a slot, or held already: then its trace tells since when, and by whom.
        """
        ...


def decided(verdicts: Iterable[Verdict]) -> Verdict:
    """Return what several gates say together: the first that ends or holds a run decides, else what is not known yet.

    Where all let it pass, they have seen what each of them saw.
    """
    seen: list[str] = []
    unknown = False
    for verdict in verdicts:
        if isinstance(verdict, Pass):
            if verdict.seen:
                seen.append(verdict.seen)
        elif isinstance(verdict, Later):
            unknown = True
        else:
            return verdict
    if unknown:
        return LATER
    return Pass(seen="; ".join(seen)) if seen else PASS


def held_since(run: Run, code: str) -> datetime | None:
    """Return since when a run has been waiting for a gate that holds with `code`: since it was held so first, after its
    latest attempt. None where it has not been."""
    since = None
    for step in reversed(run.trace):
        if step.state is RunState.RUNNING:
            break
        if step.state is RunState.HELD and step.code == code:
            since = step.at
    return since


def bypassed(run: Run) -> Sequence[str]:
    """Return the names of the gates that whoever fired a run had it pass by."""
    return run.trace[0].bypass if run.trace else ()
