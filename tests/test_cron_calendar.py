"""What cron expressions mean, which ones are refused, and how; without any change of a clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from croniter import croniter

from engine.plugin import BadSetting
from plugins.timers.cron import Cron


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


START = instant("2025-12-31T23:59:59")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 22-4/3 * * *", ["2026-01-01T01:00", "2026-01-01T04:00", "2026-01-01T22:00"]),
        ("5-5 0 * * *", ["2026-01-01T00:05", "2026-01-02T00:05"]),
        ("0 0 * * fri-sun", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00", "2026-01-09T00:00"]),
        ("0 0 * * 7-1", ["2026-01-04T00:00", "2026-01-05T00:00", "2026-01-11T00:00"]),
        ("0 0 * * 7-0", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 * * 0-7/3", ["2026-01-03T00:00", "2026-01-04T00:00", "2026-01-07T00:00"]),
        ("0 0 1 nov-feb/2 *", ["2026-01-01T00:00", "2026-11-01T00:00", "2027-01-01T00:00"]),
        ("0 0 30-2/2 * *", ["2026-01-01T00:00", "2026-01-30T00:00", "2026-02-01T00:00"]),
        ("0 0 L * *", ["2026-01-31T00:00", "2026-02-28T00:00", "2026-03-31T00:00"]),
        ("0 0 15W,L * *", ["2026-01-15T00:00", "2026-01-31T00:00", "2026-02-16T00:00"]),
        ("0 0 1W 8 *", ["2026-08-03T00:00"]),
        ("0 0 31W 5 *", ["2026-05-29T00:00"]),
        ("0 0 * * mon#1,L5", ["2026-01-05T00:00", "2026-01-30T00:00", "2026-02-02T00:00"]),
        ("0 0 * * mon-tue#2", ["2026-01-12T00:00", "2026-01-13T00:00", "2026-02-09T00:00"]),
        ("0 0 13 * fri", ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"]),
        ("0 0 */7 * fri", ["2026-05-01T00:00", "2026-05-08T00:00", "2026-05-15T00:00", "2026-05-22T00:00"]),
        ("0 0 13 * */5", ["2026-02-13T00:00", "2026-03-13T00:00", "2026-09-13T00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("5/25 0 * * *", ["2026-01-01T00:05", "2026-01-01T00:30", "2026-01-01T00:55", "2026-01-02T00:05"]),
        ("*/60 */12 * * *", ["2026-01-01T00:00", "2026-01-01T12:00"]),
        ("0 0 31W 1,2 *", ["2026-01-30T00:00", "2026-02-27T00:00"]),
        ("0 0 * * 7#1", ["2026-01-04T00:00", "2026-02-01T00:00"]),
        ("0 0 29 2 */7", ["2032-02-29T00:00", "2060-02-29T00:00"]),
        ("*/20 59 23 31 12 ?", ["2026-12-31T23:59:00", "2026-12-31T23:59:20", "2026-12-31T23:59:40"]),
        ("@Weekly", ["2026-01-04T00:00"]),
        (" 0\t9  * JAN mon ", ["2026-01-05T09:00"]),
    ],
)
def test_an_expression_means_these_times(expression: str, expected: list[str]) -> None:
    timer, at = Cron(expression=expression), START
    for each in expected:
        found = timer.next(at)
        assert found == instant(each)
        at = found


@pytest.mark.parametrize(
    "expression",
    ["*/5 * * * *", "0 2 * * *", "17 3-21/4 * * mon-fri", "0 0 1,15 * 3", "0 0 */10 * 1-5", "0 12 L * *",
     "0 0 * * thu#3", "0 0 * * L6", "59 23 31 12 *", "0 0 29 2 *", "0 0 10W * *"],
)  # fmt: skip
def test_away_from_changes_it_agrees_with_croniter(expression: str) -> None:
    timer, at = Cron(expression=expression), START
    other = croniter(expression, START, ret_type=datetime, implement_cron_bug=True)
    for _ in range(40):
        following = timer.next(at)
        assert following == other.get_next()
        assert following is not None
        at = following
    for _ in range(40):
        preceding = timer.previous(at)
        assert preceding == other.get_prev()
        assert preceding is not None
        at = preceding


@pytest.mark.parametrize(
    ("expression", "found", "way_out"),
    [
        ("61 * * * *", 'the minute field has "61"', "0 to 59"),
        ("0 24 * * *", 'the hour field has "24"', "0 to 23"),
        ("0 0 0 * *", 'the day-of-month field has "0"', "1 to 31"),
        ("0 0 1,,2 * *", 'the day-of-month field has ""', "1 to 31"),
        ("0 0 1 13 *", 'the month field has "13"', "jan to dec"),
        ("0 0 * * 8", 'the day-of-week field has "8"', "0 and 7 are Sunday"),
        ("60 * * * * *", 'the second field has "60"', "0 to 59"),
        ("*/0 * * * *", 'the minute field has "*/0"', "steps"),
        ("0 0 * * monday", 'the day-of-week field has "monday"', 'did you mean "mon"?'),
        ("0 0 1 jnu *", 'the month field has "jnu"', 'did you mean "jun"?'),
        ("0 0 * * 5L", 'the day-of-week field has "5l"', '"L5"'),
        ("0 0 L-3 * *", 'the day-of-month field has "l-3"', "L is the last day"),
        ("R * * * *", 'the minute field has "r"', "0 to 59"),
        ("H H * * *", 'the minute field has "h"', "jitter"),
        ("0 2 * *", "has 4 fields", "expected five"),
        ("0 0 2 * * * 2026", "has 7 fields", "expected five"),
        ("", "has 0 fields", "expected five"),
        ("@reboot", "names no times", "python -m engine fire NAME"),
        ("*/90 * * * *", 'the minute field has "*/90": it has 60 values', "on.interval"),
        ("0 1/25 * * *", 'the hour field has "1/25": it has 24 values', "on.interval"),
        ("0 0 LW * *", 'the day-of-month field has "lw"', "31W"),
        ("0 0 * * fri#L", 'the day-of-week field has "fri#l"', '"L5"'),
        ("0 0 * * Lfri", 'the day-of-week field has "lfri"', '"L5"'),
        ("0 0 * * L", 'the day-of-week field has "l"', '"L5"'),
        ("0 0 * * fri#6", 'the day-of-week field has "fri#6"', "mon#2"),
        ("0 0 1 1 * 2027", 'the day-of-week field has "2027"', "years are not known"),
        ("0 0 0 1 1 ? 2027", "has 7 fields", "years are not known"),
        ("0~59 * * * *", 'the minute field has "0~59"', "jitter"),
        ("@dayly", "names no times", 'did you mean "@daily"?'),
        ("@every 5m", "names no times", "on.interval"),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", "names a zone", "timezone"),
        ("0 0 30 2 *", "never comes", "day that the month has"),
        ("0 0 31 4 *", "never comes", "day that the month has"),
        ("0 0 31 4,6,9,11 */2", "never comes", "day that the month has"),
        ("0," * 600 + "0 * * * *", "1209 characters", "at most 1000"),
    ],
)
def test_an_expression_that_is_wrong_is_refused_with_the_field_and_the_way_out(
    expression: str, found: str, way_out: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        Cron(expression=expression)
    assert caught.value.field == "expression"
    assert found in str(caught.value)
    assert way_out in (caught.value.hint or "")
