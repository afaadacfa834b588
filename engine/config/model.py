"""The configuration: what may stand in config.toml, and what becomes of it.

The tables (`Root` and what it holds) are declarations: from their fields come the keys, types, defaults and
descriptions that reading, environment overrides and the JSON Schema all use. A further key is one line here.
`Config` is what the engine works with.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from engine.config.calendars import CalendarTable
from engine.decide.calendars import Calendar
from engine.decide.priority import DEFAULT_AGEING_S
from engine.jobs import Job, OnCrash, RetryPolicy
from engine.plugin.settings import BadSetting, Duration, ExpressionText, JobName, Plugin, Size, TimeZone
from engine.registry import SHARED_KEY
from engine.triggers import HIGH_PRIORITY, NORMAL_PRIORITY, SharedSource, Trigger
from engine.units import format_duration

Slug = Annotated[str, Meta(extra={"kind": "slug"})]
"""The name of a source, job, trigger or calendar: letters, digits, `_`, `.` and `-`."""

RunnerTable = Annotated[Any, Meta(extra={"kind": "plugin", "of": "runner"})]
"""A table with the name of one runner and its settings."""

OnTable = Annotated[Any, Meta(extra={"kind": "plugin", "of": "on"})]
"""A table with the name of one source or timer and its settings, or with `source` and the name of a shared one."""

InlineSource = Annotated[Any, Meta(extra={"kind": "plugin", "of": "source", "inline": True})]
"""The name of one source or timer and its settings, among the other keys of a table."""

SourceName = Annotated[str, Meta(extra={"kind": "source_name"})]
"""The name of a shared source; unknown ones are refused."""

Listen = Annotated[str, Meta(extra={"kind": "listen"})]
"""A host and a port: `127.0.0.1:8080`, `[::1]:8080`."""

StoreUrl = Annotated[str, Meta(extra={"kind": "store_url"})]
"""The URL of a store: `sqlite:///` and a path."""

Data = Annotated[dict[str, Any], Meta(extra={"kind": "data"})]
"""A table of free content: any JSON values."""

DataTemplates = Annotated[dict[str, Any], Meta(extra={"kind": "data_templates"})]
"""A table of free content, in which text may hold `{{ CEL }}`."""

Priority = Annotated[int, Meta(ge=0, le=9)] | Literal["low", "normal", "high", "critical"]

_RETRY = RetryPolicy()


def concurrency_of_machine() -> int:
    """Return the default of `[engine] concurrency`: 4 for each CPU that this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 4 * cpus


class EngineSettings(Struct, frozen=True, kw_only=True):
    """The engine as a whole."""

    data: Annotated[Path, Meta(description="Directory of the store and of the run logs.")] = Path("data")
    timezone: Annotated[TimeZone, Meta(description="Default time zone of timers.")] = "UTC"
    concurrency: Annotated[
        int, Meta(ge=1, description="Runs at once, in all jobs together. Default: 4 for each CPU.")
    ] = field(default_factory=concurrency_of_machine)
    shutdown_grace_s: Annotated[
        Duration, Meta(ge=0, description="How long running work may take to end when the engine stops.")
    ] = field(default=30.0, name="shutdown_grace")
    plugins: Annotated[
        tuple[Path, ...], Meta(description="Further folders of plugin modules; entry points are always read.")
    ] = ()
    ageing_s: Annotated[
        Duration,
        Meta(gt=0, description="How much earlier each step of priority moves a run in the queue."),
    ] = field(default=DEFAULT_AGEING_S, name="ageing")


class RetryTable(Struct, frozen=True, kw_only=True):
    """When a failed or timed-out attempt is tried again."""

    attempts: Annotated[int, Meta(ge=1, description="Attempts in all, the first included.")] = _RETRY.attempts
    delay: Annotated[Duration, Meta(ge=0, description="Wait before the second attempt.")] = _RETRY.delay_s
    factor: Annotated[float, Meta(ge=1, description="Each further wait is this much longer.")] = _RETRY.factor
    max_delay: Annotated[
        Duration, Meta(ge=0, description="No wait is longer, but for one that a server asks for (`Retry-After`).")
    ] = _RETRY.max_delay_s
    jitter: Annotated[
        float, Meta(ge=0, le=1, description="Waits vary at random by up to this fraction, both ways.")
    ] = _RETRY.jitter

    def __post_init__(self) -> None:
        if self.delay > self.max_delay:
            raise BadSetting(
                "max_delay",
                f"delay is {format_duration(self.delay)}, longer than max_delay, "
                f"which is {format_duration(self.max_delay)}",
                "make delay shorter or max_delay longer",
            )

    def policy(self) -> RetryPolicy:
        """Return it as the jobs know it."""
        return RetryPolicy(
            attempts=self.attempts,
            delay_s=self.delay,
            factor=self.factor,
            max_delay_s=self.max_delay,
            jitter=self.jitter,
        )


class DefaultsTable(Struct, frozen=True, kw_only=True):
    """What holds for every job that does not say otherwise."""

    timeout: Annotated[Duration, Meta(gt=0, description="Bound of one attempt, from its start.")] = 3600.0
    retry: Annotated[
        RetryTable, Meta(description="When failed attempts are tried again; jobs may change single keys.")
    ] = RetryTable()


class StoreTable(Struct, frozen=True, kw_only=True):
    """Where events and runs are durable."""

    url: Annotated[
        StoreUrl | None,
        Meta(description="`sqlite:///path`. Default: `engine.db` in the directory `[engine] data`."),
    ] = None


class HttpTable(Struct, frozen=True, kw_only=True):
    """The listener for webhooks and the API."""

    listen: Annotated[Listen, Meta(description="`host:port` or `[ipv6]:port`.")] = "127.0.0.1:8080"
    insecure: Annotated[
        bool, Meta(description="Allow listening beyond loopback without encryption: tokens travel readable.")
    ] = False
    max_body: Annotated[Size, Meta(ge=1, description="The largest request body; more is refused (413).")] = 1024 * 1024


class JobTable(Struct, frozen=True, kw_only=True):
    """What to run (a runner and its settings), and under which limits."""

    run: Annotated[RunnerTable, Meta(description="Exactly one runner, with its settings.")]
    timeout: Annotated[
        Duration | None,
        Meta(gt=0, description="Bound of one attempt, from its start. Default: `[defaults] timeout`."),
    ] = None
    retry: Annotated[
        RetryTable | None,
        Meta(description="When failed attempts are tried again; keys left out are as in `[defaults] retry`."),
    ] = None
    concurrency: Annotated[
        int | None, Meta(ge=1, description="Runs of this job at once. Default: no limit of its own.")
    ] = None
    on_crash: Annotated[OnCrash, Meta(description="What becomes of a run that was running when the engine died.")] = (
        OnCrash.RETRY
    )
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it works at all.")] = True


class DebounceTable(Struct, frozen=True, kw_only=True):
    """Gather events that come close together into one run."""

    wait: Annotated[Duration, Meta(ge=0, description="The run starts when no event came for this long.")]
    max_wait: Annotated[
        Duration | None,
        Meta(ge=0, description="It starts at the latest this long after the first event. Default: no bound."),
    ] = None
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are gathered apart.")] = None

    def __post_init__(self) -> None:
        if self.max_wait is not None and self.max_wait < self.wait:
            raise BadSetting(
                "max_wait",
                f"found {format_duration(self.max_wait)}, which is shorter than wait, "
                f"which is {format_duration(self.wait)}",
                "make wait shorter or max_wait longer",
            )


class SourceTable(Struct, frozen=True, kw_only=True):
    """A source with a name, which runs once for all triggers that name it."""

    on: Annotated[InlineSource, Meta(description="Exactly one source or timer, with its settings.")]
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it, and each trigger on it, works at all.")] = True


class Shared(Plugin, frozen=True, kw_only=True):
    """A source or timer of `[sources.NAME]`.

    - `named`: its name.
    """

    name: ClassVar[str] = SHARED_KEY
    main: ClassVar[str | None] = "named"

    named: SourceName


class TriggerTable(Struct, frozen=True, kw_only=True):
    """A rule: on this source, when these conditions hold, run that job."""

    on: Annotated[OnTable, Meta(description="Exactly one source or timer, with its settings.")]
    job: Annotated[JobName, Meta(description="The name of the job to run.")]
    filter: Annotated[
        ExpressionText | None, Meta(description="Events for which this is not true are recorded, not run.")
    ] = None
    debounce: Annotated[
        Duration | DebounceTable | None,
        Meta(ge=0, description="Gather events that come close together into one run."),
    ] = None
    priority: Annotated[
        Priority, Meta(description="low 2, normal 5, high 8, critical 9, or 0 (least) to 9 (most urgent).")
    ] = NORMAL_PRIORITY
    priority_max: Annotated[
        Priority, Meta(description="The highest priority that an event, a file or a caller may ask for.")
    ] = HIGH_PRIORITY
    data: Annotated[Data | None, Meta(description="Fixed values; they win over the event's data.")] = None
    defaults: Annotated[
        DataTemplates | None,
        Meta(description="Fills what the event's data lacks; texts may be `{{ CEL }}`."),
    ] = None
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it works at all.")] = True


class Root(Struct, frozen=True, kw_only=True):
    """The configuration of a trigger engine: config.toml."""

    engine: Annotated[EngineSettings, Meta(description="The engine as a whole.")] = EngineSettings()
    defaults: Annotated[DefaultsTable, Meta(description="What holds for every job that does not say otherwise.")] = (
        DefaultsTable()
    )
    store: Annotated[StoreTable, Meta(description="Where events and runs are durable.")] = StoreTable()
    http: Annotated[HttpTable, Meta(description="The listener for webhooks and the API.")] = HttpTable()
    calendars: Annotated[dict[Slug, CalendarTable], Meta(description="Sets of days for timers, by name.")] = field(
        default_factory=dict
    )
    sources: Annotated[dict[Slug, SourceTable], Meta(description="Sources for several triggers, by name.")] = field(
        default_factory=dict
    )
    jobs: Annotated[dict[Slug, JobTable], Meta(description="The jobs by name.")] = field(default_factory=dict)
    triggers: Annotated[dict[Slug, TriggerTable], Meta(description="The triggers by name.")] = field(
        default_factory=dict
    )


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where events and runs are durable: `path` is the file of the SQLite store, absolute."""

    url: str
    path: Path


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Where the engine listens; `port` 0 takes any free one."""

    host: str
    port: int
    insecure: bool
    max_body_bytes: int


class Config(Struct, frozen=True, kw_only=True):
    """A configuration that was read and found right.

    - `base`: the absolute directory of the first file; `files`: the files, absolute, in the order of reading.
    - `defaults`: what holds for jobs that come later, too.
    - `secrets`: the values of all secret settings and references, to be masked wherever text is shown.
    """

    engine: EngineSettings
    store: StoreSettings
    http: HttpSettings
    sources: dict[str, SharedSource]
    jobs: dict[str, Job]
    triggers: dict[str, Trigger]
    base: Path
    files: tuple[Path, ...]
    secrets: frozenset[str]
    defaults: DefaultsTable = DefaultsTable()
    calendars: dict[str, Calendar] = {}

    def __repr__(self) -> str:
        files = ", ".join(map(str, self.files))
        return f"Config({len(self.jobs)} jobs, {len(self.triggers)} triggers, from {files})"
