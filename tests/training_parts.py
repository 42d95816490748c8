"""A small policy and the windows of one small episode: what the tests of the trainer train."""

from types import SimpleNamespace

import numpy as np
import torch

from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.config import TrainConfig

SPEC = PolicySpec(
    cameras={"front": CameraSpec(40, 40)},
    state={"pos": StateSpec(2, ("m",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)),
    n_obs=2,
    horizon=4,
)
# dropout draws from the global generator, crops and noise from the trainer's own: both must survive a resume
SMALL = DiffusionConfig(MlpConfig(width=16, depth=1, dropout=0.2), VisionConfig(width=16, keypoints=4, feature_dim=4))
CONFIG = TrainConfig(steps=12, batch_size=8, lr=1e-3, report_every_s=0.0, save_every_s=1e9)


def sampler(steps: int = 30, past: int = 0) -> SimpleNamespace:
    """One episode of a point that moves to where it looks; windows as robopolicy_data makes them."""
    rng = np.random.default_rng(0)
    pos = rng.random((steps, 2), dtype=np.float32)
    images = rng.integers(0, 256, (steps, 40, 40, 3), dtype=np.uint8)
    t = np.arange(steps)[:, None]
    return SimpleNamespace(
        arrays=SimpleNamespace(state={"pos": pos}, action=2 * pos - 1, images={"front": images}),
        obs_rows=np.clip(t + np.arange(-1, 1), 0, steps - 1),
        action_rows=np.clip(t + np.arange(-past, 4), 0, steps - 1),
        past=past,
        last_rows=np.full(steps, steps - 1),
    )


def make(spec: PolicySpec = SPEC, config: DiffusionConfig = SMALL) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(spec, config)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
