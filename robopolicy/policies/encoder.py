"""Observations to one conditioning vector: normalised states beside the features of each camera."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robopolicy.policies.normaliser import Normaliser
from robopolicy.policies.vision import CameraEncoder, VisionConfig
from robopolicy.spec import PolicySpec


class ObservationEncoder(nn.Module):
    """What a policy's spec names, over its ``n_obs`` observations, as one vector (B, out_dim).

    Works from states, from pictures, or from both. States come first, then cameras, in the order of the spec.
    """

    def __init__(self, spec: PolicySpec, config: VisionConfig) -> None:
        super().__init__()
        self.state_names = tuple(spec.state)
        self.camera_names = tuple(spec.cameras)
        self.states = nn.ModuleList(Normaliser.of_state(part) for part in spec.state.values())
        self.cameras = nn.ModuleList(CameraEncoder(config, c.height, c.width) for c in spec.cameras.values())
        state_dim = sum(Normaliser.of_state(part).out_dim for part in spec.state.values())
        self.out_dim = spec.n_obs * (state_dim + config.feature_dim * len(spec.cameras))

    def fit(self, state: Mapping[str, Tensor]) -> None:
        """Take the range of each state stream, {name: (N, D)}."""
        for name, normaliser in zip(self.state_names, self.states, strict=True):
            normaliser.fit(state[name])  # type: ignore[operator]

    def forward(
        self, state: Mapping[str, Tensor], images: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode {name: (B, n_obs, D)} and {camera: (B, n_obs, H, W, 3) uint8}; ``generator`` places the crops."""
        parts = [net(state[name]) for name, net in zip(self.state_names, self.states, strict=True)]
        parts += [net(images[name], generator) for name, net in zip(self.camera_names, self.cameras, strict=True)]
        return torch.cat(parts, dim=-1).flatten(1)
