"""A diffusion policy: chunks of actions denoised under the newest observations (Chi et al., 2023)."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.policies import solvers
from robopolicy.policies.batch import draw_plans
from robopolicy.policies.codecs import make_codec
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.denoisers import denoiser
from robopolicy.policies.encoder import ObservationEncoder
from robopolicy.policies.goals import GoalToken, goal_frame, guided, require_goal
from robopolicy.policies.graphs import Graphs
from robopolicy.policies.guidance import agreement, prefixed, real_time
from robopolicy.policies.memory import FrameMemory
from robopolicy.policies.normaliser import Normaliser, require_fitted
from robopolicy.policies.processes import Process
from robopolicy.policies.ways import Solved, Way
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest


class DiffusionPolicy(nn.Module):
    """Observations in, candidate chunks out; row 0 of a chunk belongs to the newest observation.

    Args:
        spec: which cameras and states it looks at, what it commands, and the horizons.
        config: encoder, network, process, solver and what else is chosen.
    """

    def __init__(self, spec: PolicySpec, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        if not spec.cameras and not spec.state:
            raise ContractError("policy: its spec names neither a camera nor a state; want at least one")
        self.spec = spec
        self.config = config or PRESETS["mlp"]
        if self.config.past > spec.n_obs - 1:
            raise ContractError(
                f"policy: {self.config.past} past rows; {spec.n_obs} observations know {spec.n_obs - 1}"
            )
        if self.config.max_delay >= spec.horizon:
            raise ContractError(
                f"policy: max_delay {self.config.max_delay} gives all of a chunk's {spec.horizon} rows; want fewer"
            )
        scaling, goal = self.config.scaling, self.config.goal
        self.rows = self.config.past + spec.horizon  # of a chunk as the network sees it
        self.encoder = ObservationEncoder(spec, self.config.vision, scaling.state)
        self.codec = make_codec(self.config.codec, spec)
        steps = self.rows if scaling.per_step else None
        self.action = Normaliser(self.codec.dim, untouched=self.codec.untouched, method=scaling.action, steps=steps)
        self.goal = None if goal is None else GoalToken(goal, self.encoder.mask(goal.streams))
        self._goal: Observation | None = None  # what `plan` is to reach
        self._seen, self._goal_seen = FrameMemory(), FrameMemory()
        self._graphs = Graphs()
        self.companions: tuple[DiffusionPolicy, ...] = ()  # see `robopolicy.policies.ensemble`; no part of the weights
        self._fitted = False  # until a plan has found it so
        tokens = spec.n_obs + (goal is not None)
        self.net = self.config.net.build(self.rows, self.codec.dim, tokens, self.encoder.token_dim)
        self.process = self.config.process.build()
        self.process.grid(self.config.solver.steps)  # what the solver cannot do is refused here, not at the first plan
        if self.config.solver.name == "consistency" and type(self.process).jump_time is Process.jump_time:
            kind = self.config.process.kind
            raise ContractError(f"solver consistency: process {kind} learns no jumps; want process consistency")

    @property
    def past(self) -> int:
        """Actions before the newest observation's that a window of its training has."""
        return self.config.past

    @property
    def goal_source(self) -> str | None:
        """Where the goals of its training come from, if it has any: the ``end`` of an episode or a ``future`` step."""
        return None if self.config.goal is None else self.config.goal.source

    @property
    def needs_windows(self) -> bool:
        """Whether its action statistics are those of windows and not of single commands."""
        return self.codec.anchored or self.config.scaling.per_step

    def fit_normaliser(self, arrays: Any, windows: Any = None) -> None:
        """Take the statistics of the data, in robot units.

        Args:
            arrays: ``state`` {name: (N, D)} and ``action`` (N, A).
            windows: rows of ``arrays``: ``obs`` (W, n_obs), ``action`` and ``padded_action`` (W, past + horizon), if it
                ``needs_windows``: some 100,000 of them, evenly taken, are looked at.

        Raises:
            ContractError: if it needs windows and has none, or the data are not finite.
        """
        state = {name: torch.as_tensor(arrays.state[name]) for name in self.spec.state}
        action = torch.as_tensor(arrays.action)
        self.encoder.fit(state)
        if not self.needs_windows:
            self.action.fit(self.codec.encode(action[:, None], {})[:, 0])
            return
        if windows is None:
            raise ContractError(f"policy: codec {self.config.codec!r} needs windows to take its statistics from")
        some = slice(None, None, 1 + len(windows.action) // 100_000)
        newest = torch.as_tensor(windows.obs[some])[:, -1:]
        values = self.codec.encode(
            action[torch.as_tensor(windows.action[some])], {name: rows[newest] for name, rows in state.items()}
        )
        self.action.fit(values, ~torch.as_tensor(windows.padded_action[some]))

    def set_goal(self, goal: Observation | None) -> None:
        """Plan towards what ``goal`` shows from now on, its goal streams only; None: towards nothing in particular.

        Raises:
            ContractError: if the policy was trained without goals, or a stream of the goal is missing.
        """
        if goal is not None:
            require_goal(goal, self.config.goal)
        self._goal = goal
        for companion in self.companions:
            companion.set_goal(goal)

    @property
    def networks(self) -> list[nn.Module]:
        """The parts worth compiling: they draw nothing but dropout."""
        return [self.net, *(camera.net for camera in self.encoder.cameras)]

    def encode(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the conditioning tokens (B, K, E): one a frame, and the goal's last.

        Args:
            batch: ``state``, ``images`` or ``features`` as `loss` takes them; ``goal`` {"state": ..., "images": ...} of
                one frame each, (B, 1, ...), absent if there is none.
            generator: places the crops, and withholds goals, when training.
        """
        tokens = self._tokens(batch, generator)
        if self.goal is None:
            return tokens
        goal = batch.get("goal")
        token = self.goal(None if goal is None else self._tokens(goal, generator), len(tokens), generator)
        return torch.cat([tokens, token], dim=1)

    def _tokens(self, batch: Mapping[str, Any], generator: torch.Generator | None) -> Tensor:
        return self.encoder(batch.get("state", {}), batch.get("images", {}), generator, batch.get("features"))

    def _goal_free(self, cond: Tensor) -> Tensor:
        """Return cond (N, K, E) with its goal withheld."""
        assert self.goal is not None
        return torch.cat([cond[:, :-1], self.goal(None, len(cond), None)], dim=1)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the mean squared error of the network's prediction; eq. 5 of the paper.

        Args:
            batch: tensors on the policy's device: ``state`` {name: (B, n_obs, D)}, ``images``
                {camera: (B, n_obs, H, W, 3) uint8} or ``features`` {camera: (B, n_obs, F)}, and ``action``
                (B, past + horizon, A), in robot units.
            generator: on the same device; draws noise, noise levels and crops.
        """
        cond = self.encode(batch, generator)
        x0 = self.action(self.codec.encode(batch["action"], batch.get("state", {})))
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        t = self.process.draw(len(x0), generator, x0.device)
        weight = None
        if self.config.past and not self.config.past_loss:
            weight = (torch.arange(self.rows, device=x0.device) >= self.config.past).float().expand(len(x0), -1)
        if self.config.max_delay:
            t, weight = self._give_prefix(t, weight, generator)
        return self.process.loss(self.net, cond, x0, eps, t, weight, generator)

    def _give_prefix(
        self, t: Tensor, weight: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Give each sample's first rows clean, up to ``max_delay`` of them, and ask only for the rest; (B, H) both."""
        delay = torch.randint(self.config.max_delay + 1, (len(t), 1), generator=generator, device=t.device)
        row = torch.arange(self.rows, device=t.device) - self.config.past
        given = (row < delay) & (delay > 0)  # (B, H)
        levels = torch.where(given, torch.full_like(t, self.process.clean_level)[:, None], t[:, None])
        asked = (~given).float()
        return levels, asked if weight is None else asked * weight

    def sample(self, cond: Tensor, noise: Tensor, previous: Tensor | None = None, delay: int = 0) -> Tensor:
        """Return clean chunks (N, past + H, C), normalised.

        Args:
            cond: (N, K, E).
            noise: what the solver needs, (N, past + H, C) or one such for each step.
            previous: (past + H, C) or (N, past + H, C) normalised: what was done and what is left of the running chunk,
                if there is one.
            delay: rows of ``previous`` that will have been executed before this chunk arrives.
        """
        solver = self.config.solver
        grid = self.process.grid(solver.steps)
        return solvers.solve(solver, self._denoiser(cond, grid, solver, previous, delay), grid, noise)

    def sample_and_tell(
        self, cond: Tensor, noise: Tensor, previous: Tensor | None = None, delay: int = 0, *, every: int = 1,
        others: Sequence[Tensor] = (),
    ) -> Solved:  # fmt: skip
        """Return what `sample` does, to the bit, and what was to be seen on the way.

        Args:
            cond: (N, K, E).
            noise: as for `sample`.
            previous: as for `sample`.
            delay: as for `sample`.
            every: of each so many candidates the first is looked at.
            others: conditions (N / every, K, E) of the companions.
        """
        solver = self.config.solver
        grid = self.process.grid(solver.steps)
        some = previous if previous is None or previous.dim() == 2 else previous[::every]
        asked = zip(self.companions, others, strict=True)
        companions = tuple(other._denoiser(its, grid, solver, some, delay) for other, its in asked)
        way = Way(self._denoiser(cond, grid, solver, previous, delay), every, companions)
        chunks = solvers.solve(solver, way, grid, noise)
        return Solved(chunks, way.variance(), way.disagreement())

    def _denoiser(
        self, cond: Tensor, grid: solvers.Grid, solver: solvers.SolverConfig, previous: Tensor | None, delay: int
    ) -> solvers.Denoiser:
        process, config = self.process, self.config
        net = self.net
        if config.goal is not None and config.goal.weight != 1:
            net = guided(net, self._goal_free(cond), config.goal.weight)
        jumps = solver.name == "consistency"
        if previous is not None and config.max_delay and delay:
            by_row = partial(process.jump if jumps else process.denoise, net, cond)
            denoise = prefixed(by_row, previous[..., : config.past + delay, :], process.clean_level)
        else:
            denoise = denoiser(process, net, cond, grid, jumps=jumps)
            if previous is not None and config.real_time is not None:
                weights = agreement(self.spec.horizon, delay, self.spec.n_execute, config.real_time.schedule)
                weights = torch.cat([torch.zeros(config.past), weights]).to(cond.device)
                denoise = real_time(denoise, grid, previous, weights, config.real_time)
        return solvers.clipped(denoise, self.action.limit)

    def plan(
        self,
        window: Sequence[Observation],
        *,
        n: int = 1,
        previous: np.ndarray | None = None,
        delay_steps: int = 0,
        executed: np.ndarray | None = None,
        generator: Any = None,
    ) -> Plan:
        """Draw ``n`` chunks from one encoding of the last ``spec.n_obs`` observations, oldest first.

        Noise is drawn on the CPU whatever the device, one candidate after the other, by a generator of this plan
        alone, seeded by one number from ``generator``: the same generator gives the same plans everywhere, and
        candidate 0, the one to execute, does not depend on ``n`` unless the selector draws fewer than that.

        ``aux`` is of the first candidate, in normalised space: ``denoise_variance`` (H,), how much the solver's guesses
        of the clean chunk varied in the latter half of its steps, mean over a row's elements; with companions,
        ``ensemble_disagreement`` (H,); and, if chunks begin in the past, ``past_error``: how far what it says was done
        is from what was, mean squared.

        Raises:
            ContractError: if the window has another length than ``spec.n_obs``, or the policy was never fitted.
        """
        return self.plan_many([PlanRequest(window, n, previous, delay_steps, executed, generator)])[0]

    def plan_many(self, requests: Sequence[PlanRequest], *, rows: int | None = None) -> list[Plan]:
        """Plan for several environments at once; each plan is what `plan` says of its request, but for rounding.

        Args:
            requests: one an environment, whose generators are its own. They may differ in all they hold; the network
                runs once for those with the same number of candidates and, where the policy looks at the chunk that is
                running, the same delay, and once more for those without one.
            rows: every batch has so many requests, filled up if need be: then it is by its shape alone that a plan is
                rounded, and not by who else asks, where `robopolicy.policies.steady.is_steady`. None: as they come.

        Raises:
            ContractError: as `plan`.
        """
        for request in requests:
            self._check(request)
        if not requests:
            return []
        self._require_fitted()
        # a vector-Jacobian product needs tensors that autograd can follow
        follow = self.config.real_time is not None and self.config.real_time.jacobian == "vjp"
        training = self.training
        if training:  # a walk over all modules, so not done for nothing
            self.eval()
        try:
            with torch.no_grad() if follow else torch.inference_mode():
                return draw_plans(self, requests, rows)
        finally:
            if training:
                self.train()

    def _check(self, request: PlanRequest) -> None:
        if len(request.window) != self.spec.n_obs:
            raise ContractError(f"plan: a window of {len(request.window)} observations; want {self.spec.n_obs}")
        if self.config.max_delay and request.delay_steps > self.config.max_delay:
            raise ContractError(
                f"plan: a delay of {request.delay_steps} steps; the policy was trained for at most "
                f"{self.config.max_delay}"
            )

    def draw_noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the noise of ``count`` candidates as `sample` takes it, one candidate after the other, on the CPU."""

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator)

        shape = (self.rows, self.codec.dim)
        return torch.stack([solvers.noise_like(self.config.solver, shape, draw) for _ in range(count)], dim=-3)

    @property
    def looks_back(self) -> bool:
        """Whether a new chunk is bent to agree with the one that is running."""
        return bool(self.config.max_delay) or self.config.real_time is not None

    def solve(
        self, cond: Tensor, noise: Tensor, running: Tensor | None = None, delay: int = 0, *, every: int = 1,
        others: Sequence[Tensor] = (),
    ) -> Solved:  # fmt: skip
        """Return what `sample_and_tell` does; from a recording where there is a GPU, and neither a running chunk nor a
        companion.
        """
        if running is not None or self.companions:
            return self.sample_and_tell(cond, noise, running, delay, every=every, others=others)

        def told(cond: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
            solved = self.sample_and_tell(cond, noise, every=every)
            return solved.chunks, solved.variance

        place = next(self.net.parameters()).data_ptr(), self.action.center.data_ptr()
        return Solved(*self._graphs.run(told, cond, noise, (self.config, place, every)))

    def beside(self) -> "DiffusionPolicy":
        """Return this policy once more, weights and all shared but what it remembers of an episode."""
        other = copy.copy(self)
        other._seen, other._goal_seen = FrameMemory(), FrameMemory()
        other.companions = tuple(companion.beside() for companion in self.companions)
        return other

    def stats(self) -> dict[str, Any]:
        """Return the statistics of every normaliser, for people to read."""
        states = zip(self.encoder.state_names, self.encoder.states, strict=True)
        return {
            "action": self.action.stats(),
            "state": {name: net.stats() for name, net in states},  # type: ignore[operator]
        }

    def reset(self) -> None:
        """Forget the frames seen; all else is the same from one plan to the next."""
        self._seen.forget()
        for companion in self.companions:
            companion.reset()

    def train(self, mode: bool = True) -> "DiffusionPolicy":
        """Switch dropout and random crops on or off; what was encoded before weights are trained is forgotten."""
        if mode:
            self._seen.forget()
            self._goal_seen.forget()
        super().train(mode)
        return self

    def look(self, windows: Sequence[Sequence[Observation]], block: int | None = None) -> dict[str, Any]:
        """Return what `encode` takes of B windows of T observations each, and of the goal if there is one.

        Pictures seen lately are not encoded anew; the others are in batches of ``block``, None: all in one.
        """
        batch: dict[str, Any] = self._streams(windows, self._seen, block)
        if self._goal is not None:
            batch["goal"] = self._streams([[goal_frame(self._goal, self.spec)]], self._goal_seen, None)
        return batch

    def _streams(
        self, windows: Sequence[Sequence[Observation]], memory: FrameMemory, block: int | None
    ) -> dict[str, dict[str, Tensor]]:
        device = self.action.center.device
        flat = [observation for window in windows for observation in window]
        shape = (len(windows), len(windows[0]))

        def stack(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).unflatten(0, shape).to(device)

        features = memory.features(self.encoder, flat, block)
        return {
            "state": {name: stack([o.state[name] for o in flat]).float() for name in self.spec.state},
            "features": {name: seen[0].unflatten(0, shape) for name, seen in features.items()},
        }

    def _require_fitted(self) -> None:
        if self._fitted:  # looking at the numbers takes a tenth of a short plan, and a GPU would have to be waited for
            return
        states = dict(zip(self.encoder.state_names, self.encoder.states, strict=True))
        require_fitted({"action": self.action, **states}, "policy")  # type: ignore[dict-item]
        self._fitted = True
