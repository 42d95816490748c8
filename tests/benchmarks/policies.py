"""A small policy from chosen episodes, tried on fixed starts: what the benchmarks of data quality compare."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from demonstrations import STATES, try_out

from robopolicy.agents import Chunked
from robopolicy.evaluation.statistics import success_rate
from robopolicy.policies.config import preset
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.trainer import TrainConfig, train
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import WindowSampler, load_arrays


def train_policy(
    data: Path,
    out: Path,
    *,
    steps: int,
    seed: int = 0,
    episodes: Sequence[int] | None = None,
    skip: np.ndarray | None = None,
) -> DiffusionPolicy:
    """Train the mlp preset on the given episodes (positions; None is all) for ``steps`` gradient steps.

    Args:
        data: dataset.
        out: folder of the checkpoint.
        steps: the budget.
        seed: of weights and batches.
        episodes: positions in the dataset.
        skip: (N,) bool over the rows of those episodes: no window is cut from them.
    """
    dataset = Dataset(data)
    spec = replace(dataset.spec.select(cameras=(), state=STATES), n_obs=2, horizon=16, n_execute=8)
    arrays = load_arrays(dataset, cameras=(), states=STATES, episodes=episodes)
    torch.manual_seed(seed)
    policy = DiffusionPolicy(spec, preset("mlp"))
    config = TrainConfig(steps=steps, seed=seed, num_threads=1, save_every_s=1e9)
    return train(policy, WindowSampler(arrays, 2, 16, n_execute=8, skip=None if skip is None else [skip]), out, config)


def successes(policy: DiffusionPolicy, seeds: Sequence[int]) -> np.ndarray:
    """Return which of the episodes started from ``seeds`` the policy brings to success, (S,) bool."""

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    torch.set_num_threads(1)
    return np.array(try_out(Chunked(policy.eval(), generator=generator), seeds))


def compare(name: str, a: np.ndarray, b: np.ndarray) -> str:
    """Return success of ``a`` against ``b`` on the same starts (S,), with McNemar's exact p-value."""
    from scipy.stats import binomtest

    better, worse = int((a & ~b).sum()), int((~a & b).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    rng = np.random.default_rng(0)
    means = (a.astype(float) - b)[rng.integers(len(a), size=(10_000, len(a)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return (
        f"{name}: {a.mean() - b.mean():+.0%} [{low:+.0%}, {high:+.0%}] (paired bootstrap), "
        f"better on {better}, worse on {worse} starts, exact McNemar p {p:.2g}"
    )


def arm(
    label: str, data: Path, out: Path, seeds: Sequence[int], *, steps: int, trainings: int = 1, **chosen: object
) -> np.ndarray:
    """Train and try out; print a line; return the successes of all trainings one after the other."""
    begin_s = time.process_time()
    won = [
        successes(
            train_policy(data, out / f"{label}-{seed}".replace(" ", "-"), steps=steps, seed=seed, **chosen), seeds
        )
        for seed in range(trainings)
    ]
    all_won = np.concatenate(won)
    rate = success_rate(int(all_won.sum()), len(all_won))
    print(f"  {label:28} {rate}  ({time.process_time() - begin_s:.0f} CPU s)", flush=True)
    return all_won
