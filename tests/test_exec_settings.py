"""How programs run that their jobs want otherwise: shells, users, limits, exit codes, standard input."""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.expressions import JOB_NAMES
from engine.plugin import BadSetting, Outcome
from engine.runs import RunState
from plugins.runners.exec import Exec
from plugins.runners.exitcodes import ExitCodes
from plugins.runners.launching import Limits
from tests.exec_runs import Context, FastClock, cancelled, context, lives, pids_in, program, run, until

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


@pytest.fixture(autouse=True)
def no_zombies_and_no_open_files_stay() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    with suppress(ChildProcessError):
        pid, _ = os.waitpid(-1, os.WNOHANG)
        assert pid == 0, f"process {pid} was not reaped"
    new = set(os.listdir("/proc/self/fd")) - before
    assert not {name for name in new if os.path.exists(f"/proc/self/fd/{name}")}


async def script(base: Path, text: str, data: Any = None, **settings: Any) -> tuple[Outcome, Context]:
    made = context(base, data)
    with anyio.fail_after(20):
        return await Exec(shell="sh", script=text, **settings).run(made), made


# A shell that is named


async def test_a_script_runs_in_the_shell_that_is_named_and_gets_values_by_its_environment(tmp_path: Path) -> None:
    hostile = '$(touch pwned); "`id`" {{ 1 }} \\n'
    made = context(tmp_path, {"x": hostile})
    outcome = await Exec(
        shell="bash", script='set -o pipefail; printf "%s|%s" "$X" "$0"; false | true', env={"X": "{{ data.x }}"}
    ).run(made)
    assert (outcome.code, outcome.exit_code) == ("exit_code", 1)
    assert made.logged() == f"{hostile}|bash"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"shell": "bash", "script": "echo {{ data.x }}"}, "script", "data would be run as code"),
        ({"shell": "bash"}, "script", "says nothing"),
        ({"script": "true"}, "shell", "is missing"),
        ({"shell": "python", "script": "1"}, "shell", "is no shell that is known"),
        ({"shell": "bash", "script": "true", "command": ("true",)}, "command", "stands beside"),
        ({"shell": "bash", "script": "a\0b"}, "script", "NUL"),
        ({}, "command", "names no program"),
        ({"command": ("true",), "stdin": "events"}, "stdin", "found 'events'"),
        ({"command": ("true",), "umask": "8"}, "umask", "is no umask"),
        ({"command": ("true",), "umask": "999"}, "umask", "is no umask"),
        ({"command": ("true",), "user": ""}, "user", "names nobody"),
        ({"command": ("true",), "user": "4294967295"}, "user", "is no number of a user"),
        ({"command": ("true",), "group": "99999999999"}, "group", "is no number of a group"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words) as caught:
        Exec(**settings)
    assert caught.value.field == field


def test_a_wrong_template_for_standard_input_is_found_when_the_configuration_is_checked() -> None:
    with pytest.raises(BadSetting) as caught:
        Exec(command=("cat",), stdin="{{ dta }}").check(JOB_NAMES)
    assert caught.value.field == "stdin"


# Standard input


@pytest.mark.parametrize(
    ("stdin", "seen"),
    [("none", ""), ("{{ data.x }}", "a\nb"), ("[{{ data }}]", '[{"x":"a\\nb"}]')],
)
async def test_standard_input_is_what_the_job_says(tmp_path: Path, stdin: str, seen: str) -> None:
    _, made = await run(tmp_path, "cat", data={"x": "a\nb"}, stdin=stdin)
    assert made.logged() == seen


async def test_standard_input_that_has_no_value_fails_the_attempt(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, "cat", data={}, stdin="{{ data.x }}")
    assert (outcome.code, "stdin: " in outcome.reason) == ("template_error", True)


# Exit codes


@pytest.mark.parametrize(
    ("code", "state", "name", "final"),
    [
        (0, RunState.SUCCEEDED, "succeeded", False),
        (3, RunState.SUCCEEDED, "succeeded", False),
        (75, RunState.SKIPPED, "exit_skip", False),
        (111, RunState.FAILED, "exit_code", False),
        (1, RunState.FAILED, "exit_code", True),
    ],
)
async def test_exit_codes_mean_what_the_job_says(
    tmp_path: Path, code: int, state: RunState, name: str, final: bool
) -> None:
    codes = ExitCodes(success=(0, 3), skip=(75,), retry=(111,))
    outcome, _ = await script(tmp_path, f"exit {code}", exit_codes=codes)
    assert (outcome.state, outcome.code, outcome.exit_code, outcome.final) == (state, name, code, final)
    assert outcome.reason.endswith("; not tried again, as `exit_codes.retry` does not name it") == final


async def test_where_no_code_is_named_for_retries_every_failure_may_be_tried_again(tmp_path: Path) -> None:
    outcome, _ = await script(tmp_path, "exit 1", exit_codes=ExitCodes(success=(3,)))
    assert (outcome.state, outcome.final) == (RunState.FAILED, False)
    outcome, _ = await script(tmp_path, "exit 0", exit_codes=ExitCodes(success=(3,)))
    assert outcome.reason == "exited with 0, which is none of its codes of success"


def test_a_code_means_one_thing() -> None:
    with pytest.raises(BadSetting, match="holds 3, which `success` holds, too"):
        ExitCodes(success=(0, 3), retry=(3,))
    with pytest.raises(BadSetting, match="names no code"):
        ExitCodes(success=())


# Variables from a file


async def test_variables_of_a_file_are_read_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(
        "# a comment\n\nexport PLAIN=a b # and why\nSINGLE='$HOME # \\n'\n"
        'DOUBLE="a\\n\\"b\\"\\$"\nEMPTY=\nWINS=file\n'
    )
    text = 'printf "%s|" "$PLAIN" "$SINGLE" "$DOUBLE" "$EMPTY" "$WINS"'
    outcome, made = await script(tmp_path, text, env_file=Path("env"), env={"WINS": "env"})
    assert outcome.state is RunState.SUCCEEDED
    assert made.logged() == 'a b|$HOME # \\n|a\n"b"$||env|'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"A=1\nno equals", "line 2 of the env_file {}: it is no NAME=value"),
        (b"1A=x", "line 1 of the env_file {}: it is no name of a variable"),
        (b"ENGINE_JOB=x", "line 1 of the env_file {}: it is set by the engine"),
        (b'A="secret', 'line 1 of the env_file {}: it begins with " and does not end with it'),
        (b"A=\xff", "the env_file {} can't be read: it is no UTF-8 text"),
        (None, "the env_file {} can't be read: No such file or directory"),
    ],
)
async def test_a_wrong_file_of_variables_keeps_the_program_from_starting(
    tmp_path: Path, body: bytes | None, words: str
) -> None:
    path = tmp_path / "env"
    if body is not None:
        path.write_bytes(body)
    outcome, _ = await run(tmp_path, "true", env_file=Path("env"))
    assert (outcome.code, outcome.reason) == ("start_failed", words.format(path))


# What a launcher sets


async def test_limits_umask_and_niceness_hold_for_the_program_and_nothing_else_reaches_it(tmp_path: Path) -> None:
    text = (
        "import resource as r\n"
        "print(*(r.getrlimit(n)[0] for n in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_NOFILE, r.RLIMIT_CORE)))\n"
        "print(oct(os.umask(0)), os.nice(0), sorted(map(int, os.listdir('/proc/self/fd')))[:4])\n"
        "print(os.getsid(0) == os.getpid(), os.getcwd(), sorted(os.environ))"
    )
    limits = Limits(memory=2**30, cpu=1.5, files=64, core=0)
    outcome, made = await run(tmp_path, *program(text), limits=limits, umask="027", nice=7)
    assert outcome.state is RunState.SUCCEEDED, made.logged()
    first, second, third = made.logged().splitlines()
    assert first == f"{2**30} 2 64 0"
    assert second == "0o27 7 [0, 1, 2, 3]"  # the last is the listing itself
    plain, unchanged = await run(tmp_path / "..", *program("print(sorted(os.environ))"))
    assert plain.state is RunState.SUCCEEDED
    assert third == f"True {tmp_path} {unchanged.logged().splitlines()[-1]}"


async def test_variables_that_steer_programs_act_on_the_program_and_not_on_its_launcher(tmp_path: Path) -> None:
    # The launcher is still the engine's user, and a file of variables may be writable by the program's.
    (tmp_path / "env").write_text(f"LD_DEBUG=libs\nLD_DEBUG_OUTPUT={tmp_path / 'loader'}\nLD_PRELOAD=\nX=1\n")
    outcome, made = await run(tmp_path, "env", env_file=Path("env"), nice=1)
    assert outcome.state is RunState.SUCCEEDED, made.logged()
    assert {"X=1", "LD_PRELOAD=", "LD_DEBUG=libs"} <= set(made.logged().split("\n"))
    assert programs_loaded(tmp_path) == ["env"]


def programs_loaded(folder: Path) -> list[str]:
    """Return what ld.so(8) tells in `loader.PID` of the programs that it has begun."""
    told = "".join(path.read_text() for path in folder.glob("loader.*"))
    return [line.split()[-1] for line in told.splitlines() if "initialize program" in line]


async def test_a_program_that_takes_more_memory_than_it_may_fails_and_nothing_else_does(tmp_path: Path) -> None:
    outcome, made = await run(tmp_path, *program("b = bytearray(8 * 2**30)"), limits=Limits(memory=200 * 2**20))
    assert outcome.exit_code == 1
    assert "MemoryError" in made.logged()


async def test_a_program_that_takes_more_processor_time_than_it_may_is_ended_and_it_is_said(tmp_path: Path) -> None:
    outcome, made = await run(tmp_path, *program("while True: pass"), limits=Limits(cpu=1))
    assert (outcome.code, outcome.reason) == ("signal", "ended by SIGXCPU: it used more than `limits.cpu`")
    assert made.usage[-1][0] is not None
    assert made.usage[-1][0] >= 0.5


@AS_ROOT
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python that everybody may execute")
async def test_a_fork_bomb_stays_within_its_limit_and_ends_with_its_run(tmp_path: Path) -> None:
    bomb = "\n".join(
        [
            "while True:",
            " try:",
            "  os.fork()",
            " except OSError:",
            "  os.write(1, b'no more'); import time; time.sleep(60)",
        ]
    )
    made = context(tmp_path, clock=FastClock())
    settings = Exec(
        command=("/usr/bin/python3", *program(bomb)[1:]), user="65533", group="65533", cwd=Path("/"),
        limits=Limits(processes=40),
    )  # fmt: skip
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(settings.run, made)
            await until(lambda: (tmp_path / "log").exists() and "no more" in made.logged())
            assert len(_of_user(65533)) <= 40
            group.cancel_scope.cancel()
    await until(lambda: not _of_user(65533))


def _of_user(uid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid and lives(int(name)):
                found.append(int(name))
    return found


@AS_ROOT
async def test_a_program_runs_as_its_user_with_that_ones_groups_and_leaves_outputs(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    text = 'id -u; id -G; echo "$USER $HOME $LOGNAME"; echo again >>/dev/stderr; echo n=5 >"$ENGINE_OUTPUT"'
    outcome, made = await script(tmp_path, text, user="nobody", cwd=Path("/"))
    assert outcome.outputs == {"n": "5"}, made.logged()
    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
    assert made.logged() == f"{nobody.pw_uid}\n{groups}\nnobody {nobody.pw_dir} nobody\nagain\n"
    assert f"engine-{made.run_id}" not in os.listdir(tempfile.gettempdir())


@AS_ROOT
async def test_a_program_of_another_user_cannot_have_files_read_and_removed_that_are_not_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "outputs").write_text("secret=1\n")
    text = 'cd /; d=$(dirname "$ENGINE_OUTPUT"); rmdir "$d"; ln -s "$FOLDER" "$d"'
    outcome, made = await script(tmp_path, text, user="nobody", cwd=Path("/"), env={"FOLDER": str(tmp_path)})
    assert (outcome.state, outcome.outputs) == (RunState.SUCCEEDED, None), made.logged()
    assert (tmp_path / "outputs").exists()
    assert f"engine-{made.run_id}" not in os.listdir(tempfile.gettempdir())


@AS_ROOT
async def test_a_user_by_number_has_the_group_that_is_given(tmp_path: Path) -> None:
    _, made = await script(tmp_path, "id -u; id -G", user="4711", group="4712", cwd=Path("/"))
    assert made.logged() == "4711\n4712\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user": "no-such-user"}, "there is no user no-such-user"),
        ({"group": "no-such-group"}, "there is no group no-such-group"),
        ({"cwd": Path("missing"), "nice": 1}, "its working directory"),
        ({"limits": Limits(files=2**40)}, "it can't have `limits.files`"),
    ],
)
async def test_what_a_launcher_cannot_do_is_said(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    outcome, _ = await run(tmp_path, "true", **settings)
    assert outcome.code == "start_failed"
    assert words in outcome.reason


@pytest.mark.parametrize("kind", ["missing", "not executable", "bad interpreter", "too long"])
async def test_a_launcher_tells_what_is_wrong_with_a_program_as_plainly_as_the_engine(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "not executable").write_text("#!/bin/sh\n")
    (tmp_path / "bad interpreter").write_text("#!/no/such/shell\n")
    (tmp_path / "bad interpreter").chmod(0o755)
    command = ("true", *["x" * 100_000] * 40) if kind == "too long" else (str(tmp_path / kind),)
    plain, _ = await run(tmp_path, *command)
    launched, _ = await run(tmp_path, *command, nice=1)
    assert (launched.code, launched.reason.split(" can't be started")[1:]) == (
        plain.code, plain.reason.split(" can't be started")[1:],
    )  # fmt: skip


async def test_a_cancelled_program_with_limits_is_ended_like_any_other(tmp_path: Path) -> None:
    made = context(tmp_path, clock=FastClock())
    text = "trap '' TERM; echo $$ >> pids; while :; do sleep 1; done"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(Exec(command=("sh", "-c", text), nice=3).run, made)
            await until(lambda: pids_in(tmp_path / "pids"))
            group.cancel_scope.cancel()
    assert not any(map(lives, pids_in(tmp_path / "pids")))


async def test_what_left_the_group_and_dropped_its_environment_ends_with_a_cancelled_program(
    tmp_path: Path,
) -> None:
    text = "env -i setsid sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1; done' & echo $$ >> pids; wait"
    _, pids = await cancelled(tmp_path, text, 2, FastClock())
    await until(lambda: not any(map(lives, pids)))


# What it used


async def test_processor_time_and_memory_of_a_program_and_its_children_are_told(tmp_path: Path) -> None:
    text = "import subprocess\nsubprocess.run([sys.executable, '-c', 'b = b\"x\" * 600_000_000; sum(range(10**6))'])"
    _, made = await run(tmp_path, *program(text))
    ((cpu_s, peak_bytes),) = made.usage
    assert cpu_s is not None
    assert 0 < cpu_s < 20
    assert peak_bytes is not None
    assert peak_bytes > 600_000_000


async def test_memory_below_that_of_the_engine_is_not_guessed(tmp_path: Path) -> None:
    _, made = await run(tmp_path, "true")
    assert made.usage[-1][1] is None


# Output is data


async def test_what_looks_like_a_protocol_is_output_and_nothing_else(tmp_path: Path) -> None:
    text = (
        "print('::set-output name=x::1'); print('ENGINE_OUTPUT=/etc/passwd'); print('x=1')\n"
        "print(json.dumps({'attempt': 1, 'status': 0, 'state': 'succeeded'}))\n"
        "print('program 2'); sys.stdout.flush(); sys.exit(4)"
    )
    for settings in ({}, {"nice": 1}):
        outcome, _ = await run(tmp_path, *program(text), **settings)
        assert (outcome.code, outcome.exit_code, outcome.outputs) == ("exit_code", 4, None)
        # The launcher's own descriptor is closed to the program.
        outcome, _ = await run(tmp_path, sys.executable, "-c", "import os; os.write(3, b'program 2')", **settings)
        assert outcome.exit_code == 1
