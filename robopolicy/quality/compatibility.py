"""Whether a new demonstration fits a base policy: likelihood and novelty, step by step (Gandhi et al., CoRL 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch

from robopolicy.errors import ContractError
from robopolicy.quality.ensemble import Ensemble, EnsembleConfig, fit_ensemble
from robopolicy.quality.features import Features
from robopolicy.quality.threads import one_thread
from robopolicy.spec import PolicySpec

PARTS = 5  # of the base episodes; each member leaves out two of them, so each part is unknown to four members
FEWEST = 10  # base episodes below which no threshold can be told
UNBIASED = {4: 0.9213, 10: 0.9727}  # c4(n): the standard deviation of n normal numbers comes out so much too small
FAMILIAR = 0.1  # of a demonstration: with fewer familiar steps than this nothing speaks against it
LARGEST = 25.0  # squared error of one action element that counts at most, in its variance


@dataclass(frozen=True)
class Judged:
    """A demonstration under a base policy, step by step."""

    error: np.ndarray  # (T,) float64: mean squared error of the members' actions; larger is less likely
    novelty: np.ndarray  # (T,) float64: standard deviation between the members
    compatibility: np.ndarray  # (T,) float64, 0 to 1; 1 where the state is new
    new: np.ndarray  # (T,) bool: the members do not know the state

    @property
    def score(self) -> float:
        """The demonstration's compatibility, 0 to 1: the mean over its familiar steps, or 1 if it has hardly any.

        The paper averages over all steps; then a demonstration that leaves the known ground by an unlikely action
        outweighs that with all the new steps that follow.
        """
        return mean_of_familiar(self.compatibility, self.new)


@dataclass(frozen=True)
class Rule:
    """When a step is compatible: equation of section 4.1 of the paper, with thresholds from held-out base episodes.

    ``M(s, a) = 1 - min(E_k[(pi_k(s) - a)^2] / lambda, 1)`` where ``std_k[pi_k(s)] < eta``, and 1 elsewhere: new states
    are welcome whatever is done there, familiar ones only with familiar actions.
    """

    error: float  # lambda
    novelty: float  # eta
    score: float  # a demonstration below this does not fit

    def apply(self, error: np.ndarray, novelty: np.ndarray) -> np.ndarray:
        """Return the compatibility (T,) of steps with these errors and novelties (T,)."""
        return np.where(novelty < self.novelty, 1 - np.minimum(error / self.error, 1.0), 1.0)

    def judge(self, error: np.ndarray, novelty: np.ndarray) -> Judged:
        """Return all that is to say of steps with these errors and novelties (T,)."""
        return Judged(error, novelty, self.apply(error, novelty), novelty >= self.novelty)


@dataclass(frozen=True)
class CompatibilityConfig:
    """How a base policy is made."""

    horizon: int = 8  # actions that are compared at each step: single ones are mostly noise
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    familiar: float = 0.95  # of the held-out base steps are less novel than eta
    likely: float = 0.95  # and have a smaller error than lambda
    false_alarm: float = 0.05  # of the held-out base demonstrations would not fit themselves


class BasePolicy:
    """An ensemble that learnt the base demonstrations, and the rule by which others are judged.

    Each of ten members leaves out two fifths of the base episodes, so every base episode is judged by the four that
    never saw it: that is where the thresholds come from, and `held_out` returns it.

    Args:
        arrays: the base demonstrations: state {name: (N, D)}, action (N, A), episode_ends (E,).
        spec: which states to look at, and the action.
        config: sizes and quantiles.
        seed: of weights, batches and folds.

    Raises:
        ContractError: if there are fewer than `FEWEST` episodes, or nothing ever happens in them.
    """

    @one_thread()
    def __init__(
        self, arrays: Any, spec: PolicySpec, config: CompatibilityConfig | None = None, *, seed: int = 0
    ) -> None:
        self.spec, self.config = spec, config or CompatibilityConfig()
        ends = np.asarray(arrays.episode_ends)
        if len(ends) < FEWEST:
            raise ContractError(f"compatibility: {len(ends)} base demonstrations; want at least {FEWEST}")
        self.features = Features(spec, self.config.horizon)
        self.features.fit(arrays)
        x = self.features.state(arrays.state)
        y = self.features.action(x, arrays.action, ends)
        generator = torch.Generator().manual_seed(seed)
        self._left_out, seen = _shares(ends, np.random.default_rng(seed))
        self._net = fit_ensemble(x, y, torch.from_numpy(seen), self.config.ensemble, generator)
        self._held_out_numbers = self._held_out(x, y, ends)
        self.rule = _calibrate(self._held_out_numbers, self.config)

    @property
    def held_out(self) -> list[Judged]:
        """Each base demonstration as members judge it that never saw it."""
        return [self.rule.judge(e, n) for e, n in self._held_out_numbers]

    def judge(self, state: dict[str, np.ndarray], action: np.ndarray) -> Judged:
        """Judge one demonstration.

        Args:
            state: {name: (T, D)}.
            action: (T, A).
        """
        x = self.features.state(state)
        y = self.features.action(x, action, np.array([len(action)]))
        return self.rule.judge(*_measure(self._net, x, y, slice(None)))

    def judge_step(self, state: dict[str, np.ndarray], actions: np.ndarray) -> tuple[float, float]:
        """Return compatibility and novelty of one step.

        Args:
            state: {name: (1, D)}.
            actions: (horizon, A), those that were sent from this step on.
        """
        x = self.features.state(state)
        y = self.features.residual(x, torch.as_tensor(np.asarray(actions, np.float32)).flatten()[None])
        error, novelty = _measure(self._net, x, y, slice(None))
        return float(self.rule.apply(error, novelty)[0]), float(novelty[0])

    def fits(self, judged: Judged) -> bool:
        """Whether a demonstration is compatible with the base."""
        return judged.score >= self.rule.score

    def _held_out(self, x: torch.Tensor, y: torch.Tensor, ends: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        starts = np.concatenate([[0], ends[:-1]])
        found = []
        for i, (a, b) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            members = np.flatnonzero(self._left_out[:, i])
            found.append(_measure(self._net, x[a:b], y[a:b], members))
        return found


def judge_all(policy: BasePolicy, arrays: Any, episodes: Sequence[int] | None = None) -> list[Judged]:
    """Judge the episodes (positions; None is all) of ``arrays``, as `BasePolicy` takes them."""
    ends = np.asarray(arrays.episode_ends)
    starts = np.concatenate([[0], ends[:-1]])
    chosen = range(len(ends)) if episodes is None else episodes
    return [
        policy.judge({k: v[starts[i] : ends[i]] for k, v in arrays.state.items()}, arrays.action[starts[i] : ends[i]])
        for i in chosen
    ]


def mean_of_familiar(compatibility: np.ndarray, new: np.ndarray) -> float:
    """Return the mean of (T,) where ``new`` (T,) is False, or 1 if that is less than `FAMILIAR` of the steps."""
    known = ~np.asarray(new, bool)
    return float(np.asarray(compatibility)[known].mean()) if known.mean() >= FAMILIAR else 1.0


@torch.no_grad()
def _measure(net: Ensemble, x: torch.Tensor, y: torch.Tensor, members: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return error and novelty (T,) of the steps x (T, F), y (T, O) under some of the members."""
    answers = net(x)[members]  # (M, T, O)
    error = (answers - y).square().clamp(max=LARGEST).mean(dim=(0, 2))
    novelty = (answers.std(dim=0) / UNBIASED[len(answers)]).mean(dim=1)
    return error.double().numpy(), novelty.double().numpy()


def _shares(ends: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return which episodes (M, E) each member leaves out and which rows (M, N) it sees."""
    part = rng.permutation(len(ends)) % PARTS
    left_out = np.array([(part == a) | (part == b) for a, b in combinations(range(PARTS), 2)])
    seen = ~np.repeat(left_out, np.diff(ends, prepend=0), axis=1)
    return left_out, seen


def _calibrate(held_out: list[tuple[np.ndarray, np.ndarray]], config: CompatibilityConfig) -> Rule:
    error, novelty = (np.concatenate(parts) for parts in zip(*held_out, strict=True))
    eta = float(np.quantile(novelty, config.familiar))
    known = error[novelty < eta]
    if not len(known):
        raise ContractError(
            "compatibility: the base demonstrations are all the same step; nothing can be told from them"
        )
    limit = float(np.quantile(known, config.likely))
    rule = Rule(limit, eta, 0.0)
    scores = [rule.judge(e, n).score for e, n in held_out]
    return Rule(limit, eta, float(np.quantile(scores, config.false_alarm)))
