"""Lines of an answer: a due instant or an event, or many due instants with one reason, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from engine.clock import rfc3339
from engine.events import EventOutcome, Seen
from engine.store.base import Met, Missed

EXCLUDED, TO_COME, WAITING, NOT_RUN, UNKNOWN = "excluded", "to_come", "waiting", "not_run", "unknown"
"""What became of due instants that left no record. All other verdicts are states of runs and outcomes of events."""

WAYS_OUT = {
    "missed": "backfill runs it now; the trigger's misfire rule says what is caught up on by itself",
    "overlap": "raise the job's concurrency, choose another overlap, or make the job faster",
    "replaced": "nothing: a later run took its place; or choose another overlap",
    "calendar": "nothing; or change the calendar, or fire the trigger by hand",
    "disabled": "set enabled = true; backfill runs what was due meanwhile",
    "trigger_disabled": "set enabled = true on the trigger, or on its source",
    "job_disabled": "set enabled = true on the job; backfill runs what was due meanwhile",
    "not_there": "nothing: backfill runs instants from before as well",
    "other_schedule": "nothing: what ran by the schedule of that time has lines of its own",
    "engine_away": "start the engine; the misfire rule says what is caught up on then",
    "paused": "resume ends the pause; the misfire rule says what is caught up on then",
    "trigger_paused": "resume NAME; afterwards replay EVENT runs the event, which does not run by itself",
    "tag_paused": "resume --tag TAG; afterwards replay EVENT runs the event, which does not run by itself",
    "trigger_quarantined": "release NAME; with --replay what was held back is run, too",
    "source_quarantined": "release NAME of the source; with --replay what was held back is run, too",
    "loop": "break the chain; or raise max_hops where it is meant",
    "engine_paused": "resume --all; afterwards replay EVENT runs the event, which does not run by itself",
    "schema": "correct the sender, or the trigger's schema; replay runs the event once that fits",
    "filter_false": "compare the values that the filter saw with the trigger's filter",
    "filter_error": "has(data.x) asks first whether there is a value",
    "source_trouble": "look at the timer's plugin: the engine's log has the traceback",
    "purged": "[store] keep says for how long events and runs are kept",
    "unexplained": "this must not be: run doctor, and report what it says",
}
"""What may be done about it, by code; where nothing stands here, the run itself says more."""

_FAILED = frozenset({"failed", "timed_out"})


class Line(Struct, frozen=True, kw_only=True):
    """What became of something.

    - `at`: the due instant, or when the event was received; `until`: the last of `count` (`more`: at least) instants.
    - `verdict`: the state of its run, the outcome of its event, or one of those above; `code`, `reason`: why.
    - `came`: why its run came to be, as its event's outcome says it, where there is one. `late_s`: by how much it fired
      later than it was to, where that is worth a word.
    - `because`: what held at that time, in words. `made_up`: the run that made up for it.
    """

    at: datetime
    until: datetime | None = None
    count: int = 1
    more: bool = False
    verdict: str
    code: str
    reason: str
    came: str | None = None
    late_s: float | None = None
    run: str | None = None
    event: str | None = None
    type: str | None = None
    subject: str | None = None
    gates: tuple[Seen, ...] = ()
    because: tuple[str, ...] = ()
    made_up: str | None = None

    @property
    def last(self) -> datetime:
        """The last instant that it tells of."""
        return self.at if self.until is None else self.until

    @property
    def way_out(self) -> str | None:
        """What may be done about it."""
        if self.verdict in _FAILED:
            return f"why {self.run} and logs {self.run} tell more"
        return WAYS_OUT.get(self.code)

    def view(self, zone: str) -> dict[str, Any]:
        """Return it as JSON; local times are written as `next` writes them."""
        place = ZoneInfo(zone)
        return {
            "at": rfc3339(self.at),
            "local": f"{self.at.astimezone(place).isoformat()}[{zone}]",
            "until": None if self.until is None else rfc3339(self.until),
            "count": self.count,
            "more": self.more,
            "verdict": self.verdict,
            "code": self.code,
            "reason": self.reason,
            "came": self.came,
            "late_s": self.late_s,
            "run": self.run,
            "event": self.event,
            "type": self.type,
            "subject": self.subject,
            "gates": [{"gate": seen.gate, "verdict": seen.verdict, "saw": seen.saw} for seen in self.gates],
            "because": list(self.because),
            "made_up": self.made_up,
            "way_out": self.way_out,
        }


def line_of_event(met: Met, at: datetime) -> Line:
    """Return what became of an event that the trigger met; `at` is what it is told of by."""
    outcome, event = met.outcome, met.event
    verdict, code, reason = outcome.outcome.value, outcome.code, outcome.reason
    # One that joined a run tells of that; all others that have a run came to be it.
    if outcome.outcome is EventOutcome.RUN and met.state is not None and met.last is not None:
        verdict, code, reason = met.state.value, met.last.code, met.last.reason
    return Line(
        at=at, verdict=verdict, code=code, reason=reason, came=outcome.reason, run=outcome.run, event=event.id,
        type=event.type, subject=event.subject, gates=outcome.gates,
    )  # fmt: skip


def line_of_missed(missed: Missed, because: Sequence[str]) -> Line:
    """Return what is recorded of missed instants."""
    run = missed.run
    return Line(
        at=missed.first, until=None if missed.last == missed.first else missed.last, count=missed.count,
        more="more than" in run.reason and missed.count > 1, verdict=run.state.value, code=run.code, reason=run.reason,
        run=run.id, because=tuple(because),
    )  # fmt: skip
