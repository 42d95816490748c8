"""A motion-track policy on a robot: points of its gripper in, tracks drawn in all views, tool poses out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import Camera, cameras_of, shown_by
from robopolicy.geometry.keypoints import GRASP, POINTS, TOOL_STATES, grasped, keypoints_of
from robopolicy.geometry.motion import Motion, Tool, tracks_to_poses
from robopolicy.policies.batch import filled, plan_generator
from robopolicy.policies.normaliser import require_fitted
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.track_net import TrackNet, Tracks
from robopolicy.policies.track_views import NEAR, Views
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest

AHEAD = 0.5  # m from a camera: a gripper is in front of it with all its points


class MotionTrackPolicy(nn.Module):
    """Observations in, candidate chunks of tool poses out; row 0 of a chunk belongs to the newest observation.

    Args:
        net: draws the tracks.
        spec: of the robot: the same cameras, ``tool_pos``, ``tool_quat`` and ``gripper``, tool poses as commands.
        cameras: {view: an entry of `EpisodeMeta.cameras`}: where the cameras stand, until `calibrate` says otherwise.

    Raises:
        ContractError: if the spec is no such robot's, a camera is not calibrated, or there are fewer than two.
    """

    def __init__(self, net: TrackNet, spec: PolicySpec, cameras: Mapping[str, Any]) -> None:
        super().__init__()
        missing = [name for name in TOOL_STATES if name not in spec.state]
        if missing or spec.action != TOOL_POSE or dict(spec.cameras) != dict(net.spec.cameras):
            raise ContractError(
                f"motion tracks: the robot has cameras {list(spec.cameras)}, states {list(spec.state)} and commands "
                f"{spec.action.kind}; want cameras {list(net.spec.cameras)}, states {', '.join(TOOL_STATES)}, tool_pose"
            )
        self.tracks, self.spec = net, spec
        self.companions: tuple[Any, ...] = ()
        self._fitted = False
        self.calibrate(cameras)

    @property
    def config(self) -> MotionTrackConfig:
        """What was chosen."""
        return self.tracks.config

    @property
    def likely(self) -> dict[str, np.ndarray]:
        """States that all cameras can see, {name: (D,) float32}, for who has none at hand: where they all look.

        If that is behind one, as of cameras that look a little apart, a place ahead of all: again and again straight
        into the view of the one that is farthest from it, which finds such a place if there is one (Agmon 1954). If
        there is none, `plan` says so.
        """
        poses = [camera.T_base_cam for camera in self.cameras.values()]
        off = [np.eye(3) - np.outer(pose[:3, 2], pose[:3, 2]) for pose in poses]
        meet = np.linalg.lstsq(sum(off), sum(o @ p[:3, 3] for o, p in zip(off, poses, strict=True)), rcond=None)[0]
        eyes, ways = (np.stack([pose[:3, k] for pose in poses]) for k in (3, 2))
        depth = ((meet - eyes) * ways).sum(-1)
        if depth.min() < np.linalg.norm(self.config.gripper.opened, axis=-1).max() + NEAR:
            for _ in range(1000):
                if depth.min() >= AHEAD:
                    break
                meet = meet + (AHEAD + NEAR - depth.min()) * ways[depth.argmin()]
                depth = ((meet - eyes) * ways).sum(-1)
        states = (meet, np.array([0.0, 1.0, 0.0, 0.0]), np.ones(1))
        return {name: np.asarray(value, np.float32) for name, value in zip(TOOL_STATES, states, strict=True)}

    @property
    def action(self) -> Any:
        """The normaliser of its tracks."""
        return self.tracks.action

    def calibrate(self, cameras: Mapping[str, Any]) -> None:
        """Take where the robot's cameras stand now.

        Args:
            cameras: {view: ``{"K", "T_base_cam", "distortion"}``} of the pictures it is given.

        Raises:
            UnknownCamera, ContractError: naming a view that is missing or not calibrated.
        """
        sizes = {name: (camera.height, camera.width) for name, camera in self.spec.cameras.items()}
        found = cameras_of(cameras, self.tracks.views)
        for name, camera in found.items():
            if camera.size not in (None, sizes[name]):
                raise ContractError(
                    f"camera {name!r} was calibrated for {camera.size} px (H, W), the policy sees {sizes[name]}"
                )
        self.cameras: dict[str, Camera] = {name: replace(camera, size=sizes[name]) for name, camera in found.items()}
        views = Views(list(self.cameras.values()), [sizes[name] for name in self.cameras])
        self._views = [views.to(self.tracks.action.center.device)]  # in a list: no part of the state

    def told(self) -> dict[str, Any]:
        """Return what a checkpoint's spec.json has of it besides spec and config."""
        return {
            "tracks": self.tracks.spec.to_json(),
            "cameras": {name: camera.to_json() for name, camera in self.cameras.items()},
        }

    def stats(self) -> dict[str, Any]:
        """Return the statistics of its normaliser, for people to read."""
        return self.tracks.stats()

    def set_goal(self, goal: Observation | None) -> None:
        """Motion tracks know no goals; raises ContractError if one is given."""
        if goal is not None:
            raise ContractError("motion tracks: they were trained without goals; plan without one")

    def reset(self) -> None:
        """Nothing of an episode is remembered."""

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
        """Draw ``n`` chunks from one look at the newest pictures.

        ``aux`` is of the first candidate: ``view_gap`` (H,), px between what each view said by itself and what all
        agreed on, and ``misfit`` (H,), m between the points that were agreed on and a gripper's: both are scores of a
        failure monitor, as is how far ``features`` (V, F) of whole pictures show the gripper from ``points`` (V, 5, 2),
        px, where it should be seen. ``tracks`` (V, H, 5, 2) are its points, px. Steps of which the tracks tell no pose,
        because they leave the pictures or because what the views say by themselves contradicts each other, hold the
        last one that was told.

        Raises:
            ContractError: if the window has another length than ``spec.n_obs``, or the policy was never fitted.
            BehindCamera: if the gripper is behind a camera.
            TracksLost: if the tracks of the first candidate tell not even one step.
        """
        return self.plan_many([PlanRequest(window, n, previous, delay_steps, executed, generator)])[0]

    def plan_many(self, requests: Sequence[PlanRequest], *, rows: int | None = None) -> list[Plan]:
        """Plan for several environments at once; each plan is what `plan` says of its request, but for rounding.

        Pictures of all views are encoded in one batch; tracks are drawn in one batch for those who want the same number
        of candidates, each from the noise of its own generator.

        Args:
            requests: one an environment, whose generators are its own.
            rows: every batch has so many requests, filled up or cut if need be: then it is by its shape alone that a
                plan is rounded, and not by who else asks, where `robopolicy.policies.steady.is_steady`. None: as they
                come.

        Raises:
            ContractError, BehindCamera, TracksLost: as `plan`, if there is one request for which it would; ask for the
                others anew, with their generators as they were (`robopolicy.evaluation.batched` does).
        """
        for request in requests:
            if len(request.window) != self.spec.n_obs:
                raise ContractError(f"plan: a window of {len(request.window)} observations; want {self.spec.n_obs}")
        if not requests:
            return []
        if not self._fitted:
            require_fitted({"action": self.tracks.action}, "policy")
            with torch.inference_mode(False):  # pictures lie row by row: so weights are not laid anew at every call
                self.tracks.camera.net.to(memory_format=torch.channels_last)
            self._fitted = True
        training = self.training
        if training:  # a walk over all modules, so not done for nothing
            self.eval()
        size = rows or len(requests)
        try:
            with torch.inference_mode():
                parts = [requests[at : at + size] for at in range(0, len(requests), size)]
                return [plan for part in parts for plan in self._plans(part, rows)]
        finally:
            if training:
                self.train()

    def _plans(self, requests: Sequence[PlanRequest], rows: int | None) -> list[Plan]:
        """Answer requests that fit into one batch, in their order."""
        noise = [self.tracks.draw_noise(max(one.n, 1), plan_generator(one.generator)) for one in requests]
        cond, now = self._look([one.window for one in filled(requests, rows)])
        views = self._views[0] = self._views[0].to(cond.device)
        alike: dict[int, list[int]] = defaultdict(list)
        for i, one in enumerate(requests):
            alike[max(one.n, 1)].append(i)
        plans: dict[int, Plan] = {}
        for group in alike.values():
            at = filled(group, rows)
            drawn = self.tracks.sample(
                cond[at], now[at], torch.stack([noise[i] for i in at], -5).to(cond.device), views
            )
            start = _tools([requests[i] for i in group])
            plans |= zip(group, self._lifted(drawn, now[group], cond[group].cpu().numpy(), start), strict=True)
        return [plans[i] for i in range(len(requests))]

    def _look(self, windows: Sequence[Sequence[Observation]]) -> tuple[Tensor, Tensor]:
        """Return what the network is told (B, V, T, E), and the newest points (B, V, 5, 2)."""
        device, shape = self.tracks.action.center.device, (len(windows), len(windows[0]))
        flat = [observation for window in windows for observation in window]

        def stack(arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).unflatten(0, shape).to(device)

        state = {name: stack(rows) for name, rows in self._seen(flat).items()}
        cond, now = self.tracks.condition(state, {view: stack([o.images[view] for o in flat]) for view in self.cameras})
        return cond.unflatten(0, now.shape[:2]), now

    def _seen(self, frames: Sequence[Observation]) -> dict[str, np.ndarray]:
        """Return the states of tracks, {name: (M, D) float32}, of what the robot says of itself."""
        position, quat, opening = (np.stack([o.state[name] for o in frames]) for name in TOOL_STATES)
        points = self.config.gripper.placed(position, quat, opening[:, 0])
        shown = shown_by(self.cameras, points)
        found = {keypoints_of(view): pixels.reshape(len(frames), 2 * POINTS) for view, pixels in shown.items()}
        return {name: rows.astype(np.float32) for name, rows in found.items()} | {GRASP: grasped(opening)}

    def _lifted(self, drawn: Tracks, now: Tensor, cond: np.ndarray, start: Tool) -> list[Plan]:
        """Return the plans of what was drawn for B requests, perhaps for more; raises TracksLost as `plan`.

        Args:
            drawn: from ``cond`` (B, V, T, E) on.
            now: (B, V, 5, 2).
            cond: what the network was told.
            start: where the tools are, (B, 1).
        """
        count, views = len(cond), self._views[0]
        pixels = views.pixels(drawn.shares[:count].transpose(-3, -4)).transpose(-3, -4).cpu().numpy()
        grasp, apart = drawn.grasp[:count].cpu().numpy(), drawn.apart[:count].cpu().numpy()
        points = views.pixels(now).cpu().numpy()  # (B, V, 5, 2)
        origin = np.broadcast_to(points[:, None], (*pixels.shape[:3], POINTS, 2))
        motion = tracks_to_poses(
            pixels, grasp, list(self.cameras.values()), self.config.gripper, start, origin=origin, apart=apart
        )  # (B, N)
        for k in np.flatnonzero(motion.told[:, 0] == 0):
            motion[k].require(1)
        chunks = _commands(motion, start)
        misfit = np.nan_to_num(motion.residual_m[:, 0], nan=np.inf).astype(np.float32)
        features = cond[:, :, -1, : self.config.vision.feature_dim]
        gap = np.sqrt(np.square(apart[:, 0]).mean(-1))  # (B, H)
        aux = {"view_gap": gap, "misfit": misfit, "tracks": pixels[:, 0], "features": features, "points": points}
        return [  # copies: who keeps a plan does not keep the others
            Plan(chunks[k].copy(), cond[k].flatten(), {name: each[k].copy() for name, each in aux.items()})
            for k in range(count)
        ]


def _tools(requests: Sequence[PlanRequest]) -> Tool:
    """Return where the tools are, (B, 1): one for all candidates of each.

    The gripper goes on as it was commanded last; where nobody says how that was, as it is nearer to.
    """
    newest = [one.window[-1] for one in requests]
    position, quat, opening = (np.stack([o.state[name] for o in newest])[:, None] for name in TOOL_STATES)
    opening = np.clip(opening[..., 0].astype(np.float64), 0.0, 1.0)
    commanded = 1.0 - grasped(opening).astype(np.float64)
    for row, one in zip(commanded, requests, strict=True):
        if one.executed is not None and len(one.executed) and np.isfinite(one.executed[-1][-1]):
            row[:] = np.clip(one.executed[-1][-1], 0.0, 1.0)
    return Tool(position, quat, opening, commanded)


def _commands(motion: Motion, start: Tool) -> np.ndarray:
    """Return tool poses (B, N, H, 10) float32; from the step on that tells no pose, the last one that was told.

    The gripper stays with it: what is let go there was to be let go elsewhere.
    """
    began = np.concatenate([start.position, start.quat, np.asarray(start.commanded)[..., None]], axis=-1)[:, :, None]
    poses = np.concatenate([motion.position, motion.quat, motion.opening[..., None]], axis=-1)  # (B, N, H, 8)
    last = np.clip(motion.told[..., None], 0, np.arange(1, poses.shape[-2] + 1))  # (B, N, H) 0: the start
    held = np.concatenate([np.broadcast_to(began, (*poses.shape[:2], 1, 8)), np.nan_to_num(poses)], axis=-2)
    poses = np.take_along_axis(held, last[..., None], axis=-2)
    turn = matrix_to_rot6d(quat_to_matrix(poses[..., 3:7]))
    return np.concatenate([poses[..., :3], turn, poses[..., 7:]], axis=-1).astype(np.float32)
