"""Plans for many environments from one pass of the network: what ``DiffusionPolicy.plan_many`` does."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from robopolicy.policies.running import Running
from robopolicy.policies.selectors import choose
from robopolicy.policies.ways import Solved
from robopolicy.types import Plan, PlanRequest

if TYPE_CHECKING:
    from robopolicy.policies.diffusion import DiffusionPolicy

One = TypeVar("One")


def draw_plans(policy: "DiffusionPolicy", requests: Sequence[PlanRequest], rows: int | None = None) -> list[Plan]:
    """Answer requests that were checked, in their order.

    Each draws its noise from its own generator, as if it were alone. Observations are encoded in one batch; chunks are
    denoised in one batch where candidates and delay are the same and all or none have a running chunk to agree with.
    What was executed and what is left of a running chunk are normalised one by one.

    Args:
        policy: not training.
        requests: one or more.
        rows: every batch is filled up to so many requests, or cut into such. The shape of a batch decides how its
            numbers are rounded, so in batches of one shape a plan does not depend on who else asks, where
            `robopolicy.policies.steady.is_steady`. None: as they come.
    """
    if rows is not None and len(requests) > rows:
        parts = [requests[at : at + rows] for at in range(0, len(requests), rows)]
        return [plan for part in parts for plan in draw_plans(policy, part, rows)]
    draws = [policy.draw_noise(_count(policy, one), plan_generator(one.generator)) for one in requests]
    windows = [one.window for one in filled(requests, rows)]
    batch = policy.look(windows, rows)
    state = batch["state"]  # {name: (B, T, D)}
    conds = [policy.encode(batch), *(other.encode(other.look(windows, rows)) for other in policy.companions)]
    asked = [
        _Asked(i, one, noise, _running(policy, one, _rows(state, [i])))
        for i, (one, noise) in enumerate(zip(requests, draws, strict=True))
    ]
    alike: dict[tuple[int, bool, int], list[_Asked]] = defaultdict(list)
    for one in asked:
        bound = policy.looks_back and one.running.left is not None
        alike[_count(policy, one.request), bound, one.request.delay_steps if bound else 0].append(one)
    plans = {}
    for (count, bound, delay), group in alike.items():
        for i, plan in _solved(policy, conds, state, filled(group, rows), count, bound, delay):
            plans[i] = plan
    return [plans[i] for i in range(len(requests))]


def filled(some: Sequence[One], rows: int | None) -> list[One]:
    """Return ``some`` with the first repeated until there are ``rows``."""
    return [*some, *[some[0]] * ((rows or 0) - len(some))]


def plan_generator(generator: Any) -> torch.Generator:
    """Return a fresh generator, seeded by one draw from the episode's (numpy's, torch's, or None: torch's global)."""
    if isinstance(generator, np.random.Generator):
        seed = int(generator.integers(2**63))
    else:
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class _Asked:
    """A request and what belongs to it alone."""

    index: int
    request: PlanRequest
    noise: Tensor  # (count, P + H, C), or one such for each step
    running: Running


def _solved(
    policy: "DiffusionPolicy",
    conds: Sequence[Tensor],
    state: Mapping[str, Tensor],
    group: Sequence[_Asked],
    count: int,
    bound: bool,
    delay: int,
) -> list[tuple[int, Plan]]:
    """Denoise ``count`` chunks for each of a group; return their plans, each with its request's index.

    Args:
        policy: not training.
        conds: (B, K, E) of its own, then of its companions.
        state: {name: (B, T, D)}.
        group: requests that are alike.
        count: candidates to draw.
        bound: whether there are running chunks to agree with.
        delay: rows of them that will have been executed.
    """
    at = [one.index for one in group]
    cond, *others = (each[at] for each in conds)
    every = count if policy.config.selector.name == "first" else 1  # else any of them may come first
    rest = torch.stack([one.running.rows() for one in group]) if bound else None  # type: ignore[misc]
    noise = torch.cat([one.noise for one in group], dim=-3).to(cond.device)
    solved = policy.solve(
        _each(cond, count), noise, None if rest is None else _each(rest, count), delay, every=every,
        others=[_each(other, count // every) for other in others],
    )  # fmt: skip
    chunks = solved.chunks.unflatten(0, (len(group), count))  # (B, count, P + H, C)
    orders = [_order(policy, one, chunks[k]) for k, one in enumerate(group)]
    n = len(orders[0])
    taken = torch.cat([chunks[k, order] for k, order in enumerate(orders)])  # (B n, P + H, C)
    states = {name: _each(part, n) for name, part in _rows(state, at).items()}
    values = policy.codec.decode(policy.action.inverse(taken)[:, policy.config.past :], states).cpu().numpy()
    features = cond.flatten(1).float().cpu().numpy()
    said = _said(solved, policy.config.past, len(group))
    return [
        (
            one.index,
            Plan(
                values[k * n : (k + 1) * n].copy(), features[k].copy(),
                {name: each[k, orders[k][0] // every].copy() for name, each in said.items()}
                | one.running.aux(taken[k * n]),
            ),
        )
        for k, one in enumerate(group)
    ]  # fmt: skip


def _said(solved: Solved, past: int, group: int) -> dict[str, np.ndarray]:
    """Return what `Plan.aux` has of every candidate that was looked at: (B, M / B, H) float32 each."""
    told = {"denoise_variance": solved.variance, "ensemble_disagreement": solved.disagreement}
    return {
        name: rows.unflatten(0, (group, -1))[..., past:].float().cpu().numpy()
        for name, rows in told.items()
        if rows is not None
    }


def _order(policy: "DiffusionPolicy", one: _Asked, chunks: Tensor) -> list[int]:
    """Return which candidates (count, P + H, C) go into the plan, the one to execute first."""
    config, spec = policy.config, policy.spec
    ahead = one.running.ahead(spec.horizon - spec.n_execute)
    best = choose(config.selector, chunks, past=config.past, done=one.running.known, previous=ahead)
    return [best, *(i for i in range(len(chunks)) if i != best)][: one.request.n]


def _running(policy: "DiffusionPolicy", one: PlanRequest, state: Mapping[str, Tensor]) -> Running:
    """Return what was done and what is left, as far as the policy looks at it."""
    past = policy.config.past
    looks = policy.looks_back or policy.config.selector.name == "coherence"
    left = _normalised(policy, one.previous, state, policy.rows) if looks else None
    return Running(past, _normalised(policy, one.executed, state, past), left)


def _normalised(
    policy: "DiffusionPolicy", actions: np.ndarray | None, state: Mapping[str, Tensor], end: int
) -> Tensor | None:
    """Return what of the actions (R, A), in robot units, are rows up to ``end``, as the network sees them."""
    rows = None if actions is None else actions[-end:] if end else None
    if rows is None or len(rows) == 0:
        return None
    values = torch.as_tensor(rows, dtype=torch.float32, device=policy.action.center.device)
    whole = values[-1:].repeat(policy.rows, 1)  # each row has its place: it may have statistics of its own
    whole[end - len(values) : end] = values
    return policy.action(policy.codec.encode(whole[None], state))[0, end - len(values) : end]


def _count(policy: "DiffusionPolicy", one: PlanRequest) -> int:
    return max(one.n, policy.config.selector.samples)


def _each(values: Tensor, count: int) -> Tensor:
    """Repeat each of (B, ...) ``count`` times: (B count, ...)."""
    return values[:, None].expand(-1, count, *values.shape[1:]).flatten(0, 1)


def _rows(state: Mapping[str, Tensor], at: Sequence[int]) -> dict[str, Tensor]:
    return {name: part[at] for name, part in state.items()}
