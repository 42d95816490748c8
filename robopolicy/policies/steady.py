"""Whether plans made in batches of one shape depend on who else asks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest


def is_steady(policy: Any, rows: int, n: int = 1) -> bool:
    """Whether, in batches of ``rows``, each plan is the same to the bit whoever else asks and wherever it stands.

    Tried with random observations, and a running chunk for every other one: libraries choose their kernels by the shape
    of a batch, and promise nothing of the sums of its single rows. What the policy remembers of pictures is forgotten.

    Args:
        policy: ready to plan; it has ``plan_many``.
        rows: of a batch.
        n: candidates a plan.
    """
    rng = np.random.default_rng(0)
    seeds = list(range(rows))
    spec: PolicySpec = policy.spec
    windows = [[_made_up(spec, rng, k) for k in range(spec.n_obs)] for _ in seeds]
    running = [rng.random((spec.horizon, spec.action.dim), dtype=np.float32) if seed % 2 else None for seed in seeds]

    def plans(asking: Sequence[int]) -> dict[int, Plan]:
        policy.reset()
        requests = [
            PlanRequest(windows[seed], n, running[seed], generator=np.random.default_rng(seed)) for seed in asking
        ]
        return dict(zip(asking, policy.plan_many(requests, rows=rows), strict=True))

    together = plans(seeds)
    tried = [plans(asking) for asking in (seeds[::-1], seeds[-1:])]  # elsewhere and beside others; all but alone
    policy.reset()
    return all(
        np.array_equal(plan.chunks, together[seed].chunks) and np.array_equal(plan.features, together[seed].features)
        for some in tried
        for seed, plan in some.items()
    )


def _made_up(spec: PolicySpec, rng: np.random.Generator, stamp_ns: int) -> Observation:
    state = {name: rng.random(part.dim, dtype=np.float32) for name, part in spec.state.items()}
    images = {name: rng.integers(0, 256, camera.shape, dtype=np.uint8) for name, camera in spec.cameras.items()}
    return Observation(stamp_ns, state, images)
