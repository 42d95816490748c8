"""Demonstrators of lesser quality: they still lift the cube, repeat from a seed, and say where they strayed."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import twin_parts

from robopolicy.clock import SimClock
from robopolicy.loop import run_episode
from robopolicy.types import EpisodeMeta
from sim_envs.demonstrators import Clumsy, DownThenAcross, Hesitant, Unsteady, Wandering
from sim_envs.lift_expert import LiftExpert

KINDS = {
    "other style": DownThenAcross,
    "unsteady": lambda: Unsteady(LiftExpert(), 0.003),
    "hesitant": lambda: Hesitant(LiftExpert()),
    "clumsy": lambda: Clumsy(LiftExpert()),
    "wandering": lambda: Wandering(LiftExpert()),
}


class Track:
    def on_start(self, meta, spec):
        self.tool, self.sent = [], []

    def on_step(self, step):
        self.tool.append(step.observation.state["tool_pos"])
        self.sent.append(step.sent)

    def on_end(self, meta):
        self.tool, self.sent = np.array(self.tool), np.array(self.sent)


@pytest.fixture(scope="module")
def play():
    clock = SimClock()
    world = twin_parts.make_world(clock)

    def once(agent, seed):
        track = Track()
        world.reset(seed)
        safety = twin_parts.make_safety(world.spec)
        meta = EpisodeMeta("lift", "twin", seed)
        run_episode(world, agent, clock, safety, meta, max_steps=250, watchers=[track], done=lambda _: world.success())
        return world.success(), track

    yield once
    world.close()


@pytest.mark.parametrize("kind", KINDS)
def test_each_lifts_the_cube_in_its_own_way(play, kind):
    agent = KINDS[kind]()
    won = [play(agent, seed)[0] for seed in range(200, 204)]
    assert sum(won) >= 3
    (_, first), (_, again), (_, expert) = play(agent, 205), play(agent, 205), play(LiftExpert(), 205)
    assert np.array_equal(first.sent, again.sent)
    steps = min(len(first.sent), len(expert.sent))
    assert np.abs(first.sent[:steps] - expert.sent[:steps]).max() > 0.005


def test_the_other_style_is_low_before_it_is_over_the_cube(play):
    _, there = play(DownThenAcross(), 210)
    _, expert = play(LiftExpert(), 210)
    far_and_low = [
        (track.tool[:, 2] < 0.03) & (np.hypot(*(track.tool[:, :2] - track.tool[-1, :2]).T) > 0.06)
        for track in (there, expert)
    ]
    assert far_and_low[0].any()
    assert not far_and_low[1].any()


def test_who_hesitates_stands_still_there_and_who_wanders_is_away(play):
    agent = Hesitant(LiftExpert(), chance=0.1)
    _, track = play(agent, 220)
    first, end = agent.spans[0]
    end = min(end, len(track.tool))
    assert np.abs(np.diff(track.sent[first:end], axis=0)).max() == 0
    assert np.linalg.norm(track.tool[end - 1] - track.tool[first + 2]) < 0.01
    wanderer = Wandering(LiftExpert())
    _, track = play(wanderer, 221)
    ((first, end),) = wanderer.spans
    assert 20 <= end - first < 45
    travelled = np.linalg.norm(np.diff(track.tool[first:end], axis=0), axis=1).sum()
    assert travelled > 0.08
