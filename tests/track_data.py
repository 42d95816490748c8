"""Small datasets of a robot and of a hand that do the same thing: down to a block, and shut."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import TWIN
from robopolicy.spec import TOOL_POSE, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.human import HumanEpisode, write_human
from robopolicy_data.writer import DatasetWriter

SIZE = (48, 64)
DOWN = np.array([0.0, 1.0, 0.0, 0.0])
LENGTH = 30


def look(eye, target=(0.45, 0.0, 0.1), lens=(), size=SIZE):
    """A camera at ``eye`` that looks at ``target``, z up."""
    eye, target = np.array(eye, float), np.array(target)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(ahead, right), ahead])
    pose[:3, 3] = eye
    height, width = size
    return Camera([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], pose, lens, size)


CAMERAS = {"left": look((1.1, 0.0, 0.6)), "right": look((0.45, 1.0, 0.5), lens=(-0.21, 0.07, 0.001, -0.002))}
SPEC = PolicySpec(
    cameras={view: CameraSpec(*SIZE) for view in CAMERAS},
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "gripper": StateSpec(1, ("open",))},
    action=TOOL_POSE,
    rate_hz=10.0,
)


def motion(seed):
    """Positions (T, 3), openings (T,) and the place of the block."""
    rng = np.random.default_rng(seed)
    start, end = np.array([0.45, 0, 0.2]) + rng.uniform(-0.05, 0.05, 3), np.array([0.45, 0, 0.03])
    end[:2] += rng.uniform(-0.1, 0.1, 2)
    share = np.clip(np.arange(LENGTH) / 22, 0, 1)[:, None]
    return start + (end - start) * share, np.where(np.arange(LENGTH) < 24, 1.0, 0.0), end


def pictures(points, block, colour, size=SIZE):
    """Pictures (T, H, W, 3) of one view: a block, and something at the points (T, 5, 2) px."""
    drawn = np.full((len(points), *size, 3), 90, np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    drawn[:, np.hypot(x - block[0], y - block[1]) < 4] = [40, 90, 220]
    for t, frame in enumerate(points):
        for point in frame:
            drawn[t, np.hypot(x - point[0], y - point[1]) < 2] = colour
    return drawn


def make_robot(
    folder: Path, count: int, *, seed: int = 0, calibrated=None, cameras=CAMERAS, spec=SPEC, told=None, sent_as=None,
    told_as=None,
) -> Path:  # fmt: skip
    """Record ``count`` robot episodes; the command is the next pose.

    Args:
        folder: of the dataset.
        count: episodes.
        seed: of the first.
        calibrated: the cameras whose calibration is recorded; None: all.
        cameras: where they stand.
        spec: of the recording, but for its cameras.
        told: (states, step) -> states, as they are recorded.
        sent_as: (command, step) -> command, as it is recorded.
        told_as: {view: {entry: value}}, what is recorded of its calibration in place of what is so.
    """
    told, sent_as = told or (lambda state, t: state), sent_as or (lambda sent, t: sent)
    known = {v: cameras[v].to_json() for v in (cameras if calibrated is None else calibrated)}
    known = {view: {**entry, **(told_as or {}).get(view, {})} for view, entry in known.items()}
    meta = EpisodeMeta("reach", "arm", success=True, cameras=known)
    spec = replace(spec, cameras={view: CameraSpec(*camera.size) for view, camera in cameras.items()})
    with DatasetWriter(folder, spec) as writer:
        for k in range(count):
            position, opening, block = motion(seed + k)
            shown = TWIN.placed(position, np.tile(DOWN, (LENGTH, 1)), opening)
            seen = {v: pictures(c.project(shown), c.project(block), [30, 30, 30], c.size) for v, c in cameras.items()}
            episode = writer.begin(meta)
            for t in range(LENGTH):
                stamp, ahead = t * SPEC.period_ns, min(t + 1, LENGTH - 1)
                state = {"tool_pos": position[t], "tool_quat": DOWN, "gripper": opening[t : t + 1]}
                state = told({name: value.astype(np.float32) for name, value in state.items()}, t)
                images = {view: frames[t] for view, frames in seen.items()}
                sent = np.array([*position[ahead], 1, 0, 0, 0, -1, 0, opening[ahead]], np.float32)
                observation = Observation(stamp, state, images, dict.fromkeys(images, stamp))
                episode.add(Step(observation, sent_as(sent, t), stamp + 1, "human"))
            episode.commit()
    return folder


def make_hand(folder: Path, count: int, *, seed: int = 1000, cameras=CAMERAS) -> Path:
    """Write ``count`` episodes of a hand, with other colours and another shape."""
    for k in range(count):
        position, opening, block = motion(seed + k)
        shown = TWIN.placed(position, np.tile(DOWN, (LENGTH, 1)), opening) + np.array([0.0, 0.0, 0.01])
        points = {view: camera.project(shown) for view, camera in cameras.items()}
        seen = {v: pictures(points[v], c.project(block), [220, 160, 130], c.size) for v, c in cameras.items()}
        write_human(folder, HumanEpisode(seen, points, (opening < 0.5).astype(int), cameras, 10.0),
                    EpisodeMeta("reach", "hand", success=True))  # fmt: skip
    return folder
