"""The real spine: twin, expert, loop, safety, spawned processes."""

import sys
from pathlib import Path

import pytest

from robopolicy.evaluation.rollouts import Options, evaluate

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import twin_parts as parts


def run(seeds, **options):
    return evaluate(parts.make_world, parts.make_expert, seeds, make_safety=parts.make_safety, **options)


def test_expert_lifts_behind_the_safety_layer_and_every_seed_repeats_in_any_order():
    outcomes = run(range(100, 106), jobs=2)
    assert all(outcome.success and outcome.error is None for outcome in outcomes)
    again = run(range(105, 99, -1), jobs=1)
    key = [(o.seed, o.score, o.steps) for o in outcomes]
    assert [(o.seed, o.score, o.steps) for o in reversed(again)] == key


@pytest.mark.parametrize("seed", [100, 101])
def test_disturbance_repeats(seed):
    first, second = (run([seed], jobs=1, options=Options(disturb_at=15))[0] for _ in range(2))
    assert first.disturb_step == 15
    assert first.disturbance == second.disturbance != ""
    assert first.steps == second.steps
