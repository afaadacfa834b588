"""What exit codes of programs mean."""

from __future__ import annotations

import signal
from typing import Annotated, Any

from msgspec import Meta, Struct

from engine.plugin import BadSetting, Outcome, RunState
from plugins.runners.child import EXIT_UNKNOWN

ExitCode = Annotated[int, Meta(ge=0, le=255)]


class ExitCodes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What exit codes mean; any other is a failure.

    - `success`: the work is done.
    - `skip`: there was nothing to do: the run ends as `skipped`.
    - `retry`: the attempt failed, and another one may succeed. Where some are named, a failure by any other code
      is not tried again, whatever the job's `retry`.
    """

    success: tuple[ExitCode, ...] = (0,)
    skip: tuple[ExitCode, ...] = ()
    retry: tuple[ExitCode, ...] = ()

    def __post_init__(self) -> None:
        known: dict[int, str] = {}
        for name in ("success", "skip", "retry"):
            for code in getattr(self, name):
                if known.setdefault(code, name) != name:
                    raise BadSetting(name, f"holds {code}, which `{known[code]}` holds, too")
        if not self.success:
            raise BadSetting("success", "names no code: no run could succeed")

    def judge(self, exit_code: int, outputs: dict[str, Any] | None, *, has_cpu_limit: bool) -> Outcome:
        """Return how an attempt ended whose program did so with `exit_code`, or by the signal of that, negative."""
        if exit_code in self.success:
            return Outcome.succeeded(f"exited with {exit_code}", exit_code=exit_code, outputs=outputs)
        if exit_code in self.skip:
            reason = f"exited with {exit_code}, by which it says that there was nothing to do"
            return Outcome(
                state=RunState.SKIPPED, code="exit_skip", reason=reason, exit_code=exit_code, outputs=outputs
            )
        final = bool(self.retry) and exit_code not in self.retry
        if exit_code == EXIT_UNKNOWN:
            reason = "ended, but its exit status was collected by something else in the engine's process"
            return Outcome.failed("exit_unknown", reason, outputs=outputs)
        if exit_code > 0:
            reason = f"exited with {exit_code}"
            if final:
                reason += "; not tried again, as `exit_codes.retry` does not name it"
            return Outcome.failed("exit_code", reason, exit_code=exit_code, outputs=outputs, final=final)
        if exit_code == 0:
            reason = "exited with 0, which is none of its codes of success"
            return Outcome.failed("exit_code", reason, exit_code=0, outputs=outputs, final=final)
        return Outcome.failed("signal", f"ended by {_named(-exit_code, has_cpu_limit)}", outputs=outputs)


def _named(number: int, has_cpu_limit: bool) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}: it used more than `limits.cpu`" if has_cpu_limit and number == signal.SIGXCPU else name
