"""The SQLite schema, as numbered migrations. What was released is never edited; a change is a new migration.

Instants are integers: microseconds since 1970, UTC. Trace and attempts are JSON fragments without the outer
brackets, so that appending is a concatenation.
"""

from __future__ import annotations

APPLICATION_ID = 0x54524947
"""What PRAGMA application_id says of our files: "TRIG"."""

_INITIAL = """
create table events (
    seq integer primary key,
    id text not null,
    source text not null,
    type text not null,
    subject text,
    time integer not null,
    received_at integer not null,
    key text,
    priority integer,
    data text not null
) strict;
create unique index events_id on events (id);
-- The identity of an event: the promise that an occurrence is one row lives here.
create unique index events_key on events (source, key) where key is not null;

create table outcomes (
    event text not null,
    trigger text not null,
    outcome text not null,
    run text,
    code text not null,
    reason text not null,
    primary key (event, trigger)
) strict, without rowid;
-- The events of a run that gathered several; a run's first event stands in the run itself.
create index outcomes_joined on outcomes (run) where outcome = 'joined';

create table runs (
    seq integer primary key,
    id text not null,
    job text not null,
    trigger text not null,
    origin text not null,
    key text not null,
    first_event text not null,
    event text not null,
    event_count integer not null,
    state text not null,
    code text not null,
    priority integer not null,
    rank integer not null,
    attempt integer not null,
    created_at integer not null,
    due_at integer,
    closes_at integer,
    window text,
    scheduled_for integer,
    started_at integer,
    finished_at integer,
    exit_code integer,
    outputs text,
    process integer,
    process_started integer,
    boot text,
    trace text not null,
    attempts text not null default ''
) strict;
create unique index runs_id on runs (id);
-- At most one run for a trigger, origin and key.
create unique index runs_key on runs (trigger, origin, key);
-- The queue, in the order in which it is taken.
create index runs_queue on runs (job, rank, id) where state = 'queued';
-- What waits for its time.
create index runs_due on runs (due_at, id) where state in ('pending', 'retrying');
-- What a crash has to settle, and the gates to ask again.
create index runs_live on runs (state) where state in ('running', 'held');

create table cursors (
    source text primary key,
    value text not null,
    moved_at integer not null
) strict, without rowid;
"""

_MEMORY = """
create table memory (
    source text not null,
    key text not null,
    value text not null,
    primary key (source, key)
) strict, without rowid;
"""

_IN_THE_WAY = """
-- What counts when a new run of a job with a limit comes: retries, and due instants that wait.
create index runs_in_the_way on runs (job, id)
    where (state = 'retrying' or (state in ('queued', 'held') and origin = 'schedule'));
"""

_BACKFILLS = """
create table backfills (
    seq integer primary key,
    id text not null,
    trigger text not null,
    request text,
    state text not null,
    state_reason text not null,
    total integer not null,
    position integer not null,
    created_at integer not null,
    finished_at integer,
    definition text not null,
    ends text not null,
    instants text not null
) strict;
create unique index backfills_id on backfills (id);
-- One backfill for each request.
create unique index backfills_request on backfills (request) where request is not null;
-- Those that have something left to do.
create index backfills_open on backfills (id) where state in ('cancelling', 'paused', 'running');

-- The queue has two lanes, each in the order in which it is taken.
drop index runs_queue;
create index runs_queue on runs (job, rank, id) where state = 'queued' and origin <> 'backfill';
create index runs_backfill_queue on runs (job, rank, id) where state = 'queued' and origin = 'backfill';
-- Which due instants have run with success.
create index runs_succeeded_for on runs (trigger, scheduled_for)
    where state = 'succeeded' and scheduled_for is not null;
"""

_HINDSIGHT = """
-- What the gates of a trigger saw, as a JSON fragment like a trace; null where it has none.
alter table outcomes add column gates text;

-- When engines ran, and pauses, troubles and triggers held.
create table spans (
    kind text not null,
    name text not null,
    began_at integer not null,
    ended_at integer,
    detail text not null,
    primary key (kind, name, began_at)
) strict, without rowid;
-- What still holds.
create index spans_open on spans (kind, name) where ended_at is null;
-- What ended long ago.
create index spans_ended on spans (ended_at) where ended_at is not null;

-- What came when.
create index events_received on events (received_at);
"""

_HELD = """
-- What waits for its time: held runs, too, which are asked about again.
drop index runs_due;
create index runs_due on runs (due_at, id) where state in ('held', 'pending', 'retrying');
-- Held runs, in the order in which they are asked about.
create index runs_held on runs (trigger, rank, id) where state = 'held';
"""

_LANES = """
-- What people ask for waits in a lane of its own, so that slots can be kept for it.
drop index runs_queue;
create index runs_queue on runs (job, rank, id)
    where state = 'queued' and origin <> 'backfill' and origin <> 'manual';
create index runs_manual_queue on runs (job, rank, id) where state = 'queued' and origin = 'manual';
"""

_SHAPING = """
-- What gates remember of keys, until an instant from which on it has no effect: see engine/decide/marks.py.
create table marks (
    trigger text not null,
    gate text not null,
    key text not null,
    until integer not null,
    run text,
    closes_at integer,
    primary key (trigger, gate, key)
) strict, without rowid;
-- What can be forgotten.
create index marks_until on marks (until);

alter table runs add column expires_at integer;
alter table runs add column event_bytes integer not null default 0;
alter table runs add column throttled text;
-- What waits for its turn, by the clock that tells it.
create index runs_throttled on runs (trigger, throttled, due_at) where state = 'pending' and throttled is not null;
-- What waits only so long.
create index runs_expiring on runs (expires_at, id)
    where expires_at is not null and state in ('pending', 'queued', 'held');
"""

_INPUTS = """
-- The events of runs of triggers on several sources: by which input each came.
create table inputs (
    run text not null,
    event text not null,
    input text not null,
    primary key (run, event)
) strict, without rowid;
"""

_LIMITS = """
-- The value by which the limit of its job holds, as it was when the run came to be.
alter table runs add column limit_key text;
"""

_PURGED = """
-- What was removed after its time, so that all that was ever accepted still adds up: see engine/store/purging.py.
create table purged (
    what text not null,
    trigger text not null,
    count integer not null,
    last text not null,
    before integer not null,
    primary key (what, trigger)
) strict, without rowid;
"""

_CAUSES = """
-- The run that caused an event, and how long the chain of runs before it is, as JSON; null for what comes from outside.
alter table events add column cause text;
-- The longest of those of its events.
alter table runs add column cause text;
"""

_AFTER_A_RUN = """
-- Who is told of the ends of runs, and how that went.
create table deliveries (
    seq integer primary key,
    id text not null,
    target text not null,
    run text not null,
    job text not null,
    event text not null,
    created_at integer not null,
    message text not null,
    state text not null,
    code text not null,
    reason text not null,
    attempts integer not null,
    due_at integer,
    finished_at integer
) strict;
create unique index deliveries_id on deliveries (id);
create index deliveries_run on deliveries (run, id);
-- What waits for its next try, receiver by receiver.
create index deliveries_due on deliveries (target, due_at, seq) where state = 'waiting';
-- What ended long ago.
create index deliveries_finished on deliveries (finished_at) where finished_at is not null;

-- How runs ended, hour by hour and day by day: see engine/tallies.py.
create table tallies (
    trigger text not null,
    job text not null,
    width text not null,
    began_at integer not null,
    detail text not null,
    primary key (trigger, width, began_at, job)
) strict, without rowid;
create index tallies_job on tallies (job, width, began_at);
-- What is going on, and what is old.
create index tallies_began on tallies (width, began_at);
"""

_BOOTS = """
-- The engines that have owned this store, and by whom each was succeeded; null for the one that owns it.
create table boots (
    id text primary key,
    pid integer not null,
    started integer not null,
    machine text not null,
    began_at integer not null,
    renewed_at integer not null,
    successor text
) strict, without rowid;
"""

_ACCESS = """
-- Who may ask for what: digests of secrets, and no secret; see engine/tokens.py.
create table tokens (
    id text primary key,
    name text not null,
    detail text not null,
    used_at integer,
    used_from text
) strict, without rowid;
create unique index tokens_name on tokens (name);

-- Who had what done, or was refused: a chain of hashes, see engine/audits.py. The columns below are read from the text.
create table audit (
    seq integer primary key,
    entry text not null,
    hash blob not null,
    at integer generated always as (json_extract(entry, '$.at')) virtual,
    who text generated always as (coalesce(json_extract(entry, '$.who'), '')) virtual,
    action text generated always as (json_extract(entry, '$.action')) virtual,
    target text generated always as (coalesce(json_extract(entry, '$.target'), '')) virtual,
    outcome text generated always as (json_extract(entry, '$.outcome')) virtual
) strict;
create index audit_at on audit (at, seq);
create index audit_who on audit (who, seq);
create index audit_action on audit (action, seq);
create index audit_target on audit (target, seq);
create index audit_outcome on audit (outcome, seq);
-- The last row, so that it is known where the end was cut off.
create table audit_head (
    one integer primary key check (one = 1),
    seq integer not null,
    hash blob not null
) strict;
-- Rows are added alone: this keeps from mistakes, and the chain tells of intent.
create trigger audit_stays before update on audit begin select raise(abort, 'the audit log is added to alone'); end;
create trigger audit_keeps before delete on audit begin select raise(abort, 'the audit log is added to alone'); end;
"""

_TRACES = """
-- The traceparent with which an event came, where traces are made.
alter table events add column trace text;
"""

MIGRATIONS: tuple[str, ...] = (
    _INITIAL, _MEMORY, _IN_THE_WAY, _BACKFILLS, _HINDSIGHT, _HELD, _LANES, _SHAPING,
    _LIMITS, _PURGED, _CAUSES, _INPUTS, _AFTER_A_RUN, _BOOTS, _ACCESS, _TRACES,
)  # fmt: skip
"""Migration n (from 1) brings a file from version n-1 to version n."""
