"""The engine as a process: started, with or without strace, killed, and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.crash.site import TOKEN, Site

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 40.0
PAUSE_S = 0.005

_MARK = b"ENGINE_RUN_ID="


class NotInTime(AssertionError):
    """What was waited for did not come."""


def wait_for(
    look: Callable[[], T | None], what: str | Callable[[], str], within_s: float = 20.0, pause_s: float = PAUSE_S
) -> T:
    """Look until what is found is true, and return it; raise NotInTime, which says `what` was waited for."""
    until_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > until_s:
            raise NotInTime(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause_s)
    return found


class EngineProcess:
    """One process of the engine on a site, leader of its own session.

    `strace` are options of strace(1), under which it then runs; `more` are further environment variables. What it logs
    is appended to the site's log.
    """

    def __init__(self, site: Site, *, strace: Sequence[str] = (), more: Mapping[str, str] | None = None) -> None:
        self.site = site
        prefix = ["strace", "-qq", "-o", "/dev/null", *strace] if strace else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ENGINE", "NOTIFY"))}
        environment |= {"ENGINE_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), **(more or {})}
        self._log_from = site.log.stat().st_size if site.log.exists() else 0
        with site.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*prefix, sys.executable, "-m", "engine"],
                cwd=site.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._traced = bool(strace)

    @property
    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while it lives."""
        return self._popen.poll()

    @property
    def pid(self) -> int:
        """The engine's process id; under strace, of its child."""
        if not self._traced:
            return self._popen.pid
        children = Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text().split()
        return int(children[0]) if children else self._popen.pid

    def logged(self) -> str:
        """Return what this process has logged."""
        with self.site.log.open("rb") as file:
            file.seek(self._log_from)
            return file.read().decode(errors="replace")

    def wait_ready(self) -> bool:
        """Return true once it takes events, false when it ended before."""

        def look() -> str | None:
            if self.exit_code is not None:
                return "ended"
            return "ready" if "action=ready" in self.logged() else None

        return wait_for(look, lambda: f"the engine is ready:\n{self.logged()}", START_S) == "ready"

    def kill(self) -> None:
        """Kill it with SIGKILL, and nothing that it started; return when it is gone."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
        self._popen.wait(STOP_S)

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, within_s: float = STOP_S) -> int:
        """Wait for its end and return the exit status."""
        return self._popen.wait(within_s)

    def stop(self) -> int:
        """Send SIGTERM, wait for its end and return the exit status."""
        if self.exit_code is None:
            self.terminate()
        return self.wait()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running, whatever happened."""
        if self.exit_code is None:
            self.kill()


def started(site: Site, *, strace: Sequence[str] = (), more: Mapping[str, str] | None = None) -> EngineProcess:
    """Start an engine and wait until it is ready; raise AssertionError where it ends instead."""
    engine = EngineProcess(site, strace=strace, more=more)
    if not engine.wait_ready():
        raise AssertionError(f"the engine ended with {engine.exit_code}:\n{engine.logged()}")
    return engine


def marked(run_ids: Collection[str]) -> dict[int, str]:
    """Return the living processes that carry the mark of one of the runs: run ids by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        for variable in environment.split(b"\0"):
            if variable.startswith(_MARK) and (run := variable[len(_MARK) :].decode()) in run_ids:
                found[int(entry.name)] = run
    return found


def end_marked(run_ids: Collection[str]) -> None:
    """Kill what the runs of a site left, so that a failed test leaves nothing running."""
    for pid in marked(run_ids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
