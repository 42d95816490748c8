"""Which demonstrations fit a base policy, and what the operator hears of it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reaching import SPEC, join, reach, steps_of

from robopolicy.errors import ContractError, SpecMismatch
from robopolicy.quality.compatibility import BasePolicy, CompatibilityConfig, Rule, judge_all, mean_of_familiar
from robopolicy.quality.ensemble import EnsembleConfig
from robopolicy.quality.features import Features
from robopolicy.quality.watcher import DIFFERS, NEW, CompatibilityWatcher
from robopolicy.testing import WatcherContract
from robopolicy.types import EpisodeMeta

SMALL = CompatibilityConfig(ensemble=EnsembleConfig(width=64, steps=300))


@pytest.fixture(scope="module")
def base():
    rng = np.random.default_rng(0)
    return BasePolicy(join([reach(rng) for _ in range(20)]), SPEC, SMALL)


def many(count=10, seed=1, **style):
    rng = np.random.default_rng(seed)
    return join([reach(rng, **style) for _ in range(count)])


def test_the_rule_of_the_paper():
    rule = Rule(error=2.0, novelty=0.5, score=0.5)
    error, novelty = np.array([0.0, 1.0, 9.0, 9.0]), np.array([0.1, 0.1, 0.1, 0.6])
    assert rule.apply(error, novelty).tolist() == [1.0, 0.5, 0.0, 1.0]  # what is new is welcome


def test_the_same_style_fits_and_another_does_not(base):
    alike, other, shaky = (judge_all(base, many(**style)) for style in ({}, {"bend": 0.08}, {"shake": 0.01}))
    assert sum(base.fits(j) for j in alike) >= 8
    assert sum(base.fits(j) for j in other) <= 2  # though by and by it gets where nobody was
    assert sum(base.fits(j) for j in shaky) <= 2
    assert np.mean([j.score for j in alike]) > np.mean([j.score for j in other]) + 0.2


def test_new_steps_have_no_say_in_the_score_and_few_familiar_ones_neither():
    compatibility, new = np.array([0.2, 0.4, *[1.0] * 18]), np.array([False, False, *[True] * 18])
    assert mean_of_familiar(compatibility, new) == pytest.approx(0.3)
    assert mean_of_familiar(compatibility, new | (np.arange(20) == 1)) == 1.0


def test_new_ground_is_welcome_whatever_is_done_there(base):
    far = judge_all(base, many(start=(2.0, 2.0), bend=0.08))
    near = judge_all(base, many(bend=0.08))
    assert min(j.novelty.mean() for j in far) > 2 * max(j.novelty.mean() for j in near)
    assert all(base.fits(j) for j in far)


def test_base_demonstrations_are_judged_by_members_that_never_saw_them(base):
    rng = np.random.default_rng(0)
    episodes = [reach(rng) for _ in range(20)]
    seen = judge_all(base, join(episodes))
    higher = [held.error.mean() > all_ten.error.mean() for held, all_ten in zip(base.held_out, seen, strict=True)]
    assert sum(higher) >= 16  # of 20
    fresh = np.mean([j.error.mean() for j in judge_all(base, many(20))])
    assert np.mean([j.error.mean() for j in base.held_out]) == pytest.approx(fresh, rel=0.35)
    assert 18 <= sum(base.fits(j) for j in base.held_out) <= 20


def test_it_repeats_and_leaves_the_global_generator_alone():
    arrays, other = many(12), many(2, seed=5)
    before = torch.get_rng_state()
    scores = [[j.score for j in judge_all(BasePolicy(arrays, SPEC, SMALL, seed=seed), other)] for seed in (3, 3, 4)]
    assert scores[0] == scores[1] != scores[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_demonstrations_are_no_base():
    with pytest.raises(ContractError, match="3 base demonstrations; want at least 10"):
        BasePolicy(many(3), SPEC)


def test_demonstrations_in_which_nothing_happens_are_no_base():
    still = many(12)
    still.state = {name: np.zeros_like(values) for name, values in still.state.items()}
    still.action = np.zeros_like(still.action)
    with pytest.raises(ContractError, match="all the same step"):
        BasePolicy(still, SPEC, SMALL)


def test_features_take_off_what_the_state_says_by_itself():
    arrays = many(20)
    features = Features(SPEC, 4)
    features.fit(arrays)
    x = features.state(arrays.state)
    y = features.action(x, arrays.action, arrays.episode_ends)
    plain = torch.as_tensor(arrays.action[:, 0])
    assert abs(np.corrcoef(plain, x[:, 0])[0, 1]) > 0.95  # where the hand is sent is mostly where it is
    assert abs(np.corrcoef(y[:, 0], x[:, 0])[0, 1]) < 0.1
    assert x.mean(0).abs().max() < 1e-4
    moved = arrays.action.copy()
    moved[10] += 1.0
    changed = (features.action(x, moved, arrays.episode_ends) - y).abs().amax(1) > 1e-3
    assert np.flatnonzero(changed).tolist() == [7, 8, 9, 10]  # the four steps that look ahead to it


class TestCompatibilityWatcher(WatcherContract):
    @pytest.fixture(autouse=True)
    def _base(self, base):
        self.base = base

    def spec(self):
        return self.base.spec

    def make(self, spec):
        return CompatibilityWatcher(self.base)


def watch(base, episode):
    watcher = CompatibilityWatcher(base)
    watcher.on_start(EpisodeMeta("reach", "plane"), SPEC)
    said = []
    for step in steps_of(episode):
        watcher.on_step(step)
        said.append(watcher.message)
    watcher.on_end(EpisodeMeta("reach", "plane"))
    return watcher, said


def test_the_operator_hears_while_the_demonstration_goes_wrong(base):
    rng = np.random.default_rng(7)
    good, said = watch(base, reach(rng))
    assert set(said) == {""}
    assert good.message == ""
    bad, said = watch(base, reach(rng, start=(0.0, 0.0), shake=0.005))
    assert DIFFERS in said[:-1]
    assert said[:20] == [""] * 20  # not before there is something to judge
    assert bad.message.startswith(f"{DIFFERS} (compatibility 0.")
    assert bad.score < base.rule.score < good.score
    assert NEW in watch(base, reach(rng, start=(2.0, 2.0)))[1]


def test_live_and_afterwards_agree(base):
    episode = reach(np.random.default_rng(8), bend=0.05)
    watcher, _ = watch(base, episode)
    judged = base.judge(episode.state, episode.action).compatibility
    whole = len(judged) - base.config.horizon + 1  # the last steps look beyond the end, so they are not judged live
    assert watcher.compatibility == pytest.approx(judged[:whole].tolist(), abs=1e-4)


def test_another_robot_is_refused(base):
    from dataclasses import replace

    with pytest.raises(SpecMismatch, match="rate: the demonstrations to compare with has 20 Hz, the robot has 10 Hz"):
        CompatibilityWatcher(base).on_start(EpisodeMeta("reach", "plane"), replace(SPEC, rate_hz=10.0))
