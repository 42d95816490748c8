"""A dataset with everything that an exchange must carry, and the comparison of two datasets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from recordings import SECOND, picture

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

SPEC = PolicySpec(
    cameras={"front": CameraSpec(24, 32), "wrist": CameraSpec(16, 16), "depth": CameraSpec(12, 16, "depth")},
    state={"q": StateSpec(3, ("rad",)), "tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
    rate_hz=12.5,
)
METAS = (
    EpisodeMeta("lift the cup", "arm", seed=3, operator="An", success=True, notes="ü", extra={"score": 0.1}),
    EpisodeMeta("put it down", "arm", embodiment="human", success=False, cameras={"front": {"K": [[1.0, 0, 0]]}}),
    EpisodeMeta("lift the cup", "arm", success=None),
)


def colour(spec: PolicySpec = SPEC) -> PolicySpec:
    """The spec without the depth camera, for formats that have none."""
    return replace(spec, cameras={name: c for name, c in spec.cameras.items() if c.kind == "colour"})


def record(path: Path, spec: PolicySpec = SPEC, *, lossless: bool = True) -> Dataset:
    """Record three episodes; the wrist camera has a new frame only every second step."""
    rng = np.random.default_rng(1)
    with DatasetWriter(path, spec, lossless=lossless) as writer:
        for number, meta in enumerate(METAS):
            episode, held = writer.begin(meta), None
            for k in range(5 + 2 * number):
                stamp = 1_700_000_000 * SECOND + k * spec.period_ns + int(rng.integers(0, 5_000_000))
                images = {n: frame(rng, c) for n, c in spec.cameras.items()}
                stamps = {n: stamp - 7_000_001 - i for i, n in enumerate(images)}
                if held is not None and k % 2 and "wrist" in images:
                    images["wrist"], stamps["wrist"] = held
                if "wrist" in images:
                    held = images["wrist"], stamps["wrist"]
                state = {n: rng.standard_normal(s.dim).astype(np.float32) for n, s in spec.state.items()}
                if "tool_quat" in state:
                    state["tool_quat"] /= np.linalg.norm(state["tool_quat"])
                action = rng.standard_normal(spec.action.dim).astype(np.float32)
                source = ("policy", "human", "hold")[k % 3]
                episode.add(Step(Observation(stamp, state, images, stamps), action, stamp + 40_000_003, source))
            episode.commit()
    return Dataset(path)


def frame(rng: np.random.Generator, camera: CameraSpec) -> np.ndarray:
    if camera.kind == "depth":
        return rng.integers(0, 5000, camera.shape, dtype=np.uint16)
    return picture(rng, camera.height, camera.width)


def require_same(ours: Dataset, back: Dataset, *, positions: tuple[int, ...] | None = None) -> None:
    """Every stream bit for bit, the spec, and the whole meta."""
    assert back.spec == ours.spec
    chosen = [ours[k] for k in (range(len(ours)) if positions is None else positions)]
    assert len(back) == len(chosen)
    for one, other in zip(chosen, back, strict=True):
        assert other.meta == one.meta
        assert other.action().tobytes() == one.action().tobytes()
        assert other.sources().tolist() == one.sources().tolist()
        for name in ours.spec.state:
            assert other.state(name).tobytes() == one.state(name).tobytes(), name
        for name in ours.spec.cameras:
            assert np.array_equal(other.images(name), one.images(name)), name
            assert other.frame_stamps_ns(name).tolist() == one.frame_stamps_ns(name).tolist(), name
            assert other.frame_rows(name).tolist() == one.frame_rows(name).tolist(), name
        for name in ("step", "action"):
            assert other.stamps_ns(name).tolist() == one.stamps_ns(name).tolist(), name


def joined(dataset: Dataset, read: str, *name: str) -> np.ndarray:
    """A stream of all episodes, one after the other."""
    return np.concatenate([getattr(episode, read)(*name) for episode in dataset])
