"""Action-conditioned embeddings of steps, learnt without labels by aligning demonstrations with each other.

Temporal cycle-consistency (Dwibedi et al., CVPR 2019) conditioned on actions (Zheng et al., "Extraneousness-aware
imitation learning", ICRA 2023): what is seen and what is done there are embedded together, so that the same place on
the way to something else lies elsewhere.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError


@dataclass(frozen=True)
class EmbeddingConfig:
    """Size and training of an `Embedding`."""

    dim: int = 32
    width: int = 128
    steps_each: int = 10  # gradient steps a demonstration
    steps_range: tuple[int, int] = (200, 2000)  # in all: few demonstrations are soon learnt by heart
    pairs: int = 8  # of demonstrations, a batch
    frames: int = 32  # drawn of each
    lr: float = 1e-3
    temperature: float = 0.1
    variance_weight: float = 1e-3  # lambda of the regression loss
    noise: float = 0.3  # added to what is seen, in its spread


class Embedding(nn.Module):
    """Seen (N, F) and done (N, O), each through a layer of its own, joined into unit vectors (N, dim)."""

    def __init__(self, seen_dim: int, done_dim: int, config: EmbeddingConfig) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Linear(seen_dim, config.width), nn.ReLU(), nn.Linear(config.width, config.width))
        self.done = nn.Linear(done_dim, config.width)
        self.join = nn.Sequential(nn.ReLU(), nn.Linear(2 * config.width, config.dim))

    def forward(self, seen: Tensor, done: Tensor) -> Tensor:
        """Return (..., dim) of length 1."""
        joined = self.join(torch.cat([self.seen(seen), self.done(done)], dim=-1))
        return nn.functional.normalize(joined, dim=-1)


def cycle_loss(u: Tensor, v: Tensor, temperature: float, variance_weight: float) -> Tensor:
    """Return the cycle-back regression loss of two embedded sequences u (B, n, D) and v (B, m, D).

    Dwibedi et al. 2019, section 3.3: the soft nearest neighbour of u_i in v, ``v~ = sum_j a_j v_j`` with
    ``a = softmax(-|u_i - v_j|^2)``, is sought in u, ``b = softmax(-|v~ - u_k|^2)``; the position found,
    ``mu = sum_k b_k k`` with variance ``s^2``, should be i: ``|i - mu|^2 / s^2 + lambda log s``.
    """
    there = torch.softmax(-torch.cdist(u, v).square() / temperature, dim=-1)  # (B, n, m)
    back = torch.softmax(-torch.cdist(there @ v, u).square() / temperature, dim=-1)  # (B, n, n)
    place = torch.linspace(0, 1, u.shape[1], device=u.device)
    mean = back @ place  # (B, n)
    variance = (back * (place - mean[..., None]).square()).sum(-1) + 1e-4
    return ((place - mean).square() / variance + variance_weight * 0.5 * variance.log()).mean()


def fit_embedding(
    seen: Tensor, done: Tensor, episode_ends: np.ndarray, config: EmbeddingConfig, *, seed: int = 0
) -> Tensor:
    """Learn an embedding of all steps and return it, (N, dim).

    Args:
        seen: (N, F) what was observed, of variance 1.
        done: (N, O) what was done there, of variance 1.
        episode_ends: (E,) one past each episode's last row.
        config: size and training.
        seed: of weights and batches.

    Raises:
        ContractError: if there are fewer than two episodes.
    """
    ends = np.asarray(episode_ends)
    if len(ends) < 2:
        raise ContractError(f"extraneousness: {len(ends)} demonstration; alignment takes at least 2")
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = Embedding(seen.shape[1], done.shape[1], config)
        noise = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(net.parameters(), config.lr, weight_decay=1e-4)
        steps = int(np.clip(config.steps_each * len(ends), *config.steps_range))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.from_numpy(_draw(ends, config.pairs, config.frames, rng))  # (2, B, n)
            looked = seen[rows] + config.noise * torch.randn((*rows.shape, seen.shape[1]), generator=noise)
            u, v = net(looked, done[rows])
            loss = cycle_loss(u, v, config.temperature, config.variance_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        embedded: Tensor = net(seen, done)
        return embedded


def _draw(ends: np.ndarray, pairs: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return sorted random rows (2, pairs, frames) of random pairs of different episodes."""
    starts = np.concatenate([[0], ends[:-1]])
    first = rng.integers(len(ends), size=pairs)
    second = (first + rng.integers(1, len(ends), size=pairs)) % len(ends)
    chosen = np.stack([first, second])  # (2, pairs)
    part = np.sort(rng.random((2, pairs, frames)), axis=-1)
    rows: np.ndarray = starts[chosen][..., None] + part * (ends - starts)[chosen][..., None]
    return rows.astype(np.int64)
