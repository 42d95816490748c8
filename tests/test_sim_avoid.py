"""twin:avoid: which gaps were passed, what touched, and an expert that takes every way."""

from itertools import pairwise, product

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of, modes_of
from robopolicy.clock import SimClock
from robopolicy.errors import UnknownName
from robopolicy.evaluation.entropy import behaviour_entropy
from sim_envs.arm import STICK_RADIUS
from sim_envs.avoid import FINISH_Y, HEIGHT, POSTS, RADII, ROWS, START_Y, Avoid
from sim_envs.avoid_expert import AvoidExpert, middle
from sim_envs.balanced import balanced
from sim_envs.twin import Twin

LOW = 0.015  # m
WAYS = list(product((1, 2), (1, 2, 3), (1, 2, 3, 4)))


@pytest.fixture(scope="module")
def twin():
    return Twin(Avoid(), SimClock(), cameras=())


@pytest.fixture
def walk(twin):
    """Lead the tip, not the arm, along straight lines between points, looking every ``step`` metres."""
    task = twin._task
    task.reset(np.random.default_rng(0))
    tip = twin.data.site("tool").xpos

    def along(*points, step=0.01):
        for start, end in pairwise(points):
            count = max(1, round(float(np.linalg.norm(np.subtract(end, start)[:2])) / step))
            for t in np.linspace(0, 1, count + 1):
                tip[:] = (1 - t) * np.asarray(start, float) + t * np.asarray(end, float)
                task.watch()
        return task

    yield along
    twin.reset(0)


def way(gaps, height=LOW):
    """Points through the middles of the gaps, straight across each row."""
    points = [(0.5, START_Y, height)]
    for row, gap in enumerate(gaps):
        points += [(middle(row, gap), ROWS[row] + beside, height) for beside in (-0.07, 0.07)]
    return [*points, (points[-1][0], FINISH_Y + 0.01, height)]


def drive(twin, agent, seed, aside=None):
    clock = twin._clock
    twin.reset(seed)
    agent.reset(seed)
    failures = set()
    for k in range(twin.max_steps):
        observation = twin.read()
        failures.add(failure_of(twin))
        if twin.success():
            break
        action = agent.act(observation).values
        if aside is not None and (off := aside(observation, k)) is not None:
            action[:2] = observation.state["tool_pos"][:2] + off
        twin.command(action, clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
    return failures


def test_there_are_the_24_modes_of_the_published_course():
    assert len(set(Avoid.modes)) == 24
    assert [len(row) for row in POSTS] == [1, 2, 3]
    assert np.diff(ROWS) == pytest.approx([0.18, 0.18])
    assert FINISH_Y - ROWS[-1] == pytest.approx(0.09)
    assert [y for y in ROWS if START_Y < y < FINISH_Y] == list(ROWS)


@pytest.mark.parametrize("gaps", WAYS, ids=lambda gaps: "-".join(map(str, gaps)))
def test_every_way_between_the_posts_is_its_own_mode(walk, gaps):
    task = walk(*way(gaps))
    assert task.mode() == "-".join(map(str, gaps))
    assert task.success()
    assert task.failure() == ""
    assert task.progress() == 1.0


def test_the_mode_is_open_until_the_last_row_and_success_until_the_line(walk):
    points = way((1, 2, 3))
    task = walk(*points[:5])
    assert (task.mode(), task.success()) == (None, False)
    walk(*points[4:7])
    assert (task.mode(), task.success()) == ("1-2-3", False)
    walk(*points[6:])
    assert task.success()


def test_who_goes_back_is_judged_by_the_way_taken_last(walk):
    there = way((1, 2, 2))
    back = [*there[:5], *there[3:0:-1], (0.35, -0.25, LOW), (0.65, -0.25, LOW), *way((2, 3, 4))[1:]]
    task = walk(*back)
    assert task.mode() == "2-3-4"
    assert task.success()


@pytest.mark.parametrize("step", [0.005, 0.5])  # m between two looks
def test_a_touch_is_seen_whenever_one_looks_and_ends_every_chance(walk, step):
    x = POSTS[0][0] + RADII[0] + STICK_RADIUS
    points = way((2, 2, 2))
    task = walk(points[0], (x - 0.001, ROWS[0] - 0.07, LOW), (x - 0.001, ROWS[0] + 0.07, LOW), step=step)
    assert task.failure() == "collided"
    walk(*points[2:], step=0.01)
    assert task.mode() == "2-2-2"
    assert task.failure() == "collided"
    assert not task.success()
    assert task.progress() == 0.0


@pytest.mark.parametrize("step", [0.005, 0.5])
def test_a_near_miss_is_no_touch(walk, step):
    x = POSTS[0][0] + RADII[0] + STICK_RADIUS + 0.001
    task = walk((x, START_Y, LOW), (x, 0.0, LOW), step=step)
    assert task.failure() == ""


def test_over_the_posts_is_no_way(walk):
    task = walk(*way((1, 1, 1), height=HEIGHT + 0.02))
    assert task.failure() == "flew_over"
    assert not task.success()
    task.reset(np.random.default_rng(0))
    assert task.failure() == ""
    assert task.mode() is None


def test_a_way_that_begins_in_the_middle_has_no_mode_but_may_succeed(twin, walk):
    points = way((1, 2, 3))
    task = walk(*points[3:])
    assert (task.mode(), task.success()) == (None, True)
    twin.reset(0)
    twin.reset_to(twin.read().state)
    walk(*points)
    assert task.mode() == "1-2-3"


def test_an_arm_that_runs_into_a_post_has_collided(twin):
    clock, seen = twin._clock, []
    twin.reset(3)
    down = [1.0, 0, 0, 0, -1, 0, 0]
    for k in range(60):
        twin.command(np.array([0.5, ROWS[0] - 0.05 + 0.003 * k, LOW, *down]), clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
        twin.read()
        seen.append(failure_of(twin))
    first = seen.index("collided")
    assert set(seen[:first]) <= {""}
    assert set(seen[first:]) == {"collided"}
    assert twin.data.site("tool").xpos[1] < ROWS[0]  # posts are solid


def test_a_stick_that_leans_on_a_post_beside_its_tip_has_collided(twin):
    clock, lean = twin._clock, 0.7
    twin.reset(3)
    x, y = POSTS[0][0] - RADII[0] - STICK_RADIUS - 0.012, ROWS[0]
    c, s = np.cos(lean), np.sin(lean)
    for _ in range(60):
        twin.command(np.array([x, y, 0.012, c, 0, -s, 0, -1, 0, 0]), clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
        twin.read()
        if failure_of(twin):
            break
    assert failure_of(twin) == "collided"
    tip = twin.data.site("tool").xpos
    assert np.hypot(tip[0] - POSTS[0][0], tip[1] - y) > RADII[0] + STICK_RADIUS + 0.002


def test_the_expert_takes_all_24_ways_in_24_seeds_and_one_way_alone_has_no_entropy(twin):
    rng, entropies = np.random.default_rng(0), []
    for expert, seeds in ((AvoidExpert(), 24), (AvoidExpert(mode="1-3-2"), 4)):
        counts = dict.fromkeys(modes_of(twin), 0)
        for seed in range(seeds):
            assert drive(twin, expert, seed) == {""}
            assert mode_of(twin) == expert.mode
            counts[mode_of(twin)] += twin.success()
        entropies.append(behaviour_entropy(counts, rng=rng).value)
    assert entropies == pytest.approx([1.0, 0.0])
    with pytest.raises(UnknownName, match="2-3-4"):
        AvoidExpert(mode="3-1-1")


def test_the_expert_goes_its_way_after_it_was_led_aside(twin):
    for seed in (0, 1, 2, 3):
        expert = AvoidExpert()
        side = 0.012 if seed % 2 else -0.012
        assert drive(twin, expert, seed, lambda _, k, side=side: np.array([side, 0.0]) if 2 < k < 10 else None) == {""}
        assert mode_of(twin) == expert.mode


def test_balanced_draws_use_every_choice_as_often():
    choices = ("a", "b", "c")
    drawn = [balanced(seed, choices) for seed in range(300)]
    assert all(sorted(drawn[k : k + 3]) == list(choices) for k in range(0, 300, 3))
    assert len({tuple(drawn[k : k + 3]) for k in range(0, 300, 3)}) == 6
    assert drawn == [balanced(seed, choices) for seed in range(300)]
