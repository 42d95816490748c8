"""What Push-T and lift tell of themselves: which way the T was turned, what was dropped, what is out of reach."""

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of, modes_of
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError
from robopolicy.rotations import matrix_to_rot6d
from sim_envs.arm import STICK_REACH
from sim_envs.grasping import DOWN
from sim_envs.lift_expert import LiftExpert
from sim_envs.planar import coverage
from sim_envs.pusht import COVERED, GOAL
from sim_envs.pusht_expert import PushTExpert
from sim_envs.tasks import TASKS, make_task
from sim_envs.tracked import placing_states
from sim_envs.turning import TURNS, Turning
from sim_envs.worlds import make_world


def make(name):
    clock = SimClock()
    return make_world(name, clock, cameras=()), clock


def steps(world, clock, agent, count):
    """Yield the observation of each step, then do what the agent says."""
    for _ in range(count):
        observation = world.read()
        yield observation
        world.command(agent.act(observation).values, clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)


def wait(world, clock, count):
    for _ in range(count):
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        world.read()


@pytest.mark.parametrize(
    ("yaws", "mode"),
    [
        ([0.0, 0.5], "counter-clockwise"),
        ([0.0, -0.5], "clockwise"),
        ([3.0, -3.0], "counter-clockwise"),  # over the seam at pi
        ([0.0, 0.5, -0.1], "clockwise"),  # on the whole
        ([0.0, 1.5, 3.0, -1.8, -0.3], "counter-clockwise"),  # nearly a whole turn
        ([1.0], None),
        ([1.0, 1.0005], None),
        ([], None),
    ],
)
def test_turns_are_summed_up(yaws, mode):
    turning = Turning()
    for yaw in yaws:
        turning.see(yaw)
    assert turning.mode() == mode
    mirrored = Turning(positive="clockwise")
    for yaw in yaws:
        mirrored.see(-yaw)
    assert mirrored.mode() == mode


def test_what_is_moved_by_hand_is_not_turned():
    turning = Turning()
    for yaw in (0.0, 0.3):
        turning.see(yaw)
    turning.lift()
    turning.see(-2.0)
    assert turning.mode() == "counter-clockwise"
    turning.begin()
    assert turning.mode() is None


def test_the_experts_episodes_turn_the_t_both_ways_and_the_mode_tells_which():
    world, clock = make("twin:push_t")
    assert modes_of(world) == TURNS
    expert, told = PushTExpert(), set()
    for seed in (3, 6):
        world.reset(seed)
        expert.reset(seed)
        assert mode_of(world) is None
        yaws = []
        for observation in steps(world, clock, expert, world.max_steps):
            yaws.append(float(observation.state["block"][2]))
            if world.success():
                break
        assert world.success()
        turned = np.unwrap(yaws)[-1] - yaws[0]
        assert mode_of(world) == TURNS[int(turned > 0)]
        told.add(mode_of(world))
    assert told == set(TURNS)


def test_from_the_same_start_the_seed_of_the_expert_turns_the_t_one_way_or_the_other():
    world, clock = make("twin:pusht")
    expert, told = PushTExpert(), {}
    for seed in (200, 202):
        world.reset(2)
        expert.reset(seed)
        for _ in steps(world, clock, expert, world.max_steps):
            if world.success():
                break
        assert world.success()
        told[seed] = mode_of(world)
    assert told == {200: "clockwise", 202: "counter-clockwise"}


def test_a_disturbed_t_is_not_a_turned_one():
    world, clock = make("twin:pusht")
    world.reset(3)
    world.read()
    world.disturb(np.random.default_rng(0))
    wait(world, clock, 3)
    assert mode_of(world) is None


@pytest.mark.parametrize(
    ("block", "failure"),
    [
        ((0.5, 0.1, 0.0), ""),
        ((STICK_REACH[1] + 0.02, 0.0, 1.0), "out_of_reach"),
        ((0.15, 0.20, 0.0), "out_of_reach"),
        ((0.5, 0.75, 0.0), "off_table"),
    ],
)
def test_failures_of_push_t(block, failure):
    world, clock = make("twin:pusht")
    world.reset_to(world.read().state | {"block": np.array(block)})
    wait(world, clock, 8)
    assert failure_of(world) == failure


@pytest.mark.parametrize(
    ("task", "body", "height", "goal"), [("pusht", "block", 0.015, GOAL), ("align", "frame", 0.015, (0.5, 0.15, 0.3))]
)
def test_what_lies_on_its_back_where_it_should_be_is_no_success(task, body, height, goal):
    world, clock = make(f"twin:{task}")
    flat = {body: np.array(goal), "target": np.array(goal)}
    world.reset_to(world.read().state | flat)
    world.read()
    assert (world.success(), failure_of(world)) == (True, "")
    world.reset_to(world.read().state | flat)
    half = goal[2] / 2
    world.data.joint(body).qpos = [*goal[:2], height, 0, np.cos(half), np.sin(half), 0]  # turned about its own x
    wait(world, clock, 2)
    np.testing.assert_allclose(world.read().state[body], goal, atol=2e-3)  # x, y and yaw do not tell
    assert (world.success(), failure_of(world)) == (False, "overturned")
    assert world.task.progress() == 0.0


def test_a_moved_mark_counts_until_the_next_reset():
    world, _ = make("twin:pusht")
    state = world.read().state
    gap = np.array([0.05, -0.03, 0.4])
    world.reset_to(state | {"block": GOAL})
    world.read()
    assert world.success()
    world._task.move_goal(gap)
    world.read()
    assert not world.success()
    assert world._task.progress() == pytest.approx(coverage(GOAL, GOAL + gap) / 0.95, abs=1e-3)
    world.reset_to(state | {"block": GOAL})
    world.read()
    assert world.success()
    assert coverage(GOAL, GOAL + gap) < COVERED


def test_planar_push_t_goes_by_both_names_and_tells_which_way_the_picture_turns():
    world, clock = make("planar:push_t")
    assert (modes_of(world), mode_of(world), failure_of(world)) == (TURNS, None, "")
    angle = np.pi / 2  # the stem points to -x, its side faces the pusher below
    world.put(np.array([190.0, 400.0, 256.0, 256.0, angle]))
    for _ in range(12):
        world.command(np.array([190.0, 150.0]), clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        state = world.read().state["state"]
    assert 0.2 < state[4] - angle < np.pi  # up the picture on the left of it: clockwise
    assert mode_of(world) == "clockwise"
    world.disturb(np.random.default_rng(0))
    assert mode_of(world) == "clockwise"
    world.reset(3)
    assert mode_of(world) is None


class Butterfingers:
    """Lifts as the expert does, and lets go for a while once the cube is up."""

    def __init__(self, let_go):
        self._expert, self._let_go, self._open = LiftExpert(), let_go, 0
        self.let_go_at = None

    def act(self, observation):
        command = self._expert.act(observation)
        if self.let_go_at is None and observation.state["cube_pos"][2] > 0.06:
            self.let_go_at, self._open = observation.stamp_ns, self._let_go
        if self._open > 0:
            self._open -= 1
            stay = np.concatenate([observation.state["tool_pos"], matrix_to_rot6d(DOWN), [1.0]])
            return type(command)(stay.astype(np.float32), "policy")
        return command


def test_a_dropped_cube_is_dropped_until_it_is_up_again():
    world, clock = make("twin:lift")
    agent, told = Butterfingers(let_go=12), []
    world.reset(2)
    for observation in steps(world, clock, agent, 150):
        told.append((observation.stamp_ns, failure_of(world), float(observation.state["cube_pos"][2])))
        if world.success():
            break
    assert world.success()
    dropped = [(stamp, height) for stamp, failure, height in told if failure == "dropped"]
    assert {failure for _, failure, _ in told} == {"", "dropped"}
    assert 0 < dropped[0][0] - agent.let_go_at <= 8 * world.spec.period_ns  # from when it falls
    assert all(failure == "dropped" for stamp, failure, _ in told if dropped[0][0] <= stamp <= dropped[-1][0])
    assert dropped[-1][1] < 0.035  # until it is off the table again
    assert told[-1][1] == ""


def test_a_cube_that_was_never_up_is_not_dropped_and_one_beside_the_table_is_off_it():
    world, clock = make("twin:lift")
    world.reset(0)
    world.read()
    assert failure_of(world) == ""
    world.disturb(np.random.default_rng(0))
    wait(world, clock, 20)
    assert failure_of(world) == ""
    world.reset_to(world.read().state | {"cube_pos": np.array([0.5, 0.8, 0.02])})
    wait(world, clock, 10)
    assert failure_of(world) == "off_table"
    world.reset(1)
    world.read()
    assert failure_of(world) == ""


@pytest.mark.parametrize("name", TASKS)
def test_a_world_is_put_by_the_states_that_its_task_names_and_no_fewer(name):
    world, _ = make(f"twin:{name}")
    world.reset(3)
    seen = world.read().state
    needs = ("q", "gripper", *placing_states(make_task(name)))
    other, _ = make(f"twin:{name}")
    other.reset_to({key: seen[key] for key in needs})
    again = other.read().state
    for key in seen.keys() - {"dq"}:
        np.testing.assert_allclose(again[key], seen[key], atol=2e-3)
    for key in needs:
        with pytest.raises(ContractError, match=key):
            other.reset_to({one: seen[one] for one in needs if one != key})
