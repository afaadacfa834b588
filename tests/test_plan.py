"""The plan: what another configuration changes, and which instants appear, vanish or move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, load_sent
from engine.errors import ConfigError
from engine.foresight import Horizon, plan
from engine.http.views import shown
from engine.registry import Registry

BASE = """\
[engine]
concurrency = 4
[jobs.bake]
timeout = "10m"
run.exec = ["true"]
[triggers.nightly]
on.cron = "0 2 * * *"
job = "bake"
"""
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
REGISTRY = Registry.discover()


def read(text: str, folder: Path, **more: Any) -> Config:
    given = {"readable": frozenset(), **more}
    return load_sent([("new.toml", text.encode())], base=folder, environment={}, registry=REGISTRY, **given)


def compare(old: Config, new: Config, *, days: int = 7, count: int = 20, known: bool = True) -> dict[str, Any]:
    horizon = Horizon(start=START, end=START + timedelta(days=days), count=count)
    show = partial(shown, secrets=old.secrets | new.secrets)
    return plan(old, new, horizon, show=show, secrets_known=known)


def changed(tmp_path: Path, before: str, after: str, **more: Any) -> dict[str, Any]:
    return compare(read(before, tmp_path), read(after, tmp_path), **more)


def test_the_same_configuration_changes_nothing_however_it_is_written(tmp_path: Path) -> None:
    table = BASE.replace('on.cron = "0 2 * * *"', 'on.cron = { expression = "0 2 * * *", timezone = "UTC" }')
    view = changed(tmp_path, BASE, f"# the same\n\n{table}")
    assert not view["changes"]
    assert (view["triggers"], view["jobs"], view["settings"]) == ([], [], [])


def test_an_instant_that_comes_later_each_day_moves(tmp_path: Path) -> None:
    view = changed(tmp_path, BASE, BASE.replace("0 2 *", "30 3 *"))
    [trigger] = view["triggers"]
    assert (trigger["name"], trigger["change"]) == ("nightly", "changed")
    assert trigger["keys"] == [{"key": "on.cron.expression", "from": "0 2 * * *", "to": "30 3 * * *"}]
    fires = trigger["fires"]
    assert (fires["before"], fires["after"]) == (7, 7)
    assert (fires["appear"], fires["vanish"], fires["move"]) == (0, 0, 7)
    assert fires["first"][0] == {
        "change": "moves", "from": "2026-01-06T02:00:00Z", "to": "2026-01-06T03:30:00Z", "by_s": 5400.0,
    }  # fmt: skip


def test_settings_of_plugins_are_told_as_they_are_written(tmp_path: Path) -> None:
    before = BASE.replace('on.cron = "0 2 * * *"', 'on.interval = { every = "8h", jitter = "1m" }')
    view = changed(tmp_path, before, before.replace('"8h"', '"90m"').replace('"1m"', '"30s"'))
    assert view["triggers"][0]["keys"] == [
        {"key": "on.interval.jitter", "from": "1m", "to": "30s"},
        {"key": "on.interval.every", "from": "8h", "to": "1h30m"},
    ]


def test_a_move_by_half_the_distance_is_one_to_later(tmp_path: Path) -> None:
    view = changed(tmp_path, BASE, BASE.replace("0 2 *", "0 14 *"))
    fires = view["triggers"][0]["fires"]
    assert {one["by_s"] for one in fires["first"] if one["change"] == "moves"} == {43_200.0}
    assert fires["move"] + fires["appear"] == 7


def test_what_is_kept_is_not_told_of_and_what_is_added_appears(tmp_path: Path) -> None:
    view = changed(tmp_path, BASE, BASE.replace("0 2 *", "0 2,8 *"), count=2)
    fires = view["triggers"][0]["fires"]
    assert (fires["appear"], fires["vanish"], fires["move"]) == (7, 0, 0)
    assert [one["to"] for one in fires["first"]] == ["2026-01-06T08:00:00Z", "2026-01-07T08:00:00Z"]


@pytest.mark.parametrize(
    ("before", "after", "change", "counts"),
    [
        (BASE, BASE[: BASE.index("[triggers")], "removed", (0, 7, 0)),
        (BASE[: BASE.index("[triggers")], BASE, "added", (7, 0, 0)),
        (BASE, BASE + "enabled = false\n", "changed", (0, 7, 0)),
        (BASE, BASE.replace("[jobs.bake]", "[jobs.bake]\nenabled = false"), "changed", (0, 7, 0)),
    ],
)
def test_a_trigger_that_comes_or_goes_brings_its_instants_along(
    tmp_path: Path, before: str, after: str, change: str, counts: tuple[int, int, int]
) -> None:
    [trigger] = changed(tmp_path, before, after)["triggers"]
    assert trigger["change"] == change
    assert tuple(trigger["fires"][kind] for kind in ("appear", "vanish", "move")) == counts


def test_another_job_or_priority_changes_no_instant(tmp_path: Path) -> None:
    view = changed(tmp_path, BASE, BASE + 'priority = "high"\n')
    assert view["triggers"] == [
        {
            "name": "nightly", "change": "changed", "fires": None,
            "keys": [{"key": "priority", "from": 5, "to": 8}],
        }
    ]  # fmt: skip


def test_changes_of_jobs_and_settings_are_told_as_the_configuration_writes_them(tmp_path: Path) -> None:
    after = BASE.replace('timeout = "10m"', 'timeout = "20m"\nretry = { attempts = 3 }').replace(
        "concurrency = 4", "concurrency = 2"
    )
    view = changed(tmp_path, BASE, after)
    assert view["triggers"] == []
    [job] = view["jobs"]
    assert job["keys"] == [
        {"key": "timeout", "from": "10m", "to": "20m"}, {"key": "retry.attempts", "from": 1, "to": 3},
    ]  # fmt: skip
    assert view["settings"] == [{"key": "engine.concurrency", "from": 4, "to": 2}]


def test_another_kind_of_source_is_shown_whole(tmp_path: Path) -> None:
    view = changed(tmp_path, BASE, BASE.replace('on.cron = "0 2 * * *"', 'on.interval = "1h"'), days=1)
    [trigger] = view["triggers"]
    [key] = trigger["keys"]
    assert key["key"] == "on"
    assert (list(key["from"]), list(key["to"])) == (["cron"], ["interval"])
    assert trigger["fires"]["after"] == 24


def test_a_calendar_that_changes_moves_the_instants_of_those_who_name_it(tmp_path: Path) -> None:
    text = BASE.replace('on.cron = "0 2 * * *"', 'on.cron = { expression = "0 2 * * *", except = ["holidays"] }')
    before, after = (f'{text}[calendars.holidays]\ndates = ["{day}"]\n' for day in ("2026-01-07", "2026-01-08"))
    view = changed(tmp_path, before, after)
    [trigger] = view["triggers"]
    assert trigger["keys"] == []
    assert trigger["fires"]["move"] == 1


def test_the_instants_of_a_frequent_trigger_are_compared_as_far_as_the_bound(tmp_path: Path) -> None:
    often = BASE.replace('on.cron = "0 2 * * *"', 'on.interval = "2s"')
    view = changed(tmp_path, often, often.replace('"2s"', '"3s"'))
    fires = view["triggers"][0]["fires"]
    assert fires["until"] == "2026-01-05T17:33:20Z"
    assert (fires["before"], fires["after"]) == (10_000, 6_667)


# Secrets, and configurations that somebody sent

HOOK = """\
[jobs.bake]
run.exec = ["true"]
[triggers.hook]
on.webhook = { path = "hook", verify = { github = SECRET } }
job = "bake"
"""


def test_no_secret_is_shown_and_one_that_differs_is_told_of_where_both_are_known(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("sesame-open-one\n")
    (tmp_path / "two").write_text("sesame-open-two\n")
    one, two = (HOOK.replace("SECRET", f'{{ file = "{name}" }}') for name in ("one", "two"))
    old, new = (read(text, tmp_path, readable=None) for text in (one, two))
    view = compare(old, new)
    assert view["triggers"][0]["keys"] == [{"key": "on.webhook.verify.github", "from": "***", "to": "***"}]
    assert "sesame" not in str(view)
    assert not compare(old, new, known=False)["changes"]


def test_no_file_is_read_or_made_for_a_configuration_that_was_sent(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("sesame-open\n")
    for name in ("there", "missing"):
        for more in ("", ", generate = true"):
            config = read(HOOK.replace("SECRET", f'{{ file = "{name}"{more} }}'), tmp_path)
            assert "sesame-open" not in config.secrets
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_calendar_that_was_sent_reads_only_files_that_the_engine_reads_already(tmp_path: Path) -> None:
    file = tmp_path / "days.ics"
    file.write_text(
        "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//us//us//EN\nBEGIN:VEVENT\nUID:1\nDTSTAMP:20260101T000000Z\n"
        "DTSTART;VALUE=DATE:20260107\nEND:VEVENT\nEND:VCALENDAR\n"
    )
    text = f'{BASE}[calendars.days]\nical = "days.ics"\n'
    known = read(text, tmp_path, readable=None)
    assert known.icals == {file}
    assert read(text, tmp_path, readable=known.icals).calendars == known.calendars
    with pytest.raises(ConfigError, match="not one that the engine reads already"):
        read(text.replace("days.ics", "/etc/passwd"), tmp_path, readable=known.icals)


def test_plugins_of_folders_are_not_loaded_for_a_configuration_that_was_sent(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bad.py").write_text(f"open({str(tmp_path / 'was-here')!r}, 'w')\n")
    read(BASE.replace("[engine]", f'[engine]\nplugins = ["{folder}"]'), tmp_path)
    assert not (tmp_path / "was-here").exists()


def test_all_mistakes_are_told_at_their_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(BASE.replace("0 2 *", "0 99 *") + "nonsense = 1\n", tmp_path)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [("new.toml", 7), ("new.toml", 9)]
    with pytest.raises(ConfigError, match="is no TOML"):
        read("[[", tmp_path)


def test_several_files_that_were_sent_lie_over_each_other(tmp_path: Path) -> None:
    more = b'[jobs.bake]\ntimeout = "1m"\n'
    sent = [("a.toml", BASE.encode()), ("b.toml", more)]
    config = load_sent(sent, base=tmp_path, environment={}, registry=REGISTRY, readable=())
    assert config.jobs["bake"].timeout_s == 60.0


def test_windows_that_come_go_or_open_otherwise_are_told(tmp_path: Path) -> None:
    window = '\n[maintenance.weekly]\ndays = ["sunday"]\nend = "04:00"\nscope = { jobs = ["bake"] }\n'
    assert changed(tmp_path, BASE, BASE + window)["maintenance"] == [{"name": "weekly", "change": "added", "keys": []}]
    later = window.replace("04:00", "05:00").replace('jobs = ["bake"]', 'tags = ["a", "b"]')
    view = changed(tmp_path, BASE + window, BASE + later)
    [weekly] = view["maintenance"]
    assert view["changes"]
    assert weekly["keys"] == [
        {"key": "when", "from": "sunday 00:00 to 04:00 (UTC)", "to": "sunday 00:00 to 05:00 (UTC)"},
        {"key": "scope.tags", "from": [], "to": ["a", "b"]},
        {"key": "scope.jobs", "from": ["bake"], "to": []},
    ]
    timed = (
        '\n[calendars.free]\ndates = ["2026-01-06"]\n[maintenance.weekly]\nduration = "2h"\n'
        'cron = { expression = "0 2 * * *", except = ["free"] }\n'
    )
    view = changed(tmp_path, BASE + timed, BASE + timed.replace("01-06", "01-07"))
    assert view["maintenance"] == [{"name": "weekly", "change": "changed", "keys": []}]
    assert not changed(tmp_path, BASE + timed, BASE + timed)["changes"]


def test_pools_and_what_jobs_take_of_them_are_compared(tmp_path: Path) -> None:
    old = "[pools]\nwarehouse = 2\nmail = 1\n[jobs.j]\nrun.exec = ['true']\npools = ['warehouse']\n"
    new = (
        "[pools]\nwarehouse = 3\n[jobs.j]\nrun.exec = ['true']\npools = { warehouse = 2 }\nconcurrency_key = 'data.a'\n"
    )
    view = compare(read(old, tmp_path), read(new, tmp_path))
    keys = {change["key"]: (change["from"], change["to"]) for change in view["settings"]}
    assert keys == {"pools.mail": (1, None), "pools.warehouse": (2, 3)}
    (job,) = view["jobs"]
    assert {change["key"] for change in job["keys"]} >= {"pools.warehouse", "concurrency_key", "concurrency"}
