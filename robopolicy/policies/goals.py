"""A goal as one more token beside the observations, and guidance towards it (BESO, Reuss et al. 2023)."""

import torch
from torch import Tensor, nn

from robopolicy.policies.config import GoalConfig
from robopolicy.policies.processes import Net


class GoalToken(nn.Module):
    """Turns an encoded frame into the goal's token, or into what stands for no goal."""

    def __init__(self, config: GoalConfig, token_dim: int) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, token: Tensor | None, count: int, generator: torch.Generator | None) -> Tensor:
        """Return the goals' tokens (count, 1, E) of encoded frames (count, 1, E); None is no goal for any of them.

        When training, a share of the goals is withheld.
        """
        raise NotImplementedError


def guided(net: Net, without: Tensor, weight: float) -> Net:
    """Return a network that leans away from the goal-free answer: classifier-free guidance, Ho and Salimans 2022.

    Both branches run as one batch.

    Args:
        net: the network.
        without: (B, K, E) the condition with the goal withheld.
        weight: 1 is ``net`` itself, 0 the goal-free network.
    """
    raise NotImplementedError
