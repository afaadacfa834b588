"""The ends of runs: one job after another."""

from __future__ import annotations

from typing import ClassVar, Literal

import anyio

from engine.plugin import OUTCOMES, BadSetting, JobName, RunEnd, Source, SourceContext, TriggerName

Outcome = Literal["succeeded", "failed", "timed_out", "cancelled", "skipped", "expired"]


class RunEnds(Source, frozen=True, kw_only=True):
    """Follow the ends of other jobs' runs: `on.run = "import-csv"`.

    All that is given must hold; nothing given follows every run. Attempts that are tried again are no ends, and
    neither are due instants that were missed.

    - `job`: the name of a job, or a list of names.
    - `tags`: jobs that have at least one of these tags.
    - `trigger`: runs that this trigger made, or one of a list.
    - `outcomes`: how the run ended; by default in whatever way.
    - `ignore`: names of jobs that are not followed, whatever the others say.
    - `loop`: whether its triggers may start, also by way of others, what they follow. Such a loop has no end but a
      filter, an outcome, or the trigger's `max_hops`, and is refused unless this is `true`.
    """

    name: ClassVar[str] = "run"
    main: ClassVar[str | None] = "job"
    follows_runs: ClassVar[bool] = True
    emits: ClassVar[bool] = False

    job: JobName | tuple[JobName, ...] = ()
    tags: tuple[str, ...] = ()
    trigger: TriggerName | tuple[TriggerName, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    ignore: tuple[JobName, ...] = ()
    loop: bool = False

    def __post_init__(self) -> None:
        unmet = set(_listed(self.job)) & set(self.ignore)
        if unmet:
            raise BadSetting(
                "ignore", f"holds {', '.join(sorted(unmet))}, which `job` names", "take one of the two out"
            )

    def follows(self, end: RunEnd) -> bool:
        jobs, triggers = _listed(self.job), _listed(self.trigger)
        return (
            end.outcome in (self.outcomes or OUTCOMES)
            and (not jobs or end.job in jobs)
            and (not triggers or end.trigger in triggers)
            and (not self.tags or not end.tags.isdisjoint(self.tags))
            and end.job not in self.ignore
        )

    def may_loop(self) -> bool:
        return self.loop

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
