"""The running average of the weights, which is what a checkpoint holds."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOST = 0.9999  # the decay never exceeds this
EVERY_STEP = 100  # from here on every fourth step moves the average, by the decay of all four


class Average:
    """Exponential moving average of weights whose decay grows with the step: 1 - (1 + step)^-power.

    That of diffusers' ``EMAModel(use_ema_warmup=True)``, which would be a good part of every step of a small network on
    a CPU: here it is one pass over the weights, and after a hundred steps only in every fourth one.

    Args:
        parameters: the weights; they are read at every `step`.
        power: 0.75 for trainings of up to some 200 thousand steps (Crowson).

    Attributes:
        values: the averages, in the order of the parameters.
        steps: taken so far.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], power: float) -> None:
        self._weights = [parameter.detach() for parameter in parameters]  # share memory with the parameters
        self._power = power
        self.values: list[Tensor] = [weight.clone() for weight in self._weights]
        self.steps = 0

    def step(self) -> None:
        """Move the averages towards the weights as they are now."""
        self.steps += 1
        if _passed(self.steps):
            return
        first = self.steps - 1
        while _passed(first):
            first -= 1
        decay = math.prod(map(self._decay, range(first, self.steps)))
        torch._foreach_lerp_(self.values, self._weights, 1 - decay)

    def _decay(self, step: int) -> float:
        return min(1 - (1 + step) ** -self._power, MOST)

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[nn.Parameter]) -> None:
        """Write the averages into the parameters of a copy of the module."""
        torch._foreach_copy_([parameter.detach() for parameter in parameters], self.values)


def _passed(steps: int) -> bool:
    """Whether the average stays as it is after so many steps: of the count alone, as it is for a resumed run."""
    return steps > EVERY_STEP and steps % 4 != 0
