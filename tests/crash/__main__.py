"""`python -m tests.crash`: kill a real engine again and again, and add up; exit code 1 if it is not zero."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.crash.audit import Sum
from tests.crash.steps import CALLS, Step, steps, strace_is_there
from tests.crash.storm import storm

console = Console()

MOST_SHOWN = 20
FIGURES = ("events", "runs", "attempts", "cut off", "killed", "adopted", "retried", "done twice")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments (200; 0: none)")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long at least (0)")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; a new one each time")
    parser.add_argument("--steps", action="store_true", help="also kill at every system call that matters")
    parser.add_argument("--call", choices=list(CALLS), action="append", help="only steps of this kind")
    parser.add_argument("--at", type=int, action="append", help="with --call: only at these numbers")
    given = parser.parse_args(arguments)
    wrong: list[str] = []
    path = Path(tempfile.mkdtemp(prefix="crash-"))
    if given.kills > 0 and not given.call:
        wrong += _storm(path / "storm", given.kills, given.seed, given.minutes)
    if given.steps or given.call:
        if not strace_is_there():
            console.print("strace is not installed: the steps need it (apt-get install strace)")
            return 1
        for call in given.call or CALLS:
            wrong += _steps(path, call, given.at)
    for finding in wrong[:MOST_SHOWN]:
        console.print(finding, markup=False, highlight=False)
    console.print(f"sum: {len(wrong)}" + (f"; the sites that don't add up are kept in {path}" if wrong else ""))
    if not wrong:
        shutil.rmtree(path)
    return 1 if wrong else 0


def _storm(path: Path, kills: int, seed: int | None, minutes: float) -> list[str]:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    path.mkdir()
    begun_s = time.monotonic()
    with console.status("") as status:
        done = 0

        def tell(number: int) -> None:
            nonlocal done
            done = number
            status.update(f"storm: {number} kills")

        result = storm(path, kills=kills, seed=seed, minutes=minutes, tell=tell)
    _say(f"storm, seed {seed}", done, [result], time.monotonic() - begun_s)
    return [f"storm, seed {seed}: {finding}" for finding in result.findings]


def _steps(path: Path, call: str, numbers: Sequence[int] | None) -> list[str]:
    begun_s = time.monotonic()
    with console.status("") as status:

        def tell(step: Step) -> None:
            status.update(f"steps: {call} {step.number}")

        done = list(steps(path, call, numbers=numbers, tell=tell))
    kills = sum(step.died for step in done)
    _say(f"step {call}", kills, [step.sum for step in done], time.monotonic() - begun_s)
    return [f"{call} {step.number}: {finding}" for step in done for finding in step.sum.findings]


def _say(what: str, kills: int, sums: Sequence[Sum], seconds: float) -> None:
    """Say what was done, in one line however long: figures are cut from tables where there is no terminal."""
    figures = [f"{name} {sum(one.counts.get(name, 0) for one in sums):,}" for name in FIGURES]
    findings = sum(len(one.findings) for one in sums)
    line = ", ".join([f"{kills:,} kills in {seconds:,.0f} s", *figures, f"wrong {findings}"])
    console.print(f"{what}: {line}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
