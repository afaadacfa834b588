"""A worker: a process forked from the helper that calls functions, one at a time, for as long as it stays clean.

The function owns the process while it runs: it may print, exit, crash, replace signal handlers, close descriptors and
fork. Whatever it leaves behind ends with the call, or the worker says that it is not clean and is replaced.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from engine.plugin import FunctionContext, Outcome, RunCancelled
from plugins.runners.python.calling import LOG_FORMAT, Progress, RunLog, call, raised, returned
from plugins.runners.python.describe import NoFunction, import_function
from plugins.runners.python.kernel import NO_RUN, RUN_ID, Mark, adopt_orphans, children
from plugins.runners.python.wire import LARGEST_ANSWER_BYTES, LOST, Answer, Task, framed, receive_task

LEFTOVER_GRACE_S = 0.05
"""Between SIGTERM and SIGKILL for what a function leaves running."""

GIVE_UP_S = 2.0
"""How long killed processes may take to go before the answer is given without them."""

OUT_OF_MEMORY_SCORE = b"500"
"""Added to a worker's share when the kernel, out of memory, chooses whom to kill: not the engine."""

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM, signal.SIGHUP, signal.SIGPIPE)


class Worker:
    """The process itself, from its fork to its end."""

    def __init__(self, connection: socket.socket, mark: Mark) -> None:
        self._connection = connection
        self._identity = _identity(connection.fileno())
        self._mark = mark
        self._pid = os.getpid()
        self._log = logging.Logger("run", logging.INFO)
        self._log.addHandler(RunLog(lambda: 2))
        self._busy = False
        self._inside = False
        self._looked = False
        self._told = False
        adopt_orphans()
        with suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(OUT_OF_MEMORY_SCORE)
        signal.signal(signal.SIGTERM, self._on_term)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        root = logging.getLogger()
        if not root.handlers:
            logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
        os.environ.pop(RUN_ID, None)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a module may have put another in its place
                stream.reconfigure(encoding="utf-8", line_buffering=True, errors="backslashreplace")
        self._before = self._state()

    def serve(self) -> NoReturn:
        """Take tasks until the engine closes the connection."""
        while True:
            try:
                received = receive_task(self._connection)
            except (OSError, EOFError):
                received = None
            if received is None:
                os._exit(0)
            self._busy = True
            self._answer(*received)
            self._busy = False

    def _answer(self, task: Task, log: int) -> None:
        environment, self._inside, self._looked, self._told = dict(os.environ), False, False, False
        self._begin(task, log)
        outcome = self._execute(task)
        if os.getpid() != self._pid:
            # A process that the function forked, and that came back here with it.
            _flush()
            os._exit(outcome.exit_code if outcome.exit_code is not None else outcome.code != "succeeded")
        _flush()
        left_nothing = self._end_descendants()
        is_clean = self._end(task, environment) and left_nothing
        self._send(Answer(outcome=outcome, is_clean=is_clean and not self._told))

    def _begin(self, task: Task, log: int) -> None:
        """Make the process that of a run: its mark, its variables, its log as standard output and error."""
        self._mark.show(task.run_id)
        os.environ.update(_variables(task))
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        if task.memory_bytes is not None:
            _limit_memory(task.memory_bytes)

    def _execute(self, task: Task) -> Outcome:
        context = FunctionContext(
            task.event, events=task.events, run_id=task.run_id, job=task.job, trigger=task.trigger,
            attempt=task.attempt, scheduled_for=task.scheduled_for, traceparent=task.traceparent, log=self._logger,
            is_cancelled=self._is_cancelled, on_progress=Progress(self._logger),
        )  # fmt: skip
        try:
            try:
                function, _ = import_function(task.target)
            except NoFunction as error:
                return Outcome.failed("import_error", str(error))
            try:
                self._inside = True
                if self._told:
                    raise RunCancelled
                value = _call(function, context, task)
            finally:
                self._inside = False
            return returned(value, context)
        except BaseException as error:  # the user's code: all that it raises is its outcome
            if task.memory_bytes is not None:
                _limit_memory(None)
            return raised(error, context)

    def _logger(self) -> logging.Logger:
        return self._log

    def _is_cancelled(self) -> bool:
        self._looked = True
        return self._told

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        """End the function by RunCancelled, or let it see that it should end; without one, end the process."""
        if os.getpid() != self._pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if not self._busy:
            os._exit(0)
        before, self._told = self._told, True
        if self._inside and not self._looked and not before:
            raise RunCancelled

    def _end(self, task: Task, environment: dict[str, str]) -> bool:
        """Stop being the process of a run; tell whether it is as it was before."""
        # An idle worker must not hold the log of a run that ended.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)
        if task.memory_bytes is not None:
            _limit_memory(None)
        for name in (own := _variables(task)):
            os.environ.pop(name, None)
        for name in own.keys() & environment.keys():
            os.environ[name] = environment[name]
        self._mark.show(NO_RUN)
        return self._state() == self._before and dict(os.environ) == environment

    def _state(self) -> tuple[Any, ...]:
        """Return what a function may change and the next one would notice."""
        try:
            folder = os.getcwd()
        except OSError:  # it was removed
            folder = ""
        handlers = [signal.getsignal(number) for number in _WATCHED]
        streams = [sys.stdin, sys.stdout, sys.stderr]
        closed = [(id(stream), stream is None or stream.closed) for stream in streams]
        threads = threading.active_count()
        timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        return folder, handlers, streams, closed, threads, timer, os.getuid(), os.getpgrp(), sys.path[:]

    def _end_descendants(self) -> bool:
        """End the processes that the function left running; tell whether there were none."""
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        lived = pid == 0
        for number, wait_s in ((signal.SIGTERM, LEFTOVER_GRACE_S), (signal.SIGKILL, GIVE_UP_S)):
            deadline_s = time.monotonic() + wait_s
            while left := _living_children():
                lived = True
                # Their own children come to this process as they end, and are seen at the next look.
                for child in left:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(child, number)
                if time.monotonic() > deadline_s:
                    break
                time.sleep(0.002)
        if lived:
            self._say("the function left processes running; they were ended too")
        return not lived

    def _say(self, text: str) -> None:
        with suppress(Exception):
            self._log.warning(text)

    def _send(self, answer: Answer) -> None:
        """Send an answer; a function that closed or replaced the connection ends its process."""
        frame = framed(answer)
        if len(frame) > LARGEST_ANSWER_BYTES:
            outcome = Outcome.failed("bad_outputs", f"can't be kept: its outputs are {len(frame)} bytes")
            frame = framed(Answer(outcome=outcome, is_clean=answer.is_clean))
        try:
            if _identity(self._connection.fileno()) != self._identity:
                os._exit(LOST)
            self._connection.setblocking(True)
            self._connection.sendall(frame)
        except OSError:
            os._exit(LOST)


def _variables(task: Task) -> dict[str, str]:
    """Return what a process that the function starts has in its environment, as programs have it."""
    return {**task.marks, "TRACEPARENT": task.traceparent}


def _call(function: Callable[..., Any], context: FunctionContext, task: Task) -> Any:
    if not task.is_async:
        return call(function, context, task.takes_run, task.arguments)

    async def wait() -> Any:
        return await call(function, context, task.takes_run, task.arguments)

    return asyncio.run(wait())


def _living_children() -> set[int]:
    """Reap the children that have ended, and return those that have not."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return children()


def _limit_memory(size_bytes: int | None) -> None:
    """Bound the private memory that the process may have beyond what it has now; None takes the bound away."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard
    if size_bytes is not None:
        with open("/proc/self/statm", "rb") as file:
            soft = int(file.read().split()[5]) * resource.getpagesize() + size_bytes
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
        soft = hard
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
