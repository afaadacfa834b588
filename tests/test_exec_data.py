"""What data can't do to the programs that it is passed to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.plugin import Event
from engine.runs import RunState
from plugins.runners.exec import Exec
from tests.exec_runs import context, program, run

HOSTILE = [
    "$(touch x)", "`touch x`", "; touch x", "a && touch x", "| touch x", "a\nb", "{{7*7}}", "{{ data.x }}",
    "'", '"', "\\", "*", "~", "$HOME", "%s", "a b", " ", "", "../../etc/passwd", "\x1b[31m",
    "ünï☃", "--" * 1000 + "x",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
async def test_one_element_stays_one_argument_whatever_its_value(tmp_path: Path, value: str) -> None:
    command = program("print(json.dumps(sys.argv[1:]))", "<{{ data.x }}>", "--", "{{ data.x }}", "end")
    outcome, made = await run(tmp_path, *command, data={"x": value}, env={"VALUE": "{{ data.x }}"})
    assert outcome.state is RunState.SUCCEEDED
    assert json.loads(made.logged()) == [f"<{value}>", "--", value, "end"]
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("{{ data.x }}", "-rf"),
        ("{{ data.x }}", "--output=/etc/passwd"),
        ("{{ data.x }}", "-"),
        ("{{ data.x }}.csv", "-o"),
        ("{{ data.none }}{{ data.x }}", "-rf"),
    ],
)
async def test_text_that_would_be_taken_for_an_option_fails_the_attempt(
    tmp_path: Path, element: str, value: str
) -> None:
    outcome, made = await run(tmp_path, "echo", "first", element, data={"x": value, "none": None})
    assert (outcome.state, outcome.code) == (RunState.FAILED, "unsafe_argument")
    assert "element 3" in outcome.reason
    assert f'"--name={element}"' in outcome.reason
    assert '"--" before it' in outcome.reason
    assert made.started == []


@pytest.mark.parametrize(
    ("elements", "value", "seen"),
    [
        (("--", "{{ data.x }}"), "-rf", "-- -rf"),
        (("--path={{ data.x }}",), "-rf", "--path=-rf"),
        (("-{{ data.x }}",), "-", "--"),
        (("{{ data.x }}",), -5, "-5"),
        (("{{ data.x }}",), -0.5, "-0.5"),
        (("{{ data.empty }}-literal",), "", "-literal"),
    ],
)
async def test_a_dash_that_the_author_or_a_number_brings_is_none_of_that(
    tmp_path: Path, elements: tuple[str, ...], value: object, seen: str
) -> None:
    _, made = await run(tmp_path, "/bin/echo", *elements, data={"x": value, "empty": ""})
    assert made.logged() == f"{seen}\n"


@pytest.mark.parametrize(
    ("element", "data", "words"),
    [
        ("{{ data.gone }}", {}, ["element 2", "data.gone"]),
        ("{{ data.x }}", {"x": "a\0b"}, ["element 2", "NUL"]),
        ("{{ data.x / 0 }}", {"x": 1}, ["element 2"]),
    ],
)
async def test_a_value_that_cannot_be_an_argument_fails_the_attempt_in_words(
    tmp_path: Path, element: str, data: Any, words: list[str]
) -> None:
    outcome, made = await run(tmp_path, "echo", element, data=data)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "template_error")
    assert all(word in outcome.reason for word in words), outcome.reason
    outcome, made = await run(tmp_path, "echo", env={"VALUE": element}, data=data)
    assert outcome.code == "template_error"
    assert "VALUE" in outcome.reason
    assert made.started == []


async def test_an_event_whose_type_no_variable_can_hold_fails_the_attempt(tmp_path: Path) -> None:
    event = Event(type="a\0b", id="e1")
    outcome = await Exec(command=("true",)).run(context(tmp_path, event=event, events=(event,)))
    assert (outcome.state, outcome.code) == (RunState.FAILED, "template_error")


async def test_data_with_the_names_of_variables_changes_no_variable(tmp_path: Path) -> None:
    names = ["LD_PRELOAD", "PATH", "PYTHONPATH", "BASH_ENV", "ENGINE_RUN_ID", "uid", "command", "cwd", "env"]
    data = dict.fromkeys(names, "/tmp/evil")
    _, made = await run(tmp_path, "env", data=data)
    assert "/tmp/evil" not in made.logged()


@pytest.mark.parametrize(
    "name",
    "PATH LD_PRELOAD LD_LIBRARY_PATH PYTHONPATH PYTHONSTARTUP BASH_ENV ENV IFS PERL5OPT RUBYOPT NODE_OPTIONS "
    "GIT_SSH_COMMAND SHELL HOME https_proxy HTTPS_PROXY JAVA_TOOL_OPTIONS BASH_FUNC_ls".split(),
)
def test_variables_that_steer_programs_take_no_data(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} steers") as caught:
        Exec(command=("true",), env={name: "x:{{ data.x }}"})
    assert caught.value.field == f"env.{name}"  # type: ignore[attr-defined]
    Exec(command=("true",), env={name: "fixed"}).check({"data"})


@pytest.mark.parametrize(
    ("command", "env", "words"),
    [
        ((), {}, "names no program"),
        (("",), {}, "names no program"),
        (("{{ data.x }}",), {}, "the program is a template"),
        (("bin/{{ data.x }}",), {}, "the program is a template"),
        (("true", "a\0b"), {}, "NUL"),
        (("true",), {"A": "a\0b"}, "NUL"),
        (("true",), {"A-B": ""}, "is no name of a variable"),
        (("true",), {"1A": ""}, "is no name of a variable"),
        (("true",), {"": ""}, "is no name of a variable"),
        (("true",), {"A=B": ""}, "is no name of a variable"),
        (("true",), {"ENGINE_RUN_ID": "x"}, "is set by the engine"),
        (("true",), {"TRACEPARENT": "x"}, "is set by the engine"),
    ],
)
def test_settings_that_make_no_program_are_refused(command: tuple[str, ...], env: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Exec(command=command, env=env)


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "echo {{ data.x }}"],
        ["/bin/bash", "-ec", "echo {{ data.x }}"],
        ["bash", "-lc", "{{ data.x }}"],
        ["bash", "-o", "pipefail", "-c", "{{ data.x }}"],
        ["bash", "-c", "-e", "{{ data.x }}"],
        ["dash", "-c", "--", "{{ data.x }}"],
        ["zsh", "-{{ data.x }}", "true"],
        ["sh", "{{ data.x }}"],
        ["env", "A=b", "sh", "-c", "{{ data.x }}"],
        ["sudo", "-u", "bob", "sh", "-c", "{{ data.x }}"],
        ["nice", "-n", "5", "nohup", "timeout", "-k", "1", "5", "ksh", "-c", "{{ data.x }}"],
        ["busybox", "sh", "-c", "{{ data.x }}"],
        ["docker", "exec", "web", "sh", "-c", "{{ data.x }}"],
        ["python", "-c", "print({{ data.x }})"],
        ["python3.11", "-W", "ignore", "-Ic", "print({{ data.x }})"],
        ["python", "-cprint({{ data.x }})"],
        ["python", "-m", "{{ data.x }}"],
        ["python", "{{ data.x }}.py"],
        ["perl", "-ne", "{{ data.x }}"],
        ["perl", "-e", "1;", "-e", "{{ data.x }}"],
        ["node", "-e", "{{ data.x }}"],
        ["node", "--eval", "{{ data.x }}"],
        ["node", "--eval={{ data.x }}"],
        ["ruby", "-e", "{{ data.x }}"],
        ["php", "-r", "{{ data.x }}"],
        ["env", "{{ data.x }}"],
        ["env", "LD_PRELOAD={{ data.x }}", "true"],
        ["env", "-S", "{{ data.x }}"],
        ["sudo", "{{ data.x }}"],
        ["sudo", "-u", "{{ data.x }}", "true"],
        ["timeout", "5", "{{ data.x }}"],
    ],
    ids=" ".join,
)
def test_data_is_never_run_as_code_and_never_chooses_the_program(command: list[str]) -> None:
    with pytest.raises(ValueError, match=r"data would be run as code|data can't choose what is run") as caught:
        Exec(command=tuple(command)).check({"data"})
    assert caught.value.field == "command"  # type: ignore[attr-defined]
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", 'echo "$1"', "sh", "{{ data.x }}"],
        ["bash", "-o", "pipefail", "-ec", 'echo "$1"', "sh", "{{ data.x }}"],
        ["python", "import.py", "{{ data.x }}"],
        ["python", "-u", "import.py", "-c", "{{ data.x }}"],
        ["python", "-c", "print()", "{{ data.x }}"],
        ["python", "-m", "json.tool", "{{ data.x }}"],
        ["perl", "-e", "print @ARGV", "{{ data.x }}"],
        ["env", "LEVEL={{ data.x }}", "true", "{{ data.x }}"],
        ["sudo", "-u", "bob", "cat", "{{ data.x }}"],
        ["timeout", "5", "cat", "{{ data.x }}"],
        ["cat", "-c", "{{ data.x }}"],
        ["grep", "python", "{{ data.x }}"],
        ["rsync", "--", "{{ data.x }}", "{{ event.subject }}"],
    ],
    ids=" ".join,
)
def test_data_may_be_an_argument(command: list[str]) -> None:
    Exec(command=tuple(command)).check({"data", "event"})


def test_wrong_templates_are_found_when_the_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match=r"element 2: .*did you mean `data`"):
        Exec(command=("echo", "{{ dta.x }}")).check({"data", "event"})
    with pytest.raises(ValueError, match="never closed") as caught:
        Exec(command=("echo",), env={"A": "{{ data.x"}).check({"data"})
    assert caught.value.field == "env.A"  # type: ignore[attr-defined]
