"""The configuration: what may stand in config.toml, and what becomes of it.

The tables (`Root` and what it holds) are declarations: from their fields come the keys, types, defaults and
descriptions that reading, environment overrides and the JSON Schema all use. A further key is one line here.
`Config` is what the engine works with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from engine.backlog import DEFAULT_HIGH
from engine.config.alerts import AlertTable, deadline_of
from engine.config.calendars import CalendarTable
from engine.config.conditions import ConditionTable
from engine.config.document import Node
from engine.config.doors import (
    BodyTimeout,
    Doors,
    HeaderTimeout,
    KeepaliveTimeout,
    MostConnections,
    MostOfClient,
    RateLimit,
    parse_quota,
)
from engine.config.guards import BreakerTable
from engine.config.joins import JoinTable
from engine.config.keeping import KeepTable
from engine.config.limits import Weight
from engine.config.logs import LogsTable
from engine.config.maintenance import MaintenanceTable
from engine.config.metrics import MetricsTable
from engine.config.payloads import RedactTable, SchemaTable, SecurityTable
from engine.config.people import HostName, TrustedHeader, TrustedHeaderTable
from engine.config.permits import LimitsTable, Permits
from engine.config.scalars import near
from engine.config.telling import CallbackTable, JobNotifyTable, NotifyName, NotifyTable
from engine.config.tracing import TracingTable
from engine.decide.alerts import Alert
from engine.decide.calendars import Calendar
from engine.decide.conditions import Named
from engine.decide.lanes import starved
from engine.decide.priority import DEFAULT_AGEING_S
from engine.decide.windows import MaintenanceWindow
from engine.deliveries import Receiver
from engine.jobs import Job, OnCrash, Overlap, RetryChange, RetryOn, RetryPolicy
from engine.logcap import DEFAULT_LOG_BYTES, LEAST_LOG_BYTES
from engine.networks import Networks
from engine.plugin.settings import (
    BadSetting,
    ConditionName,
    Duration,
    ExpressionText,
    JobName,
    Plugin,
    Size,
    TemplateText,
    TimeZone,
)
from engine.redaction import Redaction
from engine.registry import SHARED_KEY
from engine.runs import Lane
from engine.triggers import (
    HIGH_PRIORITY,
    MAX_HOPS,
    MISFIRE,
    MOST_CAUGHT_UP,
    NORMAL_PRIORITY,
    PRIORITIES,
    Adaptive,
    Batch,
    CatchUp,
    Debounce,
    Dedupe,
    Edge,
    Misfire,
    Mode,
    Rate,
    SharedSource,
    Take,
    Trigger,
)
from engine.units import format_duration, parse_rate

Slug = Annotated[str, Meta(extra={"kind": "slug"})]
"""The name of a source, job, trigger or calendar: letters, digits, `_`, `.` and `-`."""

RunnerTable = Annotated[Any, Meta(extra={"kind": "plugin", "of": "runner"})]
"""A table with the name of one runner and its settings."""

OnTable = Annotated[Any, Meta(extra={"kind": "plugin", "of": "on"})]
"""A table with the name of one source or timer and its settings, with `source` and the name of a shared one, or with
`all` or `any` and several of them."""

InlineSource = Annotated[Any, Meta(extra={"kind": "plugin", "of": "source", "inline": True})]
"""The name of one source or timer and its settings, among the other keys of a table."""

SourceName = Annotated[str, Meta(extra={"kind": "source_name"})]
"""The name of a shared source; unknown ones are refused."""

PresetName = Annotated[str, Meta(extra={"kind": "preset"})]
"""The name of a preset, one that is built in or one of `[presets.NAME]`; unknown ones are refused."""

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


class ReserveTable(Struct, frozen=True, kw_only=True):
    """Slots that are kept for a lane of the queue: no other takes them."""

    live: Annotated[int, Meta(ge=0, description="For what comes by itself: events and timers.")] = 0
    manual: Annotated[int, Meta(ge=0, description="For what people fire.")] = 0
    backfill: Annotated[int, Meta(ge=0, description="For backfills.")] = 0

    def by_lane(self) -> dict[Lane, int]:
        """Return it as dispatch knows it."""
        return {Lane.LIVE: self.live, Lane.MANUAL: self.manual, Lane.BACKFILL: self.backfill}


class QueueTable(Struct, frozen=True, kw_only=True):
    """How many runs may wait, in all."""

    high: Annotated[
        int, Meta(ge=1, description="Where so many runs wait, sources with more than their share have to wait, too.")
    ] = DEFAULT_HIGH
    low: Annotated[
        int | None, Meta(ge=0, description="Where no more wait, they go on. Default: nine tenths of `high`.")
    ] = None

    def __post_init__(self) -> None:
        if self.low is not None and self.low >= self.high:
            raise BadSetting("low", f"is {self.low}, not below high, which is {self.high}", "make it smaller")


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
    conditions: Annotated[
        tuple[ConditionName, ...], Meta(description="The conditions that the runs of every trigger obey.")
    ] = ()
    max_hops: Annotated[
        int,
        Meta(ge=0, description="So many runs, one caused by the other, may lie before an event: see docs/guards.md."),
    ] = MAX_HOPS
    reserve: Annotated[ReserveTable, Meta(description="Slots that are kept for lanes: see below. Default: none.")] = (
        ReserveTable()
    )
    queue: Annotated[QueueTable, Meta(description="When the engine pushes back: see below.")] = QueueTable()
    watch: Annotated[bool, Meta(description="Whether configuration files that change are read anew by themselves.")] = (
        True
    )

    def __post_init__(self) -> None:
        lanes = starved(self.concurrency, self.reserve.by_lane())
        if lanes:
            raise BadSetting(
                "reserve",
                f"keeps all {self.concurrency} slots from {' and '.join(lanes)}",
                "keep fewer, or raise concurrency",
            )


class RetryOnTable(Struct, frozen=True, kw_only=True):
    """Which failed attempts are tried again; all others are not."""

    exit_codes: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=255)], ...],
        Meta(description="Those of programs that ended with one of these."),
    ] = ()
    codes: Annotated[
        tuple[str, ...],
        Meta(description="Those with one of these codes, such as `timed_out` or `start_failed`: see docs/reasons.md."),
    ] = ()

    def __post_init__(self) -> None:
        if not self.exit_codes and not self.codes:
            raise BadSetting("codes", "names nothing, so that no attempt would be tried again", "or say attempts = 1")
        for place, code in enumerate(self.codes):
            if not code.isascii() or not code.replace("_", "").isalnum() or code != code.lower():
                raise BadSetting(f"codes[{place}]", f'found "{code}", which is no code', 'write "timed_out"')

    def filter(self) -> RetryOn:
        """Return it as the jobs know it."""
        return RetryOn(exit_codes=frozenset(self.exit_codes), codes=frozenset(self.codes))


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
    on: Annotated[
        RetryOnTable | None, Meta(description="Only such attempts are tried again. Default: all that failed.")
    ] = None

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
            on=None if self.on is None else self.on.filter(),
        )


class RetryChangeTable(Struct, frozen=True, kw_only=True):
    """What is otherwise for the runs of one trigger; what is left out is as its job has it."""

    attempts: Annotated[int | None, Meta(ge=1, description="Attempts in all, the first included.")] = None
    delay: Annotated[Duration | None, Meta(ge=0, description="Wait before the second attempt.")] = None
    factor: Annotated[float | None, Meta(ge=1, description="Each further wait is this much longer.")] = None
    max_delay: Annotated[Duration | None, Meta(ge=0, description="No wait is longer.")] = None
    jitter: Annotated[
        float | None, Meta(ge=0, le=1, description="Waits vary at random by up to this fraction, both ways.")
    ] = None
    on: Annotated[RetryOnTable | None, Meta(description="Only such attempts are tried again.")] = None

    def change(self) -> RetryChange:
        """Return it as the triggers know it."""
        return RetryChange(
            attempts=self.attempts,
            delay_s=self.delay,
            factor=self.factor,
            max_delay_s=self.max_delay,
            jitter=self.jitter,
            on=None if self.on is None else self.on.filter(),
        )


class LogTable(Struct, frozen=True, kw_only=True):
    """What is kept of what runs print."""

    max: Annotated[
        Size,
        Meta(
            ge=LEAST_LOG_BYTES,
            description="Of a log that is larger the beginning and the end are kept, half each; a line tells how much "
            "is left out.",
        ),
    ] = DEFAULT_LOG_BYTES


class DefaultsTable(Struct, frozen=True, kw_only=True):
    """What holds for every job that does not say otherwise."""

    timeout: Annotated[Duration, Meta(gt=0, description="Bound of one attempt, from its start.")] = 3600.0
    retry: Annotated[
        RetryTable, Meta(description="When failed attempts are tried again; jobs may change single keys.")
    ] = RetryTable()
    log: Annotated[LogTable, Meta(description="What is kept of what runs print.")] = LogTable()


class StoreTable(Struct, frozen=True, kw_only=True):
    """Where events and runs are durable."""

    url: Annotated[
        StoreUrl | None,
        Meta(description="`sqlite:///path`. Default: `engine.db` in the directory `[engine] data`."),
    ] = None
    keep: Annotated[KeepTable, Meta(description="For how long what is over is kept.")] = KeepTable()
    min_free: Annotated[
        Size, Meta(ge=0, description="Where less is free on the disk, no event is taken until there is more again.")
    ] = 64 * 2**20
    backups: Annotated[
        Path | None, Meta(description="Where the engine puts copies of the store. Default: `backups` beside it.")
    ] = None


class HttpTable(Struct, frozen=True, kw_only=True):
    """The listener for webhooks and the API."""

    listen: Annotated[Listen, Meta(description="`host:port` or `[ipv6]:port`.")] = "127.0.0.1:8080"
    insecure: Annotated[
        bool, Meta(description="Allow listening beyond loopback without encryption: tokens travel readable.")
    ] = False
    max_body: Annotated[Size, Meta(ge=1, description="The largest request body; more is refused (413).")] = 1024 * 1024
    header_timeout: HeaderTimeout = 10.0
    body_timeout: BodyTimeout = 30.0
    keepalive_timeout: KeepaliveTimeout = 75.0
    max_connections: MostConnections = 4096
    max_connections_per_client: MostOfClient = 256
    rate_limit: RateLimit = "none"
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks of reverse proxies, such as `10.0.0.0/8`: who a request comes from is what they say "
            "in `X-Forwarded-For`. What anybody else says there counts for nothing."
        ),
    ] = ()
    hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            description="Names by which browsers reach it, such as `engine.example.org`, where a proxy hands on the "
            "`Host`. Others are refused. Default: on loopback those of this machine, else any."
        ),
    ] = ()
    trusted_header: Annotated[
        TrustedHeaderTable | None, Meta(description="A header in which such a proxy says who has signed in.")
    ] = None

    def __post_init__(self) -> None:
        parse_quota(self.rate_limit)
        try:
            Networks(self.trusted_proxies)
        except ValueError as error:
            raise BadSetting("trusted_proxies", str(error)) from None


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
        int | None,
        Meta(
            ge=1,
            description="Runs of this job at once. Default: no limit of its own; 1 where `overlap` or "
            "`concurrency_key` is given.",
        ),
    ] = None
    concurrency_key: Annotated[
        ExpressionText | None, Meta(description="CEL; `concurrency` then holds for runs with equal values: see below.")
    ] = None
    overlap: Annotated[
        Overlap | None,
        Meta(description="What becomes of a new run where `concurrency` is reached: see below. Default: `queue`."),
    ] = None
    pools: Annotated[
        tuple[str, ...] | dict[str, Weight],
        Meta(description="Pools of `[pools]` that a run takes 1 of, or with how much it takes of each: see below."),
    ] = ()
    on_crash: Annotated[OnCrash, Meta(description="What becomes of a run that was running when the engine died.")] = (
        OnCrash.RETRY
    )
    notify: Annotated[
        tuple[NotifyName, ...] | JobNotifyTable | None,
        Meta(description="Who is told when a run fails, and when one succeeds again; or a table that says more."),
    ] = None
    callback: Annotated[CallbackTable | None, Meta(description="A URL that is told of the ends of its runs.")] = None
    log: Annotated[
        LogTable | None, Meta(description="What is kept of what a run prints. Default: `[defaults] log`.")
    ] = None
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
    max_events: Annotated[
        int | None, Meta(ge=2, description="It starts at once when it has so many events. Default: no bound.")
    ] = None
    edge: Annotated[
        Edge,
        Meta(
            description="When it runs: after the last event, at the first one (what follows it closely is dropped, and "
            "recorded), or at the first one and again after the last."
        ),
    ] = Edge.TRAILING
    take: Annotated[
        Take,
        Meta(
            description="What the run gets as `data`: that of the last event or the first, a list of all, or one "
            "object in which later values win."
        ),
    ] = Take.LAST
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are gathered apart.")] = None

    def __post_init__(self) -> None:
        if self.edge is Edge.LEADING:
            for name, default in (("max_events", None), ("take", Take.LAST)):
                if getattr(self, name) != default:
                    hint = 'leave it out, or say edge = "both"'
                    raise BadSetting(name, 'has no effect where edge is "leading", as each run has one event', hint)
        if self.max_wait is not None and self.max_wait < self.wait:
            raise BadSetting(
                "max_wait",
                f"found {format_duration(self.max_wait)}, which is shorter than wait, "
                f"which is {format_duration(self.wait)}",
                "make wait shorter or max_wait longer",
            )

    def rule(self) -> Debounce:
        """Return it as the triggers know it."""
        return Debounce(
            wait_s=self.wait, max_wait_s=self.max_wait, max_events=self.max_events, edge=self.edge, take=self.take,
            key=self.key,
        )  # fmt: skip


class BatchTable(Struct, frozen=True, kw_only=True):
    """Gather events into runs of several."""

    size: Annotated[int, Meta(ge=1, description="It starts at once when it has so many events.")]
    wait: Annotated[Duration, Meta(ge=0, description="It starts at the latest this long after its first event.")]
    bytes: Annotated[
        Size | None,
        Meta(ge=1, description="It starts at once when the data of its events is so much. Default: no bound."),
    ] = None
    take: Annotated[
        Take,
        Meta(
            description="What the run gets as `data`: a list of all, that of the last event or the first, or one "
            "object in which later values win."
        ),
    ] = Take.ALL
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are gathered apart.")] = None

    def rule(self) -> Batch:
        """Return it as the triggers know it."""
        return Batch(size=self.size, wait_s=self.wait, size_bytes=self.bytes, take=self.take, key=self.key)


class ThrottleTable(Struct, frozen=True, kw_only=True):
    """Let runs wait, so that not too many start; none is dropped."""

    limit: Annotated[int, Meta(ge=1, description="So many runs in `per`, evenly spread.")]
    per: Annotated[Duration, Meta(gt=0, description="The time in which they start.")]
    burst: Annotated[int, Meta(ge=1, description="So many start at once after a rest.")] = 1
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are counted apart.")] = None

    def rule(self) -> Rate:
        """Return it as the triggers know it."""
        return Rate(limit=self.limit, per_s=self.per, burst=self.burst, key=self.key)


class RateLimitTable(Struct, frozen=True, kw_only=True):
    """Drop events where too many come, and record each."""

    limit: Annotated[int, Meta(ge=1, description="So many events pass in `per`.")]
    per: Annotated[Duration, Meta(gt=0, description="The time in which they pass.")]
    burst: Annotated[
        int | None, Meta(ge=1, description="So many pass at once after a rest. Default: as many as `limit`.")
    ] = None
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are counted apart.")] = None

    def rule(self) -> Rate:
        """Return it as the triggers know it."""
        return Rate(limit=self.limit, per_s=self.per, burst=self.burst or self.limit, key=self.key)


class DedupeTable(Struct, frozen=True, kw_only=True):
    """Run one of the events that are alike."""

    key: Annotated[ExpressionText, Meta(description="Events with equal values are alike.")]
    window: Annotated[Duration, Meta(gt=0, description="So long after the first, others like it are not run.")]

    def rule(self) -> Dedupe:
        """Return it as the triggers know it."""
        return Dedupe(key=self.key, window_s=self.window)


class AdaptiveTable(Struct, frozen=True, kw_only=True):
    """Let the interval of a timer, or of a source that polls, follow what comes of its runs; see docs/adaptive.md."""

    min: Annotated[Duration, Meta(gt=0, description="The shortest interval.")]
    max: Annotated[Duration, Meta(gt=0, description="The longest interval.")]
    success_rate_min: Annotated[
        float | None, Meta(ge=0, le=1, description="Where a smaller part of the runs succeeds, the interval grows.")
    ] = None
    duration_max: Annotated[
        Duration | None, Meta(gt=0, description="Where runs take longer on average, the interval grows.")
    ] = None
    cpu_max: Annotated[
        float | None, Meta(gt=0, le=1, description="Where a larger part of the CPUs is busy, the interval grows.")
    ] = None
    memory_max: Annotated[
        float | None, Meta(gt=0, le=1, description="Where a larger part of the memory is in use, the interval grows.")
    ] = None
    load_max: Annotated[
        float | None,
        Meta(gt=0, description="Where the load average of one minute is higher for each CPU, the interval grows."),
    ] = None
    volume: Annotated[
        str | None, Meta(description="An output of the job, a number: what a run brings, such as `rows`.")
    ] = None
    volume_target: Annotated[
        float | None,
        Meta(gt=0, description="How much a run should bring: less makes the interval longer, more shorter."),
    ] = None
    step: Annotated[float, Meta(gt=1, le=2, description="No change is by more than this factor.")] = 1.5
    hold: Annotated[int, Meta(ge=1, description="So many runs at least are seen between two changes.")] = 3
    mode: Annotated[Mode, Meta(description="`shadow` only says what it would do.")] = Mode.ON

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise BadSetting(
                "max", f"is shorter than min, which is {format_duration(self.min)}", "make min shorter or max longer"
            )
        if (self.volume is None) != (self.volume_target is None):
            given, missing = ("volume", "volume_target") if self.volume else ("volume_target", "volume")
            raise BadSetting(missing, f"is missing beside {given}", 'such as volume = "rows", volume_target = 500')
        limits = (self.success_rate_min, self.duration_max, self.cpu_max, self.memory_max, self.load_max, self.volume)
        if all(limit is None for limit in limits):
            raise BadSetting("success_rate_min", "is missing, and so is everything else to go by", "give one limit")

    def rule(self) -> Adaptive:
        """Return it as the triggers know it."""
        return Adaptive(
            min_s=self.min, max_s=self.max, success_rate_min=self.success_rate_min, duration_max_s=self.duration_max,
            cpu_max=self.cpu_max, memory_max=self.memory_max, load_max=self.load_max, volume=self.volume,
            volume_target=self.volume_target, step=self.step, hold=self.hold, mode=self.mode,
        )  # fmt: skip


class MisfireTable(Struct, frozen=True, kw_only=True):
    """What becomes of due instants that passed while the engine was away or busy, or the trigger was paused."""

    catch_up: Annotated[
        CatchUp,
        Meta(description="The latest of them is run, or `all` in order, or `none` but one that is still on time."),
    ] = MISFIRE.catch_up
    grace: Annotated[
        Duration | None,
        Meta(gt=0, description="What is later than that is missed. Default: no limit; with `none` a minute."),
    ] = None
    max: Annotated[
        int | None,
        Meta(
            ge=1, le=MOST_CAUGHT_UP, description=f"Of `all`, only the newest so many are run. Default: {MISFIRE.max}."
        ),
    ] = None
    rate: Annotated[
        str | None, Meta(description='Of `all`, at most so many are run a second, minute, … Default: `"10/s"`.')
    ] = None

    def __post_init__(self) -> None:
        for name in ("max", "rate"):
            if getattr(self, name) is not None and self.catch_up is not CatchUp.ALL:
                found = f'has no effect where catch_up is "{self.catch_up}"'
                raise BadSetting(name, found, 'leave it out, or say catch_up = "all"')
        if self.rate is not None:
            try:
                parse_rate(self.rate)
            except ValueError as error:
                raise BadSetting("rate", f'"{self.rate}" {error}') from None

    def rule(self) -> Misfire:
        """Return it as the timers know it."""
        return Misfire(
            catch_up=self.catch_up,
            grace_s=self.grace,
            max=MISFIRE.max if self.max is None else self.max,
            rate_per_s=MISFIRE.rate_per_s if self.rate is None else parse_rate(self.rate),
        )


class SourceTable(Struct, frozen=True, kw_only=True):
    """A source with a name, which runs once for all triggers that name it."""

    on: Annotated[InlineSource, Meta(description="Exactly one source or timer, with its settings.")]
    schema: Annotated[
        SchemaTable | None, Meta(description="A JSON Schema that the data of its events fits, for each trigger on it.")
    ] = None
    redact: Annotated[
        tuple[str, ...] | RedactTable | None,
        Meta(description="Paths of values that are replaced in its events before anything else: see below."),
    ] = None
    breaker: Annotated[
        BreakerTable | None, Meta(description="How many events may come before nothing runs any more.")
    ] = None
    expect: Annotated[
        Duration | None, Meta(gt=0, description="Where no event comes for so long, people are told. Default: never.")
    ] = None
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it, and each trigger on it, works at all.")] = True


class OtherwiseTable(Struct, frozen=True, kw_only=True):
    """What becomes of runs whose conditions do not let them pass."""

    hold: Annotated[Duration, Meta(gt=0, description="They wait, and are given up (`expired`) when it took so long.")]


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
    preset: Annotated[PresetName | None, Meta(description="What is not said here is as this preset has it.")] = None
    schema: Annotated[
        SchemaTable | None,
        Meta(description="A JSON Schema: events whose data does not fit are recorded as rejected, not run."),
    ] = None
    breaker: Annotated[
        BreakerTable | None, Meta(description="How many events may come before nothing runs any more.")
    ] = None
    max_hops: Annotated[
        int | None,
        Meta(
            ge=0,
            description="So many runs, one caused by the other, may lie before an event. Default: as in `[engine]`.",
        ),
    ] = None
    expect: Annotated[
        Duration | None, Meta(gt=0, description="Where no event comes for so long, people are told. Default: never.")
    ] = None
    deadline: Annotated[
        str | None,
        Meta(
            description='Where it has not succeeded by then, an alert: a time of the day (`"05:00"`), or how long '
            'after each due instant (`"2h"`).'
        ),
    ] = None
    filter: Annotated[
        ExpressionText | None, Meta(description="Events for which this is not true are recorded, not run.")
    ] = None
    debounce: Annotated[
        Duration | DebounceTable | None,
        Meta(ge=0, description="Gather events that come close together into one run."),
    ] = None
    batch: Annotated[BatchTable | None, Meta(description="Gather events into runs of several.")] = None
    join: Annotated[
        Duration | JoinTable | None,
        Meta(
            gt=0, description="Of `on.all`: how long it waits for all of its inputs, and which of their events it uses."
        ),
    ] = None
    throttle: Annotated[
        ThrottleTable | None, Meta(description="Let runs wait, so that not too many start; none is dropped.")
    ] = None
    rate_limit: Annotated[
        RateLimitTable | None, Meta(description="Drop events where too many come, and record each.")
    ] = None
    dedupe: Annotated[DedupeTable | None, Meta(description="Run one of the events that are alike.")] = None
    expires: Annotated[
        Duration | None,
        Meta(gt=0, description="A run that has not begun so long after it was ready is not run. Default: no bound."),
    ] = None
    adaptive: Annotated[
        AdaptiveTable | None, Meta(description="Let the interval of its timer or polling source follow its runs.")
    ] = None
    conditions: Annotated[
        tuple[ConditionName, ...],
        Meta(description="Conditions that its runs obey, besides those of `[engine] conditions`."),
    ] = ()
    otherwise: Annotated[
        Literal["skip"] | OtherwiseTable | None,
        Meta(description="Where a condition does not let a run pass: it is skipped (default), or held for a while."),
    ] = None
    misfire: Annotated[
        MisfireTable | None, Meta(description="Of a timer: what becomes of due instants that could not be run in time.")
    ] = None
    priority: Annotated[
        Priority | TemplateText,
        Meta(
            description="low 2, normal 5, high 8, critical 9, or 0 (least) to 9 (most urgent); or `{{ CEL }}` for it."
        ),
    ] = NORMAL_PRIORITY
    priority_max: Annotated[
        Priority, Meta(description="The highest priority that an event, a file or a caller may ask for.")
    ] = HIGH_PRIORITY
    max_waiting: Annotated[
        int | None,
        Meta(ge=1, description="So many of its runs may wait; an event more is recorded as `rate_limited`, not run."),
    ] = None
    timeout: Annotated[
        Duration | None,
        Meta(gt=0, description="Bound of one attempt of its runs. Default: that of the job."),
    ] = None
    retry: Annotated[
        RetryChangeTable | None,
        Meta(description="When failed attempts of its runs are tried again; keys left out are as the job has them."),
    ] = None
    pause_after: Annotated[
        int | None,
        Meta(ge=1, description="Where so many of its runs fail one after the other, it pauses itself: see below."),
    ] = None
    data: Annotated[Data | None, Meta(description="Fixed values; they win over the event's data.")] = None
    defaults: Annotated[
        DataTemplates | None,
        Meta(description="Fills what the event's data lacks; texts may be `{{ CEL }}`."),
    ] = None
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it works at all.")] = True

    def __post_init__(self) -> None:
        if self.deadline is not None:
            deadline_of(self.deadline)
        given = self.priority
        if isinstance(given, str) and given not in PRIORITIES and "{{" not in given:
            names = " or ".join(f'"{name}"' for name in PRIORITIES)
            raise BadSetting(
                "priority",
                f'found "{given}", expected a whole number from 0 to 9 or {names}, or an expression in {{{{ }}}}',
                near(given, PRIORITIES),
            )
        if self.batch is not None and self.debounce is not None:
            found = "stands beside debounce, and an event can be gathered by one of them"
            raise BadSetting("batch", found, "leave one out; a debounce has max_events, a batch has wait")


class PresetTable(TriggerTable, frozen=True, kw_only=True):
    """A template of triggers."""

    on: Annotated[OnTable | None, Meta(description="A source or timer; required settings may be left to triggers.")] = (
        None
    )
    # A template need not name one.
    job: Annotated[JobName | None, Meta(description="The name of the job to run.")] = None  # type: ignore[assignment]
    preset: Annotated[PresetName | None, Meta(description="What is not said here is as this other preset has it.")] = (
        None
    )
    description: Annotated[str, Meta(description="What it does, in words; it does not become that of triggers.")] = ""
    parameters: Annotated[
        dict[str, str],
        Meta(description="Settings that each trigger has to give: keys, such as `on.files.path`, and what they are."),
    ] = field(default_factory=dict)


class Root(Struct, frozen=True, kw_only=True):
    """The configuration of a trigger engine: config.toml."""

    engine: Annotated[EngineSettings, Meta(description="The engine as a whole.")] = EngineSettings()
    defaults: Annotated[DefaultsTable, Meta(description="What holds for every job that does not say otherwise.")] = (
        DefaultsTable()
    )
    store: Annotated[StoreTable, Meta(description="Where events and runs are durable.")] = StoreTable()
    http: Annotated[HttpTable, Meta(description="The listener for webhooks and the API.")] = HttpTable()
    logs: Annotated[LogsTable, Meta(description="The engine's own log.")] = LogsTable()
    tracing: Annotated[TracingTable, Meta(description="Where traces go.")] = TracingTable()
    metrics: Annotated[MetricsTable, Meta(description="What Prometheus is told.")] = MetricsTable()
    security: Annotated[SecurityTable, Meta(description="What keeps secrets and powers where they belong.")] = (
        SecurityTable()
    )
    limits: Annotated[LimitsTable, Meta(description="Limits to what the API defines.")] = LimitsTable()
    pools: Annotated[
        dict[Slug, Weight],
        Meta(description="Limits that jobs share, by name: how much each holds."),
    ] = field(default_factory=dict)
    calendars: Annotated[dict[Slug, CalendarTable], Meta(description="Sets of days for timers, by name.")] = field(
        default_factory=dict
    )
    conditions: Annotated[dict[Slug, ConditionTable], Meta(description="Checks that triggers obey, by name.")] = field(
        default_factory=dict
    )
    maintenance: Annotated[dict[Slug, MaintenanceTable], Meta(description="Times in which runs wait, by name.")] = (
        field(default_factory=dict)
    )
    sources: Annotated[dict[Slug, SourceTable], Meta(description="Sources for several triggers, by name.")] = field(
        default_factory=dict
    )
    presets: Annotated[dict[Slug, PresetTable], Meta(description="Templates of triggers, by name.")] = field(
        default_factory=dict
    )
    notify: Annotated[dict[Slug, NotifyTable], Meta(description="Who is told of runs, by name.")] = field(
        default_factory=dict
    )
    alerts: Annotated[dict[Slug, AlertTable], Meta(description="When people are told, by name.")] = field(
        default_factory=dict
    )
    jobs: Annotated[dict[Slug, JobTable], Meta(description="The jobs by name.")] = field(default_factory=dict)
    triggers: Annotated[dict[Slug, TriggerTable], Meta(description="The triggers by name.")] = field(
        default_factory=dict
    )


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where events and runs are durable: `path` is the file of the SQLite store, absolute. For the rest see
    `StoreTable`."""

    url: str
    path: Path
    keep: KeepTable = KeepTable()
    min_free_bytes: int = 64 * 2**20
    backups: Path


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Where the engine listens; `port` 0 takes any free one."""

    host: str
    port: int
    insecure: bool
    max_body_bytes: int
    doors: Doors = Doors()
    trusted_proxies: Networks | None = None
    trusted_header: TrustedHeader | None = None
    hosts: tuple[str, ...] = ()


class Preset(Struct, frozen=True, kw_only=True):
    """A preset, with all that it has from others.

    - `settings`: what it says, as a document holds it; `parameters`: settings that each trigger has to give.
    - `defined_in`: where it stands, None for one that is built in and used as it is.
    - `changed`: settings of a built-in one that the configuration changes.
    """

    name: str
    description: str
    settings: Node
    parameters: dict[str, str]
    defined_in: str | None = None
    changed: tuple[str, ...] = ()


class Config(Struct, frozen=True, kw_only=True):
    """A configuration that was read and found right.

    - `base`: the absolute directory of the first file; `files`: the files, absolute, in the order of reading.
    - `defaults`: what holds for jobs that come later, too; `presets`: those that are built in, and its own.
    - `icals`, `schemas`: the files that its calendars and its schemas were read from.
    - `redaction`: what is replaced in every event. `permits`: what the API may define.
    - `secrets`: the values of all secret settings and references, to be masked wherever text is shown.
    - `written`: what stands in files and the environment, packed, for `engine.config.origins`.
    """

    engine: EngineSettings
    store: StoreSettings
    http: HttpSettings
    sources: dict[str, SharedSource]
    jobs: dict[str, Job]
    triggers: dict[str, Trigger]
    base: Path
    files: tuple[Path, ...]
    secrets: Set[str]
    defaults: DefaultsTable = DefaultsTable()
    presets: dict[str, Preset] = {}
    calendars: dict[str, Calendar] = {}
    maintenance: dict[str, MaintenanceWindow] = {}
    icals: frozenset[Path] = frozenset()
    schemas: frozenset[Path] = frozenset()
    redaction: Redaction | None = None
    conditions: dict[str, Named] = {}
    receivers: dict[str, Receiver] = {}
    alerts: dict[str, Alert] = {}
    logs: LogsTable = LogsTable()
    tracing: TracingTable = TracingTable()
    pools: dict[str, int] = {}
    metrics: MetricsTable = MetricsTable()
    permits: Permits = Permits()
    written: Mapping[tuple[str | int, ...], bytes] = {}

    def __repr__(self) -> str:
        files = ", ".join(map(str, self.files))
        return f"Config({len(self.jobs)} jobs, {len(self.triggers)} triggers, from {files})"
