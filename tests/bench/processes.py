"""The servers under test as processes of their own: started, measured, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.report import BenchFailed
from tests.bench.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "the-bench-is-the-admin"
START_S = 60.0
STOP_S = 30.0
QUIET_S = 0.2
"""How long a server has to do next to nothing to count as quiet."""

QUIET_SHARE = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Cpu(Struct, frozen=True, kw_only=True):
    """Seconds of processor time that a process has used: its event loop, the busiest other thread, and the rest."""

    loop_s: float
    writer_s: float
    rest_s: float

    @property
    def total_s(self) -> float:
        """The sum."""
        return self.loop_s + self.writer_s + self.rest_s


class Server:
    """A process that listens on a port of 127.0.0.1; its output goes to `log`."""

    def __init__(self, arguments: Sequence[str], folder: Path, port: int, *, wait: str = "/ready") -> None:
        self.port = port
        self.log = folder / "server.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ENGINE", "NOTIFY"))}
        environment |= {"ENGINE_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        begun_s = time.monotonic()
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_ready(wait)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - begun_s
        """Seconds from before the process was made until it answered that it is ready."""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def _wait_ready(self, path: str) -> None:
        def look() -> bool:
            if self._popen.poll() is not None:
                raise BenchFailed(f"the server ended with {self._popen.returncode}:\n{self.log.read_text()}")
            with contextlib.suppress(OSError), Wire(self.port) as wire:
                return wire.ask("GET", path)[0] == 200
            return False

        wait_for(look, f"the server answers 200 at {path}; see {self.log}", within_s=START_S)

    def threads(self) -> dict[int, float]:
        """Return the seconds of processor time of each thread, by its id."""
        used = {}
        for entry in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                used[int(entry.name)] = _used_s(entry)
        return used

    def cpu_since(self, before: dict[int, float]) -> Cpu:
        """Return what was used since `threads` returned `before`."""
        used = {thread: now - before.get(thread, 0.0) for thread, now in self.threads().items()}
        loop_s = used.pop(self.pid, 0.0)
        others = sorted(used.values())
        return Cpu(loop_s=loop_s, writer_s=others[-1] if others else 0.0, rest_s=sum(others[:-1]))

    def unfinished(self, wire: Wire) -> int:
        """Return how many runs have not ended, by the engine's own count."""
        status, body = wire.ask("GET", "/api/v1/status", token=TOKEN)
        if status != 200:
            raise BenchFailed(f"the engine answered {status}: {body.decode()}\n{self.log.read_text()[-4000:]}")
        return int(sum(msgspec.json.decode(body)["runs"].values()))

    def memory_bytes(self, field: str = "VmHWM") -> int:
        """Return its resident memory, the most so far (VmHWM) or now (VmRSS)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == field:
                return int(rest.split()[0]) * 1024
        raise BenchFailed(f"/proc/{self.pid}/status has no {field}")

    def switches(self) -> int:
        """Return how often its threads have gone to sleep by themselves."""
        count = 0
        for entry in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (entry / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    count += int(line.split()[1])
        return count

    def wait_quiet(self, within_s: float = 10.0) -> float:
        """Wait until it does next to nothing, or for `within_s`; return the seconds that it took."""
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < within_s:
            before = self.threads()
            time.sleep(QUIET_S)
            if self.cpu_since(before).total_s < QUIET_S * QUIET_SHARE:
                break
        return time.monotonic() - begun_s

    def stop(self) -> None:
        """End it, and what it started if it does not do that itself."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_S)
            except subprocess.TimeoutExpired:
                for pid in [*_children(self.pid), self.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._popen.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_engine(folder: Path, config: str) -> Server:
    """Start an engine in `folder`, and wait until it is ready; `{port}` in the configuration becomes its port."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config.replace("{port}", str(port)))
    return Server(["-m", "engine"], folder, port)


def start_bare(folder: Path, module: str = "tests.bench.bare") -> Server:
    """Start a server without an engine."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    return Server(["-m", module, str(port)], folder, port)


def wait_for(look: Callable[[], bool], what: str, *, within_s: float, pause_s: float = 0.005) -> None:
    """Look until it is so; raise BenchFailed when that takes too long."""
    until_s = time.monotonic() + within_s
    while not look():
        if time.monotonic() > until_s:
            raise BenchFailed(f"not within {within_s:g} s: {what}")
        time.sleep(pause_s)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _used_s(task: Path) -> float:
    """Return a thread's processor time: to the nanosecond where the kernel keeps it, else in clock ticks."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ValueError):
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    pids = []
    for entry in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            pids += [int(text) for text in (entry / "children").read_text().split()]
    return pids
