"""A flow that learns to jump to its own end: chunks in one or two calls of the network, without a teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robopolicy.policies.processes import TIME_SCALE, Flow, FlowConfig, Net, like, weighted_mse


@dataclass(frozen=True)
class ConsistencyConfig(FlowConfig):
    """A flow that also learns where it ends, from itself."""

    kind: ClassVar[str] = "consistency"
    share: float = 0.25  # of each batch that learns to jump, the rest learns the flow
    stride: float = 0.2  # longest step along the flow between the two points that must agree

    def build(self) -> "ConsistencyFlow":
        """Return the process."""
        return ConsistencyFlow(self)


class ConsistencyFlow(Flow):
    """A flow whose network, told a time beyond 1, says the mean velocity from x to the end of the flow.

    One network, no teacher: part of each batch learns the velocity as in `Flow`; the rest learns that two neighbours on
    the flow end at the same place, the farther one taken from the network itself without a gradient. (ManiFlow, Yan et
    al. 2025; shortcut models, Frans et al. 2025; consistency models, Song et al. 2023.)
    """

    def __init__(self, config: ConsistencyConfig) -> None:
        super().__init__(config)
        self.consistency = config

    def jump(self, net: Net, cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return where the flow through x (B, H, A) at t (B,) or (B, H) ends."""
        return torch.addcmul(x, like(t, x), net(*self._feed_jump(x, t), cond).float())

    def loss(
        self, net: Net, cond: Tensor, x0: Tensor, eps: Tensor, t: Tensor, weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the flow's error on most of the batch and that of the jumps on the rest, in one pass."""
        x, target = self.noised(x0, eps, t), self.target(x0, eps, t)
        count = round(self.consistency.share * len(x0))  # windows come in random order: these are as good as any
        jumping = torch.arange(len(x0), device=x0.device) < count
        if count:
            target = torch.cat(
                [self._mean_velocity(net, cond[:count], x[:count], t[:count], generator), target[count:]]
            )
        time = torch.where(like(jumping, t), self._feed_jump(x, t)[1], self.feed(x, t)[1])
        return weighted_mse(net(x, time, cond).float(), target, weight)

    @torch.no_grad()
    def _mean_velocity(self, net: Net, cond: Tensor, x: Tensor, t: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the mean velocity from x to the end that its neighbour, one stride along the flow, jumps to."""
        share = torch.rand(len(x), generator=generator, device=x.device)
        nearer = (t - like(share, t) * self.consistency.stride).clamp_min(0)
        velocity = net(*self.feed(x, t), cond).float()
        there = x + like(t - nearer, x) * velocity
        end = torch.where(like(nearer > 0, x) > 0, self.jump(net, cond, there, nearer), there)
        return (end - x) / like(t.clamp_min(1e-3), x)

    @staticmethod
    def _feed_jump(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, (t + 2) * TIME_SCALE  # as far from the flow's own times as they are long
