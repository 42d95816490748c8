"""Policies that were trained alike from other seeds: one of them plans, and how far the others differ is told."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.errors import ContractError, SpecMismatch
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.normaliser import require_fitted

ALIKE = ("process", "codec", "past", "max_delay", "goal")  # of a DiffusionConfig; network and encoder may differ


def ensemble(policies: Sequence[DiffusionPolicy]) -> DiffusionPolicy:
    """Return the first policy once more, with the others for companions.

    It plans as the first does, to the bit. Its plans' ``aux`` has ``ensemble_disagreement`` (H,) beside: at every step
    of the sampler the companions are asked which clean chunk they see in the very same noisy one, each under its own
    encoding of what is seen, and the squared difference is averaged over steps, companions and a row's elements, in
    normalised space. It tells what none of them knows by itself: where the data left open what to do, they learnt
    different things. A companion costs one call of its network a step, for the first candidate alone.

    Args:
        policies: two or more, ready to plan, on one device; weights are shared with them, not copied.

    Raises:
        ContractError: if there is but one, or one was never fitted.
        SpecMismatch: if they do not speak of the same chunks: other specs, processes, codecs or scaling of actions.
    """
    if not all(isinstance(policy, DiffusionPolicy) for policy in policies):
        raise ContractError("companions: motion tracks take none; view_gap and misfit tell their doubt")
    if len(policies) < 2:
        raise ContractError(f"ensemble: {len(policies)} policies; want two or more, trained alike from other seeds")
    first, *others = (policy.beside().eval() for policy in policies)
    require_fitted({"action": first.action}, "policy")
    for i, other in enumerate(others, start=1):
        require_fitted({"action": other.action}, f"companion {i}")
        require_alike(first, other, f"companion {i}")
        other.companions = ()
        other.set_goal(first._goal)
    first.companions = tuple(others)
    return first


def require_alike(policy: DiffusionPolicy, other: DiffusionPolicy, name: str) -> None:
    """Raise SpecMismatch, both sides printed, if ``other`` cannot be asked about chunks that ``policy`` denoises."""
    if other.spec != policy.spec:
        other.spec.require_from(policy.spec, needs=name, offers="policy")
        raise SpecMismatch(f"{name}: its spec is {other.spec}; the policy's is {policy.spec}")
    for key in ALIKE:
        mine, theirs = getattr(policy.config, key), getattr(other.config, key)
        if mine != theirs:
            raise SpecMismatch(
                f"{name}: its {key} is {theirs}; the policy's is {mine}: train it alike, with --seed only"
            )
    here, there = policy.action.state_dict(), other.action.state_dict()
    for key in here:
        mine, theirs = here[key].cpu(), there[key].cpu()
        if not torch.equal(mine, theirs):
            raise SpecMismatch(
                f"{name}: the {key} of its actions is {_few(theirs)}; the policy's is {_few(mine)}: "
                "train it on the same data, with the same scaling"
            )


def _few(values: Tensor) -> str:
    some = ", ".join(f"{float(value):.6g}" for value in values.flatten()[:12])
    return f"[{some}{', ...' if values.numel() > 12 else ''}]"
