"""Observations to conditioning tokens: normalised states beside the features of each camera, a token a frame."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robopolicy.errors import UnknownName
from robopolicy.policies.normaliser import Method, Normaliser
from robopolicy.policies.vision import CameraEncoder, VisionConfig, require_visible, shrink
from robopolicy.spec import PolicySpec


class ObservationEncoder(nn.Module):
    """What a policy's spec names, one token (E,) for each observation.

    Works from states, from pictures, or from both. States come first, then cameras, in the order of the spec. A frame's
    token depends on that frame alone, so a policy with a long memory encodes only the newest one.

    Attributes:
        token_dim: E.

    Raises:
        ContractError: if a camera shows what cannot be encoded: depth, or pictures too small.
    """

    def __init__(self, spec: PolicySpec, config: VisionConfig, scaling: Method = "minmax") -> None:
        super().__init__()
        self.state_names = tuple(spec.state)
        self.camera_names = tuple(spec.cameras)
        self.states = nn.ModuleList(Normaliser.of_state(part, scaling) for part in spec.state.values())
        for name, camera in spec.cameras.items():
            require_visible(config, name, camera)
        count = min(len(spec.cameras), 1) if config.shared else len(spec.cameras)
        self.cameras = nn.ModuleList(CameraEncoder(config) for _ in range(count))
        state_dim = sum(Normaliser.of_state(part).out_dim for part in spec.state.values())
        self._sizes = {name: (height, width) for name, height, width in config.sizes}
        self._feature_dim = config.feature_dim
        self.token_dim = state_dim + config.feature_dim * len(spec.cameras)

    def fit(self, state: Mapping[str, Tensor]) -> None:
        """Take the range of each state stream, {name: (N, D)}."""
        for name, normaliser in zip(self.state_names, self.states, strict=True):
            normaliser.fit(state[name])  # type: ignore[operator]

    def forward(
        self,
        state: Mapping[str, Tensor],
        images: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return tokens (B, T, E).

        Args:
            state: {name: (B, T, D)} in robot units.
            images: {camera: (B, T, H, W, 3) uint8}, as the camera gives them or made smaller already.
            generator: places the crops when training.
            features: {camera: (B, T, F)} made earlier by ``see``, in place of that camera's pictures.
        """
        made = features or {}
        parts = [net(state[name]) for name, net in zip(self.state_names, self.states, strict=True)]
        for name in self.camera_names:
            parts.append(made[name] if name in made else self._look(name, images[name], generator))
        return torch.cat(parts, dim=-1)

    def mask(self, streams: tuple[str, ...]) -> Tensor:
        """Return which elements of a token (E,) are made from ``streams``, 1.0 or 0.0.

        Raises:
            UnknownName: naming the streams there are.
        """
        names = (*self.state_names, *self.camera_names)
        for name in streams:
            if name not in names:
                raise UnknownName("stream", name, names)
        widths = [net.out_dim for net in self.states] + [self._feature_dim] * len(self.camera_names)
        shares = [torch.full((int(w),), float(n in streams)) for n, w in zip(names, widths, strict=True)]  # type: ignore[arg-type]
        return torch.cat(shares)

    def see(self, camera: str, images: Tensor) -> Tensor:
        """Return the features (B, T, F) of one camera's pictures (B, T, H, W, 3), for a cache."""
        return self._look(camera, images)

    def _look(self, camera: str, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        features: Tensor = self.camera(camera)(shrink(images, self._sizes.get(camera)), generator)
        return features

    def camera(self, name: str) -> CameraEncoder:
        """Return the encoder of the camera called ``name``, which others may share."""
        index = self.camera_names.index(name)
        encoder: CameraEncoder = self.cameras[index if len(self.cameras) > 1 else 0]  # type: ignore[assignment]
        return encoder
