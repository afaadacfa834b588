"""Printing the future for people: sentences, a table, a map of the hours. Times are those of the engine's zone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from engine.cli.output import say, say_table
from engine.units import format_span

MOST_ROWS = 40
"""So many triggers stand in the table, the busiest; `--json` has all."""

MOST_OPENINGS = 10
"""So many openings of maintenance windows are told."""

MOST_DAYS = 31
"""A map has so many days; where there are more, it shows the weeks' days on average."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_HOURS = "0     6     12    18    "
_COLUMNS = (
    ("waited", "wait"), ("skipped", "skipped"), ("replaced", "replaced"), ("cancelled", "cancelled"),
    ("missed", "missed"), ("paused", "paused"), ("rejected", "rejected"), ("quarantined", "quarantined"),
    ("filtered", "filtered"), ("deduplicated", "repeated"), ("rate_limited", "too many"),
    ("timed_out", "time out"), ("interrupted", "interrupted"), ("unfinished", "unstarted"),
)  # fmt: skip
_NOT_RUN = (
    "skipped", "missed", "paused", "rejected", "quarantined", "filtered", "deduplicated", "rate_limited", "unfinished",
)  # fmt: skip
_TITLES = {
    "waits": "Wait for a slot, or for maintenance",
    "interrupted": "Interrupted, as the engine stops",
    "timed_out": "Time out",
    "skipped": "Skipped",
    "replaced": "Replaced by a newer run",
    "cancelled": "Cancelled, as a maintenance window opens",
    "missed": "Missed",
    "paused": "Held off by a pause",
    "rejected": "Rejected, as runs cause runs without end",
    "quarantined": "Held back by a quarantine",
    "filtered": "Filtered out",
    "deduplicated": "Repeats, not run again",
    "rate_limited": "Dropped by a rate limit",
    "unfinished": "Not started by the end",
}


def say_forecast(view: Mapping[str, Any]) -> None:
    """Print what would happen."""
    zone = ZoneInfo(view["timezone"])
    for line in (*_head(view, zone), ""):
        say(line)
    _say_triggers(view)
    for line in (
        *_examples(view, zone),
        *_map(view, zone),
        *_maintenance(view, zone),
        *_quiet(view, zone),
        *_remarks(view),
    ):
        say(line)


def _head(view: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    slots = _count(view["concurrency"], "slot")
    yield f"From {_time(view['from'], zone)} to {_time(view['to'], zone)} ({view['timezone']}), {slots}:"
    total, peak = view["total"], view["peak"]
    parts = [f"{total['due']:,} due", _count(total["runs"], "run")]
    parts += [f"{total[key]:,} {said}" for key, said in _COLUMNS if total[key]]
    yield f"  {', '.join(parts)}."
    if peak["running"]:
        most = f"  At most {peak['running']:,} at once, {_time(peak['running_at'], zone)}"
        if peak["waiting"]:
            most += f"; at most {peak['waiting']:,} waiting, {_time(peak['waiting_at'], zone)}"
        yield f"{most}."


def _say_triggers(view: Mapping[str, Any]) -> None:
    rows = sorted(view["triggers"], key=lambda one: -one["busy_s"])
    if not rows:
        say("No trigger on a timer is due.")
        return
    waits = any(one["waited"] for one in rows)
    columns = ["trigger", "due", "runs", *(["wait", "longest"] if waits else []), "not run", "each run takes"]
    say_table(
        columns,
        [
            [
                one["name"], one["due"], one["runs"],
                *([one["waited"], _span(one["wait_longest_s"])] if waits else []),
                sum(one[key] for key in _NOT_RUN), _length(one["duration"]),
            ]
            for one in rows[:MOST_ROWS]
        ],
        optional=("due", "longest"),
    )  # fmt: skip
    if len(rows) > MOST_ROWS:
        say(f"… and {len(rows) - MOST_ROWS:,} triggers that are less busy; --json tells of all")


def _length(duration: Mapping[str, Any]) -> str:
    span = format_span(duration["seconds"])
    if duration["origin"] == "past":
        of_job = " of its job" if duration.get("of_job") else ""
        return f"{span} ({_count(duration['runs'], 'past run')}{of_job})"
    return f"{span} (given)" if duration["origin"] == "given" else f"{span} (a guess)"


def _examples(view: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    total = view["total"]
    for kind, items in view["examples"].items():
        count = total["waited" if kind == "waits" else kind]
        first = f", the first {len(items)} of {count:,}" if count > len(items) else ""
        yield ""
        yield f"{_TITLES.get(kind, kind)}{first}:"
        for item in items:
            yield f"  {_time(item['due_at'], zone)}  {item['trigger']}{_said(kind, item, zone)}"


def _said(kind: str, item: Mapping[str, Any], zone: ZoneInfo) -> str:
    if kind == "waits":
        return f" waits {format_span(item['waited_s'])} {item['reason'].removeprefix('waits ')}"
    if kind in ("timed_out", "interrupted"):
        return f" started {_time(item['started_at'], zone)}, ended {_time(item['finished_at'], zone)}"
    reason = item["reason"].removeprefix(f"{item['state']}: ")
    return f": {reason}" if item["count"] == 1 else f" and {item['count'] - 1:,} more: {reason}"


def _maintenance(view: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """Yield when maintenance windows are open, and whose runs wait for them."""
    openings = view["maintenance"]
    if not openings:
        return
    first = f", the first {MOST_OPENINGS} of {len(openings):,} times" if len(openings) > MOST_OPENINGS else ""
    yield ""
    yield f"Maintenance{first}:"
    for one in openings[:MOST_OPENINGS]:
        yield f"  {one['name']} from {_time(one['from'], zone)} to {_time(one['to'], zone)}"
    for one in view["triggers"]:
        waits = [f"{count:,} for {what}" for what, count in one["waits_for"].items() if what.startswith("maintenance ")]
        if waits:
            yield f"  of trigger {one['name']} wait: {', '.join(waits)}"


def _map(view: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """Yield a map: a line for each day, a digit for each hour."""
    hours = view["hours"]
    most_due = max((hour["due"] for hour in hours), default=0)
    if not most_due:
        return
    days: dict[str, dict[int, list[tuple[float, float]]]] = {}
    dates = {hour["local"][:10] for hour in hours}
    by_weekday = len(dates) > MOST_DAYS
    for hour in hours:
        at = datetime.fromisoformat(hour["local"])
        day = _DAYS[at.weekday()] if by_weekday else f"{_DAYS[at.weekday()]} {at:%Y-%m-%d}"
        days.setdefault(day, {}).setdefault(at.hour, []).append(
            (hour["due"] / most_due, hour["busy_s"] / (3600 * hour["part"] * view["concurrency"]))
        )
    width = max(map(len, days))
    due_title, busy_title = f"due: 9 is {most_due:,} an hour", "busy: 9 is all slots"
    yield ""
    yield f"{'On average' if by_weekday else 'By hour':{width}}  {due_title:27}{busy_title}"
    yield f"{'':{width}}  {_HOURS}   {_HOURS}".rstrip()
    order = sorted(days, key=_DAYS.index) if by_weekday else list(days)
    for day in order:
        cells = days[day]
        due = "".join(_digit(cells.get(hour), 0) for hour in range(24))
        busy = "".join(_digit(cells.get(hour), 1) for hour in range(24))
        yield f"{day:{width}}  {due}   {busy}".rstrip()


def _digit(parts: Sequence[tuple[float, float]] | None, which: int) -> str:
    """Return a digit for a share of what is the most; a dot for nothing, a blank where there is no such hour."""
    if parts is None:
        return " "
    share = sum(part[which] for part in parts) / len(parts)
    return "." if share <= 0 else str(min(int(share * 9 + 0.5), 9))


def _quiet(view: Mapping[str, Any], zone: ZoneInfo) -> Iterator[str]:
    if not view["quiet"]:
        return
    yield ""
    alike = view.get("quiet_alike", False)
    yield "All windows of that length are about as quiet; the first are:" if alike else "The quietest windows:"
    for window in view["quiet"]:
        busy = "nothing runs" if not window["busy_s"] else f"{format_span(window['busy_s'])} of runs"
        due = "nothing comes due" if not window["due"] else f"{window['due']:,} due"
        yield f"  {_time(window['from'], zone)} to {_time(window['to'], zone)}  {busy}, {due}"


def _remarks(view: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield from view["assumed"]
    reasons: dict[str, list[str]] = {}
    for one in view["not_foreseen"]:
        reasons.setdefault(one["reason"], []).append(one["name"])
    for reason, names in reasons.items():
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        yield f"Not foreseen: {', '.join(names[:10])}{more}: {reason}."


# Plans


def say_plan(view: Mapping[str, Any]) -> None:
    """Print what another configuration would change."""
    if not view["changes"]:
        say("Nothing changes.")
        return
    zone = ZoneInfo(view["timezone"])
    say(f"From {_time(view['from'], zone)} to {_time(view['to'], zone)} ({view['timezone']}):")
    for one in view["triggers"]:
        for line in _changed("Trigger", one):
            say(line)
        for line in _fires(one["fires"], zone, view["to"]):
            say(line)
    for one in view["jobs"]:
        for line in _changed("Job", one):
            say(line)
    for one in view["maintenance"]:
        for line in _changed("Window", one):
            say(line)
    for change in view["settings"]:
        say(f"Setting {_change(change)}")


def _changed(what: str, one: Mapping[str, Any]) -> Iterator[str]:
    yield f"{what} {one['name']} is {one['change']}"
    for change in one["keys"]:
        yield f"  {_change(change)}"


def _change(change: Mapping[str, Any]) -> str:
    before, after = change["from"], change["to"]
    if before == after:
        return f"{change['key']}: another secret"
    return f"{change['key']}: {_value(before)} -> {_value(after)}"


def _value(value: Any) -> str:
    import json

    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _fires(fires: Mapping[str, Any] | None, zone: ZoneInfo, end: str) -> Iterator[str]:
    if fires is None:
        return
    if fires["problem"]:
        yield f"  When it fires is not known: {fires['problem']}"
        return
    verbs = {"appear": "appears", "vanish": "vanishes", "move": "moves"}
    kinds = [(fires[kind], kind) for kind in verbs if fires[kind]]
    if not kinds:
        yield "  It fires as before"
        return
    said = ", ".join(f"{count:,} {kind if count != 1 else verbs[kind]}" for count, kind in kinds)
    yield f"  Instants: {said}; {fires['before']:,} before, {fires['after']:,} after"
    for one in fires["first"]:
        yield f"    {_instant(one, zone)}"
    left = sum(count for count, _ in kinds) - len(fires["first"])
    if left > 0:
        yield f"    … and {left:,} more"
    if fires["until"] != end:
        yield f"    Compared until {_time(fires['until'], zone)}, as there are too many"


def _instant(one: Mapping[str, Any], zone: ZoneInfo) -> str:
    if one["change"] == "moves":
        sign = "+" if one["by_s"] > 0 else "-"
        return (
            f"moves    {_time(one['from'], zone)} -> {_time(one['to'], zone)} ({sign}{format_span(abs(one['by_s']))})"
        )
    return f"{one['change']:8} {_time(one['from'] or one['to'], zone)}"


def _time(at: str, zone: ZoneInfo) -> str:
    local = datetime.fromisoformat(at).astimezone(zone)
    seconds = f"{local:%S}"
    form = "%Y-%m-%d %H:%M" if seconds == "00" else "%Y-%m-%d %H:%M:%S"
    return f"{_DAYS[local.weekday()]} {local:{form}}"


def _span(seconds: float) -> str:
    return format_span(seconds) if seconds else "-"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
