"""What is printed: plain in pipes, drawn and coloured on terminals, and harmless whatever others wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from engine.cli.output import say, say_table, terminal_safe
from engine.cli.progress import bar
from engine.cli.rehearsing import replay_span
from engine.runs import RunState

HOSTILE = "\x1b]0;owned\x07\r\x9b2J\u202egnp.exe\u2066\x00\u2028\u200b\x7f"
"""Escape sequences, a carriage return, marks that turn the direction of text, and what is not to be seen."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys: pytest.CaptureFixture[str], state: str = "failed", reason: str = "-") -> str:
    say_table(("run", "state", "reason"), [["a", state, reason]])
    return capsys.readouterr().out


def test_states_are_coloured_on_a_terminal_and_not_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    assert "\x1b[31mfailed" in shown(capsys)
    assert "\x1b[32msucceeded" in shown(capsys, "succeeded")
    for state in RunState:
        assert f"m{state.value}" in shown(capsys, state.value), f"{state} has no colour"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert shown(capsys) == "RUN  STATE   REASON\na    failed  -\n"


@pytest.mark.parametrize(
    ("variables", "coloured", "drawn"),
    [
        ({"NO_COLOR": "1"}, False, True),
        ({"NO_COLOR": ""}, True, True),  # by no-color.org an empty one does not count
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colours_are_left_out_where_a_terminal_is_to_have_none(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    coloured: bool,
    drawn: bool,
) -> None:
    on_a_terminal(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = shown(capsys)
    assert ("\x1b[31m" in out, "STATE" not in out) == (coloured, drawn)


def test_on_a_very_narrow_terminal_nothing_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "20")
    assert "exited with 3, and no further attempt" in shown(capsys, "failed", "exited with 3, and no further attempt")


def test_columns_that_a_narrow_terminal_goes_without_are_named_beside_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    columns, rows = ("run", "state", "key"), [["01a218b0-51e1-73fe-9134-c9d8098f3798", "failed", "k" * 30]]
    say_table(columns, rows, optional=("key",))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("COLUMNS", "60")
    say_table(columns, rows, optional=("key",))
    out, err = capsys.readouterr()
    assert "kkk" not in out
    assert err == "Left out, as the terminal is narrow: key\n"


def test_a_pipe_may_be_drawn_into_where_that_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31mfailed" in shown(capsys)
    monkeypatch.setenv("FORCE_COLOR", "0")
    assert "\x1b" not in shown(capsys)


@pytest.mark.parametrize("drawn", [False, True])
def test_what_others_wrote_never_steers_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, drawn: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: drawn)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    say_table(("name", "state", "reason"), [[HOSTILE, HOSTILE, HOSTILE]])
    say(f"Run {HOSTILE}")
    say(HOSTILE, error=True)
    with bar(HOSTILE, 10) as progress:
        progress.say(HOSTILE)
        progress.at(5, HOSTILE)
    told = capsys.readouterr()
    printed = told.out + told.err
    for character in set(HOSTILE) - {"\x1b", "\r"} if drawn else set(HOSTILE):
        assert character.isprintable() or character not in printed
    assert "\x1b]0;" not in printed  # the bar itself moves the cursor
    assert "\\x1b]0;owned\\x07\\r" in printed.replace("\n", "").replace(" ", "")


def test_no_text_passes_for_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("Run one failed: no\nRun two succeeded: exited with 0")
    assert capsys.readouterr().out == "Run one failed: no\\nRun two succeeded: exited with 0\n"


def test_logs_keep_their_lines_and_tabs_alone() -> None:
    assert terminal_safe(f"a\tb\n{HOSTILE}").startswith("a\tb\n\\x1b]0;owned\\x07\\r\\x9b2J\\u202e")


def test_columns_of_wide_characters_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("name", "state"), [["夜間バッチ", "ok"], ["nightly", "ok"], ["e\u0301te", "ok"]])
    lines = capsys.readouterr().out.splitlines()
    assert {cell_len(line[: line.rindex("  ") + 2]) for line in lines} == {12}


def test_bars_are_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    with bar("import", 4, counts=True) as progress:
        progress.at(3, "one failed")
        progress.say("half of it")
    out = capsys.readouterr().out
    assert all(part in out for part in ("import", "3/4", "one failed", "half of it"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    with bar("import", 4) as progress:
        progress.at(3, "one failed")
        progress.say("half of it")
    assert capsys.readouterr().out == "half of it\n"


class Pages:
    """Answers with two pages of a replay."""

    def __init__(self) -> None:
        item = {"type": "t", "skipped": None, "event": "e", "duplicate": False, "triggers": ["t"]}
        self._pages = [
            {"items": [{**item, "replay_of": "one", "received_at": "2026-11-21T06:00:00Z"}], "next": "c"},
            {"items": [{**item, "replay_of": "two", "received_at": "2026-11-21T12:00:00Z"}], "next": None},
        ]

    def post(self, *path: str, body: Any, headers: Any) -> Any:
        return self._pages.pop(0)


@pytest.mark.parametrize("start", ["2026-11-21T00:00:00Z", "nonsense"])
def test_a_replay_shows_how_much_of_its_span_is_through(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    on_a_terminal(monkeypatch)
    asked = {"from": start, "to": "2026-11-22T00:00:00Z"}
    client: Any = Pages()
    assert len(replay_span(client, asked, "name", 1000.0, quiet=False)) == 2
    out = capsys.readouterr().out
    assert "one  t  again as e" in out
    assert "100%" in out
    client = Pages()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    replay_span(client, asked, "name", 1000.0, quiet=False)
    assert capsys.readouterr().out == "  one  t  again as e\n  two  t  again as e\n"
    assert len(replay_span(Pages(), asked, "name", 1000.0, quiet=True)) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def run_into(output: int | None, folder: Path, *arguments: str, prefix: Sequence[str] = ()) -> tuple[int, bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENGINE")}
    ended = subprocess.run(
        [*prefix, sys.executable, "-m", "engine", *arguments], stdout=output, stderr=subprocess.PIPE, cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(__file__).parent.parent)}, timeout=50, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("arguments", [("schema",), ("plugins",)])
def test_a_reader_that_leaves_ends_a_command_without_a_word(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run_into(writing, tmp_path, *arguments) == (141, b"")
    finally:
        os.close(writing)


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert run_into(full.fileno(), tmp_path, "schema") == (
            1, b"what is printed can't be written: no space is left there\n",
        )  # fmt: skip


def test_a_command_whose_output_is_closed_does_its_work(tmp_path: Path) -> None:
    assert run_into(None, tmp_path, "plugins", prefix=("sh", "-c", 'exec "$@" >&-', "sh")) == (0, b"")
