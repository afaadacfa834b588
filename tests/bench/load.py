"""Load over HTTP: `wrk` where it is installed, else a client of our own, which is slower than wrk.

Both are pinned to one core, so that the server under test, which is not pinned, has the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from tests.bench.processes import ROOT
from tests.bench.report import BenchFailed
from tests.bench.wire import HOST

_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\n{{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50_ms":%f,"p99_ms":%f}}\\n',
        summary.requests, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


_HEADS = """
local requests, turn = {{}}, 0
init = function(args)
    for line in io.lines("{heads}") do
        requests[#requests + 1] = wrk.format(nil, "{path}", {{
            ["Content-Type"] = "application/json", ["webhook-id"] = line:match("^(%S+)"),
            ["webhook-timestamp"] = line:match("^%S+ (%S+)"), ["webhook-signature"] = line:match("^%S+ %S+ (%S+)"),
        }})
    end
end
request = function()
    turn = turn % #requests + 1
    return requests[turn]
end
"""
"""Requests that differ: each has the id, the time and the signature of a line of a file."""


class Load(Struct, frozen=True, kw_only=True):
    """What a load came to: `requests` answered, of which `refused` with an error status; `broken` connections."""

    requests: int
    seconds: float
    refused: int
    broken: int
    p50_ms: float
    p99_ms: float

    @property
    def accepted(self) -> int:
        """How many requests were answered with success."""
        return self.requests - self.refused

    @property
    def rate(self) -> float:
        """Accepted requests per second."""
        return self.accepted / self.seconds


def pooled(loads: Sequence[Load]) -> Load:
    """Return several loads as one: sums, and the medians of the latencies."""
    return Load(
        requests=sum(one.requests for one in loads),
        seconds=sum(one.seconds for one in loads),
        refused=sum(one.refused for one in loads),
        broken=sum(one.broken for one in loads),
        p50_ms=median(one.p50_ms for one in loads),
        p99_ms=median(one.p99_ms for one in loads),
    )


def has_wrk() -> bool:
    """Tell whether wrk can be used."""
    return shutil.which("wrk") is not None and shutil.which("taskset") is not None


def post(port: int, path: str, body: Path, *, connections: int, seconds: float, signatures: Path | None = None) -> Load:
    """Post the content of the file `body` as fast as answers come, on so many connections; whole seconds for wrk.

    `signatures` is a file with a line for each request, in turn: the id, time and signature of Standard Webhooks.
    """
    how = _post_by_wrk if has_wrk() else post_by_ours
    return how(port, path, body, connections=connections, seconds=seconds, signatures=signatures)


def _post_by_wrk(
    port: int, path: str, body: Path, *, connections: int, seconds: float, signatures: Path | None = None
) -> Load:
    script = body.with_suffix(".lua")
    more = "" if signatures is None else _HEADS.format(heads=signatures, path=path)
    script.write_text(_SCRIPT.format(body=body) + more)
    duration = max(round(seconds), 1)
    return _run(
        ["taskset", "-c", str(_core()), "wrk", "-t1", f"-c{connections}", f"-d{duration}s", "-s", str(script),
         f"http://{HOST}:{port}{path}"]
    )  # fmt: skip


def post_by_ours(
    port: int, path: str, body: Path, *, connections: int, seconds: float, signatures: Path | None = None
) -> Load:
    """Do what `post` does, without wrk."""
    return _run(
        [sys.executable, "-m", "tests.bench.client", str(_core()), str(port), path, str(body), str(connections),
         str(seconds), *([] if signatures is None else [str(signatures)])]
    )  # fmt: skip


def _core() -> int:
    return max(os.sched_getaffinity(0))


def _run(command: list[str]) -> Load:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    load = msgspec.json.decode(done.stdout.rstrip().rpartition("\n")[2], type=Load)
    if not load.accepted:
        raise BenchFailed(f"no request was accepted:\n{done.stdout}")
    return load
