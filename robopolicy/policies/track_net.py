"""Motion tracks (Ren et al. 2025): a picture and its five points in, where the points go next out, view by view.

One network sees every view by itself, so hands and grippers, and any number of cameras, are the same to it. Points are
shares of the picture, -1 to 1 (`robopolicy.policies.track_augment`); what it learns are differences of them, brought to
unit size after they were taken: pictures are wide and steps are small.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.errors import ContractError
from robopolicy.geometry.keypoints import EMBODIMENT, GRASP, POINTS, keypoints_of
from robopolicy.policies import solvers
from robopolicy.policies.denoisers import denoiser
from robopolicy.policies.normaliser import Normaliser
from robopolicy.policies.track_augment import draw_moves
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.track_views import Views
from robopolicy.policies.vision import CameraEncoder, require_visible, shrink
from robopolicy.spec import PolicySpec

XY = 2 * POINTS
ROW = XY + 1  # of a chunk as the network sees it: five points, and the grasp


class Tracks(NamedTuple):
    """Where the points go, and what was seen of it on the way."""

    shares: Tensor  # (..., N, V, H, 5, 2) of the picture
    grasp: Tensor  # (..., N, V, H), 1 closed; what each view says by itself of the motion that all agreed on
    apart: Tensor  # (..., N, H, 5) px between what each view said by itself and what all agreed on, RMS over views


class TrackNet(nn.Module):
    """What is trained: pictures and points of any embodiment in, tracks out; `Trainable`.

    Args:
        spec: of tracks, as `robopolicy_data.tracked` makes them: its cameras are the views, its states their points in
            px, the grasp and the embodiment, its action the next points and the grasp.
        config: what is chosen.

    Raises:
        ContractError: if the spec is not one of tracks.
    """

    past = 0
    goal_source = None

    def __init__(self, spec: PolicySpec, config: MotionTrackConfig) -> None:
        super().__init__()
        wants = {keypoints_of(view): XY for view in spec.cameras} | {GRASP: 1, EMBODIMENT: 1}
        have = {name: part.dim for name, part in spec.state.items()}
        if have != wants or spec.action.dim != XY * len(spec.cameras) + 1 or not spec.cameras:
            raise ContractError(
                f"tracks: states {have} and {spec.action.dim} actions; want {wants}, and as many points"
            )
        self.spec, self.config = spec, config
        self.views = tuple(spec.cameras)
        for name, camera in spec.cameras.items():
            require_visible(config.vision, name, camera)
        self.camera = CameraEncoder(config.vision)
        steps = spec.horizon if config.step == "offset" else None
        self.action = Normaliser(ROW, method="meanstd", steps=steps)
        seen = config.vision.feature_dim * (2 if config.at_points else 1)
        self.net = config.net.build(spec.horizon, ROW, spec.n_obs, seen + ROW)
        if config.at_points:
            self.at_points = nn.Linear(POINTS * self.camera.net.channels, config.vision.feature_dim)
        self.process = config.process.build()
        self.process.grid(config.solver.steps)
        self.domain = nn.Sequential(nn.Linear(seen, 64), nn.ReLU(), nn.Linear(64, 1))
        self.domain.requires_grad_(config.align.domain > 0)
        self._shrunk = {name: (height, width) for name, height, width in config.vision.sizes}
        self.side: Tensor  # (V, 2) W and H of the pictures that points are told in, px
        sides = [(camera.width, camera.height) for camera in spec.cameras.values()]
        self.register_buffer("side", torch.tensor(sides, dtype=torch.float32), persistent=False)

    @property
    def needs_windows(self) -> bool:
        """Whether its statistics are those of windows."""
        return self.config.step == "offset"

    @property
    def networks(self) -> list[nn.Module]:
        """The parts worth compiling."""
        return [self.net, self.camera.net]

    def fit_normaliser(self, arrays: Any, windows: Any = None) -> None:
        """Take the statistics of the differences of both embodiments and all views.

        Args:
            arrays: ``state`` {name: (N, D)} px and ``action`` (N, A): the next points, view by view, and the grasp.
            windows: rows of ``arrays``, if it ``needs_windows``.

        Raises:
            ContractError: if it needs windows and has none, or the data are not finite.
        """
        now = self._points_of({name: torch.as_tensor(rows) for name, rows in arrays.state.items()})  # (N, V, 5, 2)
        following, grasp = self._targets(torch.as_tensor(arrays.action))
        if not self.needs_windows:
            rows = torch.cat([(following - now).flatten(2), grasp[:, None].expand(-1, len(self.views), -1)], dim=-1)
            self.action.fit(rows.flatten(0, 1))
            return
        if windows is None:
            raise ContractError("policy: steps 'offset' need windows to take their statistics from")
        some = slice(None, None, 1 + len(windows.action) // 100_000)
        at, newest = torch.as_tensor(windows.action[some]), torch.as_tensor(windows.obs[some])[:, -1]
        way = (following[at] - now[newest][:, None]).transpose(1, 2).flatten(3)  # (W, V, H, 10)
        rows = torch.cat([way, grasp[at][:, None].expand(-1, len(self.views), -1, -1)], dim=-1)
        valid = ~torch.as_tensor(windows.padded_action[some])
        self.action.fit(rows.flatten(0, 1), valid.repeat_interleave(len(self.views), dim=0))

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Return the mean squared error of the network's prediction, points and grasp in fixed shares.

        Args:
            batch: ``state`` {name: (B, T, D)}, ``images`` {view: (B, T, H, W, 3) uint8} and ``action`` (B, H, A), px.
            generator: on the same device; draws noise, levels and augmentations.
        """
        now = self._points_of(batch["state"])  # (B, T, V, 5, 2)
        following, grasp = self._targets(batch["action"])  # (B, H, V, 5, 2), (B, H, 1)
        count, views = len(now), len(self.views)
        points = now.transpose(1, 2).flatten(0, 1)  # (M, T, 5, 2), M = B V
        ahead = following.transpose(1, 2).flatten(0, 1)
        moves = None
        if self.training:
            moves = draw_moves(self.config.augmentation, (count, views), self.side, generator)
            points, ahead = moves.points(points), moves.points(ahead)
        held = _each(batch["state"][GRASP], views)
        told = points
        if self.training and self.config.augmentation.jitter:
            drawn = torch.randn((count, views, *points.shape[1:]), generator=generator, device=points.device)
            told = points + 2 * self.config.augmentation.jitter * drawn.flatten(0, 1)
        features = self._look(batch["images"], told, moves)
        cond = torch.cat([features, told.flatten(2), held], dim=-1)
        rows = torch.cat([self._steps(points[:, -1], ahead).flatten(2), _each(grasp, views)], dim=-1)
        x0 = self.action(rows)
        eps = torch.randn((count, *x0.shape[1:]), generator=generator, device=x0.device)
        eps = _each(eps, views)  # all views of a sample under the same noise, as they are drawn
        t = _each(self.process.draw(count, generator, x0.device), views)
        share = self.config.grasp_weight
        weight = torch.full_like(x0, (1 - share) / XY)
        weight[..., XY:] = share
        loss = self.process.loss(self.net, cond, x0, eps, t, weight, generator)
        return loss + self._alignment(features, _each(batch["state"][EMBODIMENT][:, -1, 0], views))

    def condition(self, state: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what the network is told (B V, T, E) and the newest points (B, V, 5, 2), of a batch as `loss` has."""
        now = self._points_of(state)
        told = now.transpose(1, 2).flatten(0, 1)
        held = _each(state[GRASP], len(self.views))
        return torch.cat([self._look(images, told, None), told.flatten(2), held], dim=-1), now[:, -1]

    def draw_noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the noise of ``count`` candidates, (..., count, V, H, 11), one after the other, on the CPU."""
        shape = (self.spec.horizon, ROW)
        views = 1 if self.config.views.together else len(self.views)

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator)

        drawn = [solvers.noise_like(self.config.solver, (views, *shape), draw) for _ in range(count)]
        noise = torch.stack(drawn, dim=-4)
        return noise.expand(*noise.shape[:-3], len(self.views), *shape)

    def sample(self, cond: Tensor, now: Tensor, noise: Tensor, views: Views | None) -> Tracks:
        """Return the tracks of N candidates of one moment, or of each of several moments at once.

        Args:
            cond: (..., V, T, E).
            now: (..., V, 5, 2) the newest points.
            noise: of `draw_noise`; of several moments (..., N, V, H, 11), after what a solver needs for each step.
            views: how the cameras stand to each other; None: each is left to itself, and ``apart`` is NaN.
        """
        config, moments, (count, many) = self.config, now.shape[:-3], noise.shape[-4:-2]
        grid = self.process.grid(config.solver.steps)
        jumps = config.solver.name == "consistency"
        # the views come first, then moments, then candidates: geometry is one product a view
        flat = cond.movedim(-3, 0).unsqueeze(-3).expand(many, *moments, count, *cond.shape[-2:]).flatten(0, -3)
        first = now.flatten(-2).movedim(-2, 0).unsqueeze(-2).expand(many, *moments, count, XY)
        walk = _Walk(self.action, first.reshape(many, -1, 1, XY), noise.shape[-2], config.step == "delta")
        own = solvers.clipped(denoiser(self.process, self.net, flat, grid, jumps=jumps), self.action.limit)
        met = _Agreement(walk, own, views, config.views.agreement)
        at = noise.dim() - len(moments) - 4
        clean = solvers.solve(config.solver, met, grid, noise.movedim(-3, at).flatten(at, -3)).unflatten(0, (many, -1))
        whole = (many, *moments, count)
        shares = walk.shares(clean).unflatten(-1, (POINTS, 2)).reshape(*whole, -1, POINTS, 2)
        grasp = self.action.inverse(met.said)[..., XY].reshape(*whole, -1)
        return Tracks(shares.movedim(0, -4), grasp.movedim(0, -2), met.apart().reshape(*whole[1:], -1, POINTS))

    def _steps(self, now: Tensor, ahead: Tensor) -> Tensor:
        """Return what is learnt of points now (M, 5, 2) and ahead (M, H, 5, 2)."""
        if self.config.step == "offset":
            return ahead - now[:, None]
        return torch.diff(torch.cat([now[:, None], ahead], dim=1), dim=1)

    def _points_of(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return shares of the picture (..., V, 5, 2)."""
        pixels = torch.stack([state[keypoints_of(view)].unflatten(-1, (POINTS, 2)) for view in self.views], dim=-3)
        return (pixels + 0.5) / self.side.to(pixels.device)[:, None] * 2 - 1

    def _targets(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares (..., V, 5, 2) and grasp (..., 1) of actions (..., A), px."""
        pixels = action[..., :-1].unflatten(-1, (len(self.views), POINTS, 2))
        return (pixels + 0.5) / self.side.to(pixels.device)[:, None] * 2 - 1, action[..., -1:]

    def _look(self, images: Mapping[str, Tensor], told: Tensor, moves: Any) -> Tensor:
        """Return features (B V, T, F) of pictures {view: (B, T, H, W, 3)}: all views of one size in one batch.

        Args:
            images: as they are.
            told: (B V, T, 5, 2) the points, where the pictures are after ``moves``.
            moves: what the pictures go through; None: nothing.
        """
        made: dict[int, Tensor] = {}
        shown = [shrink(images[view], self._shrunk.get(view)) for view in self.views]
        count = len(shown[0])
        alike = itertools.groupby(sorted(range(len(shown)), key=lambda v: shown[v].shape), key=lambda v: shown[v].shape)
        for _, group in alike:
            at = list(group)
            pictures = torch.stack([shown[v] for v in at], dim=1).flatten(0, 1)  # (B G, T, H, W, 3)
            if moves is not None:
                rows = (torch.arange(count)[:, None] * len(shown) + torch.tensor(at)).flatten().to(pictures.device)
                pictures = type(moves)(*(part[rows] for part in vars(moves).values())).pictures(pictures)
            maps = self.camera.maps(pictures)
            features = self.camera.told(maps)
            if self.config.at_points:
                points = told.unflatten(0, (count, len(shown)))[:, at].flatten(0, 1)
                features = torch.cat([features, self._at_points(maps, points)], dim=-1)
            features = features.unflatten(0, (count, len(at)))
            made |= {v: features[:, k] for k, v in enumerate(at)}
        return torch.stack([made[v] for v in range(len(shown))], dim=1).flatten(0, 1)

    def _at_points(self, maps: Tensor, points: Tensor) -> Tensor:
        """Return features (M, T, F) of what maps (M, T, C, h, w) hold at points (M, T, 5, 2)."""
        there = functional.grid_sample(
            maps.flatten(0, 1).float(),
            points.flatten(0, 1)[:, None].float(),
            padding_mode="border",
            align_corners=False,
        )  # (M T, C, 1, 5)
        features: Tensor = self.at_points(there.flatten(1)).unflatten(0, points.shape[:2])
        return features

    def _alignment(self, features: Tensor, human: Tensor) -> Tensor:
        """Return the terms that draw both embodiments' features (M, T, F) together; 0 if none is wanted."""
        config, total = self.config.align, features.new_zeros(())
        if not self.training or not (config.kl or config.domain):
            return total
        newest = features[:, -1]
        hand, robot = newest[human > 0.5], newest[human <= 0.5]
        if config.kl and min(len(hand), len(robot)) > 1:
            total = total + config.kl * _divergence(hand, robot)
        if config.domain:
            said = self.domain(_Reversed.apply(newest))[:, 0]
            total = total + config.domain * functional.binary_cross_entropy_with_logits(said, human.float())
        return total

    def stats(self) -> dict[str, Any]:
        """Return the statistics of its normaliser, for people to read."""
        return {"action": self.action.stats()}


class _Walk:
    """From what is learnt to shares of the picture and back, multiplied out beforehand.

    Args:
        action: the normaliser.
        now: (V, M, 1, 10) where the tracks of M chunks start.
        steps: H.
        summed: whether a row is told from the row before, not from now.
    """

    def __init__(self, action: Normaliser, now: Tensor, steps: int, summed: bool) -> None:
        center, self._scale = action.center[..., :XY].expand(steps, -1), action.scale[..., :XY]
        if summed:
            center = center.cumsum(0)
        self._summed, self.views = summed, len(now)
        self._base = now + center  # (V, M, H, 10)
        self._back = self._scale.reciprocal()
        self._off = -self._base * self._back

    def shares(self, rows: Tensor) -> Tensor:
        """Return points (V, M, H, 10) of chunks (V, M, H, 11)."""
        ways = rows[..., :XY]
        return torch.addcmul(self._base, ways.cumsum(-2) if self._summed else ways, self._scale)

    def rows(self, shares: Tensor, grasp: Tensor) -> Tensor:
        """Return chunks (V, M, H, 11) of points (V, M, H, 10) and of the grasp as the network sees it, (V, M, H, 1)."""
        ways = torch.addcmul(self._off, shares, self._back)
        rows = torch.cat([ways, grasp], dim=-1)
        if self._summed:
            rows[..., 1:, :XY] -= ways[..., :-1, :]
        return rows


class _Agreement:
    """A denoiser whose guess for each view is drawn to what all views see together (view consistency)."""

    def __init__(self, walk: _Walk, denoise: solvers.Denoiser, views: Views | None, share: float) -> None:
        self._walk, self._denoise, self._views, self._share = walk, denoise, views, share
        self.said = torch.zeros(0)  # (V, M, H, 11), the last guess, each view's by itself

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Return the clean chunks (V M, H, 11) that x at level t came from."""
        flat = self._denoise(x, t)
        self.said = clean = flat.unflatten(0, (self._walk.views, -1))
        if self._views is None or self._share == 0:
            return flat
        said, grasp = self._walk.shares(clean), clean[..., XY:]
        points = self._views.meet(_points(said))[0].view_as(said)
        held = grasp.mean(0, keepdim=True).expand_as(grasp)
        if self._share < 1:
            points, held = said.lerp(points, self._share), grasp.lerp(held, self._share)
        return self._walk.rows(points, held).flatten(0, 1)

    def apart(self) -> Tensor:
        """Return (M, H, 5) px between what each view said by itself and what all agreed on, at the last guess."""
        said = self._walk.shares(self.said)
        if self._views is None:
            return torch.full_like(said[0, ..., :POINTS], torch.nan)
        off = self._views.agreed(_points(said))[1].view(*said.shape[:-1], POINTS)
        return off.square().mean(0).sqrt()


def _points(shares: Tensor) -> Tensor:
    """Return (V, P, 2) of (V, M, H, 10)."""
    return shares.reshape(len(shares), -1, 2)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is reversed (Ganin et al. 2016)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(first || second) of Gaussians without correlations fitted to both, (M, F) each, mean over F."""
    mean = first.mean(0), second.mean(0)
    var = first.var(0) + 1e-4, second.var(0) + 1e-4
    return 0.5 * (var[0] / var[1] + (mean[1] - mean[0]).square() / var[1] - 1 + (var[1] / var[0]).log()).mean()


def _each(values: Tensor, views: int) -> Tensor:
    """Repeat every sample's row for each view: (B, ...) to (B V, ...)."""
    return values.repeat_interleave(views, dim=0)
