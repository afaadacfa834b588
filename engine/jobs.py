"""Jobs: what to run, and under which limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace


class OnCrash(StrEnum):
    """What becomes of a run that was running when the engine died: try it again, fail it, or have it go on.

    One that goes on does so at a stop of the engine, too; where nothing of it is left, it is tried again.
    """

    RETRY = "retry"
    FAIL = "fail"
    ADOPT = "adopt"


class Overlap(StrEnum):
    """What becomes of a new run of a job whose limit is reached: it waits, is skipped, or takes another one's place."""

    QUEUE = "queue"
    SKIP = "skip"
    REPLACE = "replace"


class RetryOn(Struct, frozen=True, kw_only=True):
    """Which failed attempts are tried again: those with one of the exit codes, or of the codes of reasons."""

    exit_codes: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()

    def takes(self, code: str, exit_code: int | None) -> bool:
        """Tell whether an attempt that ended so is one of them."""
        return code in self.codes or (exit_code is not None and exit_code in self.exit_codes)


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """When a failed or timed-out attempt is tried again.

    The delay before attempt n+1 is `delay_s * factor ** (n-1)`, at most `max_delay_s`, varied by ±`jitter`
    (a fraction, 0 to 1). With `on`, only those that it takes are tried again.
    """

    attempts: int = 1
    delay_s: float = 5.0
    factor: float = 2.0
    max_delay_s: float = 300.0
    jitter: float = 0.1
    on: RetryOn | None = None


class RetryChange(Struct, frozen=True, kw_only=True):
    """What is otherwise than in a job's `RetryPolicy` for some of its runs; None is as the job has it."""

    attempts: int | None = None
    delay_s: float | None = None
    factor: float | None = None
    max_delay_s: float | None = None
    jitter: float | None = None
    on: RetryOn | None = None

    def applied(self, policy: RetryPolicy) -> RetryPolicy:
        """Return a policy with these changes."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(policy, **given)


class Callback(Struct, frozen=True, kw_only=True):
    """What is told of a job's runs to a URL of its own: `channel` is the way, `on` the ends that are told."""

    channel: Any
    on: frozenset[str]


class Notify(Struct, frozen=True, kw_only=True):
    """Which receivers are told of a job's runs, by name, and of which ends, or that it has recovered."""

    to: tuple[str, ...]
    on: frozenset[str]


class Job(Struct, frozen=True, kw_only=True):
    """A runner with its settings, and the limits under which it works.

    `runner` is a plugin's settings (an `engine.plugin.Runner`); `concurrency` the most runs of this job at
    once, None for no limit of its own; with a `concurrency_key`, CEL or a function of the event, that holds for each of
    its values; `overlap` what becomes of a new run where that is reached; `pools` how much a run takes of which pools;
    `timeout_s` bounds one attempt, from its start; `log_bytes` how much is kept of what a run
    prints.
    """

    name: str
    runner: Any
    timeout_s: float = 3600.0
    retry: RetryPolicy = RetryPolicy()
    concurrency: int | None = None
    concurrency_key: str | Callable[..., Any] | None = None
    overlap: Overlap = Overlap.QUEUE
    pools: Mapping[str, int] = {}
    on_crash: OnCrash = OnCrash.RETRY
    notify: Notify | None = None
    callback: Callback | None = None
    log_bytes: int = 10 * 1024 * 1024
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""
