"""Programs run as jobs: what they get, how they end, and what they leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta, timezone
from pathlib import Path

import anyio
import pytest

from engine.plugin import Event, Outcome, SystemClock
from engine.processes import kernel_start
from engine.runs import RunState
from plugins.runners import spawning, surroundings
from plugins.runners.exec import Exec
from plugins.runners.keeping import machine_boot
from tests.exec_runs import AT, Context, FastClock, cancelled, context, lives, pids_in, program, run, until


@pytest.fixture(autouse=True, params=["spawn", "popen"])
def way_of_starting(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs by posix_spawn, as their directory is the engine's own, and by Popen, as it is another."""
    monkeypatch.setattr(spawning.Marked, "at_s", -spawning.MARK_AGAIN_S)
    if request.param == "spawn":
        monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_zombies_and_no_open_files_stay() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    with suppress(ChildProcessError):
        pid, _ = os.waitpid(-1, os.WNOHANG)
        assert pid == 0, f"process {pid} was not reaped"
    new = set(os.listdir("/proc/self/fd")) - before
    left = {name for name in new if os.path.exists(f"/proc/self/fd/{name}")}
    assert not left


# What a program gets


async def test_the_event_stands_on_standard_input_as_json(tmp_path: Path) -> None:
    first = Event(type="file.created", id="e1", source="files:inbox", data={"n": 1}, received_at=AT)
    berlin = timezone(timedelta(hours=1))
    last = Event(
        type="file.modified", subject="a.csv", id="e2", source="files:inbox", data={"n": 2}, key="k2",
        priority=8, time=AT.astimezone(berlin), received_at=AT, http={"headers": {"authorization": "secret"}},
    )  # fmt: skip
    made = context(tmp_path, event=last, events=(first, last))
    outcome = await Exec(command=("cat",)).run(made)
    assert outcome == Outcome.succeeded("exited with 0", exit_code=0)
    seen = json.loads(made.logged())
    assert seen["event"] == {
        "id": "e2", "source": "files:inbox", "type": "file.modified", "subject": "a.csv", "key": "k2",
        "time": "2026-03-01T02:00:00Z", "received_at": "2026-03-01T02:00:00Z", "priority": 8,
        "data": {"n": 2},
    }  # fmt: skip
    assert [event["id"] for event in seen["events"]] == ["e1", "e2"]
    assert seen["events"][1] == seen["event"]


async def test_a_large_event_neither_blocks_nor_is_cut(tmp_path: Path) -> None:
    data = {"text": "x" * 3_000_000}
    _, made = await run(tmp_path, "wc", "-c", data=data)
    assert int(made.logged()) > 6_000_000
    outcome, _ = await run(tmp_path, "true", data=data)
    assert outcome.state is RunState.SUCCEEDED


async def test_a_program_gets_only_what_is_declared_and_what_the_engine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "canary")
    monkeypatch.setenv("ENGINE_ADMIN_TOKEN", "canary")
    monkeypatch.setenv("LC_TIME", "C")
    surroundings.inherited.cache_clear()
    made = context(tmp_path, {"x": "from data"}, scheduled_for=AT, attempt=3)
    settings = {"LEVEL": "info", "VALUE": "<{{ data.x }}>", "TZ": "Europe/Berlin"}
    await Exec(command=program("print(json.dumps(dict(os.environ)))"), env=settings).run(made)
    surroundings.inherited.cache_clear()
    seen = json.loads(made.logged())
    assert "canary" not in made.logged()
    assert {name: seen.pop(name) for name in settings} == {**settings, "VALUE": "<from data>"}
    assert seen.pop("LC_TIME") == "C"
    trace = seen.pop("TRACEPARENT").split("-")
    assert {name: seen.pop(name) for name in list(seen) if name.startswith(("ENGINE_", "TEST_"))} == {
        "ENGINE_RUN_ID": made.run_id,
        "ENGINE_JOB": "import-csv",
        "ENGINE_TRIGGER": "nightly",
        "ENGINE_ATTEMPT": "3",
        "ENGINE_SCHEDULED_FOR": "2026-03-01T02:00:00Z",
        "ENGINE_EVENT_ID": made.event.id,
        "ENGINE_EVENT_TYPE": "file.created",
        "ENGINE_OUTPUT": made.output_path(),
        "TEST_BOOT": "boot-1",
    }
    assert trace[:2] == ["00", made.run_id.replace("-", "")]
    assert len(trace[2]) == 16
    assert trace[3] == "01"
    inherited = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL"}
    assert set(seen) <= inherited


async def test_attempts_of_a_run_share_a_trace_and_have_spans_of_their_own(tmp_path: Path) -> None:
    made = context(tmp_path)
    for attempt in (1, 2):
        made.attempt = attempt
        await Exec(command=("sh", "-c", "echo $TRACEPARENT")).run(made)
    first, second = (line.split("-") for line in made.logged().split())
    assert first[1] == second[1]
    assert first[2] != second[2]


async def test_no_descriptor_but_the_first_three_reaches_a_program(tmp_path: Path) -> None:
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        text = "print([n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)])"
        _, made = await run(tmp_path, *program(text))
    finally:
        os.close(leak)
    assert sorted(eval(made.logged())) == ["0", "1", "2"]


async def test_what_python_ignores_a_program_does_not(tmp_path: Path) -> None:
    _, made = await run(tmp_path, "sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(made.logged().split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


async def test_a_program_leads_a_session_of_its_own_and_is_told_of(tmp_path: Path) -> None:
    _, made = await run(tmp_path, *program("print(os.getpid(), os.getsid(0), os.getpgrp())"))
    assert set(map(int, made.logged().split())) == set(made.started)


async def test_output_and_errors_go_to_the_log_in_order(tmp_path: Path) -> None:
    _, made = await run(tmp_path, "sh", "-c", "echo one; echo two >&2; echo three")
    assert made.logged() == "one\ntwo\nthree\n"


async def test_a_program_works_in_the_directory_of_the_configuration_or_the_one_it_is_given(
    tmp_path: Path,
) -> None:
    (tmp_path / "sub").mkdir()
    for cwd in (None, Path("sub"), tmp_path / "sub"):
        await run(tmp_path, "pwd", cwd=cwd)
    log = (tmp_path / "log").read_bytes().decode()
    assert log.split() == [str(tmp_path), *[str(tmp_path / "sub")] * 2]


# How it ends


@pytest.mark.parametrize(
    ("script", "code", "reason", "exit_code"),
    [
        ("exit 3", "exit_code", "exited with 3", 3),
        ("kill -KILL $$", "signal", "ended by SIGKILL", None),
        ("kill -40 $$", "signal", "ended by signal 40", None),
    ],
)
async def test_a_program_that_fails_says_how(
    tmp_path: Path, script: str, code: str, reason: str, exit_code: int | None
) -> None:
    outcome, _ = await run(tmp_path, "sh", "-c", script)
    assert outcome == Outcome.failed(code, reason, exit_code=exit_code)


def put(path: Path, text: bytes, mode: int = 0o755) -> str:
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: ["no-such-program-1"], ["no-such-program-1", "no such program in PATH (", "whole path"]),
        (lambda _: ["./no-such-program"], ["./no-such-program", "no such program"]),
        (lambda base: [put(base / "a.sh", b"#!/bin/sh\n", 0o644)], ["a.sh is not executable", "chmod +x"]),
        (lambda base: [put(base / "a.sh", b"#!/no/such/sh\n")], ["needs '/no/such/sh', which is not there"]),
        (lambda base: [put(base / "a.sh", b"#!/bin/sh\r\n")], [r"needs '/bin/sh\r', which is not there"]),
        (lambda base: [put(base / "a", b"just text\n")], ["neither a program", "#!/bin/sh"]),
        (lambda base: [str(base)], ["is a directory"]),
        (lambda _: ["true", *["x" * 100_000] * 40], ["arguments and variables", "standard input"]),
        (lambda _: ["true", "x" * 200_000], ["arguments and variables", "standard input"]),
    ],
    ids=("missing missing-path no-x-bit bad-shebang crlf-shebang no-shebang directory many long").split(),
)
async def test_a_program_that_cannot_be_started_is_a_failure_that_names_the_way_out(
    tmp_path: Path, make: Callable[[Path], list[str]], words: list[str]
) -> None:
    command = make(tmp_path)
    outcome, made = await run(tmp_path, *command)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "start_failed")
    assert all(word in outcome.reason for word in (os.path.basename(command[0]), *words)), outcome.reason
    assert made.started == []


async def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "true", cwd=Path("gone"))
    assert outcome.code == "start_failed"
    assert f"working directory {tmp_path / 'gone'}" in outcome.reason


async def test_a_grandchild_that_keeps_the_output_open_delays_nothing_and_is_ended(tmp_path: Path) -> None:
    begun = time.monotonic()
    outcome, _ = await run(tmp_path, "sh", "-c", "sleep 60 & echo $! > pids; exit 0")
    assert time.monotonic() - begun < 1
    assert outcome.state is RunState.SUCCEEDED
    (grandchild,) = pids_in(tmp_path / "pids")
    assert not lives(grandchild)


async def test_a_grandchild_that_ignores_sigterm_is_killed_when_the_program_ends(tmp_path: Path) -> None:
    script = "sh -c 'trap \"\" TERM; echo $$ > pids; sleep 60; sleep 60' & while ! test -s pids; do :; done"
    begun = time.monotonic()
    outcome, _ = await run(tmp_path, "sh", "-c", script)
    assert time.monotonic() - begun < 5
    assert outcome.state is RunState.SUCCEEDED
    (grandchild,) = pids_in(tmp_path / "pids")
    await until(lambda: not lives(grandchild))


async def test_a_cancelled_program_gets_sigterm_with_its_whole_group(tmp_path: Path) -> None:
    # A child's own shell says its pid: in one that was only just forked, the trap would still catch SIGTERM.
    child = "sh -c 'echo $$ >> pids; exec sleep 1e6'"
    script = f'trap "echo stopped; exit" TERM; {child} & echo $$ >> pids; wait'
    begun = time.monotonic()
    made, pids = await cancelled(tmp_path, script, 2, SystemClock())
    assert time.monotonic() - begun < 5
    assert made.logged() == "stopped\n"
    assert not any(map(lives, pids))


async def test_a_program_that_ignores_sigterm_is_killed_after_ten_seconds(tmp_path: Path) -> None:
    script = 'trap "" TERM; sleep 1e6 & echo $! >> pids; echo $$ >> pids; while :; do sleep 1e6; done'
    begun = time.monotonic()
    _, pids = await cancelled(tmp_path, script, 2, FastClock())
    assert 10 / 50 <= time.monotonic() - begun < 5
    await until(lambda: not any(map(lives, pids)))


async def test_a_grandchild_gets_the_grace_too_when_the_program_stops_at_once(tmp_path: Path) -> None:
    slow = 'trap "sleep 0.05; echo tidied; exit" TERM; echo $$ >> pids; while :; do sleep 0.01; done'
    script = f"sh -c '{slow}' & echo $$ >> pids; wait"
    made, pids = await cancelled(tmp_path, script, 2, SystemClock())
    assert "tidied" in made.logged().split()
    assert not any(map(lives, pids))


async def test_a_stopped_program_ends_at_once_when_it_is_cancelled(tmp_path: Path) -> None:
    begun = time.monotonic()
    _, (pid,) = await cancelled(tmp_path, "echo $$ > pids; kill -STOP $$; sleep 1e6", 1, SystemClock())
    assert time.monotonic() - begun < 5
    assert not lives(pid)


def test_an_engine_that_inherits_orphans_reaps_those_of_its_runs(tmp_path: Path) -> None:
    script = f"""
import asyncio, ctypes, os, time
from pathlib import Path
from tests.exec_runs import context
from plugins.runners.exec import Exec
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
begun = time.monotonic()
program = Exec(command=("sh", "-c", "sleep 60 & sleep 60 & exit 0"))
outcome = asyncio.run(program.run(context(Path({str(tmp_path)!r}))))
assert outcome.exit_code == 0, outcome
assert time.monotonic() - begun < 2
try:
    raise SystemExit(f"a child is left: {{os.waitpid(-1, os.WNOHANG)}}")
except ChildProcessError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


async def test_a_second_cancellation_kills_at_once(tmp_path: Path) -> None:
    script = 'trap "" TERM; echo $$ > pids; while :; do sleep 1e6; done'
    task = asyncio.create_task(Exec(command=("sh", "-c", script)).run(context(tmp_path)))
    await until(lambda: pids_in(tmp_path / "pids"))
    begun = time.monotonic()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    (pid,) = pids_in(tmp_path / "pids")
    await until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert time.monotonic() - begun < 5


async def test_a_program_is_ended_when_its_start_cannot_be_recorded(tmp_path: Path) -> None:
    class Full(Context):
        def process_started(self, pid: int) -> None:
            super().process_started(pid)
            raise OSError("no space left")

    plain = context(tmp_path)
    made = Full(base=tmp_path, event=plain.event, events=plain.events, scope=plain.scope)
    with pytest.raises(OSError, match="no space left"):
        await Exec(command=("sleep", "1000")).run(made)
    assert not any(map(lives, made.started))


@pytest.mark.parametrize("gone_at_once", [False, True])
async def test_an_exit_status_that_was_lost_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone_at_once: bool
) -> None:
    def too_late(pid: int) -> int:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED)
        raise ProcessLookupError(3, "No such process")

    if gone_at_once:
        monkeypatch.setattr(os, "pidfd_open", too_late)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        outcome, _ = await run(tmp_path, "true")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "exit_unknown")


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM"])
async def test_a_signal_to_the_group_leaves_the_launcher_that_records_the_end_of_an_adoptable_run(
    tmp_path: Path, name: str
) -> None:
    made = context(tmp_path, keep_path=str(tmp_path / "kept"))
    text = f"import signal\nsignal.signal(signal.SIG{name}, lambda *_: sys.exit(3))\nos.killpg(0, signal.SIG{name})"
    with anyio.fail_after(20):
        outcome = await Exec(command=program(text)).run(made)
    assert (outcome.code, outcome.exit_code) == ("exit_code", 3)


def recorded_launcher(record: Path) -> subprocess.Popen[bytes]:
    """Start what stands for a launcher, and record it as one does itself."""
    launcher = subprocess.Popen(["sleep", "60"], start_new_session=True)
    facts = {"attempt": 1, "boot": machine_boot(), "pid": launcher.pid, "started": kernel_start(launcher.pid)}
    record.write_text(json.dumps(facts))
    return launcher


async def test_an_adopted_run_whose_launcher_is_ended_by_hand_says_so(tmp_path: Path) -> None:
    made = context(tmp_path, keep_path=str(tmp_path / "kept"))
    launcher = recorded_launcher(tmp_path / "kept")
    outcomes: list[Outcome] = []

    async def take_up() -> None:
        outcomes.append(await Exec(command=("sleep", "60")).take_up(made))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(take_up)
            await until(lambda: made.started)
            launcher.kill()
            launcher.wait()
    assert outcomes[0].code == "exit_unknown"
    assert outcomes[0].reason == "ended, but what would have recorded its exit status was ended first, maybe by hand"


async def test_without_pidfd_and_memfd_everything_works_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    monkeypatch.setattr(os, "memfd_create", missing)
    outcome, made = await run(tmp_path, "sh", "-c", "cat; exit 4", data="found")
    assert outcome == Outcome.failed("exit_code", "exited with 4", exit_code=4)
    assert json.loads(made.logged())["event"]["data"] == "found"


async def test_many_programs_at_once_all_end_with_their_own_status(tmp_path: Path) -> None:
    codes: list[int | None] = [None] * 60

    async def one(number: int) -> None:
        codes[number] = (await run(tmp_path, "sh", "-c", f"exit {number}"))[0].exit_code

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(one, number)
    assert codes == list(range(60))


# Outputs


async def test_lines_of_the_output_file_become_outputs_and_the_file_is_removed(tmp_path: Path) -> None:
    script = 'printf "rows=42\\nnote=a=b c\\r\\n\\nempty=\\nrows=43\\nlast=no newline" > "$ENGINE_OUTPUT"; exit 1'
    outcome, _ = await run(tmp_path, "sh", "-c", script)
    outputs = {"rows": "43", "note": "a=b c", "empty": "", "last": "no newline"}
    assert outcome == Outcome.failed("exit_code", "exited with 1", exit_code=1, outputs=outputs)
    assert os.listdir(tmp_path) == ["log"]


async def test_lines_that_are_no_outputs_are_left_out_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        r"f = open(os.environ['ENGINE_OUTPUT'], 'wb')" + "\n"
        r"f.write(b'no line\n=x\n1a=x\na b=x\nbad=\xff\nnul=\0\n')" + "\n"
        r"f.write(b'long=' + b'x' * 4097 + b'\nfull=' + b'x' * 4096)"
    )
    outcome, _ = await run(tmp_path, *program(text))
    assert outcome.outputs == {"full": "x" * 4096}
    assert "line 1 is no name=value line" in caplog.text


async def test_outputs_are_bounded_in_number_and_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "f = open(os.environ['ENGINE_OUTPUT'], 'w')\n"
        "for n in range(150): f.write(f'n{n}={n}\\n')\n"
        "f.write('n1=again\\n'); f.write('x=' + 'y' * 1000000)"
    )
    outcome, _ = await run(tmp_path, *program(text))
    assert outcome.outputs == {**{f"n{n}": str(n) for n in range(100)}, "n1": "again"}
    assert "beyond 100 outputs" in caplog.text
    assert "beyond 524288 bytes" in caplog.text


@pytest.mark.parametrize(
    "script",
    ["ln -s /etc/passwd $ENGINE_OUTPUT", "mkfifo $ENGINE_OUTPUT", "ln -s gone $ENGINE_OUTPUT"],
)
async def test_an_output_file_that_is_none_is_not_followed_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str
) -> None:
    outcome, made = await run(tmp_path, "sh", "-c", script)
    assert outcome == Outcome.succeeded("exited with 0", exit_code=0)
    assert "outputs left out" in caplog.text
    assert os.listdir(tmp_path) == ["log"]
    assert "root:" not in made.logged()


async def test_the_output_file_of_a_cancelled_program_is_removed(tmp_path: Path) -> None:
    script = "echo a=b > $ENGINE_OUTPUT; echo $$ > pids; sleep 1000"
    await cancelled(tmp_path, script, 1, SystemClock())
    assert sorted(os.listdir(tmp_path)) == ["log", "pids"]
