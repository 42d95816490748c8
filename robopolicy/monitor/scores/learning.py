"""What scores with a network share: the schedule, validation by whole episodes, the best weights, plain arrays."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import MonitorError

VALIDATION = 0.1  # share of the episodes, at least one, that tells when to stop


@dataclass(frozen=True)
class Schedule:
    """How a network is trained; the numbers are those of FIPER's RND (Roemer et al. 2025, published configuration).

    Raises:
        MonitorError: if an entry makes no sense.
    """

    epochs: int = 250  # at most; the learning rate falls to ``last_lr`` over all of them, as a cosine
    lr: float = 1e-4
    last_lr: float = 1e-6
    weight_decay: float = 1e-5
    batch: int = 256  # decisions, or all there are
    patience: int = 7  # epochs without a better validation before it ends
    overfit: float = 5.0  # it also ends when validation is so many times the training loss,
    overfit_from: int = 20  # from this epoch on

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.patience) < 1 or not self.lr > 0:
            raise MonitorError(f"{self}: epochs, batch and patience are 1 or more, lr is above 0")


def split(owner: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and those to validate on, which are whole episodes.

    Decisions of one episode are alike: a network is validated on none whose neighbours it saw. Of a single episode
    nothing is left for validation.

    Args:
        owner: (M,) episode of each row.
        rng: that draws the episodes.
    """
    numbers = np.unique(owner)
    if len(numbers) < 2:
        return np.arange(len(owner)), np.empty(0, np.int64)
    chosen = rng.choice(numbers, size=max(1, round(VALIDATION * len(numbers))), replace=False)
    validation = np.isin(owner, chosen)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def train(
    net: nn.Module,
    loss: Callable[[Tensor], Tensor],
    check: Callable[[Tensor], Tensor],
    owner: np.ndarray,
    schedule: Schedule,
    seed: int,
) -> None:
    """Train ``net`` by AdamW; in the end it has the weights that validated best.

    Args:
        net: trained in place.
        loss: of rows (B,) int64, its mean; what the gradient is of.
        check: of rows, its mean; must draw nothing, so that epochs compare. Where there is one episode only, it is
            asked for the rows that were trained on.
        owner: (M,) episode of each row.
        schedule: how long and how fast.
        seed: of order and validation episodes.

    Raises:
        MonitorError: if the loss is not finite from the first epoch on.
    """
    generator = torch.Generator().manual_seed(seed)
    learnt, held = (torch.from_numpy(rows) for rows in split(owner, np.random.default_rng(seed)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.lr, eps=1e-8, weight_decay=schedule.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.epochs, eta_min=schedule.last_lr)
    best, best_weights, since = float("inf"), None, 0
    for epoch in range(schedule.epochs):
        net.train()
        total = 0.0
        for rows in learnt[torch.randperm(len(learnt), generator=generator)].split(schedule.batch):
            optimiser.zero_grad(set_to_none=True)
            mean = loss(rows)
            mean.backward()
            optimiser.step()
            total += float(mean.detach()) * len(rows)
        cosine.step()
        net.eval()
        with torch.inference_mode():
            value = float(check(held if len(held) else learnt))
        since += 1
        if value < best:
            best, best_weights, since = value, deepcopy(net.state_dict()), 0
        overfit = len(held) > 0 and epoch + 1 >= schedule.overfit_from
        if since >= schedule.patience or (overfit and value > schedule.overfit * total / len(learnt)):
            break
    if best_weights is None:
        raise MonitorError("a network learns nothing from these embeddings: its loss is not finite")
    net.load_state_dict(best_weights)


def linear(inside: int, outside: int, fill: Callable[[Tensor], Any]) -> nn.Linear:
    """Return a layer whose weights ``fill`` draws and whose bias is 0; torch's global generator is left alone."""
    layer = torch.nn.utils.skip_init(nn.Linear, inside, outside)
    fill(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def weight_arrays(net: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Return the weights as float32 arrays ``prefix.name``, copies."""
    return {f"{prefix}.{name}": value.detach().numpy().copy() for name, value in net.state_dict().items()}


def load_weights(net: nn.Module, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Put back what ``weight_arrays`` gave; the network is one that only judges from then on.

    Raises:
        MonitorError: if they are not this network's.
    """
    start = prefix + "."
    weights = {
        name.removeprefix(start): torch.from_numpy(np.array(a)) for name, a in arrays.items() if name.startswith(start)
    }
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise MonitorError(f"weights {prefix!r} are not those of this score: {error}") from error
    net.eval()
