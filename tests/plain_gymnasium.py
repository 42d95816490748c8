"""Push-T in gym-pusht as people roll a policy out there: a plain loop of Gymnasium, none of ours but the policy."""

from collections import deque
from typing import Any

import gym_pusht  # noqa: F401  # registers it
import gymnasium
import numpy as np
import torch

from robopolicy.types import Observation

ENV = "gym_pusht/PushT-v0"


def roll_out(policy: Any, seed: int, max_steps: int = 300) -> tuple[float, bool, list[np.ndarray]]:
    """Return the best reward, whether the task was done, and every observation (5,) of one episode.

    The policy plans from its last observations each time its rows have been played, and draws from a generator seeded
    as the episode is.
    """
    env = gymnasium.make(ENV, obs_type="state", disable_env_checker=True)
    spec, generator = policy.spec, torch.Generator().manual_seed(seed)
    policy.reset()
    seen, _ = env.reset(seed=seed)
    window = deque([Observation(0, {"state": np.float32(seen)})] * spec.n_obs, maxlen=spec.n_obs)
    path, best, done, rows = [np.float32(seen)], 0.0, False, deque[np.ndarray]()
    while len(path) <= max_steps and not done:
        if not rows:
            rows.extend(policy.plan(list(window), generator=generator).chunks[0][: spec.n_execute])
        seen, reward, terminated, truncated, info = env.step(np.clip(rows.popleft(), 0, 512))
        window.append(Observation(len(path), {"state": np.float32(seen)}))
        path.append(np.float32(seen))
        best, done = max(best, min(float(reward), 1.0)), terminated or truncated
    env.close()
    return best, bool(info["is_success"]), path
