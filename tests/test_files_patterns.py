from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.sources.files.patterns import Glob, Selection, reason_against


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("*", ["a", "x/a", "x/y/a"], []),
        ("*.csv", ["a.csv", "x/a.csv", ".csv"], ["a.CSV", "a.csv.tmp", "csv"]),
        ("/*.csv", ["a.csv"], ["x/a.csv"]),
        ("x/*.csv", ["x/a.csv"], ["a.csv", "x/y/a.csv", "y/x/a.csv"]),
        ("**/x/*", ["x/a", "y/x/a", "z/y/x/a"], ["x", "a/y"]),
        ("x/**", ["x", "x/a", "x/y/a"], ["y/x", "xx/a"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["x/b", "a"]),
        ("**/*", ["a", "x/a"], []),
        ("[ab]?", ["ax", "x/bx"], ["cx", "a", "axx"]),
        ("[!a]", ["b", "x/b"], ["a"]),
        ("a b\n", ["a b\n"], ["a b"]),
        ("x/", ["x", "y/x"], ["y"]),
        ("**", ["a", "x/a"], []),
    ],
)
def test_a_glob_matches_names_or_paths(glob: str, matching: list[str], others: list[str]) -> None:
    for path in matching:
        assert Glob(glob).matches(path), path
    for path in others:
        assert not Glob(glob).matches(path), path


@settings(deadline=None)
@given(
    glob=st.lists(st.sampled_from(["**", "*", "a", "b", "a*", "?"]), min_size=2, max_size=6),
    path=st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6),
)
def test_a_path_matches_as_by_a_regular_expression(glob: list[str], path: list[str]) -> None:
    parts = {"**": "(?:[^/]+/)*", "*": "[^/]*/", "?": "[^/]/", "a*": "a[^/]*/"}
    expected = re.fullmatch("".join(parts.get(segment, f"{segment}/") for segment in glob), "/".join(path) + "/")
    assert Glob("/".join(glob)).matches("/".join(path)) == (expected is not None)


@pytest.mark.timeout(10)
def test_awkward_globs_take_no_longer() -> None:
    assert not Glob("*a" * 40 + "b").matches("a" * 255)
    assert not Glob("/".join(["**", "a"] * 30)).matches("/".join(["a"] * 200 + ["b"]))


def test_what_is_excluded_is_not_entered() -> None:
    chosen = Selection(("*.csv",), ("old/", "tmp", "*.part"), hidden=False, recursive=True, own=frozenset({"done"}))
    assert chosen.takes("a.csv")
    assert chosen.takes("old") is False
    assert not chosen.takes(".a.csv")
    assert not chosen.takes("a.csv.part")
    assert chosen.enters("x")
    for path in ("old", "x/old", "tmp", ".git", "x/.git", "done"):
        assert not chosen.enters(path), path
    assert chosen.enters("x/done")
    assert chosen.reaches("x/y/a.csv")
    assert not chosen.reaches("x/old/y/a.csv")
    assert not chosen.reaches("done/a.csv")


def test_a_directory_glob_excludes_no_file() -> None:
    chosen = Selection(("*",), ("old/",), hidden=False, recursive=True, own=frozenset())
    assert chosen.takes("old")
    assert not chosen.enters("old")


@pytest.mark.parametrize("glob", ["", "/", "a\0b", "a//b", "../a", "a/.."])
def test_what_no_path_can_match_is_refused(glob: str) -> None:
    assert reason_against(glob)
