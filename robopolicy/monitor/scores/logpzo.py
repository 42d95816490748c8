"""logpZO: how much of what the policy sees a flow from successful embeddings to noise leaves over."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import folds, packed, require_fitted, require_folds, scored_by_folds, unpacked
from robopolicy.monitor.scores.learning import Schedule, linear, load_weights, train, weight_arrays
from robopolicy.monitor.scores.standard import Standard
from robopolicy.types import Decision

WAVES = 4  # frequencies that the time is told in


class LogpZO:
    """s(o) = |o + v(o, 0)|^2, v the velocity of a flow from the embeddings of successful episodes to white noise.

    One step of that flow takes a familiar embedding to where noise is likely, and a strange one far out (Xu et al.
    2025, FAIL-Detect). The flow is learnt by matching x_t = (1 - t) o + t e, v* = e - o. Embeddings are standardised,
    elements that never moved dropped; the network is a residual MLP, validated on whole episodes.

    Args:
        layout: not looked at.
        seed: of the network, its noise, the order of the decisions, the validation episodes and the folds.
        small: a narrow network that seconds on a CPU suffice for, at most 20 epochs.
        width: of the residual stream; None takes that of the size, 512, or 128 where small.
        depth: residual blocks; None takes that of the size, 4, or 2 where small.
        folds: parts that ``held_out`` leaves out in turn; a network is trained for each.
        schedule: entries of `Schedule`, such as ``epochs``.

    Raises:
        MonitorError: if a setting makes no sense.
    """

    name = "logpzo"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self,
        *,
        layout: ActionLayout | None = None,
        seed: int = 0,
        small: bool = False,
        width: int | None = None,
        depth: int | None = None,
        folds: int = 5,
        **schedule: Any,
    ) -> None:
        self._width = width if width is not None else (128 if small else 512)
        self._depth = depth if depth is not None else (2 if small else 4)
        if self._width < 1 or self._depth < 0:
            raise MonitorError(f"score logpzo: width {self._width}, depth {self._depth}; want 1 and 0 or more")
        self._schedule = Schedule(**({"epochs": 20, "lr": 2e-3} if small else {"lr": 5e-4}) | schedule)
        self._seed, self._folds = seed, require_folds(self.name, folds)

    def fit(self, episodes: Episodes) -> None:
        """Learn the flow of the embeddings (E,) of successful episodes; a tenth of these tells when to stop.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = embeddings(episodes)
        self._standard, self._n = Standard.of(x), len(episodes)
        self._net = self._learnt(x, owners(episodes))

    def update(self, decision: Decision) -> float:
        """Return the squared length of what one step of the flow makes of this decision's embedding."""
        return float(self._left_over(self._net, decision.embedding[None])[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,) by a flow that never saw it.

        The episodes are left out in ``folds`` parts (one by one where there are no more), a flow is learnt without
        each; the scaling is kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)

        def refit(x: np.ndarray, owner: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            net = self._learnt(x, owner)
            return lambda left_out: self._left_over(net, left_out)

        return scored_by_folds(episodes, folds(self._n, self._folds, self._seed), refit)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the network's weights (float32), the scaling and the settings."""
        settings = {
            "seed": self._seed, "width": self._width, "depth": self._depth, "folds": self._folds,
            **asdict(self._schedule),
        }  # fmt: skip
        return {
            **weight_arrays(self._net, "net"),
            **self._standard.arrays(),
            "episodes": np.array(self._n),
            "settings": packed(settings),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LogpZO":
        """Rebuild what ``arrays`` gave."""
        score = cls(**unpacked(arrays["settings"]))
        score._standard, score._n = Standard.from_arrays(arrays), int(arrays["episodes"])
        score._net = score._new_net()
        load_weights(score._net, "net", arrays)
        return score

    def _new_net(self) -> "Velocity":
        generator = torch.Generator().manual_seed(self._seed)
        return Velocity(len(self._standard.mean), self._width, self._depth, generator)

    def _learnt(self, x: np.ndarray, owner: np.ndarray) -> "Velocity":
        net, o = self._new_net(), self._inputs_of(x)
        generator = torch.Generator().manual_seed(self._seed + 1)
        check_t = torch.rand(len(o), 1, generator=generator)
        check_noise = torch.randn(o.shape, generator=generator)

        def miss(rows: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            velocity = net((1 - t) * o[rows] + t * noise, t)
            return (velocity - (noise - o[rows])).square().mean()

        def loss(rows: Tensor) -> Tensor:
            t = torch.rand(len(rows), 1, generator=generator)
            return miss(rows, t, torch.randn(len(rows), o.shape[1], generator=generator))

        train(net, loss, lambda rows: miss(rows, check_t[rows], check_noise[rows]), owner, self._schedule, self._seed)
        return net

    def _inputs_of(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(self._standard(x).astype(np.float32))

    def _left_over(self, net: "Velocity", x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            o = self._inputs_of(x)
            left: np.ndarray = (o + net(o, torch.zeros(len(o), 1))).square().sum(dim=1).numpy()
        return left.astype(np.float64)


class Velocity(nn.Module):
    """A residual MLP: where an embedding moves at a time between 0 (data) and 1 (noise)."""

    def __init__(self, dim: int, width: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()

        def fill(weight: Tensor) -> None:
            nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)

        self.enter = linear(dim + 2 * WAVES, width, fill)
        self.blocks = nn.ModuleList(_block(width, fill) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), linear(width, dim, nn.init.zeros_))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map x (B, D) at times t (B, 1) to velocities (B, D)."""
        phases = t * pi * 2.0 ** torch.arange(WAVES)
        hidden = self.enter(torch.cat([x, phases.sin(), phases.cos()], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        velocity: Tensor = self.leave(hidden)
        return velocity


def _block(width: int, fill: Callable[[Tensor], Any]) -> nn.Sequential:
    first, second = linear(width, width, fill), linear(width, width, nn.init.zeros_)  # it starts as the identity
    return nn.Sequential(nn.LayerNorm(width), first, nn.SiLU(), second)
