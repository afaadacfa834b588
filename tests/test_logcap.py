"""Logs that grow: the beginning and the end stay, the disk is not filled, and readers see what is left out."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from engine import logcap
from engine.logcap import compact, pieces, trim
from engine.logtext import LogFile
from engine.runlogs import RunLogs

RUN = "019aa000-0000-7000-8000-000000000001"
MOST = 64 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of numbered lines, eight times as large as it may be."""
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %07d\n" % number for number in range(8 * MOST // 13)))
    return path


@pytest.fixture(params=["holes", "no holes"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems that can have holes in files, and those that can't."""
    if request.param == "no holes":

        class Libc:
            def fallocate(self, *_: object) -> int:
                ctypes.set_errno(errno.EOPNOTSUPP)
                return -1

        monkeypatch.setattr(logcap, "_libc", Libc)
    return str(request.param)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def whole(path: Path) -> bytes:
    file = LogFile(path)
    try:
        return b"".join(iter(file.read, b""))
    finally:
        file.close()


@pytest.mark.usefixtures("file_system")
def test_of_a_large_log_the_beginning_and_the_end_stay_and_what_is_left_out_is_told(path: Path) -> None:
    before = path.read_bytes()
    assert trim(str(path), MOST)
    assert allocated(path) <= MOST + 3 * 4096
    with path.open("ab") as file:
        file.write(b"the last line\n")
    seen = whole(path)
    head, said, tail = re.split(rb"\n\[.{3} (.* left out).*\]\n", seen)
    assert said.endswith(b"KiB left out")
    assert before.startswith(head)
    assert (before + b"the last line\n").endswith(tail)
    assert min(len(head), len(tail)) >= MOST // 2
    assert not trim(str(path), MOST + 4 * 4096)


@pytest.mark.usefixtures("file_system")
def test_a_log_that_is_over_is_written_anew_in_whole_lines(path: Path) -> None:
    before = path.read_bytes()
    trim(str(path), MOST)
    assert compact(str(path), MOST)
    seen = path.read_bytes()
    assert len(seen) <= MOST + 200
    head, _, tail = re.split(rb"\n(\[.*left out.*\])\n", seen)
    assert before.startswith(head + b"\n")
    assert before.endswith(b"\n" + tail)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [name.name for name in path.parent.iterdir()] == ["log"]


def test_a_small_log_is_left_alone(path: Path) -> None:
    before = path.stat()
    assert not trim(str(path), 9 * MOST)
    assert not compact(str(path), 9 * MOST)
    assert path.stat().st_ino == before.st_ino


def test_a_reader_that_was_there_before_a_log_is_written_anew_reads_on(path: Path) -> None:
    file = LogFile(path)
    first = file.read()
    trim(str(path), MOST)
    compact(str(path), MOST)
    rest = b"".join(iter(file.read, b""))
    file.close()
    # It had read beyond the beginning, and goes on where there is something.
    assert first.startswith(b"line 0000000\n")
    assert rest.count(b"left out") == 1
    assert rest.endswith(path.read_bytes()[-MOST // 4 :])


def test_a_reader_goes_to_the_last_lines_past_a_hole(path: Path) -> None:
    trim(str(path), MOST)
    lines = path.read_bytes().splitlines()
    for count, seen in ((3, lines[-3:]), (0, [])):
        file = LogFile(path)
        file.skip_to_last(count)
        assert b"".join(iter(file.read, b"")).splitlines() == seen
        file.close()
    file = LogFile(path)
    file.skip_to_last(100_000)
    assert b"".join(iter(file.read, b"")).startswith(b"line 0000000\n")
    file.close()


def test_pieces_of_a_file_that_its_program_tore_to_bits_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logcap, "MOST_PIECES", 5)
    path = tmp_path / "torn"
    with path.open("wb") as file:
        for number in range(20):
            file.seek(number * 64 * 1024)
            file.write(b"x")
    with path.open("rb") as file:
        found = list(pieces(file.fileno()))
    assert len(found) == 5
    assert found[-1][1] == path.stat().st_size


@pytest.fixture
def logs(tmp_path: Path) -> RunLogs:
    return RunLogs(tmp_path / "logs")


@pytest.mark.timeout(120)
def test_a_gigabyte_takes_no_more_of_the_disk_than_a_log_may_and_blocks_nobody(logs: RunLogs) -> None:
    descriptor = logs.open(RUN, new=True, most_bytes=1024 * 1024)
    path = logs.path(RUN)
    program = "yes a line that says nothing | head -c 1073741824; echo done"
    writer = subprocess.Popen(["sh", "-c", program], stdout=descriptor)
    os.close(descriptor)
    most = 0
    while writer.poll() is None:
        most = max(most, allocated(path))
        threading.Event().wait(0.002)
    assert writer.returncode == 0
    assert path.stat().st_size > 1073741824
    # What is written between two looks comes on top.
    assert most < 400 * 1024 * 1024
    logs.ended(RUN)
    for _ in range(2000):
        if path.stat().st_size < 2 * 1024 * 1024:
            break
        threading.Event().wait(0.005)
    seen = path.read_bytes()
    assert len(seen) <= 1024 * 1024 + 200
    assert seen.startswith(b"a line that says nothing\n")
    assert seen.endswith(b"done\n")
    assert seen.count(b"left out") == 1


def test_a_further_attempt_writes_to_the_log_that_readers_find(logs: RunLogs) -> None:
    descriptor = logs.open(RUN, new=True, most_bytes=MOST)
    os.write(descriptor, b"first\n" * MOST)
    os.close(descriptor)
    logs.ended(RUN)
    descriptor = logs.open(RUN, most_bytes=MOST)
    os.write(descriptor, b"second\n")
    assert os.fstat(descriptor).st_ino == logs.path(RUN).stat().st_ino
    logs.ended(RUN)
    os.close(descriptor)
    assert logs.path(RUN).read_bytes().endswith(b"second\n")


def test_a_log_that_cannot_be_made_smaller_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: str, most_bytes: int) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(logcap, "trim", broken)
    cap = logcap.LogCap()
    monkeypatch.setattr(cap, "_watch", lambda: None)
    large = tmp_path / "log"
    large.write_bytes(b"x" * 2 * MOST)
    cap.begin(str(large), MOST, new=True)
    assert not cap.look()
    assert not cap.look()
    assert [record.message for record in caplog.records] == [
        f"The log {large} is too large, and can't be made smaller: Input/output error"
    ]
