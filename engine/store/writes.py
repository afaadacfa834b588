"""How a batch of changes becomes statements: few of them, each with many rows.

The statements of one transaction run in a thread beside a busy event loop. Each statement gives the
interpreter lock away and has to win it back, so a batch is a handful of statements with many rows of
parameters rather than a statement for each row. Changes of one kind are put together in a *wave*; a wave ends
where a run comes up that it has already taken as far or further, so that changes of one run keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from msgspec.structs import replace

from engine.clock import to_microseconds
from engine.decide.marks import Claim, Place
from engine.runs import ENDED, TRANSITIONS, WAITING, RunState
from engine.store import backfills, deliveries, purging, spans, tallies, tokens
from engine.store.changes import (
    ENQUEUEABLE,
    HOLDABLE,
    STARTABLE,
    Accept,
    Adopt,
    AskCancel,
    Change,
    End,
    Enqueue,
    Entry,
    Finish,
    Hold,
    Memory,
    NoteProcess,
    Postpone,
    SetPriority,
    Start,
    accept_of,
)
from engine.store.rows import (
    EVENT_COLUMNS,
    NEW_RUN_COLUMNS,
    OUTCOME_COLUMNS,
    PLAIN_EVENT_COLUMNS,
    READY_RUN_COLUMNS,
    attempt_fragment,
    cause_text,
    claim_row,
    encode_value,
    event_row,
    is_ready,
    new_run_row,
    outcome_row,
    plain_event_row,
    ready_run_row,
    step_fragment,
)

MOST_FORGOTTEN = 1_000
"""Marks that are forgotten in one statement."""

MOST_ROWS = 64
"""Rows of parameters in one statement; more become several statements."""


def _states(states: frozenset[RunState]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


def _width(columns: str) -> int:
    return columns.count(",") + 1


def _ends() -> str:
    return ", ".join(f"('{state}', '{end}')" for state in sorted(WAITING) for end in sorted(TRANSITIONS[state] & ENDED))


# Each updating statement names the states that it may leave, so that what has ended stays.
STATEMENTS: dict[str, tuple[str, int]] = {
    # Store new events; a key that is there already breaks events_key.
    "insert_events": (f"insert into events ({EVENT_COLUMNS}) values {{rows}}", _width(EVENT_COLUMNS)),
    # The same, of those that have neither a key, nor a priority, a cause or a trace.
    "insert_plain_events": (f"insert into events ({PLAIN_EVENT_COLUMNS}) values {{rows}}", _width(PLAIN_EVENT_COLUMNS)),
    # Store what became of events.
    "insert_outcomes": (f"insert into outcomes ({OUTCOME_COLUMNS}) values {{rows}}", 7),
    # Store new runs; a second run for trigger, origin and key breaks runs_key.
    "insert_ready_runs": (f"insert into runs ({READY_RUN_COLUMNS}) values {{rows}}", _width(READY_RUN_COLUMNS)),
    # The same, of all others.
    "insert_runs": (f"insert into runs ({NEW_RUN_COLUMNS}) values {{rows}}", _width(NEW_RUN_COLUMNS)),
    # Store runs of due instants that were missed; those that are there already are left.
    "insert_missed": (
        f"insert or ignore into runs ({NEW_RUN_COLUMNS}, outputs) values {{rows}}",
        _width(NEW_RUN_COLUMNS) + 1,
    ),
    # Remember how far sources have come.
    "move_cursors": (
        "insert into cursors (source, value, moved_at) values {rows} "
        "on conflict (source) do update set value = excluded.value, moved_at = excluded.moved_at",
        3,
    ),
    # Have sources remember values.
    "remember": (
        "insert into memory (source, key, value) values {rows} on conflict (source, key) do update set "
        "value = excluded.value",
        3,
    ),
    # Have sources forget values.
    "forget": ("delete from memory where (source, key) in (select column1, column2 from (values {rows}))", 2),
    # Give pending runs one more event.
    "join": (
        "update runs set event = v.column2, event_count = event_count + v.column3, due_at = v.column4, "
        "priority = max(priority, v.column5), event_bytes = event_bytes + v.column6, "
        "expires_at = expires_at + v.column4 - due_at, cause = coalesce(v.column7, cause) "
        "from (values {rows}) as v where runs.id = v.column1 and runs.state = 'pending'",
        7,
    ),
    # Note by which inputs events of runs came.
    "fill": ("insert into inputs (run, event, input) values {rows}", 3),
    # Events that others took the place of are none of their runs any more.
    "supersede": (
        "update outcomes set outcome = 'deduplicated', code = v.column3, reason = v.column4 from (values {rows}) as v "
        "where outcomes.event = v.column1 and outcomes.trigger = v.column2",
        4,
    ),
    # They came by no input of them.
    "empty": ("delete from inputs where (run, event) in (select column1, column2 from (values {rows}))", 2),
    # Where such an event was the first of its run, the other one is now.
    "set_first": (
        "update runs set first_event = v.column2 from (values {rows}) as v where runs.id = v.column1",
        2,
    ),
    # Have gates remember; a mark that is there, has an effect and was not seen is left.
    "claim": (
        "insert into marks (trigger, gate, key, until, run, closes_at) "
        "select v.column1, v.column2, v.column3, v.column4, v.column5, v.column6 "
        "from (values {rows}) as v left join marks m "
        "on m.trigger = v.column1 and m.gate = v.column2 and m.key = v.column3 "
        "where m.until is null or m.until <= v.column7 or m.until = v.column8 "
        "on conflict (trigger, gate, key) do update set "
        "until = excluded.until, run = excluded.run, closes_at = excluded.closes_at",
        8,
    ),
    # Move marks that were seen.
    "extend": (
        "update marks set until = v.column4 from (values {rows}) as v "
        "where marks.trigger = v.column1 and marks.gate = v.column2 and marks.key = v.column3 "
        "and marks.until = v.column8",
        8,
    ),
    # Forget marks that have no effect any more.
    "forget_marks": (
        "delete from marks where (trigger, gate, key) in (select trigger, gate, key from marks indexed by marks_until "
        f"where until <= (values {{rows}}) order by until limit {MOST_FORGOTTEN})",
        1,
    ),
    # See that runs for which others are skipped are there, and have not ended.
    "in_the_way": (
        "update runs set state = state from (values {rows}) as v "
        f"where runs.id = v.column1 and runs.state not in ({_states(ENDED)})",
        1,
    ),
    # Let pending runs wait for something else than their windows.
    "postpone": (
        "update runs set code = v.column2, due_at = v.column3, throttled = v.column5, window = null, "
        "trace = trace || ',' || v.column4 from (values {rows}) as v "
        "where runs.id = v.column1 and runs.state = 'pending'",
        5,
    ),
    # Let all runs that wait for one clock be due later.
    "shift_runs": (
        "update runs indexed by runs_throttled set due_at = due_at + v.column3 from (values {rows}) as v "
        "where runs.state = 'pending' and runs.throttled is not null "
        "and runs.trigger = v.column1 and runs.throttled = v.column2",
        3,
    ),
    # Move a clock on with what waits for it.
    "shift_mark": (
        "insert or replace into marks (trigger, gate, key, until) "
        "select column1, 'throttle', column2, column3 from (values {rows})",
        3,
    ),
    # Make waiting runs ready.
    "enqueue": (
        "update runs set state = 'queued', code = v.column2, rank = v.column3, due_at = null, window = null, "
        "trace = trace || ',' || v.column4 from (values {rows}) as v "
        f"where runs.id = v.column1 and runs.state in ({_states(ENQUEUEABLE)})",
        4,
    ),
    # Hold waiting runs.
    "hold": (
        "update runs set state = 'held', code = v.column2, due_at = v.column3, window = null, "
        "trace = trace || ',' || v.column4 from (values {rows}) as v "
        f"where runs.id = v.column1 and runs.state in ({_states(HOLDABLE)})",
        4,
    ),
    # Give waiting runs another priority, and the rank that goes with it.
    "set_priority": (
        "update runs set rank = rank + (priority - v.column2) * v.column3, priority = v.column2, "
        "trace = trace || ',' || v.column4 from (values {rows}) as v "
        f"where runs.id = v.column1 and runs.state in ({_states(WAITING)})",
        4,
    ),
    # Make waiting runs running.
    "start": (
        "update runs set state = 'running', code = v.column2, attempt = v.column3, started_at = v.column4, "
        "boot = v.column5, due_at = null, expires_at = null, window = null, process = null, process_started = null, "
        "trace = trace || ',' || v.column6 from (values {rows}) as v "
        f"where runs.id = v.column1 and runs.state in ({_states(STARTABLE)})",
        6,
    ),
    # Remember the processes of running runs.
    "note_process": (
        "update runs set process = v.column2, process_started = v.column3 "
        "from (values {rows}) as v where runs.id = v.column1 and runs.state = 'running'",
        3,
    ),
    # Remember that running runs are to be cancelled.
    "ask_cancel": (
        "update runs set code = v.column2, trace = trace || ',' || v.column3 "
        "from (values {rows}) as v where runs.id = v.column1 and runs.state = 'running'",
        3,
    ),
    # Have running runs go on in another engine process.
    "adopt": (
        "update runs set code = v.column2, boot = v.column3, trace = trace || ',' || v.column4 "
        "from (values {rows}) as v where runs.id = v.column1 and runs.state = 'running'",
        4,
    ),
    # End attempts of running runs.
    "finish": (
        "update runs set state = v.column2, code = v.column3, attempt = v.column4, due_at = v.column5, "
        "rank = coalesce(v.column6, rank), finished_at = v.column7, exit_code = v.column8, outputs = v.column9, "
        "boot = null, process = null, process_started = null, trace = trace || ',' || v.column10, "
        "attempts = case attempts when '' then v.column11 else attempts || ',' || v.column11 end "
        "from (values {rows}) as v where runs.id = v.column1 and runs.state = 'running' "
        f"and v.column2 in ({_states(TRANSITIONS[RunState.RUNNING])})",
        11,
    ),
    # End waiting runs.
    "end": (
        "update runs set state = v.column2, code = v.column3, finished_at = v.column4, due_at = null, window = null, "
        "trace = trace || ',' || v.column5 from (values {rows}) as v "
        f"where runs.id = v.column1 and (runs.state, v.column2) in (values {_ends()})",
        5,
    ),
    **backfills.STATEMENTS,
    **spans.STATEMENTS,
    **deliveries.STATEMENTS,
    **tallies.STATEMENTS,
    **purging.STATEMENTS,
    **tokens.STATEMENTS,
}

_ORDER = tuple(STATEMENTS)
_GUARDED = frozenset(
    {"join", "supersede", "set_first", "in_the_way", "claim", "extend", "postpone", "hold", "set_priority", "enqueue",
     "start", "note_process", "ask_cancel", "adopt", "finish", "end", "move_backfill", "turn_backfill"}
)  # fmt: skip


@lru_cache(maxsize=1024)
def statement(name: str, count: int) -> str:
    """Return the text of a statement for `count` rows of parameters."""
    text, width = STATEMENTS[name]
    row = "(" + ", ".join("?" * width) + ")"
    return text.replace("{rows}", ", ".join([row] * count))


Statement = tuple[str, int, list[Any], bool]
"""Text, row count, parameters, and whether each row must change exactly one run."""


class Wave:
    """Changes that can be made together: rows by statement, in the one order in which statements run."""

    __slots__ = ("claims", "firsts", "in_the_way", "joins", "rows", "size_bytes", "touched")

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.joins: dict[str, tuple[Any, ...]] = {}
        self.in_the_way: dict[str, tuple[str]] = {}
        self.firsts: dict[str, tuple[str, str]] = {}
        self.claims: dict[Place, Claim] = {}
        self.touched: dict[str, int] = {}
        self.size_bytes = 0

    def add(self, name: str, row: tuple[Any, ...]) -> None:
        rows = self.rows.get(name)
        if rows is None:
            self.rows[name] = [row]
        else:
            rows.append(row)

    def claim(self, claims: Sequence[Claim]) -> None:
        """Add claims, each to that which the wave makes of its mark already; see `can_claim`."""
        for claim in claims:
            before = self.claims.get(claim.place)
            self.claims[claim.place] = claim if before is None else replace(before, mark=claim.mark)

    def can_claim(self, claims: Sequence[Claim]) -> bool:
        """Tell whether each claim goes on from what the wave makes of its mark, where it does."""
        return all(
            (before := self.claims.get(claim.place)) is None or claim.seen == before.mark.until for claim in claims
        )

    def statements(self) -> list[Statement]:
        """Return the statements that make the changes, in order."""
        result: list[Statement] = []
        for claim in self.claims.values():
            self.add("extend" if claim.extends else "claim", claim_row(claim))
        self.claims = {}
        for name in _ORDER:
            apart = {"join": self.joins, "in_the_way": self.in_the_way, "set_first": self.firsts}.get(name)
            rows = self.rows.get(name) if apart is None else list(apart.values())
            if not rows:
                continue
            for start in range(0, len(rows), MOST_ROWS):
                chunk = rows[start : start + MOST_ROWS]
                values = list(chain.from_iterable(chunk))
                result.append((statement(name, len(chunk)), len(chunk), values, name in _GUARDED))
        return result


_PHASE = {
    Postpone: 2, Enqueue: 2, Hold: 3, SetPriority: 4, Start: 5, NoteProcess: 6, AskCancel: 7, Adopt: 8, Finish: 9,
    End: 10,
}  # fmt: skip
_ACCEPT_PHASE, _JOIN_PHASE = 0, 1


def plan(changes: Sequence[Change], moved_at: int) -> list[Wave]:
    """Return the waves that make `changes`, in their order. `moved_at` dates the cursors (microseconds)."""
    waves = [Wave()]
    for change in changes:
        wave = waves[-1]
        if not isinstance(change, Accept):
            phase = _PHASE[type(change)]
            if wave.touched.get(change.run, -1) >= phase:
                wave = Wave()
                waves.append(wave)
            if isinstance(change, Postpone) and not wave.can_claim(change.claims):
                wave = Wave()
                waves.append(wave)
            wave.touched[change.run] = phase
            _add_transition(wave, change)
        accept = accept_of(change)
        if accept is not None:
            if not _fits(wave, accept):
                wave = Wave()
                waves.append(wave)
            _add_accept(wave, accept, moved_at)
    return waves


def _fits(wave: Wave, change: Accept) -> bool:
    """Whether `change` may go into the wave, whose statements run in one order whatever the changes' was.

    Not where the wave has moved a run that `change` joins or names, or was asked to move one that `change` only makes.
    Nor where it records missed runs, which come after new ones in a wave and may be of the same instant.
    """
    touched, missed = wave.touched, "insert_missed" in wave.rows
    if (change.memory is not None or change.memories) and ("remember" in wave.rows or "forget" in wave.rows):
        # Remembering comes before forgetting in a wave, whatever the order was.
        return False
    if "forget" in wave.rows and any(entry.memory is not None for entry in change.entries):
        return False
    if change.keep_tokens and "drop_token" in wave.rows:
        return False  # one of that name is dropped first
    if change.backfill is not None and not wave.rows.keys().isdisjoint(backfills.STATEMENTS):
        return False
    for entry in change.entries:
        for run in entry.runs:
            if missed or run.id in touched:
                return False
        if entry.claims and not wave.can_claim(entry.claims):
            return False
        for run_id in [*[join.run for join in entry.joins], *entry.in_the_way]:
            if touched.get(run_id, -1) > _JOIN_PHASE:
                return False
    return True


def _add_accept(wave: Wave, change: Accept, moved_at: int) -> None:
    for entry in change.entries:
        event = entry.event
        event_id = event.id
        if event.key is None and event.priority is None and event.cause is None and event.trace is None:
            wave.add("insert_plain_events", plain_event_row(entry))
        else:
            wave.add("insert_events", event_row(entry))
        wave.size_bytes += len(entry.data)
        for outcome in entry.outcomes:
            wave.add("insert_outcomes", outcome_row(event_id, outcome))
        for run in entry.runs:
            if is_ready(run):
                wave.add("insert_ready_runs", ready_run_row(run))
            else:
                wave.add("insert_runs", new_run_row(run))
            wave.touched[run.id] = _ACCEPT_PHASE
        for join in entry.joins:
            _, _, count, _, priority, size_bytes, cause = wave.joins.get(join.run, (None, None, 0, None, 0, 0, None))
            row = (
                join.run,
                join.event,
                count + join.count,
                to_microseconds(join.due_at),
                max(priority, join.priority),
                size_bytes + join.size_bytes,
                cause if join.cause is None else cause_text(join.cause),
            )
            wave.joins[join.run] = row
            wave.touched[join.run] = _JOIN_PHASE
        for run_id in entry.in_the_way:
            wave.in_the_way[run_id] = (run_id,)
            wave.touched[run_id] = _JOIN_PHASE
        if entry.claims:
            wave.claim(entry.claims)
        if entry.memory is not None:
            _remember(wave, entry.memory)
        if entry.fills:
            _add_fills(wave, entry)
    for run in change.missed:
        outputs = None if run.outputs is None else encode_value(run.outputs)
        wave.add("insert_missed", (*new_run_row(run), outputs))
    if change.cursor is not None:
        wave.add("move_cursors", (change.cursor.source, encode_value(change.cursor.value), moved_at))
    for cursor in change.cursors:
        wave.add("move_cursors", (cursor.source, encode_value(cursor.value), moved_at))
    if change.memory is not None:
        _remember(wave, change.memory)
    for memory in change.memories:
        _remember(wave, memory)
    if change.forget_marks is not None:
        wave.add("forget_marks", (to_microseconds(change.forget_marks),))
    if change.shift is not None:
        shift = change.shift
        wave.add("shift_runs", (shift.trigger, shift.key, shift.by // timedelta(microseconds=1)))
        wave.add("shift_mark", (shift.trigger, shift.key, to_microseconds(shift.until)))
    if change.backfill is not None:
        wave.add(*backfills.change_row(change.backfill))
    for span in change.spans:
        wave.add("note_span", spans.span_row(span))
    if change.forget_spans is not None:
        wave.add("forget_spans", (to_microseconds(change.forget_spans),))
    for delivery in change.deliveries:
        wave.add("insert_deliveries", deliveries.delivery_row(delivery))
    for tried in change.tried:
        wave.add("tried", deliveries.tried_row(tried))
    if change.forget_deliveries is not None:
        wave.add("forget_deliveries", (to_microseconds(change.forget_deliveries),))
    for tally in change.tallies:
        wave.add("note_tally", tallies.tally_row(tally))
    for width, before in (change.forget_tallies or {}).items():
        wave.add("forget_tallies", (width._value_, to_microseconds(before)))
    if change.keep_tokens or change.drop_tokens or change.token_uses:
        _add_tokens(wave, change)
    if change.purge is not None:
        for name, row in purging.purge_rows(change.purge):
            wave.add(name, row)
        # Measured: what is written of a removed row is a quarter of a page, in all tables and indexes.
        wave.size_bytes += 1024 * (len(change.purge.events) + len(change.purge.runs))


def _add_tokens(wave: Wave, change: Accept) -> None:
    for token in change.keep_tokens:
        wave.add("keep_token", tokens.token_row(token))
    for token_id in change.drop_tokens:
        wave.add("drop_token", (token_id,))
    for use in change.token_uses:
        wave.add("use_token", tokens.use_row(use))


def _remember(wave: Wave, memory: Memory) -> None:
    for key, value in memory.values.items():
        if value is None:
            wave.add("forget", (memory.source, key))
        else:
            wave.add("remember", (memory.source, key, encode_value(value)))


def _add_fills(wave: Wave, entry: Entry) -> None:
    for fill in entry.fills:
        wave.add("fill", (fill.run, fill.event, fill.input))
    for one in entry.supersedes:
        wave.add("supersede", (one.old, one.trigger, one.code, one.reason))
        wave.add("empty", (one.run, one.old))
        if one.first:
            # The last one of a wave counts.
            wave.firsts[one.run] = (one.run, one.event)


def _add_transition(
    wave: Wave,
    change: Postpone | Hold | SetPriority | Enqueue | Start | NoteProcess | AskCancel | Adopt | Finish | End,
) -> None:
    if isinstance(change, Start):
        step = change.step
        wave.add("start", (change.run, step.code, change.attempt, to_microseconds(step.at), change.boot,
                           step_fragment(step)))  # fmt: skip
    elif isinstance(change, NoteProcess):
        wave.add("note_process", (change.run, change.pid, change.started))
    elif isinstance(change, Finish):
        step, attempt = change.step, change.attempt
        wave.add(
            "finish",
            (
                change.run, step.state._value_, step.code, change.attempt_count,
                None if change.due_at is None else to_microseconds(change.due_at), change.rank,
                to_microseconds(step.at) if step.state in ENDED else None, attempt.exit_code,
                None if change.outputs is None else encode_value(change.outputs),
                step_fragment(step), attempt_fragment(attempt),
            ),
        )  # fmt: skip
    elif isinstance(change, Postpone):
        step = change.step
        wave.add(
            "postpone", (change.run, step.code, to_microseconds(change.due_at), step_fragment(step), change.throttled)
        )
        wave.claim(change.claims)
    elif isinstance(change, AskCancel):
        wave.add("ask_cancel", (change.run, change.step.code, step_fragment(change.step)))
    elif isinstance(change, Adopt):
        wave.add("adopt", (change.run, change.step.code, change.boot, step_fragment(change.step)))
    elif isinstance(change, SetPriority):
        wave.add("set_priority", (change.run, change.priority, change.ageing_us, step_fragment(change.step)))
    elif isinstance(change, Enqueue):
        wave.add("enqueue", (change.run, change.step.code, change.rank, step_fragment(change.step)))
    elif isinstance(change, Hold):
        until = None if change.until is None else to_microseconds(change.until)
        wave.add("hold", (change.run, change.step.code, until, step_fragment(change.step)))
    else:
        step = change.step
        wave.add("end", (change.run, step.state._value_, step.code, to_microseconds(step.at), step_fragment(step)))
