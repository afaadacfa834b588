"""The public kit for those who test plugins and stores.

- `VirtualClock`: time that the test moves.
- `SourceHarness`: runs a source, with the engine's own checks, and kills it where the test says so.
- `load_plugin`: a plugin class from a folder, as the engine finds it.
- `check_timer`: checks that a timer's `next` and `previous` agree.
- `check_condition`: makes one check of a condition.
- `run_once`: executes one attempt of a runner.
- `engine.testing.store_contract`: the contract of a store as a suite; it alone needs pytest.
"""

from engine.testing.clock import VirtualClock
from engine.testing.conditions import CheckFailed, check_condition
from engine.testing.memory import MemoryContext, MemoryStore
from engine.testing.plugins import load_plugin
from engine.testing.runners import RunResult, run_once
from engine.testing.sources import SourceHarness
from engine.testing.timers import check_timer

__all__ = [
    "CheckFailed",
    "MemoryContext",
    "MemoryStore",
    "RunResult",
    "SourceHarness",
    "VirtualClock",
    "check_condition",
    "check_timer",
    "load_plugin",
    "run_once",
]
