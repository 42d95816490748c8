"""An ensemble of small networks trained side by side, each on its own share of the rows."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class EnsembleConfig:
    """Size and training of an `Ensemble`."""

    width: int = 96
    steps: int = 500
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 1.0  # of decoupled decay: few demonstrations, and what counts is how far one is from them


class Ensemble(nn.Module):
    """Members of one shape: two hidden layers each, all computed at once.

    Args:
        members: M.
        inputs: F.
        outputs: O.
        width: of the hidden layers.
        generator: draws the first weights.
    """

    def __init__(self, members: int, inputs: int, outputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [inputs, width, width, outputs]

        def draw(a: int, b: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(members, a, b, generator=generator) * 2 - 1) / math.sqrt(a))

        self.weights = nn.ParameterList(draw(a, b) for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, b)) for b in sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, F), or (M, N, F) with rows of their own, to each member's answer (M, N, O)."""
        hidden = x if x.ndim == 3 else x.expand(len(self.biases[0]), *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if i < len(self.weights) - 1:
                hidden = nn.functional.silu(hidden)
        return hidden


def fit_ensemble(x: Tensor, y: Tensor, seen: Tensor, config: EnsembleConfig, generator: torch.Generator) -> Ensemble:
    """Train every member on the rows it may see.

    Args:
        x: (N, F).
        y: (N, O).
        seen: (M, N) bool, which rows each member learns from; at least one each.
        config: size and training.
        generator: draws weights and batches.
    """
    net = Ensemble(len(seen), x.shape[1], y.shape[1], config.width, generator)
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    own = [torch.nonzero(rows)[:, 0] for rows in seen]
    for _ in range(config.steps):
        rows = torch.stack([r[torch.randint(len(r), (config.batch,), generator=generator)] for r in own])  # (M, B)
        loss = nn.functional.huber_loss(net(x[rows]), y[rows], delta=2.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)
