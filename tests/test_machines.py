"""The state machines: some steps of each here, and 100,000 in all in the long tier, which says how many they were."""

from __future__ import annotations

import pytest

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


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_engine_and_model_agree_for_long(machine: type[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    steps = drive(machine, LONG)
    with capsys.disabled():
        print(f"\n{machine.__name__}: {steps:,} steps, no difference")  # noqa: T201 - whoever runs the long tier wants to know
    assert steps >= LONG
