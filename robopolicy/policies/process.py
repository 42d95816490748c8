"""The noising process: variance preserving with a cosine schedule, and what the network predicts of it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robopolicy.errors import UnknownName

PREDICTIONS: tuple[str, ...] = ("eps", "x0", "v")


@dataclass(frozen=True)
class ProcessConfig:
    """Number of noise levels and what the network predicts; ``build`` makes a `VPCosine`."""

    steps: int = 100
    prediction: Literal["eps", "x0", "v"] = "eps"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise UnknownName("prediction", self.prediction, PREDICTIONS)

    def build(self) -> "VPCosine":
        """Return the process."""
        return VPCosine(self)


class VPCosine(nn.Module):
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps, with alpha_bar of Nichol and Dhariwal 2021, eq. 17."""

    def __init__(self, config: ProcessConfig) -> None:
        super().__init__()
        self.steps = config.steps
        self.prediction = config.prediction
        self.alpha_bar: Tensor  # (steps,) float32
        self.register_buffer("alpha_bar", cosine_alpha_bar(config.steps), persistent=False)

    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return x_t (B, ...) of clean x0 (B, ...) and unit noise eps at levels t (B,) int64."""
        signal, noise = self._mix(t, x0)
        return signal * x0 + noise * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return what the network should say at x_t. v is that of Salimans and Ho 2022."""
        if self.prediction == "eps":
            return eps
        if self.prediction == "x0":
            return x0
        signal, noise = self._mix(t, x0)
        return signal * eps - noise * x0

    def clean(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the x0 that the network's ``output`` at x_t (B, ...) and levels t (B,) stands for."""
        if self.prediction == "x0":
            return output
        signal, noise = self._mix(t, x_t)
        if self.prediction == "eps":
            return (x_t - noise * output) / signal
        return signal * x_t - noise * output

    def _mix(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[t].view(-1, *[1] * (like.ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def cosine_alpha_bar(steps: int, max_beta: float = 0.999) -> Tensor:
    """Return alpha_bar (steps,) float32, falling from almost 1 to almost 0; diffusers' ``squaredcos_cap_v2``."""
    edge = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    betas = torch.tensor([min(1 - edge[i + 1] / edge[i], max_beta) for i in range(steps)], dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0).float()
