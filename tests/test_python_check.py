"""What `check` finds about Python functions, and what the start of an engine makes ready for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import anyio
import pytest

from engine.config import load
from engine.errors import ConfigError
from engine.execution import Executor
from engine.jobs import Job, RetryPolicy
from engine.plugin import BadSetting, Outcome, PrepareContext, RunContext, Runner
from engine.registry import Registry
from engine.runlogs import RunLogs
from engine.shared import Shared
from engine.testing import VirtualClock
from plugins.runners.python import Python, probe
from plugins.runners.python.pool import Workers
from tests.fakes import until
from tests.python_runs import desk, own_imports, write

SHOP = """
def plain(run): ...
async def awaited(run): ...
def needs(run, day): ...
def many(run, *rest, **more): ...
def generator(run): yield 1
async def async_generator(run): yield 1
class Callable:
    def __call__(self, run): ...
class Awaitable:
    async def __call__(self, run): ...
called, awaitable = Callable(), Awaitable()
number = 7
"""


def examined(base: Path, **jobs: dict[str, Any]) -> dict[str, tuple[str, str, str | None]]:
    """Return what is found wrong with jobs: field, sentence and hint."""
    found = Python.examine({name: Python(**settings) for name, settings in jobs.items()}, base)
    return {name: (error.field, str(error), error.hint) for name, error in found.items()}


@pytest.mark.parametrize(
    ("settings", "field", "said", "hint"),
    [
        ({"function": "shap:plain"}, "function", "there is no module shap", "did you mean shop?"),
        ({"function": "shop.plain:x"}, "function", "there is no module shop.plain", "looked for"),
        ({"function": "engine.plugn:x"}, "function", "there is no module engine.plugn", "did you mean engine.plugin?"),
        ({"function": "shop:plane"}, "function", "shop has no plane", "did you mean plain?"),
        ({"function": "shop:Callable.run"}, "function", "shop:Callable has no run", None),
        ({"function": "shop:number"}, "function", "is a int, which can't be called", "name a function"),
        ({"function": "shop:needs"}, "function", "missing a required argument: 'day'", "`arguments`"),
        ({"function": "shop:plain", "arguments": {"dya": 1}}, "function", "unexpected keyword argument 'dya'", None),
        ({"function": "shop:generator"}, "function", "it is a generator", "return instead of yield"),
        ({"function": "shop:async_generator"}, "function", "it is a generator", None),
        ({"function": "shop:plain", "isolate": "loop"}, "isolate", "would hold up the event loop", "async def"),
        ({"function": "shop:awaited", "isolate": "thread"}, "isolate", "the function is async", "process"),
        ({"function": "shop:awaited", "memory": 2**30}, "memory", "an async function on the event loop", None),
        ({"function": "broken:work"}, "function", "ZeroDivisionError: division by zero (", None),
        ({"function": "lacking:work"}, "function", "No module named 'pandaz'", None),
        ({"function": "wrong:work"}, "function", "SyntaxError", None),
        ({"function": "exits:work"}, "function", "importing exits failed with SystemExit: 3", None),
        ({"function": "dies:work"}, "function", "importing dies ends the process: it exits with 4", None),
        ({"function": "crashes:work"}, "function", "ends the process: it is ended by SIGSEGV", None),
        ({"function": "hangs:work"}, "function", "importing hangs took longer than", "when it is used"),
    ],
)
def test_what_can_not_be_called_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], field: str, said: str, hint: str | None
) -> None:
    monkeypatch.setattr(probe, "IMPORT_S", 0.5 if settings["function"] == "hangs:work" else 30.0)
    write(tmp_path, SHOP)
    write(tmp_path, "1 / 0\n", "broken")
    write(tmp_path, "import pandaz\n", "lacking")
    write(tmp_path, "def work(:\n", "wrong")
    write(tmp_path, "sys.exit(3)\n", "exits")
    write(tmp_path, "os._exit(4)\n", "dies")
    write(tmp_path, "ctypes.string_at(0)\n", "crashes")
    write(tmp_path, "time.sleep(3600)\n", "hangs")
    found = examined(tmp_path, job=settings)
    assert found["job"][0] == field
    assert said in found["job"][1]
    if hint is not None:
        assert hint in str(found["job"][2])


def test_one_that_ends_the_process_hides_nothing_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    write(tmp_path, "os._exit(4)\n", "dies")
    functions = ["shop:plain", "dies:work", "shop:awaited", "shop:plane", "dies:other", "shop:many", "shop:called"]
    found = examined(tmp_path, **{f"job-{number}": {"function": each} for number, each in enumerate(functions)})
    assert found.keys() == {"job-1", "job-3", "job-4"}


def test_objects_with_a_call_of_their_own_are_functions_too(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    jobs = {"one": {"function": "shop:awaitable", "isolate": "loop"}, "two": {"function": "shop:called"}}
    assert examined(tmp_path, **jobs) == {}


def test_what_a_module_does_when_it_is_imported_does_not_happen_in_the_engine(tmp_path: Path) -> None:
    source = "print('{}')\nsys.stdout.flush()\nos.write(1, b'x')\nsubprocess.Popen(['sleep', '3600'])\ndef work(): ..."
    write(tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{source}")
    with own_imports():
        assert examined(tmp_path, job={"function": "shop:work"}) == {}
        assert "shop" not in sys.modules
    assert (tmp_path / "pid").read_text() != str(os.getpid())


def engine(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=False, env=environment)


def test_check_names_file_line_and_key(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    (tmp_path / "config.toml").write_text(
        '[jobs.good]\nrun.python = "shop:plain"\n[jobs.bad]\nrun.python = "shap:plain"\n'
        '[jobs.worse.run.python]\nfunction = "shop:plain"\nisolate = "loop"\n'
        '[jobs.worst]\nrun.python = "shop:plain"\ntimeout = "soon"\n'
    )
    done = engine(tmp_path, "check", "--json")
    assert done.returncode == 2
    errors = {error["path"]: error for error in json.loads(done.stdout)["errors"]}
    assert errors.keys() == {"jobs.bad.run.python", "jobs.worse.run.python.isolate", "jobs.worst.timeout"}
    assert errors["jobs.bad.run.python"]["line"] == 4
    assert errors["jobs.bad.run.python"]["message"] == "there is no module shap"
    assert errors["jobs.bad.run.python"]["hint"] == "did you mean shop?"
    assert errors["jobs.worse.run.python.isolate"]["line"] == 7


def test_an_engine_does_not_start_on_a_function_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    (tmp_path / "config.toml").write_text('http.listen = "127.0.0.1:0"\n[jobs.bad]\nrun.python = "shop:plane"\n')
    done = engine(tmp_path)
    assert done.returncode == 2
    assert "config.toml:3: jobs.bad.run.python: shop has no plane (did you mean plain?)" in done.stderr
    assert not (tmp_path / "data").exists()


async def test_the_functions_of_the_page_are_right_and_run(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text("utf-8")
    python, toml = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert python is not None
    assert toml is not None
    (tmp_path / "config.toml").write_text(toml[1])
    (tmp_path / "orders.csv").write_text("a,1\nb,2\nc,3\n")
    async with desk(tmp_path) as at:
        (tmp_path / "shop.py").write_text(python[1])
        config = load([tmp_path / "config.toml"], environment={}, examine=True)
        orders, greet = at.context({"path": str(tmp_path / "orders.csv")}), at.context()
        outcome = await config.jobs["import"].runner.run(orders)
        assert (outcome.code, outcome.outputs) == ("succeeded", {"rows": 3})
        assert (await config.jobs["greet"].runner.run(greet)).code == "succeeded"
        assert "['a', '1']\n" in at.logged()
        assert "INFO attempt 1 for file.created" in at.logged()


def test_commands_that_only_need_the_configuration_import_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[jobs.bad]\nrun.python = "nowhere:work"\n')
    assert load([tmp_path / "config.toml"], environment={}).jobs["bad"].runner == Python(function="nowhere:work")
    with pytest.raises(ConfigError, match="there is no module nowhere"):
        load([tmp_path / "config.toml"], environment={}, examine=True)


# What any runner may do


class Careful(Runner, frozen=True, kw_only=True):
    """A runner that looks and prepares as the test says."""

    name: ClassVar[str] = "careful"
    main: ClassVar[str | None] = "word"
    seen: ClassVar[list[tuple[list[str], Path]]] = []
    prepared: ClassVar[list[str]] = []

    word: str

    @classmethod
    def examine(cls, runners: Mapping[str, Self], base: Path) -> Mapping[str, BadSetting]:
        cls.seen.append((sorted(runners), base))
        if any(runner.word == "raise" for runner in runners.values()):
            raise RuntimeError("no eyes")
        return {job: BadSetting("word", "is bad") for job, runner in runners.items() if runner.word == "bad"}

    async def prepare(self, context: PrepareContext) -> None:
        Careful.prepared.append(f"{context.job} {self.word} {context.base}")
        if self.word == "exit":
            raise SystemExit(3)
        await context.clock.sleep(3600)

    async def run(self, context: RunContext) -> Outcome:
        return Outcome.succeeded("done")


def configured(path: Path, text: str) -> Any:
    registry = Registry()
    registry.add(Careful)
    Careful.seen.clear()
    Careful.prepared.clear()
    (path / "config.toml").write_text(text)
    return load([path / "config.toml"], environment={}, registry=registry, examine=True)


def test_a_runner_looks_at_all_jobs_at_once_also_where_others_are_wrong(tmp_path: Path) -> None:
    text = '[jobs.a]\nrun.careful = "good"\n[jobs.b]\nrun.careful = "bad"\n[jobs.c]\nrun.careful = "x"\ntimeout = 1\n'
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (4, "jobs.b.run.careful"), (7, "jobs.c.timeout"),
    ]  # fmt: skip
    assert Careful.seen == [(["a", "b"], tmp_path)]


def test_a_runner_that_raises_when_it_looks_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="looking at what it names failed with RuntimeError: no eyes"):
        configured(tmp_path, '[jobs.a]\nrun.careful = "raise"\n')


async def test_runners_prepare_beside_each_other_and_what_fails_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured(tmp_path, "")
    jobs = [
        Job(name=word, runner=Careful(word=word), enabled=word != "off", retry=RetryPolicy())
        for word in ("exit", "wait", "off")
    ]
    executor = Executor(rules={}, clock=VirtualClock(), base=tmp_path, run_logs=RunLogs(tmp_path), shared=Shared())
    async with anyio.create_task_group() as group:
        group.start_soon(executor.prepare, jobs)
        await until(lambda: "could not be prepared" in caplog.text)
        group.cancel_scope.cancel()
    assert Careful.prepared == [f"exit exit {tmp_path}", f"wait wait {tmp_path}"]
    assert "Job exit could not be prepared: 3" in caplog.text


async def test_the_helper_and_its_imports_are_there_before_the_first_run(tmp_path: Path) -> None:
    async with desk(tmp_path, "def plain(): return os.getppid()\nasync def awaited(): ...") as at:
        await Python(function="shop:awaited").prepare(at.context())
        assert "shop" in sys.modules
        assert at.workers() == []
        await Python(function="shop:plain").prepare(at.context())
        (workers,) = at.workers()
        assert isinstance(workers, Workers)
        assert workers._helper is not None
        outcome = await at.run("plain")
        assert outcome.outputs == {"result": workers._helper.child.pid}


def test_a_folder_plugins_in_the_working_directory_hides_no_runner_from_its_workers(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    (tmp_path / "work.py").write_text("def go():\n    print('done')\n")
    (tmp_path / "config.toml").write_text('[jobs.a]\nrun.python = "work:go"\n')
    done = subprocess.run(
        [sys.executable, "-m", "engine", "check"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
