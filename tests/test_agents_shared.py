"""Shared control: who drives, that nothing jumps when that changes, and that the policy thinks anew."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hands import Hand
from tiny_worlds import SPEC, HomingPolicy

from robopolicy.agents import Chunked, Guarded
from robopolicy.clock import SimClock
from robopolicy.loop import run_episode
from robopolicy.rotations import matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.shared_control import Shared
from robopolicy.spec import TOOL_POSE, PolicySpec, StateSpec
from robopolicy.testing import AgentContract
from robopolicy.types import Command, EpisodeMeta, Observation, Plan, Verdict
from robopolicy_hardware.safety import SafetyLayer, limits_for
from sim_envs.experts import make_expert
from sim_envs.worlds import make_world


class TestSharedIsAnAgent(AgentContract):
    def make(self):
        return Shared(Chunked(HomingPolicy()), Hand(SPEC), SPEC), SPEC


class Straight:
    """Plans a straight way to a point, 6 mm a step, from where the tool is seen."""

    spec = PolicySpec(
        state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))},
        action=TOOL_POSE, n_obs=2, horizon=16, n_execute=8,
    )  # fmt: skip

    def __init__(self, goal=(0.5, 0.15, 0.25)):
        self.goal = np.array(goal)
        self.windows = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        self.windows.append([o.stamp_ns for o in window])
        at = window[-1].state["tool_pos"].astype(np.float64)
        way = self.goal - at
        length = np.linalg.norm(way)
        rows = [at + way / length * min(length, 0.006 * (i + 1)) for i in range(16)]
        chunk = np.array([[*row, 1, 0, 0, 0, -1, 0, 1.0] for row in rows], np.float32)
        return Plan(np.repeat(chunk[None], n, axis=0), at.astype(np.float32))

    def reset(self):
        self.windows.clear()


class Ticks:
    """A watcher that switches at given steps and keeps what was sent and by whom."""

    def __init__(self, shared, at):
        self.shared, self.at = shared, at
        self.sent, self.sources, self.stamps = [], [], []

    def on_start(self, meta, spec):
        pass

    def on_step(self, step):
        self.sent.append(step.sent)
        self.sources.append(step.source)
        self.stamps.append(step.observation.stamp_ns)
        for what in self.at.get(len(self.sent), ()):
            getattr(self.shared, what)() if isinstance(what, str) else self.shared.pause(what)

    def on_end(self, meta):
        pass


def drive(agent, at, *, kind=Shared, hand_moves=(0.008, 0.004, 0.0), steps=140, seed=3):
    """Run the lift twin; return the watcher."""
    clock = SimClock()
    world = make_world("twin:lift", clock, cameras=())
    world.reset(seed)

    class Turning(Hand):
        def read(self, observation):
            self.tick += 1
            self.target.move(np.zeros(3), np.array([0.0, 0.0, 0.02]))
            return super().read(observation)

    shared = kind(agent, Turning(world.spec, move=hand_moves), world.spec)
    shared.set_point = world.stop()
    ticks = Ticks(shared, at)
    rough = replace(limits_for(world.spec), max_accel_m_s2=None, max_turn_accel_rad_s2=None)  # shows what is commanded
    run_episode(
        world, shared, clock, SafetyLayer(rough, world.spec), EpisodeMeta("t", "r", seed=seed),
        max_steps=steps, watchers=[shared, ticks],
    )  # fmt: skip
    world.close()
    return ticks


def strides(sent):
    """Step by step how far the command moved (T-1,) m and turned (T-1,) rad."""
    sent = np.array(sent, np.float64)
    rotations = rot6d_to_matrix(sent[:, 3:9])
    turns = [np.linalg.norm(matrix_to_rotvec(b @ a.T)) for a, b in pairwise(rotations)]
    return np.linalg.norm(np.diff(sent[:, :3], axis=0), axis=1), np.array(turns)


AGENTS = {
    "chunked policy": lambda: Chunked(Straight()),
    "expert": lambda: make_expert("lift", make_world("twin:lift", SimClock(), cameras=()).spec),
}


@pytest.mark.parametrize("make", AGENTS.values(), ids=AGENTS)
def test_no_step_at_a_switch_is_larger_than_the_largest_of_normal_driving(make):
    """The issue's bump, in numbers: of the command sent, position and rotation, both ways, and after a pause."""
    switches = {12: ["takeover"], 30: ["release"], 55: ["takeover"], 60: ["release"], 80: [True], 84: [False]}
    ticks = drive(make(), switches)
    assert ticks.sources == (
        ["policy"] * 12 + ["human"] * 18 + ["policy"] * 25 + ["human"] * 5 + ["policy"] * 20
        + ["hold"] * 4 + ["policy"] * 56
    )  # fmt: skip
    steps, turns = strides(ticks.sent)
    at = [tick - 1 for tick in (12, 30, 55, 60, 84)]  # the step from the old driver's last command to the new one's
    normal = np.setdiff1d(np.arange(len(steps)), [*at, 79, 80, 81, 82])
    assert steps[at].max() <= steps[normal].max(), (steps[at], steps[normal].max())
    assert turns[at].max() <= turns[normal].max(), (turns[at], turns[normal].max())


def test_a_naive_switch_does_jump():
    """The test above can fail: a policy that goes on with its old chunk is far from where the person left the tool."""

    class Naive(Shared):
        def _plan_anew(self):
            pass

        def _begin_fade(self, values):
            self._offset = None

    fast = {"hand_moves": (0.0, -0.015, 0.0), "steps": 80}
    switches = {12: ["takeover"], 19: ["release"]}
    smooth, _ = strides(drive(Chunked(Straight()), switches, **fast).sent)
    jumpy, _ = strides(drive(Chunked(Straight()), switches, kind=Naive, **fast).sent)
    normal = np.delete(smooth, [11, 18]).max()
    assert smooth[18] < 0.3 * normal
    assert jumpy[18] > 1.5 * normal


def test_the_policy_arrives_where_it_would_have_gone():
    ticks = drive(Chunked(Straight()), {12: ["takeover"], 30: ["release"]}, steps=220)
    np.testing.assert_allclose(ticks.sent[-1][:3], (0.5, 0.15, 0.25), atol=2e-3)
    np.testing.assert_allclose(ticks.sent[-1][3:9], (1, 0, 0, 0, -1, 0), atol=2e-3)


def test_a_chunked_policy_plans_anew_at_release_from_what_was_seen_meanwhile():
    policy = Straight()
    ticks = drive(Chunked(policy), {12: ["takeover"], 29: ["release"]}, steps=40)
    last = [window[-1] for window in policy.windows]
    planned = [ticks.stamps.index(stamp) for stamp in last if stamp in ticks.stamps]
    assert planned == [0, 8, 29, 37]
    window = next(w for w in policy.windows if w[-1] == ticks.stamps[29])
    assert window == ticks.stamps[28:30], "the frame before the release was seen while the person drove"


def test_a_hand_that_was_away_is_engaged_where_the_robot_stopped():
    hand = Hand(SPEC, move=(0.01, 0, 0), away=range(4, 8))
    shared = Shared(None, hand, SPEC)
    shared.set_point = np.float32([1, 1])
    sources = []
    for tick in range(1, 12):
        hand.tick = tick
        command = shared.act(Observation(tick, {"point": np.zeros(2, np.float32)}))
        sources.append(command.source)
        if command.source == "hold":
            shared.set_point = np.float32([5, 5])  # where a stopped robot holds
    assert sources == ["human"] * 3 + ["hold"] * 4 + ["human"] * 4
    assert [(tick, list(at)) for tick, at in hand.engaged] == [(1, [1, 1]), (8, [5, 5])]
    assert "nobody" not in shared.reason


class Alarms:
    """Alarms at the decision of that number after each reset."""

    def __init__(self, at):
        self.at = at
        self.reset()

    def step(self, decision):
        self.count += 1
        state = "alarm" if self.count == self.at else "nominal"
        return Verdict(decision.stamp_ns, {}, 0.0, 1.0, 1.0, state, reason="odd")

    def reset(self):
        self.count = 0


def guarded(at, script, steps=20):
    """Drive a guarded policy whose monitor alarms; return who drove at each step."""
    shared = Shared(Guarded(Chunked(HomingPolicy()), Alarms(at)), Hand(SPEC), SPEC)
    shared.reset()
    sources = []
    for k in range(steps):
        for what in script.get(k, ()):
            getattr(shared, what)() if isinstance(what, str) else shared.pause(what)
        seen = Observation(k * SPEC.period_ns, {"point": np.float32([1, 1])})
        sources.append(shared.act(seen).source)
    return sources


def test_an_alarm_holds_a_person_puts_it_right_and_the_monitor_is_armed_again():
    sources = guarded(3, {8: ["takeover"], 10: ["release"]})
    assert sources == ["policy"] * 4 + ["hold"] * 4 + ["human"] * 2 + ["policy"] * 4 + ["hold"] * 6


def test_an_alarm_outlives_any_number_of_pauses_before_it_and_after_it():
    assert guarded(3, {8: [True], 10: [False], 12: [True, False]}) == ["policy"] * 4 + ["hold"] * 16
    before = guarded(4, {1: [True], 3: [False]}, steps=10)  # plans at 0, 3, 5 and 7; the monitor counted on
    assert before == ["policy"] + ["hold"] * 2 + ["policy"] * 4 + ["hold"] * 3


def test_an_alarm_outlives_a_pause_while_a_person_drives_and_goes_when_it_is_given_back():
    sources = guarded(3, {6: ["takeover"], 8: [True], 10: [False], 12: ["release"]}, steps=18)
    assert sources == (
        ["policy"] * 4 + ["hold"] * 2 + ["human"] * 2 + ["hold"] * 2 + ["human"] * 2 + ["policy"] * 4 + ["hold"] * 2
    )


def test_an_alarm_at_the_first_decision_after_giving_back_is_an_alarm_for_good():
    sources = guarded(1, {3: ["takeover"], 5: ["release"]}, steps=12)
    assert sources == ["hold"] * 3 + ["human"] * 2 + ["hold"] * 7


class AlarmsOnce(Alarms):
    """Alarms at that one decision, and at none after it, reset or not."""

    def reset(self):
        self.count = getattr(self, "count", 0)


def test_a_hold_after_giving_back_is_not_planned_away():
    shared = Shared(Guarded(Chunked(HomingPolicy()), AlarmsOnce(2)), Hand(SPEC), SPEC)
    shared.reset()
    shared.takeover()
    for k in range(8):
        if k == 1:
            shared.release()
        if k == 2:
            shared.takeover()
        if k == 3:
            shared.release()  # the second decision
        source = shared.act(Observation(k * SPEC.period_ns, {"point": np.float32([1, 1])})).source
    assert source == "hold"


def test_without_a_policy_release_changes_nothing_and_waiting_keeps_the_policy_still():
    alone = Shared(None, Hand(SPEC), SPEC)
    alone.release()
    seen = Observation(0, {"point": np.zeros(2, np.float32)})
    assert alone.act(seen).source == "human"
    both = Shared(Chunked(HomingPolicy()), Hand(SPEC), SPEC)
    both.waiting = True
    assert (both.act(seen).source, both.decision) == ("human", None)
    both.waiting = False
    assert both.act(seen).source == "policy"


class Replies:
    """An agent without replan: it is reset instead."""

    decision = None

    def __init__(self):
        self.seeds = []

    def reset(self, seed=0):
        self.seeds.append(seed)

    def act(self, observation):
        return Command(np.zeros(2, np.float32), "policy")


def test_an_agent_that_cannot_replan_is_reset_with_the_episodes_seed():
    agent = Replies()
    shared = Shared(agent, Hand(SPEC), SPEC)
    shared.reset(7)
    for k in range(6):
        if k == 2:
            shared.takeover()
        if k == 4:
            shared.release()
        shared.act(Observation(k, {"point": np.zeros(2, np.float32)}))
    assert agent.seeds == [0, 7, 7]
    shared.pause(True)
    shared.pause(False)
    shared.act(Observation(6, {"point": np.zeros(2, np.float32)}))
    assert agent.seeds == [0, 7, 7], "it may be what holds an alarm"


def test_rotation_vectors_are_the_matrices_they_came_from():
    rng = np.random.default_rng(0)
    for quat in rng.standard_normal((20, 4)):
        matrix = quat_to_matrix(quat)
        np.testing.assert_allclose(rotvec_to_matrix(matrix_to_rotvec(matrix)), matrix, atol=1e-12)
    np.testing.assert_array_equal(matrix_to_rotvec(np.eye(3)), 0)
