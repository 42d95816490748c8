"""A diffusion policy: chunks of actions denoised under the newest observations (Chi et al., 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.policies import solver as solvers
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.encoder import ObservationEncoder
from robopolicy.policies.normaliser import Normaliser
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan


class DiffusionPolicy(nn.Module):
    """Observations in, candidate chunks out; row 0 of a chunk belongs to the newest observation.

    Args:
        spec: which cameras and states it looks at, what it commands, and the horizons.
        config: encoder, network, process and solver.
    """

    def __init__(self, spec: PolicySpec, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        if not spec.cameras and not spec.state:
            raise ContractError("policy: its spec names neither a camera nor a state; want at least one")
        self.spec = spec
        self.config = config or PRESETS["mlp"]
        self.encoder = ObservationEncoder(spec, self.config.vision)
        self.action = Normaliser.of_action(spec.action)
        self.net = self.config.net.build(spec.horizon, spec.action.dim, self.encoder.out_dim)
        self.process = self.config.process.build()

    def fit_normaliser(self, arrays: Any) -> None:
        """Take the ranges of ``arrays.state`` {name: (N, D)} and ``arrays.action`` (N, A), in robot units."""
        self.encoder.fit({name: torch.as_tensor(arrays.state[name]) for name in self.spec.state})
        self.action.fit(torch.as_tensor(arrays.action))

    def encode(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the conditioning vectors (B, E) of batch["state"] and batch["images"]."""
        return self.encoder(batch.get("state", {}), batch.get("images", {}), generator)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the mean squared error of the network's prediction; eq. 5 of the paper.

        Args:
            batch: tensors on the policy's device: ``state`` {name: (B, n_obs, D)}, ``images``
                {camera: (B, n_obs, H, W, 3) uint8} and ``action`` (B, horizon, A), in robot units.
            generator: on the same device; draws noise, noise levels and crops.
        """
        cond = self.encode(batch, generator)
        x0 = self.action(batch["action"])
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        t = torch.randint(self.process.steps, (len(x0),), generator=generator, device=x0.device)
        output = self.net(self.process.noised(x0, eps, t), t, cond)
        return nn.functional.mse_loss(output.float(), self.process.target(x0, eps, t))

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Return clean chunks (N, H, A), normalised, under cond (N, E) from the solver's ``noise``."""
        grid = solvers.trailing_grid(self.process.alpha_bar, self.config.solver.steps)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.process.clean(self.net(x, t, cond).float(), x, t)

        solve = {"ddim": solvers.ddim, "ddpm": solvers.ddpm}[self.config.solver.name]
        return solve(solvers.clipped(denoise), grid, noise)

    @torch.inference_mode()
    def plan(
        self,
        window: Sequence[Observation],
        *,
        n: int = 1,
        previous: np.ndarray | None = None,
        delay_steps: int = 0,
        generator: Any = None,
    ) -> Plan:
        """Draw ``n`` chunks from one encoding of the last ``spec.n_obs`` observations, oldest first.

        Noise is drawn on the CPU whatever the device, one candidate after the other, by a generator of this plan
        alone, seeded by one number from ``generator``: the same generator gives the same plans everywhere, and
        candidate 0 does not depend on ``n``, in this plan nor in the next. ``previous`` and ``delay_steps`` are not
        used: every plan is fresh.

        Raises:
            ContractError: if the window has another length than ``spec.n_obs``, or the policy was never fitted.
        """
        if len(window) != self.spec.n_obs:
            raise ContractError(f"plan: a window of {len(window)} observations; want {self.spec.n_obs}")
        self._require_fitted()
        draw_from = _generator_of_plan(generator)
        shape = (self.spec.horizon, self.spec.action.dim)

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=draw_from)

        noise = [solvers.noise_like(self.config.solver, shape, draw) for _ in range(n)]
        training = self.training
        self.eval()
        try:
            cond = self.encode(self._batch(window))  # (1, E)
            chunks = self.sample(cond.expand(n, -1), torch.stack(noise, dim=-3).to(cond.device))
        finally:
            self.train(training)
        values = self.action.inverse(chunks).cpu().numpy()
        return Plan(values, cond[0].float().cpu().numpy())

    def stats(self) -> dict[str, Any]:
        """Return the statistics of every normaliser, for people to read."""
        states = zip(self.encoder.state_names, self.encoder.states, strict=True)
        return {
            "action": self.action.stats(),
            "state": {name: net.stats() for name, net in states},  # type: ignore[operator]
        }

    def reset(self) -> None:
        """Nothing is remembered between plans."""

    def _batch(self, window: Sequence[Observation]) -> dict[str, dict[str, Tensor]]:
        device = self.action.center.device

        def stack(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays))[None].to(device)

        return {
            "state": {name: stack([o.state[name] for o in window]).float() for name in self.spec.state},
            "images": {name: stack([o.images[name] for o in window]) for name in self.spec.cameras},
        }

    def _require_fitted(self) -> None:
        if not self.action.fitted:
            raise ContractError("policy: its normaliser was never fitted; train it or load a checkpoint")


def _generator_of_plan(generator: Any) -> torch.Generator:
    """Return a fresh generator, seeded by one draw from the episode's (numpy's, torch's, or None: torch's global)."""
    if isinstance(generator, np.random.Generator):
        seed = int(generator.integers(2**63))
    else:
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator().manual_seed(seed)
