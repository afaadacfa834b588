"""Durations, sizes and ids, as people write them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ids import is_id, is_slug, new_id
from engine.units import (
    GREATEST_SIZE_BYTES,
    LONGEST_DURATION_S,
    format_duration,
    format_size,
    format_span,
    parse_duration,
    parse_size,
    two_digits,
)

TEN_YEARS_MS = int(LONGEST_DURATION_S * 1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("30m", 1800.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("2w", 1_209_600.0),
        ("1h30m", 5400.0),
        ("1w2d3h4m5s6ms", 788_645.006),
        ("1.5h", 5400.0),
        ("0s", 0.0),
        ("90m", 5400.0),
        ("3650d", LONGEST_DURATION_S),
        ("PT1H30M", 5400.0),
        ("P1D", 86400.0),
        ("P1W", 604_800.0),
        ("P1DT12H", 129_600.0),
        ("PT0.5S", 0.5),
        ("PT0S", 0.0),
    ],
)
def test_a_duration_is_read_into_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5", "s", "5 s", " 5s", "5s ", "5S", "5sec", "-5s", "+5s", "5s5s", "1m1h", "30m1h", "5s500",
        "1h 30m", "1e3s", ".5s", "5.s", "1,5s", "inf", "nan", "5y", "5mo", "5s\n", "P", "PT", "P1DT", "P1Y", "P1M",
        "PT1X", "pt1h", "P-1D", "PT1H ", "P1D1W", "PT1S\n", "1h;2m",
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "88000h", "P4000D", "9" * 400 + "s", "P" + "9" * 400 + "D", "523w"])
def test_more_than_ten_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ten years"):
        parse_duration(text)


def test_a_month_has_no_fixed_length_and_the_error_says_so() -> None:
    with pytest.raises(ValueError, match="no fixed length"):
        parse_duration("P1M")


@given(st.integers(0, TEN_YEARS_MS))
def test_a_duration_is_written_so_that_it_is_read_back(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "0s"), (0.25, "250ms"), (1, "1s"), (5400, "1h30m"), (90061.001, "1d1h1m1s1ms")],
)
def test_a_duration_is_written_in_its_parts(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("100", 100),
        ("100B", 100),
        ("64KiB", 65_536),
        ("1MiB", 2**20),
        ("5GB", 5 * 10**9),
        ("1.5KiB", 1536),
        ("2kB", 2000),
        ("2KB", 2000),
        ("1 MiB", 2**20),
        ("0", 0),
        ("1TiB", 2**40),
    ],
)
def test_a_size_is_read_into_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "KiB", "-1", "1kib", "1 M", "1Mb", "1e3", "1,5KiB", " 1", "1 ", "inf", "nan", "1\n", "0x10"]
)
def test_what_is_no_size_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="is no size such as"):
        parse_size(text)


@pytest.mark.parametrize("text", ["2000TiB", "9" * 400, "9" * 400 + "TB"])
def test_a_size_beyond_all_disks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is larger than 1024TiB"):
        parse_size(text)
    assert parse_size("1024TiB") == GREATEST_SIZE_BYTES


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (65536, "64KiB"), (1536, "1.5KiB"), (2**20, "1MiB"),
     (5 * 2**30, "5GiB"), (2**40, "1TiB"), (2**50, "1024TiB")],
)  # fmt: skip
def test_a_size_is_written_in_the_largest_unit_that_fits(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_a_whole_size_is_written_so_that_it_is_read_back(count: int, unit: str) -> None:
    size_bytes = parse_size(f"{count}{unit}")
    assert parse_size(format_size(size_bytes)) == size_bytes


# Ids


def test_new_ids_are_ids_unique_and_in_the_order_of_their_making() -> None:
    made = [new_id() for _ in range(20_000)]
    assert all(is_id(each) for each in made)
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(each[14] == "7" and len(each) == 36 for each in made)


def test_ids_of_several_threads_are_all_different() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda into: into.extend(new_id() for _ in range(5000)), args=(into,)) for into in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for into in made for each in into}) == 20_000


@pytest.mark.parametrize(
    "text",
    [
        "", "0198f0aa-0000-7000-8000-00000000000", "0198f0aa-0000-7000-8000-0000000000000",
        "0198F0AA-0000-7000-8000-000000000000", "0198f0aa000070008000000000000000", "../../etc/passwd",
        "0198f0aa-0000-7000-8000-00000000000g", "0198f0aa-0000-7000-8000-000000000000\n",
        "{0198f0aa-0000-7000-8000-000000000000}", "０198f0aa-0000-7000-8000-000000000000",
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_an_id_is_none(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("text", ["a", "7", "import-csv", "A.b_c-9", "x" * 128, "a..b"])
def test_a_name_that_can_stand_in_a_path_is_a_slug(text: str) -> None:
    assert is_slug(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", ".a", "-a", "_a", "a/b", "a\\b", "a b", "a\n", "a\0", "ä", "x" * 129, "a%2e", "~", "a:b"]
)
def test_a_name_that_could_climb_or_confuse_is_no_slug(text: str) -> None:
    assert not is_slug(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"), (0.0094, "9ms"), (0.9994, "999ms"), (0.9996, "1s"), (1.14, "1.1s"), (1.956, "2s"), (9.96, "10s"),
        (14.977, "15s"), (59.6, "1m"), (90.0, "1m30s"), (3599.6, "1h"), (5399.6, "1h30m"), (86_399.0, "1d"),
        (86_400.0 * 3 + 7200 + 59, "3d2h"),
    ],
)  # fmt: skip
def test_a_span_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert format_span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1ms"), (0.0146, "15ms"), (0.198, "200ms"), (0.996, "1s"), (9.46, "9.5s"), (93.4, "93s"), (99.6, "1.7m"),
        (754.0, "13m"), (2500.0, "42m"), (5999.0, "1.7h"), (86_000.0, "24h"), (172_900.0, "2d"), (1e7, "120d"),
    ],
)  # fmt: skip
def test_a_rough_time_is_told_in_two_digits(seconds: float, text: str) -> None:
    assert "".join(two_digits(seconds)) == text
