"""What the API answers about what is around triggers: conditions, windows, pools, alerts, the log, who may.

As in `engine.http.shapes`: more may stand beside the members that are named here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from engine.audits import AuditOutcome
from engine.decide.alerts import Severity
from engine.http.kinds import words_of
from engine.http.shapes import At, DeliveryOf, Duration, Id, Named
from engine.loglevels import LEVELS

Level = Annotated[str, Meta(extra_json_schema={"enum": list(LEVELS)})]

# Conditions, pools, windows


class ConditionOverride(TypedDict):
    """What holds in the place of a condition's configuration; null where that holds."""

    since: At
    who: str
    reason: str
    enabled: bool | None
    shadow: bool | None
    thresholds: dict[str, Any]


class ConditionChange(TypedDict):
    """A change of what a condition said."""

    at: At
    state: str
    reason: str
    value: Any
    failed: bool


class Condition(Named):
    """A condition: what it says, since when, and who waits for it."""

    state: str
    reason: str
    value: Any
    failed: bool
    checked_at: At | None
    checking: bool
    check: Any
    every: Duration | None
    timeout: Duration | None
    on_error: str | None
    shadow: bool
    enabled: bool
    override: ConditionOverride | None
    always: bool
    triggers: list[str]
    waiting: int
    description: str
    tags: list[str]
    defined_in: str
    changes: list[ConditionChange]


class PoolOverride(TypedDict):
    """The limit that holds in the place of the configured one."""

    limit: int
    since: At
    reason: str
    who: str


class PoolRun(TypedDict):
    """A run that has something of a pool."""

    id: Id
    job: str | None
    takes: int


class Pool(Named):
    """A limit that jobs share, and who has it."""

    limit: int
    configured: int
    taken: int
    queued: int
    jobs: dict[str, int]
    runs: list[PoolRun]
    override: PoolOverride | None


class WindowScope(TypedDict):
    """For what a window, or an alert, is: nothing named is everything."""

    tags: list[str]
    triggers: list[str]
    jobs: list[str]


class Window(Named):
    """A maintenance window."""

    state: Literal["open", "closed", "overridden", "over", "disabled", "invalid"]
    problem: str | None
    when: str
    opens_at: At | None
    closes_at: At | None
    scope: WindowScope
    triggers: list[str]
    after: str | None
    running: str | None
    override: Any
    description: str
    tags: list[str]
    enabled: bool
    defined_in: str
    created_at: At | None
    who: str


# Housekeeping


class Backup(Named):
    """A copy of the store."""

    path: str
    bytes: int
    made_at: At


class Kept(TypedDict):
    """For how long is kept what, and how much of the disk may be taken."""

    events: Duration
    runs: Duration
    logs: Duration
    disk: str | None


class TallyOf(TypedDict):
    """What a round removed, or would remove."""

    dry_run: bool
    runs: int
    events: int
    files: int
    file_bytes: int
    shrunk_bytes: int
    used_bytes: int | None
    over_bytes: int


class PastRound(TallyOf):
    """The last round."""

    began_at: At
    ended_at: At
    problem: str | None


class Purged(TypedDict):
    """What was removed, ever, and before which instant there may be nothing."""

    events: int
    runs: int
    before: At | None


class StoreSize(TypedDict):
    """How large the store is, and how much of it is free."""

    bytes: int
    free_bytes: int
    shrinks: bool


class HousekeepingOf(TypedDict):
    """What is kept for how long, and what was removed."""

    keep: Kept
    running: TallyOf | None
    last: PastRound | None
    purged: Purged
    store: StoreSize
    would_remove: NotRequired[TallyOf]


# Alerts and the log


class AlertScope(WindowScope):
    """What an alert looks at: nothing named is everything."""

    sources: list[str]


class AlertSubject(TypedDict):
    """For whom an alert is open, is about to open, or is over, which is yet to be told."""

    subject: str
    state: Literal["pending", "open", "over"]
    text: str
    value: float
    since: At
    opened_at: At | None
    told_at: At | None


class MuteOf(TypedDict):
    """That nobody is told of an alert."""

    since: At
    until: At
    who: str
    reason: str


class AcknowledgementOf(TypedDict):
    """That somebody has taken on what is open."""

    at: At
    who: str
    reason: str


AlertOf = TypedDict(
    "AlertOf",
    {
        "name": str, "state": Literal["disabled", "open", "pending", "ok"], "open": int,
        "severity": Annotated[str, Meta(extra_json_schema={"enum": list(words_of(Severity))})],
        "when": str, "what": str, "for": Duration, "clear_for": Duration, "gather": Duration, "repeat": str,
        "recovery": bool, "scope": AlertScope, "notify": list[str], "subjects": list[AlertSubject],
        "muted": MuteOf | None, "acknowledged": AcknowledgementOf | None, "problem": str | None,
        "looked_at": At | None, "builtin": bool, "description": str, "tags": list[str], "enabled": bool,
        "defined_in": str,
    },
)  # fmt: skip


class WholeAlert(AlertOf):
    """An alert, and who was told of it last."""

    deliveries: list[DeliveryOf]


class AlertTested(TypedDict):
    """The deliveries that tell all who are told of an alert that this is a test."""

    alert: str
    deliveries: list[Id]


class ChangedLevel(TypedDict):
    """A level that was changed since the start; without `until` it holds until the engine ends."""

    level: Level
    until: At | None
    who: str


class LogLevels(TypedDict):
    """How much each part of the engine tells."""

    levels: dict[str, Level]
    configured: dict[str, Level]
    changed: dict[str, ChangedLevel]
    parts: list[str]


# Who may, and who did


class FormerSecret(TypedDict):
    """The secret that a token had before, which is valid for a while."""

    prefix: str
    until: At


class TokenOf(Named):
    """A token; nothing of it opens anything."""

    role: Literal["viewer", "operator", "admin"]
    tags: list[str]
    description: str
    prefix: str | None
    created_at: At | None
    created_by: str | None
    rotated_at: At | None
    former: FormerSecret | None
    expires_at: At | None
    expired: bool
    used_at: At | None
    used_from: str | None


class MintedToken(TokenOf):
    """A token with its secret, which is told this once."""

    token: str


class AuditRowOf(TypedDict):
    """A change, or an attempt that was refused. `hash` is that of the chain up to here."""

    seq: int
    at: At
    who: str | None
    role: str | None
    means: str | None
    prefix: str | None
    claims: Any
    address: str | None
    action: str
    target: str | None
    outcome: Annotated[str, Meta(extra_json_schema={"enum": list(words_of(AuditOutcome))})]
    status: int | None
    code: str | None
    reason: str | None
    count: int
    before: Any
    after: Any
    request_id: str | None
    hash: str


class ChainOf(TypedDict):
    """Whether the audit log is as it was written."""

    ok: bool
    rows: int
    head: str
    wrong: str | None
