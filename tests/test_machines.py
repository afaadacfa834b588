"""The state machines: some steps of each here, and 100,000 in all in the long tier, which says how many they were."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine.jobs import Overlap
from engine.triggers import CatchUp, Misfire
from tests.machines.driven import Machine, drive
from tests.machines.limits import LimitsMachine
from tests.machines.misfire import MisfireMachine
from tests.machines.retry import RetryMachine
from tests.machines.shaping import ShapingMachine
from tests.machines.windows import WindowsMachine

MACHINES: list[type[Machine]] = [ShapingMachine, LimitsMachine, MisfireMachine, RetryMachine, WindowsMachine]
SHORT, LONG = 600, 20_000
"""Steps of one machine."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_engine_and_model_agree_after_each_step(machine: type[Machine]) -> None:
    assert drive(machine, SHORT) >= SHORT


def test_a_run_that_has_taken_a_place_and_waits_takes_no_other_at_the_next_start() -> None:
    """Found by the machine of limits: each restart ended one more run for it."""
    machine = LimitsMachine()
    try:
        machine.begin(most=3, limits=(3, None), overlaps=(Overlap.REPLACE, Overlap.SKIP))
        for name, priority in (("a1", 3), ("a2", 2), ("a1", 0)):
            machine.emit(name, priority)
        machine.fire("b", 1)
        machine.come_due("a2", True)
        machine.be_away(Fraction(1), killed=False)
        machine.come_due("a2", False)
        machine.fire("a1", 9)
        machine.emit("a1", 1)
        for killed in (False, True):
            machine.be_away(Fraction(1), killed=killed)
            machine.compare()
    finally:
        machine.teardown()


def test_what_is_caught_up_on_keeps_to_its_rate_whatever_is_paused_and_resumed_meanwhile() -> None:
    """Found by the machine of misfires: the next instant ran at once."""
    machine = MisfireMachine()
    try:
        machine.begin(period=7, rule=Misfire(catch_up=CatchUp.ALL, grace_s=None, max=2, rate_per_s=1.0))
        machine.pause(length=None)
        machine.be_away(killed=False, seconds=0, step=600)
        machine.resume()
        machine.pause(length=None)
        machine.resume()
        machine.compare()
        machine.wait(1)
        machine.compare()
    finally:
        machine.teardown()


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_engine_and_model_agree_for_long(machine: type[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    steps = drive(machine, LONG)
    with capsys.disabled():
        print(f"\n{machine.__name__}: {steps:,} steps, no difference")  # noqa: T201 - whoever runs the long tier wants to know
    assert steps >= LONG
