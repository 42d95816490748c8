"""Plans that take a while: what plays meanwhile, what the policy is told, and where a chunk takes over."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.agents import Chunked
from robopolicy.errors import ContractError
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, Plan

SPEC = PolicySpec(
    state={"x": StateSpec(1, ("m",))}, action=ActionSpec("vector", ("when", "which"), ("1",)), rate_hz=10,
    n_obs=2, horizon=8, n_execute=4,
)  # fmt: skip
PERIOD = SPEC.period_ns


class Telling:
    """Row i of a chunk says the step it is meant for, and which plan it is of."""

    spec = SPEC

    def __init__(self):
        self.asked = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        now = window[-1].stamp_ns // PERIOD
        self.asked.append((now, previous, delay_steps, executed))
        rows = np.stack([now + np.arange(8), np.full(8, len(self.asked) - 1)], axis=1)
        return Plan(np.repeat(rows[None].astype(np.float32), n, 0), np.zeros(1, np.float32))

    def reset(self):
        self.asked = []


def play(agent, steps):
    return [agent.act(Observation(k * PERIOD, {"x": np.zeros(1, np.float32)})) for k in range(steps)]


@pytest.mark.parametrize("delay", [0, 1, 3, 4])
def test_every_row_is_played_at_the_step_it_is_meant_for(delay):
    commands = play(Chunked(Telling(), delay_steps=delay), 14)
    assert [c.source for c in commands[:delay]] == ["hold"] * delay
    assert all(c.values[0] == k for k, c in enumerate(commands) if k >= delay)
    which = [int(c.values[1]) for c in commands[delay:]]
    assert which == [k // 4 for k in range(14 - delay)]  # each plan runs for n_execute steps, once it is there


def test_the_policy_is_told_of_the_delay_what_plays_on_and_what_was_done():
    policy = Telling()
    play(Chunked(policy, delay_steps=3), 9)
    (first, none, no_delay, nothing), (second, previous, delay, executed), _ = policy.asked
    assert (first, none, no_delay, nothing) == (0, None, 0, None)
    assert (second, delay) == (4, 3)
    assert previous[:, 0].tolist() == [4, 5, 6, 7, 7, 7, 7, 7]
    assert executed[:, 0].tolist() == [3]


def test_a_new_episode_waits_for_its_own_plan():
    agent = Chunked(Telling(), delay_steps=2)
    play(agent, 3)
    agent.reset()
    assert play(agent, 1)[0].source == "hold"


def test_giving_back_forgets_the_plan_that_was_coming():
    agent = Chunked(Telling(), delay_steps=2)
    play(agent, 5)  # the plan of step 4 is on its way
    agent.replan([Observation(20 * PERIOD, {"x": np.zeros(1, np.float32)})])
    commands = [agent.act(Observation((21 + k) * PERIOD, {"x": np.zeros(1, np.float32)})) for k in range(3)]
    assert [c.source for c in commands] == ["hold", "hold", "policy"]
    assert commands[2].values[0] == 23


def test_a_chunk_that_is_over_too_soon_is_refused():
    with pytest.raises(ContractError, match="a delay of 5 steps and 4 to execute make 9 rows; a chunk has 8"):
        Chunked(Telling(), delay_steps=5)
    policy = Telling()
    policy.spec = replace(SPEC, n_execute=3)
    Chunked(policy, delay_steps=5)
