"""Contract tests for what thinks: policies, agents, scores and monitors; `robopolicy.testing` re-exports them."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robopolicy.interfaces import Agent, Monitor, Policy, Score
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Decision, Observation, Plan, Verdict


def random_observation(spec: PolicySpec, rng: np.random.Generator, stamp_ns: int = 0) -> Observation:
    """Return an observation of the right shapes, states standard normal and images uniform noise."""
    return Observation(
        stamp_ns=stamp_ns,
        state={name: rng.standard_normal(stream.dim).astype(np.float32) for name, stream in spec.state.items()},
        images={
            name: rng.integers(0, 256, camera.shape, dtype=np.dtype(camera.dtype))
            for name, camera in spec.cameras.items()
        },
        image_stamps_ns=dict.fromkeys(spec.cameras, stamp_ns),
    )


class PolicyContract:
    """A policy plans chunks of its spec's shape, reproducibly, from one window."""

    def make(self) -> Policy:
        """Return a policy ready to plan."""
        raise NotImplementedError

    def generator(self, seed: int) -> Any:
        """Return the random generator that ``plan`` takes."""
        return np.random.default_rng(seed)

    def window(self, policy: Policy, seed: int = 0) -> Sequence[Observation]:
        """Return ``n_obs`` observations of the right shapes; override where random ones make no sense."""
        rng = np.random.default_rng(seed)
        return [
            random_observation(policy.spec, rng, stamp_ns=i * policy.spec.period_ns) for i in range(policy.spec.n_obs)
        ]

    def plan(self, policy: Policy, n: int, seed: int = 0) -> Plan:
        """Plan ``n`` candidates from a fixed window."""
        policy.reset()
        return policy.plan(self.window(policy), n=n, generator=self.generator(seed))

    def test_is_a_policy(self) -> None:
        assert isinstance(self.make(), Policy)

    @pytest.mark.parametrize("n", [1, 3])
    def test_plan_has_the_shape_of_the_spec(self, n: int) -> None:
        policy = self.make()
        plan = self.plan(policy, n)
        assert plan.chunks.shape == (n, policy.spec.horizon, policy.spec.action.dim)
        assert plan.chunks.dtype == np.float32
        assert np.isfinite(plan.chunks).all()
        assert plan.features.ndim == 1
        assert plan.features.dtype == np.float32

    def test_same_seed_same_plan(self) -> None:
        policy = self.make()
        np.testing.assert_array_equal(self.plan(policy, 2, seed=5).chunks, self.plan(policy, 2, seed=5).chunks)

    def test_plan_takes_what_it_may_ignore(self) -> None:
        policy = self.make()
        previous = np.zeros((policy.spec.horizon, policy.spec.action.dim), np.float32)
        plan = policy.plan(
            self.window(policy), n=1, previous=previous, delay_steps=0, executed=previous[:1],
            generator=self.generator(0),
        )  # fmt: skip
        assert plan.chunks.shape[0] == 1


class AgentContract:
    """An agent answers every observation with a command of the right length."""

    def make(self) -> tuple[Agent, PolicySpec]:
        """Return an agent and the spec of the robot it drives."""
        raise NotImplementedError

    def test_acts(self) -> None:
        agent, spec = self.make()
        assert isinstance(agent, Agent)
        agent.reset(0)
        rng = np.random.default_rng(0)
        for k in range(5):
            command = agent.act(random_observation(spec, rng, stamp_ns=k * spec.period_ns))
            assert isinstance(command, Command)
            assert command.values is None or command.values.shape == (spec.action.dim,)
            assert command.values is not None or command.source == "hold"


class ScoreContract:
    """A score is finite, causal, forgets at reset, survives its arrays, and leaves out whole episodes.

    ``memorises`` says that it knows the decisions it was fitted on again; that is then tested to be made good.
    """

    memorises = False
    embedding = 8  # E
    margin = 0.2  # what is unknown scores so much more than what is familiar, as a share of that

    def make(self) -> Score:
        """Return an unfitted score."""
        raise NotImplementedError

    def fit(self, score: Score, episodes: Sequence[Sequence[Decision]]) -> Score:
        """Fit and return it; override where it needs more than successful episodes."""
        score.fit(episodes)
        return score

    def episodes(self, n: int = 6, length: int = 5, seed: int = 0) -> list[list[Decision]]:
        """Return ``n`` random episodes of decisions; each sees a corner of the world of its own."""
        rng = np.random.default_rng(seed)
        return [
            [
                Decision(
                    t,
                    t,
                    (corner + rng.standard_normal(self.embedding)).astype(np.float32),
                    rng.standard_normal((4, 8, 3)).astype(np.float32),
                    4,
                )
                for t in range(length)
            ]
            for corner in 4.0 * rng.standard_normal((n, self.embedding))
        ]

    def run(self, score: Score, episode: Sequence[Decision]) -> list[float]:
        """Reset and score one episode."""
        score.reset()
        return [score.update(decision) for decision in episode]

    def test_is_a_score(self) -> None:
        assert isinstance(self.make(), Score)

    def test_scores_are_finite_and_forget_at_reset(self) -> None:
        score = self.fit(self.make(), self.episodes())
        fresh = self.episodes(1, seed=1)[0]
        first = self.run(score, fresh)
        assert np.isfinite(first).all()
        assert self.run(score, fresh) == first
        assert self.run(score, fresh[:3]) == first[:3]  # causal

    def test_held_out_has_one_score_a_decision(self) -> None:
        episodes = self.episodes()
        held = self.fit(self.make(), episodes).held_out(episodes)
        assert [len(scores) for scores in held] == [len(episode) for episode in episodes]
        assert np.isfinite(np.concatenate(held)).all()

    def test_same_episodes_same_score(self) -> None:
        episodes, fresh = self.episodes(), self.episodes(1, seed=1)[0]
        one, other = (self.fit(self.make(), episodes) for _ in range(2))
        assert self.run(one, fresh) == self.run(other, fresh)
        np.testing.assert_array_equal(
            np.concatenate(one.held_out(episodes)), np.concatenate(other.held_out(episodes))
        )  # fmt: skip

    def test_survives_its_arrays(self) -> None:
        episodes, fresh = self.episodes(), self.episodes(1, seed=1)[0]
        score = self.fit(self.make(), episodes)
        archive = io.BytesIO()
        np.savez(archive, **{name: np.array(a, order="C") for name, a in score.arrays().items()})  # as a file holds it
        archive.seek(0)
        with np.load(archive, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        assert all(array.dtype.kind in "biuf" for array in arrays.values()), "numbers only: no text, no objects"
        again: Score = type(score).from_arrays(arrays)  # type: ignore[attr-defined]
        assert self.run(again, fresh) == self.run(score, fresh)
        np.testing.assert_array_equal(
            np.concatenate(again.held_out(episodes)), np.concatenate(score.held_out(episodes))
        )  # fmt: skip

    def test_held_out_is_not_what_was_learnt_by_heart(self) -> None:
        if not self.memorises:
            pytest.skip("it does not know its episodes again")
        episodes = self.episodes(4)
        score = self.fit(self.make(), episodes)
        inside = np.mean([self.run(score, episode) for episode in episodes])
        held = np.mean(score.held_out(episodes))
        assert held > inside + self.margin * abs(inside), "its own decisions made it look familiar"

    def test_whole_episodes_are_left_out(self) -> None:
        """A decision seen twice in its own episode stays unknown, one seen in another episode becomes familiar."""
        if not self.memorises:
            pytest.skip("it does not know its episodes again")
        first, second, *others = self.episodes(4)
        alone = [[*first, *_later(first)], second, *others]
        twin = [first, [*second, *_later(first)], *others]
        unknown, familiar = (
            np.mean(self.fit(self.make(), episodes).held_out(episodes)[0][: len(first)]) for episodes in (alone, twin)
        )
        assert unknown > familiar + self.margin * abs(familiar), "copies in its own episode made it look familiar"


def _later(episode: Sequence[Decision]) -> list[Decision]:
    """Return the decisions again, as the same episode would go on with them."""
    return [replace(decision, index=decision.index + len(episode)) for decision in episode]


class MonitorContract:
    """A monitor answers each decision with a verdict and re-arms at reset."""

    def make(self) -> tuple[Monitor, Sequence[Decision]]:
        """Return a monitor and one episode it understands."""
        raise NotImplementedError

    def test_same_episode_same_verdicts(self) -> None:
        monitor, episode = self.make()
        assert isinstance(monitor, Monitor)
        runs = []
        for _ in range(2):
            monitor.reset()
            verdicts = [monitor.step(decision) for decision in episode]
            assert all(isinstance(verdict, Verdict) and verdict.reason for verdict in verdicts)
            runs.append([(verdict.statistic, verdict.state) for verdict in verdicts])
        assert runs[0] == runs[1]
