"""A flow that learns to jump to its own end: chunks in one or two calls of the network, without a teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robopolicy.errors import ContractError
from robopolicy.policies.processes import TIME_SCALE, Flow, FlowConfig, Level, Net, like, weighted_mse


@dataclass(frozen=True)
class ConsistencyConfig(FlowConfig):
    """A flow that also learns where it ends, from itself.

    Raises:
        ContractError: if the share is not above 0 and below 1, or nothing is solved.
    """

    kind: ClassVar[str] = "consistency"
    share: float = 0.25  # share of each batch that learns to jump, the rest learns the flow
    solve_steps: int = 6  # steps of Euler's method along the flow, to where a jump should lead

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1 or self.solve_steps < 1:
            raise ContractError(
                f"consistency: share {self.share}, solve_steps {self.solve_steps}; want 0 < share < 1 and at least 1"
            )

    def build(self) -> "ConsistencyFlow":
        """Return the process."""
        return ConsistencyFlow(self)


class ConsistencyFlow(Flow):
    """A flow whose network, told a time beyond 1, says the mean velocity from x to the end of the flow.

    One network, no teacher and no weights but its own: part of each batch learns the velocity as in `Flow`, the rest
    learns where a few steps along that velocity end, taken by the network itself without a gradient. That split, and
    the equal weight of both parts, are ManiFlow's (Yan et al. 2025); the end is solved for and not taken from a jump
    that begins nearer to it (there, in shortcut models, Frans et al. 2025, and in consistency models, Song et al.
    2023), because errors of jumps that learn from jumps add up: two-step chunks missed both modes of a task half as
    often at the same number of batches.
    """

    def __init__(self, config: ConsistencyConfig) -> None:
        super().__init__(config)
        self.consistency = config

    def jump_time(self, t: Level) -> Level:
        """Return times as far from the flow's own as they are long."""
        return (t + 2) * TIME_SCALE

    def loss(
        self, net: Net, cond: Tensor, x0: Tensor, eps: Tensor, t: Tensor, weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the error of the flow on most of the batch and that of the jumps on the rest, one pass for both.

        Both means count alike, however few jump: their targets hold no noise, so their errors are small.
        """
        x, target = self.noised(x0, eps, t), self.target(x0, eps, t)
        count = min(max(round(self.consistency.share * len(x0)), 1), len(x0))  # windows come in random order
        jumps, flows = slice(count), slice(count, None)
        time = torch.cat([self.jump_time(t[jumps]), self.time(t[flows])])
        output = net(x, time, cond).float()
        mean_velocity = self._mean_velocity(net, cond[jumps], x[jumps], t[jumps])
        weights = (None, None) if weight is None else (weight[jumps], weight[flows])
        loss = weighted_mse(output[jumps], mean_velocity, weights[0])
        if count < len(x0):
            loss = loss + weighted_mse(output[flows], target[flows], weights[1])
        return loss * (1 - self.consistency.share)

    @torch.no_grad()
    def _mean_velocity(self, net: Net, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the mean velocity from x at t to the end of the flow, by Euler's method."""
        steps = self.consistency.solve_steps
        total = torch.zeros_like(x)
        for i in range(steps):
            velocity = net(*self.feed(x, t * (1 - i / steps)), cond).float()
            x = torch.addcmul(x, like(t / steps, x), velocity)
            total = total + velocity
        return total / steps
