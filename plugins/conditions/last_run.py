"""How a job's last run ended."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from engine.plugin import BadSetting, Condition, ConditionContext, Duration, JobName, RunState, Verdict
from plugins.conditions.ages import said_of_age


class LastRunOf(Condition, frozen=True, kw_only=True):
    """Pass while the last run of a job that had its turn ended as it should.

    - `job`: the name of the job.
    - `outcome`: how it has to have ended; `any`: however it did.
    - `within`: no longer ago than this.
    - `older`: at least so long ago.
    - `missing`: what holds while no run of it has ended: `hold` or `pass`.
    """

    name: ClassVar[str] = "last_run"
    main: ClassVar[str | None] = "job"
    thresholds: ClassVar[frozenset[str]] = frozenset({"within", "older"})

    job: JobName
    outcome: Literal["succeeded", "failed", "timed_out", "cancelled", "any"] = "succeeded"
    within: Annotated[Duration, Meta(gt=0)] | None = None
    older: Annotated[Duration, Meta(gt=0)] | None = None
    missing: Literal["hold", "pass"] = "hold"

    def __post_init__(self) -> None:
        if self.within is not None and self.older is not None and self.older > self.within:
            raise BadSetting("older", "is longer than within, so that nothing could pass")

    def follows(self) -> tuple[str, ...]:
        return (self.job,)

    async def check(self, context: ConditionContext) -> Verdict:
        last = await context.last_run(self.job)
        if last is None:
            said = f"no run of {self.job} has ended yet"
            return Verdict.passes(said) if self.missing == "pass" else Verdict.holds(said)
        ended = f"the last run of {self.job} {last.state.replace('_', ' ')}"
        if self.outcome != "any" and last.state is not RunState(self.outcome):
            return Verdict.holds(f"{ended}: {last.reason}"[:300], last.state.value)
        age_s = max((context.clock.now() - last.finished_at).total_seconds(), 0.0)
        return said_of_age(ended, age_s, newest_s=self.older, oldest_s=self.within)
