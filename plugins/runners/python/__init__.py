"""Python functions as runs: async ones on the event loop, plain ones in worker processes or in threads."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from anyio.to_thread import run_sync
from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.plugin import (
    BadSetting,
    ExpressionError,
    Outcome,
    PrepareContext,
    RunContext,
    Runner,
    Secret,
    Size,
    Template,
    plain,
)
from plugins.runners.python.describe import Description, NoFunction, add_folders, import_function
from plugins.runners.python.local import await_function, call_in_thread
from plugins.runners.python.pool import NoWorker, WorkerLost, Workers, open_workers
from plugins.runners.python.probe import Question, Surroundings, ask
from plugins.runners.python.wire import LOST, Task, framed

Isolation = Literal["loop", "process", "thread"]

RECYCLE = 100

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Python(Runner, frozen=True, kw_only=True):
    """Call a Python function; what it returns are the run's outputs, and what it raises fails the attempt.

    - `function`: `package.module:function`. It is called with the run, a `FunctionContext`, if it takes one.
    - `isolate`: where it is called: `loop` (async functions alone), `process` (a worker process) or `thread` (plain
      functions alone). Default: async functions on the loop, plain ones in a process.
    - `arguments`: keyword arguments by name. In their texts `{{ CEL }}` may stand; one that is one expression stands
      for its value.
    - `path`: folders that modules are imported from, after what is installed. Default: that of the configuration
      file.
    - `env`: further environment variables of worker processes; else they have those that programs get.
    - `memory`: so much memory may a call use in its worker process, beside what the worker has. By default there is
      no bound.
    - `recycle`: after so many calls a worker process is replaced; 1 gives each call a fresh one. Default: 100.
    - `preload`: whether worker processes are forked with the module imported already. False for modules that must
      not be imported before a fork, such as those that start threads; each worker then imports for itself. Default:
      true.
    """

    name: ClassVar[str] = "python"
    main: ClassVar[str | None] = "function"
    guarded: ClassVar[frozenset[str]] = frozenset({"path", "env"})

    function: str
    isolate: Isolation | None = None
    arguments: dict[str, Any] = {}  # noqa: RUF012 - msgspec makes a new one for each
    path: tuple[Path, ...] = ()
    env: dict[str, Secret | str] = {}  # noqa: RUF012
    memory: Annotated[Size, Meta(ge=1024 * 1024)] | None = None
    recycle: Annotated[int, Meta(ge=1)] | None = None
    preload: bool | None = None

    def programs(self) -> tuple[str, ...]:
        return (self.function,)

    def __post_init__(self) -> None:
        if not _TARGET.fullmatch(self.function):
            raise BadSetting("function", "names no function", 'such as "package.module:function"')
        for name in self.arguments:
            if not name.isidentifier():
                raise BadSetting(f"arguments.{name}", "is no name that an argument can have")
        for name, value in self.env.items():
            if not _VARIABLE.fullmatch(name):
                raise BadSetting(f"env.{name}", "is no name of a variable", "letters, digits and _")
            if name.startswith("ENGINE_"):
                raise BadSetting(f"env.{name}", "is set by the engine", "choose another name")
            if "\0" in (value.reveal() if isinstance(value, Secret) else value):
                raise BadSetting(f"env.{name}", "holds a NUL character, which no variable can")
        if self.isolate not in (None, "process"):
            self._refuse_process_settings(f'isolate = "{self.isolate}"')

    def check(self, names: Collection[str]) -> None:
        for name, value in self.arguments.items():
            try:
                _compiled(value, names)
            except ExpressionError as error:
                raise BadSetting(f"arguments.{name}", str(error)) from None

    @classmethod
    def examine(cls, runners: Mapping[str, Self], base: Path) -> Mapping[str, BadSetting]:
        asked: dict[Surroundings, dict[str, Question]] = {}
        for job, runner in runners.items():
            asked.setdefault(runner._surroundings(base), {})[job] = runner._question()
        wrong: dict[str, BadSetting] = {}
        for surroundings, questions in asked.items():
            answers = ask(surroundings, list(questions.values()))
            for job, question in questions.items():
                answer = answers[question]
                _KNOWN[surroundings, question] = answer
                try:
                    runners[job]._place(answer)
                except BadSetting as error:
                    wrong[job] = error
        return wrong

    async def prepare(self, context: PrepareContext) -> None:
        await self._plan(context)

    async def run(self, context: RunContext) -> Outcome:
        try:
            plan = await self._plan(context)
        except BadSetting as error:
            return Outcome.failed("import_error", f"{self.function}: {error}")
        except NoWorker as error:
            return Outcome.failed("start_failed", str(error))
        arguments = self.arguments
        if plan.templates is not None:
            try:
                arguments = {name: _rendered(value, context) for name, value in plan.templates.items()}
            except ExpressionError as error:
                return Outcome.failed("template_error", f"the arguments: {error}")
        if plan.workers is not None:
            return await self._call_worker(plan, arguments, context, plan.workers)
        called = await_function if plan.isolate == "loop" else call_in_thread
        return await called(plan.function, context, plan.takes_run, arguments)

    def _refuse_process_settings(self, why: str) -> None:
        """Refuse the settings of worker processes where none is used."""
        given = {"env": self.env or None, "memory": self.memory, "recycle": self.recycle, "preload": self.preload}
        for field, value in given.items():
            if value is not None:
                raise BadSetting(field, f"is for worker processes, and with {why} there is none", "leave it out")

    def _surroundings(self, base: Path) -> Surroundings:
        folders = tuple(map(str, self.path)) or (str(base),)
        return Surroundings(folders=folders, env=tuple(sorted(self.env.items(), key=_first)))

    def _question(self) -> Question:
        return Question(target=self.function, arguments=tuple(sorted(self.arguments)))

    def _place(self, answer: Description | NoFunction) -> Isolation:
        """Return where a function is called; raise BadSetting where there is none, or it can't be called there."""
        if isinstance(answer, NoFunction):
            raise BadSetting("function", str(answer), answer.hint)
        if self.isolate is None:
            if answer.is_async:
                self._refuse_process_settings("an async function on the event loop")
            return "loop" if answer.is_async else "process"
        if self.isolate == "loop" and not answer.is_async:
            hint = 'make it `async def`, or say "process" or "thread"'
            raise BadSetting("isolate", "the function is a plain one, and would hold up the event loop", hint)
        if self.isolate == "thread" and answer.is_async:
            raise BadSetting("isolate", "the function is async, and is not called in threads", '"loop" or "process"')
        return self.isolate

    async def _plan(self, context: PrepareContext) -> _Plan:
        """Return how the function is called, found out once; raise BadSetting and NoWorker."""
        plans = await context.shared(("python", "plans"), _Plans)
        known = plans.known.get(id(self))
        if known is not None:
            return known.plan
        plan = await self._make_plan(context)
        # It holds on to the settings: no other may get their id.
        plans.known[id(self)] = _Known(settings=self, plan=plan)
        return plan

    async def _make_plan(self, context: PrepareContext) -> _Plan:
        surroundings, question = self._surroundings(context.base), self._question()
        answer = _KNOWN.get((surroundings, question))
        if answer is None or isinstance(answer, NoFunction):
            answer = (await run_sync(ask, surroundings, [question], abandon_on_cancel=True))[question]
        isolate = self._place(answer)
        assert isinstance(answer, Description)  # noqa: S101 - or else it had no place
        templates = None
        if "{{" in repr(self.arguments):
            templates = {name: _compiled(value, None) for name, value in self.arguments.items()}
        function = workers = None
        if isolate == "process":
            preload = self.preload is not False
            key = ("python", "workers", surroundings, preload)
            workers = await context.shared(key, lambda: open_workers(surroundings, context.clock))
            workers.load(self.function.partition(":")[0] if preload else None)
        else:
            function = await run_sync(_import_here, surroundings, question, answer, abandon_on_cancel=True)
        return _Plan(
            isolate=isolate, is_async=answer.is_async, takes_run=answer.takes_run, function=function,
            templates=templates, workers=workers,
        )  # fmt: skip

    async def _call_worker(
        self, plan: _Plan, arguments: dict[str, Any], context: RunContext, workers: Workers
    ) -> Outcome:
        event = _without_http(context.event)
        several = len(context.events) > 1
        task = Task(
            target=self.function, is_async=plan.is_async, takes_run=plan.takes_run, arguments=arguments,
            memory_bytes=self.memory, marks=dict(context.marks), run_id=context.run_id, job=context.job,
            trigger=context.trigger, attempt=context.attempt, scheduled_for=context.scheduled_for,
            traceparent=context.traceparent, event=event,
            events=tuple(map(_without_http, context.events)) if several else (),
        )  # fmt: skip
        try:
            log = context.open_log()
        except OSError as error:
            return Outcome.failed("start_failed", f"the run's log can't be opened: {error.strerror}")
        try:
            answer = await workers.call(
                framed(task), log, recycle=self.recycle or RECYCLE, started=context.process_started
            )
        except NoWorker as error:
            return Outcome.failed("start_failed", str(error))
        except WorkerLost as error:
            return _lost(error.status)
        finally:
            os.close(log)
        return answer.outcome


class _Plan(Struct, frozen=True, kw_only=True):
    """How a function is called: `function` is there where that is here, `workers` where it is a worker process."""

    isolate: Isolation
    is_async: bool
    takes_run: bool
    function: Any
    templates: dict[str, Any] | None
    workers: Any


class _Known(Struct, frozen=True, kw_only=True):
    settings: Python
    plan: _Plan


class _Plans:
    """The plans of all jobs, by the identity of their settings, for as long as the engine runs."""

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}

    async def __aenter__(self) -> _Plans:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.known.clear()


_KNOWN: dict[tuple[Surroundings, Question], Description | NoFunction] = {}
"""What `examine` found, so that the start of the engine need not ask again."""


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _import_here(surroundings: Surroundings, question: Question, expected: Description) -> Any:
    """Import a function into the engine's process; raise BadSetting."""
    add_folders(surroundings.folders)
    try:
        function, file = import_function(question.target)
    except NoFunction as error:
        raise BadSetting("function", str(error), error.hint) from None
    if file != expected.file:
        message = f"its module was imported from {file} already, and is not that of {expected.file}"
        raise BadSetting("function", message, "give one of the modules another name")
    return function


def _compiled(value: Any, names: Collection[str] | None) -> Any:
    """Return a value with its texts as templates; raises ExpressionError."""
    if isinstance(value, str):
        return Template(value) if names is None else Template(value, names)
    if isinstance(value, dict):
        return {key: _compiled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_compiled(item, names) for item in value]
    return value


def _rendered(value: Any, context: RunContext) -> Any:
    """Return a value with its templates rendered; raises ExpressionError."""
    if isinstance(value, Template):
        return plain(value.value(context.scope))
    if isinstance(value, dict):
        return {key: _rendered(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item, context) for item in value]
    return value


def _without_http(event: Any) -> Any:
    return event if event.http is None else replace(event, http=None)


def _lost(status: int | None) -> Outcome:
    """Return the outcome of a worker that ended before it answered."""
    if status is None:
        return Outcome.failed("worker_lost", "the helper of the worker processes ended, and all of them with it")
    code = os.waitstatus_to_exitcode(status)
    if code == LOST:
        reason = "its answer is lost: the function closed, replaced or wrote to descriptors that are not its own"
        return Outcome.failed("worker_lost", reason)
    if code >= 0:
        reason = f"its process exited with {code} before the function returned"
        return Outcome.failed("process_exited", reason, exit_code=code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return Outcome.failed("signal", f"its process was ended by {name}")
