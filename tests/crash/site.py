"""A directory with all that one engine needs: its configuration, a job that watches itself, and its data."""

from __future__ import annotations

import json
import os
import py_compile
import re
import shutil
import socket
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

TOKEN = "the-crash-harness-is-the-admin"

JOB = """\
#!/bin/sh
# job.sh JOB LIMIT LIMIT_IN_ALL SECONDS [FAILING_ATTEMPTS [SECONDS_OF_DAEMON]]
# The locks belong to the living processes of a run; the kernel gives them back when the last one has ended.
# So two attempts of one run at the same time, or more runs than slots, are seen from outside of the engine.
# CRASH_KEY is the value of the job's key, CRASH_POOL a pool, which holds CRASH_POOL_LIMIT; a run takes CRASH_WEIGHT.
job=$1 limit=$2 in_all=$3 seconds=$4 failing=${5:-0} daemon=${6:-}
say() {
    read -r up _ </proc/uptime
    echo "$1 $job $ENGINE_RUN_ID $ENGINE_ATTEMPT $$ $up" >>witness/log
}
exec 7>"witness/run.$ENGINE_RUN_ID"
flock -n 7 || say overlap
number=1
while exec 8>"witness/slot.$job${CRASH_KEY:+.$CRASH_KEY}.$number"; ! flock -n 8; do
    number=$((number + 1))
    [ "$number" -le "$limit" ] || { say over_limit; break; }
done
number=1
while exec 9>"witness/slot.$number"; ! flock -n 9; do
    number=$((number + 1))
    [ "$number" -le "$in_all" ] || { say over_limit_in_all; break; }
done
if [ -n "$CRASH_POOL" ]; then
    number=1
    while exec 6>"witness/pool.$CRASH_POOL.$number"; ! flock -n 6; do
        number=$((number + 1))
        [ "$number" -le "$CRASH_POOL_LIMIT" ] || { say over_pool; break; }
    done
    [ "$CRASH_WEIGHT" = 1 ] || while exec 5>"witness/pool.$CRASH_POOL.$number"; ! flock -n 5; do
        number=$((number + 1))
        [ "$number" -le "$CRASH_POOL_LIMIT" ] || { say over_pool; break; }
    done
fi
say start
[ -z "$daemon" ] || setsid sh -c 'echo "daemon $$" >>witness/daemons; exec sleep "$0"' "$daemon" 5>&- 6>&- 8>&- 9>&- &
sleep "$seconds"
[ "$ENGINE_ATTEMPT" -gt "$failing" ] || { say fail; exit 3; }
say stop
"""


LONGEST_LINE = 120
"""No line that a job writes has more bytes."""

FUNCTIONS = Path(__file__).with_name("functions.py")


class Job(Struct, frozen=True, kw_only=True):
    """A job of the site: how long it takes, and what limits and policies it has.

    `runner`: a program, or a Python function in a worker process or on the event loop. `failing`: how many attempts
    fail; `key` is CEL by which the limit holds; of its `pool` a run takes `weight` (1 or 2); `daemon_s`: how long a
    process lives that a program starts in a session of its own.
    """

    runner: Literal["exec", "process", "loop"] = "exec"
    limit: int | None = None
    key: str | None = None
    pool: str | None = None
    weight: int = 1
    overlap: str | None = None
    seconds: float = 0.05
    failing: int = 0
    daemon_s: float | None = None
    on_crash: str = "retry"
    retry: str = ""
    timeout: str = "1h"


class Witnessed(Struct, frozen=True, kw_only=True):
    """A line that a job wrote: what happened (start, stop, overlap, over_limit…), to which attempt, when."""

    what: str
    job: str
    run: str
    attempt: int
    pid: int
    at_s: float


class Answer(Struct, frozen=True, kw_only=True):
    """What the engine answered: `body` is JSON, or None where it is none."""

    status: int
    body: Any


class Site:
    """A directory in which one engine works.

    `triggers` are TOML lines, in which `{port}` stands for `outside_port`, on which a feeder may listen;
    `concurrency` is the engine's own, `grace` its shutdown_grace; `plugins` is a folder.
    """

    def __init__(
        self, path: Path, *, jobs: Mapping[str, Job], triggers: str, concurrency: int = 6, grace: str = "20s",
        plugins: Path | None = None, pools: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self.jobs = dict(jobs)
        self.pools = dict(pools or {})
        self.triggers = frozenset(re.findall(r"^\[triggers\.([\w-]+)\]", triggers, re.MULTILINE))
        self.concurrency = concurrency
        self.port, self.outside_port = _free_port(), _free_port()
        self.inbox = path / "inbox"
        self.database = path / "data" / "engine.db"
        self.log = path / "engine.log"
        for folder in ("inbox", "witness"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        (path / "job.sh").write_text(JOB)
        if any(job.runner != "exec" for job in jobs.values()):
            (path / "jobs").mkdir(exist_ok=True)
            # Compiled already: else who imports it first does system calls of the kinds at which engines are killed.
            py_compile.compile(str(shutil.copy(FUNCTIONS, path / "jobs")), doraise=True)
        tables = "\n".join(self._job_table(name, job) for name, job in jobs.items())
        (path / "config.toml").write_text(
            f'[engine]\nconcurrency = {concurrency}\nshutdown_grace = "{grace}"\n'
            f"plugins = {json.dumps([] if plugins is None else [str(plugins)])}\n"
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n'
            "[pools]\n" + "".join(f"{name} = {limit}\n" for name, limit in self.pools.items()) + f"{tables}\n"
            f"{triggers.replace('{port}', str(self.outside_port))}\n"
        )

    def _job_table(self, name: str, job: Job) -> str:
        lines = [
            f"[jobs.{name}]",
            self._program(name, job) if job.runner == "exec" else self._function(job),
            f'on_crash = "{job.on_crash}"',
            f'timeout = "{job.timeout}"',
        ]
        lines += [f"concurrency = {job.limit}"] if job.limit else []
        lines += [f"concurrency_key = {json.dumps(job.key)}"] if job.key else []
        lines += [f"pools = {{ {job.pool} = {job.weight} }}"] if job.pool else []
        lines += [f'overlap = "{job.overlap}"'] if job.overlap else []
        lines += [f"retry = {job.retry}"] if job.retry else []
        return "\n".join(lines)

    def _program(self, name: str, job: Job) -> str:
        command = [
            "sh", "job.sh", name, str(job.limit or self.concurrency), str(self.concurrency), str(job.seconds),
            str(job.failing), *([str(job.daemon_s)] if job.daemon_s else []),
        ]  # fmt: skip
        known = {}
        if job.key:
            known["CRASH_KEY"] = f"{{{{ {job.key} }}}}"
        if job.pool:
            limit = str(self.pools[job.pool])
            known |= {"CRASH_POOL": job.pool, "CRASH_POOL_LIMIT": limit, "CRASH_WEIGHT": str(job.weight)}
        env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in known.items())
        return f"run.exec = {{ command = {json.dumps(command)}, env = {{ {env} }} }}"

    def _function(self, job: Job) -> str:
        name = "work" if job.runner == "process" else "work_on_loop"
        limit = job.limit or self.concurrency
        arguments = f"limit = {limit}, in_all = {self.concurrency}, seconds = {job.seconds}, failing = {job.failing}"
        return f'run.python = {{ function = "functions:{name}", path = ["jobs"], arguments = {{ {arguments} }} }}'

    # What the jobs saw

    def witnessed(self, *, last: int | None = None) -> list[Witnessed]:
        """Return what the jobs wrote, in the order in which it happened; with `last` only the newest lines."""
        try:
            with (self.path / "witness" / "log").open("rb") as file:
                if last is not None:
                    file.seek(max(file.seek(0, os.SEEK_END) - last * LONGEST_LINE, 0))
                text = file.read().decode()
        except FileNotFoundError:
            return []
        written = text.splitlines() if last is None else text.splitlines()[1:][-last:]
        lines = (line.split() for line in written)
        return [
            Witnessed(what=what, job=job, run=run, attempt=int(attempt), pid=int(pid), at_s=float(at))
            for what, job, run, attempt, pid, at in lines
        ]

    def daemons(self) -> list[int]:
        """Return the process ids of the processes that left their run's session."""
        try:
            lines = (self.path / "witness" / "daemons").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [int(line.split()[1]) for line in lines]

    # What the store holds

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the store's file, which is opened for reading alone."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=5.0)) as raw:
            return raw.execute(query, values).fetchall()

    # What the engine says

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask the engine once, on a connection of its own; raises OSError and HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10.0)
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def ask_text(self, path: str) -> str:
        """Return what the engine answers that is no JSON; raises OSError and HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def post(self, path: str, body: Any, *, key: str | None = None) -> Answer:
        """Post JSON once, with an Idempotency-Key where a key is given."""
        return self.ask("POST", path, body, {} if key is None else {"Idempotency-Key": key})

    def unfinished(self) -> int | None:
        """Return how many runs have not ended; None while the engine does not answer."""
        try:
            answer = self.ask("GET", "/api/v1/status")
        except (OSError, HTTPException):
            return None
        return sum(answer.body["runs"].values()) if answer.status == 200 else None


def ask(connection: HTTPConnection, method: str, path: str, body: Any, headers: Mapping[str, str] | None) -> Answer:
    """Ask the engine once; raises OSError and HTTPException."""
    sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
    content = None
    if body is not None:
        content = json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    connection.request(method, path, content, sent)
    response = connection.getresponse()
    text = response.read()
    is_json = "json" in response.headers.get("Content-Type", "")
    return Answer(status=response.status, body=json.loads(text) if text and is_json else None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
