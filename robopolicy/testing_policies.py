"""Contract tests for what thinks: policies, agents, scores and monitors; `robopolicy.testing` re-exports them."""

from collections.abc import Sequence
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
    """A score is finite, causal, forgets at reset, and scores held-out episodes like fresh ones."""

    def make(self) -> Score:
        """Return an unfitted score."""
        raise NotImplementedError

    def episodes(self, n: int = 6, length: int = 5, seed: int = 0) -> list[list[Decision]]:
        """Return ``n`` random episodes of decisions."""
        rng = np.random.default_rng(seed)
        return [
            [
                Decision(
                    t,
                    t,
                    rng.standard_normal(8).astype(np.float32),
                    rng.standard_normal((4, 8, 3)).astype(np.float32),
                    4,
                )
                for t in range(length)
            ]
            for _ in range(n)
        ]

    def run(self, score: Score, episode: Sequence[Decision]) -> list[float]:
        """Reset and score one episode."""
        score.reset()
        return [score.update(decision) for decision in episode]

    def test_is_a_score(self) -> None:
        assert isinstance(self.make(), Score)

    def test_scores_are_finite_and_forget_at_reset(self) -> None:
        score = self.make()
        score.fit(self.episodes())
        fresh = self.episodes(1, seed=1)[0]
        first = self.run(score, fresh)
        assert np.isfinite(first).all()
        assert self.run(score, fresh) == first
        assert self.run(score, fresh[:3]) == first[:3]  # causal

    def test_held_out_has_one_score_a_decision(self) -> None:
        score = self.make()
        episodes = self.episodes()
        score.fit(episodes)
        held = score.held_out(episodes)
        assert [len(scores) for scores in held] == [len(episode) for episode in episodes]
        assert np.isfinite(np.concatenate(held)).all()


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
