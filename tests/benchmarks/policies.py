"""A small policy from chosen episodes, tried on fixed starts: what the benchmarks of data quality compare."""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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


def compare_trainings(name: str, a: np.ndarray, b: np.ndarray) -> str:
    """Return success of ``a`` against ``b``, both (trainings, S) on the same S starts.

    The interval is of a bootstrap over starts and over each side's trainings; p of a sign-flip test over starts, the
    trainings of one start kept together.
    """
    rng = np.random.default_rng(0)
    per_start = a.mean(axis=0) - b.mean(axis=0)  # (S,)
    means = np.empty(10_000)
    for i in range(len(means)):
        starts = rng.integers(a.shape[1], size=a.shape[1])
        of_a, of_b = rng.integers(len(a), size=len(a)), rng.integers(len(b), size=len(b))
        means[i] = a[of_a][:, starts].mean() - b[of_b][:, starts].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    flipped = rng.choice([-1.0, 1.0], size=(100_000, len(per_start))) @ per_start
    p = (1 + int((np.abs(flipped) >= abs(per_start.sum()) - 1e-9).sum())) / (1 + len(flipped))
    return f"{name}: {per_start.mean():+.0%} [{low:+.0%}, {high:+.0%}] (bootstrap), sign-flip p {p:.2g}"


def arm(
    label: str,
    data: Path,
    out: Path,
    seeds: Sequence[int],
    *,
    steps: int,
    trainings: int = 1,
    jobs: int = 1,
    **chosen: object,
) -> np.ndarray:
    """Train and try out, ``jobs`` trainings at once; print a line; return the successes, all trainings' in a row."""
    begin_s = time.perf_counter()
    folders = [out / f"{label}-{seed}".replace(" ", "-") for seed in range(trainings)]
    one = partial(_train_and_try, data, seeds, steps, chosen)
    if jobs == 1:
        won = [one(folder, seed) for seed, folder in enumerate(folders)]
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            won = list(pool.map(one, folders, range(trainings)))
    all_won = np.concatenate(won)
    rate = success_rate(int(all_won.sum()), len(all_won))
    each = ", ".join(f"{w.mean():.0%}" for w in won)
    print(f"  {label:28} {rate}  (each {each}; {time.perf_counter() - begin_s:.0f} s)", flush=True)
    return all_won


def _train_and_try(
    data: Path, seeds: Sequence[int], steps: int, chosen: dict[str, Any], folder: Path, seed: int
) -> np.ndarray:
    return successes(train_policy(data, folder, steps=steps, seed=seed, **chosen), seeds)
