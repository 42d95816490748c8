"""A goal as one more token beside the observations, and guidance towards it (BESO, Reuss et al. 2023)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.policies.config import GoalConfig
from robopolicy.policies.processes import Net
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation


class GoalToken(nn.Module):
    """Turns an encoded frame into the goal's token, or into what stands for no goal.

    Args:
        config: how often a goal is withheld.
        shown: (E,) which elements of a frame make up a goal, 1.0 or 0.0; the others it does not see.
    """

    def __init__(self, config: GoalConfig, shown: Tensor) -> None:
        super().__init__()
        self.drop = config.drop
        self.shown: Tensor
        self.register_buffer("shown", shown, persistent=False)
        self.token = nn.Linear(len(shown), len(shown))
        self.none = nn.Parameter(torch.zeros(len(shown)))

    def forward(self, frame: Tensor | None, count: int, generator: torch.Generator | None) -> Tensor:
        """Return the goals' tokens (count, 1, E) of encoded frames (count, 1, E); None is no goal for any of them.

        When training, a share of the goals is withheld, drawn from ``generator``.
        """
        none = self.none.expand(count, 1, -1)
        if frame is None:
            return none
        token = self.token(frame * self.shown).expand(count, -1, -1)
        if not self.training or self.drop == 0:
            return token
        withheld = torch.rand(count, 1, 1, generator=generator, device=token.device) < self.drop
        return torch.where(withheld, none, token)


def guided(net: Net, without: Tensor, weight: float) -> Net:
    """Return a network that leans away from the goal-free answer (classifier-free, Ho and Salimans 2022, eq. 6).

    Both branches run as one batch. Weight 1 is ``net`` itself, 0 the goal-free network.

    Args:
        net: the network.
        without: (B, K, E) the condition with the goal withheld.
        weight: lambda of BESO, the paper's w + 1.
    """

    def leaning(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        both = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([cond, without]))
        told, free = both.chunk(2)
        return free + weight * (told - free)

    return leaning


def require_goal(goal: Observation, config: GoalConfig | None) -> None:
    """Check that a policy takes goals, and that this one has what they are made of.

    Raises:
        ContractError: if the policy was trained without goals, or a stream of the goal is missing.
    """
    if config is None:
        raise ContractError("policy: it was trained without goals; train one with goal streams")
    missing = [name for name in config.streams if name not in {**goal.state, **goal.images}]
    if missing:
        raise ContractError(f"policy: the goal lacks {', '.join(missing)}; it is made of {config.streams}")


def goal_frame(goal: Observation, spec: PolicySpec) -> Observation:
    """Return the goal as a frame of all streams: those it does not have are zeros, which its token does not see."""
    zeros = {name: np.zeros(part.dim, np.float32) for name, part in spec.state.items()}
    black = {name: np.zeros(camera.shape, camera.dtype) for name, camera in spec.cameras.items()}
    return replace(goal, state={**zeros, **goal.state}, images={**black, **goal.images})
