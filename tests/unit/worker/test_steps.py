"""A long operation is no silence, as long as it goes from one step to the next."""

from device_agent.worker.steps import LIFE_S, Steps
from tests.fakes.agent_ports import FakeClock


def test_a_sign_of_life_is_given_at_a_step_and_not_at_each() -> None:
    clock, signs = FakeClock(), list[float]()
    clock.now_s = 0.0
    steps = Steps(lambda: signs.append(clock.now_s), clock.mono_s)
    for clock.now_s in (0.0, 1.0, LIFE_S, LIFE_S + 1, 1_830.0, 1_831.0, 1_830.0 + LIFE_S):
        steps.begun()
    assert signs == [LIFE_S, 1_830.0, 1_830.0 + LIFE_S]
