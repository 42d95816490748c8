"""Whether plans made in batches of one shape depend on who else asks, and on how large the batch is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robopolicy.errors import NO_PLAN
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest


def is_steady(policy: Any, rows: int, n: int = 1) -> bool:
    """Whether, in batches of ``rows``, each plan is the same to the bit whoever else asks and wherever it stands.

    Tried with random observations, and a running chunk for every other one: libraries choose their kernels by the shape
    of a batch, and promise nothing of the sums of its single rows. What the policy remembers of pictures is forgotten.
    Where motion tracks tell no motion in random pictures, this cannot be tried, and the answer is no.

    Args:
        policy: ready to plan; it has ``plan_many``.
        rows: of a batch.
        n: candidates a plan.
    """
    seeds = list(range(rows))
    plans = _planner(policy, rows, n)
    try:
        together = plans(seeds, rows)
        # Elsewhere in the batch, and all but alone.
        return all(_same(plans(asking, rows), together) for asking in (seeds[::-1], seeds[-1:]))
    except NO_PLAN:  # in made-up pictures it cannot be tried; it may well find its way in others
        return False


def is_same_in(policy: Any, rows: int, wide: int, n: int = 1) -> bool:
    """Whether plans made in batches of ``wide`` are those made in batches of ``rows``, to the bit, wherever they stand.

    Tried as `is_steady`, of a policy that is. Libraries take other kernels, or sum in another order, only from some
    size on.
    """
    plans, seeds = _planner(policy, wide, n), list(range(wide))
    return _same(plans(seeds, wide), plans(seeds, rows))


def _planner(policy: Any, count: int, n: int) -> Callable[[Sequence[int], int], dict[int, Plan]]:
    """Return what plans, in batches of so many rows, for some of ``count`` made-up environments."""
    rng = np.random.default_rng(0)
    spec: PolicySpec = policy.spec
    windows = [[_made_up(policy, rng, k) for k in range(spec.n_obs)] for _ in range(count)]
    running = [rng.random((spec.horizon, spec.action.dim), dtype=np.float32) if k % 2 else None for k in range(count)]

    def plans(asking: Sequence[int], rows: int) -> dict[int, Plan]:
        policy.reset()
        requests = [
            PlanRequest(windows[seed], n, running[seed], generator=np.random.default_rng(seed)) for seed in asking
        ]
        made = policy.plan_many(requests, rows=rows)
        policy.reset()
        return dict(zip(asking, made, strict=True))

    return plans


def _same(some: dict[int, Plan], others: dict[int, Plan]) -> bool:
    return all(
        np.array_equal(plan.chunks, others[seed].chunks)
        and np.array_equal(plan.features, others[seed].features)
        and all(np.array_equal(each, others[seed].aux[name], equal_nan=True) for name, each in plan.aux.items())
        for seed, plan in some.items()
    )


def _made_up(policy: Any, rng: np.random.Generator, stamp_ns: int) -> Observation:
    spec: PolicySpec = policy.spec
    state = {name: rng.random(part.dim, dtype=np.float32) for name, part in spec.state.items()}
    state |= getattr(policy, "likely", {})
    images = {name: rng.integers(0, 256, camera.shape, dtype=np.uint8) for name, camera in spec.cameras.items()}
    return Observation(stamp_ns, state, images)
