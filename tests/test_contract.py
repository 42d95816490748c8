"""The types refuse what breaks them; spec and errors say both sides; our own clocks and agents keep their contracts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from robopolicy import errors
from robopolicy.agents import Chunked, Guarded
from robopolicy.chunks import ChunkPlayer
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ContractError, RobopolicyError, SpecMismatch, UnknownCamera, UnknownName
from robopolicy.interfaces import Agent
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.testing import AgentContract, ClockContract, PolicyContract, random_observation
from robopolicy.types import ActionChunk, Decision, Observation, Plan, Verdict

SPEC = PolicySpec(
    cameras={"front": CameraSpec(4, 6)},
    state={"q": StateSpec(2, ("rad",)), "heading": StateSpec(1, ("rad_wrapped",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)),
    rate_hz=10.0,
    n_obs=2,
    horizon=6,
    n_execute=3,
)


class Counting:
    """A policy whose rows are plan number and row number."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.plans = 0
        self.windows: list[list[Observation]] = []
        self.previous: list[np.ndarray | None] = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None) -> Plan:
        self.windows.append(list(window))
        self.previous.append(previous)
        rows = np.stack([np.full(self.spec.horizon, self.plans), np.arange(self.spec.horizon)], axis=1)
        self.plans += 1
        return Plan(np.repeat(rows[None].astype(np.float32), n, axis=0), np.zeros(3, np.float32))

    def reset(self) -> None:
        self.plans = 0


class TestCounting(PolicyContract):
    def make(self) -> Counting:
        return Counting(SPEC)


class TestSimClock(ClockContract):
    def make(self) -> SimClock:
        return SimClock()


class TestWallClock(ClockContract):
    def make(self) -> WallClock:
        return WallClock()


class TestChunkedAgent(AgentContract):
    def make(self) -> tuple[Agent, PolicySpec]:
        return Chunked(Counting(SPEC)), SPEC


def observation(k: int) -> Observation:
    return random_observation(SPEC, np.random.default_rng(k), stamp_ns=k * SPEC.period_ns)


def test_chunked_plays_n_execute_rows_then_plans_anew():
    agent = Chunked(Counting(SPEC), n=4)
    agent.reset(0)
    rows = [tuple(agent.act(observation(k)).values) for k in range(7)]
    assert rows == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize("early_ns", [1, 2_000_000, -2_000_000])
def test_chunked_plays_each_row_once_though_stamps_jitter(early_ns):
    agent = Chunked(Counting(SPEC))
    rows = []
    for k in range(6):
        shaken = replace(observation(k), stamp_ns=k * SPEC.period_ns + (early_ns if k % 2 else 0))
        rows.append(tuple(agent.act(shaken).values))
    assert rows == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_chunked_pads_the_first_window_and_keeps_the_newest_last():
    policy = Counting(SPEC)
    agent = Chunked(policy)
    for k in range(4):
        agent.act(observation(k))
    assert [o.stamp_ns for o in policy.windows[0]] == [0, 0]
    assert [o.stamp_ns for o in policy.windows[1]] == [2 * SPEC.period_ns, 3 * SPEC.period_ns]


def test_chunked_tells_the_policy_what_is_left_of_the_running_chunk():
    policy = Counting(SPEC)
    agent = Chunked(policy)
    for k in range(4):
        agent.act(observation(k))
    assert policy.previous[0] is None
    np.testing.assert_array_equal(policy.previous[1][:, 1], [3, 4, 5, 5, 5, 5])


def test_decision_exists_only_in_the_step_that_planned():
    agent = Chunked(Counting(SPEC), n=4)
    made = []
    for k in range(6):
        agent.act(observation(k))
        made.append(None if agent.decision is None else (agent.decision.index, agent.decision.chunks.shape))
    assert made == [(0, (4, 6, 2)), None, None, (1, (4, 6, 2)), None, None]


class AlarmAt:
    """A monitor that alarms from decision number ``index`` on."""

    def __init__(self, index: int) -> None:
        self.index = index

    def step(self, decision: Decision) -> Verdict:
        state = "alarm" if decision.index >= self.index else "nominal"
        return Verdict(decision.stamp_ns, {"s": 1.0}, 1.0, 0.5, 0.01, state, reason=state)

    def reset(self) -> None:
        pass


def test_guarded_holds_before_the_first_row_of_the_bad_chunk_and_until_reset():
    agent = Guarded(Chunked(Counting(SPEC)), AlarmAt(1))
    sources = [agent.act(observation(k)).source for k in range(8)]
    assert sources == ["policy"] * 3 + ["hold"] * 5
    agent.reset(0)
    assert agent.act(observation(0)).source == "policy"


def test_guarded_can_only_log():
    agent = Guarded(Chunked(Counting(SPEC)), AlarmAt(0), on_alarm="log")
    command = agent.act(observation(0))
    assert command.source == "policy"
    assert command.verdict.state == "alarm"


def chunk(made_ns: int = 0, rows: int = 4) -> ActionChunk:
    stamps = made_ns + 100 * np.arange(rows, dtype=np.int64)
    return ActionChunk(stamps, np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), made_ns)


def test_chunk_drops_what_is_late():
    assert chunk().after(150).stamps_ns.tolist() == [200, 300]
    assert len(chunk().after(1000).stamps_ns) == 0


@pytest.mark.parametrize(
    "stamps",
    [np.array([0, 0]), np.array([1, 0]), np.array([0.0, 1.0]), np.array([0, 1, 2])],
    ids=["equal", "backwards", "float", "length"],
)
def test_chunk_refuses_bad_stamps(stamps):
    with pytest.raises(ContractError):
        ActionChunk(stamps, np.zeros((2, 3), np.float32), 0)


def test_player_holds_the_last_row_and_never_extrapolates():
    player = ChunkPlayer(100)
    with pytest.raises(ContractError):
        player.at(0)
    player.put(chunk())
    assert [player.at(t)[0] for t in (-50, 0, 99, 100, 301, 10_000)] == [0, 0, 0, 2, 6, 6]
    with pytest.raises(ContractError, match="older"):
        player.put(chunk(made_ns=-100))


def test_player_plays_every_row_once_with_integer_stamps():
    # 0.4 + 2 * 0.1 > 0.6 in float seconds: one command sent twice and another lost. Not with integers.
    period_ns = round(1e9 / 30)
    player = ChunkPlayer(period_ns)
    stamps = 10**18 + period_ns * np.arange(50, dtype=np.int64)
    player.put(ActionChunk(stamps, np.arange(50, dtype=np.float32)[:, None], 0))
    assert [int(player.at(int(t))[0]) for t in stamps] == list(range(50))


def test_spec_round_trips_through_json():
    assert PolicySpec.from_json(SPEC.to_json()) == SPEC
    assert PolicySpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC
    with pytest.raises(ContractError, match="PolicySpec"):
        PolicySpec.from_json({"cameras": {}})


def test_spec_mismatch_prints_both_sides():
    robot = replace(SPEC, cameras={}, action=TOOL_POSE, rate_hz=20.0)
    with pytest.raises(SpecMismatch) as caught:
        SPEC.require_from(robot, needs="checkpoint a", offers="robot b")
    message = str(caught.value)
    for part in ("camera front", "checkpoint a has 4x6", "robot b has none", "vector (2,)", "tool_pose (10,)", "20 Hz"):
        assert part in message
    assert "\n" not in message


def test_spec_accepts_a_robot_that_offers_more():
    robot = replace(SPEC, state={**SPEC.state, "extra": StateSpec(1, ("m",))}, n_obs=1, horizon=1, n_execute=1)
    SPEC.require_from(robot, needs="a", offers="b")


def test_select_names_the_valid_cameras():
    with pytest.raises(UnknownCamera, match=r"'wrist2'.*front"):
        SPEC.select(cameras=("wrist2",))
    with pytest.raises(UnknownName, match="heading, q"):
        SPEC.select(state=("p",))
    assert list(SPEC.select(cameras=(), state=("q",)).state) == ["q"]


def test_every_error_leaf_is_also_a_builtin():
    def leaves(cls):
        below = cls.__subclasses__()
        return [cls] if not below else [leaf for sub in below for leaf in leaves(sub)]

    for leaf in leaves(RobopolicyError):
        builtin = [base for base in leaf.__mro__ if base.__module__ == "builtins"]
        assert builtin[0] not in (Exception, BaseException, object), leaf
    assert errors.UnknownTask("task", "lfit", ["lift", "pusht"]).args[0] == "no task 'lfit'; valid: lift, pusht"


def test_wrapped_units():
    assert StateSpec(3, ("m", "m", "rad_wrapped")).wrapped == (False, False, True)
    assert StateSpec(2, ("rad_wrapped",)).wrapped == (True, True)
