"""Every step: the engine killed at its Nth system call of a kind, for N from 1 until it lives through a load.

strace(1) sends the signal when the call is entered, before it has any effect, and counts the calls of each
thread apart. The load is small and ends, so that N ends too.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from tests.crash.audit import Sum
from tests.crash.feeders import Load
from tests.crash.outside import LOOK_S
from tests.crash.process import EngineProcess, wait_for
from tests.crash.site import Site
from tests.crash.storm import make_site, settle

CALLS: dict[str, tuple[str, ...]] = {
    "fdatasync": ("fdatasync",),
    "fsync": ("fsync",),
    "unlink": ("unlink", "unlinkat"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat"),
    "mkdir": ("mkdir", "mkdirat"),
    "ftruncate": ("ftruncate",),
    "sendto": ("sendto", "sendmsg"),
    "pwrite64": ("pwrite64",),
    "memfd_create": ("memfd_create",),
    "clone3": ("clone3", "vfork", "fork"),
    "pidfd_open": ("pidfd_open",),
    "wait4": ("wait4", "waitid"),
}
"""Kinds of steps: what makes things durable, takes files, answers, and starts and ends programs."""

OF_ENGINE_ALONE = frozenset({"clone3", "wait4"})
"""The programs of the jobs do these too: only the engine's main thread is traced, which does them."""

EVERY = {"pwrite64": 7}
"""Of calls that come in long rows, only every so many-th is tried."""

MOST_STEPS = 60
OFFERS = 3
LOAD_S = 60.0


class Step(Struct, frozen=True, kw_only=True):
    """One kill: at which call, whether the engine died of it, and what it came to."""

    call: str
    number: int
    died: bool
    sum: Sum


def strace_is_there() -> bool:
    """Tell whether strace(1) is installed."""
    return shutil.which("strace") is not None


def options(call: str, number: int) -> list[str]:
    """Return the options of strace for a kill at call `number` (from 1) of a kind."""
    names = ",".join(CALLS[call])
    follow = [] if call in OF_ENGINE_ALONE else ["-f"]
    return [*follow, "-e", f"trace={names}", "-e", f"inject={names}:signal=SIGKILL:when={number}"]


def steps(
    path: Path,
    call: str,
    *,
    numbers: Sequence[int] | None = None,
    tell: Callable[[Step], None] = lambda _: None,
) -> Iterator[Step]:
    """Kill at the calls of a kind: at `numbers`, or at each until the engine lives through the load."""
    every = EVERY.get(call, 1)
    chosen = numbers or range(1, MOST_STEPS * every + 1, every)
    for number in chosen:
        site_path = path / f"{call}-{number}"
        site_path.mkdir(parents=True)
        step = kill_at(make_site(site_path), call, number)
        tell(step)
        yield step
        if not step.sum.findings:
            shutil.rmtree(site_path)
        if not step.died and numbers is None:
            return


def kill_at(site: Site, call: str, number: int) -> Step:
    """Feed a fresh engine a load that ends, kill it at a call, restart it, and add up."""
    load = Load(site, rate=6.0, most=OFFERS)
    with EngineProcess(site, strace=options(call, number)) as traced:
        load.start()

        def over() -> bool:
            return traced.exit_code is not None or (load.is_done() and site.unfinished() == 0)

        wait_for(over, lambda: f"the load is over:\n{traced.logged()}", LOAD_S, LOOK_S)
        code = traced.stop() if traced.exit_code is None else traced.exit_code
    findings = [] if code in (0, -signal.SIGKILL) else [f"the engine ended with {code}: {traced.logged()}"]
    with EngineProcess(site) as engine:
        if not engine.wait_ready():
            findings.append(f"the engine did not start again: {engine.logged()}")
        result = settle(site, load, engine)
    result.findings[:0] = findings
    return Step(call=call, number=number, died=code == -signal.SIGKILL, sum=result)
