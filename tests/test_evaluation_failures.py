"""What an episode failed of, from which step on, and how its tool went: traces by hand, then whole episodes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

from robopolicy.evaluation.failures import FailureTrace, taxonomy
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.rollouts import Options, Rollout
from robopolicy.evaluation.tool_path import ToolPath
from robopolicy.smoothness import spectral_arc_length, speeds
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Command, Observation

RATE_HZ = 10.0


def cause(slugs, scores=None, held=(), stopped=False):
    trace = FailureTrace()
    scores = [0.0] * len(slugs) if scores is None else scores
    for step, (slug, score) in enumerate(zip(slugs, scores, strict=True)):
        trace.see(step, slug, score)
        if step < len(slugs) - 1:
            trace.drive(step, held=step in held)
    return trace.cause(len(slugs) - 1, stopped="stopped" if stopped else "")


def test_the_cause_is_what_went_wrong_first_and_was_not_made_good():
    assert cause(["", "", "dropped", "dropped", "dropped"]) == ("dropped", 2)
    assert cause(["", "dropped", "dropped", "off_table", "off_table"]) == ("dropped", 1), "what began it"
    assert cause(["", "dropped", "", "", "collided"]) == ("collided", 4), "the first was made good again"
    assert cause(["dropped", "dropped"]) == ("dropped", 0)


def test_an_agent_that_holds_still_to_the_end_is_a_cause():
    still = [""] * 11
    assert cause(still, held=range(4, 10)) == ("held", 4)
    assert cause(still, held=range(2, 9)) == ("stalled", 0), "it went on"
    assert cause([""] * 6 + ["dropped"] * 5, held=range(4, 10)) == ("held", 4)
    assert cause([""] * 2 + ["dropped"] * 9, held=range(4, 10)) == ("dropped", 2)


def test_without_a_slug_the_score_tells_a_stall_from_too_little_time():
    rising = np.linspace(0, 0.9, 41)
    assert cause([""] * 41, rising) == ("timeout", None)
    assert cause([""] * 41, np.minimum(rising, 0.45)) == ("stalled", 20)
    creeping = 0.3 + np.arange(41) * 1e-4
    assert cause([""] * 41, creeping) == ("stalled", 0), "0.004 in all is no progress"
    slow = np.arange(41) * 0.004  # a rise of 0.01 every three steps
    assert cause([""] * 41, slow) == ("timeout", None)
    assert cause([""] * 41, rising, stopped=True) == ("stopped", 40)


def test_the_table_of_causes():
    outcomes = [
        Outcome(1, True),
        Outcome(2, failure="dropped", onset_step=10),
        Outcome(4, failure="dropped", onset_step=40),
        Outcome(3, failure="dropped", onset_step=20),
        Outcome(5, error="broke"),
        Outcome(6, failure="timeout"),
        Outcome(7),
    ]
    found = [(c.failure, c.seeds, c.onset_step) for c in taxonomy(outcomes)]
    assert found == [
        ("dropped", (2, 3, 4), 20.0), ("error", (5,), None), ("not known", (7,), None), ("timeout", (6,), None),
    ]  # fmt: skip
    assert taxonomy(outcomes)[3].words == "still making progress when the time was over"
    assert taxonomy(outcomes[:1]) == []


def path(positions, rate_hz=RATE_HZ, stamps=None):
    spec = PolicySpec(state={"tool_pos": StateSpec(3, ("m",))}, rate_hz=rate_hz)
    way = ToolPath(spec)
    stamps = np.arange(len(positions)) if stamps is None else stamps
    for k, position in zip(stamps, positions, strict=True):
        way.add(Observation(int(k * 1e9 / rate_hz), {"tool_pos": np.asarray(position, np.float32)}))
    return way


def reach(n=31):
    t = np.linspace(0, 1, n)[:, None]
    return (10 * t**3 - 15 * t**4 + 6 * t**5) * np.array([0.3, 0.1, 0.2])  # minimum jerk


def test_smoothness_is_the_measure_of_the_demonstrations_and_sees_trembling():
    way = reach()
    smooth = path(way).smoothness()
    as_recorded = way.astype(np.float32).astype(np.float64)
    assert smooth == pytest.approx(spectral_arc_length(speeds(as_recorded, RATE_HZ), RATE_HZ), abs=1e-3)
    assert -1.7 < smooth < -1.3
    trembling = way + np.random.default_rng(0).normal(0, 0.01, way.shape)
    assert path(trembling).smoothness() < smooth - 0.5
    jumping = np.repeat(way[::8], 8, axis=0)[:31]
    assert path(jumping).smoothness() < smooth - 0.5


def test_steps_that_passed_without_a_command_are_not_a_jump():
    way, kept = reach(41), [k for k in range(41) if k % 5]
    assert path(way[kept], stamps=kept).smoothness() == pytest.approx(path(way).smoothness(), abs=0.1)
    assert path(way[kept]).smoothness() != pytest.approx(path(way).smoothness(), abs=0.1)


def test_what_has_no_way_has_no_smoothness():
    assert path([[0.1, 0.2, 0.3]] * 30).smoothness() is None
    assert path(reach()[:3]).smoothness() is None
    broken = reach()
    broken[5] = np.nan
    assert path(broken).smoothness() is None


@pytest.mark.parametrize(
    ("state", "action", "found"),
    [
        ({"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))}, ("px",), ("state", 2)),
        ({"image_pos": StateSpec(2, ("1",)), "at": StateSpec(2, ("m",))}, ("m",), ("at", 2)),
        ({"at": StateSpec(2, ("m",))}, ("m/s",), (None, 0)),
        ({"at": StateSpec(2, ("px",))}, ("m",), (None, 0)),
        ({"at": StateSpec(2, ("m",))}, ("m", "rad"), (None, 0)),
    ],
)
def test_where_a_plane_tells_of_its_tool(state, action, found):
    from robopolicy.evaluation.tool_path import _stream

    assert _stream(PolicySpec(state=state, action=ActionSpec("vector", ("x", "y"), action))) == found


class Telling(tiny.PointWorld):
    """Says where it came from, and that it was thrown away."""

    modes = ("above", "below")
    perturbations = ("camera:0.5",)

    def mode(self):
        return "above" if self._at[0] < self._at[1] else "below"

    def failure(self):
        return "thrown" if np.linalg.norm(self._at) > 5 else ""


def run(world, seed, **options):
    return Rollout(world, tiny.make_agent, tiny.AnythingGoes, Options(**options)).run(seed)


def test_an_episode_tells_its_time_way_and_mode():
    outcome = run(Telling, 1)
    assert outcome.success
    assert outcome.success_s == pytest.approx(outcome.steps / 10.0)
    assert outcome.smoothness < 0
    assert (outcome.mode in Telling.modes, outcome.failure, outcome.onset_step) == (True, "", None)
    assert outcome.perturbations == ("camera:0.5",)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_an_episode_that_was_thrown_away_says_since_when():
    outcome = run(Telling, 1, disturb_at=3)
    assert (outcome.success, outcome.failure, outcome.success_s) == (False, "thrown", None)
    assert outcome.onset_step == 3
    silent = run(tiny.PointWorld, 1, disturb_at=3)
    assert (silent.mode, silent.failure, silent.perturbations) == (None, "stalled", ())


class Resigned:
    """Goes for two steps, then holds still."""

    decision = None

    def act(self, observation):
        self._steps += 1
        if self._steps > 2:
            return Command(None, "hold", reason="no idea")
        return Command(observation.state["point"] * 0.9, "policy")

    def reset(self, seed=0):
        self._steps = 0


def test_an_agent_that_gives_up_says_since_when():
    outcome = Rollout(tiny.PointWorld, Resigned, tiny.AnythingGoes).run(1)
    assert (outcome.success, outcome.failure, outcome.onset_step) == (False, "held", 2)


def test_success_at_the_last_step_has_a_time_too():
    steps = run(tiny.PointWorld, 1).steps
    outcome = run(tiny.PointWorld, 1, max_steps=steps)
    assert outcome.success
    assert outcome.success_s == pytest.approx(steps / 10.0)
    assert run(tiny.PointWorld, 1, max_steps=steps - 1).failure == "timeout"


def test_safety_that_stops_an_episode_is_its_failure():
    rollout = Rollout(tiny.PointWorld, tiny.make_slow, tiny.NothingLate, Options(max_steps=6, realtime=True))
    outcome = rollout.run(3)
    assert (outcome.failure, outcome.onset_step) == ("stopped", outcome.steps)


def test_lines_of_an_older_version_are_read():
    old = {"seed": 3, "success": True, "score": 1.0, "steps": 9, "marks": [], "of a later version": 1}
    assert Outcome.from_json(old) == Outcome(3, True, 1.0, 9)
    assert replace(Outcome.from_json(old), perturbations=("a:1",)).to_json()["perturbations"] == ["a:1"]
