"""The command: `python -m tests.dst --seed 7`, or `--seeds 1-500 --minutes 60`."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import time
import traceback

import msgspec

from engine.registry import Registry
from tests.dst.plan import plan_of
from tests.dst.simulate import Verdict, simulate

PATIENCE_S = 60.0
"""A seed that takes more of the processor turns round without end: it says where, and is given up."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dst", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with all that happens")
    parser.add_argument("--seeds", default="1-10", help="a span of seeds, such as 1-500")
    parser.add_argument("--minutes", type=float, help="stop before the next seed once so much time has passed")
    parser.add_argument("--days", type=float, default=7.0, help="how long a simulation is")
    parser.add_argument("--log", action="store_true", help="with what the engine itself says")
    parser.add_argument("--twice", action="store_true", help="each seed twice: both must do the same")
    parser.add_argument("--config", action="store_true", help="only print the seed's configuration")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # No set may be in another order the next time.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.dst", *sys.argv[1:]], environment)
    if options.config:
        print(plan_of(options.seed or 1, options.days).config)  # noqa: T201
        return 0
    first, _, last = str(options.seed or options.seeds).partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if options.log:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    Registry.discover()  # once for all: each seed begins with what is imported now
    began_s, failed, done = time.monotonic(), [], 0
    for seed in seeds:
        if options.minutes is not None and time.monotonic() - began_s > options.minutes * 60:
            break
        verdict = apart(seed, options.days, log=options.log)
        done += 1
        if options.twice and (again := apart(seed, options.days, log=False).digest) != verdict.digest:
            verdict.findings.append(f"the second time it came to {again}")
        if verdict.findings:
            failed.append(seed)
        print(_line(verdict), flush=True)  # noqa: T201
        for finding in verdict.findings:
            print(f"    {finding}")  # noqa: T201
    took_s = time.monotonic() - began_s
    print(f"{done} seeds in {took_s:.0f} s, failed: {', '.join(map(str, failed)) or 'none'}")  # noqa: T201
    return 1 if failed else 0


def apart(seed: int, days: float, *, log: bool) -> Verdict:
    """Simulate in a process of its own: each seed begins with the same, and leaves nothing behind."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            faulthandler.register(signal.SIGPROF, all_threads=False, chain=True)
            signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
            verdict = simulate(seed, days=days, log=log)
            sys.stdout.flush()
            with open(writing, "wb") as pipe:
                pipe.write(msgspec.json.encode(verdict))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise SystemExit(f"the simulation of seed {seed} died")
    return msgspec.json.decode(told, type=Verdict)


def _line(verdict: Verdict) -> str:
    ended = ", ".join(f"{state} {count}" for state, count in verdict.runs.items())
    return (
        f"{'FAILED' if verdict.findings else 'ok'} seed {verdict.seed} {verdict.digest}: lives {verdict.lives}, "
        f"crashes {verdict.crashes}, commits {verdict.commits}, attempts {verdict.attempts}, "
        f"gone {verdict.gone}, thawed {verdict.thawed}; {ended}"
    )


if __name__ == "__main__":
    sys.exit(main())
