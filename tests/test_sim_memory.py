"""twin:memory: what is seen between cue and deed is the same for both cues, so only memory is better than chance."""

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend, UnknownName
from sim_envs.memory import GO_S, PADS, SHOWN_S, Memory
from sim_envs.memory_expert import MemoryExpert
from sim_envs.twin import Twin

DOWN = [1.0, 0, 0, 0, -1, 0, 0]
GO_STEP, HIDDEN_STEP = round(20 * GO_S), round(20 * SHOWN_S)


def make(cue, **options):
    return Twin(Memory(cue), SimClock(), **({"cameras": ()} | options))


def play(twin, act, seed, steps=None):
    """Reset, then ``act(observation, k) -> (A,)`` each step; return the observations."""
    clock, seen = twin._clock, []
    twin.reset(seed)
    for k in range(twin.max_steps if steps is None else steps):
        seen.append(twin.read())
        if twin.success() and steps is None:
            break
        twin.command(np.asarray(act(seen[-1], k), np.float32), clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
    return seen


def everything(twin):
    """The whole state of the physics, with what is commanded."""
    data = twin.data
    parts = [data.qpos, data.qvel, data.qacc_warmstart, data.ctrl, data.act, data.xfrc_applied.ravel()]
    parts += [data.mocap_pos.ravel(), data.mocap_quat.ravel(), [data.time], twin._servo.q, twin._set_point]
    return np.concatenate(parts)


def nod(observation, k):
    """What a cunning policy might do while it sees the ball: lean to its side."""
    side = float(observation.state["cue"][0])
    return [*(observation.state["tool_pos"] + [0.0, 0.04 * side, 0.0]), *DOWN]


def same(a, b):
    return all(np.array_equal(a.state[key], b.state[key]) for key in a.state) and all(
        np.array_equal(a.images[key], b.images[key]) for key in a.images
    )


def test_between_cue_and_deed_the_world_is_the_same_to_the_bit_whatever_was_done():
    twins = [make("left"), make("right")]
    seen = [play(twin, nod, seed=4, steps=GO_STEP) for twin in twins]
    for k, (left, right) in enumerate(zip(*seen, strict=True)):
        assert same(left, right) == (k >= HIDDEN_STEP)
    assert np.array_equal(*[everything(twin) for twin in twins])
    assert seen[0][0].state["cue"] == 1
    assert seen[1][0].state["cue"] == -1
    assert np.abs(seen[0][-1].state["tool_pos"] - seen[0][0].state["tool_pos"]).max() < 2e-4  # the brake holds


def test_the_cameras_see_the_ball_and_then_the_same():
    twins = [make(side, cameras=("front",), size=(48, 48)) for side in PADS]
    try:
        seen = [play(twin, nod, seed=4, steps=HIDDEN_STEP + 2) for twin in twins]
    except NoGLBackend as error:
        pytest.skip(str(error))
    finally:
        for twin in twins:
            twin.close()
    alike = [np.array_equal(left.images["front"], right.images["front"]) for left, right in zip(*seen, strict=True)]
    assert alike == [False] * HIDDEN_STEP + [True] * 2


def touching(choose):
    """A policy without memory: where it goes is a function of what it sees now."""

    def act(observation, k):
        tool = observation.state["tool_pos"]
        pad = PADS[choose(observation)]
        over = np.hypot(*(tool - pad)[:2]) < 0.02
        gap = np.array([*pad[:2], 0.004 if over else 0.06]) - tool
        return [*(tool + gap * min(1.0, 0.02 / np.linalg.norm(gap))), *DOWN]

    return act


def random_choice(seed):
    """A random function of everything that is seen but the cue, which is 0 by the time it matters."""
    weights = {}

    def choose(observation):
        rng = np.random.default_rng(seed)
        total = sum(
            float(weights.setdefault(key, rng.normal(size=len(value))) @ value)
            for key, value in observation.state.items()
        )
        return "left" if np.sin(5 * total) > 0 else "right"

    return choose


CHOICES = {"left": lambda _: "left", "right": lambda _: "right"}
CHOICES |= {"by the ball": lambda o: "left" if o.state["cue"][0] > 0 else "right"}
CHOICES |= {f"random {seed}": random_choice(seed) for seed in range(4)}


@pytest.mark.parametrize("name", CHOICES)
def test_a_policy_without_memory_is_right_for_one_cue_at_most(name):
    for seed in (0,) if name.startswith("random") else (0, 1):
        twins = [make(cue) for cue in ("left", "right")]
        seen = [play(twin, touching(CHOICES[name]), seed) for twin in twins]
        both = min(map(len, seen))
        assert all(same(*pair) for pair in zip(*(one[HIDDEN_STEP:both] for one in seen), strict=True))
        assert sum(twin.success() for twin in twins) <= 1
        if not name.startswith("random"):  # those may dither between the pads
            assert sum(twin.success() for twin in twins) == 1
            assert sorted(failure_of(twin) for twin in twins) == ["", "wrong_pad"]


def test_who_remembers_is_right_for_both():
    for seed in range(2):
        for cue in PADS:
            twin, expert = make(cue), MemoryExpert()
            expert.reset(seed)
            play(twin, lambda o, _, expert=expert: expert.act(o).values, seed)
            assert twin.success()
            assert mode_of(twin) == cue
            assert failure_of(twin) == ""


def test_the_expert_robbed_of_its_memory_is_right_for_one():
    won = 0
    for cue in PADS:
        twin, expert = make(cue), MemoryExpert()

        def forgetful(observation, k, expert=expert):
            expert.reset(7)
            return expert.act(observation).values

        play(twin, forgetful, 7)
        won += twin.success()
    assert won == 1


def test_the_wrong_pad_cannot_be_made_good():
    twin = make("left")
    first = touching(CHOICES["right"])
    then = touching(CHOICES["left"])
    play(twin, lambda o, k: (first if k < 90 else then)(o, k), seed=2, steps=twin.max_steps)
    assert np.hypot(*(twin.data.site("tool").xpos - PADS["left"])[:2]) < 0.03
    assert twin.data.site("tool").xpos[2] < 0.012
    assert (twin.success(), failure_of(twin), mode_of(twin)) == (False, "wrong_pad", "right")
    twin.reset(2)
    assert failure_of(twin) == ""


@pytest.mark.parametrize("step", [3, HIDDEN_STEP + 3, GO_STEP + 10])
def test_a_recorded_state_comes_back_in_its_phase(step):
    twin, expert = make("right"), MemoryExpert()
    seen = play(twin, lambda o, _: expert.act(o).values, seed=1, steps=step + 1)[-1]
    other = make(None)
    other.reset_to(seen.state)
    for key in ("cue", "go"):
        np.testing.assert_array_equal(other.read().state[key], seen.state[key])
    np.testing.assert_allclose(other.read().state["tool_pos"], seen.state["tool_pos"], atol=1e-6)


@pytest.mark.parametrize(("at", "dark"), [(10, range(70)), (60, [*range(GO_STEP), *range(60, 80)])])
def test_disturbed_the_lamp_comes_on_later_or_goes_out_for_a_second(at, dark):
    twin, seen = make("left"), []

    def disturbed(observation, k):
        if k == at:
            twin.disturb(np.random.default_rng(0))
            observation = twin.read()
        seen.append(float(observation.state["go"][0]))
        return [*observation.state["tool_pos"], *DOWN]

    play(twin, disturbed, seed=3, steps=90)
    assert [k for k, lit in enumerate(seen) if not lit] == list(dark)
    lamp = twin.data.mocap_pos[twin.task._tokens["lamp"]]
    assert lamp[2] > 0
    twin.reset(3)
    assert [twin.task.braked(), play(twin, lambda o, k: [0.5, 0, 0.1, *DOWN], 3, GO_STEP + 1)[-1].state["go"][0]] == [
        1,
        1,
    ]


def test_an_unknown_cue_names_the_two():
    with pytest.raises(UnknownName, match="left"):
        Memory("up")
