"""A Gymnasium environment that tiny policies can play, whose reward is no number from its third step on for seed 2."""

import gymnasium
import numpy as np

NAME = "nan_rewards/Nan-v0"


class Nan(gymnasium.Env):
    """A point goes where it is told."""

    metadata = {"render_fps": 10, "render_modes": []}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict({"point": gymnasium.spaces.Box(-1, 1, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self._broken, self._steps = seed == 2, 0
        return {"point": np.ones(2, np.float32)}, {}

    def step(self, action):
        self._steps += 1
        reward = float("nan") if self._broken and self._steps > 2 else 0.5
        return {"point": action}, reward, False, False, {"is_success": self._steps > 5}


gymnasium.register(NAME, entry_point=Nan, max_episode_steps=20)
