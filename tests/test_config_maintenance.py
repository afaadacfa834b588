"""`[maintenance.NAME]`: weekly, once and by a timer, whose runs wait, and what can't be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.config import Config, load, schema
from engine.decide.windows import After, Cut, MaintenanceWindow, Scope, open_at
from engine.errors import ConfigError
from engine.registry import Registry

REGISTRY = Registry.discover()
JOB = '[jobs.j]\nrun.exec = ["true"]\n[triggers.t]\non.interval = "1h"\njob = "j"\n'


def read(directory: Path, text: str, **environment: str) -> Config:
    file = directory / "config.toml"
    file.write_text(JOB + text, "utf-8")
    return load([file], environment=environment, registry=REGISTRY)


def window(directory: Path, text: str, **environment: str) -> MaintenanceWindow:
    return read(directory, f"[maintenance.w]\n{text}\n", **environment).maintenance["w"]


def opening(made: MaintenanceWindow, text: str) -> str | None:
    found = open_at(made.pattern, datetime.fromisoformat(text).replace(tzinfo=UTC))
    return None if found is None else f"{found.start:%m-%d %H:%M} {found.end:%m-%d %H:%M}"


def test_the_window_of_the_contract(tmp_path: Path) -> None:
    made = window(
        tmp_path,
        'days = ["sunday"]\nstart = "02:00"\nend = "04:00"\ntimezone = "Europe/Berlin"\n'
        'scope = { tags = ["import"], triggers = ["t"], jobs = ["j"] }\nafter = "drop"\nrunning = "cancel"',
    )
    assert opening(made, "2026-11-22 02:00") == "11-22 01:00 11-22 03:00"
    assert made.scope == Scope(tags=frozenset({"import"}), triggers=frozenset({"t"}), jobs=frozenset({"j"}))
    assert (made.after, made.running) == (After.DROP, Cut.CANCEL)
    assert made.when == "sunday 02:00 to 04:00 (Europe/Berlin)"
    assert made.defined_in.endswith("config.toml:6")


def test_times_may_be_tomls_own_and_days_alone_are_whole(tmp_path: Path) -> None:
    assert opening(window(tmp_path, "start = 22:00:00\nend = 06:30:00"), "2026-11-22 03:00") == (
        "11-21 22:00 11-22 06:30"
    )
    assert opening(window(tmp_path, 'days = ["sunday"]'), "2026-11-22 03:00") == "11-22 00:00 11-23 00:00"


def test_a_window_opens_once_in_its_zone_or_for_a_duration(tmp_path: Path) -> None:
    text = 'from = "2026-12-24 18:00"\nto = 2026-12-27T06:00:00Z\ntimezone = "Europe/Berlin"'
    assert opening(window(tmp_path, text), "2026-12-25 00:00") == "12-24 17:00 12-27 06:00"
    text = 'from = "2026-12-24 18:00"\nduration = "90m"'
    assert opening(window(tmp_path, text), "2026-12-24 19:29") == "12-24 18:00 12-24 19:30"


def test_a_window_opens_by_a_timer_of_its_zone_with_all_that_timers_take(tmp_path: Path) -> None:
    made = window(tmp_path, 'cron = "0 2 * * 0"\nduration = "2h"\ntimezone = "Europe/Berlin"')
    assert opening(made, "2026-11-22 02:00") == "11-22 01:00 11-22 03:00"
    assert made.when == "cron 0 2 * * 0 (Europe/Berlin) for 2h"
    free = '[calendars.free]\ndates = ["2026-11-22"]\n[maintenance.w]\nduration = "2h"\n'
    made = read(tmp_path, free + 'cron = { expression = "0 2 * * *", except = ["free"] }').maintenance["w"]
    assert opening(made, "2026-11-22 02:00") is None
    assert opening(made, "2026-11-23 02:00") == "11-23 02:00 11-23 04:00"
    # The engine's zone, where neither says one; the timer's own goes before the window's.
    zoned = '[engine]\ntimezone = "Asia/Tokyo"\n[maintenance.w]\nduration = "2h"\n'
    made = read(tmp_path, zoned + 'cron = "0 2 * * *"').maintenance["w"]
    assert opening(made, "2026-11-22 17:00") == "11-22 17:00 11-22 19:00"
    made = window(
        tmp_path, 'duration = "2h"\ntimezone = "Asia/Tokyo"\ncron = { expression = "0 2 * * *", timezone = "UTC" }'
    )
    assert opening(made, "2026-11-22 02:00") == "11-22 02:00 11-22 04:00"


def test_the_environment_changes_a_window(tmp_path: Path) -> None:
    made = window(tmp_path, 'days = ["sunday"]\nend = "04:00"', ENGINE__MAINTENANCE__W__END="05:00")
    assert opening(made, "2026-11-22 04:30") == "11-22 00:00 11-22 05:00"


@pytest.mark.parametrize(
    ("text", "line", "path", "expected"),
    [
        ("", 6, "maintenance.w.days", "it never opens"),
        ('days = ["sunday"]\ncron = "0 2 * * 0"\nduration = "2h"', 8, "maintenance.w.cron", "found days and cron"),
        ('cron = "0 2 * * 0"', 6, "maintenance.w.duration", "is missing beside cron"),
        ('days = ["sunday"]\nduration = "2h"', 8, "maintenance.w.duration", "has no effect"),
        ('to = "2026-12-27 06:00"', 6, "maintenance.w.from", "is missing beside to"),
        ('start = "24:00"', 7, "maintenance.w.start", "which is no time of day"),
        ('days = ["sunday"]\nscope = { triggers = ["x"] }', 8, "maintenance.w.scope.triggers[0]", "no such trigger"),
        ('days = ["sunday"]\nscope = { job = ["j"] }', 8, "maintenance.w.scope.job", "unknown key"),
        ('days = ["sunday"]\nafter = "keep"', 8, "maintenance.w.after", 'expected "run" or "latest" or "drop"'),
        ('duration = "2h"\nevent = "x"', 8, "maintenance.w.event", "unknown key"),
        ("[maintenance.v]\n", 7, "maintenance.v.days", "it never opens"),
        ('interval = "2h"\nduration = "2h"', 8, "maintenance.w.duration", "nothing would ever run"),
        (
            'days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]',
            7, "maintenance.w.days", "nothing would ever run",
        ),
        (
            'duration = "1h"\ninterval = { every = "2h", jitter = "1m" }',
            8, "maintenance.w.interval.jitter", "on time",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, path: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        window(tmp_path, text)
    told = [(problem.line, problem.path) for problem in refused.value.problems]
    assert (line, path) in told, refused.value.problems
    assert any(expected in str(problem) for problem in refused.value.problems), refused.value.problems


def test_the_schema_takes_a_window_with_one_timer_or_none() -> None:
    described = schema(REGISTRY)["$defs"]["MaintenanceTable"]
    names = [next(iter(one.get("properties", {"none": 0}))) for one in described["oneOf"]]
    assert {"cron", "interval", "at", "none"} <= set(names)
    assert "files" not in names
