"""A motion-track policy on a robot: points of its gripper in, tracks drawn in all views, tool poses out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import Camera, cameras_of, shown_by
from robopolicy.geometry.keypoints import GRASP, POINTS, TOOL_STATES, grasped, keypoints_of
from robopolicy.geometry.motion import Motion, Tool, tracks_to_poses
from robopolicy.policies.batch import plan_generator
from robopolicy.policies.normaliser import require_fitted
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.track_net import ROW, TrackNet, Tracks
from robopolicy.policies.track_views import Views
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, PolicySpec
from robopolicy.types import Observation, Plan, PlanRequest


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
        """States that all cameras can see, {name: (D,) float32}, for who has none at hand: where they all look."""
        poses = [camera.T_base_cam for camera in self.cameras.values()]
        off = [np.eye(3) - np.outer(pose[:3, 2], pose[:3, 2]) for pose in poses]
        meet = np.linalg.lstsq(sum(off), sum(o @ p[:3, 3] for o, p in zip(off, poses, strict=True)), rcond=None)[0]
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
        failure monitor, as is how far ``features`` (V, F) of the pictures show the gripper from ``points`` (V, 5, 2),
        px, where it should be seen. ``tracks`` (V, H, 5, 2) are its points, px. Steps of which the tracks tell no pose,
        because they leave the pictures or contradict each other, hold the last one that was told.

        Raises:
            ContractError: if the window has another length than ``spec.n_obs``, or the policy was never fitted.
            BehindCamera: if the gripper is behind a camera.
            TracksLost: if the tracks of the first candidate tell not even one step.
        """
        return self.plan_many([PlanRequest(window, n, previous, delay_steps, executed, generator)])[0]

    def plan_many(self, requests: Sequence[PlanRequest], *, rows: int | None = None) -> list[Plan]:
        """Plan for several environments; each plan is what `plan` says of its request."""
        for request in requests:
            if len(request.window) != self.spec.n_obs:
                raise ContractError(f"plan: a window of {len(request.window)} observations; want {self.spec.n_obs}")
        if not self._fitted:
            require_fitted({"action": self.tracks.action}, "policy")
            self._fitted = True
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return [self._plan(request) for request in requests]
        finally:
            self.train(training)

    def _plan(self, request: PlanRequest) -> Plan:
        device = self.tracks.action.center.device
        window, newest = request.window, request.window[-1]
        noise = self.tracks.draw_noise(max(request.n, 1), plan_generator(request.generator)).to(device)
        state = {name: torch.from_numpy(rows)[None].to(device) for name, rows in self._seen(window).items()}
        images = {v: torch.from_numpy(np.stack([o.images[v] for o in window]))[None].to(device) for v in self.cameras}
        cond, now = self.tracks.condition(state, images)
        views = self._views[0] = self._views[0].to(device)
        drawn = self.tracks.sample(cond, now[0], noise, views)
        pixels = views.pixels(drawn.shares.transpose(1, 2)).transpose(1, 2).cpu().numpy()  # (N, V, H, 5, 2)
        motion = self._poses(drawn, pixels, views.pixels(now[0]).cpu().numpy(), newest)
        aux = {
            "view_gap": drawn.apart[0].cpu().numpy(),
            "misfit": np.nan_to_num(motion.residual_m[0], nan=np.inf).astype(np.float32),
            "tracks": pixels[0],
            "features": cond[:, -1, :-ROW].cpu().numpy(),
            "points": views.pixels(now[0]).cpu().numpy(),
        }
        return Plan(_commands(motion, newest), cond.flatten().cpu().numpy(), aux)

    def _seen(self, window: Sequence[Observation]) -> dict[str, np.ndarray]:
        """Return the states of tracks, {name: (T, D) float32}, of what the robot says of itself."""
        position, quat, opening = (np.stack([o.state[name] for o in window]) for name in TOOL_STATES)
        points = self.config.gripper.placed(position, quat, opening[:, 0])
        shown = shown_by(self.cameras, points)
        found = {keypoints_of(view): pixels.reshape(len(window), 2 * POINTS) for view, pixels in shown.items()}
        return {name: rows.astype(np.float32) for name, rows in found.items()} | {GRASP: grasped(opening)}

    def _poses(self, drawn: Tracks, pixels: np.ndarray, origin: np.ndarray, newest: Observation) -> Motion:
        """Return the motions of N candidates; raises TracksLost if the first one tells not even a step."""
        opening = float(np.clip(newest.state["gripper"][0], 0.0, 1.0))
        commanded = 1.0 - float(grasped(np.array(opening)))
        start = Tool(newest.state["tool_pos"], newest.state["tool_quat"], opening, commanded)
        motion = tracks_to_poses(
            pixels, drawn.grasp.cpu().numpy(), list(self.cameras.values()), self.config.gripper, start, origin=origin
        )
        if motion.told[0] == 0:
            motion.require(1)
        return motion


def _commands(motion: Motion, newest: Observation) -> np.ndarray:
    """Return tool poses (N, H, 10) float32; from the step on that tells no pose, the last one that was told."""
    start = np.concatenate([newest.state["tool_pos"], newest.state["tool_quat"]])
    poses = np.concatenate([motion.position, motion.quat], axis=-1)  # (N, H, 7)
    last = np.clip(motion.told[:, None], 0, np.arange(1, poses.shape[1] + 1))  # (N, H) 0: the start
    held = np.concatenate([np.broadcast_to(start, (len(poses), 1, 7)), np.nan_to_num(poses)], axis=1)
    poses = np.take_along_axis(held, last[..., None], axis=1)
    turn = matrix_to_rot6d(quat_to_matrix(poses[..., 3:]))
    return np.concatenate([poses[..., :3], turn, motion.opening[..., None]], axis=-1).astype(np.float32)
